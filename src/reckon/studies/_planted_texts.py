"""The planted sequence as text, for language models: a letter a token, and a verifier that reads as the policy does.

`dgadf` has to stand among ten letters from a to n before the end token. It is the world of `_planted`, whose exact
tables hold here too: token t is the letter at t, and token 14 the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from reckon.evaluate import spearman
from reckon.fit import Example, Plan, Prefix, PrefixValues, fit, measure
from reckon.models import LanguageModel, Optimization, load_model
from reckon.studies._language_model import COMPUTING, Lesson, Start, teach
from reckon.studies._planted import (
    END,
    FOUND,
    LENGTH,
    NEXT,
    TARGET,
    Planted,
    prover,
    q_and_v,
    sample,
    states,
    table_law,
)
from reckon.studies._planted_verifier import GAMMA
from reckon.studies._short_rules import make_network
from reckon.types import Batch, Problem, Rng, Rollouts, Sequences, Split, Stream, Verdict

if TYPE_CHECKING:
    from reckon.steps import Steps

LETTERS = "abcdefghijklmn"
STEP = "[a-n]"  # a letter is a step
WORD = "".join(LETTERS[token] for token in TARGET)
OTHER = 1  # stands for what is no letter: it spells nothing
PROMPT = "?"
WIDTH = 64
BATCH, LOOK = 128, 50  # prefixes to a step; steps between two looks
HELD, LOOKED = 5, 512  # every fifth trace is held back; as many of its prefixes are looked at, at most
PROBED = 64  # responses of a policy on which credit is compared


@dataclass(frozen=True, kw_only=True)
class PlantedText:
    """One problem: write the word, among up to ten letters."""

    name: ClassVar[str] = "planted_text"

    def problems(self, split: Split) -> Sequence[Problem]:
        """The same in every split: there is nothing to generalize to."""
        return [Problem(id=f"{split}-0", prompt=PROMPT, answer=WORD)]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right if the word is in the text."""
        found = WORD in text
        return Verdict(outcome=float(found), answer=WORD if found else None, reason="right" if found else "wrong")


def text_of(tokens: Sequence[int]) -> str:
    """The letters of tokens, the end left out."""
    return "".join(LETTERS[token] for token in tokens if token != END)


