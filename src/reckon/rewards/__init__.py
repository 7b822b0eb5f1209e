"""Rewards: rollouts in, streams out. Each stays a stream of its own until credit is given."""

from reckon.rewards._function import Function, RewardFunction, load_function
from reckon.rewards._http import Http
from reckon.rewards._leaves import KLReward, Verifier
from reckon.rewards._length import CosineLength, FormatLength, Length, OverlongPenalty
from reckon.rewards._metrics import reward_metrics
from reckon.rewards._text import Containment, Format, KeywordReward, RepetitionPenalty, StrictLayout, ThinkFormat
from reckon.rewards._tree import Gate, Sum, as_reward

__all__ = [
    "Containment",
    "CosineLength",
    "Format",
    "FormatLength",
    "Function",
    "Gate",
    "Http",
    "KLReward",
    "KeywordReward",
    "Length",
    "OverlongPenalty",
    "RepetitionPenalty",
    "RewardFunction",
    "StrictLayout",
    "Sum",
    "ThinkFormat",
    "Verifier",
    "as_reward",
    "load_function",
    "reward_metrics",
]
