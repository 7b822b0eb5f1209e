"""Exploration in contextual MDPs: bonuses for what is new, and when each works. Loads no language model."""

from reckon.explore._combine import Combined, Normalized
from reckon.explore._contexts import check_contexts
from reckon.explore._counts import EpisodicCount, GlobalCount
from reckon.explore._elliptical import Elliptical
from reckon.explore._features import InverseDynamics, PolicyFeatures, RandomFeatures
from reckon.explore._keys import key_of
from reckon.explore._learning import mlp
from reckon.explore._networks import Adversary, Impact, NoveltyDifference, RandomDistillation
from reckon.explore._presets import BONUSES, BonusSettings, Encoder, flat_encoder, named_bonus
from reckon.explore._rollout import Bonus, Features, Rollout
from reckon.explore._structure import Structure, estimate_structure, shared_structure

__all__ = [
    "BONUSES",
    "Adversary",
    "Bonus",
    "BonusSettings",
    "Combined",
    "Elliptical",
    "Encoder",
    "EpisodicCount",
    "Features",
    "GlobalCount",
    "Impact",
    "InverseDynamics",
    "Normalized",
    "NoveltyDifference",
    "PolicyFeatures",
    "RandomDistillation",
    "RandomFeatures",
    "Rollout",
    "Structure",
    "check_contexts",
    "estimate_structure",
    "flat_encoder",
    "key_of",
    "mlp",
    "named_bonus",
    "shared_structure",
]
