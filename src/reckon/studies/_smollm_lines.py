"""Step advantages by rule, under the names of their settings that the cells of signals-on-smollm were run with."""

from __future__ import annotations

from reckon.rewards import CheckedAdvantage
from reckon.types import Task


class ExactSteps(CheckedAdvantage):
    """What each line of a running sum did to a prover that gets every further line right with probability `line`."""

    def __init__(self, task: Task, line: float, prover_k: int = 1) -> None:
        super().__init__(task, skill=line, prover_k=prover_k)
