"""A reward function of one's own: called with lists of one value a response, it returns one number for each."""


def brief(completions: list[str], answer: list[str | None]) -> list[float | None]:
    """1 for a response of at most five words, less for a longer one; None (does not apply) where no answer is known."""
    return [
        None if reference is None else min(1.0, 5 / max(1, len(text.split())))
        for text, reference in zip(completions, answer, strict=True)
    ]
