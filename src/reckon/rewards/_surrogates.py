"""The mathematics of rewards that need no reference answer: length, layout, repetition, key words.

Sources: Xin et al. 2025, arXiv:2505.19439 (format and length), with the constants of its published code where the two
differ; Yu et al. 2025, arXiv:2503.14476 (overlong); Yeo et al. 2025, arXiv:2502.03373 (cosine, repetition).
Nothing here knows of batches or text encodings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def peaked_length(x: Tensor, p: float) -> Tensor:
    """Rises to 1 at the wanted length and falls to -1 at the limit: "v3" of arXiv:2505.19439, its length reward.

    f(x) = 1 - (1 - x/p)^2 for x <= p, else 1 - 2 ((x - p) / (1 - p))^2. Steepest at 0, flat at p, 0 again at
    x = p + (1 - p) / sqrt(2).

    Args:
        x: any shape, float: length as a share of the limit, 0 or more. Beyond 1 the value goes on falling below -1.
        p: the share at which f peaks, in (0, 1).

    Returns:
        The shape of x.
    """
    rising = 1 - (1 - x / p) ** 2
    falling = 1 - 2 * ((x - p) / (1 - p)) ** 2
    return torch.where(x <= p, rising, falling)


def stepped_length(x: Tensor) -> Tensor:
    """Variant "v1" in the code of arXiv:2505.19439: x below 0.3, then 1 - x below 0.6, then -x. It jumps at both."""
    return torch.where(x < 0.3, x, torch.where(x < 0.6, 1 - x, -x))


def tent_length(x: Tensor) -> Tensor:
    """Variant "v2" in the code of arXiv:2505.19439: x below 0.5, then 1.5 - 2x."""
    return torch.where(x < 0.5, x, 1.5 - 2 * x)


def format_length(formatted: Tensor, length: Tensor, weight: float) -> Tensor:
    """Length counts in full for a well-formed response and only against an ill-formed one (arXiv:2505.19439).

    R = weight + f if formatted, else min(0, f). At equal length a formatted response is `weight` or more ahead.

    Args:
        formatted: [N] bool.
        length: [N] float, the length reward f.
        weight: what the format itself is worth; the paper writes 1, its code uses 0.5.

    Returns:
        [N] float.
    """
    return torch.where(formatted, weight + length, length.clamp(max=0.0))


def soft_overlong(lengths: Tensor, l_max: int, buffer: int) -> Tensor:
    """DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13).

    0 up to l_max - buffer, then (l_max - buffer - L) / buffer down to -1 at l_max, and -1 beyond.

    Args:
        lengths: [N] number of tokens.
        l_max: the limit, at which the punishment is whole.
        buffer: over how many tokens it sets in, in [1, l_max].

    Returns:
        [N] float64 in [-1, 0].
    """
    return ((l_max - buffer - lengths.double()) / buffer).clamp(-1.0, 0.0)


def cosine_scaled(x: Tensor, short: Tensor, long: Tensor) -> Tensor:
    """Goes from `short` at x = 0 to `long` at x = 1 along half a cosine (the cosine reward of arXiv:2502.03373).

    R = long + (short - long) (1 + cos(pi x)) / 2.

    Args:
        x: [N] float: length as a share of the limit; beyond 1 it counts as 1, or the cosine would turn back.
        short: [N] float: the value at x = 0.
        long: [N] float: the value at x = 1.

    Returns:
        [N] float.
    """
    return long + (short - long) * (1 + torch.cos(math.pi * x.clamp(max=1.0))) / 2


def repeated_share(items: Sequence[Hashable], n: int) -> float:
    """The share of n-grams that repeat an earlier one: 1 - unique / total, in [0, 1).

    0 where there are fewer than n items, hence no n-gram at all (arXiv:2502.03373, appendix C.2).
    """
    total = len(items) - n + 1
    if total < 1:
        return 0.0
    unique = {tuple(items[i : i + n]) for i in range(total)}
    return 1 - len(unique) / total


def keyword_share(text: str, words: Sequence[str], cap: int) -> float:
    """How many of the words stand in the text, each time they do, up to `cap`: min(n, cap) / cap, in [0, 1].

    Whole words only, in upper or lower case: "but" is not in "butter".
    """
    pattern = "|".join(re.escape(word) for word in words)
    found = sum(1 for _ in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", text, flags=re.IGNORECASE))
    return min(found, cap) / cap


def has_think_block(text: str) -> bool:
    """Whether a <think> tag is closed somewhere behind it."""
    start = text.find("<think>")
    return start >= 0 and text.find("</think>", start) >= 0


def is_strict_layout(text: str) -> bool:
    """Whether the whole text is one think block and then one answer block, with nothing but blanks around them."""
    whole = text.strip()
    if not (whole.startswith("<think>") and whole.endswith("</answer>")):
        return False
    if any(whole.count(tag) != 1 for tag in ("<think>", "</think>", "<answer>", "</answer>")):
        return False
    close, opened = whole.index("</think>") + len("</think>"), whole.index("<answer>")
    return close <= opened and not whole[close:opened].strip()


def contains(answer: str, reference: str) -> bool:
    """Whether one of two answers stands inside the other, blanks and case aside. An empty one stands nowhere."""
    ours, theirs = "".join(answer.lower().split()), "".join(reference.lower().split())
    return bool(ours) and bool(theirs) and (ours in theirs or theirs in ours)
