"""The world of the study domain-sampling-transformer: the task `Rules` in words, with answers of one word.

Four domains of unequal size, of one and two inference steps; questions of three steps are another task, to be examined
on. A question has no list of options: which words answer it has to be learned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import ClassVar

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from reckon.errors import InputError
from reckon.tasks import Rules
from reckon.types import Problem, Rng, Split, Verdict

# Domain: its share of the training problems. The sizes are unequal, as in the paper, and say nothing of difficulty.
SHARES: Mapping[str, float] = {"forward_chaining": 0.4, "logic": 0.4, "ordering": 0.1, "kinship": 0.1}
HOPS, FURTHER = (1, 2), (3, 3)  # inference steps of what is trained on, and of what lies beyond it
CONTEXT = 64  # words of a question and its answer
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_SPECIAL = ("<pad>", "<end>", "<unknown>")
_WORD = r"[\w-]+|[^\w\s]"


@dataclass(frozen=True, kw_only=True)
class ShortRules:
    """Questions about made-up theories, answered by one word.

    Args:
        seed: another seed, other problems, from the same partition into splits.
        train: problems to train on, of all domains together, shared out by `SHARES`; with `further` there are none.
        dev: problems of each domain.
        test: problems of each domain to examine on.
        further: True: one inference step more than the others have.
    """

    name: ClassVar[str] = "short_rules"
    seed: int = 0
    train: int = 4000
    dev: int = 40
    test: int = 100
    further: bool = False

    def __post_init__(self) -> None:
        if min(self.train, self.dev, self.test) < 0:
            sizes = f"{self.train}, {self.dev} and {self.test}"
            raise InputError(f"ShortRules: `train`, `dev` and `test` must be 0 or more, not {sizes}.")

    @cached_property
    def _splits(self) -> dict[Split, list[Problem]]:
        made: dict[Split, list[Problem]] = {split: [] for split in SPLITS}
        for domain, share in SHARES.items():
            rules = Rules(
                seed=self.seed,
                domains=(domain,),
                hops=FURTHER if self.further else HOPS,
                train=0 if self.further else round(share * self.train),
                dev=self.dev,
                test=self.test,
            )
            for split, problems in made.items():
                problems += [_short(problem) for problem in rules.problems(split)]
        return made

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, domain by domain."""
        return self._splits[split]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right if it is the word."""
        answer = text.strip()
        right = answer == problem.answer
        return Verdict(outcome=float(right), answer=answer or None, reason="right" if right else "wrong")


def _short(problem: Problem) -> Problem:
    """The question without its list of options."""
    return replace(problem, prompt=problem.prompt_text.partition(" Answer with one of:")[0], columns={})


@lru_cache(maxsize=1)
def make_tokenizer(seed: int, train: int, test: int) -> PreTrainedTokenizerFast:
    """One token for each word and sign that occurs in the problems or answers of a seed, in any split."""
    words = set[str]()
    for further in (False, True):
        task = ShortRules(seed=seed, train=train, test=test, further=further)
        for split in SPLITS:
            for problem in task.problems(split):
                words |= set(re.findall(_WORD, f"{problem.prompt_text} {problem.answer}"))
    known = {word: i for i, word in enumerate([*_SPECIAL, *sorted(words)])}
    pad, end, unknown = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=_core(known), pad_token=pad, eos_token=end, unk_token=unknown, padding_side="right"
    )


def _core(known: Mapping[str, int]) -> Tokenizer:
    core = Tokenizer(models.WordLevel(dict(known), unk_token=_SPECIAL[2]))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(_WORD), behavior="isolated")]
    )
    return core


def make_network(tokenizer: PreTrainedTokenizerFast, width: int, rng: Rng) -> LlamaForCausalLM:
    """A Llama of two layers with random weights, whatever the global random state is."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=width**-0.5,  # the usual 0.02 is for widths in the thousands
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.integer())
        return LlamaForCausalLM(config)
