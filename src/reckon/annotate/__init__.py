"""What turns cheap checks into labels: Monte-Carlo values of prefixes, agreement of verifiers, corrupted answers."""

from reckon.annotate._cost import Budget, Cost, predict_rollouts
from reckon.annotate._draw import Continues, Drawing
from reckon.annotate._pits import FirstPit, label_first_pits
from reckon.annotate._prefixes import label_prefixes, rollouts_needed
from reckon.annotate._records import (
    PREFIXES,
    Labels,
    PrefixLabel,
    Values,
    prefix_table,
    read_labels,
    records_from,
    write_labels,
)

__all__ = [
    "PREFIXES",
    "Budget",
    "Continues",
    "Cost",
    "Drawing",
    "FirstPit",
    "Labels",
    "PrefixLabel",
    "Values",
    "label_first_pits",
    "label_prefixes",
    "predict_rollouts",
    "prefix_table",
    "read_labels",
    "records_from",
    "rollouts_needed",
    "write_labels",
]
