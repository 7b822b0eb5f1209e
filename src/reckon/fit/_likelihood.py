"""Losses on the log-probs of responses: imitation, implicit rewards, preferences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from reckon import preferences
from reckon.errors import InputError
from reckon.fit import _layout
from reckon.fit._checks import check_choice
from reckon.fit._reference import CachedReference
from reckon.fit._rows import Example, Paired, Stepwise, Unpaired
from reckon.tasks import prompt_key
from reckon.types import Columns, Outputs, Sequences, Want

if TYPE_CHECKING:
    from reckon.models import LanguageModel

Diagnostics: TypeAlias = Mapping[str, Tensor]
LOGPROBS: tuple[Want, ...] = ("logprobs",)
_Row = TypeVar("_Row")


class FitLoss(Protocol):
    """What offline learning minimizes, and which rows it takes."""

    @property
    def want(self) -> tuple[Want, ...]:
        """The outputs `__call__` reads."""
        ...

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """A mini-batch as sequences, with all the loss needs beside the outputs: denominators are of the whole of it.

        Called without gradients, just before the step, with the model as it is then.
        """
        ...

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """The loss of a micro-batch's rows, already divided: summed over a mini-batch it is its mean."""
        ...

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """Numbers to report, divided alike."""
        ...


def only(kind: type[_Row], rows: Sequence[Example], loss: object) -> Sequence[_Row]:
    """The rows, known to be of one kind.

    Raises:
        InputError: they are not.
    """
    for row in rows:
        if not isinstance(row, kind):
            raise InputError(
                f"{type(loss).__name__} learns from rows of kind {kind.__name__}, not {type(row).__name__}. Give it "
                "other rows, or take another loss."
            )
    return rows  # type: ignore[return-value]  # all of them were looked at


def labels_of(rows: Sequence[Unpaired], loss: object) -> list[float]:
    """The labels of rows.

    Raises:
        InputError: one is not known.
    """
    for row in rows:
        if row.label is None:
            raise InputError(
                f"{type(loss).__name__} needs a label, and the response to problem {row.problem.id!r} has none. "
                "Drop the row, or label it."
            )
    return [row.label for row in rows if row.label is not None]


