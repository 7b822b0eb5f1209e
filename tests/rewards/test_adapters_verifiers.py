"""Rewards called as verifiers calls them, both the methods of 0.4 and the rubrics before it, without verifiers."""

import asyncio
import inspect
import pickle
import sys
import types

import pytest
import torch

from reckon.errors import InputError, MissingError, RunError
from reckon.rewards import Format, KeywordReward, Length, Sum, ThinkFormat, Verifier
from reckon.rewards.adapters import from_verifiers, to_verifiers
from reckon.tasks import ChainArithmetic
from reckon.types import End, Problem, Stream

TASK = ChainArithmetic(operations=4, train=20, dev=5, test=5)


def mark(attribute, **extra):
    def decorate(function):
        setattr(function, attribute, True)
        for key, value in extra.items():
            setattr(function, key, value)
        return function

    return decorate


# As `verifiers.v1` does it: decorators that mark methods, and a call by name with what a method declares.
V1 = types.SimpleNamespace(
    __name__="verifiers.v1",
    reward=lambda func=None, *, weight=1.0, priority=0: mark("reward", reward_priority=priority, _vf_weight=weight),
    metric=lambda func=None, *, priority=0: mark("metric", metric_priority=priority),
)


def score_v1(task_class, data, trace):
    task = task_class()
    available = {"task": data, "trace": trace, "runtime": object()}
    scores = {"reward": {}, "metric": {}}
    for attribute, found in scores.items():
        names = [n for k in type(task).__mro__ for n, f in vars(k).items() if callable(f) and hasattr(f, attribute)]
        for name in names:
            method = getattr(task, name)
            wanted = inspect.signature(method).parameters
            value = asyncio.run(method(**{key: available[key] for key in wanted}))
            found[method.__name__] = value * getattr(method, "_vf_weight", 1.0)
    return scores


class Data:
    """The data of a task, as a pydantic model dumps itself."""

    def __init__(self, **fields):
        self.fields = {"prompt": "1+1=", "system_prompt": None, "answer": "2", "idx": 3, **fields}

    def model_dump(self):
        return dict(self.fields)


def make_trace(text, *, ids=(), truncated=False):
    """Two branches, of which the last was trained on; its prompt is two tokens that were not sampled."""
    branch = types.SimpleNamespace(token_ids=[9, 9, *ids], sampled_mask=[False, False, *[True] * len(ids)])
    other = types.SimpleNamespace(token_ids=[9, 5], sampled_mask=[False, True])
    return types.SimpleNamespace(last_reply=text, is_truncated=truncated, branches=[other, branch])


def test_each_part_of_a_sum_is_a_method_with_its_weight():
    reward = Sum(
        {"correct": Verifier(), "think": ThinkFormat(), "length": Length(l_max=4)},
        weights={"think": 0.5},
        watch=["length"],
    )

    class Task(to_verifiers(reward, V1, task=TASK)):
        pass

    scores = score_v1(Task, Data(), make_trace("<think>x</think> 2", ids=[5, 6]))
    assert scores == {"reward": {"correct": 1, "think": 0.25}, "metric": {"length": 1}}  # 2 tokens of 4: the peak


def test_a_trace_tells_whether_a_response_was_cut_off():
    class Task(to_verifiers({"format": Format()}, V1)):
        pass

    assert score_v1(Task, Data(), make_trace(r"\boxed{1}"))["reward"] == {"format": 0.5}
    assert score_v1(Task, Data(), make_trace(r"\boxed{1}", truncated=True))["reward"] == {"format": 0}


def test_the_tasks_fields_are_columns_and_its_messages_the_prompt():
    got = {}

    def mine(prompts, completions, answer, level):
        got.update(prompts=prompts, answer=answer, level=level, completions=completions)
        return [1.0]

    class Task(to_verifiers(mine, V1, answer="gold")):
        pass

    message = types.SimpleNamespace(role="user", content="Hi")
    score_v1(Task, Data(prompt=[message], system_prompt="Be brief.", gold="4", level=2), make_trace("x"))
    assert got == {
        "prompts": [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]],
        "completions": [[{"role": "assistant", "content": "x"}]],
        "answer": ["4"],
        "level": [2],
    }


class Rubric:
    """As `vf.Rubric` of 0.3: functions and weights, each called by name, plural names for a whole group."""

    PLURALS = frozenset({"states", "prompts", "completions", "answers", "tasks", "infos"})

    def __init__(self, funcs=None, weights=None, parser=None):
        assert len(funcs) == len(weights)
        self.funcs, self.weights = funcs, weights

    def score_group(self, states):
        totals = [0.0] * len(states)
        for function, weight in zip(self.funcs, self.weights, strict=True):
            wanted = set(inspect.signature(function).parameters)
            assert function.__name__
            if wanted & self.PLURALS:
                values = function(**{key: [state[key[:-1]] for state in states] for key in wanted})
            else:
                values = [function(**{key: state[key] for key in wanted if key in state}) for state in states]
            totals = [total + weight * float(value) for total, value in zip(totals, values, strict=True)]
        return totals


OLD = types.SimpleNamespace(__name__="verifiers", Rubric=Rubric)


def state(text, answer="2", **info):
    prompt = [{"role": "user", "content": "1+1="}]
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": text}], "answer": answer, "info": info}


class ZScore:
    group_level = True

    def score(self, batch):
        values = torch.tensor([float(len(text)) for text in batch.rollouts.text])
        return {"z": Stream(values=values - values.mean())}


