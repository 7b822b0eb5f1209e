"""Packed groups give what plain forward passes give, for families of models and not for Llama alone."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from reckon.models import LanguageModel, Sampling, tiny
from reckon.types import End, Problem, Rng

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
                parameter.add_(0.3 * torch.randn_like(parameter))  # away from the near-uniform laws of a new model
    model = LanguageModel(network, tokenizer, sampling=Sampling(max_new_tokens=8), dtype="float32", device="cpu")
    assert model._packs  # the plain path would compare plain passes with themselves
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_scoring_and_plain_passes_agree(family):
    model = make(family)
    rollouts = model.sample([Problem(id="a", prompt="1+1="), Problem(id="b", prompt="a longer one: ")], 3, Rng((0,)))
    seq = rollouts.seq
    scored = model.outputs(seq).logprobs
    torch.testing.assert_close(scored, rollouts.logprobs, rtol=1e-4, atol=1e-4)
    for row in range(6):
        expected = plain_logprobs(model, seq, row)
        torch.testing.assert_close(scored[row][seq.mask[row]], expected, rtol=1e-4, atol=1e-4)


def test_eager_attention_takes_the_same_mask():
    model, eager = make("llama"), make("llama")
    eager.network.set_attn_implementation("eager")
    seq = model.sample([Problem(id="a", prompt="1+1=")], 3, Rng((0,))).seq
    torch.testing.assert_close(eager.outputs(seq).logprobs, model.outputs(seq).logprobs, rtol=1e-4, atol=1e-5)


FALLING_BACK = {
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},  # a recurrent state
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},  # ALiBi: positions cannot be told
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
}


def make_plain(family, caplog) -> LanguageModel:
    tokenizer = tiny.make_tokenizer()
    settings = FALLING_BACK[family] | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    with caplog.at_level(logging.WARNING, logger="reckon"):
        model = LanguageModel(network, tokenizer, sampling=Sampling(max_new_tokens=8), dtype="float32", device="cpu")
    told = [record.getMessage() for record in caplog.records if record.name.startswith("reckon")]
    assert len(told) == 1
    assert told[0].startswith(f"{family}: answers cannot share their prompt")
    return model


@pytest.mark.parametrize("family", FALLING_BACK)
def test_networks_that_cannot_share_a_prompt_take_the_plain_path(family, caplog):
    model = make_plain(family, caplog)
    problems = [Problem(id="a", prompt="1+1="), Problem(id="b", prompt="a longer one: ")]
    rollouts = model.sample(problems, 3, Rng((0,)), limits=[8, 3, 8, 8, 8, 1])
    seq = rollouts.seq
    assert seq.mask.sum(dim=1).tolist()[1::4] == [3, 1] or (rollouts.end != End.LENGTH).any()
    torch.testing.assert_close(model.outputs(seq).logprobs, rollouts.logprobs, rtol=1e-4, atol=1e-4)
    for row in range(6):
        expected = plain_logprobs(model, seq, row)
        torch.testing.assert_close(rollouts.logprobs[row][seq.mask[row]], expected, rtol=1e-4, atol=1e-4)


def test_the_plain_path_draws_from_the_network_and_not_from_its_generation_config(caplog):
    model, problems = make_plain("bloom", caplog), [Problem(id="a", prompt="1+1=1+1="), Problem(id="b", prompt="aa")]
    expected = model.sample(problems, 3, Rng((0,)))
    model.network.generation_config.update(repetition_penalty=9.0, no_repeat_ngram_size=1, num_beams=2)
    found = model.sample(problems, 3, Rng((0,)))
    assert torch.equal(found.seq.tokens, expected.seq.tokens)
    torch.testing.assert_close(found.logprobs, expected.logprobs)
    assert model.network.generation_config.repetition_penalty == 9.0


@pytest.mark.parametrize("family", FALLING_BACK)
def test_the_plain_path_learns_and_does_not_depend_on_how_it_is_cut(family, caplog):
    model = make_plain(family, caplog)
    seq = model.sample([Problem(id="a", prompt="1+1="), Problem(id="b", prompt="longer: ")], 2, Rng((0,))).seq
    columns = {"scale": seq.mask / seq.mask.sum()}
    found = []
    for budget in (1, 40, 4096):
        caplog.clear()
        fresh = make_plain(family, caplog)
        fresh.tokens_per_batch = budget
        found.append(
            fresh.step(
                seq, columns, lambda out, c: -(out.logprobs - 0.1 * out.entropy) * c["scale"], ("logprobs", "entropy")
            )
        )
    assert found[0]["policy/grad_norm"] > 0.01
    for other in found[1:]:
        assert other["policy/grad_norm"] == pytest.approx(found[0]["policy/grad_norm"], rel=1e-4)
        assert other["policy/loss"] == pytest.approx(found[0]["policy/loss"], rel=1e-5)


def plain_logprobs(model, seq, row):
    prompt, response = seq.prompts[int(seq.group[row])], seq.tokens[row][seq.mask[row]]
    with torch.no_grad():
        logits = model.network(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, response[:, None]).squeeze(1)


def test_an_attention_of_its_own_does_not_matter_to_packed_passes():
    model, other = make("llama"), make("llama")
    network = other.network
    network.config._attn_implementation = "flash_attention_2"
    other = LanguageModel(network, other.tokenizer, sampling=model.sampling, dtype="float32", device="cpu")
    seq = model.sample([Problem(id="a", prompt="1+1=")], 3, Rng((0,))).seq
    torch.testing.assert_close(other.outputs(seq).logprobs, model.outputs(seq).logprobs)
