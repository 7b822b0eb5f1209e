"""What can be fitted by name: which rows each kind takes, which settings it reads, and its loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_origin, get_type_hints

from reckon.errors import InputError
from reckon.fit._checks import check_choice
from reckon.fit._draw import Balance
from reckon.fit._likelihood import KTO, SFT, FitLoss, ImplicitCE, Preference, StepRewards
from reckon.fit._read import Shape
from reckon.fit._scores import BradleyTerry, OutcomeBCE, OutcomeSteps, PrefixValues, StepLabels
from reckon.fit._staged import StagedOutcome
from reckon.models import Lora, check_sync
from reckon.rewards import format_reference_based, question_of
from reckon.steps import Pattern
from reckon.types import Problem

if TYPE_CHECKING:
    from reckon.fit._reference import CachedReference

Kind: TypeAlias = Literal[
    "sft",
    "dpo",
    "dpo-norm",
    "ipo",
    "simpo",
    "nca",
    "kto",
    "implicit-ce",
    "implicit-steps",
    "outcome-bt",
    "outcome-bce",
    "outcome-steps",
    "process",
    "value",
    "staged",
]
# The reward that `reckon.rewards.load_judge` makes of the model; None = a policy, or nothing that scores by itself.
JudgeKind: TypeAlias = Literal[
    "implicit_reward", "outcome_model", "reference_based", "step_model", "step_advantage", "staged_reward"
]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to fit. A setting that the kind does not read must be left at its default."""

    beta: float | None = None  # None = the kind's own: 0.05 for implicit rewards, 2 for simpo, 5 for dpo-norm, else 0.1
    reference: str = "start"  # the model as it begins, "none", or the name of another model with the same tokenizer
    # dpo, dpo-norm, ipo, nca, kto: optimizer steps after which the reference becomes `sync_alpha` times the model plus
    # 1 - `sync_alpha` times itself (TR-DPO, arXiv:2404.09656, has 512 and 0.6); None = it stays.
    sync_every: int | None = None
    sync_alpha: float = 0.6
    smoothing: float = 0.0  # dpo, dpo-norm, simpo: share of pairs thought to be the wrong way round
    gamma: float = 0.6  # simpo: by how much the winner should lead
    desirable: float = 1.0  # kto: weight of right responses
    undesirable: float = 1.0  # kto: weight of wrong ones
    step_loss: Literal["ce", "mse", "sign"] = "ce"  # implicit-steps
    center: float = 0.0  # outcome-bt: holds the scores of a pair around 0; 0.01 is usual
    show_reference: bool = False  # outcome-bt, outcome-bce: the model is shown the reference answer (VerifyRM)
    balance: Balance = "none"  # right and wrong rows: implicit-ce, kto, outcome-bce, outcome-steps
    pairs: Literal["cross", "best_vs_random"] = "cross"  # how unpaired rows become pairs
    cap: int | None = None  # most pairs of a prompt made of unpaired rows
    splitter: str = r"\n+"  # outcome-steps, and what judges of steps split by: where a step ends
    separator: str = "\n"  # put between given steps
    buckets: bool = True  # value: prefixes below and above 0.5 equally often
    calibrate: bool = True  # value: temperature and bias from the rows held back
    stages: tuple[str, ...] = ()  # staged: their names in order, lowest first, where rows have names and not counts
    stage_of: str | None = None  # staged: `file.py:name`, (problem, text) to a stage, for rows without one
    worth: tuple[float, ...] | None = None  # staged: of each stage, as the score; None = the last one's log-odds
    folds: int = 5  # staged: of the cross-validation that chooses the penalty
    dev: float = 0.1  # share of prompts held back
    prompts: float = 1.0  # share of the others that is learned from, drawn at random
    responses: int | None = None  # most responses to a prompt, drawn likewise before pairs are made; all but value
    on_bad: Literal["error", "drop"] = "error"  # rows that cannot be used
    on_long: Literal["error", "drop"] = "error"  # rows longer than the context; nothing is ever cut
    together: bool = False  # rows of a prompt follow each other, so that it is computed once for those of a step
    epochs: int = 1
    batch: int = 32
    lr: float = 1e-5
    head_lr: float | None = None  # of a value head, which begins at zero; None = `lr`
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: float = 0.03  # share of the steps
    seed: int = 0
    evaluate_every: int = 20
    save_every: int = 100
    lora: Lora | None = None
    system: str | None = None  # system message before every prompt
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    tokens_per_batch: int = 1024
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal:
                check_choice(name, getattr(self, name), hint)
        if self.head_lr is not None and not 0 <= self.head_lr < math.inf:
            raise InputError(f"`head_lr` is {self.head_lr}, but must be at least 0, and finite.")
        if not 0 < self.prompts <= 1:
            raise InputError(f"`prompts` is {self.prompts}, but it is a share of the prompts: above 0 and at most 1.")
        if self.responses is not None and self.responses < 1:
            raise InputError(f"`responses` is {self.responses}, but must be at least 1 response to a prompt.")
        check_sync(self.sync_every, self.sync_alpha)
        if self.sync_every is not None and self.reference != "start":
            raise InputError(
                f"`sync_every` moves the reference along with the model that it was, and `reference` is "
                f"{self.reference!r}. Leave it at 'start', or leave `sync_every` out."
            )
        if self.sync_every is None and self.sync_alpha != type(self).sync_alpha:
            raise InputError("`sync_alpha` says how a reference is moved, and none is. Give `sync_every` too.")
        _check_stages(self.stages)
        if not 0 <= self.warmup < 1:
            raise InputError(f"`warmup` is {self.warmup}, but it is a share of the steps: at least 0 and below 1.")


