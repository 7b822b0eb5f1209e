"""Rewards to OpenRLHF and its reward functions to rewards (OpenRLHF 0.11)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import torch

from reckon.errors import InputError, RunError
from reckon.rewards._function import Function, RewardFunction
from reckon.rewards._tree import Sum
from reckon.rewards.adapters._batch import Given, batch_of
from reckon.rewards.adapters._ready import check_given, known, ready, say
from reckon.types import Batch, End, Problem, Reward, Stream, Task

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Rewarded: TypeAlias = "dict[str, Tensor | dict[str, Tensor]]"


class OpenRLHFReward:
    """A tree of rewards as OpenRLHF's `reward_func`. Made by `to_openrlhf`."""

    __name__ = "reward_func"

    def __init__(
        self,
        tree: Sum,
        *,
        task: Task | None,
        tokenizer: PreTrainedTokenizerBase | None,
        response_start: str | None,
        scores: str | None,
        unknown: float | None,
    ) -> None:
        self.tree, self.task, self.tokenizer = tree, task, tokenizer
        self.response_start, self.scores, self.unknown = response_start, scores, unknown

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[object], **settings: object
    ) -> Rewarded:
        """`rewards` [N] to learn from, `scores` [N] in [0, 1] to filter prompts by, `extra_logs` to be logged.

        Args:
            queries: N prompts with their responses, special tokens included.
            prompts: the N prompts alone.
            labels: N reference answers.
            settings: none is known.

        Raises:
            InputError: a query that does not begin with its prompt; an unknown argument.
            RunError: the reward is unknown and `unknown` says nothing; a score outside [0, 1].
        """
        if settings:
            raise InputError(f"reward_func was called with {sorted(settings)}, which nothing would read.")
        if len(queries) != len(prompts):
            raise InputError(f"reward_func was called with {len(queries)} queries, but {len(prompts)} prompts.")
        split = [self._response(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]
        given = Given(
            library="OpenRLHF",
            texts=[text for text, _ in split],
            prompts=prompts,
            ended=[ended for _, ended in split] if self.tokenizer is not None else None,
            answers=None if all(label is None for label in labels) else labels,
        )
        ids = "It has no place for one: fold the level into the reward, or train in reckon's own loop."
        check_given(self.tree, given, "Name the column that holds them: --data.label_key.", ids)
        batch = batch_of(given, task=self.task, tokenizer=self.tokenizer)
        said = say(self.tree, batch, "OpenRLHF")
        rewards = [known(value, self.unknown, "OpenRLHF") for value in said.total]
        logs = {
            name: torch.tensor([torch.nan if value is None else value for value in values])
            for name, values in said.streams.items()
        }
        return {"rewards": torch.tensor(rewards), "scores": self._scores(rewards, logs, batch), "extra_logs": logs}

    def _response(self, query: str, prompt: str) -> tuple[str, bool]:
        """The response without its end token, and whether it had one."""
        if query.startswith(prompt):
            text = query[len(prompt) :]
        elif self.response_start is not None and self.response_start in query:
            text = query.rpartition(self.response_start)[2]
        else:
            raise InputError(
                f"a query does not begin with its prompt {prompt[:40]!r}, so its response cannot be told from it."
                " Pass response_start=, the text that the chat template puts right before a response."
            )
        end = None if self.tokenizer is None else self.tokenizer.eos_token
        if end is not None and text.rstrip().endswith(str(end)):
            return text.rstrip().removesuffix(str(end)), True
        return text, False

    def _scores(self, rewards: Sequence[float], logs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        if self.scores is not None:
            chosen = logs[self.scores]
            if not bool(((chosen >= 0) & (chosen <= 1)).all()):
                raise RunError(
                    f"{self.scores!r} gave {chosen.tolist()} as score; OpenRLHF filters prompts by scores in [0, 1]."
                    " Name a stream that stays within."
                )
            return chosen
        return torch.tensor(rewards) if self.task is None else batch.outcome.nan_to_num(0.0)


def to_openrlhf(
    reward: Reward | RewardFunction | Mapping[str, Reward | RewardFunction],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: Task | None = None,
    response_start: str | None = None,
    scores: str | None = None,
    unknown: float | None = None,
    frozen: bool = False,
) -> OpenRLHFReward:
    """A reward as OpenRLHF's `reward_func`: name it so in a `.py` file and pass that as `--reward.remote_url`.

    OpenRLHF calls it with one response at a time, in a thread, and goes on without a reward where it raises (its log
    has the message), so try it on a row before training.

    Args:
        reward: a reward, a function, or several by name, as `as_reward` takes them.
        tokenizer: the policy's: its end token is taken off and tells which responses were cut off; the tokens of a
            response are those of its text. Without it special tokens stay in the text.
        task: its checker judges the responses, as `Verifier` needs; its verdicts are then the scores.
        response_start: the text right before a response, for queries that do not begin with their prompt because
            decoding changed it or it was cut.
        scores: the stream that prompts are filtered by, in [0, 1]; None = the verdicts (unknown = 0), else the rewards.
        unknown: what an unknown reward counts as; None = it is an error, for OpenRLHF cannot leave a response out.
        frozen: score judges that learn with what they know now, instead of refusing them.

    Raises:
        InputError: a reward OpenRLHF has no place for.
    """
    alone = "OpenRLHF hands over one response at a time. Leave it out, or train in reckon's own loop."
    tree = ready(reward, "OpenRLHF", task=task, tokenizer=tokenizer, frozen=frozen, groups=alone)
    if scores is not None and scores.split("/")[0] not in tree.parts:
        raise InputError(f"`scores` names {scores!r}, which is no stream here. The rewards are {sorted(tree.parts)}.")
    return OpenRLHFReward(
        tree, task=task, tokenizer=tokenizer, response_start=response_start, scores=scores, unknown=unknown
    )


@dataclass(frozen=True)
class OpenRLHFFunction:
    """A reward function written for OpenRLHF as a reward. Made by `from_openrlhf`."""

    function: Callable[..., Mapping[str, object]]
    tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def name(self) -> str:
        """The function's own name."""
        return Function(cast("RewardFunction", self.function)).name

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """`rewards`, and `scores` and every entry of `extra_logs` as streams that are only watched.

        Raises:
            InputError: a prompt is a chat and there is no tokenizer.
            RunError: the function raised, or returned no mapping with `rewards`.
        """
        n = len(batch.rollouts.text)
        watched: dict[str, list[float]] = {}

        def ask() -> list[float | None]:
            rewards: list[float | None] = []
            for row in range(n):
                query, prompt, label = self._row(batch, row)
                result = self.function(queries=[query], prompts=[prompt], labels=[label])
                if not isinstance(result, Mapping) or "rewards" not in result:
                    raise RunError("it must return a mapping with `rewards`, `scores` and `extra_logs`.")
                rewards.append(_first(result["rewards"]))
                logs = result.get("extra_logs") or {}
                entries = {"scores": result.get("scores"), **cast("Mapping[str, object]", logs)}
                for name, value in entries.items():
                    if value is not None:
                        watched.setdefault(name, [torch.nan] * n)[row] = _first(value)
            return rewards

        ask.__name__ = self.name
        streams = dict(Function(ask).score(batch))
        for name, values in watched.items():
            streams[name] = Stream(values=torch.tensor(values, dtype=torch.float32), train=False)
        return streams

    def _row(self, batch: Batch, row: int) -> tuple[str, str, str | None]:
        problem, text = batch.rollouts.problem(row), batch.rollouts.text[row]
        prompt = self._prompt(problem)
        whole = self.tokenizer is not None and int(batch.rollouts.end[row]) != End.LENGTH
        end = str(self.tokenizer.eos_token or "") if self.tokenizer is not None and whole else ""
        return prompt + text + end, prompt, problem.answer

    def _prompt(self, problem: Problem) -> str:
        if isinstance(problem.prompt, str):
            return problem.prompt
        if self.tokenizer is None or self.tokenizer.chat_template is None:
            raise InputError(
                f"the prompt of problem {problem.id!r} is a chat, and OpenRLHF's functions get text."
                " Pass tokenizer=, one with a chat template."
            )
        made = self.tokenizer.apply_chat_template(list(problem.prompt), add_generation_prompt=True, tokenize=False)
        return str(made)


def from_openrlhf(
    function: Callable[..., Mapping[str, object]], *, tokenizer: PreTrainedTokenizerBase | None = None
) -> OpenRLHFFunction:
    """A `reward_func(queries, prompts, labels)` written for OpenRLHF as a reward.

    It is called as OpenRLHF calls it, with lists of length 1.

    Args:
        function: returns a mapping with `rewards`, and perhaps `scores` and `extra_logs`.
        tokenizer: the policy's: renders prompts that are chats, and gives queries their end token.

    Raises:
        InputError: it is no function of queries, prompts and labels.
    """
    if not callable(function):
        raise InputError(f"a {type(function).__name__} is no reward function: it cannot be called.")
    parameters = inspect.signature(function).parameters
    lacks = [name for name in ("queries", "prompts", "labels") if name not in parameters]
    if lacks:
        raise InputError(
            f"{getattr(function, '__name__', 'it')!r} has no argument {' and no '.join(map(repr, lacks))}."
            " A function for OpenRLHF takes queries, prompts and labels."
        )
    return OpenRLHFFunction(function, tokenizer)


def _first(value: object) -> float:
    listed = torch.as_tensor(cast("list[float]", value)).flatten().tolist()
    if len(listed) != 1:
        raise RunError(f"{len(listed)} values came back for one response.")
    return float(listed[0])
