"""What a library does not hand over, made so that it cannot be read by mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast, overload

import torch
from torch import Tensor

from reckon.errors import InputError

# Field of a batch -> (what a reward reads there, what its user can do).
_FIELDS: Mapping[str, tuple[str, str]] = {
    "outcome": ("verdicts", "Give `task=`, whose checker judges the responses."),
    "end": (
        "why a response ended",
        "Where tokens or special tokens are handed over `tokenizer=` tells it; else set `require_eos` to False.",
    ),
    "tokens": ("the tokens of a response", "Give `tokenizer=`, the policy's."),
    "prompts": ("the tokens of a prompt", "Give `tokenizer=`, the policy's."),
    "logprobs": ("the log-probs of the sampler", "Train with it in reckon's own loop, which has them."),
    "pieces": ("the text of single tokens", "Give `tokenizer=`, the policy's."),
}


def missing(field: str, library: str, who: str = "a reward") -> InputError:
    """The error for a reward that reads a field of the batch which the library does not hand over."""
    what, remedy = _FIELDS[field]
    return InputError(f"{who} reads {what}, and {library} hands over none. {remedy}")


class Unknown(Tensor):
    """A tensor whose values nobody knows: whatever is computed from it is of this class too.

    Its shape and device are real, so a reward that only looks at those works; its numbers cannot be read out, and a
    stream that turns out to be of this class is refused. NaN would not do: there is none among integers, and a sum that
    skips it would hide that a reward never had what it judges by.
    """

    field: str
    library: str

    @classmethod
    def of(cls, values: Tensor, field: str, library: str) -> Unknown:
        """`values`, whose numbers do not matter, as the unknown `field` of a batch."""
        made = values.as_subclass(cls)
        made.field, made.library = field, library
        return made

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Computes as usual and passes on what is unknown; refuses to give numbers out."""
        source = next(_unknowns((*args, *(kwargs or {}).values())))
        if func is Tensor.tolist:  # a table of columns lists everything, though few functions read all of it
            return Unreadable(source.field, source.library)
        # Of a prompt only the device is looked at innocently: whoever computes with its tokens feeds them to a model.
        if func in _READS or (source.field == "prompts" and func.__name__ != "__get__"):
            raise missing(source.field, source.library)
        usual = cast("Callable[..., object]", super().__torch_function__)
        result = usual(func, types, args, dict(kwargs or {}))
        for made in _unknowns((result,)):
            made.field, made.library = source.field, source.library
        return result


_READS = {
    Tensor.item,
    Tensor.numpy,
    Tensor.__bool__,
    Tensor.__float__,
    Tensor.__int__,
    Tensor.__index__,
    Tensor.__array__,
    torch.equal,
    Tensor.equal,
}


class Unreadable(Sequence[object]):
    """A list that nobody can read: stands in a table of columns for what a library does not hand over."""

    def __init__(self, field: str, library: str) -> None:
        self._field, self._library = field, library

    def __len__(self) -> int:
        """Raises InputError."""
        raise missing(self._field, self._library)

    @overload
    def __getitem__(self, index: int) -> object: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[object]: ...
    def __getitem__(self, index: int | slice) -> object:
        """Raises InputError."""
        raise missing(self._field, self._library)

    def __iter__(self) -> Iterator[object]:
        """Raises InputError."""
        raise missing(self._field, self._library)


def _unknowns(values: Iterable[object]) -> Iterator[Unknown]:
    for value in values:
        if isinstance(value, Unknown):
            yield value
        elif isinstance(value, list | tuple):
            yield from _unknowns(value)
