"""Opening a language model from a folder, the Hugging Face hub or a built-in name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from reckon.errors import InputError, MissingError
from reckon.models import _store
from reckon.models._settings import Dtype

if TYPE_CHECKING:
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def find_device(name: str = "auto", key: str = "model.device") -> torch.device:
    """The device named, or the fastest there is: CUDA, then MPS, then CPU. `key`: the setting, for the message.

    Raises:
        InputError: there is no such device here.
    """
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:  # no such name, no such hardware, not compiled for it
            raise InputError(
                f"`{key}` is {name!r}, which cannot be used here ({str(error).splitlines()[0][:120]}). "
                "Take auto, cpu, cuda, cuda:1 or mps."
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are native here; emulated ones are slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        flags = Path("/proc/cpuinfo")
        text = flags.read_text() if flags.exists() else ""
        return "avx512_bf16" in text or "amx_bf16" in text or " bf16" in text
    return False


def compute_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """What matrix products are computed in. The weights themselves stay float32.

    Raises:
        InputError: it is none of these three.
    """
    if dtype not in get_args(Dtype):
        raise InputError(f"`model.dtype` is {dtype!r}; it must be one of {', '.join(get_args(Dtype))}.")
    if dtype == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def open_network(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The network in float32 and its tokenizer.

    Args:
        name: a built-in name (`reckon models`), a folder that holds a model, or a hub id such as "org/model".

    Raises:
        MissingError: there is no such folder, name or hub repository, or no network to reach the hub.
        InputError: the folder holds no safetensors weights, not all of them, or only pickled ones, which are never
            opened; it is no decoder, or its tokenizer has no end token.
    """
    if name in _store.BUILT_IN:
        name = str(_store.fetch(name))
    elif not _may_be_there(name):
        raise MissingError(
            f"there is no model {name!r}: it is no folder here, and none of the built-in models "
            f"({', '.join(sorted(_store.BUILT_IN))}). Give one of these, a folder, or a hub id such as 'org/name'."
        )
    network, tokenizer = open_pretrained(name, AutoModelForCausalLM, "a causal language model")
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {name!r} has no end token, so no response could ever end. Set one.")
    return network, tokenizer


def open_pretrained(
    name: str, reader: type[_BaseAutoModelClass], what: str, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A network of a folder or the hub, and its tokenizer; safetensors only, and no code of the model's own.

    Args:
        name: a folder that holds a model, or a hub id such as "org/model".
        reader: the class of transformers that reads it, such as AutoModelForCausalLM.
        what: what it must have been saved as, for the message.
        dtype: of its weights.

    Raises:
        MissingError: there is no such folder or hub repository, or no network to reach the hub.
        InputError: no safetensors weights, not all of them, or an encoder-decoder model.
    """
    if not _may_be_there(name):
        raise MissingError(f"there is no model {name!r}. Give a folder, or a hub id such as 'org/name'.")
    folder = Path(name).expanduser()
    if folder.exists():
        _check_folder(folder)
    source = str(folder) if folder.exists() else name
    logging.disable_progress_bar()  # a second or two, and the caller may want its standard error to itself
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if config.is_encoder_decoder:
            raise InputError(f"{name!r} is an encoder-decoder model; reckon reads decoders and encoders alone.")
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        network, found = reader.from_pretrained(
            source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = " ".join(str(error).split())[:400] or type(error).__name__
        where = f"the folder {source}" if folder.exists() else f"{name!r} from the Hugging Face hub"
        remedy = "" if folder.exists() else " Check the name and the network; a model already fetched opens offline."
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") and not folder.exists() else ""
        raise MissingError(f"the model could not be opened from {where}{offline}: {first}{remedy}") from error
    if missing := sorted(found["missing_keys"]):  # they were drawn at random, and the model would be nobody's
        raise InputError(
            f"the weights of {name!r} lack {missing[0]!r}"
            + (f" and {len(missing) - 1} more. " if len(missing) > 1 else ". ")
            + f"Was the model saved completely, and as {what}?"
        )
    return network, tokenizer


def _may_be_there(name: str) -> bool:
    """Whether it is a folder, or reads as a hub id."""
    if Path(name).expanduser().exists():
        return True
    return not name.startswith((".", "/", "~")) and name.count("/") == 1


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise InputError(f"the folder {folder} has no config.json, so it is not a model. Name the folder that has one.")
    if any(folder.glob("*.safetensors")):
        return
    if any(found for pattern in _PICKLED for found in folder.glob(pattern)):
        raise InputError(
            f"the weights in {folder} are pickled, and opening a pickle can run anybody's code. "
            "Convert them to safetensors where you trust them (`model.save_pretrained(..., safe_serialization=True)`)."
        )
    raise InputError(f"the folder {folder} has no weights (*.safetensors). Was the model saved completely?")
