"""A scalar head read at the end of a response, and what becomes of one that has no end."""

from functools import partial

import pytest
import torch
from judge_models import NAN, Says, answered, batch_of, language_model

from reckon.errors import InputError
from reckon.models.table import Action, TablePolicy
from reckon.rewards import as_reward
from reckon.rewards._outcome import OutcomeModel
from reckon.types import End, Problem

# Four responses: ended, cut off, the end token alone, and one of which nothing was sampled.
PIECES = [["a", "b", ""], ["a", "b"], [""], ["a"]]
ENDS = [End.EOS, End.LENGTH, End.EOS, End.LENGTH]
SCORES = [[9, 9, 1.5, 9], [9, -0.5, 9, 9], [2.5, 9, 9, 9], [9, 9, 9, 9]]


@pytest.fixture
def batch():
    return batch_of(PIECES, ends=ENDS, given=[0, 0, 0, 1])


def only(reward, batch):
    ((name, stream),) = reward.score(batch).items()
    assert name == "outcome_model"
    assert (stream.kind, stream.train) == ("reward", True)
    return stream.values


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.5, -0.5, 2.5]),  # at the last real token, not the last column
        ({"center": 0.5, "scale": 2}, [2, -2, 4]),  # 2 (1.5 - 0.5), 2 (-0.5 - 0.5), 2 (2.5 - 0.5)
        ({"probability": True}, [0.8175745, 0.3775407, 0.9241418]),
        ({"probability": True, "center": 1.5, "scale": 3}, [0.5, 0.0024726, 0.9525741]),  # sigmoid of 0, -6, 3
        ({"unfinished": "unknown"}, [1.5, NAN, 2.5]),
        ({"unfinished": "replace", "penalty": -10}, [1.5, -10, 2.5]),
        ({"unfinished": "subtract", "penalty": 1, "scale": 2}, [3, -2, 5]),  # 2 * -0.5 - 1: behind the scale
        ({"unfinished": "subtract", "penalty": 1, "probability": True}, [0.8175745, -0.6224593, 0.9241418]),
    ],
)
def test_the_score_of_the_last_token_and_what_becomes_of_a_response_without_an_end(batch, settings, expected):
    values = only(OutcomeModel(Says(scores=SCORES), **settings), batch)
    assert values[:3].tolist() == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert values[3].isnan()  # nothing was sampled, so there is nothing to judge


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale": 0}, r"`center` is 0.0 and `scale` 0"),
        ({"center": NAN}, r"`center` is nan"),
        ({"unfinished": "zero"}, r"`unfinished` is 'zero'; it must be score, unknown, replace or subtract"),
        ({"unfinished": "replace"}, r"unfinished='replace' needs a `penalty`"),
        ({"penalty": -1}, r"unfinished='score' has no use for a `penalty`"),
        ({"unfinished": "replace", "penalty": NAN}, r"`penalty` is nan"),
        ({"unfinished": "subtract", "penalty": -10}, r"subtracting it would be a reward"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        OutcomeModel(Says(), **settings)


def test_a_model_without_a_head_is_told_at_once():
    with pytest.raises(InputError, match=r"no value head, so it has no scores\. Load it with value_head=True"):
        OutcomeModel(language_model(head=False))


def test_a_table_has_no_scores(batch):
    table = TablePolicy([Action(text="a")], torch.zeros(1), optimizer=partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(InputError, match="scores were asked of a table of logits, which has none"):
        OutcomeModel(table).score(batch)


PROBLEMS = [Problem(id="a", prompt="1+2=", answer="3"), Problem(id="b", prompt="say it: ", answer="x")]
TEXTS = ["3", "three or\nso", "", "x"]


def test_it_reads_what_the_network_and_its_head_say_of_each_response_alone():
    model = language_model()
    values = only(OutcomeModel(model), answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1]))
    for row, text in enumerate(TEXTS):
        ids = model.tokenizer(PROBLEMS[row // 2].prompt + text)["input_ids"] + [model.tokenizer.eos_token_id]
        with torch.no_grad():
            hidden = model.network.base_model(torch.tensor([ids]))[0][0, -1]
            alone = float(hidden @ model.head.weight[0])
        assert values[row].item() == pytest.approx(alone, abs=1e-5)
    assert values.isfinite().all()  # the empty one too
    assert not values.requires_grad
    assert not model.network.training


def test_it_is_a_reward_in_one_line():
    model = language_model()
    batch = answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1])
    assert list(as_reward(OutcomeModel(model)).score(batch)) == ["outcome_model"]
