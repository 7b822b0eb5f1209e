"""One row of a file as examples to learn from, or a sentence that says why not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

from reckon.errors import InputError
from reckon.fit._rows import Example, Paired, Prefix, Staged, Stepwise, Unpaired
from reckon.tasks import Row, to_chat
from reckon.types import Chat, Problem

_WORDS = {"true": 1.0, "false": 0.0, "right": 1.0, "wrong": 0.0, "+": 1.0, "-": 0.0}


def imitation(row: Row, separator: str) -> list[Example]:
    """A response to imitate; labels are not read."""
    if "messages" in row.values and "prompt" not in row.values:
        prompt, text = _last_turn(row, "messages")
        return [Unpaired(problem=_problem(row, prompt), text=text, ended=_ended(row))]
    problem = _problem(row)
    name = _first(row, ("completion", "text", "response"))
    return [Unpaired(problem=problem, text=_response(row, name), ended=_ended(row))]


def unpaired(row: Row, separator: str) -> list[Example]:
    """Responses with a label each; [] where it is not known."""
    problem = _problem(row)
    if "correctness" in row.values:
        texts, labels = _list(row, "completions"), _list(row, "correctness")
        _same_length(row, "completions", texts, "correctness", labels)
        known = [_label(row, "correctness", label) for label in labels]
        return [
            Unpaired(problem=problem, text=_words(row, "completions", text), label=label, ended=ended)
            for text, label, ended in zip(texts, known, _each_ended(row, len(texts)), strict=True)
            if label is not None
        ]
    name = _first(row, ("completion", "text", "response"))
    label_name = _first(row, ("label", "outcome"))
    text, label = _response(row, name), _label(row, label_name, row.values[label_name])
    return [] if label is None else [Unpaired(problem=problem, text=text, label=label, ended=_ended(row))]


def paired(row: Row, separator: str) -> list[Example]:
    """A better and a worse response."""
    for name in ("chosen", "rejected"):
        _first(row, (name,))
    if row.values.get("prompt") is None and all(_is_transcript(row.values[name]) for name in ("chosen", "rejected")):
        prompt, chosen, rejected = _first_difference(row)
        problem = _problem(row, prompt)
    elif row.values.get("prompt") is None:
        (prompt, chosen), (other, rejected) = _last_turn(row, "chosen"), _last_turn(row, "rejected")
        if prompt != other:
            raise InputError(
                f"{row.place}: without a `prompt`, `chosen` and `rejected` must differ in their last turn alone. "
                "Give a `prompt`, or drop the row."
            )
        problem = _problem(row, prompt)
    else:
        problem = _problem(row)
        chosen, rejected = _response(row, "chosen"), _response(row, "rejected")
    if chosen == rejected:
        raise InputError(f"{row.place}: `chosen` and `rejected` are the same text, so nothing can be learned. Drop it.")
    margin = row.values.get("margin")
    return [
        Paired(
            problem=problem,
            chosen=chosen,
            rejected=rejected,
            margin=None if margin is None else _number(row, "margin", margin),
            ended=(_ended(row, "chosen_"), _ended(row, "rejected_")),
        )
    ]


def stepwise(row: Row, separator: str) -> list[Example]:
    """Steps with a label each; [] where none is known."""
    problem = _problem(row)
    _first(row, ("completions",))
    _first(row, ("labels",))
    texts, given = _list(row, "completions"), _list(row, "labels")
    _same_length(row, "completions", texts, "labels", given)
    steps = _joined([_words(row, "completions", text) for text in texts], separator)
    labels = tuple(_label(row, "labels", label) for label in given)
    if not steps:
        raise InputError(f"{row.place}: `completions` has no steps. Drop the row.")
    if all(label is None for label in labels):
        return []
    return [Stepwise(problem=problem, steps=steps, labels=labels, ended=_ended(row))]


def prefix(row: Row, separator: str) -> list[Example]:
    """Prefixes with the share of right completions; [] where it is not known. Labelled steps make one for each step."""
    if "prefix" not in row.values and "completions" in row.values:
        found = stepwise(row, separator)
        return [
            Prefix(problem=whole.problem, text="".join(whole.steps[: i + 1]), q=label)
            for whole in found
            if isinstance(whole, Stepwise)
            for i, label in enumerate(whole.labels)
            if label is not None
        ]
    problem = _problem(row)
    if "prefix" not in row.values:
        _first(row, ("prefix",))
    value = row.values["prefix"]
    if isinstance(value, list | tuple):
        # In our own tables (`n_mc`) a step holds its delimiter, whatever that is.
        between = "" if "n_mc" in row.values else separator
        value = "".join(_joined([_words(row, "prefix", part) for part in value], between))
    text = _words(row, "prefix", value)
    name = _first(row, ("q_hat", "label"))
    q = _label(row, name, row.values[name])
    tokens = row.values.get("tokens")
    if q is None:
        return []
    whole_numbers = isinstance(tokens, Sequence) and all(isinstance(token, int) for token in tokens)
    sampled = tuple(tokens) if isinstance(tokens, Sequence) and whole_numbers else None
    return [Prefix(problem=problem, text=text, q=q, tokens=sampled)]


def staged(row: Row, separator: str) -> list[Example]:
    """A response and its stage, a count or a name; None where there is none, for a function may know it."""
    problem = _problem(row)
    text = _response(row, _first(row, ("completion", "text", "response")))
    return [Staged(problem=problem, text=text, stage=_stage(row), ended=_ended(row))]


def _stage(row: Row) -> int | str | None:
    value = row.values.get("stage")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str) and not value.strip().isdigit():  # CSV has no numbers
        return value
    number = _number(row, "stage", value)
    if number < 0 or number != int(number):
        raise InputError(f"{row.place}: `stage` is {value}, but stages are counted from 0. Write a count or a name.")
    return int(number)


def _problem(row: Row, prompt: str | Chat | None = None) -> Problem:
    """The row's problem; `prompt` where it was found elsewhere than in the column of this name."""
    if prompt is None and isinstance(row.values.get("messages"), str):  # a conversation in a table of prefixes
        prompt = to_chat(row, "messages", _parsed(row, "messages"))
    if prompt is None:
        _first(row, ("prompt",))
        value = row.values["prompt"]
        prompt = value if isinstance(value, str) else to_chat(row, "prompt", value)
    if not prompt:
        raise InputError(f"{row.place}: `prompt` is empty. Write a prompt, or drop the row.")
    answer = row.values.get("answer", row.values.get("reference"))
    name = row.values.get("id", row.values.get("problem"))
    return Problem(
        id=str(name) if isinstance(name, str | int) else row.place,
        prompt=prompt,
        answer=None if answer is None else str(answer),
    )


