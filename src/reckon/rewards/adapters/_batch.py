"""A reckon batch from what another library hands its reward functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, cast

import torch

from reckon.errors import InputError
from reckon.rewards.adapters._unknown import Unknown, Unreadable
from reckon.tasks import verdict_on
from reckon.types import Batch, Chat, End, Json, Problem, Rollouts, Sequences, Task, Verdict

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

# A prompt or a completion as text or as messages, each {"role": ..., "content": text or a list of parts}.
Turn: TypeAlias = "str | Sequence[Mapping[str, object]]"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a library handed over about N responses. Lists are of length N; None = it hands over no such thing."""

    library: str  # what to call it in messages
    texts: Sequence[str]  # the responses, end token left out
    prompts: Sequence[Turn] | None = None
    completion_ids: Sequence[Sequence[int]] | None = None  # as sampled, the end token included
    ended: Sequence[bool] | None = None  # False = the response ran into the limit
    answers: Sequence[object] | None = None  # reference answers
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    group: Sequence[int] | None = None  # ascending from 0, which prompt a response answers; None = cannot be told
    step: int = 0


def batch_of(given: Given, *, task: Task | None = None, tokenizer: PreTrainedTokenizerBase | None = None) -> Batch:
    """A batch of N responses in G groups. Where groups cannot be told each response stands in one of its own.

    What the library does not hand over is not made up: a reward that reads it is refused by name. With a `task` its
    checker gives the verdicts. With a `tokenizer`, the policy's, prompts have tokens and tokens have text; where the
    library hands over no tokens, those of the text are taken, with an end token, which need not be the sampled ones.

    Raises:
        InputError: lists of several lengths, no responses, groups that do not ascend or whose prompts differ.
    """
    n = _checked_length(given)
    group = list(range(n)) if given.group is None else list(given.group)
    firsts = [row for row in range(n) if row == 0 or group[row] != group[row - 1]]
    problems = tuple(_problem(given, row) for row in firsts)
    verdicts = (
        ()
        if task is None
        else tuple(verdict_on(task, problems[group[row]], text) for row, text in enumerate(given.texts))
    )
    ids = _token_ids(given, tokenizer)
    rollouts = Rollouts(
        seq=_sequences(given, ids, problems, group, tokenizer),
        problems=problems,
        text=tuple(given.texts),
        pieces=_pieces(given, ids, tokenizer),
        logprobs=Unknown.of(torch.full((n, _width(ids)), torch.nan), "logprobs", given.library),
        end=_ends(given, ids, tokenizer),
    )
    return Batch.given(rollouts, _outcome(given, verdicts), verdicts=verdicts, train=True, step=given.step)


def text_of(turn: Turn) -> str:
    """The text of a completion: itself, or the content of its last message, of which text parts are joined."""
    if isinstance(turn, str):
        return turn
    return _content(turn[-1]) if turn else ""


