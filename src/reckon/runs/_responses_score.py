"""New columns for responses: lets judges score them, and counts what that took."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import numpy as np

from reckon.errors import InputError, RunError
from reckon.runs._responses import Responses, Signal
from reckon.types import Batch, End, Kind, Problem, Reward, Rollouts, Sequences

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 64  # responses judged at a time; groups stay whole, for some judges compare within them
Tokenize: TypeAlias = "Callable[[Responses], Rollouts]"  # responses in a model's own tokens


class Reader(Protocol):
    """A language model as far as it makes tokens of text (`reckon.models.LanguageModel`)."""

    def tokenize_groups(
        self,
        problems: Sequence[Problem],
        texts: Sequence[str],
        group: Sequence[int],
        ended: Sequence[bool] | None = None,
    ) -> Sequences:
        """N responses to G problems in its tokens."""
        ...

    def pieces(self, seq: Sequences) -> tuple[tuple[str, ...], ...]:
        """The text each token added."""
        ...

    def room(self, problem: Problem) -> int | None:
        """How many tokens a response can have; None = no limit is known."""
        ...


@dataclass
class _Column:
    """One stream as it grows, chunk by chunk."""

    dense: bool
    kind: Kind
    values: list[float]
    tokens: list[np.ndarray]


def score_responses(
    responses: Responses,
    judges: Mapping[str, Reward],
    *,
    tokenize: Tokenize | Mapping[str, Tokenize] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Responses:
    """Lets judges score responses; each stream becomes a signal, with the seconds and tokens it took.

    Args:
        responses: to judge. Verdicts go along, so a verifier's outcome is what the file says.
        judges: rewards by name; one with several streams gives `name/key`.
        tokenize: makes the tokens that a judge reads, for all judges or by name. Left out, a judge that holds a
            language model reads that model's tokens, and any other those of the responses, or where they are not known
            one token a character. Responses without tokens take on those of the first model once all are scored;
            numbers for the tokens of another are added up and not kept one by one.
        progress: called with (responses judged, responses to judge), each judge counting anew.

    Raises:
        InputError: there is no judge, or a name cannot be that of a stream.
        RunError: a judge failed, or gave a stream of another shape.
    """
    if not judges:
        raise InputError("score: there is no judge. Name at least one: a kind of reward, or file.py:name.")
    for name in judges:
        if not name or name.count("/") or name in ("tokens", "steps", "kind"):
            raise InputError(f"score: {name!r} cannot name a judge: a name has at least one letter and no `/`.")
    total, done = len(responses.text) * len(judges), 0
    tokenized, found_by = responses, list[tuple[str, _Column, float, float]]()
    chunks = _chunks(responses.group)
    for name, judge in judges.items():
        made: list[Rollouts] = []
        make = tokenize.get(name) if isinstance(tokenize, Mapping) else tokenize
        if make is None and (reader := reader_of(judge)) is not None:
            make = tokenize_with(reader)
        columns: dict[str, _Column] = {}
        seconds, read = 0.0, 0
        for rows in chunks:
            part = responses.take(rows)
            batch = _batch(part, make)
            made.append(batch.rollouts)
            start = time.perf_counter()
            found = judge.score(batch)
            seconds += time.perf_counter() - start
            read += int(batch.seq.mask.sum())
            _extend(columns, name, found, batch)
            done += len(rows)
            if progress is not None:
                progress(done, total)
        own = make is None and responses.tokens is None
        if make is not None and responses.tokens is None and tokenized is responses:
            tokenized = _with_tokens(responses, made)
        found_by += [(key, column, seconds, math.nan if own else float(read)) for key, column in columns.items()]
    # Only now, so that no judge reads the tokens of another and scores do not depend on the order of the judges.
    return tokenized.with_streams({key: _signal(tokenized, column, s, read) for key, column, s, read in found_by})


def reader_of(judge: object, depth: int = 4) -> Reader | None:
    """The first language model that a judge holds, also inside the rewards it is made of; None = it reads text."""
    if hasattr(judge, "tokenize_groups") and hasattr(judge, "pieces"):
        return cast("Reader", judge)
    if isinstance(judge, Mapping):
        held = list(judge.values())
    else:  # one that opens its judge when it is asked has it in no field
        held = [getattr(judge, "judge", None), *vars(judge).values()] if is_dataclass(judge) else []
    found = (reader_of(part, depth - 1) for part in held) if depth else ()
    return next((reader for reader in found if reader is not None), None)


def tokenize_with(model: Reader) -> Tokenize:
    """Responses in a language model's tokens: those they have, where the model reads the same text in them."""

    def tokenize(responses: Responses) -> Rollouts:
        import torch

        group, ended = responses.group.tolist(), [end != "length" for end in responses.end]
        arrange, tokenizer = getattr(model, "arrange", None), getattr(model, "tokenizer", None)
        rows = responses.tokens
        if rows is not None and arrange is not None and tokenizer is not None and _reads(tokenizer, rows, responses):
            seq: Sequences = arrange(responses.problems, rows, group)
        else:
            seq = model.tokenize_groups(responses.problems, responses.text, group, ended)
        return Rollouts(
            seq=seq,
            problems=responses.problems,
            text=responses.text,
            pieces=model.pieces(seq),
            logprobs=torch.full(seq.tokens.shape, math.nan, device=seq.tokens.device),
            end=_ends(responses).to(seq.tokens.device),
        )

    return tokenize


