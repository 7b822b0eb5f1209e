"""What the judges that read a model share: heads, tokens and steps, checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import TYPE_CHECKING, Protocol

import torch

from reckon.errors import InputError
from reckon.rewards._classifier import TooLong, context_of, fitted_tokens
from reckon.steps import Splitter, Steps, split_rollouts
from reckon.types import Batch, Outputs, Sequences, Want

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from reckon.models import LanguageModel


class Scorer(Protocol):
    """What a judge reads: a model, a frozen reference, or a calibrated model."""

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """What it says about `seq`, without gradients."""
        ...


@dataclass(frozen=True)
class Calibrated:
    """A model whose head is read as logit / temperature + bias, so that its sigmoid is a probability again.

    For a head that was trained on weighted rows: a judge that takes differences of probabilities, or best-of-K of them,
    is wrong by more than a level otherwise. `reckon.fit.recalibrate` finds both numbers.
    """

    model: Scorer
    temperature: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        check_head("calibrated", self.model)
        if not (self.temperature > 0 and math.isfinite(self.temperature) and math.isfinite(self.bias)):
            raise InputError(
                f"calibrated: `temperature` is {self.temperature} and `bias` {self.bias}; both must be finite, and the "
                "temperature above 0."
            )

    @property
    def tokenizer(self) -> object:
        """The model's own."""
        return getattr(self.model, "tokenizer", None)

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """The model's, with values and scores calibrated."""
        found = self.model.outputs(seq, want)
        return replace(found, values=self._read(found.values), scores=self._read(found.scores))

    def _read(self, logits: Tensor | None) -> Tensor | None:
        return None if logits is None else logits / self.temperature + self.bias


def check_head(kind: str, model: Scorer) -> None:
    """Raises InputError for a model that has no value head to read a score with."""
    if getattr(model, "head", model) is None:
        raise InputError(
            f"{kind}: its model has no value head, so it has no scores. Load it with value_head=True, or fit one."
        )


def check_splitter(kind: str, splitter: Splitter) -> None:
    """Raises InputError for what cannot be called to split a text."""
    if not callable(splitter):
        raise InputError(
            f"{kind}: `splitter` is of type {type(splitter).__name__}; it must be a function from a text to where its "
            "steps end, such as reckon.steps.Pattern()."
        )


def check_tokens(kind: str, model: Scorer, batch: Batch) -> None:
    """Raises InputError where the batch's tokens are not those of the model's tokenizer.

    A judge reads the very tokens the policy wrote. Under another tokenizer they are other words, and its scores noise
    that looks like scores. Every response has to read the same in both: many vocabularies agree on digits, so that one
    that does proves nothing.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return
    tokens = batch.seq.tokens.tolist()
    for row, text in enumerate(batch.rollouts.text):
        if text and not _reads(tokenizer, tokens[row][: len(batch.rollouts.pieces[row])], text):
            raise InputError(
                f"{kind}: the responses are in the tokens of another tokenizer than the judge's. Take a judge that was "
                "fitted from the policy's own model, or one that reads text (SequenceClassifier, ReferenceBased)."
            )


def _reads(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], text: str) -> bool:
    """Whether the tokens are this text, but for half a character at its end."""
    known = text.rstrip("\ufffd")
    if str(tokenizer.decode(tokens, skip_special_tokens=True)).rstrip("\ufffd") == known:
        return True
    # One that does not know every character, or tidies spaces, gives another text back than it was given.
    own = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return bool(own) and list(tokens[: len(own)]) == own


def last_tokens(mask: Tensor) -> Tensor:
    """[N] int64 of a mask [N, T]: where its last True stands; 0 where there is none."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).amax(dim=1)


