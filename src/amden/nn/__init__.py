"""Networks: the multi-channel EGNN on bare tensors and the denoisers built around it."""
