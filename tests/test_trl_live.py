"""The committed oracle against the TRL that is installed: `pip install -e '.[test,oracles]'` and run this file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def numbers(value: object, path: str = "") -> dict[str, float | None]:
    """Every number of a nested value under its path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in numbers(inner, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, inner in enumerate(value) for k, v in numbers(inner, f"{path}/{i}").items()}
    return {} if isinstance(value, str) else {path: value}


def test_this_trl_gives_the_committed_numbers(tmp_path):
    pytest.importorskip("trl", reason="TRL is not installed (extra `oracles`)")
    names = ("trl.json", "reference.json")
    made = [tmp_path / name for name in names]
    subprocess.run([sys.executable, ROOT / "scripts/make_trl_oracles.py", *made], check=True, timeout=280)
    committed = {name: json.loads((ROOT / "tests/oracles" / name).read_text()) for name in names}
    now = {path.name: json.loads(path.read_text()) for path in made}
    for oracle in (*committed.values(), *now.values()):
        del oracle["versions"]
    expected, found = numbers(committed), numbers(now)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        close = value if value is None else pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True)
        assert found[path] == close, path