def steps_of(batch: Batch, splitter: Splitter) -> Steps:
    """The steps of a batch, where a response without text is one step: its end token is a decision too.

    Raises:
        InputError: the splitter gave offsets that cannot be.
    """
    steps = split_rollouts(batch.rollouts, splitter)
    mask = batch.seq.mask
    lone = (steps.count == 0) & mask.any(dim=1)
    if not lone.any():
        return steps
    last = last_tokens(mask).tolist()
    ends = tuple((last[row],) if alone else steps.ends[row] for row, alone in enumerate(lone.tolist()))
    index = torch.where(lone[:, None] & mask, 0, steps.index)
    return replace(steps, ends=ends, index=index, count=torch.where(lone, 1, steps.count))


def text_logits(
    kind: str,
    model: LanguageModel,
    texts: Sequence[str],
    names: Sequence[str],
    group: Sequence[int],
    too_long: TooLong,
) -> Tensor:
    """The value head's score at the last token of whole texts, no template put around them.

    Args:
        kind: begins the message of an error.
        model: a language model with a value head.
        texts: n texts.
        names: n names for errors.
        group: n numbers, ascending; texts of a group begin alike, and what they share is computed once.
        too_long: what becomes of a text longer than the model's context.

    Returns:
        [n] float32 on the CPU, NaN where a text is too long and that is to be unknown.

    Raises:
        InputError: a text is too long, and that is an error.
    """
    rows = text_tokens(kind, model, texts, names, too_long)
    known = [i for i, row in enumerate(rows) if row is not None]
    found = torch.full((len(texts),), torch.nan)
    if known:
        seq = sequences_of([rows[i] or [] for i in known], [group[i] for i in known], model.device)
        scores = model.outputs(seq, ("scores",)).scores
        assert scores is not None
        found[torch.tensor(known)] = scores.gather(1, last_tokens(seq.mask)[:, None])[:, 0].cpu()
    return found


def text_tokens(
    kind: str, model: LanguageModel, texts: Sequence[str], names: Sequence[str], too_long: TooLong
) -> list[list[int] | None]:
    """Whole texts as the tokens they are read in, None where one is too long and that is to be unknown.

    Raises:
        InputError: a text is too long, and that is an error.
    """
    limit = context_of(model.network, model.tokenizer)
    return [
        fitted_tokens(kind, list(model.tokenizer(text)["input_ids"]), limit, too_long, name)
        for text, name in zip(texts, names, strict=True)
    ]


def sequences_of(rows: Sequence[Sequence[int]], group: Sequence[int], device: torch.device | str) -> Sequences:
    """Whole texts in tokens as responses, where what a group's texts begin with is their prompt.

    Args:
        rows: n texts of two tokens or more.
        group: n numbers, ascending.
        device: where the tensors go.

    Raises:
        ValueError: a text has fewer tokens.
    """
    if min(len(row) for row in rows) < 2:
        raise ValueError("a text of fewer than two tokens has none to be a prompt and none to be read at")
    cuts: list[tuple[int, int, int]] = []  # of each prompt: its first row, the row behind its last, its length
    for _, members in groupby(range(len(rows)), key=lambda row: group[row]):
        places = list(members)
        texts = [rows[place] for place in places]
        shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False)))
        shared = min(shared, min(len(text) for text in texts) - 1)  # each text keeps a token to be read at
        if shared:
            cuts.append((places[0], places[-1] + 1, shared))
        else:
            cuts += [(place, place + 1, len(rows[place]) - 1) for place in places]
    rest = [rows[row][shared:] for first, behind, shared in cuts for row in range(first, behind)]
    place = [number for number, (first, behind, _) in enumerate(cuts) for _ in range(first, behind)]
    width = max(len(row) for row in rest)
    lengths = torch.tensor([len(row) for row in rest])
    return Sequences(
        prompts=tuple(torch.tensor(list(rows[first][:shared]), device=device) for first, _, shared in cuts),
        group=torch.tensor(place, device=device),
        tokens=torch.tensor([[*row, *[0] * (width - len(row))] for row in rest], device=device),
        mask=(torch.arange(width) < lengths[:, None]).to(device),
    )
