"""A checker of the user's own that fails is told with the task, the problem and its line."""

from pathlib import Path

import pytest

import reckon
from reckon.errors import InputError, ReckonError, RunError
from reckon.tasks import ChainArithmetic, Mixture, verdict_on
from reckon.types import Problem, Verdict

PROBLEM = Problem(id="row-7", prompt="1+2=", answer="3")


class Own:
    """A task whose checker does as told."""

    def __init__(self, does):
        self._does = does
        self.name = "mine"

    def problems(self, split):
        return [PROBLEM]

    def check(self, problem, text):
        return self._does(text)


def test_a_verdict_is_handed_on():
    verdict = Verdict(outcome=0.5, answer="3", reason="half")
    assert verdict_on(Own(lambda _: verdict), PROBLEM, "x") is verdict
    task = ChainArithmetic(train=1, dev=1, test=1)
    (problem,) = task.problems("train")
    assert verdict_on(task, problem, problem.answer).outcome == 1


def test_what_a_checker_raises_is_told_with_its_place():
    def fails(text):
        return Verdict(outcome=float(int(text) == 3), answer=text, reason="read")

    says = (
        "the checker of the task 'mine' raised ValueError on a response to problem 'row-7': invalid literal for int() "
        f"with base 10: 'x' ({__file__}, line {fails.__code__.co_firstlineno + 1}). It may not raise, whatever a "
        "response holds: where it cannot tell, let it return Verdict(outcome=None, answer=None, reason=...)."
    )
    with pytest.raises(RunError) as told:
        verdict_on(Own(fails), PROBLEM, "x")
    assert str(told.value) == says
    assert isinstance(told.value.__cause__, ValueError)
    mixed = Mixture({"sums": Own(fails)})
    with pytest.raises(RunError, match=r"the task 'mixture' raised ValueError .* 'sums/row-7'.*test_verdicts\.py"):
        verdict_on(mixed, mixed.problems("train")[0], "x")


def test_an_error_that_says_what_to_do_is_left_as_it_is():
    class Careful(ReckonError):
        pass

    for error in (Careful("mend it"), InputError("mend it")):

        def refuses(text, error=error):
            raise error

        with pytest.raises(ReckonError) as told:
            verdict_on(Own(refuses), PROBLEM, "x")
        assert told.value is error

    def interrupted(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verdict_on(Own(interrupted), PROBLEM, "x")


@pytest.mark.parametrize(("value", "shown"), [(True, r"'True' \(bool\)"), (None, r"'None' \(NoneType\)")])
def test_what_is_no_verdict_is_refused(value, shown):
    says = (
        rf"the task 'mine' returned {shown} on a response to problem 'row-7'\. It must return a reckon\.types\.Verdict"
    )
    with pytest.raises(RunError, match=says):
        verdict_on(Own(lambda _: value), PROBLEM, "x")


def test_a_task_is_asked_in_no_other_way():
    """Outside its room and the studies, whose tasks are ours."""
    root = Path(reckon.__file__).parent
    asked = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] not in ("tasks", "studies") and "task.check(" in path.read_text()
    ]
    assert asked == []
