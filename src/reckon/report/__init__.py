"""Pages a person looks at, and what a step of a run takes."""

from reckon.report._costs import Costs, costs
from reckon.report._page import write_report
from reckon.report._plan import write_plan
from reckon.report._signals import write_signals

__all__ = ["Costs", "costs", "write_plan", "write_report", "write_signals"]
