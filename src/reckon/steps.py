"""Where the steps of a response end: in characters, and in tokens. Shared by every judge that scores steps.

A splitter says after which characters of a text a step ends; the text each token added says which token that is. The
delimiter belongs to the step it closes, so that reading a verifier there rates the step with the delimiter it was
trained on. Scores under two splitters are never comparable step by step: more steps have a lower minimum.
"""

from __future__ import annotations

import operator
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from reckon.errors import InputError
from reckon.types import Rollouts, check_shapes

if TYPE_CHECKING:
    from torch import Tensor

# A text to the character offsets at which its steps end, ascending; what follows the last of them is one more step.
Splitter: TypeAlias = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Pattern:
    r"""A step ends where a regular expression's match does; the default is the end of a line.

    Where steps are told by how they begin, look ahead: `Pattern(r"(?=Step \d+:)")`.
    """

    regex: str = r"\n+"

    def __post_init__(self) -> None:
        try:
            re.compile(self.regex)
        except re.error as error:
            raise InputError(
                f"the pattern {self.regex!r} that ends a step is no regular expression: {error}."
            ) from error

    def __call__(self, text: str) -> list[int]:
        """The offsets behind the matches."""
        return [match.end() for match in re.finditer(self.regex, text)]


@dataclass(frozen=True)
class Given:
    """Step ends that are known, by text: from a data set's own steps, or another program's."""

    ends: Mapping[str, Sequence[int]]

    def __call__(self, text: str) -> Sequence[int]:
        """The offsets that were given for this text.

        Raises:
            InputError: none were.
        """
        if text not in self.ends:
            raise InputError(f"no step ends were given for the text {text[:60]!r}. Give them, or split by a pattern.")
        return self.ends[text]


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """The steps of N responses of at most T tokens, H of them at most.

    Only what the policy sampled is in a step. One that began in a given prefix has its sampled tokens alone, and one
    that stands in the prefix as a whole is not counted.
    """

    ends: tuple[tuple[int, ...], ...]  # N rows, ascending: the index of each step's last token
    index: Tensor  # [N, T] int64 in [0, count), which step a token belongs to; -1 = none: prefix, padding, no text
    count: Tensor  # [N] int64, steps of each response; 0 for an empty text

    def __post_init__(self) -> None:
        check_shapes(self, index="N T", count="N")
        if len(self.ends) != self.count.shape[0]:
            raise ValueError(f"Steps.ends must have {self.count.shape[0]} rows, as count has, not {len(self.ends)}")


def step_ends(text: str, splitter: Splitter) -> list[int]:
    r"""The character offsets at which the steps of a text end.

    A step of white space alone joins the one before it, or the one behind it if it is the first.

    Args:
        text: a response.
        splitter: says where steps end.

    Returns:
        Ascending; the last equals len(text). [] for an empty text, [len(text)] for one of white space alone.

    Raises:
        InputError: the splitter gave offsets that are not whole numbers, do not ascend, or lie outside the text.
    """
    given = list(splitter(text))
    try:
        cuts = [operator.index(cut) for cut in given]
    except TypeError:
        cuts = [-1]
    if any(not 0 <= cut <= len(text) for cut in cuts) or any(b < a for a, b in pairwise(cuts)):
        raise InputError(
            f"the splitter gave the step ends {_short(given)} for the text {text[:60]!r} of {len(text)} characters. "
            "They must be character offsets in it, ascending."
        )
    ends: list[int] = []
    start = 0
    for cut in [*cuts, len(text)]:
        if text[start:cut].isspace() or start == cut:
            if ends:
                ends[-1] = start = cut
            continue  # nothing to join yet: it opens the first step
        ends.append(cut)
        start = cut
    return ends or [len(text)] * bool(text)


def token_ends(pieces: Sequence[str], ends: Sequence[int]) -> list[int]:
    """The index of each step's last token.

    A token belongs to the step in which its first character stands. One that adds no text is a character's first half
    and belongs with that character; behind all text (the end token) it belongs to the last step. A step in which no
    token begins has no end of its own.

    Args:
        pieces: the text each token added.
        ends: as `step_ends` gives them, of the pieces joined.

    Returns:
        Ascending indices into `pieces`; the last is the last token. [] if there is no step.

    Raises:
        ValueError: the last end is not the length of the text.
    """
    place = 0  # of the token's first character
    belongs = []
    for piece in pieces:
        belongs.append(min(bisect_right(ends, place), len(ends) - 1))
        place += len(piece)
    if place != (ends[-1] if ends else 0):
        raise ValueError(f"the steps end at {ends[-1] if ends else 0}, but the tokens' text has {place} characters")
    if not ends:
        return []
    return [t for t, step in enumerate(belongs) if t + 1 == len(belongs) or belongs[t + 1] != step]


