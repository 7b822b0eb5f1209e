"""Exploration in contextual MDPs: bonuses for what is new, and when each works. Loads no language model.

Bonuses, networks and worlds need NumPy and torch alone. What steps environments needs Gymnasium, and is imported when
it is first used.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from reckon.errors import MissingError
from reckon.explore._combine import Combined, Normalized
from reckon.explore._contexts import check_contexts
from reckon.explore._counts import EpisodicCount, GlobalCount
from reckon.explore._elliptical import Elliptical
from reckon.explore._features import InverseDynamics, PolicyFeatures, RandomFeatures
from reckon.explore._glyphs import Encoded, GlyphEncoder, GlyphLayout, glyph_encoder
from reckon.explore._keys import key_of
from reckon.explore._learning import mlp
from reckon.explore._networks import Adversary, Impact, NoveltyDifference, RandomDistillation
from reckon.explore._policies import FeedForward, Network, Recurrent
from reckon.explore._ppo import PPO, Agent
from reckon.explore._presets import BONUSES, BonusSettings, Encoder, Novelty, flat_encoder, named_bonus
from reckon.explore._rollout import Bonus, Features, Rollout
from reckon.explore._structure import Structure, estimate_structure, shared_structure
from reckon.explore._worlds import GridWorld, StarWorld, Values, World, lava_trail, rooms, star

if TYPE_CHECKING:
    from reckon.explore._album import Album
    from reckon.explore._collect import Collected, Collector
    from reckon.explore._command import Explored, Settings, make_environments, resume_explore, run_explore
    from reckon.explore._diagnose import WALKED, Diagnosis, diagnose
    from reckon.explore._environments import FiniteContexts, WorldEnv, WorldVector
    from reckon.explore._loop import Plan, explore, explore_step
    from reckon.explore._minihack import MINIHACK_TASKS, MiniHackVector

__all__ = [
    "BONUSES",
    "MINIHACK_TASKS",
    "PPO",
    "WALKED",
    "Adversary",
    "Agent",
    "Album",
    "Bonus",
    "BonusSettings",
    "Collected",
    "Collector",
    "Combined",
    "Diagnosis",
    "Elliptical",
    "Encoded",
    "Encoder",
    "EpisodicCount",
    "Explored",
    "Features",
    "FeedForward",
    "FiniteContexts",
    "GlobalCount",
    "GlyphEncoder",
    "GlyphLayout",
    "GridWorld",
    "Impact",
    "InverseDynamics",
    "MiniHackVector",
    "Network",
    "Normalized",
    "Novelty",
    "NoveltyDifference",
    "Plan",
    "PolicyFeatures",
    "RandomDistillation",
    "RandomFeatures",
    "Recurrent",
    "Rollout",
    "Settings",
    "StarWorld",
    "Structure",
    "Values",
    "World",
    "WorldEnv",
    "WorldVector",
    "check_contexts",
    "diagnose",
    "estimate_structure",
    "explore",
    "explore_step",
    "flat_encoder",
    "glyph_encoder",
    "key_of",
    "lava_trail",
    "make_environments",
    "mlp",
    "named_bonus",
    "resume_explore",
    "rooms",
    "run_explore",
    "shared_structure",
    "star",
]
_LATE = {
    "Album": "_album",
    "Collected": "_collect",
    "Collector": "_collect",
    "Diagnosis": "_diagnose",
    "Explored": "_command",
    "FiniteContexts": "_environments",
    "MiniHackVector": "_minihack",
    "Plan": "_loop",
    "Settings": "_command",
    "WALKED": "_diagnose",
    "MINIHACK_TASKS": "_minihack",
    "WorldEnv": "_environments",
    "WorldVector": "_environments",
    "diagnose": "_diagnose",
    "explore": "_loop",
    "explore_step": "_loop",
    "make_environments": "_command",
    "resume_explore": "_command",
    "run_explore": "_command",
}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module 'reckon.explore' has no attribute {name!r}")
    if find_spec("gymnasium") is None:
        raise MissingError(
            f"reckon.explore.{name} needs gymnasium, which is not installed. Run: pip install 'reckon-rl[explore]'"
        )
    return getattr(import_module(f"reckon.explore.{_LATE[name]}"), name)


if find_spec("gymnasium") is not None:
    from reckon.explore._register import register

    register()
