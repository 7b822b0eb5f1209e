"""Rewards for length, in tokens as sampled, the end token included."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from reckon.errors import InputError
from reckon.rewards import _surrogates
from reckon.rewards._text import Format
from reckon.types import Batch, Stream

if TYPE_CHECKING:
    from torch import Tensor

Shape = Literal["v3", "v1", "v2", "linear"]
PEAK = 0.5  # where the length reward of arXiv:2505.19439 peaks, as a share of the limit


@dataclass(frozen=True, kw_only=True)
class Length:
    """Rewards a length near p * l_max: the length reward of arXiv:2505.19439 (`v3`) and the variants in its code.

    `p` says which length is wanted, so take it from the task: about the 60th to 80th percentile of the well-formed
    responses of the model at the start, divided by `l_max`. `linear` (longer is better) ruins a model and is here to be
    compared with.
    """

    l_max: int  # the limit of generation; with a larger one the penalty never bites
    p: float = PEAK  # read by shape v3 only
    shape: Shape = "v3"
    clip: bool = True  # a length beyond l_max counts as l_max

    def __post_init__(self) -> None:
        _check_limit("length", self.l_max)
        if self.shape not in ("v3", "v1", "v2", "linear"):
            raise InputError(f"length: `shape` is {self.shape!r}; it must be v3, v1, v2 or linear.")
        if not 0 < self.p < 1:
            raise InputError(f"length: `p` is {self.p}; it is a share of l_max strictly between 0 and 1.")
        if self.shape != "v3" and self.p != PEAK:
            raise InputError(f"length: shape {self.shape} has no `p`. Leave it out, or take shape v3.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N]."""
        return {"length": _stream(batch, self.value(token_lengths(batch)))}

    def value(self, lengths: Tensor) -> Tensor:
        """[N] number of tokens -> [N] float64 on the CPU: what they are worth."""
        x = _float64(lengths) / self.l_max
        x = x.clamp(max=1.0) if self.clip else x
        if self.shape == "v3":
            return _surrogates.peaked_length(x, self.p)
        if self.shape == "v1":
            return _surrogates.stepped_length(x)
        return _surrogates.tent_length(x) if self.shape == "v2" else x


@dataclass(frozen=True, kw_only=True)
class FormatLength:
    """Format and length together, without any reference answer (arXiv:2505.19439).

    A well-formed response earns `weight` plus its length reward; any other at most 0, the length reward where that is
    negative. With weight 0.5 (the paper's code) a well-formed response at full length scores below a short ill-formed
    one; with 1 (the paper's text) they tie. For another extractor or judge of answers, or another shape, use `Gate`.
    """

    l_max: int
    p: float = PEAK
    weight: float = 0.5
    require_eos: bool = True
    validate: Callable[[str], bool] | None = None
    extract: Callable[[str], str | None] | None = None

    def __post_init__(self) -> None:
        self._length()
        self._format()

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N]."""
        formatted = self._format().holds(batch).cpu()
        values = _surrogates.format_length(formatted, self._length().value(token_lengths(batch)), self.weight)
        return {"format_length": _stream(batch, values)}

    def _length(self) -> Length:
        return Length(l_max=self.l_max, p=self.p)

    def _format(self) -> Format:
        return Format(weight=self.weight, require_eos=self.require_eos, validate=self.validate, extract=self.extract)


@dataclass(frozen=True, kw_only=True)
class OverlongPenalty:
    """DAPO's penalty on the last tokens before the limit (arXiv:2503.14476, eq. 13).

    0 up to l_max - buffer tokens, from there straight down to -1 at l_max.
    """

    l_max: int
    buffer: int

    def __post_init__(self) -> None:
        _check_limit("overlong_penalty", self.l_max)
        if not 1 <= self.buffer <= self.l_max:
            raise InputError(f"overlong_penalty: `buffer` is {self.buffer}; it must lie in [1, l_max = {self.l_max}].")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N] in [-1, 0]."""
        values = _surrogates.soft_overlong(_float64(token_lengths(batch)), self.l_max, self.buffer)
        return {"overlong_penalty": _stream(batch, values)}


@dataclass(frozen=True, kw_only=True)
class CosineLength:
    """A verdict that is worth more when a right answer is short and a wrong one long (arXiv:2502.03373).

    Between its two ends each follows half a cosine. An outcome above 0.5 counts as right, an unknown one stays unknown.
    """

    l_max: int
    right_short: float = 1.0
    right_long: float = 0.5
    wrong_short: float = -1.0
    wrong_long: float = -0.5

    def __post_init__(self) -> None:
        _check_limit("cosine_length", self.l_max)
        for name in ("right_short", "right_long", "wrong_short", "wrong_long"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"cosine_length: `{name}` is {getattr(self, name)}; it must be finite.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N]."""
        outcome = _float64(batch.outcome)
        right = outcome > 0.5
        short = torch.where(right, self.right_short, self.wrong_short)
        long = torch.where(right, self.right_long, self.wrong_long)
        values = _surrogates.cosine_scaled(_float64(token_lengths(batch)) / self.l_max, short, long)
        return {"cosine_length": _stream(batch, torch.where(outcome.isnan(), torch.nan, values))}


def token_lengths(batch: Batch) -> Tensor:
    """[N] int64: sampled tokens of each response. Padding, the prompt and a given prefix do not count."""
    return batch.seq.mask.sum(dim=1)


def _float64(values: Tensor) -> Tensor:
    return values.cpu().double()  # on the CPU, for Metal has no float64


def _stream(batch: Batch, values: Tensor) -> Stream:
    return Stream(values=values.float().to(batch.outcome.device))


def _check_limit(kind: str, l_max: int) -> None:
    if l_max < 1:
        raise InputError(f"{kind}: `l_max` is {l_max}; it is the limit of generation in tokens and must be 1 or more.")