def _check_stages(names: tuple[str, ...]) -> None:
    """Raises InputError for names that are given twice, or that a row could mean as a count."""
    counts = [name for name in names if str(name).strip().isdigit()]
    if counts or len(set(names)) < len(names):
        what = f"{counts[0]!r} reads as a count" if counts else "a name comes twice"
        raise InputError(
            f"`stages` are {list(names)}: {what}. Give each stage a name of its own, lowest first, or leave `stages` "
            "out where rows have counts from 0."
        )


@dataclass(frozen=True)
class Entry:
    """One kind."""

    shape: Shape
    judge: JudgeKind | None
    reads: tuple[str, ...]  # the settings it reads beyond those that all kinds read
    make: Callable[[Settings, CachedReference | None], FitLoss]
    beta: float = 0.0
    head: bool = False
    least: int = 1  # rows to a mini-batch
    solved: bool = False  # True = on the model as it is, at once: none of `LEARNING` is read

    def loss(self, settings: Settings, reference: CachedReference | None) -> FitLoss:
        """The loss, with the kind's own beta where none is set."""
        beta = self.beta if settings.beta is None else settings.beta
        return self.make(dataclasses.replace(settings, beta=beta), reference)


def _beta(settings: Settings) -> float:
    assert settings.beta is not None
    return settings.beta


def _kto(settings: Settings, reference: CachedReference | None) -> FitLoss:
    if reference is None:
        raise InputError("kto needs a reference. Leave `reference` at 'start', or name a model.")
    return KTO(
        reference=reference,
        beta=_beta(settings),
        desirable=settings.desirable,
        undesirable=settings.undesirable,
    )


def shown(settings: Settings) -> Callable[[Problem, str], str] | None:
    """How problem and response become one text, where the model is shown the reference answer."""
    if not settings.show_reference:
        return None

    def read(problem: Problem, text: str) -> str:
        if problem.answer is None:
            raise InputError(
                f"problem {problem.id!r} has no reference answer to show. Give a column `answer`, or drop the row."
            )
        return format_reference_based(question_of(problem), problem.answer, text)

    return read


_MOVES = ("reference", "sync_every", "sync_alpha")
_MADE = ("pairs", "cap", "responses")  # how pairs are made of labelled responses
_PAIRED = ("beta", *_MOVES, *_MADE)