def _last_turn(row: Row, name: str) -> tuple[Chat, str]:
    """A conversation as what came before and what the assistant said last."""
    turns = to_chat(row, name, row.values[name])
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise InputError(
            f"{row.place}: `{name}` must be a conversation that ends with the assistant's turn, since there is no "
            "`prompt`. Give a `prompt`, or drop the row."
        )
    return turns[:-1], turns[-1]["content"]


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("Human:")


def _first_difference(row: Row) -> tuple[Chat, str, str]:
    """Two transcripts, as HH-RLHF has them, as what they share and the answers in which they first differ.

    What is said after these is left out, for each answers another conversation.
    """
    one, other = (_turns(row, name) for name in ("chosen", "rejected"))
    for place, (turn, instead) in enumerate(zip(one, other, strict=False)):
        if turn != instead:
            if turn["role"] == instead["role"] == "assistant":
                return one[:place], turn["content"], instead["content"]
            break
    raise InputError(
        f"{row.place}: the transcripts `chosen` and `rejected` do not first differ in an answer of the assistant, so "
        "nothing is preferred. Drop the row (on_bad: drop)."
    )


def _turns(row: Row, name: str) -> Chat:
    """A transcript of "Human: ..." and "Assistant: ..." paragraphs as messages."""
    _, *parts = re.split(r"(?:^|\n\n)(Human|Assistant):", str(row.values[name]).strip())
    said = [text.strip() for text in parts[1::2]]
    if not all(said) or parts[::2] != [("Human", "Assistant")[i % 2] for i in range(len(said))]:
        raise InputError(
            f"{row.place}: `{name}` is a transcript in which Human and Assistant do not take turns, or one says "
            "nothing. Drop the row (on_bad: drop)."
        )
    return tuple({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said))


