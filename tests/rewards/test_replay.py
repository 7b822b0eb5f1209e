"""Labelled responses that Cooper's judge is shown again."""

import json
import math

import pytest
import torch
from book_judge import RNG, batch, reward_of, values

from reckon.errors import InputError, MissingError
from reckon.types import Rng


def replayed(tmp_path, *, label=(1, 0), answer=("85", "7")):
    rows = [
        {"prompt": f"sum {i}?", "completion": text, "label": own, "answer": known}
        for i, (text, own, known) in enumerate(zip(("r 85", "r 8"), label, answer, strict=True))
    ]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))
    return str(path)


def test_labelled_responses_are_shown_again(tmp_path):
    """From scores of 0 a step of rate 1 on the mean over two rows moves each by 1/4 towards its label."""
    reward = reward_of(replay=replayed(tmp_path))
    bare = reward_of()
    assert torch.equal(values(reward.assess(batch(), RNG)), values(bare.assess(batch(), RNG)))
    book = reward.model
    assert (book.score_of("r 85"), book.score_of("r 8")) == (0.25, -0.25)
    assert book.score_of("b 85") == bare.model.score_of("b 85") != 0  # its pairs are as they were
    told = reward.metrics()
    assert told["replay/loss"] == pytest.approx(math.log(2))
    assert told["replay/accuracy"] == 0.5  # 0 is on the side of wrong
    assert {k: v for k, v in told.items() if not k.startswith("replay/")} == bare.metrics()
    reward.assess(batch(step=1), RNG)
    assert reward.metrics()["replay/accuracy"] == 1
    assert reward.metrics()["replay/loss"] == pytest.approx(math.log1p(math.exp(-0.25)))


def test_some_are_drawn_by_the_steps_numbers(tmp_path):
    def met(rng):
        reward = reward_of(replay=replayed(tmp_path), replay_rows=1)
        reward.assess(batch(), rng)
        return reward.model.texts[-1]

    assert met(Rng((1, "a"))) == met(Rng((1, "a")))
    assert len({met(Rng((i, "a"))) for i in range(12)}) == 2


def test_nothing_is_shown_at_steps_where_it_does_not_learn(tmp_path):
    reward = reward_of(replay=replayed(tmp_path), every=2)
    reward.assess(batch(step=0), RNG)
    assert reward.metrics() == {}
    reward.assess(batch(step=1), RNG)
    assert reward.metrics()["replay/loss"] > 0


def test_labelled_responses_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"labelled.jsonl, row 2: `replay` needs the column `label`"):
        reward_of(replay=replayed(tmp_path, label=(1, None)))
    with pytest.raises(InputError, match=r"labelled.jsonl, row 1: `replay` needs the column `answer`"):
        reward_of(replay=replayed(tmp_path, answer=(None, "7")))
    reward_of(replay=replayed(tmp_path, answer=(None, "7")), show_reference=False)
    with pytest.raises(MissingError, match="no such file"):
        reward_of(replay=str(tmp_path / "none.jsonl"))
