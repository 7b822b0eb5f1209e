"""From prompts to tokens and from tokens to text, with the text each token added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reckon.errors import InputError
from reckon.types import Message, Problem

Decode: TypeAlias = Callable[[tuple[int, ...]], str]


def encode(tokenizer: PreTrainedTokenizerBase, problem: Problem, system: str | None) -> Tensor:
    """The tokens of a prompt, ready to be answered ([P] int64).

    With a chat template a string is one user message, and `system` goes before it unless the prompt brings its own.
    Without a template a string is taken as it stands.

    Raises:
        InputError: the prompt is a chat, or a system message is set, and the tokenizer has no chat template, or one
            that refuses it; or the prompt is empty.
    """
    prompt = problem.prompt
    if tokenizer.chat_template is None:
        if not isinstance(prompt, str) or system is not None:
            chat = not isinstance(prompt, str)
            what = "is a chat" if chat else "would follow the system message of `sampling.system`"
            mend = "Give the prompt as plain text" if chat else "Leave `sampling.system` out (null)"
            raise InputError(
                f"the prompt of problem {problem.id!r} {what}, but this model's tokenizer has no chat template. "
                f"{mend}, or choose a chat model."
            )
        ids = tokenizer(prompt)["input_ids"]
    else:
        messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if system is not None and (not messages or messages[0]["role"] != "system"):
            messages = [{"role": "system", "content": system}, *messages]
        try:
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        except TemplateError as error:  # such as: no system message, or roles that do not alternate
            raise InputError(
                f"this model's chat template refuses the prompt of problem {problem.id!r}: {error}. "
                "Change the prompt or `sampling.system`, or choose another model."
            ) from error
    if not ids:
        raise InputError(f"the prompt of problem {problem.id!r} is empty. Drop the row, or write a prompt.")
    return torch.tensor(ids, dtype=torch.int64)


def decoder(tokenizer: PreTrainedTokenizerBase) -> Decode:
    """The text of a few tokens, special ones left out. What it was asked lately it knows, for few follow few."""

    @lru_cache(maxsize=1 << 16)
    def decode(tokens: tuple[int, ...]) -> str:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))

    return decode


def pieces(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], decode: Decode | None = None) -> tuple[str, ...]:
    """The text each token adds; joined they are the whole text. Special tokens add none.

    A character whose bytes are spread over several tokens is added by the last of them. Each token is decoded together
    with the few before it, since many tokenizers treat the first token of a text apart.

    Args:
        tokenizer: whose tokens they are.
        tokens: of one text.
        decode: the tokenizer's `decoder`, for many texts.
    """
    decode = decode or decoder(tokenizer)
    found: list[str] = []
    start = done = 0  # the text of tokens[start:done] has been given out
    for i in range(1, len(tokens) + 1):
        before, now = decode(tuple(tokens[start:done])), decode(tuple(tokens[start:i]))
        if now.endswith("\ufffd") and i < len(tokens):
            found.append("")  # half a character: wait for the rest
            continue
        found.append(now[len(before) :])
        start, done = done, i
    return tuple(found)
