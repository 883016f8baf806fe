"""Analysis of structures, wherever they come from: it knows nothing of the models."""