KINDS: Mapping[Kind, Entry] = {
    "sft": Entry("imitation", None, ("responses",), lambda s, r: SFT()),
    "dpo": Entry(
        "paired",
        "implicit_reward",
        (*_PAIRED, "smoothing", "splitter"),
        lambda s, r: Preference(reference=r, beta=_beta(s), smoothing=s.smoothing),
        beta=0.1,
    ),
    "dpo-norm": Entry(
        "paired",
        "implicit_reward",
        (*_PAIRED, "smoothing", "splitter"),
        lambda s, r: Preference(kind="dpo_norm", reference=r, beta=_beta(s), smoothing=s.smoothing),
        beta=5.0,
    ),
    "ipo": Entry(
        "paired",
        "implicit_reward",
        (*_PAIRED, "splitter"),
        lambda s, r: Preference(kind="ipo", reference=r, beta=_beta(s)),
        beta=0.1,
    ),
    "simpo": Entry(
        "paired",
        None,
        ("beta", *_MADE, "smoothing", "gamma"),
        lambda s, r: Preference(kind="simpo", beta=_beta(s), smoothing=s.smoothing, gamma=s.gamma),
        beta=2.0,
    ),
    "nca": Entry(
        "paired",
        "implicit_reward",
        (*_PAIRED, "splitter"),
        lambda s, r: Preference(kind="nca", reference=r, beta=_beta(s)),
        beta=0.1,
    ),
    "kto": Entry(
        "unpaired",
        "implicit_reward",
        ("beta", *_MOVES, "desirable", "undesirable", "balance", "responses", "splitter"),
        _kto,
        beta=0.1,
        least=KTO.least,
    ),
    "implicit-ce": Entry(
        "unpaired",
        "implicit_reward",
        ("beta", "reference", "balance", "responses", "splitter"),
        lambda s, r: ImplicitCE(reference=r, beta=_beta(s)),
        beta=0.05,
    ),
    "implicit-steps": Entry(
        "stepwise",
        "implicit_reward",
        ("beta", "reference", "responses", "separator", "step_loss", "splitter"),
        lambda s, r: StepRewards(reference=r, beta=_beta(s), how=s.step_loss),
        beta=0.05,
    ),
    "outcome-bt": Entry(
        "paired",
        "outcome_model",
        (*_MADE, "center", "show_reference", "head_lr"),
        lambda s, r: BradleyTerry(center=s.center, read=shown(s)),
        head=True,
    ),
    "outcome-bce": Entry(
        "unpaired",
        "outcome_model",
        ("balance", "responses", "show_reference", "head_lr"),
        lambda s, r: OutcomeBCE(read=shown(s)),
        head=True,
    ),
    "outcome-steps": Entry(
        "unpaired",
        "step_model",
        ("balance", "responses", "splitter", "head_lr"),
        lambda s, r: OutcomeSteps(splitter=Pattern(s.splitter)),
        head=True,
    ),
    "process": Entry(
        "stepwise",
        "step_model",
        ("responses", "separator", "splitter", "head_lr"),
        lambda s, r: StepLabels(),
        head=True,
    ),
    "value": Entry(
        "prefix",
        "step_advantage",
        ("separator", "buckets", "calibrate", "splitter", "head_lr"),
        lambda s, r: PrefixValues(),
        head=True,
    ),
    "staged": Entry(
        "staged",
        "staged_reward",
        ("responses", "stages", "stage_of", "worth", "folds"),
        lambda s, r: StagedOutcome(),
        solved=True,
    ),
}
# How a model learns step by step.
LEARNING = (
    "together",
    "epochs",
    "batch",
    "lr",
    "schedule",
    "warmup",
    "evaluate_every",
    "save_every",
    "lora",
    "activation_checkpointing",
)
_SOME_READ = {name for entry in KINDS.values() for name in entry.reads}


def entry_of(kind: str, settings: Settings) -> Entry:
    """A kind by name, its settings checked.

    Raises:
        InputError: there is no such kind, or a setting was given that it does not read.
    """
    entry = next((entry for name, entry in KINDS.items() if name == kind), None)
    if entry is None:
        raise InputError(f"{kind!r} cannot be fitted. Choose one of: {', '.join(KINDS)}.")
    for setting in dataclasses.fields(settings):
        if entry.solved and setting.name in LEARNING and getattr(settings, setting.name) != setting.default:
            raise InputError(
                f"`{setting.name}` is how a model learns step by step, and {kind!r} solves for a head of the model as "
                "it is. Leave it out."
            )
        unread = setting.name in _SOME_READ and setting.name not in entry.reads
        if unread and getattr(settings, setting.name) != setting.default:
            readers = ", ".join(name for name, other in KINDS.items() if setting.name in other.reads)
            raise InputError(f"`{setting.name}` is not a setting of {kind!r}, but of {readers}. Leave it out.")
    return entry
