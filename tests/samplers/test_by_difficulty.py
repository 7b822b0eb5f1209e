"""Samplers that read a difficulty, and retirement."""

import math

import pytest
from sampler_worlds import Domains, assert_resumes, ids, seen_of

from reckon.errors import InputError, RunError
from reckon.samplers import AdaptiveDifficulty, EasyToHard, Retire
from reckon.stopping import stoppable
from reckon.types import Problem, Rng

NAN = float("nan")
RNG = Rng((0, "test"))


class Graded:
    """Problems with the difficulties given."""

    name = "graded"

    def __init__(self, *difficulties):
        self.difficulties = difficulties

    def problems(self, split):
        return [
            Problem(id=f"p{i}", prompt="?", columns={"difficulty": difficulty, "other": -i})
            for i, difficulty in enumerate(self.difficulties)
        ]


def graded(problems):
    return [problem.columns["difficulty"] for problem in problems]


# --- easy to hard


def test_levels_come_one_after_another_and_ties_by_chance():
    sampler = EasyToHard(Graded(3, 1, 2, 1, 1, 3, 2, 1))
    first, second = sampler.draw(8, RNG), sampler.draw(8, RNG)
    assert graded(first) == graded(second) == [1, 1, 1, 1, 2, 2, 3, 3]
    assert len(set(ids(first))) == 8
    assert ids(first) != ids(second)
    assert sampler.learn(seen_of(first[:4] + first[7:], [1] * 5)) == {
        "sampler/difficulty": 7 / 5,
        "sampler/passes": 2.0,
    }


def test_every_level_is_gone_through_several_times_before_the_next():
    drawn = EasyToHard(Graded(5, 1, 1, 5), passes=3).draw(12, RNG)
    assert graded(drawn) == [1] * 6 + [5] * 6
    assert all(set(ids(drawn[i : i + 2])) == ({"p1", "p2"} if i < 6 else {"p0", "p3"}) for i in range(0, 12, 2))


def test_parts_of_equal_size():
    drawn = EasyToHard(Graded(*range(9)), parts=3, passes=2).draw(18, RNG)
    for part in range(3):
        inside = graded(drawn[6 * part : 6 * part + 6])
        assert sorted(inside[:3]) == sorted(inside[3:]) == [3 * part, 3 * part + 1, 3 * part + 2]


def test_another_column():
    assert ids(EasyToHard(Graded(1, 2, 3), difficulty="other").draw(3, RNG)) == ["p2", "p1", "p0"]


# --- AdaRFT


def test_the_target_of_the_specification():
    """50 tanh(2 (0.75 - 0.5)) = 23.1059, and 50 tanh(-1) = -38.08, which is held at 0."""
    sampler = AdaptiveDifficulty(Graded(0, 20, 25, 100))
    told = sampler.learn(seen_of(sampler.draw(4, RNG), [1, 1, 1, 0]))
    assert told["sampler/target"] == pytest.approx(23.1059, abs=5e-5)
    assert told["sampler/difficulty"] == pytest.approx(145 / 4)
    assert graded(sampler.draw(3, RNG)) == [25, 20, 0]
    assert AdaptiveDifficulty(Graded(0)).learn(seen_of(Graded(0).problems("train"), [0]))["sampler/target"] == 0
    high = AdaptiveDifficulty(Graded(0), start=90.0)
    assert high.learn(seen_of(Graded(0).problems("train"), [1]))["sampler/target"] == 100


def test_its_settings():
    sampler = AdaptiveDifficulty(Graded(0), start=40.0, eta=10.0, kappa=1.5, beta=0.25)
    told = sampler.learn(seen_of(Graded(0, 1).problems("train"), [1, 0]))
    assert told["sampler/target"] == pytest.approx(40 + 10 * math.tanh(1.5 * 0.25))


def test_unknown_outcomes_move_nothing():
    sampler = AdaptiveDifficulty(Graded(0, 1), start=40.0)
    assert sampler.learn(seen_of(Graded(0, 1).problems("train"), [NAN, NAN]))["sampler/target"] == 40.0
    assert sampler.learn(seen_of(Graded(0, 1).problems("train"), [NAN, 0.5]))["sampler/target"] == 40.0
    assert sampler.learn(seen_of(Graded(0, 1).problems("train"), [NAN, 1]))["sampler/target"] > 40.0


def test_the_nearest_come_first_and_equals_by_chance():
    sampler = AdaptiveDifficulty(Graded(*[50] * 8, 0, 100), start=50.0)
    found = []
    for step in range(20):
        drawn = sampler.draw(4, Rng((0, step)))
        assert graded(drawn) == [50] * 4
        assert len(set(ids(drawn))) == 4
        found.append(frozenset(ids(drawn)))
        sampler.learn(seen_of(drawn, [1, 0, 1, 0]))
    assert len(set(found)) > 5


