"""Which problems to pose, which answers to keep, and how both make a batch."""

from reckon.samplers._collect import Verify, collect, collect_metrics, concatenate
from reckon.samplers._keep import AccuracyBand, All, Chain, DropEqual, DropTruncated
from reckon.samplers._uniform import Uniform
from reckon.types import Refill

__all__ = [
    "AccuracyBand",
    "All",
    "Chain",
    "DropEqual",
    "DropTruncated",
    "Refill",
    "Uniform",
    "Verify",
    "collect",
    "collect_metrics",
    "concatenate",
]
