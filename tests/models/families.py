"""Tiny networks of the shapes that models come in, with laws far from uniform, and what they compute plainly."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reckon.models import LanguageModel, Sampling, tiny
from reckon.types import Sequences

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_GROUPED = _SMALL | {"num_key_value_heads": 2}
FAMILIES = {
    "llama": ("llama", _GROUPED),  # grouped-query, untied
    "llama-multihead-tied": ("llama", _SMALL | {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", _GROUPED),  # biases in the projections
    "qwen3": ("qwen3", _GROUPED | {"head_dim": 16}),  # norms of queries and keys, heads wider than the model
    "gemma2": ("gemma2", _GROUPED | {"head_dim": 8}),  # tied; soft caps on scores and logits
    "gemma3": ("gemma3_text", _GROUPED | {"head_dim": 8}),  # tied; a rotary base for each kind of layer
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),  # tied; learned positions, multi-head
}
_WINDOW = 10
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": _WINDOW}
WINDOWED = {
    "mistral": ("mistral", _GROUPED | {"sliding_window": _WINDOW}),
    "gemma2": ("gemma2", _GROUPED | {"head_dim": 8} | _MIXED),
    "gemma3": ("gemma3_text", _GROUPED | {"head_dim": 8} | _MIXED),
    "qwen2": ("qwen2", _GROUPED | {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": _WINDOW}),
}


def network(name: str, *, windowed: bool = False, seed: int = 0, **changes) -> PreTrainedModel:
    """A float32 network whose attention and next-token laws are peaked, so that a wrong mask or position shows."""
    family, settings = (WINDOWED if windowed else FAMILIES)[name]
    tokenizer = tiny.make_tokenizer()
    common = {"vocab_size": len(tokenizer), "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": None}
    config = AutoConfig.for_model(family, **common | settings | changes, eos_token_id=tokenizer.eos_token_id)
    made = AutoModelForCausalLM.from_config(config).eval()
    # Tied embeddings are small, or a token would mostly predict itself; all the more where they are scaled up.
    embedding = 2.0 if not made.config.tie_word_embeddings else 0.16 if family.startswith("gemma") else 0.4
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for where, parameter in made.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.2 * noise)  # norms and biases, around what they start from
            else:
                parameter.copy_(0.25 * noise)
            if made.config.tie_word_embeddings and where.endswith(("model.norm.weight", "ln_f.weight")):
                parameter.add_(2 / embedding)
        made.get_output_embeddings().weight.mul_(embedding)
    return made


def model(name: str, *, windowed: bool = False, seed: int = 0, **settings) -> LanguageModel:
    settings.setdefault("sampling", Sampling(max_new_tokens=12))
    settings.setdefault("dtype", "float32")
    made = LanguageModel(network(name, windowed=windowed, seed=seed), tiny.make_tokenizer(), device="cpu", **settings)
    assert made._packs  # or all of this would be compared with itself
    return made


def plain_laws(model: LanguageModel, seq: Sequences, row: int) -> tuple[Tensor, Tensor, Tensor]:
    """One response by itself behind its prompt, by the network's own forward pass in its own attention.

    Returns:
        log-probs [n] of its n tokens (given ones included), the log laws [n, V] they come from, and the last hidden
        states [1 + n, D] from the prompt's last token on.
    """
    prompt = seq.prompts[int(seq.group[row])]
    length = int(seq.mask[row].nonzero().max()) + 1
    response = seq.tokens[row, :length]
    out = model.network(input_ids=torch.cat([prompt, response])[None], output_hidden_states=True)
    laws = (out.logits[0, len(prompt) - 1 : -1].float() / model.sampling.temperature).log_softmax(1)
    return laws.gather(1, response[:, None])[:, 0], laws, out.hidden_states[-1][0, len(prompt) - 1 :]


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return out
