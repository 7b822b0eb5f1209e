"""Rewards to verl and verl's score functions to rewards (verl 0.9)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import torch

from reckon.errors import InputError, RunError
from reckon.rewards._function import Function, RewardFunction
from reckon.rewards._tree import Sum
from reckon.rewards.adapters._batch import Given, batch_of
from reckon.rewards.adapters._ready import Values, check_given, known, parts_of, reads_prompt, ready, say, settled
from reckon.types import Batch, Reward, Stream, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Scores: TypeAlias = "dict[str, float]"  # `score` and every component
_RESERVED = ("reward_router_address", "reward_model_tokenizer")  # verl's own, for reward models it serves


class VerlScore:
    """A tree of rewards as verl's `compute_score`, for one sample or for a batch. Made by `to_verl`."""

    __name__ = "compute_score"

    def __init__(
        self,
        tree: Sum,
        *,
        task: Task | None,
        tokenizer: PreTrainedTokenizerBase | None,
        prompt: str | None,
        group: str | None,
        unknown: float | None,
    ) -> None:
        self.tree, self.task, self.tokenizer = tree, task, tokenizer
        self.prompt, self.group, self.unknown = prompt, group, unknown

    def __call__(
        self,
        data_source: str | None = None,
        solution_str: str | None = None,
        ground_truth: object = None,
        extra_info: Mapping[str, object] | None = None,
        *,
        data_sources: Sequence[str] | None = None,
        solution_strs: Sequence[str] | None = None,
        ground_truths: Sequence[object] | None = None,
        extra_infos: Sequence[Mapping[str, object]] | None = None,
        **settings: object,
    ) -> Scores | list[Scores]:
        """`score` and every component stream: one mapping for one sample, a list of them for a batch.

        The keys are the same for every sample, for verl stacks them. A component that does not apply is NaN.

        Args:
            data_source: the problem's domain.
            solution_str: the response, special tokens left out.
            ground_truth: the reference answer.
            extra_info: whatever else came with the row.
            data_sources: N of them, from the manager `batch`.
            solution_strs: N responses.
            ground_truths: N reference answers.
            extra_infos: N mappings.
            settings: verl's `reward_kwargs`, of which none is used: the reward has its settings already.

        Raises:
            InputError: a `reward_kwargs` entry; neither a response nor responses.
            RunError: the reward is unknown and `unknown` says nothing.
        """
        for name in settings:
            if name not in _RESERVED:
                raise InputError(
                    f"`reward_kwargs` has {name!r}, which nothing would read. Set it in the reward itself."
                )
        if solution_strs is not None:
            n = len(solution_strs)
            infos = [{}] * n if extra_infos is None else [dict(info or {}) for info in extra_infos]
            sources = [None] * n if data_sources is None else list(data_sources)
            return self._scores(sources, list(solution_strs), ground_truths, infos)
        if solution_str is None:
            raise InputError("verl called without `solution_str` and without `solution_strs`: there is no response.")
        answers = None if ground_truth is None else [ground_truth]
        return self._scores([data_source], [solution_str], answers, [dict(extra_info or {})])[0]

    def _scores(
        self,
        sources: Sequence[str | None],
        texts: Sequence[str],
        answers: Sequence[object] | None,
        infos: Sequence[Mapping[str, object]],
    ) -> list[Scores]:
        n = len(texts)
        labels = [_entry(info, self.group) for info in infos] if self.group else list(range(n))
        numbers = {label: place for place, label in enumerate(dict.fromkeys(labels))}
        order = sorted(range(n), key=lambda row: numbers[labels[row]])  # a group stands together; the sort is stable
        columns = {
            name: [infos[row].get(name) for row in order] for name in sorted({k for info in infos for k in info})
        }
        given = Given(
            library="verl",
            texts=[texts[row] for row in order],
            prompts=[str(_entry(infos[row], self.prompt)) for row in order] if self.prompt else None,
            answers=None if answers is None else [answers[row] for row in order],
            columns={**columns, "domain": [sources[row] for row in order]},
            group=[numbers[labels[row]] for row in order] if self.group else None,
        )
        ids = "Put `id` into `extra_info`, as `rows_of` does."
        check_given(self.tree, given, "The rows need `reward_model.ground_truth`.", ids)
        said = say(self.tree, batch_of(given, task=self.task, tokenizer=self.tokenizer), "verl")
        scores: list[Scores] = [{} for _ in range(n)]
        for place, row in enumerate(order):
            parts = {name: values[place] for name, values in said.streams.items()}
            scores[row] = {"score": known(said.total[place], self.unknown, "verl")}
            scores[row] |= {name: float("nan") if value is None else value for name, value in parts.items()}
        return scores


