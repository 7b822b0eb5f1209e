"""A reward model with a scalar head, read where the response ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal

import torch

from reckon.errors import InputError
from reckon.rewards._judges_reading import Scorer, check_head, check_tokens, last_tokens
from reckon.types import Batch, End, Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OutcomeModel:
    """What a whole response is worth: the score of a value head after its last token (Ouyang et al. 2022).

    The score is scale * (head - center), and its sigmoid with `probability`. Scores of a head trained on pairs (Bradley
    and Terry) are known up to a constant: `center` fixes it, say at the mean over the training data.

    A response that ran into the limit has no end token, and a head learned at end tokens reads it where it never
    learned to. What becomes of it has a name: the score stands ("score"), it is unknown ("unknown"), `penalty` takes
    its place ("replace", as in EasyLM with -10) or is subtracted from it ("subtract", as in TRL). The penalty is in the
    units of the finished reward: it comes after center, scale and sigmoid.
    """

    model: Scorer
    _: KW_ONLY
    probability: bool = False
    center: float = 0.0
    scale: float = 1.0  # above 0; with `probability` the inverse of a calibration temperature
    unfinished: Literal["score", "unknown", "replace", "subtract"] = "score"
    penalty: float | None = None  # needed by "replace", where it is the reward, and by "subtract", where it is above 0

    def __post_init__(self) -> None:
        check_head("outcome_model", self.model)
        if not math.isfinite(self.center) or not (self.scale > 0 and math.isfinite(self.scale)):
            raise InputError(
                f"outcome_model: `center` is {self.center} and `scale` {self.scale}; they must be finite, and `scale` "
                "above 0."
            )
        if self.unfinished not in ("score", "unknown", "replace", "subtract"):
            raise InputError(
                f"outcome_model: `unfinished` is {self.unfinished!r}; it must be score, unknown, replace or subtract."
            )
        if (self.penalty is not None) != (self.unfinished in ("replace", "subtract")):
            says = "needs a `penalty`" if self.penalty is None else "has no use for a `penalty`"
            raise InputError(f"outcome_model: unfinished={self.unfinished!r} {says}.")
        if self.penalty is not None and not math.isfinite(self.penalty):
            raise InputError(f"outcome_model: `penalty` is {self.penalty}; it must be finite.")
        if self.unfinished == "subtract" and self.penalty is not None and self.penalty <= 0:
            raise InputError(
                f"outcome_model: `penalty` is {self.penalty}, and subtracting it would be a reward. Give it above 0."
            )

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], NaN where nothing was sampled. Pure."""
        values = self.scale * (self.logits(batch) - self.center)
        if self.probability:
            values = values.sigmoid()
        cut_off = (batch.rollouts.end == End.LENGTH).to(values.device)
        if self.unfinished == "unknown":
            values = torch.where(cut_off, torch.nan, values)
        elif self.unfinished == "replace":
            values = torch.where(cut_off & ~values.isnan(), self.penalty or 0.0, values)
        elif self.unfinished == "subtract":
            values = values - (self.penalty or 0.0) * cut_off.float()
        return {"outcome_model": Stream(values=values)}

    def logits(self, batch: Batch) -> Tensor:
        """[N] float32: the head after the last sampled token; NaN where nothing was sampled."""
        check_tokens("outcome_model", self.model, batch)
        scores = self.model.outputs(batch.seq, ("scores",)).scores
        assert scores is not None
        mask = batch.seq.mask
        read = scores.gather(1, last_tokens(mask)[:, None])[:, 0]
        return torch.where(mask.any(dim=1), read, torch.nan)
