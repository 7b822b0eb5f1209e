import math
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.errors import InputError, RunError
from reckon.runs._states import read_state, write_state

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@st.composite
def tensors(draw):
    """Any bit pattern of any dtype and of 0 to 3 dimensions, some of them not contiguous."""
    dtype = draw(st.sampled_from(DTYPES + FLOATS))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = math.prod(shape) * dtype.itemsize
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if dtype == torch.bool:
        data = bytearray(byte % 2 for byte in data)
    tensor = torch.frombuffer(data, dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
    return tensor.transpose(0, -1) if tensor.ndim > 1 and draw(st.booleans()) else tensor


leaves = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**300), 2**300) | st.floats() | st.text() | tensors()
)
keys = st.text(max_size=4) | st.sampled_from(["$tensor", "$float", "$pairs", "__metadata__", "a.b", "a"])
states = st.dictionaries(
    keys,
    st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(keys | st.integers(), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    max_size=4,
)


def same(left, right):
    """Equal to the last bit, types and order of keys too."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        bits = [x.contiguous().reshape(-1).view(torch.uint8) for x in (left, right)]
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(*bits)
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@given(states)
@settings(max_examples=80, deadline=None)
def test_any_state_comes_back_bit_for_bit(state):
    with TemporaryDirectory() as folder:
        write_state(Path(folder), "part", state)
        assert same(read_state(Path(folder), "part"), state)


@pytest.mark.parametrize(
    "value",
    [
        0.1 + 0.2,
        -0.0,
        5e-324,
        math.inf,
        -math.inf,
        math.nan,
        -math.nan,
        2**63,
        -(2**63) - 1,
        pytest.param(10**5000, id="huge"),
        "\ud800",
        True,
    ],
)
def test_numbers_and_strings_at_the_edges(tmp_path, value):
    write_state(tmp_path, "part", {"x": value})
    assert same(read_state(tmp_path, "part"), {"x": value})


def test_numpy_numbers_become_the_same_python_numbers(tmp_path):
    write_state(tmp_path, "part", {"x": np.float64(0.1)})
    assert same(read_state(tmp_path, "part"), {"x": 0.1})


def test_an_optimizer_goes_on_exactly(tmp_path):
    def steps(weights, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            ((weights - 3) ** 4).sum().backward()
            optimizer.step()

    weights = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=0.1)
    steps(weights, optimizer, 3)
    write_state(tmp_path, "policy", {"weights": weights, "optimizer": optimizer.state_dict()})
    steps(weights, optimizer, 3)

    state = read_state(tmp_path, "policy")
    other = state["weights"].clone().requires_grad_()
    restored = torch.optim.AdamW([other], lr=0.7)
    restored.load_state_dict(state["optimizer"])
    steps(other, restored, 3)
    assert torch.equal(other, weights)
    assert restored.param_groups[0]["betas"] == (0.9, 0.999)  # a tuple still


def test_tied_tensors_are_saved_once_and_tied_again(tmp_path):
    shared = torch.arange(10_000.0)
    write_state(tmp_path, "part", {"embed": shared, "head": shared.view(-1), "other": shared.clone()})
    # Two tensors of 10,000 float32 are 80,000 bytes; three would be 120,000.
    assert 80_000 < (tmp_path / "part.safetensors").stat().st_size < 81_000
    state = read_state(tmp_path, "part")
    assert state["embed"].data_ptr() == state["head"].data_ptr() != state["other"].data_ptr()


def test_views_of_one_storage_are_saved_apart(tmp_path):
    base = torch.arange(6.0)
    state = {"head": base[:4], "tail": base[2:], "every": base[::2], "column": base.reshape(2, 3)[:, 1]}
    write_state(tmp_path, "part", state)
    assert same(read_state(tmp_path, "part"), state)
    assert (tmp_path / "part.safetensors").stat().st_size < 600  # not the whole storage four times over and more


def test_a_parameter_is_saved_without_its_gradient(tmp_path):
    write_state(tmp_path, "part", {"w": torch.nn.Parameter(torch.ones(2))})
    state = read_state(tmp_path, "part")
    assert type(state["w"]) is torch.Tensor
    assert not state["w"].requires_grad


def test_no_tensors_no_safetensors(tmp_path):
    write_state(tmp_path, "part", {"n": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["part.json"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": {1, 2}}}, r"`a\.b` is a set, which cannot be saved"),
        ({"a": [0, np.zeros(2)]}, r"`a\.1` is a ndarray"),
        ({"a": {(1, 2): 3}}, r"`a` has the key \(1, 2\)"),
        ({"a": {True: 3}}, "`a` has the key True"),
        ({"a": torch.eye(2).to_sparse()}, "`a` is a sparse"),
        ({"a": torch.empty(2, device="meta")}, "meta tensor"),
        ({"f": print}, "builtin_function_or_method"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, state, message):
    with pytest.raises(InputError, match=message):
        write_state(tmp_path, "part", state)


@pytest.mark.parametrize("name", ["part.json", "part.safetensors"])
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff" * 100])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    write_state(tmp_path, "part", {"w": torch.ones(2)})
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(RunError, match=rf"{name} .*[Dd]elete the folder"):
        read_state(tmp_path, "part")


def test_a_missing_tensor_file_is_told(tmp_path):
    write_state(tmp_path, "part", {"w": torch.ones(2)})
    (tmp_path / "part.safetensors").unlink()
    with pytest.raises(RunError, match="cannot be read"):
        read_state(tmp_path, "part")


def test_what_is_loaded_can_be_changed_and_the_file_does_not(tmp_path):
    write_state(tmp_path, "part", {"w": torch.ones(5000)})
    read_state(tmp_path, "part")["w"].zero_()
    assert read_state(tmp_path, "part")["w"].sum() == 5000


def test_both_files_are_as_readable_as_each_other(tmp_path):
    write_state(tmp_path, "part", {"w": torch.ones(2)})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