def _response(row: Row, name: str) -> str:
    """A response as text: a cell of text, or the one message of an assistant."""
    value = row.values[name]
    if isinstance(value, list | tuple):
        turns = to_chat(row, name, value)
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise InputError(
                f"{row.place}: `{name}` must be text or one message of the assistant, not {len(turns)} messages. "
                "Put the turns before it into `prompt`."
            )
        return turns[0]["content"]
    return _words(row, name, value)


def _words(row: Row, name: str, value: object) -> str:
    if value is None and row.source.endswith(".csv"):  # an empty cell, and CSV has no other way to write an empty text
        return ""
    if value is None:
        raise InputError(f'{row.place}: `{name}` is null. Write "" where the text is empty, or drop the row.')
    if not isinstance(value, str):
        raise InputError(f"{row.place}: `{name}` must be text, not {type(value).__name__}. Write it as text.")
    return value


def _first(row: Row, names: Sequence[str]) -> str:
    """The first of these columns that the row has."""
    for name in names:
        if name in row.values:
            return name
    have = ", ".join(map(str, row.values)) or "none"
    said = " or ".join(f"`{name}`" for name in names)
    raise InputError(f"{row.place}: there is no column {said} (columns: {have}). Add it, or rename the one that is it.")


def _list(row: Row, name: str) -> Sequence[object]:
    value = row.values.get(name)
    if isinstance(value, str):  # CSV has no lists
        value = _parsed(row, name)
    if not isinstance(value, list | tuple):
        raise InputError(f"{row.place}: `{name}` must be a list, not {type(value).__name__}. Write it as [..., ...].")
    return value


def _parsed(row: Row, name: str) -> object:
    try:
        return json.loads(str(row.values[name]))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{row.place}: `{name}` is text that is not JSON ({error}). Write it as JSON.") from error


def _same_length(row: Row, name: str, values: Sequence[object], other: str, others: Sequence[object]) -> None:
    if len(values) != len(others):
        raise InputError(
            f"{row.place}: `{name}` has {len(values)} entries and `{other}` {len(others)}. Give one for each."
        )


def _label(row: Row, name: str, value: object) -> float | None:
    """A label in [0, 1]; None = nobody knows."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    label = _number(row, name, value)
    if not 0 <= label <= 1:
        raise InputError(f"{row.place}: `{name}` is {value}, but a label is in [0, 1], 1 = right. Scale it.")
    return label


def _number(row: Row, name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{row.place}: `{name}` is {value!r}, not a number. Write a number.")
    return number


def _each_ended(row: Row, count: int) -> list[bool]:
    """`_ended` of several responses, for which `end` and `truncated` may be lists with one entry for each."""
    alone = [dict(row.values) for _ in range(count)]
    for name in ("end", "truncated"):
        value = row.values.get(name)
        if isinstance(value, str) and value.lstrip().startswith("["):  # CSV has no lists
            value = _parsed(row, name)
        if isinstance(value, list | tuple):
            if len(value) != count:
                raise InputError(f"{row.place}: `{name}` has {len(value)} entries for {count} responses. Give as many.")
            for values, entry in zip(alone, value, strict=True):
                values[name] = entry
    return [_ended(Row(row.source, row.number, values)) for values in alone]


def _ended(row: Row, side: str = "") -> bool:
    """Whether a response came to its own end. A stop string is no end token: judges read the tokens as they are."""
    end, cut = row.values.get(f"{side}end"), row.values.get(f"{side}truncated")
    if isinstance(end, list | tuple):
        raise InputError(f"{row.place}: `{side}end` is a list, but there is one response. Write one entry.")
    if cut is not None:
        return _label(row, f"{side}truncated", cut) == 0
    return end is None or str(end).lower() == "eos"


def _joined(steps: Sequence[str], separator: str) -> tuple[str, ...]:
    """The steps with the separator behind each but the last, where it is not there yet."""
    return tuple(
        step if i + 1 == len(steps) or step.endswith(separator) else step + separator for i, step in enumerate(steps)
    )