def groups_of_size(prompts: Sequence[Turn], size: int, library: str) -> list[int]:
    """Group numbers for rows that come in whole groups of `size` in a row.

    Raises:
        InputError: the rows are no whole number of groups, or a group's prompts differ.
    """
    n = len(prompts)
    whole = n % size == 0 and all(prompts[row] == prompts[row - row % size] for row in range(n))
    if not whole:
        raise InputError(
            f"{library} handed over {n} responses that are not whole groups of {size} to one prompt each, so groups"
            " cannot be told. Give the number of responses to each prompt, the same in evaluation as in training, and"
            " batches on every device that are multiples of it."
        )
    return [row // size for row in range(n)]


class LazyPieces(Sequence[str]):
    """The text each token of one response adds, worked out when somebody asks."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> None:
        self._tokenizer, self._tokens = tokenizer, list(tokens)
        self._found: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self._tokens)

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:  # type: ignore[override]
        """One piece, or several."""
        return self._all()[index]

    def _all(self) -> tuple[str, ...]:
        if self._found is None:
            from reckon.models import pieces

            self._found = pieces(self._tokenizer, self._tokens)
        return self._found


def _checked_length(given: Given) -> int:
    n = len(given.texts)
    if n == 0:
        raise InputError(f"{given.library} handed over no responses, so there is nothing to judge.")
    lists: dict[str, Sequence[object] | None] = {
        "prompts": given.prompts,
        "completion_ids": given.completion_ids,
        "ended": given.ended,
        "answers": given.answers,
        "group": given.group,
        **given.columns,
    }
    for name, values in lists.items():
        if values is not None and len(values) != n:
            raise InputError(
                f"{given.library} handed over {n} responses and {len(values)} values of `{name}`."
                " There must be one for each response."
            )
    group = given.group
    if group is not None:
        if group[0] != 0 or not {later - row for row, later in itertools.pairwise(group)} <= {0, 1}:
            raise InputError("`group` must ascend from 0 without gaps: the responses to a prompt stand together.")
        if given.prompts is not None:
            for row in range(1, n):
                if group[row] == group[row - 1] and given.prompts[row] != given.prompts[row - 1]:
                    raise InputError(f"rows {row - 1} and {row} are of one `group`, but their prompts differ.")
    return n


def _problem(given: Given, row: int) -> Problem:
    columns = {name: cast("Json", values[row]) for name, values in given.columns.items()}
    answer = None if given.answers is None else given.answers[row]
    identity, domain = columns.get("id"), columns.get("domain")
    return Problem(
        id=f"{given.library} row {row}" if identity is None else str(identity),
        prompt="" if given.prompts is None else _prompt(given.prompts[row]),
        answer=None if answer is None else str(answer),
        domain="default" if domain is None else str(domain),
        columns={name: value for name, value in columns.items() if name not in ("id", "domain")},
    )


def _prompt(turn: Turn) -> str | Chat:
    if isinstance(turn, str):
        return turn
    return tuple({"role": str(message.get("role", "user")), "content": _content(message)} for message in turn)


def _content(message: Mapping[str, object]) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        return str(content)
    texts = [str(part["text"]) for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    return "".join(texts)


def _token_ids(given: Given, tokenizer: PreTrainedTokenizerBase | None) -> list[list[int]] | None:
    if given.completion_ids is not None:
        return [[int(token) for token in ids] for ids in given.completion_ids]
    if tokenizer is None:
        return None
    rows: list[list[int]] = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in given.texts]
    for row, ids in enumerate(rows):
        if tokenizer.eos_token_id is not None and (given.ended is None or given.ended[row]):
            ids.append(int(tokenizer.eos_token_id))
    return rows


def _sequences(
    given: Given,
    ids: list[list[int]] | None,
    problems: Sequence[Problem],
    group: Sequence[int],
    tokenizer: PreTrainedTokenizerBase | None,
) -> Sequences:
    n = len(given.texts)
    tokens = torch.zeros(n, _width(ids), dtype=torch.int64)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for row, kept in enumerate(ids or ()):
        tokens[row, : len(kept)] = torch.tensor(kept, dtype=torch.int64)
        mask[row, : len(kept)] = True
    if ids is None:
        tokens = Unknown.of(tokens, "tokens", given.library)
        mask = Unknown.of(mask, "tokens", given.library)
    if tokenizer is None or given.prompts is None:
        prompts: tuple[Tensor, ...] = tuple(
            Unknown.of(torch.zeros(1, dtype=torch.int64), "prompts", given.library) for _ in problems
        )
    else:
        prompts = tuple(_prompt_ids(tokenizer, problem) for problem in problems)
    return Sequences(prompts=prompts, group=torch.tensor(group), tokens=tokens, mask=mask)


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, problem: Problem) -> Tensor:
    """[P] int64: text as it stands, messages through the chat template, as trainers tokenize them."""
    if isinstance(problem.prompt, str):
        ids = tokenizer(problem.prompt)["input_ids"]
    elif tokenizer.chat_template is None:
        raise InputError(
            f"the prompt of problem {problem.id!r} is a chat, and the tokenizer has no chat template."
            " Give the tokenizer of the policy that answered."
        )
    else:
        ids = tokenizer.apply_chat_template(
            list(problem.prompt), add_generation_prompt=True, tokenize=True, return_dict=False
        )
    if not ids:
        raise InputError(f"the prompt of problem {problem.id!r} is empty. Drop the row, or write a prompt.")
    return torch.tensor(ids, dtype=torch.int64)


def _pieces(
    given: Given, ids: list[list[int]] | None, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[tuple[str, ...], ...]:
    make: Callable[[int], Sequence[object]]
    if ids is None or tokenizer is None:
        make = lambda row: Unreadable("pieces", given.library)  # noqa: E731
    else:
        known, decoder = ids, tokenizer
        make = lambda row: LazyPieces(decoder, known[row])  # noqa: E731
    # Read like tuples; made late, for decoding token by token costs more than most rewards do.
    return tuple(cast("tuple[str, ...]", make(row)) for row in range(len(given.texts)))


def _ends(given: Given, ids: list[list[int]] | None, tokenizer: PreTrainedTokenizerBase | None) -> Tensor:
    ended = given.ended
    if ended is None and given.completion_ids is not None and tokenizer is not None and ids is not None:
        closing = {tokenizer.eos_token_id, tokenizer.pad_token_id}  # TRL's own rule for a response that was cut off
        ended = [bool(row) and row[-1] in closing for row in ids]
    if ended is None:
        return Unknown.of(torch.zeros(len(given.texts), dtype=torch.int64), "end", given.library)
    return torch.tensor([int(End.EOS if whole else End.LENGTH) for whole in ended])


def _outcome(given: Given, verdicts: Sequence[Verdict]) -> Tensor:
    if not verdicts:
        return Unknown.of(torch.full((len(given.texts),), torch.nan), "outcome", given.library)
    return torch.tensor([torch.nan if v.outcome is None else v.outcome for v in verdicts], dtype=torch.float32)


def _width(ids: list[list[int]] | None) -> int:
    return max((len(row) for row in ids or ()), default=1) or 1
