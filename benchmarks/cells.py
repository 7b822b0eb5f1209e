"""What is measured: the shapes, the two models, the prompts, the lengths, and the operations a step needs at least."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEED = 20261123
# What both sides learn with. The figures do not depend on the values; that they are the same is what matters.
LEARNING = {"lr": 1e-6, "clip": 1.0, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.0}
CUT_VOCABULARY = 16384


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One size of step."""

    name: str
    prompts: int
    answers: int  # to each prompt
    limit: int  # tokens of an answer; of the longest allowed where `ragged`
    prompt: int  # tokens of a prompt
    ragged: bool = False  # answers of unequal length
    repeats: int = 5

    @property
    def title(self) -> str:
        """As the tables print it."""
        tokens = f"{self.limit // 8}-{self.limit}" if self.ragged else str(self.limit)
        return f"{self.prompts} x {self.answers} x {tokens}, prompt {self.prompt}"

    def lengths(self, step: int) -> list[int]:
        """Tokens of each answer of a step: many short, few long, between an eighth of the limit and the limit."""
        rows = self.prompts * self.answers
        if not self.ragged:
            return [self.limit] * rows
        rng = np.random.default_rng((SEED, step))
        least = self.limit // 8
        return [min(self.limit, least + int(extra)) for extra in rng.exponential(self.limit / 5, rows)]


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(name="small", prompts=8, answers=8, limit=64, prompt=64),
        Shape(name="long", prompts=8, answers=8, limit=64, prompt=512, repeats=3),  # the most tokens of all for TRL
        Shape(name="large", prompts=4, answers=16, limit=256, prompt=128, repeats=3),
        Shape(name="ragged", prompts=4, answers=16, limit=256, prompt=128, ragged=True, repeats=3),
        Shape(name="smoke", prompts=2, answers=4, limit=8, prompt=16, ragged=True, repeats=1),  # does it run at all
    )
}
ALL = ("small", "long", "large", "ragged")
MODELS = ("smollm2-135m", "llama-10m")


def saved(shape: Shape) -> dict[str, object]:
    """A shape as JSON."""
    return asdict(shape)


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    import psutil
    import torch

    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    packages = ("torch", "transformers", "trl", "accelerate")
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "waiting": os.environ.get("OMP_WAIT_POLICY", "as OpenMP likes"),
    }


def model_folder(name: str, root: Path) -> Path:
    """A plain Hugging Face folder that both sides load, made once.

    The tokenizers have no chat template, so that every library takes a prompt as it stands. "llama-10m" has SmolLM2's
    architecture with 8 layers of width 256, random weights, and SmolLM2's tokenizer cut to its first 16,384 tokens.
    """
    folder = root / name
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from reckon.models import load_model

    model = load_model("smollm2-135m", device="cpu")
    model.tokenizer.chat_template = None
    if name == "smollm2-135m":
        model.save_pretrained(folder)
        return folder
    torch.manual_seed(SEED)
    old = model.network.config
    config = LlamaConfig(
        vocab_size=CUT_VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=old.max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=old.bos_token_id,
        eos_token_id=old.eos_token_id,
        pad_token_id=old.pad_token_id,
    )
    model.tokenizer.save_pretrained(folder)
    _cut_tokenizer(folder / "tokenizer.json", CUT_VOCABULARY)
    LlamaForCausalLM(config).save_pretrained(folder)  # last: its config.json says that the folder is whole
    return folder


def _cut_tokenizer(path: Path, size: int) -> None:
    """Keeps the first `size` tokens of a byte-pair tokenizer and the merges that make them."""
    whole = json.loads(path.read_text())
    model = whole["model"]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if i < size}
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    model["merges"] = [pair for pair in pairs if "".join(pair) in model["vocab"]]
    path.write_text(json.dumps(whole, ensure_ascii=False))


def prompts(tokenizer: PreTrainedTokenizerBase, shape: Shape, steps: int) -> list[list[str]]:
    """Texts of exactly `shape.prompt` tokens, other ones at every step, so that no cache outlives its step.

    They are made of words that are one token each, with their space before them.
    """
    words = [
        i
        for token, i in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        if i < CUT_VOCABULARY and token.startswith("Ġ") and token[1:].isascii() and token[1:].isalpha()
    ]
    rng = np.random.default_rng((SEED, shape.prompt))
    made = []
    for _ in range(steps):
        texts: list[str] = []
        while len(texts) < shape.prompts:
            ids = rng.choice(words, shape.prompt).tolist()
            text = tokenizer.decode(ids)
            if tokenizer(text)["input_ids"] == ids:
                texts.append(text)
        made.append(texts)
    return made


def operations(config: dict[str, int], shape: Shape, lengths: Sequence[int]) -> tuple[float, float]:
    """The least floating-point operations of sampling and of learning one step, matrix products only.

    Counted: every token but the last of each answer goes through the linear layers once, a prompt once for its whole
    group; attention's two products over what a token may see; the output layer at each place that predicts a sampled
    token, the end of a prompt once a group. Learning needs the same three times: forward, and backward for inputs and
    weights. Not counted: embeddings, norms, softmax, the optimizer.
    """
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, pairs = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or hidden // heads
    linear = layers * (hidden * head * (2 * heads + 2 * pairs) + 3 * hidden * inner)
    fed = [length - 1 for length in lengths]
    computed = shape.prompts * shape.prompt + sum(fed)
    predicted = shape.prompts + sum(fed)
    seen = shape.prompts * _triangle(shape.prompt) + sum(shape.prompt * n + _triangle(n) for n in fed)
    forward = 2.0 * (linear * computed + hidden * config["vocab_size"] * predicted + 2 * layers * heads * head * seen)
    return forward, 3 * forward


def _triangle(n: int) -> int:
    return n * (n + 1) // 2
