"""Which examples to buy labels for, and examples put in front of a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reckon.errors import InputError
from reckon.labels._measures import Floats, entropy_bits


def choose_by_entropy(
    probabilities: Floats, n: int, rng: np.random.Generator, *, temperature: float = 0.25, confident: bool = False
) -> NDArray[np.int64]:
    """Uncertainty sampling: the n examples the model is least sure of (Lewis & Gale 1994), in random order.

    Args:
        probabilities: [m], of class 1.
        n: how many, at most m.
        rng: for ties, draws and the order.
        temperature: 0 = the n of largest entropy; above 0 = drawn without replacement with weights
            entropy ** (1 / temperature).
        confident: the other way round, by 1 - entropy in bits: the labels a weak source is most sure of.

    Returns:
        [n] places in `probabilities`.

    Raises:
        InputError: n is more than there are; a temperature below 0.
    """
    if not 0 <= n <= len(probabilities):
        raise InputError(f"{n} examples are to be chosen, but there are {len(probabilities)}.")
    if not temperature >= 0:
        raise InputError(f"the temperature is {temperature:g}, but must be 0 or more.")
    order = rng.permutation(len(probabilities))  # ties fall by chance, not by place in the file
    bits = entropy_bits(probabilities)[order]
    value = 1 - bits if confident else bits
    if temperature > 0:
        # Gumbel's trick: the n largest of log weight + noise are n draws without replacement, in the order drawn.
        with np.errstate(divide="ignore"):
            value = np.log(value) / temperature + rng.gumbel(size=len(value))
    chosen = order[np.argsort(-value, kind="stable")[:n]]
    return rng.permutation(chosen)


def few_shot_text(
    text: str, examples: Sequence[tuple[str, int]], rng: np.random.Generator, *, words: tuple[str, str] = ("0", "1")
) -> str:
    r"""Labeled examples in front of a text: blocks `text\nlabel` joined by blank lines, then `text\n`.

    Their order is drawn anew for each text, so that a model cannot lean on it. Each example is a label that was bought.

    Args:
        text: what is to be judged.
        examples: (text, label 0 or 1).
        rng: for the order.
        words: what stands for 0 and for 1.

    Raises:
        InputError: a label that is neither 0 nor 1.
    """
    for _, label in examples:
        if label not in (0, 1):
            raise InputError(f"an example has the label {label!r}, but must have 0 or 1: threshold soft labels at 0.5.")
    blocks = [f"{examples[i][0]}\n{words[examples[i][1]]}" for i in rng.permutation(len(examples))]
    return "\n\n".join([*blocks, f"{text}\n"])