def make_start(seed: int, imitated: int, base: float) -> Start:
    """Imitates so many responses of mu_base, which is right 0.00015 of the time for 2, and 0.0054 for 5."""
    rng = Rng((seed, "process-advantage-verifiers-transformer"))
    drawn = sample(table_law(prover(base)), Planted().problems("train"), imitated, rng.child("examples"))
    rows = [row[:size] for row, size in zip(drawn.seq.tokens.tolist(), drawn.seq.mask.sum(dim=1).tolist(), strict=True)]
    tokenizer = make_tokenizer()
    lesson = Lesson(
        problems=list(PlantedText().problems("train")) * len(rows),
        texts=[text_of(row) for row in rows],
        ended=[row[-1] == END for row in rows],
    )
    network = make_network(tokenizer, WIDTH, rng.child("weights"))
    return teach([lesson], rng, max_new_tokens=LENGTH, network=network, tokenizer=tokenizer)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each letter, the end and the prompt, which also stands for what is none of them.

    With the characters that models usually have, an entropy bonus would teach these: to be uniform over a hundred
    tokens is to write hardly any letter.
    """
    end = "<end>"
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate([end, PROMPT, *LETTERS])}, unk_token=PROMPT))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    # Not told of the unknown token, which would leave the prompt out of texts: dg?adf is not dgadf.
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=end, eos_token=end)


def exact_values(rollouts: Rollouts, steps: Steps) -> Tensor:
    """[N, H + 1] float64: the exact chances of mu_10, before the first token and after each: all tokens are steps.

    After an end token it is the verdict.
    """
    _, v = q_and_v(prover(GAMMA))
    found = torch.zeros(len(rollouts.text), int(steps.count.max()) + 1, dtype=torch.float64)
    found[:, 0] = v[0, 0]
    for row, pieces in enumerate(rollouts.pieces):
        k = 0
        for t, piece in enumerate(pieces):
            if piece:
                k = int(NEXT[k, LETTERS.index(piece) if piece in LETTERS else OTHER])
            found[row, t + 1] = 1.0 if k == FOUND else v[t + 1, k] if piece else 0.0
    return found


def fit_verifier(start: Start, traces: Sequence[Sequence[Prefix]], steps: int, rng: Rng, lr: float) -> LanguageModel:
    """A verifier that begins as the policy with a new head and learns labels, kept as it was at its best look.

    Args:
        start: the policy.
        traces: the labels of each trace; every fifth is held back and looked at.
        steps: of learning.
        rng: names the order.
        lr: of all weights.
    """
    problem = PlantedText().problems("train")[0]
    rows = [[Prefix(problem=problem, text=text_of(p.tokens or ()), q=p.q) for p in trace] for trace in traces]
    held = [row for i, trace in enumerate(rows) if (i + 1) % HELD == 0 for row in trace][:LOOKED]
    shown = [row for i, trace in enumerate(rows) if (i + 1) % HELD for row in trace]
    model = start.open(Optimization(lr=lr, warmup=20), value_head=True)
    places = list[int]()
    while len(places) < steps * BATCH:
        places += rng.child("order", len(places)).numpy().permutation(len(shown)).tolist()
    best, kept = float("inf"), model.state_dict()
    for first in range(0, steps, LOOK):
        part = places[first * BATCH : min(first + LOOK, steps) * BATCH]
        if not fit(model, shown, PrefixValues(), Plan(batch=BATCH, show="nothing"), order=_given(part)):
            raise KeyboardInterrupt  # `fit` stops in good order; half a verifier must not pass for one
        loss = measure(model, held, PrefixValues())["dev/loss"]
        if loss < best:
            best, kept = loss, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return model


def _given(places: Sequence[int]) -> Callable[[Sequence[Example], Rng], Sequence[int]]:
    return lambda _rows, _rng: places


class Reads:
    """A verifier as it is asked by tokens of the planted sequence."""

    def __init__(self, model: LanguageModel) -> None:
        """Takes the model with its head."""
        self._model = model

    def values(self, tokens: Tensor) -> Tensor:
        """[n, T + 1] float32: the chance of success before the first of n x T tokens, and after each."""
        model = self._model
        ids = _ids(model)
        rows = [[ids[token] for token in row] for row in tokens.tolist()]
        seq = model.arrange(PlantedText().problems("train"), rows, [0] * len(rows))
        found = model.outputs(seq, ("values", "scores"))
        assert found.values is not None
        assert found.scores is not None
        return torch.cat([found.values[:, :1], found.scores], dim=1).sigmoid()


@dataclass(frozen=True)
class Progress:
    """What each token did to a prover's chance, less what the policy could expect of its token there: a reward.

    Held against the prover's own value a step has no mean of 0 under the policy. Which tokens that leaves alone is the
    same, but for its noise.
    """

    policy: LanguageModel
    folder: str | None = None  # of a verifier that has learned the chances; None = the exact ones
    gamma: float = GAMMA  # of the prover whose exact chances these are

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T] of kind "advantage". Pure."""
        return {"progress": Stream(values=self.credit(batch.seq), kind="advantage")}

    def credit(self, seq: Sequences) -> Tensor:
        """[N, T] float32, 0 where the mask is False."""
        tokens = planted_tokens(self.policy, seq)
        with torch.no_grad():
            verifier = self._verifier
            worth = exact_worth(tokens, self.gamma) if verifier is None else learned_worth(verifier, seq, tokens)
            prompts = _prompts(seq)
            logits = self.policy.network(input_ids=torch.cat([prompts, seq.tokens], dim=1), use_cache=False).logits
        law = logits[:, prompts.shape[1] - 1 : -1].softmax(dim=2)[:, :, _ids(self.policy)]
        expected = (law * worth).sum(dim=2) / law.sum(dim=2)
        values = worth.gather(2, tokens[:, :, None])[:, :, 0] - expected
        return torch.where(seq.mask, values, 0.0)

    @cached_property
    def _verifier(self) -> LanguageModel | None:
        return None if self.folder is None else load_model(self.folder, value_head=True, **COMPUTING)


