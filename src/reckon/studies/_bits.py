"""Eight domains of questions about 16 bits, of unequal size and difficulty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reckon.types import Problem, Rng, Split, Verdict

BITS, ANSWERS = 16, 4
FRESH = 300  # problems of each domain in the test split

# Domain: problems in the train split, and the answer to 16 bits of 0 or 1. From easy to hard, in the order of the
# specification; which bits are asked about is ours where it does not say.
DOMAINS: Mapping[str, tuple[int, Callable[[Sequence[int]], int]]] = {
    "one bit": (1000, lambda b: b[0]),
    "two bits": (1000, lambda b: 2 * b[1] + b[2]),
    "parity of 2": (1000, lambda b: (b[3] + b[4]) % 2),
    "count of 3": (200, lambda b: b[5] + b[6] + b[7]),
    "parity of 3": (150, lambda b: (b[8] + b[9] + b[10]) % 2),
    "majority of 4": (150, lambda b: int(b[11] + b[12] + b[13] + b[14] > 2)),
    "sum mod 4": (40, lambda b: (b[0] + 2 * b[3] + b[15]) % 4),
    "parity of 4": (40, lambda b: (b[4] + b[7] + b[10] + b[13]) % 2),
}
NAMES = tuple(DOMAINS)


class Bits:
    """The problems of all domains; which bit strings are in which split is drawn from the seed."""

    name = "bits"

    def __init__(self, seed: int) -> None:
        self._splits: dict[str, list[Problem]] = {"train": [], "dev": [], "test": []}
        for number, (domain, (size, answer)) in enumerate(DOMAINS.items()):
            generator = Rng((seed, "bits", domain)).numpy()
            for place, value in enumerate(generator.choice(2**BITS, size + FRESH, replace=False).tolist()):
                text = f"{value:0{BITS}b}"
                split = "train" if place < size else "test"
                self._splits[split].append(
                    Problem(
                        id=f"{domain}/{text}",
                        prompt=f"{domain}: {text}",
                        answer=str(answer([int(bit) for bit in text])),
                        domain=domain,
                        columns={"difficulty": 100 * number / (len(DOMAINS) - 1)},
                    )
                )

    def problems(self, split: Split) -> Sequence[Problem]:
        """3,580 to train on and 300 of each domain to test on."""
        return self._splits[split]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right if it is the answer."""
        return _RIGHT[text] if text == problem.answer else _WRONG[text]


# Made once: a run has a million of them.
_RIGHT = {str(i): Verdict(outcome=1.0, answer=str(i), reason="right") for i in range(ANSWERS)}
_WRONG = {str(i): Verdict(outcome=0.0, answer=str(i), reason="wrong") for i in range(ANSWERS)}
