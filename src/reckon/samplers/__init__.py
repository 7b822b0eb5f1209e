"""Which problems to pose, which answers to keep, and how both make a batch."""

from reckon.samplers._by_difficulty import AdaptiveDifficulty, EasyToHard
from reckon.samplers._by_domain import DomainBuffer, DomainSampler
from reckon.samplers._by_pass_rate import ByPassRate
from reckon.samplers._by_skill import BySkill
from reckon.samplers._collect import Verify, collect, collect_metrics, concatenate
from reckon.samplers._fixed_domains import Balanced, FixedDomains
from reckon.samplers._keep import AccuracyBand, All, Chain, DropEqual, DropTruncated, OnePair
from reckon.samplers._retire import Retire
from reckon.samplers._uniform import Uniform
from reckon.samplers._weights import domain_counts, domain_weights
from reckon.types import Refill

__all__ = [
    "AccuracyBand",
    "AdaptiveDifficulty",
    "All",
    "Balanced",
    "ByPassRate",
    "BySkill",
    "Chain",
    "DomainBuffer",
    "DomainSampler",
    "DropEqual",
    "DropTruncated",
    "EasyToHard",
    "FixedDomains",
    "OnePair",
    "Refill",
    "Retire",
    "Uniform",
    "Verify",
    "collect",
    "collect_metrics",
    "concatenate",
    "domain_counts",
    "domain_weights",
]
