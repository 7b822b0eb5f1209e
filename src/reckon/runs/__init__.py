"""A run's folder: recipe, metrics, rollouts, evaluations and checkpoints; resuming is exact. Files of responses."""

from reckon.runs._environment import peak_memory
from reckon.runs._interrupt import interruptible
from reckon.runs._metrics import read_metrics
from reckon.runs._progress import Progress
from reckon.runs._recipe import recipe_text
from reckon.runs._responses import Responses, Signal, label_responses, read_responses
from reckon.runs._responses_score import Tokenize, reader_of, score_responses, tokenize_with
from reckon.runs._responses_write import write_responses
from reckon.runs._run import Run
from reckon.runs._tables import (
    EVALUATIONS,
    ROLLOUTS,
    make_table,
    read_evaluations,
    read_rollouts,
    rollout_table,
)

__all__ = [
    "EVALUATIONS",
    "ROLLOUTS",
    "Progress",
    "Responses",
    "Run",
    "Signal",
    "Tokenize",
    "interruptible",
    "label_responses",
    "make_table",
    "peak_memory",
    "read_evaluations",
    "read_metrics",
    "read_responses",
    "read_rollouts",
    "reader_of",
    "recipe_text",
    "rollout_table",
    "score_responses",
    "tokenize_with",
    "write_responses",
]
