"""Rows as sequences: the responses to a prompt stand together and share it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from torch import Tensor

from reckon.errors import InputError
from reckon.fit._rows import Prefix, Stepwise, Unpaired
from reckon.rewards import sequences_of
from reckon.steps import Splitter, step_ends, token_ends
from reckon.tasks import prompt_key
from reckon.types import Problem, Sequences

if TYPE_CHECKING:
    from reckon.models import LanguageModel


def together(model: LanguageModel, given: Sequence[tuple[Problem, Sequence[int]]]) -> tuple[Sequences, list[int]]:
    """Responses in tokens as sequences, those to equal prompts in one group.

    Args:
        model: whose tokens they are.
        given: N problems and responses.

    Returns:
        The sequences, and for each of their rows its place in `given`: groups in order of their first response, and in
        a group the order of `given`, so that two responses that stand side by side to one prompt still do.
    """
    order, group = _grouped([prompt_key(problem.prompt) for problem, _ in given])
    problems: dict[int, Problem] = {}
    for number, place in zip(group, order, strict=True):
        problems.setdefault(number, given[place][0])
    return model.arrange(list(problems.values()), [given[place][1] for place in order], group), order


def texts(model: LanguageModel, given: Sequence[tuple[Problem, str, bool]]) -> tuple[Sequences, list[int]]:
    """As `together`, of N problems, responses and whether each has ended."""
    return together(model, [(problem, model.response_tokens(text, ended=ended)) for problem, text, ended in given])


def whole_texts(
    model: LanguageModel, read: Callable[[Problem, str], str], given: Sequence[tuple[Problem, str]]
) -> tuple[Sequences, list[int]]:
    """Problems and responses made one text each, no chat template around it and no end token behind.

    What the texts of one problem begin with, such as its question and its answer, is computed once.

    Args:
        model: whose tokens they are.
        read: makes the text.
        given: N problems and responses.

    Returns:
        As `together`; a group is a problem, but texts that do not begin alike stand in groups of their own.

    Raises:
        InputError: a text has fewer than two tokens, or more than the model's context.
    """
    tokens = [list(model.tokenizer(read(problem, text))["input_ids"]) for problem, text in given]
    context = getattr(model.network.config, "max_position_embeddings", None)
    for (problem, _), ids in zip(given, tokens, strict=True):
        if len(ids) < 2 or (context is not None and len(ids) > context):
            raise InputError(
                f"problem {problem.id!r} makes a text of {len(ids)} tokens, but it must have at least 2 and at "
                f"most the model's context of {context}. Shorten it, or drop the row."
            )
    order, group = _grouped([(prompt_key(problem.prompt), problem.answer) for problem, _ in given])
    return sequences_of([tokens[place] for place in order], group, model.device), order


def _grouped(keys: Sequence[object]) -> tuple[list[int], list[int]]:
    """The places of N keys, equal ones together, in order of each key's first; and of each place its key's number."""
    places: dict[object, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    groups = list(places.values())
    return [place for own in groups for place in own], [number for number, own in enumerate(groups) for _ in own]


def last(seq: Sequences) -> Tensor:
    """[N] int64: where each response's last token stands."""
    return seq.mask.sum(dim=1) - 1


def steps_by_text(
    model: LanguageModel, rows: Sequence[Unpaired], splitter: Splitter
) -> tuple[Sequences, list[int], list[list[int]]]:
    """Responses and, for each row of the sequences, the tokens at which its steps end.

    A response without text is one step that ends at its end token.
    """
    seq, order = texts(model, [(row.problem, row.text, row.ended) for row in rows])
    ends = []
    for pieces, place in zip(model.pieces(seq), order, strict=True):
        _check_same_text(rows[place].problem, pieces, rows[place].text)
        ends.append(token_ends(pieces, step_ends(rows[place].text, splitter)) or [len(pieces) - 1])
    return seq, order, ends


def given_steps(
    model: LanguageModel, rows: Sequence[Stepwise]
) -> tuple[Sequences, list[int], list[list[tuple[int, float | None]]]]:
    """Responses and, for each row of the sequences, the last token and the label of each of its steps.

    A step in which no token begins has no token of its own, and its label is left out; but the end token is always of
    the last step.
    """
    seq, order = texts(model, [(row.problem, "".join(row.steps), row.ended) for row in rows])
    found = []
    for pieces, place in zip(model.pieces(seq), order, strict=True):
        row = rows[place]
        ends = list(accumulate(len(step) for step in row.steps))
        _check_same_text(row.problem, pieces, "".join(row.steps))
        begins = list(accumulate(map(len, pieces), initial=0))[:-1]
        step_of = [min(bisect_right(ends, begin), len(ends) - 1) for begin in begins]  # as `token_ends` has it
        found.append([(token, row.labels[step_of[token]]) for token in token_ends(pieces, ends)])
    return seq, order, found


def prefixes(model: LanguageModel, rows: Sequence[Prefix]) -> tuple[Sequences, list[list[tuple[int, float]]]]:
    """Prefixes as sequences in which one that another begins with is read in passing.

    Each gets an end token behind it, which is never read: the value that *predicts* token t is that of the prefix of t
    tokens, also of the empty one.

    Returns:
        The sequences, and for each of their rows the (t, q) of the prefixes it holds.
    """
    groups: dict[str, list[tuple[tuple[int, ...], Prefix]]] = {}
    for row in rows:
        groups.setdefault(prompt_key(row.problem.prompt), []).append((_tokens(model, row), row))
    given: list[tuple[Problem, Sequence[int]]] = []
    held: list[list[tuple[int, float]]] = []
    for found in groups.values():
        longest: list[tuple[tuple[int, ...], list[tuple[int, float]]]] = []
        for tokens, row in sorted(found, key=lambda pair: -len(pair[0])):
            holder = next((reads for whole, reads in longest if whole[: len(tokens)] == tokens), None)
            if holder is None:
                holder = []
                longest.append((tokens, holder))
            holder.append((len(tokens), row.q))
        given += [(found[0][1].problem, [*tokens, model.tokenizer.eos_token_id]) for tokens, _ in longest]
        held += [reads for _, reads in longest]
    seq, order = together(model, given)
    return seq, [held[place] for place in order]


def _tokens(model: LanguageModel, row: Prefix) -> tuple[int, ...]:
    """Without an end token: also a whole response is read where its text ends, as every other prefix is."""
    if row.tokens is not None and model.tokenizer.decode(list(row.tokens), skip_special_tokens=True) == row.text:
        ended = row.tokens[-1:] == (model.tokenizer.eos_token_id,)
        return row.tokens[:-1] if ended else row.tokens
    return tuple(model.response_tokens(row.text, ended=False))


def _check_same_text(problem: Problem, pieces: Sequence[str], text: str) -> None:
    if "".join(pieces) != text:
        raise InputError(
            f"the tokenizer reads the response to problem {problem.id!r} back as another text, so its steps cannot be "
            "found in its tokens. Drop the row, or give it in the tokenizer's own spelling."
        )
