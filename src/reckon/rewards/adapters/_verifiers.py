"""Rewards to verifiers and its reward functions to rewards (verifiers 0.4, and `Rubric` of 0.3 and before)."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol, cast

import torch

from reckon.errors import InputError, MissingError, RunError
from reckon.rewards._columns import columns as columns_of
from reckon.rewards._combine_parts import is_group_level
from reckon.rewards._function import Function, RewardFunction
from reckon.rewards._tree import Sum
from reckon.rewards.adapters._batch import Given, Turn, batch_of, text_of
from reckon.rewards.adapters._ready import (
    Values,
    check_given,
    known,
    linear,
    name_of,
    parts_of,
    ready,
    say,
    settled,
)
from reckon.types import Batch, End, Reward, Stream, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLURALS = {"prompts", "completions", "answers", "states", "infos", "tasks"}  # any of them makes a function of groups


class V1(Protocol):
    """What is used of `verifiers.v1`: two decorators for methods of a task."""

    def reward(self, *, weight: float) -> Callable[[Callable[..., object]], Callable[..., object]]:
        """Marks a method whose value is added up."""
        ...

    def metric(self) -> Callable[[Callable[..., object]], Callable[..., object]]:
        """Marks a method that is only recorded."""
        ...


class VerifiersReward:
    """A tree of rewards that scores one rollout, or one group of them, of verifiers. Made by `to_verifiers`."""

    def __init__(
        self,
        tree: Sum,
        name: str,
        *,
        task: Task | None,
        tokenizer: PreTrainedTokenizerBase | None,
        answer: str,
        unknown: float | None,
    ) -> None:
        self.tree, self.task, self.tokenizer, self.answer, self.unknown = tree, task, tokenizer, answer, unknown
        self.__name__ = name

    def trace(self, task: object, trace: object) -> float:
        """The reward of one trace (verifiers 0.4): the task's data and the rollout."""
        data = _fields(task)
        system, prompt = data.get("system_prompt"), data.get("prompt")
        turns: Turn = _messages(prompt)
        if system is not None:
            opening = [{"role": "user", "content": turns}] if isinstance(turns, str) else list(turns)
            turns = [{"role": "system", "content": system}, *opening]
        ids = [list(branch_ids) for branch_ids in _sampled(trace)]
        answer = data.get(self.answer)
        columns = {name: value for name, value in data.items() if name not in ("prompt", "system_prompt", self.answer)}
        truncated = getattr(trace, "is_truncated", None)
        given = Given(
            library="verifiers",
            texts=[str(trace.last_reply)],  # type: ignore[attr-defined]
            prompts=[turns],
            completion_ids=ids[-1:] if ids and ids[-1] else None,
            ended=None if truncated is None else [not truncated],
            answers=None if answer is None else [answer],
            columns={name: [value] for name, value in columns.items()},
        )
        return self._said(given)[0]

    def rollout(self, prompt: Turn, completion: Turn, answer: object, info: Mapping[str, object] | None) -> float:
        """The reward of one rollout (`Rubric`)."""
        return self.group([prompt], [completion], [answer], [info])[0]

    def group(
        self,
        prompts: Sequence[Turn],
        completions: Sequence[Turn],
        answers: Sequence[object],
        infos: Sequence[Mapping[str, object] | None],
    ) -> list[float]:
        """The rewards of the rollouts of one prompt (`Rubric`)."""
        tables = [dict(info or {}) for info in infos]
        names = sorted({name for table in tables for name in table})
        there = [None if answer in (None, "") else answer for answer in answers]  # Rubric's "" = none
        given = Given(
            library="verifiers",
            texts=[text_of(_messages(turn)) for turn in completions],
            prompts=[_messages(turn) for turn in prompts],
            answers=None if all(answer is None for answer in there) else there,
            columns={name: [table.get(name) for table in tables] for name in names},
            group=[0] * len(prompts),
        )
        return self._said(given)

    def _said(self, given: Given) -> list[float]:
        place = f"The task needs a field {self.answer!r}; name another with answer=."
        check_given(self.tree, given, place, "Give the task a field `id`, or put it into `info`.")
        said = say(self.tree, batch_of(given, task=self.task, tokenizer=self.tokenizer), "verifiers")
        return [known(value, self.unknown, "verifiers") for value in said.total]


class RubricReward:
    """One reward of a `Rubric`, called by name with what it asks for."""

    def __init__(self, judge: VerifiersReward) -> None:
        self.judge = judge
        self.__name__ = judge.__name__

    def __call__(
        self, prompt: Turn, completion: Turn, answer: object = None, info: Mapping[str, object] | None = None
    ) -> float:
        """The reward of one rollout."""
        return self.judge.rollout(prompt, completion, answer, info)


