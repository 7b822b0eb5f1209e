"""Pages a person looks at."""

from reckon.report._page import write_report
from reckon.report._signals import write_signals

__all__ = ["write_report", "write_signals"]