def agreement(policy: LanguageModel, folder: str, gamma: float, rng: Rng) -> float:
    """Rank correlation of a verifier's credit with the exact one, on tokens that a policy writes before it is right."""
    seq = policy.sample(PlantedText().problems("test"), PROBED, rng).seq
    learned, exact = (Progress(policy, who, gamma).credit(seq) for who in (folder, None))
    undecided = seq.mask & (states(planted_tokens(policy, seq))[:, :-1] != FOUND)
    return spearman(learned[undecided].double().numpy(), exact[undecided].double().numpy())


def planted_tokens(model: LanguageModel, seq: Sequences) -> Tensor:
    """[N, T] int64: the tokens from 0 to 14 of responses in the model's own."""
    tokens = torch.full_like(seq.tokens, OTHER)
    for token, number in enumerate(_ids(model)):
        tokens[seq.tokens == number] = token
    return tokens


def _ids(model: LanguageModel) -> list[int]:
    """What the model calls the tokens 0 to 14."""
    return [*model.response_tokens(LETTERS, ended=False), model.tokenizer.eos_token_id]


def _prompts(seq: Sequences) -> Tensor:
    """[N, P] int64: the one prompt, for each response."""
    return torch.stack([seq.prompts[group] for group in seq.group.tolist()])


def exact_worth(tokens: Tensor, gamma: float) -> Tensor:
    """[N, T, 15] float32: the chance of mu_gamma after each token in the place of one of tokens [N, T]."""
    k = states(tokens)[:, :-1]
    return q_and_v(prover(gamma))[0][torch.arange(k.shape[1]), k].float()


def learned_worth(verifier: LanguageModel, seq: Sequences, tokens: Tensor) -> Tensor:
    """The same as a verifier has it, but for tokens that end a response: these are checked.

    All letters in all places are read in one pass. Behind a response stand fourteen letters for each of its places,
    each of which sees the prompt, what the response has before that place, and itself.

    Args:
        verifier: with its head.
        seq: the responses, N of at most T tokens.
        tokens: [N, T] int64, theirs from 0 to 14.
    """
    k = states(tokens)[:, :-1]
    worth = (NEXT[k] == FOUND).float()
    worth[:, :, END] = (k == FOUND).float()
    places = min(tokens.shape[1], LENGTH - 1)  # the tenth token ends the response
    begun = torch.cat([_prompts(seq), seq.tokens[:, : places - 1]], dim=1)
    n, before = begun.shape
    place = torch.arange(before - places + 1, before + 1).repeat_interleave(END)
    every = torch.tensor(_ids(verifier)[:END]).repeat(places)
    at = torch.arange(before + len(every))
    sees = (at <= at[:, None]) & (at < before)
    sees[before:, :before] = at[:before] < place[:, None]
    sees |= torch.eye(len(at), dtype=torch.bool)
    with torch.no_grad():
        hidden = verifier.network.base_model(
            input_ids=torch.cat([begun, every.expand(n, -1)], dim=1),
            position_ids=torch.cat([at[:before], place])[None],
            attention_mask=torch.where(sees, 0.0, -torch.inf)[None, None],
            use_cache=False,
        )[0]
        assert verifier.head is not None
        worth[:, :places, :END] = verifier.head(hidden[:, before:])[:, :, 0].sigmoid().reshape(n, places, END)
    return worth
