"""Batches of which only groups and lengths matter, and streams of rewards for them."""

import torch

from reckon.types import Batch, Problem, Rollouts, Seen, Sequences, Stream


def batch_of(group, lengths, *, width=None, before=0, train=None, step=0):
    """Responses of these lengths; `before` tokens of a given prefix come first."""
    group, lengths = torch.tensor(group), torch.tensor(lengths)
    n, width = len(group), before + (width or int(lengths.max()))
    place = torch.arange(width)
    mask = (place >= before) & (place < before + lengths[:, None])
    problems = tuple(Problem(id=str(g), prompt="?") for g in range(int(group.max()) + 1))
    rollouts = Rollouts(
        seq=Sequences(
            prompts=tuple(torch.tensor([1]) for _ in problems),
            group=group,
            tokens=torch.zeros(n, width, dtype=torch.int64),
            mask=mask,
        ),
        problems=problems,
        text=("",) * n,
        pieces=((),) * n,
        logprobs=torch.zeros(n, width),
        end=torch.zeros(n, dtype=torch.int64),
    )
    nothing = torch.zeros(0)
    return Batch(
        rollouts=rollouts,
        outcome=torch.zeros(n),
        train=torch.ones(n, dtype=torch.bool) if train is None else torch.tensor(train),
        seen=Seen(problems=(), outcome=nothing, lengths=nothing.long(), end=nothing.long(), rounds=1, wanted=1, kept=1),
        step=step,
    )


def stream(values, kind="reward", train=True):
    """A stream of float32."""
    return Stream(values=torch.tensor(values, dtype=torch.float32), kind=kind, train=train)


def same(found, wanted, tolerance=1e-6):
    """Asserts that two tensors agree, absolutely or relatively."""
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=tolerance, atol=tolerance)
