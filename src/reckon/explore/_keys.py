"""Keys of states: what is counted as one and the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reckon.errors import InputError

_WHOLE = (int, np.integer, np.bool_)  # what is its own key


def key_of(values: Sequence[object] | np.ndarray | Tensor, name: str = "key_of") -> Tensor:
    """The keys of N states, from what a key function says of each.

    Integers are their own keys. All else (text, bytes, None, tuples of these and of integers, the rows of an integer
    array) is hashed to 64 bits by BLAKE2b, the same on every machine and in every run: two of a million different
    states share a key with a probability of 3e-8. Rows of arrays are equal if their bytes are.

    Args:
        values: N of them; an array or tensor of integers, [N] or [N, ...].
        name: of the key function, for messages.

    Returns:
        [N] int64.

    Raises:
        InputError: a value is a float, or something else that cannot be a key.
    """
    if isinstance(values, Tensor):
        values = values.cpu().numpy()
    if isinstance(values, np.ndarray):
        return _of_array(values, name)
    return torch.tensor([_of_one(value, row, name) for row, value in enumerate(values)], dtype=torch.int64)


def _of_array(values: np.ndarray, name: str) -> Tensor:
    if values.dtype.kind not in "biu":
        raise InputError(f"{name}: an array of {values.dtype} has no keys. {_REMEDY}")
    if values.ndim == 1:
        return torch.from_numpy(values.astype(np.int64))
    rows = np.ascontiguousarray(values)
    return torch.tensor([_hashed(row.tobytes()) for row in rows], dtype=torch.int64)


def _of_one(value: object, row: int, name: str) -> int:
    if isinstance(value, _WHOLE):
        if not -(2**63) <= int(value) < 2**63:
            return _hashed(_bytes(value, row, name))
        return int(value)
    return _hashed(_bytes(value, row, name))


def _bytes(value: object, row: int, name: str) -> bytes:
    """Different things have different bytes: each begins with its kind, and a tuple tells how long its parts are."""
    if value is None:
        return b"n"
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return b"b" + value
    if isinstance(value, _WHOLE):
        return b"i%d" % int(value)
    if isinstance(value, tuple):
        parts = [_bytes(part, row, name) for part in value]
        return b"t" + b"".join(b"%d:" % len(part) + part for part in parts)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biu":
        return b"a" + value.tobytes()
    raise InputError(f"{name}: row {row} is {value!r} ({type(value).__name__}), which cannot be a key. {_REMEDY}")


def _hashed(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


_REMEDY = (
    "Floats are hardly ever equal, so that every state would be new: give the cell that a state lies in, such as "
    "int(x // 0.1), or a text, integer or tuple of these."
)
