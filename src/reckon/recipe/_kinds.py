"""Which parts a recipe can name. A kind is a class's name in snake case; nothing is imported before it is asked for."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from reckon.errors import ReckonError
from reckon.recipe._document import Document, Keys, did_you_mean
from reckon.recipe._settings import dotted, located
from reckon.types import snake_case

Role: TypeAlias = Literal["task", "sampler", "keep", "reward", "advantage", "objective"]
Target: TypeAlias = Callable[..., object]


def _of(module: str, *classes: str) -> dict[str, str]:
    return {snake_case(name): f"{module}:{name}" for name in classes}


KINDS: Mapping[Role, Mapping[str, str]] = {
    "task": _of(
        "reckon.tasks",
        "LetterCount",
        "WordLength",
        "DistinctLetters",
        "Substring",
        "ChainArithmetic",
        "RunningSums",
        "Largest",
        "Rules",
        "ReasoningGym",
        "File",
        "HubDataset",
        "Mixture",
    ),
    "sampler": _of(
        "reckon.samplers",
        "Uniform",
        "FixedDomains",
        "Balanced",
        "DomainSampler",
        "DomainBuffer",
        "EasyToHard",
        "AdaptiveDifficulty",
        "Retire",
        "ByPassRate",
        "BySkill",
    ),
    "keep": _of("reckon.samplers", "All", "AccuracyBand", "DropEqual", "OnePair", "DropTruncated", "Chain"),
    "reward": _of(
        "reckon.rewards",
        "Verifier",
        "Format",
        "ThinkFormat",
        "StrictLayout",
        "Length",
        "FormatLength",
        "CosineLength",
        "OverlongPenalty",
        "RepetitionPenalty",
        "KeywordReward",
        "Containment",
        "KLReward",
        "AdaptiveKLReward",
        "Http",
        "Gate",
        "Sum",
        "Centered",
        "Probability",
        "And",
        "Or",
        "Not",
        "Linear",
        "Min",
        "Product",
        "Ensemble",
        "Clip",
        "BaseSamples",
        "Standardized",
        "MinMax",
        "NormalizeThenSum",
        "Constrained",
        "Fitted",
        "SequenceClassifier",
        "EpisodicCount",
        "GlobalCount",
        "Elliptical",
        "RandomDistillation",
        "Novelty",
        "CheckedAdvantage",
        "ExactAdvantage",
        "MonteCarloAdvantage",
        "OnlineImplicitReward",
        "OnlineReferenceBased",
        "HackMonitor",
        "AdvantageMonitor",
        "TokenOutcomeModel",
    ),
    "advantage": _of(
        "reckon.credit", "GroupNormalized", "LeaveOneOut", "BatchMean", "RunningMean", "GAE", "Streamwise", "Reshaped"
    ),
    "objective": _of(
        "reckon.losses",
        "ClippedRatio",
        "PolicyGradient",
        "ClonePositives",
        "WeightedNegatives",
        "KLPenalty",
        "EntropyBonus",
        "ValueLoss",
    ),
}


def load_kind(role: Role, kind: str) -> Target:
    """The class behind a kind of ours."""
    module, _, name = KINDS[role][kind].partition(":")
    found: Target = getattr(importlib.import_module(module), name)
    return found


def find(document: Document, keys: Keys, role: Role, kind: str) -> Target:
    """The class behind a kind, or the user's own class or function behind `file.py:name`.

    Raises:
        InputError: there is no such kind, or the user's file has no such name or cannot be imported.
    """
    if ":" in kind:
        return own_callable(document, (*keys, "kind"), kind)
    if kind not in KINDS[role]:
        near = did_you_mean(kind, list(KINDS[role]), "kinds")
        raise document.error(
            (*keys, "kind"), f"there is no {role} of kind `{kind}`. {near} Your own is written `file.py:name`."
        )
    return load_kind(role, kind)


def own_kind(document: Document, kind: str) -> str:
    """`file.py:name` with the whole path, so that it means the same from anywhere."""
    path, _, name = kind.rpartition(":")
    return f"{located(document, path).absolute()}:{name}" if path else kind


@functools.cache
def _load(spec: str, written: int) -> Target:
    """Runs the user's file once for each name and each time it was written."""
    from reckon.rewards import load_function

    return load_function(spec)


def own_callable(document: Document, keys: Keys, spec: str) -> Target:
    """What `file.py:name` names; the file is looked for beside the recipe and in the current folder.

    Raises:
        InputError: there is no such file, it cannot be imported, or it has no such name; names the place in the recipe.
    """
    located_spec = own_kind(document, spec)
    file = Path(located_spec.rpartition(":")[0])
    try:
        return _load(located_spec, file.stat().st_mtime_ns if file.is_file() else 0)
    except ReckonError as error:
        raise document.error(keys, f"`{dotted(keys)}`: {error}") from error
