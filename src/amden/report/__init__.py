"""What an analysis looks like: figures, a page in HTML, a table for the terminal, and all its numbers as JSON and CSV.

Nothing is measured here. Output depends on the analysis and on what is said about it alone: no dates, no host.
"""

from amden.report.about import About
from amden.report.figures import figure, figures
from amden.report.files import as_dict, write
from amden.report.tables import table

__all__ = ["About", "as_dict", "figure", "figures", "table", "write"]
