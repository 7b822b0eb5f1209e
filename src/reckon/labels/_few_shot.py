"""Labeled examples in front of every text, bought beside the labels that are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reckon.errors import InputError
from reckon.labels._choosing import few_shot_text
from reckon.labels._sources import Purchase
from reckon.labels._trainer import KINDS, Kind, Offer

_ORDER = 3  # place of the order's random numbers beside those of the stages, 0 and 1, and of the purchase, 2


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """The same examples in front of every text, in training and in the test (Mallen & Belrose 2024, "2-shot ICL").

    They are bought beside a purchase and cost as much as its labels, and nothing is trained on them. Soft labels are
    cut at 0.5.

    Raises:
        InputError: a kind that is none, or no example.
    """

    kind: Kind = "weak"  # whose labels
    shots: int = 2
    words: tuple[str, str] = ("0", "1")  # what stands for 0 and for 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.shots < 1:
            raise InputError(
                f"FewShot: kind is {self.kind!r} and shots {self.shots}; the first must be 'weak' or 'gold', the "
                "second 1 or more."
            )

    def beside(self, bought: tuple[int, int]) -> Purchase:
        """A purchase and the examples: what has to be paid."""
        n_weak, n_gold = bought
        return Purchase(n_weak + self.shots, n_gold) if self.kind == "weak" else Purchase(n_weak, n_gold + self.shots)

    def shown(self, offers: Mapping[Kind, Offer], test_x: Any, seed: int) -> tuple[dict[Kind, Offer], Any]:
        """Offers of a purchase with examples as one without, and all texts with the examples in front.

        Args:
            offers: as `LabelData.offers` makes them; the first labels of `kind` become the examples.
            test_x: [m] texts.
            seed: of the examples' order, which is another for each text.

        Returns:
            The offers, and [m] texts.

        Raises:
            InputError: the pool or the test set holds something else than texts.
        """
        own = offers[self.kind]
        examples = [(own.x[i], int(own.labels[i] >= 0.5)) for i in own.rows[: self.shots]]
        rng = np.random.default_rng([seed, _ORDER])
        x, test = self._in_front(own.x, examples, rng), self._in_front(test_x, examples, rng)
        left = {kind: replace(offer, x=x) for kind, offer in offers.items()}
        left[self.kind] = replace(left[self.kind], rows=own.rows[self.shots :], n=own.n - self.shots)
        return left, test

    def _in_front(self, texts: Any, examples: Sequence[tuple[str, int]], rng: np.random.Generator) -> Any:
        if not all(isinstance(text, str) for text in texts):
            raise InputError("examples can stand in front of texts alone, and `x` or `test_x` holds something else.")
        return np.array([few_shot_text(text, examples, rng, words=self.words) for text in texts], dtype=object)
