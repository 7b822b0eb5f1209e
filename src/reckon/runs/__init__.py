"""A run's folder: recipe, metrics, rollouts, evaluations and checkpoints; resuming is exact."""

from reckon.runs._environment import peak_memory
from reckon.runs._interrupt import Interrupt, interruptible
from reckon.runs._metrics import read_metrics
from reckon.runs._progress import Progress
from reckon.runs._run import Run
from reckon.runs._tables import (
    EVALUATIONS,
    ROLLOUTS,
    make_table,
    read_evaluations,
    read_rollouts,
    rollout_table,
    write_table,
)

__all__ = [
    "EVALUATIONS",
    "ROLLOUTS",
    "Interrupt",
    "Progress",
    "Run",
    "interruptible",
    "make_table",
    "peak_memory",
    "read_evaluations",
    "read_metrics",
    "read_rollouts",
    "rollout_table",
    "write_table",
]
