"""A language model small enough for tests: Llama-shaped, two layers, one token a character."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

ALPHABET = "\n" + string.printable[:95]
_PAD, _END, _UNKNOWN = "<pad>", "<end>", "<unknown>"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each printable ASCII character and the newline, and an end token. It has no chat template."""
    names = [_PAD, _END, _UNKNOWN, *ALPHABET]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=_UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=_PAD,
        eos_token=_END,
        unk_token=_UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


def make_network(
    *, layers: int = 2, width: int = 96, heads: int = 4, context: int = 256, seed: int = 0
) -> LlamaForCausalLM:
    """A Llama-shaped network with random weights drawn from `seed`, whatever the global random state is."""
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def write(folder: Path) -> None:
    """Saves the model and its tokenizer as any Hugging Face model is saved."""
    logging.disable_progress_bar()  # it is done in a moment
    make_network().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
