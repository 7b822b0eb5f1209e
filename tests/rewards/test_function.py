import asyncio
import functools
import math
import time

import numpy as np
import pytest
import torch

from reckon.errors import InputError, MissingError, RunError
from reckon.rewards import Function, load_function
from reckon.rewards.adapters import from_openrlhf, from_verl
from reckon.types import Problem

NAN = float("nan")


@pytest.fixture
def batch(make_batch):
    problems = [
        Problem(id="a", prompt="2 + 2?", answer="4", domain="sums", columns={"level": 3}),
        Problem(
            id="b",
            prompt=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}),
            columns={"extra": ["x"]},
        ),
    ]
    return make_batch(["4", "five", "Hello"], lengths=[1, 2, 2], group=[0, 0, 1], problems=problems)


def call(function, batch, **settings):
    ((_, stream),) = Function(function, **settings).score(batch).items()
    return stream.values.tolist()


def test_a_function_gets_what_it_names_and_nothing_else(batch):
    got = {}

    def mine(prompts, completions, answer, level, weight=2.0):
        got.update(prompts=prompts, completions=completions, answer=answer, level=level, weight=weight)
        return [1.0, 2, True]

    assert call(mine, batch) == [1, 2, 1]
    assert got == {
        "prompts": [
            "2 + 2?",
            "2 + 2?",
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        ],
        "completions": ["4", "five", [{"role": "assistant", "content": "Hello"}]],
        "answer": ["4", "4", None],
        "level": [3, 3, None],
        "weight": 2.0,
    }


def test_keywords_take_everything_and_ids_are_the_sampled_tokens(batch):
    got = {}

    def mine(completions, **columns):
        got.update(columns)
        return [0.0] * len(completions)

    call(mine, batch)
    assert sorted(got) == ["answer", "completion_ids", "domain", "extra", "id", "level", "prompts"]
    assert got["completion_ids"] == [batch.seq.tokens[i, :n].tolist() for i, n in enumerate([1, 2, 2])]
    assert got["id"] == ["a", "a", "b"]
    assert got["domain"] == ["sums", "sums", "default"]
    assert got["extra"] == [None, None, ["x"]]


def test_answers_is_another_name_for_answer(batch):
    assert call(
        lambda completions, answers: [float(a == c) for a, c in zip(answers, completions, strict=True)], batch
    ) == [1, 0, 0]


def test_none_and_nan_mean_that_it_does_not_apply(batch):
    got = call(lambda completions: [None, NAN, 0.5], batch)
    assert [math.isnan(value) for value in got] == [True, True, False]


@pytest.mark.parametrize(
    "result",
    [
        (1, 0, 2),
        np.array([1, 0, 2], dtype=np.float32),
        torch.tensor([1.0, 0, 2]),
        [np.float32(1), np.bool_(False), np.int64(2)],
        [torch.tensor(1.0), False, torch.tensor(2)],
    ],
)
def test_every_kind_of_number_will_do(batch, result):
    assert call(lambda completions: result, batch) == [1, 0, 2]


def test_async_functions_are_waited_for_also_where_a_loop_runs(batch):
    async def mine(completions):
        await asyncio.sleep(0)
        return [1.0] * len(completions)

    async def notebook():
        return call(mine, batch)

    class Caller:
        async def __call__(self, completions):
            return [2.0] * len(completions)

    assert call(mine, batch) == [1, 1, 1]
    assert asyncio.run(notebook()) == [1, 1, 1]
    assert call(functools.partial(mine), batch, timeout=5) == [1, 1, 1]
    assert call(Caller(), batch, timeout=5) == [2, 2, 2]


def test_a_slow_async_function_is_stopped(batch):
    async def slow(completions):
        await asyncio.sleep(30)

    began = time.perf_counter()
    with pytest.raises(RunError, match=r"'slow' took longer than its `timeout` of 0.05 seconds"):
        call(slow, batch, timeout=0.05)
    assert time.perf_counter() - began < 10


