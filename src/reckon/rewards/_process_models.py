"""Judges of single steps that were trained on labels of steps or prefixes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch

from reckon.errors import InputError
from reckon.process import aggregate, best_of_k, step_advantages, with_outcome
from reckon.rewards._implicit import on_last_tokens
from reckon.rewards._judges_reading import Scorer, check_head, check_splitter, check_tokens, steps_of
from reckon.steps import Splitter, Steps, at_ends, split_rollouts, spread
from reckon.types import Batch, Outputs, Stream

if TYPE_CHECKING:
    from torch import Tensor

StepHow: TypeAlias = Literal["min", "mean", "last", "product", "sum"]


@dataclass(frozen=True)
class StepModel:
    """An explicit process reward model: the chance that all is well after each step, by a head trained on step labels.

    As Math-Shepherd (Wang et al. 2023, arXiv:2312.08935) and Lightman et al. (2023, arXiv:2305.20050) have it. A
    response is ranked by its lowest step ("min") or by the product of its steps.

    Per step the probabilities stand on the steps' last tokens. They are all positive, so their sum grows with the
    number of steps, and a policy trained on it learns to write many: for training take "min", or `StepAdvantage`.
    """

    model: Scorer
    _: KW_ONLY
    splitter: Splitter  # as in training
    per: Literal["response", "step"] = "response"
    how: StepHow = "min"  # read by per="response" alone
    # The last step of a response that has ended is read behind its end token, as step labels train it. False: before
    # it, for a model trained on prefixes, none of which has one.
    end_token: bool = True

    def __post_init__(self) -> None:
        check_head("step_model", self.model)
        check_splitter("step_model", self.splitter)
        if self.per not in ("response", "step"):
            raise InputError(f"step_model: `per` is {self.per!r}; it must be response or step.")
        if self.how not in get_args(StepHow):
            raise InputError(f"step_model: `how` is {self.how!r}; it must be one of {', '.join(get_args(StepHow))}.")
        if self.how != "min" and self.per != "response":
            raise InputError("step_model: per='step' has no `how`. Leave it out, or take per='response'.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream, [N] (NaN where nothing was sampled) or [N, T] (0 but on steps' last tokens). Pure."""
        steps = steps_of(batch, self.splitter)
        logits = self._logits(batch, steps)
        if self.per == "step":
            values = on_last_tokens(logits.sigmoid(), steps)
        else:  # the product takes logits
            values = aggregate(logits if self.how == "product" else logits.sigmoid(), self.how)
        return {"step_model": Stream(values=values)}

    def probabilities(self, batch: Batch) -> Tensor:
        """[N, H] float32 in (0, 1) after each step, NaN behind a response's last step."""
        return self._logits(batch, steps_of(batch, self.splitter)).sigmoid()

    def _logits(self, batch: Batch, steps: Steps) -> Tensor:
        check_tokens("step_model", self.model, batch)
        if not self.end_token:
            return after_steps(self.model.outputs(batch.seq, ("values", "scores")), batch, steps)
        scores = self.model.outputs(batch.seq, ("scores",)).scores
        assert scores is not None
        return at_ends(scores, steps)


@dataclass(frozen=True)
class StepAdvantage:
    """How much each step changed a prover's chance of finally being right (PAV, Setlur et al. 2024, arXiv:2410.08146).

    The verifier gives the chance that the policy it was trained for completes a prefix rightly, the prompt alone
    included. The prover is that policy, or one that takes the best of `prover_k` of its completions (in closed form),
    or, with a `prover` of its own, the policy that one was trained for.

    Every token of a step gets alpha times the step's advantage, in a stream of kind "advantage": it is added to its own
    tokens. Summed into a return it would telescope to outcome - constant, and the method would do nothing.

    A value is that of a text, so the last step of a response that has ended is read before its end token, as in
    training: no prefix has one. A response without text has no step: it adds nothing, and has no value to be ranked by
    (NaN).
    """

    verifier: Scorer
    _: KW_ONLY
    splitter: Splitter  # as in training
    prover: Scorer | None = None  # another policy's verifier; None = the verifier's own policy
    prover_k: int = 1
    alpha: float = 1.0  # the paper trains with 3 to 5 and searches with 0.2 to 0.5
    exact_last: bool = False  # the value after the last step is the batch's outcome, where it is known
    rank: bool = False  # a second stream [N] that is only watched: the verifier's value of the whole response

    def __post_init__(self) -> None:
        check_head("step_advantage", self.verifier)
        check_splitter("step_advantage", self.splitter)
        if self.prover is not None:
            check_head("step_advantage", self.prover)
        if self.prover is self.verifier:
            raise InputError("step_advantage: `prover` is the verifier itself. Leave it out; that is what None means.")
        if self.prover_k < 1:
            raise InputError(f"step_advantage: `prover_k` is {self.prover_k}; it must be 1 or more.")
        if not (self.alpha >= 0 and math.isfinite(self.alpha)):
            raise InputError(f"step_advantage: `alpha` is {self.alpha}; it must be 0 or larger, and finite.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """The stream "step_advantage" [N, T] and, with `rank`, "value" [N]. Pure."""
        steps = split_rollouts(batch.rollouts, self.splitter)
        own = self._read(self.verifier, batch, steps)
        advantages = self.alpha * step_advantages(self._proved(own, batch, steps))
        streams = {"step_advantage": Stream(values=spread(advantages, steps), kind="advantage")}
        if self.rank:
            last = own.gather(1, steps.count[:, None].to(own.device))[:, 0]
            streams["value"] = Stream(values=torch.where(steps.count > 0, last, torch.nan), train=False)
        return streams

    def values(self, batch: Batch) -> Tensor:
        """[N, H + 1] float32, the verifier's: column 0 the prompt alone, column h after step h; NaN behind the last."""
        return self._read(self.verifier, batch, split_rollouts(batch.rollouts, self.splitter))

    def advantages(self, batch: Batch) -> Tensor:
        """[N, H] float32 in [-1, 1], without alpha; NaN behind the last step."""
        steps = split_rollouts(batch.rollouts, self.splitter)
        return step_advantages(self._proved(self._read(self.verifier, batch, steps), batch, steps))

    def _proved(self, own: Tensor, batch: Batch, steps: Steps) -> Tensor:
        """[N, H + 1]: the prover's values of the same prefixes."""
        values = own if self.prover is None else self._read(self.prover, batch, steps)
        values = best_of_k(values, self.prover_k)
        return with_outcome(values, batch.outcome.to(values.device)) if self.exact_last else values

    @staticmethod
    def _read(model: Scorer, batch: Batch, steps: Steps) -> Tensor:
        check_tokens("step_advantage", model, batch)
        outputs = model.outputs(batch.seq, ("values", "scores"))
        assert outputs.values is not None
        # Before its first sampled token stands what a response begins from: the prompt, with a given prefix if any.
        first = batch.seq.mask.long().argmax(dim=1)
        before = outputs.values.gather(1, first[:, None])
        return torch.cat([before, after_steps(outputs, batch, steps)], dim=1).sigmoid()


def after_steps(outputs: Outputs, batch: Batch, steps: Steps) -> Tensor:
    """The head behind the text of each step, end tokens left out: [N, H], NaN behind a response's last step."""
    assert outputs.values is not None
    assert outputs.scores is not None
    # Before an end token is where it is predicted.
    silent = torch.zeros_like(batch.seq.mask)
    for row, pieces in enumerate(batch.rollouts.pieces):
        silent[row, : len(pieces)] = torch.tensor([not piece for piece in pieces], dtype=torch.bool)
    return at_ends(torch.where(silent, outputs.values, outputs.scores), steps)
