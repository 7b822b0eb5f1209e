"""A part's state as two files, bit for bit: its tensors as safetensors, the rest as JSON."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reckon.errors import InputError, RunError
from reckon.types import Json, State

if TYPE_CHECKING:
    from torch import Tensor

_WORD = 2**63  # integers beyond it go as hexadecimal: Python caps the digits of decimal ones


class _Packer:
    """Turns a nested state into JSON in which each tensor is a name; what JSON lacks becomes {"$sort": ...}."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[object, ...], str] = {}

    def pack(self, value: object, path: tuple[str, ...]) -> Json:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int):
            return int(value) if -_WORD <= value < _WORD else {"$int": hex(value)}
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
        if isinstance(value, list | tuple):
            items: list[Json] = [self.pack(item, (*path, str(i))) for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if "torch" in sys.modules:  # else nothing can be a tensor, and we need not load it to find out
            import torch

            if isinstance(value, torch.Tensor):
                return {"$tensor": self._tensor(value, path)}
        raise InputError(
            f"The state of `{'.'.join(path)}` is a {type(value).__name__}, which cannot be saved. "
            "Make it of tensors, numbers, strings, lists and mappings in state_dict."
        )

    def _mapping(self, value: Mapping[object, object], path: tuple[str, ...]) -> Json:
        for key in value:
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise InputError(
                    f"The state of `{'.'.join(path)}` has the key {key!r}. Make it a string or an integer."
                )
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {str(key): self.pack(item, (*path, str(key))) for key, item in value.items()}
        return {"$pairs": [[self.pack(key, path), self.pack(item, (*path, str(key)))] for key, item in value.items()]}

    def _tensor(self, value: Tensor, path: tuple[str, ...]) -> str:
        import torch

        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise InputError(
                f"The state of `{'.'.join(path)}` is a sparse, quantized or meta tensor, which cannot be saved. "
                "Make it dense in state_dict."
            )
        value = value.detach().resolve_conj().resolve_neg()
        # Tied tensors are one tensor, before and after; kept alive here, no other can come to have the same address.
        same = (value.device, value.dtype, value.data_ptr(), tuple(value.shape), value.stride())
        if value.numel() and same in self._names:
            return self._names[same]
        name = ".".join(path)
        while name in self.tensors or name == "__metadata__":  # which safetensors keeps for itself
            name += "+"
        self.tensors[name] = value
        self._names[same] = name
        return name


def _unpack(value: Json, tensors: Mapping[str, Tensor]) -> object:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (sort, content), *_ = value.items()
        if sort == "$tensor":
            return tensors[str(content)]
        if sort == "$int":
            return int(str(content), 16)
        if sort == "$float":
            return struct.unpack(">d", bytes.fromhex(str(content)))[0]
        if sort == "$tuple" and isinstance(content, list):
            return tuple(_unpack(item, tensors) for item in content)
        if sort == "$pairs" and isinstance(content, list):
            pairs = [_unpack(pair, tensors) for pair in content]
            return {pair[0]: pair[1] for pair in pairs if isinstance(pair, list)}
    return {key: _unpack(item, tensors) for key, item in value.items()}


def write_state(folder: Path, name: str, state: State) -> None:
    """Writes `state` as NAME.json and, if it has tensors, NAME.safetensors.

    Args:
        folder: an existing folder.
        name: of the part; the beginning of the files' names.
        state: nested mappings, lists and tuples of tensors and JSON values. Keys are strings or integers. Tensors are
            of any dtype that safetensors has. Tensors that are one tensor are saved once; views of one storage apart.

    Raises:
        InputError: something in it cannot be saved; names the key.
        OSError: no room, no permission.
    """
    packer = _Packer()
    tree = packer.pack(state, ())
    (folder / f"{name}.json").write_text(json.dumps(tree, allow_nan=False))
    if packer.tensors:
        _write_tensors(folder / f"{name}.safetensors", packer.tensors)
        # safetensors keeps its files to their owner; ours are as readable as the rest of the run.
        shutil.copymode(folder / f"{name}.json", folder / f"{name}.safetensors")


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        copy = tensor.cpu().contiguous()
        if copy.untyped_storage().data_ptr() in storages:
            copy = copy.clone()
        storages.add(copy.untyped_storage().data_ptr())
        plain[name] = copy
    try:
        save_file(plain, str(path))
    except SafetensorError as error:  # which is no OSError, and tells the number in its text alone
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def read_state(folder: Path, name: str) -> State:
    """What `write_state` wrote, bit for bit; tensors are on the CPU.

    Raises:
        RunError: a file is missing or damaged.
    """
    tensors: dict[str, Tensor] = {}
    path = folder / f"{name}.json"
    try:
        tree = json.loads(path.read_text())
        if not isinstance(tree, dict):
            raise ValueError("not a mapping")
        if (folder / f"{name}.safetensors").exists():
            from safetensors.torch import load_file

            path = folder / f"{name}.safetensors"
            tensors = load_file(str(path))
        state = _unpack(tree, tensors)
        if not isinstance(state, dict):
            raise ValueError("not a mapping")
        return state
    except Exception as error:  # of json, safetensors and the system: whatever a damaged file can bring about
        raise RunError(
            f"{path} cannot be read ({type(error).__name__}: {error}). "
            f"Delete the folder {folder} to go on from the checkpoint before it."
        ) from error
