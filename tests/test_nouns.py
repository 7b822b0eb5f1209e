"""The nouns that every room speaks: what fits together, what is refused, what a part of a batch is."""

import pytest
import torch

from credit_batches import batch_of
from reckon.types import Batch, End, Problem, Rollouts, Sequences, Verdict

RIGHT, WRONG, UNKNOWN = (Verdict(outcome=outcome, answer="4", reason="") for outcome in (1.0, 0.0, None))
FOUR_FIVE = (Problem(id="4", prompt="2 + 2"), Problem(id="5", prompt="2 + 3"))


def rollouts(text=("4", "5.", "no"), group=(0, 0, 1), **other):
    lengths = torch.tensor([len(line) for line in text])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    given = {
        "seq": Sequences(
            prompts=(torch.tensor([1]), torch.tensor([1, 2])),
            group=torch.tensor(group),
            tokens=mask.long(),
            mask=mask,
        ),
        "problems": FOUR_FIVE,
        "text": text,
        "pieces": tuple(map(tuple, text)),
        "logprobs": torch.zeros(mask.shape),
        "end": torch.tensor([int(End.EOS), int(End.EOS), int(End.LENGTH)]),
    }
    return Rollouts(**{**given, **other})


def test_given_responses_are_all_there_is():
    outcome = torch.tensor([1.0, 0.0, float("nan")])
    verdicts = (RIGHT, WRONG, UNKNOWN)
    batch = Batch.given(rollouts(), outcome, verdicts=verdicts, step=7)
    assert batch.outcome is outcome
    assert batch.verdicts == verdicts
    assert batch.step == 7
    assert batch.train.tolist() == [False, False, False]
    assert not batch.on_policy
    seen = batch.seen
    assert seen.problems == (FOUR_FIVE[0], FOUR_FIVE[0], FOUR_FIVE[1])
    assert seen.outcome is outcome
    assert seen.lengths.tolist() == [1, 2, 2]
    assert seen.end.tolist() == [End.EOS, End.EOS, End.LENGTH]
    assert (seen.rounds, seen.wanted, seen.kept) == (1, 2, 2)
    assert Batch.given(rollouts(), outcome, train=True).train.tolist() == [True, True, True]


def test_a_part_of_a_batch_has_its_rows_and_all_that_was_seen():
    verdicts = (RIGHT, WRONG, UNKNOWN)
    whole = Batch.given(rollouts(), torch.tensor([1.0, 0.0, 0.25]), verdicts=verdicts, train=True)
    part = whole.take(torch.tensor([1, 2]))
    assert part.outcome.tolist() == [0.0, 0.25]
    assert part.verdicts == verdicts[1:]
    assert part.rollouts.text == ("5.", "no")
    assert part.rollouts.problem(1) is FOUR_FIVE[1]
    assert part.seen is whole.seen
    last = whole.take(torch.tensor([2]))
    assert last.seq.group.tolist() == [0]  # numbered anew: the first prompt has no response in it
    assert last.rollouts.problems == (FOUR_FIVE[1],)
    assert [prompt.tolist() for prompt in last.seq.prompts] == [[1, 2]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rollouts(group=(0, 1, 0)), "group must ascend"),
        (lambda: rollouts(problems=FOUR_FIVE[:1]), "one problem for each prompt"),
        (lambda: rollouts(pieces=((),)), "must each have 3 rows"),
        (lambda: Batch.given(rollouts(), torch.zeros(2)), "the same number of rows|must be"),
        (
            lambda: Batch(
                rollouts=rollouts(),
                outcome=torch.zeros(3),
                train=torch.ones(3, 1, dtype=torch.bool),
                seen=batch_of([0], [1]).seen,
                step=0,
            ),
            r"Batch.train must be \[N\]",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
