"""Problems in an order of chance, all of them before any comes again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import RNG, Task, gather
from sampler_worlds import ids

from reckon.errors import InputError, RunError
from reckon.samplers import Uniform
from reckon.types import Rng


def test_a_pass_has_every_problem_once_and_the_next_another_order():
    sampler = Uniform(Task(10))
    first, second = ids(sampler.draw(10, RNG)), ids(sampler.draw(10, RNG))
    everything = {f"train-{i}" for i in range(10)}
    assert set(first) == set(second) == everything
    assert first != second


def test_a_draw_may_cross_passes_and_be_larger_than_the_split():
    drawn = ids(Uniform(Task(3)).draw(8, RNG))
    assert len(set(drawn[:3])) == len(set(drawn[3:6])) == 3


def test_the_seed_decides_the_order_and_nothing_else():
    def order(seed, split="train"):
        return [problem.id.split("-")[1][-1] for problem in Uniform(Task(10), split=split).draw(10, Rng((seed,)))]

    assert order(1) == order(1) == order(1, "dev")
    assert order(1) != order(2)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=8), st.integers(1, 9))
def test_how_many_are_drawn_at_a_time_is_of_no_consequence(sizes, split_size):
    piecewise, whole = Uniform(Task(split_size)), Uniform(Task(split_size))
    drawn = [problem for step, n in enumerate(sizes) for problem in piecewise.draw(n, Rng((0, step)))]
    assert ids(drawn) == ids(whole.draw(sum(sizes), Rng((0, 0))))


@given(st.integers(0, 25), st.integers(1, 25))
def test_state_goes_through_json_and_on_with_the_same_sequence(before, after):
    going, resumed = Uniform(Task(7)), Uniform(Task(7))
    if before:
        going.draw(before, Rng((5, 0, "draw", 0)))
    resumed.load_state_dict(json.loads(json.dumps(going.state_dict())))
    assert going.state_dict() == resumed.state_dict()
    assert ids(going.draw(after, Rng((5, 1)))) == ids(resumed.draw(after, Rng((5, 1))))


def test_state_counts_passes():
    sampler = Uniform(Task(4))
    sampler.draw(10, Rng((5, "draw", 0)))
    assert sampler.state_dict() == {"pass": 2, "position": 2, "size": 4, "key": [5, "draw", 0]}
    assert sampler.learn(gather(["r", "w"], ["r", "w"]).seen) == {"sampler/passes": 2.5}


def test_a_split_of_another_size_cannot_be_resumed():
    with pytest.raises(RunError, match="had 4 problems when the run was saved and has 5 now"):
        Uniform(Task(5)).load_state_dict(Uniform(Task(4)).state_dict())


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="'numbers' has no problem in its split 'dev'"):
        Uniform(Task(0), split="dev")