def test_a_rubric_has_one_function_for_each_part():
    reward = Sum({"correct": Verifier(), "z": ZScore(), "seen": ThinkFormat()}, weights={"z": 0.5}, watch=["seen"])
    rubric = to_verifiers(reward, OLD, task=TASK)
    assert [function.__name__ for function in rubric.funcs] == ["correct", "z", "seen"]
    assert rubric.weights == [1, 0.5, 0]
    assert rubric.score_group([state("2"), state("no")]) == [1 - 0.25, 0.25]  # lengths 1 and 2, mean 1.5
    again = pickle.loads(pickle.dumps(rubric.funcs[0]))
    assert again(**{key: value for key, value in state("2").items() if key != "state"}) == 1


def test_what_verifiers_cannot_have_is_refused():
    with pytest.raises(InputError, match=r"'z_score' is a ZScore, .* verifiers\.v1 hands over one rollout at a time"):
        to_verifiers(ZScore(), V1)
    with pytest.raises(InputError, match="'verifier' is a Verifier and reads verdicts, and verifiers"):
        to_verifiers(Verifier(), OLD)
    with pytest.raises(InputError, match="has neither `reward` and `metric` nor `Rubric`"):
        to_verifiers(ThinkFormat(), types.SimpleNamespace(__name__="wrong"))
    rubric = to_verifiers({"format": Format()}, OLD)
    with pytest.raises(InputError, match="'format' reads why a response ended, and verifiers hands over none"):
        rubric.score_group([state("x")])
    unknown = to_verifiers(Verifier(), OLD, task=TASK)
    with pytest.raises(RunError, match="verifiers cannot leave a response out"):
        unknown.score_group([state("x", answer="")])
    assert to_verifiers(Verifier(), OLD, task=TASK, unknown=0.5).score_group([state("x", answer="")]) == [0.5]


def test_without_a_module_the_installed_one_is_looked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "verifiers", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "verifiers.v1", None)
    with pytest.raises(MissingError, match="pip install verifiers"):
        to_verifiers(ThinkFormat())
    monkeypatch.setitem(sys.modules, "verifiers", types.SimpleNamespace(Rubric=Rubric))
    assert isinstance(to_verifiers(ThinkFormat()), Rubric)


# Functions of verifiers as rewards


@pytest.fixture
def batch(make_batch):
    problems = [Problem(id="a", prompt="q", answer="4", columns={"level": 3}), Problem(id="b", prompt="r", answer="5")]
    return make_batch(["4", "44", "5 "], group=[0, 0, 1], problems=problems, ends=[End.EOS, End.LENGTH, End.EOS])


def exact(completion, answer, info, **kwargs):
    assert "state" in kwargs
    return float(completion == answer) + info.get("level", 0)


async def later(prompt, state):
    await asyncio.sleep(0)
    return float(state["prompt"] == prompt)


def loops(prompt, state):
    return asyncio.run(later(prompt, state))


def rank(completions, answers):
    return [float(len(text)) / len(completions) for text in completions]


async def seen(task, trace):
    return float(trace.last_reply == task.answer) - trace.is_truncated + trace.num_output_tokens / 10


def test_functions_get_by_name_what_they_ask_for(batch):
    assert from_verifiers(exact).score(batch)["exact"].values.tolist() == [4, 3, 0]
    assert from_verifiers(later).score(batch)["later"].values.tolist() == [1, 1, 1]
    assert from_verifiers(loops).score(batch)["loops"].values.tolist() == [1, 1, 1]
    assert from_verifiers(rank).score(batch)["rank"].values.tolist() == [0.5, 1, 2]  # groups of 2 and of 1
    # right, ended, 1 token; wrong, cut off, 2 tokens; right (blanks aside), ended, 2 tokens
    assert from_verifiers(seen).score(batch)["seen"].values.tolist() == pytest.approx([1.1, -0.8, 1.2])


def test_a_rubric_keeps_its_weights_and_what_weighs_nothing_is_watched(batch):
    rubric = Rubric([rank, later], [2.0, 0.0])
    streams = from_verifiers(rubric).score(batch)
    assert streams["rank"].values.tolist() == [1, 2, 4]
    assert not streams["later"].train
    marked = V1.reward(weight=0.5)(seen)
    assert from_verifiers(marked).score(batch)["seen"].values.tolist() == pytest.approx([0.55, -0.4, 0.6])


def parsed(completion, parser):
    return float(parser(completion))


def test_what_else_a_function_asks_for_is_given_by_name(batch):
    assert from_verifiers(parsed, parser=len).score(batch)["parsed"].values.tolist() == [1, 2, 2]
    with pytest.raises(RunError, match=r"it asks for `parser`, .* from_verifiers\(f, parser=\.\.\.\)"):
        from_verifiers(parsed).score(batch)


def test_there_and_back(batch):
    reward = Sum({"think": ThinkFormat(), "key": KeywordReward(words=["4"], cap=2)}, weights={"key": 2.0})
    again = from_verifiers(to_verifiers(reward, OLD))
    expected = reward.score(batch)
    found = again.score(batch)
    assert {n: s.values.tolist() for n, s in found.items()} == {n: s.values.tolist() for n, s in expected.items()}


def test_what_is_no_function_is_told():
    with pytest.raises(InputError, match="a int is no reward function and no Rubric"):
        from_verifiers(3)
    with pytest.raises(InputError, match=r"the functions are called \['rank', 'rank'\]"):
        from_verifiers(Rubric([rank, rank], [1, 1]))
