import pytest

from reckon.errors import InputError
from reckon.tasks import ChainArithmetic, File, Largest, LetterCount, Mixture, Rules
from reckon.types import Task, Worked

SIZES = {"train": 20, "dev": 5, "test": 5}
MIXED = Mixture({"short": LetterCount(**SIZES), "long": LetterCount(length=(11, 12), **SIZES), "rules": Rules(**SIZES)})


def test_each_task_is_a_domain():
    problems = MIXED.problems("train")
    assert len(problems) == 60
    assert [problems[i].domain for i in (0, 19, 20, 39, 40, 59, -1)] == ["short"] * 2 + ["long"] * 2 + ["rules"] * 3
    assert len({p.id for p in problems}) == 60
    with pytest.raises(IndexError):
        problems[60]


def test_gold_answers_and_steps_go_through():
    for problem in MIXED.problems("dev"):
        solution = MIXED.solution(problem)
        assert MIXED.check(problem, solution).outcome == 1.0
        assert all(step.valid for step in MIXED.steps(problem, solution))


def test_mixtures_nest():
    outer = Mixture({"inner": MIXED, "largest": Largest(**SIZES)})
    problem = outer.problems("train")[59]
    assert problem.id.startswith("inner/rules/")
    assert outer.check(problem, outer.solution(problem)).outcome == 1.0


def test_a_task_without_solutions(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "?", "answer": "3"}\n')
    mixed = Mixture({"mine": File(str(tmp_path / "p.jsonl"), shares=(1, 0, 0)), "chain": ChainArithmetic(**SIZES)})
    problem = mixed.problems("train")[0]
    assert mixed.check(problem, "3").outcome == 1.0
    with pytest.raises(InputError, match="the task 'mine' has no worked solutions"):
        mixed.solution(problem)
    with pytest.raises(InputError, match="`tasks` must hold one task or more"):
        Mixture({})


def test_a_generator_is_a_task_that_knows_its_solutions():
    task: Task = LetterCount()
    assert isinstance(task, Worked)
    assert task.name == "letter_count"
