"""Imitation without a run: what a step is made of, and what cannot be imitated."""

import pytest

from reckon.errors import InputError
from reckon.fit import sft
from reckon.types import Problem, Rng

PROBLEMS = [Problem(id="a", prompt="1+1="), Problem(id="b", prompt="2+1=")]
TEXTS = ["12", "3"]


class Reading:
    """Remembers the rows that a model is stepped on, and leaves it as it is."""

    def __init__(self, model):
        self.model, self.rows, self.scales = model, [], []

    def tokenize(self, *given):
        return self.model.tokenize(*given)

    def step(self, seq, columns, loss):
        self.rows += [tokens[mask].tolist() for tokens, mask in zip(seq.tokens, seq.mask, strict=True)]
        self.scales.append(columns["scale"])
        value = loss(self.model.outputs(seq), columns).sum()
        return {"policy/loss": float(value)}


def tokens_of(model, text, end):
    return model.tokenizer(text)["input_ids"] + [model.tokenizer.eos_token_id] * end


@pytest.mark.parametrize(("ended", "wanted"), [(None, [1, 1]), ([True, False], [1, 0]), ([False, False], [0, 0])])
def test_a_solution_that_is_cut_off_teaches_no_end(make, ended, wanted):
    """Every token of a mini-batch counts the same: 1 / 5, 1 / 4 or 1 / 3 of these three characters and the ends."""
    reading = Reading(make())
    told = sft(reading, PROBLEMS, TEXTS, Rng((0,)), batch=2, ended=ended)
    assert reading.rows == [tokens_of(reading.model, text, end) for text, end in zip(TEXTS, wanted, strict=True)]
    n = 3 + sum(wanted)
    assert reading.scales[0][reading.scales[0] > 0].tolist() == pytest.approx([1 / n] * n)
    seq = reading.model.tokenize(PROBLEMS, TEXTS, ended)
    logprobs = reading.model.outputs(seq).logprobs[seq.mask]
    assert told == {"fit/loss": pytest.approx(-float(logprobs.mean()), abs=1e-6), "fit/steps": 1.0}


@pytest.mark.parametrize(
    ("problems", "texts", "settings", "message"),
    [
        ([], [], {}, "got 0 problems and 0 solutions"),
        (PROBLEMS, TEXTS[:1], {}, "got 2 problems and 1 solutions"),
        (PROBLEMS, TEXTS, {"ended": [True]}, "got 2 problems, and for 1 whether they end"),
        (PROBLEMS, TEXTS, {"batch": 0}, "at least 1, not 1 and 0"),
    ],
)
def test_rows_that_do_not_fit_together(problems, texts, settings, message):
    with pytest.raises(InputError, match=message):
        sft(None, problems, texts, Rng((0,)), **settings)
