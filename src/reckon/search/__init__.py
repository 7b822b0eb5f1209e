"""Choosing among responses, and searching for one step by step."""

from reckon.search._beam import Beam, Continues, HeadValues, Searched, Values, beam_search
from reckon.search._select import (
    best_of_n,
    expected_best_of_n,
    expected_vote,
    vote,
    vote_scale,
    vote_weights,
)
from reckon.search._table import BestOfN, Curve, best_of_n_table, table_sizes

__all__ = [
    "Beam",
    "BestOfN",
    "Continues",
    "Curve",
    "HeadValues",
    "Searched",
    "Values",
    "beam_search",
    "best_of_n",
    "best_of_n_table",
    "expected_best_of_n",
    "expected_vote",
    "table_sizes",
    "vote",
    "vote_scale",
    "vote_weights",
]
