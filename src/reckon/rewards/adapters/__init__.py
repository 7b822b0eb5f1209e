"""Rewards to and from TRL, verl, OpenRLHF and verifiers. Importing this imports none of them."""

from reckon.rewards.adapters._batch import Given, batch_of
from reckon.rewards.adapters._openrlhf import OpenRLHFFunction, OpenRLHFReward, from_openrlhf, to_openrlhf
from reckon.rewards.adapters._rows import rows_of
from reckon.rewards.adapters._trl import TrlFunction, TrlReward, from_trl, to_trl, to_trl_parts
from reckon.rewards.adapters._verifiers import VerifiersFunction, from_verifiers, to_verifiers
from reckon.rewards.adapters._verl import VerlFunction, VerlScore, from_verl, to_verl

__all__ = [
    "Given",
    "OpenRLHFFunction",
    "OpenRLHFReward",
    "TrlFunction",
    "TrlReward",
    "VerifiersFunction",
    "VerlFunction",
    "VerlScore",
    "batch_of",
    "from_openrlhf",
    "from_trl",
    "from_verifiers",
    "from_verl",
    "rows_of",
    "to_openrlhf",
    "to_trl",
    "to_trl_parts",
    "to_verifiers",
    "to_verl",
]