@dataclass(frozen=True, kw_only=True)
class SFT:
    """Supervised fine-tuning: makes given responses likelier, each token of a mini-batch counting the same.

    Rows: `Unpaired`; labels are not read.
    """

    want: ClassVar[tuple[Want, ...]] = LOGPROBS

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """Each token's share is 1 / tokens of the mini-batch."""
        seq, _ = _unpaired(model, only(Unpaired, rows, self))
        return seq, {"share": seq.mask / seq.mask.sum()}

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T]."""
        assert outputs.logprobs is not None
        return -outputs.logprobs * columns["share"]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """Nothing beside the loss."""
        return {}


@dataclass(frozen=True, kw_only=True)
class ImplicitCE:
    """The implicit process reward from right and wrong responses (Yuan et al. 2024, arXiv:2412.01981, section 3).

    Rows: `Unpaired` with labels. The loss never nears 0: the mean of exp(reward / beta) under the reference is 1
    whatever is learned, so that right responses can hardly rise. Read rankings off it, not probabilities.
    """

    reference: CachedReference | None = None  # None: without, as in the paper's ablation
    beta: float = 0.05
    want: ClassVar[tuple[Want, ...]] = LOGPROBS

    def __post_init__(self) -> None:
        check_beta(self, self.beta)

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """Labels, reference log-probs and each row's share."""
        found = only(Unpaired, rows, self)
        labels = labels_of(found, self)
        seq, order = _unpaired(model, found)
        return seq, _columns(seq, self.reference) | {"label": _tensor(seq, [labels[place] for place in order])}

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n]."""
        return preferences.outcome_ce(self.beta * _ratios(outputs, columns), columns["label"]) * columns["share"]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """The mean reward, and how often its sign agrees with the label."""
        return _rewards(self.beta * _ratios(outputs, columns), columns)


@dataclass(frozen=True, kw_only=True)
class KTO:
    """Kahneman-Tversky optimization on right and wrong responses (Ethayarajh et al. 2024, arXiv:2402.01306).

    Rows: `Unpaired` with labels. Its reference point is measured on mismatched pairs inside the mini-batch, each prompt
    with the response to the next other one, so a row's loss depends on its batch: the only loss here of which that is
    true. In a mini-batch of one prompt it is the next response.
    """

    reference: CachedReference
    beta: float = 0.1
    desirable: float = 1.0
    undesirable: float = 1.0
    want: ClassVar[tuple[Want, ...]] = LOGPROBS
    least: ClassVar[int] = 2  # rows to a mini-batch

    def __post_init__(self) -> None:
        check_beta(self, self.beta)
        for name in ("desirable", "undesirable"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(
                    f"KTO: `{name}` is {getattr(self, name)}, but a weight must be at least 0, and finite."
                )

    def check(self, model: LanguageModel, rows: Sequence[Example]) -> None:
        """Raises InputError if some prompt and another one's response do not fit the context together."""
        found = only(Unpaired, rows, self)
        rooms = [room for row in found if (room := model.room(row.problem)) is not None]
        longest = max((len(model.response_tokens(row.text, ended=row.ended)) for row in found), default=0)
        if rooms and longest > min(rooms):
            raise InputError(
                f"KTO reads each prompt with the response to another one: the longest response has {longest} tokens, "
                f"and beside the longest prompt the model's context has room for {max(min(rooms), 0)}. Leave out the "
                "rows with the longest prompts or responses, or take a loss that reads no such pairs: ImplicitCE."
            )

    def remember(self, model: LanguageModel, rows: Sequence[Example]) -> None:
        """Has the reference read the rows, which are kept; mismatched pairs are of a mini-batch and never are."""
        seq, _ = _unpaired(model, only(Unpaired, rows, self))
        self.reference.logprobs(seq)

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """As `ImplicitCE`, and the reference point under the model as it is."""
        found = only(Unpaired, rows, self)
        if len(found) < self.least:
            raise InputError(
                f"KTO needs at least 2 rows to a mini-batch and got {len(found)}: it compares each with another. "
                "Raise `batch`, or measure on more rows."
            )
        labels = labels_of(found, self)
        mismatched, _ = _layout.texts(
            model, [(row.problem, other.text, other.ended) for row, other in zip(found, _others(found), strict=True)]
        )
        now = model.outputs(mismatched).logprobs
        assert now is not None
        then = self.reference.logprobs(mismatched, keep=False)
        kl = preferences.kto_kl(preferences.response_logratio(now, then, mismatched.mask))
        seq, order = _unpaired(model, found)
        columns = _columns(seq, self.reference) | {"label": _tensor(seq, [labels[place] for place in order])}
        return seq, columns | {"kl": kl.expand(len(order))}

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n]."""
        loss = preferences.kto(
            _ratios(outputs, columns),
            columns["label"],
            columns["kl"],
            self.beta,
            desirable=self.desirable,
            undesirable=self.undesirable,
        )
        return loss * columns["share"]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """As `ImplicitCE`, and the reference point."""
        rewards = _rewards(self.beta * _ratios(outputs, columns), columns)
        return {**rewards, "kl": (columns["kl"] * columns["share"]).sum()}


PairLoss = Literal["dpo", "dpo_norm", "ipo", "simpo", "nca"]
StepLoss = Literal["ce", "mse", "sign"]


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two responses to a prompt, told apart by their log-ratios: DPO and its kin.

    Rows: `Paired`. "dpo" (with `smoothing` conservative DPO), "dpo_norm" (means over tokens; wants a beta tens of times
    larger), "ipo", "nca", and "simpo", which takes no reference. See `reckon.preferences` for each.
    """

    kind: PairLoss = "dpo"
    reference: CachedReference | None = None  # None: without; always so for simpo
    beta: float = 0.1
    smoothing: float = 0.0  # share of pairs thought to be the wrong way round; dpo, dpo_norm and simpo
    gamma: float = 0.0  # simpo's margin
    want: ClassVar[tuple[Want, ...]] = LOGPROBS
    whole_groups: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_beta(self, self.beta)
        check_choice("kind", self.kind, PairLoss)
        if not 0 <= self.smoothing < 0.5:
            raise InputError(f"Preference: `smoothing` is {self.smoothing}, but must be at least 0 and below 0.5.")
        for name, kinds in (("smoothing", ("dpo", "dpo_norm", "simpo")), ("gamma", ("simpo",))):
            if getattr(self, name) and self.kind not in kinds:
                raise InputError(f"Preference: `{name}` is set, but the loss {self.kind!r} has none. Leave it out.")
        if self.kind == "simpo" and self.reference is not None:
            raise InputError("Preference: simpo takes no reference. Leave it out, or choose another loss.")
        if not 0 <= self.gamma < math.inf:
            raise InputError(f"Preference: `gamma` is {self.gamma}, but a margin must be at least 0, and finite.")

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """Rows of chosen and rejected in turn, reference log-probs and each pair's share."""
        seq, _ = paired(model, only(Paired, rows, self))
        return seq, _columns(seq, self.reference, count=len(rows))

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n / 2], one for each pair."""
        won, lost = sides(_ratios(outputs, columns))
        long, short = sides(columns["mask"].sum(dim=1))
        match self.kind:
            case "dpo":
                loss = preferences.dpo(won, lost, self.beta, self.smoothing)
            case "dpo_norm":
                loss = preferences.dpo_norm(won, lost, long, short, self.beta, self.smoothing)
            case "ipo":
                loss = preferences.ipo(won, lost, self.beta)
            case "nca":
                loss = preferences.nca(won, lost, self.beta)
            case "simpo":
                loss = preferences.simpo(won, lost, long, short, self.beta, self.gamma, self.smoothing)
        return loss * columns["share"][0::2]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """Mean implicit rewards of both sides, their margin, and how often the chosen one's is higher.

        The rewards are those that the loss compares: of dpo_norm and simpo, means over tokens.
        """
        ratios = _ratios(outputs, columns).detach()
        if self.kind in ("dpo_norm", "simpo"):
            ratios = ratios / columns["mask"].sum(dim=1)
        return pair_numbers(self.beta * ratios, columns["share"])


@dataclass(frozen=True, kw_only=True)
class StepRewards:
    """The second stage of an implicit reward: step labels for what is already a process reward.

    Rows: `Stepwise`. A step's reward is beta times the sum of its tokens' log-ratios. "ce" is cross-entropy on it,
    "mse" what the paper's code computes, "sign" the paper's formula, which does not see the reward's sign
    (arXiv:2412.01981, the ablation with step labels).
    """

    reference: CachedReference | None = None
    beta: float = 0.05
    how: StepLoss = "ce"
    want: ClassVar[tuple[Want, ...]] = LOGPROBS

    def __post_init__(self) -> None:
        check_beta(self, self.beta)
        check_choice("how", self.how, StepLoss)

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """Which step each token is of, the steps' labels, and each step's share."""
        seq, _, steps = _layout.given_steps(model, only(Stepwise, rows, self))
        width = max(len(row) for row in steps)
        index = torch.zeros(seq.mask.shape, dtype=torch.int64)
        target, share = torch.zeros(len(steps), width), torch.zeros(len(steps), width)
        for n, row in enumerate(steps):
            start = 0
            for h, (end, label) in enumerate(row):
                index[n, start : end + 1], start = h, end + 1
                if label is not None:
                    target[n, h], share[n, h] = label, 1.0
        share /= share.sum().clamp(min=1)
        device = seq.mask.device
        more = {"index": index.to(device), "target": target.to(device), "step_share": share.to(device)}
        return seq, _columns(seq, self.reference) | more

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, H]."""
        assert outputs.logprobs is not None
        ratios = preferences.token_logratios(outputs.logprobs, columns.get("reference"), columns["mask"])
        rewards = self.beta * torch.zeros_like(columns["target"]).scatter_add(1, columns["index"], ratios)
        losses = {"ce": preferences.step_ce, "mse": preferences.step_mse, "sign": preferences.step_sign_loss}
        return losses[self.how](rewards, columns["target"], columns["step_share"] > 0) * columns["step_share"]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """Nothing beside the loss."""
        return {}


