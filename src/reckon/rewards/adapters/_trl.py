"""Rewards to TRL's trainers and TRL's reward functions to rewards (TRL 1.16: GRPOTrainer, RLOOTrainer)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import torch

from reckon.errors import InputError, RunError
from reckon.rewards._columns import columns as columns_of
from reckon.rewards._function import Function, RewardFunction
from reckon.rewards._tree import Sum, as_reward
from reckon.rewards.adapters._batch import Given, Turn, batch_of, groups_of_size, text_of
from reckon.rewards.adapters._ready import Said, Values, check_given, linear, name_of, ready, say, settled
from reckon.types import Batch, Json, Reward, Stream, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWERS = ("answer", "solution", "ground_truth")  # columns that hold the reference answer, the first there is


@dataclass(frozen=True)
class _Call:
    """One call of a reward function by TRL: every argument as TRL gave it."""

    batch: Batch
    arguments: Mapping[str, object]


# Set while TRL's call is scored: a TRL function inside the tree is then called exactly as TRL called us.
_CALL: ContextVar[_Call | None] = ContextVar("trl_call", default=None)


class TrlReward:
    """A tree of rewards as one reward function of TRL's. Made by `to_trl`; pickled with the rewards in it."""

    def __init__(
        self,
        tree: Sum,
        name: str,
        *,
        task: Task | None,
        tokenizer: PreTrainedTokenizerBase | None,
        num_generations: int | None,
        answer: str | None,
    ) -> None:
        self.tree, self.task, self.tokenizer = tree, task, tokenizer
        self.num_generations, self.answer = num_generations, answer
        self.__name__ = name  # TRL logs under it

    def __call__(
        self,
        prompts: Sequence[Turn],
        completions: Sequence[Turn],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        trainer_state: object = None,
        log_extra: Callable[[str, list[float | None]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: object,
    ) -> Values:
        """One number for each completion, None where no reward applies. Each component stream is logged.

        Args:
            prompts: N texts or lists of messages, repeated for each completion.
            completions: N texts or lists of messages.
            completion_ids: N lists of sampled tokens.
            trainer_state: its `global_step` is the batch's step.
            log_extra: called with the values of every stream, under `<name>/<stream>`.
            log_metric: called with the mean, spread and share unknown of every stream.
            columns: the data set's other columns, repeated; what is no list of N (such as `environments`) passes by.

        Raises:
            InputError: a reward that reads what TRL does not hand over, or groups that cannot be told.
            RunError: a reward function failed.
        """
        n = len(completions)
        lists: dict[str, Sequence[object]] = {
            name: cells for name, cells in columns.items() if isinstance(cells, list | tuple) and len(cells) == n
        }
        lists.pop("environments", None)
        given = Given(
            library="TRL",
            texts=[text_of(turn) for turn in completions],
            prompts=prompts,
            completion_ids=completion_ids,
            answers=self._answers(lists),
            columns=lists,
            group=None if self.num_generations is None else groups_of_size(prompts, self.num_generations, "TRL"),
            step=int(getattr(trainer_state, "global_step", 0)),
        )
        place = f"The data set needs a column {_ANSWERS[0]!r}, or name another with answer=."
        check_given(self.tree, given, place, "The data set needs a column `id`, as `rows_of` writes it.")
        batch = batch_of(given, task=self.task, tokenizer=self.tokenizer)
        handed: dict[str, object] = {**columns, "prompts": prompts, "completions": completions}
        extra = {"completion_ids": completion_ids, "trainer_state": trainer_state}
        hooks = {"log_extra": log_extra, "log_metric": log_metric}
        handed |= {key: value for key, value in (extra | hooks).items() if value is not None}
        token = _CALL.set(_Call(batch, handed))
        try:
            said = say(self.tree, batch, "TRL")
        finally:
            _CALL.reset(token)
        self._log(said, log_extra, log_metric)
        return said.total

    def _answers(self, columns: dict[str, Sequence[object]]) -> Sequence[object] | None:
        wanted = _ANSWERS if self.answer is None else (self.answer,)
        found = next((name for name in wanted if name in columns), None)
        if found is not None:
            return columns[found] if found != "answer" else columns.pop(found)
        if self.answer is not None or self.task is not None:
            who = (
                "the column that `answer` names" if self.task is None else "the reference answer that `task` checks by"
            )
            raise InputError(
                f"{who} is not there: the data set needs a column {' or '.join(map(repr, wanted))}, and beside the"
                f" prompt it has {sorted(columns) or 'none'}. Name it with answer=."
            )
        return None

    def _log(
        self,
        said: Said,
        log_extra: Callable[[str, list[float | None]], None] | None,
        log_metric: Callable[[str, float], None] | None,
    ) -> None:
        for key, value in said.metrics.items() if log_metric else ():
            cast("Callable[[str, float], None]", log_metric)(f"rewards/{self.__name__}/{key}", value)
        for stream, values in said.streams.items() if log_extra else ():
            cast("Callable[[str, Values], None]", log_extra)(f"{self.__name__}/{stream}", values)


def to_trl(
    reward: Reward | RewardFunction | Mapping[str, Reward | RewardFunction],
    name: str | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: Task | None = None,
    num_generations: int | None = None,
    answer: str | None = None,
    frozen: bool = False,
) -> TrlReward:
    """A reward as one function for `GRPOTrainer(reward_funcs=...)` or `RLOOTrainer`.

    One function even of many rewards, for TRL only adds functions up, and most combinations are no sums; what each
    component says is logged. TRL hands over text and sampled tokens, but no verdicts, no groups, no log-probs and not
    why a response ended: a reward that reads one of these is refused unless it is given here.

    Args:
        reward: a reward, a function, or several by name, as `as_reward` takes them.
        name: what TRL logs it under; None = the name of the only part, else `reckon`.
        tokenizer: the policy's: tells which responses were cut off, the tokens of prompts and the text of tokens.
        task: its checker judges the responses, as `Verifier` needs.
        num_generations: that of `GRPOConfig`, and of evaluation too: responses then stand in groups, as rewards that
            compare them need, and a response that lacks a reward others of its group have is unknown. None = each
            response by itself, and a reward that does not apply is left out of its total, as TRL does.
        answer: the column with the reference answer; None = `answer`, `solution` or `ground_truth`, if there is one.
        frozen: score judges that learn with what they know now, instead of refusing them.

    Raises:
        InputError: a reward TRL has no place for, or an argument that cannot be used.
    """
    if num_generations is not None and num_generations < 2:
        raise InputError(f"`num_generations` is {num_generations}; a group has 2 responses or more.")
    alone = "" if num_generations else "TRL does not say which responses belong together. Pass num_generations=."
    tree = ready(reward, "TRL", task=task, tokenizer=tokenizer, frozen=frozen, groups=alone)
    return TrlReward(
        tree, name_of(tree, name), task=task, tokenizer=tokenizer, num_generations=num_generations, answer=answer
    )


def to_trl_parts(
    reward: Reward | RewardFunction | Mapping[str, Reward | RewardFunction],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: Task | None = None,
    num_generations: int | None = None,
    answer: str | None = None,
    frozen: bool = False,
) -> tuple[list[TrlReward], list[float]]:
    """The parts of a sum as functions of their own, and their weights for `GRPOConfig(reward_weights=...)`.

    For what TRL does with several rewards itself, such as `multi_objective_aggregation="normalize_then_sum"`. A part
    that is only watched has weight 0. Arguments as in `to_trl`.

    Raises:
        InputError: a reward TRL has no place for.
    """
    made = [
        (
            to_trl(
                {part_name: part},
                tokenizer=tokenizer,
                task=task,
                num_generations=num_generations,
                answer=answer,
                frozen=frozen,
            ),
            weight,
        )
        for part_name, part, weight in linear(as_reward(reward))
    ]
    return [function for function, _ in made], [weight for _, weight in made]


@dataclass(frozen=True, kw_only=True)
class TrlFunction:
    """A reward function written for TRL as a reward. Made by `from_trl`."""

    function: RewardFunction
    columns: Mapping[str, str] = field(default_factory=lambda: {"solution": "answer"})
    messages: bool | None = None  # None = as the problem's prompt is

    @property
    def name(self) -> str:
        """The function's own name."""
        return Function(self.function).name

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], named after the function.

        Raises:
            RunError: the function asked for a column there is not, raised, or returned what is not one number or None
                for each completion.
        """
        call = _CALL.get()
        table = dict(call.arguments) if call is not None and call.batch is batch else self._table(batch)
        n = len(batch.rollouts.text)
        chosen, rows = self._chosen(table), self._rows(table, n)
        if not rows:
            return {self.name: Stream(values=torch.full((n,), torch.nan))}
        if len(rows) < n:
            chosen = {name: _cut(cells, rows, n) for name, cells in chosen.items()}

        def filled(results: list[object]) -> Values:
            (result,) = results
            if len(rows) == n:
                return cast("Values", result)  # `Function` says what is wrong with it
            values = list(cast("Values", result))
            if len(values) != len(rows):
                raise RunError(f"{len(values)} values came back for {len(rows)} completions.")
            found = dict(zip(rows, values, strict=True))
            return [found.get(row) for row in range(n)]

        def ask() -> Values | Awaitable[Values]:
            return settled([self.function(**chosen)], filled)

        ask.__name__ = self.name
        return Function(ask).score(batch)

    def _table(self, batch: Batch) -> dict[str, object]:
        table: dict[str, object] = {**columns_of(batch)}
        for name, source in self.columns.items():
            if name not in table and source in table:
                table[name] = table[source]
        problems = [batch.rollouts.problem(row) for row in range(len(batch.rollouts.text))]
        if self.messages is True:
            table["completions"] = [[{"role": "assistant", "content": text}] for text in batch.rollouts.text]
            table["prompts"] = [
                [{"role": "user", "content": p.prompt}] if isinstance(p.prompt, str) else [dict(m) for m in p.prompt]
                for p in problems
            ]
        if self.messages is False:
            table["completions"] = list(batch.rollouts.text)
            table["prompts"] = [problem.prompt_text for problem in problems]
        # What TRL's trainer would log has no place here; `reward_metrics` says what a stream came to.
        table |= {"trainer_state": SimpleNamespace(global_step=batch.step), "log_extra": _drop, "log_metric": _drop}
        return table

    def _rows(self, table: Mapping[str, object], n: int) -> list[int]:
        """The rows that have a value in every column that stands in for another."""
        named = inspect.signature(self.function).parameters
        stand_ins = [table[name] for name, source in self.columns.items() if name in named and name in table]
        return [row for row in range(n) if all(cast("list[Json]", cells)[row] is not None for cells in stand_ins)]

    def _chosen(self, table: Mapping[str, object]) -> dict[str, object]:
        chosen: dict[str, object] = {}
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                return {**{name: cells for name, cells in table.items() if name not in self._bound()}, **chosen}
            if parameter.name in self._bound() or parameter.kind is parameter.VAR_POSITIONAL:
                continue
            if parameter.name in table:
                chosen[parameter.name] = table[parameter.name]
            elif parameter.default is parameter.empty:
                raise RunError(
                    f"the TRL reward function {self.name!r} asks for `{parameter.name}`, and there is no such column."
                    f" Give one, or say which stands in for it: from_trl(f, columns={{{parameter.name!r}: ...}})."
                )
        return chosen

    def _bound(self) -> Mapping[str, object]:
        return self.function.keywords if isinstance(self.function, partial) else {}


def from_trl(
    function: Callable[..., object],
    *,
    columns: Mapping[str, str] | None = None,
    messages: bool | None = None,
    **arguments: object,
) -> Reward:
    """A reward function written for TRL, TRL's own included, as a reward.

    It is called as TRL calls it: by keyword, with prompts, completions, completion_ids and the other columns, of which
    it gets what it names. It may be `async def`. What it logs through `log_extra` and `log_metric` is dropped, unless
    the reward is inside TRL again. A response for which a column that stands in for another is None gets None.

    Args:
        function: the function, or a factory of one (`get_soft_overlong_punishment`), which is called with `arguments`.
        columns: which of our columns stands in for one that the function names and the data lacks; None =
            {"solution": "answer"}, since TRL's functions call the reference answer `solution`.
        messages: hand over lists of messages (True) or plain text (False); None = what the prompt is, and for TRL's own
            functions always messages, for they take nothing else.
        arguments: settings of the function or factory, by name.

    Raises:
        InputError: it is no function; or a setting it does not have or lacks.
    """
    if isinstance(function, TrlReward):
        return function.tree
    if not callable(function) or isinstance(function, type) or hasattr(function, "forward"):
        raise InputError(
            f"{function!r:.80} is no reward function. A model goes in as reckon.rewards.SequenceClassifier."
        )
    parameters = inspect.signature(function).parameters
    name = getattr(function, "__name__", type(function).__name__)
    for key in arguments:
        if key not in parameters:
            raise InputError(f"{key!r} is not a setting of {name!r}. It has {', '.join(parameters)}.")
    made = cast("RewardFunction", function)
    kinds = [parameter.kind for parameter in parameters.values()]
    takes = {"prompts", "completions", "completion_ids"} & parameters.keys()
    if not takes and inspect.Parameter.VAR_KEYWORD not in kinds:
        try:
            inspect.signature(function).bind(**arguments)
        except TypeError as error:
            raise InputError(f"{name!r} takes neither prompts nor completions, so it is a factory: {error}.") from error
        made = cast("RewardFunction", function(**arguments))
        if not callable(made):
            raise InputError(
                f"{name!r} takes neither prompts nor completions, and returned a {type(made).__name__}, no function."
            )
    elif arguments:
        made = partial(made, **arguments)
    own = str(getattr(function, "__module__", "")).split(".")[0] == "trl"
    return TrlFunction(
        function=made,
        columns={"solution": "answer"} if columns is None else dict(columns),
        messages=True if messages is None and own else messages,
    )


def _drop(name: str, value: object) -> None:
    """Stands for the trainer's logs where there is no trainer."""


def _cut(cells: object, rows: Sequence[int], n: int) -> object:
    return [cells[row] for row in rows] if isinstance(cells, list) and len(cells) == n else cells
