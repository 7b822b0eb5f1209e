"""Turning scores back into probabilities after learning from rows that were weighted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from reckon.errors import InputError

if TYPE_CHECKING:
    from reckon.fit._likelihood import FitLoss
    from reckon.fit._rows import Example
    from reckon.models import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """sigmoid(logit / temperature + bias) is a probability."""

    temperature: float = 1.0
    bias: float = 0.0

    def __call__(self, logits: Tensor) -> Tensor:
        """The probabilities, of the logits' shape."""
        return torch.sigmoid(logits / self.temperature + self.bias)


def recalibrate(logits: Tensor, targets: Tensor) -> Calibration:
    """Temperature and bias with the least cross-entropy (Platt 1999; soft targets as they are).

    A verifier whose low and high values were drawn equally often believes in a world where half of all prefixes are
    good. Its differences are then wrong as well, not its level alone, and best-of-K multiplies that.

    Args:
        logits: [n] float, on rows that were neither learned from nor weighted.
        targets: [n] float in [0, 1].

    Raises:
        InputError: fewer than 2 rows, targets without spread, logits that say nothing or the opposite, or a threshold
            that tells right from wrong without an error, where the best temperature is 0.
    """
    logits, targets = logits.detach().double().cpu(), targets.detach().double().cpu()
    if len(logits) < 2 or bool((targets == targets[0]).all()):
        raise InputError(
            f"calibration needs rows of both kinds, right and wrong, and got {len(logits)} rows with a mean of "
            f"{float(targets.mean()) if len(targets) else 0.0:.3g}, all alike. Hold back more rows."
        )
    # The cross-entropy has no minimum if a threshold has only rows of target 1 above and of 0 below it, the rest on it.
    apart = logits[targets < 1].max() <= logits[targets > 0].min()
    if bool(apart) and bool(logits.min() < logits.max()):
        raise InputError(
            f"calibration found a threshold that tells right from wrong without an error in {len(logits)} rows, so the "
            "best temperature is 0 and says nothing of other rows. Hold back more rows."
        )
    center, spread = logits.mean(), logits.std().clamp(min=1e-6)
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # slope and level on standardized logits
    x = (logits - center) / spread
    newton = torch.optim.LBFGS(
        [weights], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        newton.zero_grad()
        value = binary_cross_entropy_with_logits(weights[0] * x + weights[1], targets)
        value.backward()
        return value

    newton.step(loss)
    slope = float(weights[0].detach() / spread)
    if float(weights[0].detach()) < 1e-6:  # of standardized logits: what is left of 0 after rounding
        raise InputError(
            "calibration found that higher scores are not right more often, so no temperature makes probabilities of "
            "them. Fit the model longer, or on more rows."
        )
    return Calibration(temperature=1 / slope, bias=float(weights[1].detach()) - slope * float(center))


def read_logits(model: LanguageModel, rows: Sequence[Example], loss: FitLoss) -> tuple[Tensor, Tensor]:
    """The logits and targets of labelled places, [n] float32 each, for `recalibrate`.

    Args:
        model: with a value head.
        rows: the loss's.
        loss: one that labels places: `PrefixValues`, `StepLabels`, `OutcomeBCE`, `OutcomeSteps`.
    """
    (name,) = loss.want
    with torch.no_grad():
        seq, columns = loss.prepare(model, rows)
        found: Tensor = getattr(model.outputs(seq, loss.want), name)
    here = columns["share"] > 0
    return found[here].cpu(), columns["target"][here].cpu()
