"""The exact truth about chains as text: chances by hand and by all ways to go on, steps as the task judges them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reckon.advantages import returns_to_go
from reckon.models import LanguageModel, Sampling, tiny
from reckon.recipe import make_task
from reckon.studies import _chain_texts as chains
from reckon.studies._chain_texts import StepErrors, chances, truth_of
from reckon.tasks import ChainArithmetic
from reckon.types import Batch, End, Problem, Rng, Rollouts

TASK = ChainArithmetic(operations=2)


def problem(*digits):
    return Problem(id="p", prompt="+".join(map(str, digits)) + "=", answer=str(sum(digits) % 10))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        # A step keeps 1 - 2.5 / 9 = 0.7222 of what is known: 0.1 + 0.9 * 0.5216, 0.1 + 0.9 * 0.7222, 1.
        ([7, 5], [0.569444, 0.75, 1.0]),
        # 8 is wrong, 0.1 - 0.1 * 0.7222; 5 makes up for it; 6 follows from 8 and is as wrong.
        ([8, 5], [0.569444, 0.027778, 1.0]),
        ([8, 6], [0.569444, 0.027778, 0.0]),
    ],
)
def test_chances_by_hand(written, expected):
    assert chances(problem(3, 4, 8), written, 0.25) == pytest.approx(expected, abs=1e-6)


def test_chances_are_those_of_all_ways_to_go_on():
    """Three operations, from every beginning of some responses: 1, 10, 100 and 1000 endings, one by one."""
    error, digits = 0.3, (4, 1, 9, 6)
    asked = problem(*digits)
    for written in ([5, 4, 0], [5, 2, 0], [2, 1, 7], [0, 4, 9]):
        found = chances(asked, written, error)
        for done in range(4):
            total = 0.0
            for rest in itertools.product(range(10), repeat=3 - done):
                path = [digits[0], *written[:done], *rest]
                steps = range(done, 3)
                law = [1 - error if path[h + 1] == (path[h] + digits[h + 1]) % 10 else error / 9 for h in steps]
                total += float(np.prod(law)) * (path[-1] == sum(digits) % 10)
            assert found[done] == pytest.approx(total, abs=1e-12)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=7).flatmap(
        lambda added: st.tuples(
            st.just(added),
            st.integers(0, 9),
            st.lists(st.integers(0, 9), min_size=len(added), max_size=len(added)),
            st.floats(0.01, 0.89),
        )
    )
)
def test_advantages_add_up_and_have_the_sign_of_the_sum_so_far(case):
    added, first, written, error = case
    found = chances(problem(first, *added), written, error)
    assert found[-1] == (written[-1] == (first + sum(added)) % 10)
    assert ((found >= 0) & (found <= 1)).all()
    right = np.cumsum([first, *added])[1:] % 10 == written
    assert (np.diff(found) > 0).tolist() == right.tolist()


def batch_of(problems, texts, group):
    model = LanguageModel(tiny.make_network(layers=1, width=8, heads=2), tiny.make_tokenizer(), device="cpu")
    seq = model.tokenize_groups(problems, texts, group)
    n = len(texts)
    end = torch.full((n,), int(End.EOS))
    rollouts = Rollouts(
        seq=seq,
        problems=tuple(problems),
        text=tuple(texts),
        pieces=model.pieces(seq),
        logprobs=torch.zeros(seq.mask.shape),
        end=end,
    )
    outcome = torch.tensor([TASK.check(problems[g], text).outcome for g, text in zip(group, texts, strict=True)])
    return Batch.given(rollouts, outcome, train=True)


PROBLEMS = [problem(3, 4, 8), problem(0, 1, 1)]
WRITTEN = ["7,5", "7,5,1", "8,6", "", "1,2", "12", "2,2"]
GROUP = [0, 0, 0, 0, 1, 1, 1]


def test_only_full_responses_are_judged_and_as_the_task_does():
    truth = truth_of(batch_of(PROBLEMS, WRITTEN, GROUP), 2)
    assert truth.rows.tolist() == [0, 2, 4, 6]
    assert truth.valid.tolist() == [[True, True], [False, True], [True, True], [False, False]]
    for row, valid in zip(truth.rows.tolist(), truth.valid.tolist(), strict=True):
        assert [step.valid for step in TASK.steps(PROBLEMS[GROUP[row]], WRITTEN[row])] == valid
    assert truth.advantage[0] == pytest.approx([0.180556, 0.25], abs=1e-6)
    assert truth.advantage[1] == pytest.approx([-0.541667, -0.027778], abs=1e-6)


def test_values_at_digits_are_of_every_second_token():
    batch = batch_of(PROBLEMS, WRITTEN, GROUP)
    values = torch.arange(7.0)[:, None] * 100 + torch.arange(batch.seq.mask.shape[1])
    assert truth_of(batch, 2).at_digits(values).tolist() == [[0, 2], [200, 202], [400, 402], [600, 602]]


def test_no_full_response_is_no_row():
    truth = truth_of(batch_of(PROBLEMS[:1], ["", "1"], [0, 0]), 2)
    assert truth.advantage.shape == truth.at_digits(torch.zeros(2, 3)).shape == (0, 2)


def test_step_errors_are_charged_where_the_step_begins():
    """8,6: the first digit is wrong, the second follows from it; 7,5,1 has a step too many; 2,2 has two errors."""
    batch = batch_of(PROBLEMS, WRITTEN, GROUP)
    values = StepErrors(TASK).score(batch)["step_errors"].values
    charged = {(row, token) for row, token in values.nonzero().tolist()}
    assert charged == {(1, 4), (2, 0), (6, 0), (6, 2)}
    assert float(returns_to_go(values, batch.seq.mask).min()) == pytest.approx(-1, abs=1e-5)
    assert values[values != 0].unique().numel() == 1


def test_every_step_that_can_be_judged_is_found_with_its_first_token():
    """12 is no digit, and what follows it could not be judged either; the empty response has no step."""
    batch = batch_of(PROBLEMS, WRITTEN, GROUP)
    found = [(0, 0, True), (0, 2, True), (1, 0, True), (1, 2, True), (1, 4, False), (2, 0, False), (2, 2, True)]
    found += [(4, 0, True), (4, 2, True), (6, 0, False), (6, 2, False)]
    assert chains.judged_steps(TASK, batch.rollouts) == found


def test_teaching_ends_at_the_first_level_that_is_high_enough(monkeypatch):
    """Asked on dev alone, ten steps apart."""
    asked, shares = [], iter([0.3, 0.749, 0.75, 0.9])

    def exam(model, task, seed, *, split, n, k):
        asked.append((split, task.operations, model.counters["learn"]))
        return {"steps right": next(shares)}

    monkeypatch.setattr(chains, "exam", exam)
    chains.make_start.cache_clear()
    chains.make_start(chains.make_task(8, 4, 320), 320, 9)
    chains.make_start.cache_clear()
    assert [split for split, _, _ in asked] == ["dev"] * 3
    learned = [tokens for _, _, tokens in asked]
    assert 0 < learned[0] < learned[1] < learned[2]


def test_the_task_of_a_recipe_is_the_one_that_is_made():
    ours = chains.make_task(5, 4, 320)
    settings = chains.task_settings(ours)
    _, made = make_task(str(settings.pop("kind")), [f"task.{name}={value}" for name, value in settings.items()])
    assert made == ours
    assert (ours.train, ours.dev, ours.test) == (320, 16, 32)
    assert made.problems("test")[7] == ours.problems("test")[7]


def test_what_dev_is_asked_is_judged():
    task = chains.make_task(5, 4, 320)
    network = tiny.make_network(layers=1, width=8, heads=2)
    model = LanguageModel(network, tiny.make_tokenizer(), sampling=Sampling(max_new_tokens=8), device="cpu")
    batch = chains.answers_of(model, task, 3, 2, Rng((1,)))
    assert [p.id for p in batch.rollouts.problems] == [p.id for p in task.problems("dev")[:3]]
    assert batch.outcome.shape == (6,)
    assert batch.train.all()