def split_rollouts(rollouts: Rollouts, splitter: Splitter) -> Steps:
    """The steps of sampled responses.

    The text of a given prefix is split with the rest, since a delimiter may stand across the two.

    Args:
        rollouts: N responses.
        splitter: says where steps end in a text.

    Raises:
        InputError: the splitter gave offsets that cannot be; names the row.
    """
    import torch

    mask = rollouts.seq.mask
    index = torch.full(mask.shape, -1, dtype=torch.int64)
    places = torch.arange(mask.shape[1])
    sampled = mask.cpu()
    kept = []
    for row, text in enumerate(rollouts.text):
        try:
            ends = token_ends(rollouts.pieces[row], step_ends(text, splitter))
        except InputError as error:
            raise InputError(f"response {row}: {error}") from error
        step = torch.bucketize(places, torch.tensor(ends, dtype=torch.int64))
        here = sampled[row] & (step < len(ends))
        first = int(step[here][0]) if bool(here.any()) else len(ends)
        index[row] = torch.where(here, step - first, -1)
        kept.append(tuple(ends[first:]))
    count = torch.tensor([len(ends) for ends in kept], dtype=torch.int64)
    return Steps(ends=tuple(kept), index=index.to(mask.device), count=count.to(mask.device))


def token_steps(mask: Tensor) -> Steps:
    """Every sampled token as a step of its own, the end token too.

    Args:
        mask: [N, T] bool, True where a token was sampled.
    """
    import torch

    ends = tuple(tuple(row.nonzero()[:, 0].tolist()) for row in mask)
    index = torch.where(mask, mask.cumsum(dim=1) - 1, -1)
    return Steps(ends=ends, index=index, count=mask.sum(dim=1))


def at_ends(values: Tensor, steps: Steps) -> Tensor:
    """Values read at each step's last token.

    Args:
        values: [N, T] float, one for each token: of a prefix that ends with it, such as `Outputs.scores` or Q values.
        steps: of the N responses.

    Returns:
        [N, H] float32, NaN behind a response's last step.
    """
    import torch

    _check(values, steps)
    columns = max((len(ends) for ends in steps.ends), default=0)
    places = torch.tensor([[*ends, *[0] * (columns - len(ends))] for ends in steps.ends], dtype=torch.int64)
    places = places.reshape(len(steps.ends), columns).to(values.device)
    read = values.gather(1, places) if values.shape[1] else values.new_zeros(places.shape)
    return torch.where(_is_step(steps, columns), read.float(), torch.nan)


def over_steps(values: Tensor, steps: Steps) -> Tensor:
    """Sums over each step's tokens: rewards of tokens to rewards of steps, whose sum is the response's reward.

    Args:
        values: [N, T] float, one for each token; what stands outside of steps does not matter.
        steps: of the N responses.

    Returns:
        [N, H] float32, NaN behind a response's last step.
    """
    import torch

    _check(values, steps)
    columns = max((len(ends) for ends in steps.ends), default=0)
    inside = steps.index >= 0
    # One more column takes what is outside: where no response has a step, there is no other to take it.
    into = torch.where(inside, steps.index, columns)
    sums = values.new_zeros((values.shape[0], columns + 1), dtype=torch.float32)
    sums = sums.scatter_add(1, into, torch.where(inside, values, 0.0).float())[:, :columns]
    return torch.where(_is_step(steps, columns), sums, torch.nan)


def spread(per_step: Tensor, steps: Steps) -> Tensor:
    """Gives each token its step's value.

    Args:
        per_step: [N, H] float; what stands behind a response's last step does not matter.
        steps: of the N responses.

    Returns:
        [N, T], 0 where a token is in no step.
    """
    import torch

    if per_step.shape[0] != len(steps.ends) or per_step.shape[1] < max((len(e) for e in steps.ends), default=0):
        raise ValueError(f"per_step of shape {tuple(per_step.shape)} does not fit {len(steps.ends)} responses' steps")
    if not per_step.shape[1]:
        return per_step.new_zeros(steps.index.shape)
    return torch.where(steps.index >= 0, per_step.gather(1, steps.index.clamp(min=0)), 0.0)


def _is_step(steps: Steps, columns: int) -> Tensor:
    """[N, H] bool."""
    import torch

    return torch.arange(columns, device=steps.count.device) < steps.count[:, None]


def _check(values: Tensor, steps: Steps) -> None:
    if values.shape != steps.index.shape:
        raise ValueError(f"values must be of shape {tuple(steps.index.shape)}, not {tuple(values.shape)}")


def _short(given: Sequence[object]) -> str:
    return f"{given[:8]}" if len(given) <= 8 else f"{given[:8]}... ({len(given)} in all)"
