"""Layers made ready for sampling multiply as they always do, and are themselves again afterwards."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from reckon.models import _network


def outputs_of(layers, x):
    return [layer(x[:, : layer.in_features]) for layer in layers]


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("onednn", [True, False])
def test_a_ready_layer_multiplies_as_a_plain_one(make, rows, onednn, monkeypatch):
    if not onednn:
        monkeypatch.setattr(_network, "_laid_out", lambda weight, rows: None)
    network = make().network
    linear = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = outputs_of(linear, x)
        with _network.ready(network, torch.float32, rows):
            ready = outputs_of(linear, x)
            assert all("forward" in layer.__dict__ for layer in linear)
    for a, b in zip(plain, ready, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert not any("forward" in layer.__dict__ for layer in linear)


def test_a_ready_layer_rounds_its_weight_and_adds_its_bias():
    torch.manual_seed(0)
    layer = torch.nn.Linear(32, 48)
    network = torch.nn.Sequential(layer)
    x = torch.randn(5, 32)
    with torch.no_grad(), _network.ready(network, torch.bfloat16, 5):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    exact = functional.linear(x.bfloat16().double(), layer.weight.bfloat16().double(), layer.bias.bfloat16().double())
    torch.testing.assert_close(found.double(), exact, rtol=2**-7, atol=2**-7)  # one rounding to 8 bits, and its sum's


def test_layers_are_themselves_again_after_an_error(make):
    network = make().network
    with pytest.raises(KeyError), _network.ready(network, torch.float32, 4):
        raise KeyError
    assert not any("forward" in module.__dict__ for module in network.modules())


@pytest.mark.parametrize(
    ("variable", "chosen"), [(None, False), ("LD_PRELOAD", True), ("MALLOC_TRIM_THRESHOLD_", True)]
)
def test_freed_memory_is_kept_unless_somebody_has_chosen(variable, chosen):
    """Blocks of 64 MiB taken, written and freed in turn: once the heap has grown, the system gives no more pages."""
    code = """
import resource, torch
from reckon.models._memory import keep_freed_memory
kept = keep_freed_memory()
for _ in range(8):
    torch.empty(2**24).fill_(1.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.empty(2**24).fill_(1.0)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment = {name: v for name, v in environment.items() if name not in ("LD_PRELOAD", "GLIBC_TUNABLES")}
    if variable is not None:
        environment[variable] = "" if variable == "LD_PRELOAD" else "131072"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    kept, faults = map(int, done.stdout.split())
    if chosen:
        assert not kept
    elif kept:  # where the library is glibc
        assert faults < 1000  # without, 8 times the 16,384 pages of a block