def test_a_second_draw_of_a_step_poses_what_the_first_did_not():
    sampler = AdaptiveDifficulty(Graded(1, 2, 3, 4, 5))
    assert graded(sampler.draw(2, Rng((0, 0)))) == [1, 2]
    assert graded(sampler.draw(2, Rng((0, 1)))) == [3, 4]
    assert graded(sampler.draw(2, Rng((0, 2)))) == [5, 1]  # all have come: from the nearest again
    sampler.learn(seen_of(Graded(1).problems("train"), [0]))
    assert graded(sampler.draw(2, Rng((0, 3)))) == [1, 2]


# --- retirement


def test_a_problem_that_is_solved_is_posed_no_more():
    sampler = Retire(Domains(a=4), pass_rate=0.75)
    one, two, three, four = sampler.draw(4, RNG)
    told = sampler.learn(seen_of([one] * 4 + [two] * 4 + [three] * 2, [1, 1, 1, 0, 1, 1, 0, 0, NAN, 1]))
    assert told == {"sampler/retired": 0.5, "sampler/passes": 1.0}  # 3/4, 2/4, 1 of the known
    later = ids(sampler.draw(10, RNG))
    assert set(later) == {two.id, four.id}
    sampler.learn(seen_of([two] * 2, [0, 0]))
    assert two.id in ids(sampler.draw(4, RNG))
    sampler.learn(seen_of([one], [0]))  # a late answer brings nothing back
    assert one.id not in ids(sampler.draw(10, RNG))


def test_a_rate_that_float32_cannot_say():
    sampler = Retire(Domains(a=2), pass_rate=0.8)
    (one, _) = sampler.draw(2, RNG)
    assert sampler.learn(seen_of([one], [0.8]))["sampler/retired"] == 0.5


def test_when_all_are_solved_the_run_is_done():
    sampler = Retire(Domains(a=2))
    with stoppable() as stop:
        first, second = sampler.draw(2, RNG)
        sampler.learn(seen_of([first], [1]))
        assert not stop.requested
        sampler.learn(seen_of([second], [1]))
    assert stop.reason == "retire: all 2 problems have reached the pass rate 1 and are retired"
    with pytest.raises(RunError, match="all 2 problems have reached the pass rate 1 and are retired"):
        sampler.draw(1, RNG)


# --- all of them


RESUMED = {
    "easy to hard": (lambda: EasyToHard(Domains(a=6, b=5)), lambda problem, step: 0.5),
    "adaptive": (lambda: AdaptiveDifficulty(Domains(a=60, b=50)), lambda problem, step: float(step % 3 > 0)),
    "retire": (lambda: Retire(Domains(a=40, b=40)), lambda problem, step: float(int(problem.id[1:]) % 3 == step % 3)),
}


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_at_any_step_it_goes_on_as_if_nothing_had_happened(name):
    assert_resumes(*RESUMED[name])


def test_a_split_of_another_size_cannot_be_resumed():
    for make in (EasyToHard, Retire):
        with pytest.raises(RunError, match="had 4 problems when the run was saved and has 5 now"):
            make(Domains(a=5)).load_state_dict(make(Domains(a=4)).state_dict())


@pytest.mark.parametrize(
    ("make", "difficulties", "settings", "message"),
    [
        (
            EasyToHard,
            (1, "hard"),
            {},
            r"problem 'p1' has no number in the column 'difficulty' \(columns: diff",
        ),
        (EasyToHard, (1, True), {}, "problem 'p1' has no number"),
        (EasyToHard, (1, NAN), {}, "problem 'p1' has no number"),
        (EasyToHard, (1, 2), {"difficulty": "level"}, "problem 'p0' has no number in the column 'level'"),
        (EasyToHard, (1, 2), {"parts": 3}, "`parts` is 3 and `passes` is 1; there must be 1 to 2 parts"),
        (EasyToHard, (1, 2), {"parts": 0}, "`parts` is 0"),
        (EasyToHard, (1, 2), {"passes": 0}, "`passes` is 0"),
        (EasyToHard, (), {}, "no problem in its split"),
        (
            AdaptiveDifficulty,
            (1, 101),
            {},
            "problem 'p1' has 101 in the column 'difficulty'. Bring",
        ),
        (AdaptiveDifficulty, (1, -1), {}, "problem 'p1' has -1"),
        (AdaptiveDifficulty, (1, None), {}, "problem 'p1' has no number"),
        (AdaptiveDifficulty, (1,), {"start": 101.0}, "`start` is 101.0"),
        (AdaptiveDifficulty, (1,), {"eta": 0.0}, "`eta` 0.0"),
        (AdaptiveDifficulty, (1,), {"kappa": -1.0}, "`kappa` -1.0"),
        (AdaptiveDifficulty, (1,), {"beta": 1.5}, "`beta` 1.5"),
        (AdaptiveDifficulty, (), {}, "no problem in its split"),
        (Retire, (1,), {"pass_rate": 0.0}, "`pass_rate` is 0.0; it must be above 0 and at most 1"),
        (Retire, (1,), {"pass_rate": 1.1}, "`pass_rate` is 1.1"),
        (Retire, (), {}, "no problem in its split"),
    ],
)
def test_refused(make, difficulties, settings, message):
    with pytest.raises(InputError, match=message):
        make(Graded(*difficulties), **settings)
