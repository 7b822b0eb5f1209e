"""Step advantages by the task's own rule, by hand: 27/64, 9/16 and 3/4 are the chances of three, two and one line."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given as given_that
from hypothesis import strategies as st
from judge_models import batch_of

from reckon.errors import InputError
from reckon.recipe import Recipe
from reckon.rewards import CheckedAdvantage
from reckon.steps import Pattern
from reckon.studies._smollm_lines import ExactSteps
from reckon.tasks import ChainArithmetic, Largest, LetterCount, Mixture, Rules, RunningSums
from reckon.types import Problem, Worked

SUM = Problem(id="sum", prompt="Add these numbers step by step: 17, 48, 20", answer="85")  # three lines, the total too
RIGHT = ["17 + 48 = 65\n", "65 + 20 = 85\n", "Total: 85"]
WRONG = ["17 + 48 = 60\n", "65 + 20 = 80\n", "Total: 80"]


def answers(task, problem, *texts, given=None):
    """A batch of answers to one problem, a token a character and an end token."""
    return batch_of(
        [[*text, ""] for text in texts],
        group=[0] * len(texts),
        given=given,
        outcomes=[task.check(problem, text).outcome for text in texts],
        problems=(problem,),
    )


def by_token(part, batch):
    (stream,) = part.score(batch).values()
    assert stream.kind == "advantage"
    return stream.values


def by_line(part, problem, text):
    """One value a line; a line's characters must not differ."""
    values = by_token(part, answers(part.task, problem, text))[0].tolist()
    lines, place = [], 0
    for line in text.splitlines(keepends=True):
        (value,) = set(values[place : place + len(line)])
        lines.append(value)
        place += len(line)
    return lines


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("17 + 48 = 65\n65 + 20 = 85\nTotal: 85", [9 / 16 - 27 / 64, 3 / 4 - 9 / 16, 1 / 4]),
        ("17 + 48 = 66\n66 + 20 = 86\nTotal: 86", [-27 / 64, 0, 0]),  # all lies in the first line
        ("17 + 48 = 65\n65 + 20 = 86\nTotal: 86", [9 / 64, -9 / 16, 0]),
        ("17 + 48 = 65\nTotal: 65", [9 / 64, -9 / 16]),
        ("17 + 48 = 65", [-27 / 64]),  # left unfinished: the verdict stands behind the last line
        ("17 + 48 = 66\n66 + 20 = 85\nTotal: 85", [-27 / 64, 0, 1]),  # errors that cancel out: so does it here
        ("Well.\n17 + 48 = 65\n65 + 20 = 85\nTotal: 85", [0, 9 / 64, 3 / 16, 1 / 4]),  # a line that says nothing
    ],
)
def test_worth_of_lines_by_hand(text, worth):
    assert by_line(CheckedAdvantage(RunningSums()), SUM, text) == pytest.approx(worth, abs=1e-6)


def test_the_best_of_four_attempts_by_hand():
    """1 - (1 - x)^4 of the chances; in the mean 0.75 A - 0.25 V is below 0 at each line."""
    chances = [1 - (1 - x) ** 4 for x in (27 / 64, 9 / 16, 3 / 4)] + [1.0]
    found = by_line(CheckedAdvantage(RunningSums(), prover_k=4), SUM, "".join(RIGHT))
    gains = [after - before for before, after in pairwise(chances)]
    assert found == pytest.approx(gains, abs=1e-6)
    assert all(0.75 * gain - 0.25 * chance < -0.1 for gain, chance in zip(gains, chances, strict=False))


def test_the_mean_is_0_for_a_policy_of_the_provers_skill():
    """After any right beginning, over a right and a wrong next line. What follows keeps the verdict off that line."""
    for skill in (0.75, 0.3):
        part = CheckedAdvantage(RunningSums(), skill=skill)
        for i in range(3):
            good, bad = (
                by_line(part, SUM, "".join([*RIGHT[:i], line.strip(), "\nWell."])) for line in (RIGHT[i], WRONG[i])
            )
            assert skill * good[i] + (1 - skill) * bad[i] == pytest.approx(0, abs=1e-6)


@given_that(
    st.lists(st.sampled_from([*RIGHT[:2], "Total: 85\n", *WRONG[:2], "Total: 80\n", "Well.\n"]), min_size=1, max_size=6)
)
def test_they_add_up_to_the_outcome_less_the_chance_at_the_start(lines):
    part = CheckedAdvantage(RunningSums())
    outcome = part.task.check(SUM, "".join(lines)).outcome
    assert sum(by_line(part, SUM, "".join(lines))) == pytest.approx(outcome - 27 / 64, abs=1e-5)


def test_rows_do_not_touch_each_other():
    part = CheckedAdvantage(RunningSums())
    texts = ["17 + 48 = 65", "".join(RIGHT), "no idea\nat all", ""]
    together = by_token(part, answers(part.task, SUM, *texts))
    for row, text in enumerate(texts):
        alone = by_token(part, answers(part.task, SUM, text))[0]
        assert torch.equal(together[row, : len(alone)], alone)
    assert not together[3].any()


def test_each_row_is_read_by_its_own_problem():
    """A sum of two numbers needs two lines: 9/16 at first."""
    part, pair = CheckedAdvantage(RunningSums()), Problem(id="pair", prompt="Add step by step: 3, 4", answer="7")
    texts = ["".join(RIGHT), "3 + 4 = 7\nTotal: 7"]
    batch = batch_of([[*text, ""] for text in texts], group=[0, 1], outcomes=[1.0, 1.0], problems=(SUM, pair))
    values = by_token(part, batch)
    assert [float(values[0, 0]), float(values[1, 0])] == pytest.approx([9 / 64, 3 / 16])