def test_a_timeout_error_of_the_functions_own_is_told_as_such(batch):
    async def mine(completions):
        raise TimeoutError("their server")

    with pytest.raises(RunError, match="'mine' raised TimeoutError: their server"):
        call(mine, batch, timeout=20)

    async def notebook():
        with pytest.raises(RunError, match="'mine' raised TimeoutError: their server"):
            call(mine, batch)

    asyncio.run(notebook())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1.0, 2.0], r"'mine' returned 2 values for 3 completions\. It must return one for each"),
        ([1.0, "x", 2.0], r"returned 'x' \(str\) for row 1 \(problem 'a'\).*finite number, or None"),
        ([1.0, 0.0, math.inf], r"returned inf \(float\) for row 2 \(problem 'b'\)"),
        ([1e39, 0.0, 0.0], r"returned 1e\+39 \(float\) for row 0"),
        ([10**400, 0.0, 0.0], r"\(int\) for row 0"),
        ([[1.0], [2.0], [3.0]], r"returned \[1.0\] \(list\) for row 0"),
        (torch.zeros(3, 2), r"returned \[0.0, 0.0\] \(list\) for row 0"),
        (1.0, r"returned 1.0 \(float\)\. It must return a list"),
        (torch.tensor(1.0), r"returned 1.0 \(float\)\. It must return a list"),
        (None, r"returned None \(NoneType\)"),
        ("abc", r"returned 'abc' \(str\)"),
        ({"a": 1}, r"It must return a list"),
    ],
)
def test_what_a_function_returns_is_checked(batch, result, message):
    def mine(completions):
        return result

    with pytest.raises(RunError, match=message):
        call(mine, batch)


def test_an_error_in_a_function_names_it_and_its_line(batch):
    def mine(completions):
        return [1 / 0]

    line = mine.__code__.co_firstlineno + 1
    with pytest.raises(RunError, match=rf"'mine' raised ZeroDivisionError: .*test_function.py, line {line}\)"):
        call(mine, batch)

    async def later(completions):
        return [1 / 0]

    line = later.__code__.co_firstlineno + 1
    with pytest.raises(RunError, match=rf"'later' raised ZeroDivisionError: .*test_function.py, line {line}\)"):
        call(later, batch, timeout=9)


def test_an_error_in_a_function_of_another_library_s_is_told_at_its_own_line(batch):
    """Not at the line of the adapter that called it."""

    def compute_score(data_source, solution_str, ground_truth, extra_info):
        return 1 / 0

    def reward_func(queries, prompts, labels):
        return {"rewards": [1 / 0]}

    for adapted, function in ((from_verl, compute_score), (from_openrlhf, reward_func)):
        line = function.__code__.co_firstlineno + 1
        told = rf"'{function.__name__}' raised ZeroDivisionError: .*test_function.py, line {line}\)"
        with pytest.raises(RunError, match=told):
            adapted(function).score(batch)
    with pytest.raises(RunError, match=r"it must return a mapping with `rewards`, `scores` and `extra_logs`\.$"):
        from_openrlhf(lambda queries, prompts, labels: 3).score(batch)  # the adapter's own word has no line


def test_a_column_that_is_not_there_is_named(batch):
    with pytest.raises(
        RunError, match=r"'function' asks for `solution`, and there is no such column\. It may name answer"
    ):
        call(lambda completions, solution: [], batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "a int cannot be called"),
        ((len, 1.0), "'len' is a plain function, which cannot be stopped"),
        ((asyncio.sleep, 0), "`timeout` is 0 seconds"),
    ],
)
def test_function_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        Function(*arguments)


def test_load_function(tmp_path, batch, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Pair:\n    a: int\n"
        "def short(completions):\n    return [float(len(c) < 2) for c in completions]\n"
        "NUMBER = 3\n"
    )
    assert call(load_function(f"{file}:short"), batch) == [1, 0, 1]  # the chat's completion is a list of one message
    monkeypatch.chdir(tmp_path)
    assert load_function("mine.py:short").__name__ == "short"


def test_two_files_of_one_name_are_two_modules(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"def who(completions):\n    return '{folder}'\n")
    first, second = (load_function(f"{tmp_path / folder}/mine.py:who") for folder in ("a", "b"))
    assert (first([]), second([])) == ("a", "b")


@pytest.mark.parametrize(
    ("text", "spec", "error", "message"),
    [
        ("", "mine.py", InputError, "does not name a function. Write it as `file.py:name`"),
        ("", "mine:f", InputError, "does not name a function"),
        ("", "mine.py:", InputError, "does not name a function"),
        ("", "gone.py:f", MissingError, r"gone.py is not there, and 'gone.py:f' names"),
        ("def shorter(c): ...\n", "mine.py:short", InputError, r"mine.py has no 'short'. Did you mean 'shorter'"),
        ("", "mine.py:short", InputError, r"It has no function"),
        ("short = 3\n", "mine.py:short", InputError, r"'short' in .*mine.py is of type int"),
        ("x = 1\nimport nothing_like_it\n", "mine.py:f", InputError, r"mine.py, line 2: .*ModuleNotFoundError"),
        ("x = 1\n\ny = (\n", "mine.py:f", InputError, r"mine.py, line 3: '\(' was never closed"),
    ],
)
def test_load_function_says_what_is_wrong(tmp_path, monkeypatch, text, spec, error, message):
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        load_function(spec)
