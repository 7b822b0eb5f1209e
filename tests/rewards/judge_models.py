"""Models that say what a test wants them to, a model by table, and batches made of token texts."""

from __future__ import annotations

import itertools

import torch

from reckon.models import LanguageModel, Sampling, tiny
from reckon.types import Batch, End, Outputs, Problem, Rng, Rollouts, Sequences

NAN = float("nan")


class Says:
    """A model with prepared outputs; a field nobody prepared must not be asked for."""

    def __init__(self, **fields):
        self.fields = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in fields.items()}

    def outputs(self, seq, want=("logprobs",)):
        return Outputs(**{name: self.fields[name] for name in want})


class Prefixes:
    """A random law over V tokens after every prefix, the same in every call: an exact little language model."""

    def __init__(self, seed, v=3):
        self.seed, self.v = seed, v

    def law(self, prefix):
        numbers = Rng(("law", self.seed, *prefix)).numpy().normal(size=self.v)
        return torch.from_numpy(numbers).log_softmax(0)

    def outputs(self, seq, want=("logprobs",)):
        assert tuple(want) == ("logprobs",)
        rows = [row.tolist() for row in seq.tokens]
        found = [[self.law(row[:t])[token] for t, token in enumerate(row)] for row in rows]
        return Outputs(logprobs=torch.tensor(found, dtype=torch.float32).where(seq.mask, -99.0))


def batch_of(pieces, *, group=None, given=None, ends=None, outcomes=None, problems=None, tokens=None):
    """A batch whose token texts are `pieces` (N rows); of row i the first `given[i]` are a given prefix."""
    n = len(pieces)
    group = [0] * n if group is None else group
    given = [0] * n if given is None else given
    lengths = torch.tensor([len(row) for row in pieces])
    width = max(int(lengths.max()), 1) + 1  # a column of padding, so that reading it would show
    places = torch.arange(width)
    mask = (places < lengths[:, None]) & (places >= torch.tensor(given)[:, None])
    problems = problems or [Problem(id=f"p{g}", prompt=f"q{g}", answer=str(g)) for g in range(max(group) + 1)]
    outcome = torch.tensor([NAN] * n if outcomes is None else outcomes, dtype=torch.float32)
    rollouts = Rollouts(
        seq=Sequences(
            prompts=tuple(torch.tensor([1, 2]) for _ in problems),
            group=torch.tensor(group),
            tokens=torch.zeros(n, width, dtype=torch.int64) if tokens is None else tokens,
            mask=mask,
        ),
        problems=tuple(problems),
        text=tuple("".join(row) for row in pieces),
        pieces=tuple(tuple(row) for row in pieces),
        logprobs=torch.zeros(n, width),
        end=torch.tensor([int(end) for end in ends or [End.EOS] * n]),
    )
    return _judged(rollouts, outcome)


def enumerated(v, t):
    """All v ** t responses of t tokens to one prompt."""
    rows = torch.tensor(list(itertools.product(range(v), repeat=t)))
    return batch_of([["x"] * t for _ in rows], tokens=torch.cat([rows, torch.zeros(len(rows), 1).long()], 1))


def language_model(*, seed=0, head=True, width=32, context=256, **settings):
    """A small float32 language model with peaked laws and, with `head`, a value head that is not zero."""
    network = tiny.make_network(width=width, heads=2, context=context, seed=seed)
    with torch.no_grad():
        network.lm_head.weight.mul_(8)
    settings.setdefault("sampling", Sampling(max_new_tokens=12))
    model = LanguageModel(network, tiny.make_tokenizer(), dtype="float32", device="cpu", value_head=head, **settings)
    if model.head is not None:
        with torch.no_grad():
            model.head.weight.copy_(torch.randn(model.head.weight.shape, generator=torch.Generator().manual_seed(seed)))
    return model


def answered(model, problems, texts, *, group=None, outcomes=None):
    """A batch of given responses in the model's own tokens, each ended by its end token."""
    group = list(range(len(texts))) if group is None else group
    seq = model.tokenize_groups(problems, texts, group)
    # One token a character in the tiny model, and the end token adds no text.
    pieces = tuple((*text, "") for text in texts)
    rollouts = Rollouts(
        seq=seq,
        problems=tuple(problems),
        text=tuple(texts),
        pieces=pieces,
        logprobs=torch.zeros(seq.mask.shape),
        end=torch.zeros(len(texts), dtype=torch.int64),
    )
    return _judged(rollouts, torch.tensor([NAN] * len(texts) if outcomes is None else outcomes))


def _judged(rollouts, outcome):
    return Batch.given(rollouts, outcome, train=True, step=1)
