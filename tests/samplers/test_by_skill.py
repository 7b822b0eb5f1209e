"""More of the skills that keep failing: counting by hand, shares, resuming, bad input."""

import pytest
from sampler_worlds import assert_resumes, ids, seen_of

from reckon.errors import InputError, RunError
from reckon.samplers import BySkill
from reckon.types import Problem, Rng

NAN = float("nan")
RNG = Rng((0, "test"))


class Skills:
    """Four problems of each skill."""

    name = "skills"

    def __init__(self, *skills, column="skill"):
        self.skills, self.column = skills, column

    def problems(self, split):
        return [
            Problem(id=f"{skill}{i}", prompt="?", columns={self.column: skill})
            for skill in self.skills
            for i in range(4)
        ]


TASK = Skills("add", "carry", "mod")
ALL = TASK.problems("train")


def named(*names):
    return [next(problem for problem in ALL if problem.id == name) for name in names]


def fail(sampler, *names, times=2):
    for _ in range(times):
        told = sampler.learn(seen_of(named(*names), [0.0] * len(names)))
    return told


def test_while_nothing_fails_it_is_uniform():
    sampler = BySkill(TASK)
    first, second = ids(sampler.draw(12, RNG)), ids(sampler.draw(12, RNG))
    assert set(first) == set(second) == {problem.id for problem in ALL}
    assert first != second


def test_half_of_a_draw_needs_the_skill_that_fails():
    sampler = BySkill(TASK)
    told = fail(sampler, "carry2")
    assert told == {"sampler/failing": 1 / 12, "sampler/skills": 1.0, "sampler/passes": 0.0}
    drawn = sampler.draw(9, RNG)
    assert all(problem.columns["skill"] == "carry" for problem in drawn[:4])  # half of 9, rounded down
    assert set(ids(drawn[:4])) == {f"carry{i}" for i in range(4)}  # each before one comes again
    assert len(set(ids(drawn[4:]))) == 5
    assert sampler.learn(seen_of([], []))["sampler/passes"] == 5 / 12


def test_a_problem_fails_until_it_does_better():
    sampler = BySkill(TASK, after=2)
    assert fail(sampler, "add0", times=1)["sampler/failing"] == 0
    assert sampler.learn(seen_of(named("add1"), [1.0]))["sampler/failing"] == 0  # steps without it do not count
    assert fail(sampler, "add0", times=1)["sampler/failing"] == 1 / 12
    assert sampler.learn(seen_of(named("add0", "add0"), [0.0, 1.0]))["sampler/failing"] == 0
    assert fail(sampler, "add0", times=1)["sampler/failing"] == 0  # the count begins anew


def test_unknown_outcomes_are_no_failures_and_mend_none():
    sampler = BySkill(TASK)
    for _ in range(3):
        sampler.learn(seen_of(named("mod0"), [NAN]))
    assert sampler.learn(seen_of(named("mod0", "mod0"), [NAN, 0.0]))["sampler/failing"] == 0
    assert sampler.learn(seen_of(named("mod0", "mod0"), [0.0, NAN]))["sampler/failing"] == 1 / 12
    assert sampler.learn(seen_of(named("mod0"), [NAN]))["sampler/failing"] == 1 / 12


def test_its_pass_rate_is_a_failure_itself():
    sampler = BySkill(TASK, pass_rate=0.2, after=1)
    five = named(*["add0"] * 5)
    assert sampler.learn(seen_of(five, [1.0, 0, 0, 0, 0]))["sampler/failing"] == 1 / 12
    assert sampler.learn(seen_of(five, [1.0, 1, 0, 0, 0]))["sampler/failing"] == 0


def test_skills_come_as_often_as_their_problems_fail():
    """Three problems of one skill against one of another: 600 places, 450 expected, deviation 10.6."""
    sampler = BySkill(TASK, share=1.0)
    fail(sampler, "add0", "add1", "add3", "mod0")
    drawn = [problem for step in range(60) for problem in sampler.draw(10, Rng((0, step)))]
    skills = [problem.columns["skill"] for problem in drawn]
    assert skills.count("add") + skills.count("mod") == 600
    assert abs(skills.count("add") - 450) < 43


def test_no_share_is_uniform_for_ever():
    sampler, plain = BySkill(TASK, share=0.0), BySkill(TASK)
    fail(sampler, "add0")
    assert ids(sampler.draw(20, RNG)) == ids(plain.draw(20, RNG))


def test_another_column_and_whole_numbers():
    sampler = BySkill(Skills(1, 2, column="level"), skill="level", share=1.0, after=1)
    sampler.learn(seen_of(Skills(1, 2, column="level").problems("train")[4:5], [0.0]))
    assert {problem.columns["level"] for problem in sampler.draw(6, RNG)} == {2}


def test_it_resumes_exactly_at_any_step():
    assert_resumes(
        lambda: BySkill(TASK, after=1),
        lambda problem, step: float(problem.columns["skill"] != "carry" and step % 2 == 0),
    )


def test_another_split_is_refused():
    state = BySkill(TASK).state_dict()
    with pytest.raises(RunError, match=r"had the skills add, carry, mod .* and has add, mod now"):
        BySkill(Skills("add", "mod")).load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"share": 1.5}, "`share` is 1.5"),
        ({"after": 0}, "`after` 0"),
        ({"pass_rate": 1.0}, "`pass_rate` 1.0"),
        ({"skill": "topic"}, r"problem 'add0' has no text or whole number in the column 'topic' \(columns: skill\)"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=f"by_skill: .*{says}"):
        BySkill(TASK, **settings)


@pytest.mark.parametrize("skill", [None, True, 0.5])
def test_a_skill_is_a_text_or_a_whole_number(skill):
    with pytest.raises(InputError, match="Give every problem its skill there"):
        BySkill(Skills(skill))