def test_right_steps_beyond_those_needed_are_worth_nothing():
    text = "".join([*RIGHT, "\nTotal: 85\nTotal: 85"])
    assert by_line(CheckedAdvantage(RunningSums()), SUM, text) == pytest.approx([9 / 64, 3 / 16, 1 / 4, 0, 0], abs=1e-6)


def test_a_step_is_read_with_its_last_token():
    """The token that ends a line may hold the number that makes it right or wrong."""
    pieces = [["17 + 48 =", " 65\n", "Well."], ["17 + 48 =", " 66\n", "Well."]]
    batch = batch_of(pieces, group=[0, 0], outcomes=[0.0, 0.0], problems=(SUM,))
    values = by_token(CheckedAdvantage(RunningSums()), batch)
    assert values[:, 1].tolist() == pytest.approx([9 / 64, -27 / 64])


def test_a_given_prefix_is_where_a_response_begins_from():
    """Its right line is nobody's merit: what was sampled begins at 9/16."""
    part = CheckedAdvantage(RunningSums())
    values = by_token(part, answers(part.task, SUM, "".join(RIGHT), given=[len(RIGHT[0])]))[0]
    assert not values[: len(RIGHT[0])].any()
    assert float(values[len(RIGHT[0])]) == pytest.approx(3 / 16)


@pytest.mark.parametrize(
    ("task", "splitter"),
    [(RunningSums(), Pattern()), (Rules(), Pattern()), (LetterCount(), Pattern()), (ChainArithmetic(), Pattern(","))],
)
def test_a_worked_solution_has_no_wrong_step(task, splitter):
    """With any task that checks steps: from skill^m up to 1, and never down."""
    assert isinstance(task, Worked)
    for problem in task.problems("train")[:5]:
        solution = task.solution(problem)
        needed = sum(step.valid is not None for step in task.steps(problem, solution))
        part = CheckedAdvantage(task, skill=0.6, splitter=splitter)
        values = by_token(part, answers(task, problem, solution))[0]
        assert float(values.min()) >= 0
        steps = len(splitter(solution)) + 1
        ends = [end - 1 for end in splitter(solution)] + [len(solution) - 1]
        assert float(values[ends].sum()) == pytest.approx(1 - 0.6**needed, abs=1e-5)
        assert steps >= needed > 0


def test_problems_without_steps_are_credited_with_nothing():
    mixture = Mixture(tasks={"sums": RunningSums(train=2), "largest": Largest(train=2)})
    problems = tuple(mixture.problems("train")[i] for i in (0, -1))
    assert [problem.domain for problem in problems] == ["sums", "largest"]
    texts = [mixture.solution(problem) for problem in problems]
    batch = batch_of([[*text, ""] for text in texts], group=[0, 1], outcomes=[1.0, 0.0], problems=problems)
    values = by_token(CheckedAdvantage(mixture), batch)
    assert values[0].any()
    assert not values[1].any()


def test_a_task_whose_solutions_have_no_steps_is_told():
    task = Largest()
    problem = task.problems("train")[0]
    with pytest.raises(InputError, match=f"problem '{problem.id}' has no steps that can be checked"):
        CheckedAdvantage(task).score(answers(task, problem, task.solution(problem)))


def test_an_unknown_verdict_leaves_the_rules_own_value():
    part = CheckedAdvantage(RunningSums())
    batch = answers(part.task, SUM, "17 + 48 = 65")
    unknown = replace(batch, outcome=torch.tensor([torch.nan]))
    assert float(by_token(part, unknown)[0, 0]) == pytest.approx(9 / 64)


def test_the_studys_cells_have_it_under_another_name():
    batch = answers(RunningSums(), SUM, "".join(RIGHT), "".join(WRONG))
    theirs = by_token(ExactSteps(RunningSums(), line=0.6, prover_k=2), batch)
    assert torch.equal(theirs, by_token(CheckedAdvantage(RunningSums(), skill=0.6, prover_k=2), batch))


def test_a_splitter_that_does_not_find_the_tasks_steps_is_told():
    task = ChainArithmetic(operations=4)
    problem = task.problems("train")[0]
    with pytest.raises(InputError, match=r"`splitter` finds 1 of the 4 steps .* such as \{regex: ','\}"):
        CheckedAdvantage(task).score(answers(task, problem, task.solution(problem)))


def test_a_recipe_names_it():
    recipe = Recipe.parse(
        "{model: tiny, method: pav_rl, task: {kind: chain_arithmetic, operations: 4}, steps: 2, prompts: 2, answers: 4,"
        " sampling: {max_new_tokens: 10}, evaluate: null, reward: {correct: verifier, progress: {kind: "
        "checked_advantage, skill: 0.6, prover_k: 2, splitter: {regex: ','}, weight: 3.0}}}",
        name="own.yaml",
    )
    recipe.check_training()
    part = recipe.build(recipe.load_policy()).reward.parts["progress"]
    assert (part.skill, part.prover_k, part.splitter) == (0.6, 2, Pattern(","))
    assert part.task is recipe.made_task


class Unworked:
    name = "unworked"

    def problems(self, split):
        return []

    def check(self, problem, text):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"task": Unworked()}, "the task Unworked cannot check steps"),
        ({"skill": 0}, "`skill` is 0; it must lie between 0 and 1"),
        ({"skill": 1.0}, r"`skill` is 1\.0"),
        ({"skill": float("nan")}, "`skill` is nan"),
        ({"prover_k": 0}, "`prover_k` is 0; it must be 1 or more"),
        ({"splitter": "\n"}, "splitter"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        CheckedAdvantage(**{"task": RunningSums(), **settings})
