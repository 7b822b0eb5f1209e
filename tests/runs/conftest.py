"""A small batch: two prompts, three responses of at most four tokens."""

import pytest
import torch

from reckon.types import Batch, End, Problem, Rollouts, Seen, Sequences


@pytest.fixture
def batch():
    problems = (
        Problem(
            id="p1",
            prompt=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}),
            answer="4",
        ),
        Problem(id="p2", prompt="Why?", domain="hard"),
    )
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    rollouts = Rollouts(
        seq=Sequences(
            prompts=(torch.tensor([5]), torch.tensor([6, 7])),
            group=torch.tensor([0, 0, 1]),
            tokens=torch.tensor([[11, 12, 2, 0], [13, 0, 0, 0], [14, 15, 16, 17]]),
            mask=mask,
        ),
        problems=problems,
        text=("4!", "five", "abc\ud800"),
        pieces=(("4", "!"), ("five",), ("a", "b", "c", "\ud800")),  # the first leaves its end token out
        logprobs=torch.tensor([[-0.1, -0.2, -0.3, 9.0], [-0.4, 9.0, 9.0, 9.0], [-1.0, -2.0, -3.0, float("-inf")]]),
        end=torch.tensor([End.EOS, End.STOP, End.LENGTH]),
    )
    outcome = torch.tensor([1.0, 0.0, float("nan")])
    seen = Seen(
        problems=tuple(rollouts.problem(row) for row in range(3)),
        outcome=outcome,
        lengths=mask.sum(1),
        end=rollouts.end,
        rounds=1,
        wanted=2,
        kept=2,
    )
    return Batch(rollouts=rollouts, outcome=outcome, train=torch.tensor([True, True, False]), seen=seen, step=6)
