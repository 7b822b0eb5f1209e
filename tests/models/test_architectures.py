"""Packed groups give what plain forward passes give, for families of models and not for Llama alone."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from reckon.errors import InputError
from reckon.models import LanguageModel, Sampling, tiny
from reckon.types import Problem, Rng

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
FAMILIES = {
    "llama": SMALL | {"num_key_value_heads": 2},
    "mistral": SMALL | {"num_key_value_heads": 2, "sliding_window": 128},
    "qwen2": SMALL | {"num_key_value_heads": 2},
    "qwen3": SMALL | {"num_key_value_heads": 2, "head_dim": 8},
    "gemma2": SMALL | {"num_key_value_heads": 2, "head_dim": 8},  # soft caps on logits, every other layer a window
    "gemma3_text": SMALL | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 128},
    "phi3": SMALL | {"num_key_value_heads": 2, "pad_token_id": 0},
    "gpt_neox": SMALL,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},  # learned absolute positions
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "word_embed_proj_dim": 32,
    },
    "olmo2": SMALL,
    "granite": SMALL | {"logits_scaling": 2.0, "num_key_value_heads": 2},
    "cohere": SMALL | {"num_key_value_heads": 2},
}


def make(family: str, **changes) -> LanguageModel:
    tokenizer = tiny.make_tokenizer()
    settings = FAMILIES[family] | {"vocab_size": len(tokenizer), "max_position_embeddings": 512} | changes
    config = AutoConfig.for_model(family, **settings, eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))  # away from the near-uniform laws of a new model
    return LanguageModel(network, tokenizer, sampling=Sampling(max_new_tokens=8), dtype="float32", device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_scoring_and_plain_passes_agree(family):
    model = make(family)
    rollouts = model.sample([Problem(id="a", prompt="1+1="), Problem(id="b", prompt="a longer one: ")], 3, Rng((0,)))
    seq = rollouts.seq
    scored = model.outputs(seq).logprobs
    torch.testing.assert_close(scored, rollouts.logprobs, rtol=1e-4, atol=1e-4)
    for row in range(6):
        prompt, response = seq.prompts[int(seq.group[row])], seq.tokens[row][seq.mask[row]]
        with torch.no_grad():
            logits = model.network(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, response[:, None]).squeeze(1)
        torch.testing.assert_close(scored[row][seq.mask[row]], expected, rtol=1e-4, atol=1e-4)


def test_eager_attention_takes_the_same_mask():
    model, eager = make("llama"), make("llama")
    eager.network.set_attn_implementation("eager")
    seq = model.sample([Problem(id="a", prompt="1+1=")], 3, Rng((0,))).seq
    torch.testing.assert_close(eager.outputs(seq).logprobs, model.outputs(seq).logprobs, rtol=1e-4, atol=1e-5)


def test_a_window_shorter_than_the_sequence_is_refused():
    model = make("mistral", sliding_window=10)
    with pytest.raises(InputError, match=r"attends to the last 10 tokens.* 12 tokens"):
        model.sample([Problem(id="a", prompt="1+1=")], 1, Rng((0,)))  # 4 + 8 = 12


def test_models_with_a_recurrent_state_are_refused():
    config = AutoConfig.for_model("mamba", vocab_size=99, hidden_size=16, num_hidden_layers=1, state_size=4)
    network = AutoModelForCausalLM.from_config(config)
    with pytest.raises(InputError, match=r"'mamba' model keeps a recurrent state"):
        LanguageModel(network, tiny.make_tokenizer(), device="cpu")


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 1}),
        ("bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 4}),
        ("falcon", {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "alibi": True}),
    ],
)
def test_models_that_find_positions_by_themselves_are_refused(family, settings):
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=99, **settings))
    with pytest.raises(InputError, match=f"'{family}' model cannot be told the positions"):
        LanguageModel(network, tiny.make_tokenizer(), device="cpu")


def test_attention_that_ignores_the_mask_is_refused():
    network = make("llama").network
    network.config._attn_implementation = "flash_attention_2"
    with pytest.raises(InputError, match="'flash_attention_2', which does not take the mask"):
        LanguageModel(network, tiny.make_tokenizer(), device="cpu")
