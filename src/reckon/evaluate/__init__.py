"""How good a policy is, how sure that is, and whether it got better."""

from reckon.evaluate._compare import Comparison, compare
from reckon.evaluate._evaluate import Answers, Evaluation, evaluate
from reckon.evaluate._statistics import (
    Constant,
    Difference,
    Interval,
    best_constant,
    majority_vote,
    mcnemar,
    paired_difference,
    pass_at_k,
    t_quantile,
    wilson,
)
from reckon.evaluate._summary import Response, summarize

__all__ = [
    "Answers",
    "Comparison",
    "Constant",
    "Difference",
    "Evaluation",
    "Interval",
    "Response",
    "best_constant",
    "compare",
    "evaluate",
    "majority_vote",
    "mcnemar",
    "paired_difference",
    "pass_at_k",
    "summarize",
    "t_quantile",
    "wilson",
]