def check_beta(loss: object, beta: float) -> None:
    """Raises InputError unless beta is above 0."""
    if not beta > 0:
        raise InputError(f"{type(loss).__name__}: `beta` is {beta}, but must be above 0.")


def paired(model: LanguageModel, rows: Sequence[Paired]) -> tuple[Sequences, list[int]]:
    """Chosen and rejected in turn, and for each row its place in the list of both."""
    return _layout.texts(
        model,
        [
            (row.problem, text, ended)
            for row in rows
            for text, ended in zip((row.chosen, row.rejected), row.ended, strict=True)
        ],
    )


def sides(values: Tensor) -> tuple[Tensor, Tensor]:
    """What belongs to chosen and to rejected responses, of rows that are these in turn."""
    return values[0::2], values[1::2]


def pair_numbers(rewards: Tensor, share: Tensor) -> Diagnostics:
    """Of rewards [n] of chosen and rejected in turn: means, margin, accuracy (a tie is wrong)."""
    chosen, rejected = sides(rewards)
    part = share[0::2]
    return {
        "chosen": (chosen * part).sum(),
        "rejected": (rejected * part).sum(),
        "margin": ((chosen - rejected) * part).sum(),
        "accuracy": (preferences.pair_accuracy(chosen, rejected) * part).sum(),
    }


def _unpaired(model: LanguageModel, rows: Sequence[Unpaired]) -> tuple[Sequences, list[int]]:
    return _layout.texts(model, [(row.problem, row.text, row.ended) for row in rows])


def _others(rows: Sequence[Unpaired]) -> list[Unpaired]:
    """For each row the next one, around the end, to another prompt; if there is none, the next."""
    keys = [prompt_key(row.problem.prompt) for row in rows]
    n = len(rows)
    found = []
    for i in range(n):
        behind = [(i + shift) % n for shift in range(1, n)]
        found.append(rows[next((j for j in behind if keys[j] != keys[i]), behind[0])])
    return found


def _columns(seq: Sequences, reference: CachedReference | None, count: int | None = None) -> dict[str, Tensor]:
    n = len(seq.tokens)
    share = torch.full((n,), 1 / (count or n), device=seq.mask.device)
    columns = {"mask": seq.mask, "share": share}
    return columns if reference is None else columns | {"reference": reference.logprobs(seq)}


def _ratios(outputs: Outputs, columns: Columns) -> Tensor:
    """[n] log-ratios of whole responses."""
    assert outputs.logprobs is not None
    return preferences.response_logratio(outputs.logprobs, columns.get("reference"), columns["mask"])


def _rewards(rewards: Tensor, columns: Columns) -> Diagnostics:
    agrees = (rewards > 0) == (columns["label"] >= 0.5)
    return {
        "reward": (rewards.detach() * columns["share"]).sum(),
        "accuracy": (agrees * columns["share"]).sum(),
    }


def _tensor(seq: Sequences, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=seq.mask.device)