def to_verl(
    reward: Reward | RewardFunction | Mapping[str, Reward | RewardFunction],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: Task | None = None,
    prompt: str | None = None,
    group: str | None = None,
    unknown: float | None = None,
    frozen: bool = False,
) -> VerlScore:
    """A reward as verl's `compute_score`, for the managers that call it sample by sample and for `batch`.

    verl imports it by path and name, so give it a name in a file of yours: `compute_score = to_verl(...)`, and set
    `reward.custom_reward_function.path` and `.name` (before 0.9 `custom_reward_function.*`).

    verl hands over text without special tokens and the reference answer; no prompt, no tokens, no verdicts, not why a
    response ended, and one sample at a time: a reward that reads one of these is refused unless it is given here.

    Args:
        reward: a reward, a function, or several by name, as `as_reward` takes them. No component may be called `score`.
        tokenizer: the policy's: the tokens of a response are then those of its text and an end token.
        task: its checker judges the responses, as `Verifier` needs.
        prompt: the key of `extra_info` with the prompt's text; `rows_of(layout="verl")` calls it `prompt`.
        group: the key of `extra_info` that is equal for the responses to one prompt, such as `index` or `id`: for
            rewards that compare them, and for the manager `batch` only.
        unknown: what an unknown reward counts as; None = it is an error, for verl cannot leave a response out.
        frozen: score judges that learn with what they know now, instead of refusing them.

    Raises:
        InputError: a reward verl has no place for.
    """
    alone = (
        ""
        if group
        else (
            "verl hands over one sample at a time. Use the manager `batch` and pass group=, the key of `extra_info`"
            " that tells the prompts apart."
        )
    )
    tree = ready(reward, "verl", task=task, tokenizer=tokenizer, frozen=frozen, groups=alone)
    if "score" in tree.parts:
        raise InputError("a component is called 'score', which is verl's name for the total. Call it something else.")
    for name, part in parts_of(tree):
        if prompt is None and reads_prompt(part):
            raise InputError(
                f"{name!r} may read the prompt, and verl hands over none. Put its text into `extra_info` and name the"
                " key: prompt='prompt'."
            )
    return VerlScore(tree, task=task, tokenizer=tokenizer, prompt=prompt, group=group, unknown=unknown)


@dataclass(frozen=True)
class VerlFunction:
    """A score function written for verl as a reward. Made by `from_verl`."""

    function: Callable[..., object]

    @property
    def name(self) -> str:
        """The function's own name."""
        return Function(cast("RewardFunction", self.function)).name

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """`score`, and every other number of the mappings it returns as a stream that is only watched.

        Raises:
            RunError: the function raised, or returned neither a number nor a mapping with `score`.
        """
        keys: dict[str, list[float | None]] = {}
        n = len(batch.rollouts.text)
        asked = [row for row in range(n) if batch.rollouts.problem(row).answer is not None]

        def ask() -> Values | Awaitable[Values]:
            return settled(self._ask(batch, asked), lambda results: _gather(results, asked, n, keys))

        ask.__name__ = self.name
        streams = dict(Function(ask).score(batch))
        for name, values in keys.items():
            numbers = [torch.nan if value is None else value for value in values]
            streams[name] = Stream(values=torch.tensor(numbers, dtype=torch.float32), train=False)
        return streams

    def _ask(self, batch: Batch, rows: Sequence[int]) -> Sequence[object]:
        problems = [batch.rollouts.problem(row) for row in rows]
        infos = [{"prompt": p.prompt_text, "id": p.id, **dict(p.columns)} for p in problems]
        texts = [batch.rollouts.text[row] for row in rows]
        sources = [str(p.columns.get("data_source", p.domain)) for p in problems]
        if _by_batch(self.function):
            results = self.function(
                data_sources=sources,
                solution_strs=texts,
                ground_truths=[p.answer for p in problems],
                extra_infos=infos,
            )
            if not isinstance(results, Sequence) or len(results) != len(rows):
                raise RunError(f"{self.name!r} must return a list with one score for each of {len(rows)} responses.")
            return results
        return [
            self.function(data_source=source, solution_str=text, ground_truth=p.answer, extra_info=info)
            for source, text, p, info in zip(sources, texts, problems, infos, strict=True)
        ]


def from_verl(function: Callable[..., object], **arguments: object) -> VerlFunction:
    """A `compute_score` written for verl, for one sample or for the manager `batch`, as a reward.

    It gets the problem's column `data_source`, else its domain, as data source; the reference answer as ground truth;
    prompt, id and the other columns as extra info. A problem without a reference gets no reward (NaN). `async def` is
    awaited.

    Args:
        function: called by keyword with data_source, solution_str, ground_truth and extra_info, or their plurals.
        arguments: what verl would pass from `reward_kwargs`.

    Raises:
        InputError: it is no function, or has no argument of a name given.
    """
    if not callable(function):
        raise InputError(f"a {type(function).__name__} is no score function: it cannot be called.")
    parameters = inspect.signature(function).parameters
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in arguments:
        if key not in parameters and not any_name:
            name = getattr(function, "__name__", type(function).__name__)
            raise InputError(f"{key!r} is not an argument of {name!r}. It has {', '.join(parameters)}.")
    return VerlFunction(partial(function, **arguments) if arguments else function)


def _gather(
    results: Sequence[object], asked: Sequence[int], n: int, keys: dict[str, list[float | None]]
) -> list[float | None]:
    scores: list[float | None] = [None] * n
    for row, result in zip(asked, results, strict=True):
        found = result
        if isinstance(result, Mapping):
            if "score" not in result:
                raise RunError(f"a mapping without `score` came back: it has {sorted(map(str, result))}.")
            found = result["score"]
            for key, value in result.items():
                if key != "score" and isinstance(value, int | float):
                    keys.setdefault(str(key), [None] * n)[row] = float(value)
        scores[row] = cast("float", found)
    return scores


def _by_batch(function: Callable[..., object]) -> bool:
    return "solution_strs" in inspect.signature(function).parameters and not isinstance(function, VerlScore)


def _entry(info: Mapping[str, object], key: str) -> Hashable:
    if key not in info:
        raise InputError(f"`extra_info` has no {key!r}; it has {sorted(info) or 'nothing'}. Add it to the rows.")
    return info[key]