class RubricGroupReward:
    """As `RubricReward`, for a reward that compares the rollouts of one prompt: plural names make it one."""

    def __init__(self, judge: VerifiersReward) -> None:
        self.judge = judge
        self.__name__ = judge.__name__

    def __call__(
        self,
        prompts: Sequence[Turn],
        completions: Sequence[Turn],
        answers: Sequence[object],
        infos: Sequence[Mapping[str, object] | None],
    ) -> list[float]:
        """The reward of every rollout of a group."""
        return self.judge.group(prompts, completions, answers, infos)


def to_verifiers(
    reward: Reward | RewardFunction | Mapping[str, Reward | RewardFunction],
    vf: object = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: Task | None = None,
    answer: str = "answer",
    unknown: float | None = None,
    frozen: bool = False,
) -> object:
    """A reward for verifiers: what its version has a place for is seen by looking at the module.

    `verifiers.v1` (0.4 and later): a class to inherit from beside `vf.Task`, with one method for each part of a sum,
    marked `vf.reward(weight=...)`, or `vf.metric` where the part is only watched. Older ones: a `vf.Rubric` with one
    function for each part. So each part is logged under its name; verifiers adds them up.

    Args:
        reward: a reward, a function, or several by name, as `as_reward` takes them.
        vf: the module, as you import it; None = the one that is installed, `verifiers.v1` first.
        tokenizer: the policy's, for rewards that read tokens.
        task: a task of ours; its checker judges the responses, as `Verifier` needs.
        answer: the field of the task's data that holds the reference answer.
        unknown: what an unknown reward counts as; None = it is an error. `Rubric` logs an error and takes 0.0.
        frozen: score judges that learn with what they know now, instead of refusing them.

    Raises:
        InputError: a reward there is no place for, or a module that is no verifiers.
        MissingError: verifiers is not installed.
    """
    module = _installed() if vf is None else vf
    rubric = getattr(module, "Rubric", None)
    v1 = callable(getattr(module, "reward", None)) and callable(getattr(module, "metric", None))
    if not v1 and rubric is None:
        raise InputError(
            f"{getattr(module, '__name__', module)!r} has neither `reward` and `metric` nor `Rubric`."
            " Pass verifiers.v1, or the verifiers of 0.3 and before."
        )
    alone = "verifiers.v1 hands over one rollout at a time. Leave it out, or train in reckon's own loop." if v1 else ""
    tree = ready(reward, "verifiers", task=task, tokenizer=tokenizer, frozen=frozen, groups=alone)
    judges = [
        (
            VerifiersReward(
                Sum({name: part}),
                name_of(Sum({name: part}), None),
                task=task,
                tokenizer=tokenizer,
                answer=answer,
                unknown=unknown,
            ),
            weight,
        )
        for name, part, weight in linear(tree)
    ]
    if v1:
        return _mixin(judges, cast("V1", module))
    return cast("Callable[..., object]", rubric)(
        funcs=[_rubric_function(judge) for judge, _ in judges], weights=[weight for _, weight in judges]
    )


