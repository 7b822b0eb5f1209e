"""How new a response is, beside its siblings or in the whole run: what to pay where nobody is right yet.

The mathematics is `reckon.bonuses`. Every part here gives one number of at least 0 a response; `Novelty` makes an
advantage of one or several of them. Responses to a prompt have no order: each is compared with all others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch

from reckon import bonuses
from reckon.advantages import group_normalized
from reckon.combinations import updated_moments
from reckon.errors import InputError, RunError
from reckon.rewards._combine_groups import _compared, _Learning
from reckon.rewards._combine_parts import Asking, Said, check_parts, check_weights, numbers, weight_vector
from reckon.rewards._judges_reading import Scorer
from reckon.types import Batch, Metrics, Reward, Rng, State, Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EpisodicCount:
    """1 / n for a response whose answer n of its group give, itself included: 1 where no sibling has it.

    The answer is the one the checker has read, in its normal form, or what `label` makes of the text: a strategy, say.
    A response without one is paid 0; one whose checker failed is unknown. The mean times the size of a group is the
    number of different answers in it.

    "sqrt" pays 1 / sqrt(n). "first" pays 1 to the first of equal answers as they were drawn, and 0 to the others: on
    average the same as "inverse", with the noise of which copy came first.
    """

    how: bonuses.How = "inverse"
    label: Callable[[str], str | None] | None = None  # of a text, what is to be counted; None = its answer

    def __post_init__(self) -> None:
        if self.how not in ("inverse", "sqrt", "first"):
            raise InputError(f"episodic_count: `how` is {self.how!r}; it must be inverse, sqrt or first.")

    @property
    def group_level(self) -> bool:
        """It compares responses to one prompt."""
        return True

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N] in [0, 1]. Pure."""
        answers = _answers("episodic_count", self.label, batch)
        numbered = {answer: number for number, answer in enumerate(dict.fromkeys(answers.found))}
        keys, group = torch.tensor([numbered[answer] for answer in answers.found]), batch.seq.group.cpu()
        counts = (bonuses.visits if self.how == "first" else bonuses.copies)(keys, group)
        return {"episodic_count": _paid(counts, self.how, answers, batch)}


@dataclass(kw_only=True)
class GlobalCount:
    """1 / sqrt(n) for a response whose answer its problem was given n times in the run, the batch at hand included.

    The answer is the checker's or `label`'s, as in `EpisodicCount`. An answer is counted for its problem: "42" to
    another problem is another finding, and where no problem comes twice every answer is new. `per="run"` counts over
    all problems, for labels that mean the same everywhere. What a keep rule drops is not counted.
    """

    per: Literal["problem", "run"] = "problem"
    label: Callable[[str], str | None] | None = None  # of a text, what is to be counted; None = its answer

    def __post_init__(self) -> None:
        if self.per not in ("problem", "run"):
            raise InputError(f"global_count: `per` is {self.per!r}; it must be problem or run.")
        if self.per == "run" and self.label is None:
            raise InputError(
                "global_count: per='run' counts over all problems, and an answer means something else in each. Give a "
                "`label`, a function from a text to what means the same everywhere, or count per='problem'."
            )
        self._counts: dict[str, dict[str, int]] = {}  # by problem, or "" for all; then by answer
        self._metrics: Metrics = {}

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N] in [0, 1], the batch's own copies counted. Pure: the batch is not remembered."""
        return {"global_count": self._read(batch)[1]}

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step, and remembers the answers."""
        found, stream = self._read(batch)
        new = 0
        for (scope, answer), count in found.items():
            counts = self._counts.setdefault(scope, {})
            new += answer not in counts
            counts[answer] = counts.get(answer, 0) + count
        self._metrics = {"known": float(sum(map(len, self._counts.values()))), "new": new / max(len(found), 1)}
        return {"global_count": stream}

    def metrics(self) -> Metrics:
        """`known`, how many answers the run has met; `new`, the share of the last batch's it had not met before."""
        return dict(self._metrics)

    def state_dict(self) -> State:
        """Every count."""
        return {"counts": {scope: dict(counts) for scope, counts in self._counts.items()}}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        saved = state.get("counts")
        if not isinstance(saved, Mapping) or not all(isinstance(counts, Mapping) for counts in saved.values()):
            raise InputError("global_count: the saved state must hold counts, by problem and answer")
        counts = cast("Mapping[str, Mapping[str, int]]", saved)
        self._counts = {scope: dict(inner) for scope, inner in counts.items()}

    def _read(self, batch: Batch) -> tuple[Counter[tuple[str, str]], Stream]:
        """How often the batch gives each answer, and what that is worth."""
        answers = _answers("global_count", self.label, batch)
        keys = [(scope, answer or "") for scope, answer in zip(self._scopes(batch), answers.found, strict=True)]
        here = Counter(key for key, answer in zip(keys, answers.found, strict=True) if answer is not None)
        counts = [max(1, here[key] + self._counts.get(key[0], {}).get(key[1], 0)) for key in keys]
        return here, _paid(counts, "sqrt", answers, batch)

    def _scopes(self, batch: Batch) -> list[str]:
        """[N]: what each response's answer is counted under."""
        if self.per == "run":
            return [""] * len(batch.rollouts.text)
        return [batch.rollouts.problems[place].id for place in batch.seq.group.tolist()]


