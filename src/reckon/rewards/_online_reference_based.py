"""A reward model that is shown the reference answer and goes on learning while the policy does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, cast, get_args

import torch

from reckon import preferences
from reckon.annotate import ChangeNumber, Corruptor, Pairs, Positive, SwapOperator, answer_of, pairs_of, rejected_pairs
from reckon.errors import InputError
from reckon.models import Optimization
from reckon.rewards._classifier import TooLong
from reckon.rewards._judges import kind_of_judge, load_judge
from reckon.rewards._judges_reading import last_tokens, sequences_of, text_tokens
from reckon.rewards._reference_based import ReferenceBased
from reckon.rewards._replay import read_replay, step_on_labels
from reckon.types import Batch, Columns, Metrics, Outputs, Problem, Rng, State, Stream, Task

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models import LanguageModel
    from reckon.rewards._token_outcome import HasHeadedTwin

Negatives: TypeAlias = Literal["change_number", "swap_operator", "rejected"]
_KIND = "online_reference_based"


@dataclass
class OnlineReferenceBased:
    """A judge shown the reference answer, retrained at every step on fresh pairs (Cooper, arXiv:2508.05613).

    A judge that stays as it is gets exploited; a rule rejects right answers in a form it does not know. Here the
    judge's score is the reward, and the rule only vouches for what the judge learns from: a response that it accepts,
    and the same response made wrong (`reckon.annotate.build_pairs`). The verdict is never part of the reward.

    A batch is scored before its pairs are learned from. The loss is that of Bradley and Terry on logits, a mean over
    all pairs of a step; without a pair no step is made. Two responses of a pair differ in nothing but what was made
    wrong, so that what they share, a style or a bias, cannot be unlearned, only outgrown. And where no response is
    right there are no pairs: watch `pairs/share`, as `HackMonitor` does.

    It begins as the judge in `folder`, which `reckon fit` has made with `show_reference` (VerifyRM), or else as the
    policy with a head that says 1/2 of everything. Weights are float32: in bfloat16 a step of 1e-5 is rounded away.
    """

    policy: HasHeadedTwin  # what the judge begins as, where there is no `folder`
    task: Task  # reads and checks answers
    _: KW_ONLY
    folder: str | None = None
    optimizer: Optimization = field(default_factory=lambda: Optimization(lr=1e-5, weight_decay=0.01))
    output: Literal["probability", "logit", "binary"] = "probability"  # binary: 1 where the probability is above 0.5
    every: int = 1  # learn at every so many steps
    positive: Positive = "first"  # which right response of a prompt becomes a pair; lowest_score: the judge's
    # How a right response is made wrong; "rejected" takes one that the rule rejects, right answers in a form that it
    # does not know among them, and so teaches its blindness.
    negatives: Negatives | Callable[[Problem, str, Rng], str | None] = "change_number"
    workers: int = 1  # calls at a time of a function of one's own that makes negatives, such as one that asks a model
    seconds: float | None = None  # the most one call may take
    show_reference: bool = True  # False: the judge must work the answer out; for comparison
    keep: tuple[int, int] | None = None  # cut the middle out of long texts: see `format_reference_based`
    too_long: TooLong = "error"  # a text longer than the judge's context; a pair with an unknown one is left out
    # A file of labelled responses, as `reckon annotate` writes: at every step it learns it is shown some of them again,
    # so that it keeps what the policy no longer writes.
    replay: str | None = None
    replay_rows: int = 32  # how many, drawn anew
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # what a judge from a folder computes in, as a model's

    def __post_init__(self) -> None:
        if self.positive not in get_args(Positive):
            raise self._error(f"`positive` is {self.positive!r}; it must be one of {', '.join(get_args(Positive))}.")
        if not callable(self.negatives) and self.negatives not in get_args(Negatives):
            raise self._error(
                f"`negatives` is {self.negatives!r}; it must be one of {', '.join(get_args(Negatives))}, or a function "
                "of a problem, a right response and random numbers."
            )
        if self.negatives == "rejected" and self.positive != "first":
            raise self._error(f"`positive` is {self.positive!r}, and with negatives='rejected' it is always the first.")
        if self.every < 1 or self.workers < 1:
            raise self._error(f"`every` is {self.every} and `workers` {self.workers}; both must be 1 or more.")
        if self.seconds is not None and not self.seconds > 0:
            raise self._error(f"`seconds` is {self.seconds}; it must be above 0, or left out.")
        ReferenceBased(  # which checks its own settings; a judge looks at its model only when it is asked
            cast("LanguageModel", object()), output=self.output, keep=self.keep, too_long=self.too_long
        )
        if self.folder is not None:
            self._check_folder(self.folder)
        if self.replay_rows < 1:
            raise self._error(f"`replay_rows` is {self.replay_rows}; it must be 1 or more.")
        self._kept = [] if self.replay is None else read_replay(self.replay, reference=self.show_reference)
        self._told: Metrics = {}

    @cached_property
    def judge(self) -> ReferenceBased:
        """What scores, and learns. Opened, or made of the policy as it is then, when it is first asked.

        Raises:
            MissingError, InputError: the model in `folder` cannot be opened.
        """
        if self.folder is None:
            model = cast("LanguageModel", self.policy.twin(self.optimizer, value_head=True))
            begun = ReferenceBased(model, reference=self.show_reference, keep=self.keep)
        else:
            begun = cast("ReferenceBased", load_judge(self.folder, dtype=self.dtype, optimizer=self.optimizer))
        return replace(begun, output=self.output, too_long=self.too_long)

    @property
    def model(self) -> LanguageModel:
        """The judge's."""
        return cast("LanguageModel", self.judge.model)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], NaN for problems without a reference. Pure."""
        return {_KIND: self.judge.stream(self.judge.logits(batch), batch)}

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step; then, where it is due, the judge learns from pairs of the batch."""
        logits = self.judge.logits(batch)
        streams = {_KIND: self.judge.stream(logits, batch)}
        due = (batch.step + 1) % self.every == 0
        self._told = {**self._learn(batch, logits, rng), **self._again(rng.child("replay"))} if due else {}
        return streams

    def metrics(self) -> Metrics:
        """How the last `assess` went; nothing where it did not learn.

        "pairs/share" (of prompts, that have a pair), "pairs/positive_share" (that have a right response), "pairs/n" and
        why negatives were refused; "pairs/learned", those read whole; "loss", "accuracy" (the right one scored higher)
        and "margin" in logits, of these pairs as the judge was before it learned from them; "steps" and "grad_norm" of
        the learning, and "skipped", the share of steps that were left out for a gradient that was not finite. With
        `replay` also "replay/loss" and "replay/accuracy" of the rows shown again, before they were learned from.
        """
        return dict(self._told)

    def state_dict(self) -> State:
        """The judge's model and its optimizer."""
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        saved = state["model"]
        assert isinstance(saved, Mapping)
        self.model.load_state_dict(saved)

    def _learn(self, batch: Batch, logits: Tensor, rng: Rng) -> Metrics:
        """One pass, or as many as the optimizer is set to, over the pairs of the batch."""
        pairs = self._pairs(batch, logits, rng.child("pairs"))
        read = self._read(pairs)
        sums, steps, plan = dict[str, float](), 0, self.optimizer
        for epoch in range(plan.epochs):
            order = torch.from_numpy(rng.child("epoch", epoch).numpy().permutation(len(read)))
            for chunk in order.tensor_split(min(plan.minibatches, max(len(read), 1))):
                chosen = [read[place] for place in chunk.sort().values.tolist()]
                if not chosen:  # even a gradient of zero would move the weights, by momentum and decay
                    continue
                steps += 1
                for name, value in step_on_pairs(self.model, chosen).items():
                    sums[name] = sums.get(name, 0.0) + value
        told = {name: sums.get(f"policy/{name}", 0.0) / max(steps, 1) for name in ("loss", "grad_norm", "skipped")}
        told |= {name: sums[f"policy/{name}"] / steps if steps else math.nan for name in ("accuracy", "margin")}
        return {**pairs.metrics(), "pairs/learned": float(len(read)), **told, "steps": float(steps)}

    def _again(self, rng: Rng) -> Metrics:
        """One step on some of the labelled responses, if there are any."""
        if not self._kept:
            return {}
        order = rng.numpy().permutation(len(self._kept))[: self.replay_rows]
        rows = [self._kept[place] for place in sorted(order.tolist())]
        texts = [self.judge.text(row.problem, row.completion) for row in rows]
        tokens = text_tokens(_KIND, self.model, texts, [row.problem.id for row in rows], self.too_long)
        read = [(own, bool(row.gold)) for own, row in zip(tokens, rows, strict=True) if own is not None]
        if not read:
            return {}
        told = step_on_labels(self.model, read, self.judge.center)
        return {f"replay/{name}": told[f"policy/{name}"] for name in ("loss", "accuracy")}

    def _pairs(self, batch: Batch, logits: Tensor, rng: Rng) -> Pairs:
        if self.negatives == "rejected":
            return rejected_pairs(batch.rollouts, batch.outcome)
        return pairs_of(
            batch,
            self.task,
            self._corruptor(),
            rng,
            positive=self.positive,
            scores=logits if self.positive == "lowest_score" else None,
            workers=self.workers,
            seconds=self.seconds,
        )

    def _corruptor(self) -> Corruptor:
        if self.negatives == "swap_operator":
            return SwapOperator()
        if self.negatives == "change_number":
            return ChangeNumber(intermediate=True, read=answer_of(self.task))
        return cast("Corruptor", self.negatives)

    def _read(self, pairs: Pairs) -> list[tuple[list[int], list[int]]]:
        """The tokens of both texts of each pair; pairs are left out that are not read whole, or read alike when cut."""
        texts = [self.judge.text(p.problem, text) for p in pairs.pairs for text in (p.chosen, p.rejected)]
        names = [pair.problem.id for pair in pairs.pairs for _ in range(2)]
        tokens = text_tokens(_KIND, self.model, texts, names, self.too_long)
        return [
            (chosen, rejected)
            for chosen, rejected in zip(tokens[0::2], tokens[1::2], strict=True)
            if chosen is not None and rejected is not None and chosen != rejected
        ]

    def _check_folder(self, folder: str) -> None:
        kind = kind_of_judge(folder)
        if kind != "reference_based":
            raise self._error(
                f"the judge in {folder} is of kind {kind!r}, which is not shown the reference answer. Fit one with "
                "show_reference=true."
            )
        if not self.show_reference or self.keep is not None:
            raise self._error("`show_reference` and `keep` are those of the fit in `folder`. Leave them out.")

    def _error(self, says: str) -> InputError:
        return InputError(f"{_KIND}: {says}")