@dataclass(frozen=True, kw_only=True)
class VerifiersFunction:
    """A reward function written for verifiers as a reward. Made by `from_verifiers`."""

    function: Callable[..., object]
    arguments: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The function's own name."""
        return Function(cast("RewardFunction", self.function)).name

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N].

        Raises:
            RunError: the function asks for what there is not, raised, or returned no number.
        """
        if _PLURALS & inspect.signature(self.function).parameters.keys():
            return self._asked(batch, [rows.nonzero().flatten().tolist() for rows in _memberships(batch)])
        return self._asked(batch, [[row] for row in range(len(batch.rollouts.text))])

    def _asked(self, batch: Batch, calls: Sequence[Sequence[int]]) -> Mapping[str, Stream]:
        names = inspect.signature(self.function).parameters.keys()
        plural, traced = bool(_PLURALS & names), "trace" in names
        tables = [_arguments(batch, row, traced=traced) for row in range(len(batch.rollouts.text))]

        def call(rows: Sequence[int]) -> object:
            table = tables[rows[0]]
            if plural:
                table = {f"{name}s": [tables[row][name] for row in rows] for name in table}
            return self.function(**self._chosen(table))

        def placed(results: list[object]) -> Values:
            values: Values = [None] * len(tables)
            for rows, result in zip(calls, results, strict=True):
                found = cast("Sequence[float | None]", result if plural else [result])
                if len(found) != len(rows):
                    raise RunError(f"{len(found)} values came back for {len(rows)} responses.")
                for row, value in zip(rows, found, strict=True):
                    values[row] = value
            return values

        def ask() -> Values | Awaitable[Values]:
            return settled([call(rows) for rows in calls], placed)

        ask.__name__ = self.name
        return Function(ask).score(batch)

    def _chosen(self, table: Mapping[str, object]) -> dict[str, object]:
        every = {**table, **self.arguments}
        chosen: dict[str, object] = {}
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                return {**every, **chosen}
            if parameter.kind is parameter.VAR_POSITIONAL:
                continue
            if parameter.name in every:
                chosen[parameter.name] = every[parameter.name]
            elif parameter.default is parameter.empty:
                raise RunError(
                    f"it asks for `{parameter.name}`, which is not among {', '.join(sorted(every))}."
                    f" Pass it: from_verifiers(f, {parameter.name}=...)."
                )
        return chosen


def from_verifiers(function: object, **arguments: object) -> Sum:
    """A reward function written for verifiers, a marked method, or a whole `Rubric`, as a sum of rewards.

    A function gets by name what it asks for among prompt, completion, answer, state, info and task, in the plural for
    all responses to one prompt, or the `task` and `trace` of verifiers 0.4; of a trace there are `last_reply`,
    `is_truncated` and `num_output_tokens`. The weights of a rubric and of `vf.reward(weight=)` are kept, and what
    weighs 0 is watched. An exception ends the run; `Rubric` would count it as 0.

    Args:
        function: sync or async; a method must be bound to its task.
        arguments: what else functions ask for, such as parser=...

    Raises:
        InputError: it is no function and no rubric.
    """
    functions = getattr(function, "funcs", None)
    if functions is None:
        if not callable(function):
            raise InputError(f"a {type(function).__name__} is no reward function and no Rubric.")
        weights, functions = [float(getattr(function, "_vf_weight", 1.0))], [function]
    else:
        weights = [float(weight) for weight in cast("Sequence[float]", getattr(function, "weights", ()))]
    parts = [VerifiersFunction(function=f, arguments=arguments) for f in functions]
    names = [part.name for part in parts]
    if not parts or len(set(names)) != len(names):
        raise InputError(f"the functions are called {names}; there must be some, and each needs a name of its own.")
    by_name = dict(zip(names, weights, strict=True))
    return Sum(dict(zip(names, parts, strict=True)), weights={n: w for n, w in by_name.items() if w != 1.0})


def _installed() -> object:
    for name in ("verifiers.v1", "verifiers"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingError("verifiers is not installed, and `to_verifiers` needs it: pip install verifiers")


def _mixin(judges: Sequence[tuple[VerifiersReward, float]], vf: V1) -> type:
    methods: dict[str, object] = {"__doc__": "The rewards of reckon for a task of verifiers."}
    for judge, weight in judges:
        mark = vf.reward(weight=weight) if weight != 0 else vf.metric()
        methods[judge.__name__] = mark(_method(judge))
    return type("ReckonRewards", (), methods)


def _method(judge: VerifiersReward) -> Callable[..., Awaitable[float]]:
    async def score(self: object, task: object, trace: object) -> float:
        return judge.trace(task, trace)

    score.__name__ = score.__qualname__ = judge.__name__
    return score


def _rubric_function(judge: VerifiersReward) -> RubricReward | RubricGroupReward:
    whole = any(is_group_level(part) for _, part in parts_of(judge.tree))
    return RubricGroupReward(judge) if whole else RubricReward(judge)


def _fields(task: object) -> dict[str, object]:
    dump = getattr(task, "model_dump", None)
    return dict(cast("Mapping[str, object]", dump())) if callable(dump) else dict(vars(task))


def _messages(turn: object) -> Turn:
    """Text or messages out of dictionaries or of objects with `role` and `content`."""
    if turn is None or isinstance(turn, str):
        return turn or ""
    made: list[Mapping[str, object]] = []
    for message in cast("Sequence[object]", turn):
        if isinstance(message, Mapping):
            made.append(message)
        else:
            made.append({"role": getattr(message, "role", "user"), "content": getattr(message, "content", "")})
    return made


def _sampled(trace: object) -> list[list[int]]:
    """The sampled tokens of each branch of a trace, [] where the model's server gave none."""
    return [
        [token for token, sampled in zip(branch.token_ids, branch.sampled_mask, strict=True) if sampled]
        for branch in getattr(trace, "branches", ())
    ]


def _memberships(batch: Batch) -> list[torch.Tensor]:
    return [batch.seq.group == number for number in range(len(batch.seq.prompts))]


def _arguments(batch: Batch, row: int, *, traced: bool) -> dict[str, object]:
    """What a function may ask for about one response; tokens are looked at only for a trace."""
    problem = batch.rollouts.problem(row)
    table = columns_of(batch.take(torch.tensor([row])))
    answer, info = problem.answer or "", dict(problem.columns)
    prompt, completion = table["prompts"][0], table["completions"][0]
    state = {"prompt": prompt, "completion": completion, "answer": answer, "info": info, "task": problem.domain}
    if not traced:
        return {**state, "state": state}
    task = SimpleNamespace(**{**info, "prompt": prompt, "answer": problem.answer, "name": problem.id})
    trace = SimpleNamespace(
        last_reply=batch.rollouts.text[row].strip(),
        is_truncated=int(batch.rollouts.end[row]) == End.LENGTH,
        num_output_tokens=int(batch.seq.mask[row].sum()),
        task=SimpleNamespace(data=task),
    )
    return {"task": task, "trace": trace}
