"""What can be told of a task and of a policy, so that labels by one are never taken for labels by another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

from torch import Tensor

from reckon.types import Task

NUMBERS_PER_TENSOR = 4096  # a step of learning moves nearly all of a tensor's numbers


def tell_task(task: Task, verdicts: Sequence[int | None]) -> str:
    """The task's name, and a digest of its settings and of what it says about the seeds.

    Args:
        task: settings are those of a dataclass; of any other only the verdicts tell.
        verdicts: of each seed: 1 right, 0 wrong, None unknown.
    """
    told = hashlib.sha256(repr((_settings(task), list(verdicts))).encode())
    return f"{task.name} {told.hexdigest()[:16]}"


def tell_policy(policy: object) -> str | None:
    """A digest of a policy's weights, up to 4096 numbers of each tensor, and of its `sampling`; None = it has none."""
    source = getattr(policy, "network", policy)  # with adapters, the weights below them too
    if not hasattr(source, "state_dict"):
        return None
    told = hashlib.sha256(repr(_settings(getattr(policy, "sampling", None))).encode())
    for name, tensor in _tensors("", source.state_dict()):
        flat = tensor.detach().reshape(-1)
        told.update(f"{name} {tuple(tensor.shape)}".encode())
        told.update(flat[:: max(1, flat.numel() // NUMBERS_PER_TENSOR)].float().cpu().numpy().tobytes())
    return told.hexdigest()[:16]


def _settings(value: object) -> object:
    """A value as its repr is the same in every process: no addresses, and no order of a set."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return [(str(key), _settings(value[key])) for key in sorted(value, key=str)]
    if isinstance(value, Sequence):
        return [_settings(each) for each in value]
    known = fields(value) if is_dataclass(value) and not isinstance(value, type) else ()
    parts = [(one.name, _settings(getattr(value, one.name))) for one in known if one.init]
    return (getattr(value, "__qualname__", type(value).__qualname__), parts)


def _tensors(name: str, state: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key in sorted(state, key=str):
            yield from _tensors(f"{name}.{key}", state[key])