@dataclass(frozen=True)
class PairLoss:
    """-log sigmoid(chosen - rejected) of scores at last tokens, rows of chosen and rejected in turn, as a mean."""

    whole_groups: ClassVar[bool] = True

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n / 2], each pair's share of the mean."""
        chosen, rejected = _sides(outputs, columns)
        return preferences.bradley_terry(chosen, rejected) * columns["share"][0::2]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """`accuracy`, a tie counting half, and `margin` in logits."""
        chosen, rejected = _sides(outputs, columns)
        ahead, share = (chosen - rejected).detach(), columns["share"][0::2]
        right = (ahead > 0).float() + (ahead == 0).float() / 2
        return {"accuracy": (right * share).sum(), "margin": (ahead * share).sum()}


def step_on_pairs(model: LanguageModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Metrics:
    """One optimizer step on the mean loss of pairs of texts in tokens, the chosen one first."""
    rows = [row for pair in pairs for row in pair]
    seq = sequences_of(rows, [place // 2 for place in range(len(rows))], model.device)
    assert len(seq.prompts) == len(pairs), "the two texts of a pair begin with the same token"
    share = torch.full((len(rows),), 1 / len(pairs), device=seq.mask.device)
    return model.step(seq, {"last": last_tokens(seq.mask), "share": share}, PairLoss(), ("scores",))


def _sides(outputs: Outputs, columns: Columns) -> tuple[Tensor, Tensor]:
    """[n / 2] each: scores of the chosen and of the rejected."""
    assert outputs.scores is not None
    scores = outputs.scores.gather(1, columns["last"][:, None])[:, 0]
    return scores[0::2], scores[1::2]
