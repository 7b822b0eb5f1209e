"""A batch from what a test cares about; everything else is filled in."""

import pytest
import torch

from reckon.types import Batch, End, Problem, Rollouts, Sequences

NAN = float("nan")


def _batch(texts, *, outcomes=None, lengths=None, ends=None, group=None, problems=None, logprobs=None):
    n = len(texts)
    lengths = [max(1, len(text)) for text in texts] if lengths is None else lengths
    group = [0] * n if group is None else group
    ends = [End.EOS] * n if ends is None else ends
    width = max(lengths) + 1  # one column of padding, so that counting it would show
    mask = torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]
    tokens = torch.arange(n * width).reshape(n, width) % 97
    groups = max(group) + 1
    problems = problems or tuple(Problem(id=f"p{g}", prompt=f"question {g}", answer=str(g)) for g in range(groups))
    outcome = torch.tensor([NAN] * n if outcomes is None else outcomes, dtype=torch.float32)
    rollouts = Rollouts(
        seq=Sequences(
            prompts=tuple(torch.tensor([1, 2]) for _ in problems), group=torch.tensor(group), tokens=tokens, mask=mask
        ),
        problems=tuple(problems),
        text=tuple(texts),
        pieces=tuple((text,) for text in texts),
        logprobs=torch.full((n, width), -1.0) if logprobs is None else logprobs,
        end=torch.tensor([int(end) for end in ends]),
    )
    return Batch.given(rollouts, outcome, train=True, step=1)


@pytest.fixture(scope="session")
def make_batch():
    return _batch


@pytest.fixture(scope="session")
def values():
    """The one stream of a leaf, as a list, after its name has been checked to be the leaf's kind."""

    def read(part, batch):
        ((_, stream),) = part.score(batch).items()
        assert stream.kind == "reward"
        assert stream.train
        return stream.values.tolist()

    return read