@dataclass(frozen=True)
class Elliptical:
    """How much of a response's mean hidden state its siblings leave unexplained, as a squared length.

    ridge phi' (ridge I + sum over siblings phi_j phi_j')^-1 phi (E3B of an unordered group; Henaff et al. 2022,
    arXiv:2210.05805; as a bonus of language models: Tuyls et al. 2025, arXiv:2510.11686), where phi is the mean of the
    last hidden states over the sampled tokens, layer-normalized to length 1, less the group's mean of these unless
    `center` is off, for much of it all responses to a prompt share. A direction that no sibling has is paid the squared
    length of phi, one that n siblings have about ridge / n.
    """

    policy: Scorer  # whose hidden states
    _: KW_ONLY
    ridge: float = 0.1  # in units of a squared length of 1
    center: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.ridge < math.inf:
            raise InputError(f"elliptical: `ridge` is {self.ridge}; it must be above 0, and finite.")

    @property
    def group_level(self) -> bool:
        """It compares responses to one prompt."""
        return True

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N] of at least 0, NaN where nothing was sampled. Pure."""
        features, group = mean_hidden("elliptical", self.policy, batch), batch.seq.group.cpu()
        known = ~features.isnan().any(dim=1)
        features, group = features[known], group[known]
        if self.center:
            features = features - _group_means(features, group)
        values = torch.full(known.shape, torch.nan, dtype=torch.float64)
        values[known] = self.ridge * bonuses.elliptical_leave_one_out(features, group, self.ridge)
        return {"elliptical": Stream(values=values.float().to(batch.outcome.device))}


@dataclass
class Novelty(_Learning):
    """Bonuses for what is new as one advantage: added to a response's tokens after rewards were normalized.

    "product" pays what is new in every sense at once, as an `EpisodicCount` times a `GlobalCount` does (Henaff et al.
    2023, arXiv:2306.03236; the best of those compared there), "sum" what is new in some. Less the mean of its group,
    unless `center` is off: then a group that is new throughout is pushed up as a whole.

    As a reward a bonus would be divided by the group's deviation: where all answers fail, the smallest difference in
    novelty becomes a full-sized advantage. As an advantage it stays as large as its weight says.
    """

    parts: Mapping[str, Reward]
    _: KW_ONLY
    how: Literal["product", "sum"] = "product"
    weights: Mapping[str, float] = field(default_factory=dict)  # of a sum, by part; 1 where none is given
    center: bool = True
    normalize: Literal["none", "std"] = "none"  # "std": divided by the deviation so far, before centering
    decay: float = 1.0  # of normalize="std": what the past still counts after a step, in (0, 1]

    def __post_init__(self) -> None:
        check_parts(self._kind, self.parts)
        check_weights(self._kind, self.parts, self.weights, least=0.0)
        for name, value, choices in (
            ("how", self.how, ("product", "sum")),
            ("normalize", self.normalize, ("none", "std")),
        ):
            if value not in choices:
                raise InputError(f"novelty: `{name}` is {value!r}; it must be {choices[0]} or {choices[1]}.")
        if self.weights and self.how == "product":
            raise InputError("novelty: `weights` are those of a sum; a product has one, the weight of the whole.")
        check_decay("novelty", self.decay)
        if self.decay != 1 and self.normalize == "none":
            raise InputError("novelty: `decay` is read by normalize='std' alone. Leave it out.")
        self._statistics = {"count": 0.0, "mean": 0.0, "squares": 0.0}

    @property
    def group_level(self) -> bool:
        """Whether it, or a bonus in it, compares responses to one prompt."""
        return self.center or super().group_level

    def _streams(self, asking: Asking) -> dict[str, Stream]:
        said = self._said(asking)
        return {self._kind: Stream(values=said.value, kind="advantage"), **said.watched}

    def _said(self, asking: Asking) -> Said:
        if self.center:
            _compared(self._kind, asking)
        found, watched = numbers(self._kind, asking, self.parts)
        below = (found < 0).nonzero()
        if len(below):
            part, row = below[0].tolist()
            raise RunError(
                f"novelty: {list(self.parts)[part]!r} gave {float(found[part, row]):g} for row {row}, and a bonus is"
                " 0 or more. Take a part that says how new a response is; other rewards stand beside `novelty`."
            )
        if self.how == "product":
            value = bonuses.product(found)
        else:
            value = bonuses.weighted_sum(found, weight_vector(self.parts, self.weights, found))
        if self.normalize == "std":
            if asking.assesses:
                self._statistics = joined(self._statistics, value, self.decay)
            value = bonuses.in_deviations(value, deviation(self._statistics))
        if self.center:
            value = group_normalized(value, asking.batch.seq.group, std=False)
        return Said(value, watched)


class _Answers(NamedTuple):
    """What each of N responses answers."""

    found: list[str | None]  # None = it has no answer
    otherwise: list[float]  # what it is paid then: 0, or NaN where a checker failed before it could tell


def mean_hidden(who: str, model: Scorer, batch: Batch) -> Tensor:
    """[N, D] float64 on the CPU: mean last hidden states of the sampled tokens, layer-normalized to length 1.

    NaN where nothing was sampled. Hidden states are held for one group at a time.
    """
    seq, means = batch.seq, []
    for number in seq.group.unique():
        part = seq.take((seq.group == number).nonzero().squeeze(1))
        hidden = model.outputs(part, ("hidden",)).hidden
        if hidden is None:
            raise InputError(f"{who}: its model gives no hidden states. Take a language model.")
        mask = part.mask.to(hidden.device)[:, :, None]
        total = torch.where(mask, hidden, 0.0).sum(dim=1).cpu().double()
        means.append(total / mask.sum(dim=1).cpu())  # 0 / 0 where nothing was sampled
    mean = torch.cat(means)
    return torch.nn.functional.normalize(mean - mean.mean(dim=1, keepdim=True), dim=1)


def joined(statistics: Mapping[str, float], values: Tensor, decay: float) -> dict[str, float]:
    """Count, mean and squares so far, with more values in them."""
    before = (statistics["count"], statistics["mean"], statistics["squares"])
    return dict(zip(("count", "mean", "squares"), updated_moments(*before, values, decay=decay), strict=True))


def deviation(statistics: Mapping[str, float]) -> float:
    """The standard deviation so far; 0 of nothing."""
    return math.sqrt(statistics["squares"] / statistics["count"]) if statistics["count"] else 0.0


def check_decay(owner: str, decay: float) -> None:
    """Raises InputError for what cannot be the weight of the past."""
    if not 0 < decay <= 1:
        raise InputError(f"{owner}: `decay` is {decay}; it must be above 0 and at most 1.")


def _answers(owner: str, label: Callable[[str], str | None] | None, batch: Batch) -> _Answers:
    """What is counted of each response.

    Raises:
        RunError: the checker does not tell what it read, or a label is no text.
    """
    if label is not None:
        found = [label(text) for text in batch.rollouts.text]
        for row, one in enumerate(found):
            if one is not None and not isinstance(one, str):
                raise RunError(
                    f"{owner}: its `label` returned {one!r} ({type(one).__name__}) for row {row}. It must return text, "
                    "or None or nothing where a response has no label."
                )
        return _Answers([one if one and one.strip() else None for one in found], [0.0] * len(found))
    if not batch.verdicts or any(v.reason == "right" and v.answer is None for v in batch.verdicts):
        raise RunError(
            f"{owner}: nothing says what the responses answer, for no checker has read it out of them. Give a `label`, "
            "a function from a text to what is to be counted, such as reckon.tasks.extract_answer."
        )
    failed = [verdict.reason in ("timed out", "crashed") for verdict in batch.verdicts]
    return _Answers([v.answer for v in batch.verdicts], [math.nan if fails else 0.0 for fails in failed])


def _paid(counts: Sequence[int] | Tensor, how: bonuses.How, answers: _Answers, batch: Batch) -> Stream:
    """What the counts are worth, where there is something to be counted."""
    has = torch.tensor([answer is not None for answer in answers.found])
    bonus = torch.where(has, bonuses.count_bonus(torch.as_tensor(counts), how), torch.tensor(answers.otherwise))
    return Stream(values=bonus.to(batch.outcome.device))


def _group_means(features: Tensor, group: Tensor) -> Tensor:
    """[N, D]: for each row the mean over its group."""
    number, place, count = torch.unique(group, return_inverse=True, return_counts=True)
    total = features.new_zeros(len(number), features.shape[1]).index_add(0, place, features)
    means: Tensor = (total / count[:, None])[place]
    return means
