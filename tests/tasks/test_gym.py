import subprocess
import sys

import pytest

from reckon.errors import InputError, MissingError
from reckon.tasks import LetterCount, Number, ReasoningGym
from reckon.tasks._gym import evaluates, harmless

gym = pytest.importorskip("reasoning_gym")
SMALL = {"train": 30, "dev": 15, "test": 15}
NAMES = ["letter_counting", "chain_sum", "spell_backward", "number_sorting", "polynomial_multiplication", "n_queens"]


@pytest.fixture(scope="module")
def task():
    return ReasoningGym(NAMES, **SMALL)


def test_gold_answers_earn_the_full_reward(task):
    seen = set()
    for problem in task.problems("train"):
        assert (task.check(problem, task.solution(problem)).outcome, problem.prompt) == (1.0, problem.prompt)
        seen.add(problem.domain)
    assert seen == set(NAMES)


def test_wrong_and_missing_answers(task):
    for problem in task.problems("dev"):
        assert task.check(problem, "<answer>no idea</answer>").outcome == 0.0
        assert task.check(problem, "").reason == "no answer"
        assert task.check(problem, "x" * 100_000).outcome == 0.0


def test_splits_share_no_question(task):
    questions = [p.prompt for split in ("train", "dev", "test") for p in task.problems(split)]
    assert len(set(questions)) == len(questions) == 60
    again = ReasoningGym([n for n in NAMES if n != "polynomial_multiplication"], seed=3, **SMALL)
    train = {p.prompt for p in task.problems("train")}
    assert not train & {p.prompt for split in ("dev", "test") for p in again.problems(split)}


def test_same_seed_same_problems():
    a, b = (ReasoningGym(["chain_sum"], **SMALL).problems("dev") for _ in range(2))
    assert list(a) == list(b)


def test_hedging_on_letter_counting_is_not_paid():
    task = ReasoningGym(["letter_counting"], **SMALL)
    problem = next(p for p in task.problems("train") if p.answer == "1")
    for text, outcome in [
        ("1", 1),
        ("1 ", 1),
        ("The answer is 1", 1),
        ("10", 0),
        ("21", 0),
        ("-1", 0),
        ("1 2 3 4 5 6", 0),
    ]:
        assert task.check(problem, text).outcome == outcome


def test_letter_counting_agrees_with_our_own_count():
    data = gym.create_dataset("letter_counting", seed=11, size=500)
    ours = LetterCount(train=1)
    base = ours.problems("train")[0]
    for entry in data:
        text = "".join(entry["metadata"]["span"]).lower()
        columns = {"word": text, "letter": entry["metadata"]["target_letter"]}
        problem = type(base)(id="x", prompt="?", answer=None, columns=columns)
        assert Number()(ours.solution(problem), entry["answer"]).outcome == 1.0


def test_mixture_weights():
    task = ReasoningGym({"chain_sum": 3, "letter_counting": 1}, train=400, dev=0, test=0)
    share = sum(p.domain == "chain_sum" for p in task.problems("train")) / 400
    assert abs(share - 0.75) < 0.065  # 3 standard errors


def test_config_reaches_the_dataset():
    task = ReasoningGym(["letter_counting"], config={"letter_counting": {"min_words": 1, "max_words": 1}}, **SMALL)
    assert all(" " not in p.prompt.split('"')[3] for p in task.problems("dev"))


def test_partial_scores_are_kept_only_on_request():
    name = "rectangle_count"
    for partial in (False, True):
        task = ReasoningGym([name], partial=partial, **SMALL)
        problem = next(p for p in task.problems("train") if int(p.answer) > 2)
        verdict = task.check(problem, f"<answer>{int(problem.answer) - 1}</answer>")
        assert verdict.reason == ("partial" if partial else "wrong")
        assert (0 < verdict.outcome < 1) if partial else verdict.outcome == 0


def test_a_slow_score_is_unknown(monkeypatch):
    from reckon.tasks import TimedOutError, _gym

    task = ReasoningGym(["spell_backward"], **SMALL)

    def late(*_):
        raise TimedOutError

    monkeypatch.setattr(_gym, "_scorer", lambda seconds: late)
    verdict = task.check(task.problems("dev")[0], "<answer>x</answer>")
    assert (verdict.outcome, verdict.reason) == (None, "timed out")


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').system('touch evil')",
        "exec('x')",
        "(exec)('x')",
        "ｅｘｅｃ('x')",
        "exec\\\n('x')",
        "exec#\n('x')",
        "[open][0]('evil','w')",
        "().__class__",
        "x.y",
        "x . y",
        "x. real",
        "f'{exec(chr(97))}'",
        "lambda: 0",
        "(a:=1)",
        "open('evil', 'w')",
        "'%s' % print('x')",
    ],
)
def test_answers_that_would_run_code_are_not_evaluated(answer, tmp_path, monkeypatch):
    assert not harmless(answer)
    monkeypatch.chdir(tmp_path)
    task = ReasoningGym(["polynomial_multiplication"], **SMALL)
    verdict = task.check(task.problems("dev")[0], f"<answer>{answer}</answer>")
    assert verdict.outcome == 0.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "answer",
    [
        "3*x**2 + 1",
        "x**2/2 + C",
        "sin(x)*exp(2*x)",
        "Integral(x*sin(x), x) + C",
        "(x + 1)*(x - 1)",
        "[1, 2]",
        "[['_', 'Q'], ['Q', '_']]",
        "1.5",
    ],
)
def test_ordinary_answers_are_evaluated(answer):
    assert harmless(answer)


def test_every_evaluator_of_reasoning_gym_is_found():
    factory = sys.modules["reasoning_gym.factory"]
    found = {
        name for name, (kind, _) in factory.DATASETS.items() if name != "composite" and evaluates(kind.score_answer)
    }
    # countdown, puzzle24 and the integrals parse formulas; n_queens, binary_matrix, ... evaluate lists
    assert found >= {
        "countdown",
        "puzzle24",
        "simple_integration",
        "intermediate_integration",
        "polynomial_multiplication",
        "n_queens",
        "binary_matrix",
        "spiral_matrix",
        "string_insertion",
    }
    assert "chain_sum" not in found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ReasoningGym(["chain_sums"]),
            r"'chain_sums' is not a dataset of reasoning-gym\. Did you mean 'chain_sum'",
        ),
        (lambda: ReasoningGym([]), r"`datasets` must be a list of names"),
        (lambda: ReasoningGym("chain_sum"), r"`datasets` must be a list of names"),
        (lambda: ReasoningGym({"chain_sum": 0}), r"weights must be 0 or more with one above 0"),
        (
            lambda: ReasoningGym(["chain_sum"], config={"chain_sum": {"min_term": 1}}),
            r"the config of 'chain_sum' is refused",
        ),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_not_installed(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "reasoning_gym" else find(name))
    with pytest.raises(MissingError, match=r"pip install 'reckon-rl\[gym\]'"):
        ReasoningGym(["chain_sum"])


def test_the_room_needs_neither_torch_nor_the_extras():
    heavy = {"torch", "sympy", "reasoning_gym", "datasets", "pyarrow"}
    code = f"import sys, reckon.tasks; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
