"""Pages a person looks at."""

from reckon.report._page import write_report

__all__ = ["write_report"]
