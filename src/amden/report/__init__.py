"""What an analysis looks like: a figure, a table for the terminal, and all its numbers as JSON and CSV.

Nothing is measured here. Output depends on the analysis alone: no dates, no host.
"""

from amden.report.figures import figure
from amden.report.files import as_dict, write
from amden.report.tables import table

__all__ = ["as_dict", "figure", "table", "write"]