def _reads(tokenizer: object, rows: Sequence[Sequence[int]], responses: Responses) -> bool:
    decode = tokenizer.decode  # type: ignore[attr-defined]
    return all(
        len(row) > 0 and decode(list(row), skip_special_tokens=True) == text
        for row, text in zip(rows, responses.text, strict=True)
    )


def _with_tokens(responses: Responses, made: Sequence[Rollouts]) -> Responses:
    """Responses with the tokens that a model made of them, chunk by chunk."""
    tokens: list[tuple[int, ...]] = []
    pieces: list[tuple[str, ...]] = []
    for rollouts in made:
        rows = [tuple(row[on].tolist()) for row, on in zip(rollouts.seq.tokens, rollouts.seq.mask, strict=True)]
        tokens += rows
        pieces += [(*p, *[""] * (len(row) - len(p))) for row, p in zip(rows, rollouts.pieces, strict=True)]
    whole = all("".join(p) == text for p, text in zip(pieces, responses.text, strict=True))
    return replace(responses, tokens=tuple(tokens), pieces=tuple(pieces) if whole else None)


def _extend(columns: dict[str, _Column], name: str, found: Mapping[str, object], batch: Batch) -> None:
    """Adds a chunk's streams; a judge must give the same ones for every chunk."""
    named = {name if len(found) == 1 else f"{name}/{key.replace('/', '.')}": stream for key, stream in found.items()}
    if columns and named.keys() != columns.keys():
        raise RunError(
            f"the judge {name!r} gave the streams {sorted(named)}, and {sorted(columns)} for the responses before. "
            "It must always give the same."
        )
    shape = tuple(batch.seq.mask.shape)
    for key, stream in named.items():
        values: Tensor = stream.values  # type: ignore[attr-defined]
        if tuple(values.shape) not in (shape[:1], shape):
            raise RunError(
                f"the judge {name!r} gave a stream of shape {list(values.shape)}; it must have one value for each "
                f"response, {list(shape[:1])}, or one for each token, {list(shape)}."
            )
        dense, kind = values.ndim == 2, stream.kind  # type: ignore[attr-defined]
        column = columns.setdefault(key, _Column(dense=dense, kind=kind, values=[], tokens=[]))
        if dense:
            mask = batch.seq.mask
            rows = [row[on].cpu().numpy() for row, on in zip(values.double(), mask, strict=True)]
            column.tokens += rows
        else:
            column.values += values.double().tolist()


def _signal(responses: Responses, column: _Column, seconds: float, read: float) -> Signal:
    if column.dense:
        made = Signal.of_tokens(column.tokens, column.kind)
        pieces = responses.pieces
        fits = pieces is not None and all(
            len(row) == len(own) for row, own in zip(column.tokens, pieces, strict=True)
        )  # numbers for another tokenizer's tokens could not be placed in the text
        return Signal(
            values=made.values, tokens=made.tokens if fits else None, kind=column.kind, seconds=seconds, read=read
        )
    return Signal(values=np.array(column.values), kind=column.kind, seconds=seconds, read=read)


def _chunks(group: np.ndarray) -> list[np.ndarray]:
    """Rows in runs of about CHUNK, cut between groups only."""
    starts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
    cuts = [0]
    for stop in starts[1:]:
        if stop - cuts[-1] >= CHUNK or stop == len(group):
            cuts.append(stop)
    return [np.arange(a, b) for a, b in itertools.pairwise(cuts)]


def _batch(responses: Responses, tokenize: Tokenize | None) -> Batch:
    """Responses as a batch that trains nothing."""
    import torch

    rollouts = _rollouts(responses) if tokenize is None else tokenize(responses)
    outcome = torch.tensor(responses.outcome, dtype=torch.float32, device=rollouts.seq.tokens.device)
    return Batch.given(rollouts, outcome)


def _rollouts(responses: Responses) -> Rollouts:
    """The responses with the tokens they came with, or a token a character."""
    import torch

    rows = responses.tokens or tuple(tuple(map(ord, text)) for text in responses.text)
    pieces = responses.pieces or (
        tuple(map(tuple, responses.text)) if responses.tokens is None else tuple(() for _ in rows)
    )
    width = max((len(row) for row in rows), default=0)
    tokens = torch.zeros(len(rows), max(1, width), dtype=torch.int64)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    logprobs = torch.full(tokens.shape, math.nan)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = True
        if responses.logprobs is not None:
            logprobs[i, : len(row)] = torch.tensor(responses.logprobs[i])
    return Rollouts(
        seq=Sequences(
            prompts=tuple(torch.tensor([ord(c) for c in p.prompt_text] or [0]) for p in responses.problems),
            group=torch.tensor(responses.group, dtype=torch.int64),
            tokens=tokens,
            mask=mask,
        ),
        problems=responses.problems,
        text=responses.text,
        pieces=pieces,
        logprobs=logprobs,
        end=_ends(responses),
    )


def _ends(responses: Responses) -> Tensor:
    import torch

    return torch.tensor([End[(end or "eos").upper()] for end in responses.end], dtype=torch.int64)
