"""A tree of rewards made ready for another library: what it cannot have is refused, what it says becomes numbers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from reckon.advantages import sum_known
from reckon.errors import InputError, RunError
from reckon.rewards._classifier import SequenceClassifier
from reckon.rewards._combine_parts import inner_rewards
from reckon.rewards._fitted import Fitted
from reckon.rewards._function import Function, RewardFunction
from reckon.rewards._leaves import KLReward, Verifier
from reckon.rewards._length import CosineLength, FormatLength, Length, OverlongPenalty
from reckon.rewards._metrics import reward_metrics
from reckon.rewards._online_reference_based import OnlineReferenceBased
from reckon.rewards._reference_based import ReferenceBased
from reckon.rewards._text import Containment, Format, KeywordReward, RepetitionPenalty, StrictLayout, ThinkFormat
from reckon.rewards._tree import Sum, as_reward, check_stream
from reckon.rewards.adapters._batch import Given
from reckon.rewards.adapters._unknown import Unknown, missing
from reckon.types import Batch, Metrics, Reward, Stream, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Values = list[float | None]  # one for each response; None = unknown, or does not apply

_ON_VERDICTS = (Verifier, CosineLength)
_WITHOUT_PROMPT = (
    *_ON_VERDICTS,
    Containment,
    Format,
    FormatLength,
    KeywordReward,
    Length,
    OverlongPenalty,
    RepetitionPenalty,
    StrictLayout,
    ThinkFormat,
)
_ADAPTERS = f"{__package__}."  # rewards made here carry the name of the function in them
_OWN_TOKENS = (ReferenceBased, SequenceClassifier)  # these write a text and tokenize it themselves


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a tree of rewards said about N responses."""

    total: Values  # the trained streams added up, as the advantage would
    streams: dict[str, Values]  # every stream, watched ones too; a stream of tokens is not among them
    metrics: Metrics  # `<stream>/mean`, `/std` and `/unknown`, without those that are NaN


def ready(
    reward: Reward | RewardFunction | Mapping[str, Reward | RewardFunction],
    library: str,
    *,
    task: Task | None,
    tokenizer: PreTrainedTokenizerBase | None,
    frozen: bool,
    groups: str,
) -> Sum:
    """The reward as a `Sum`, after all that can be told before the first response has been checked.

    Args:
        reward: anything `as_reward` takes.
        library: the target, for messages.
        task: the checker of a reward that reads verdicts.
        tokenizer: the policy's.
        frozen: score a judge that learns with what it knows now.
        groups: "" if the library hands over whole groups, else why not and what to do.

    Raises:
        InputError: a part that the library has no place for.
    """
    own = getattr(reward, "name", None)
    named = type(reward).__module__.startswith(_ADAPTERS) and isinstance(own, str)
    tree = as_reward({own: cast("Reward", reward)} if named and isinstance(own, str) else reward)
    for name, part in parts_of(tree):
        kind = type(part).__name__
        if isinstance(part, KLReward):
            raise InputError(
                f"{name!r} is a KLReward, which gives every token its own value, and {library} takes one number for a"
                f" response. Leave it out and use the KL coefficient of {library}."
            )
        if isinstance(part, _ON_VERDICTS) and task is None:
            raise missing("outcome", library, f"{name!r} is a {kind} and")
        if groups and getattr(part, "group_level", False):  # the parts inside come by themselves, under their names
            raise InputError(f"{name!r} is a {kind}, which compares the responses to one prompt, and {groups}")
        if not frozen and _learns(part):
            raise InputError(
                f"{name!r} is a {kind}, which learns while the policy does, and {library} has no place for that."
                " Pass frozen=True to score with what it knows now, or train in reckon's own loop."
            )
        _check_tokenizer(name, part, tokenizer)
    return tree


def parts_of(reward: Reward, name: str = "") -> Iterator[tuple[str, Reward]]:
    """Every part of a tree of rewards and its path, parts inside parts too, the tree itself left out."""
    for key, inner in inner_rewards(reward):
        path = f"{name}/{key}" if name else key
        yield path, inner
        yield from parts_of(inner, path)


def linear(tree: Sum) -> list[tuple[str, Reward, float]]:
    """The parts of a sum with their weights, 0 for one that is only watched."""
    return [
        (name, part, 0.0 if name in tree.watch else tree.weights.get(name, 1.0)) for name, part in tree.parts.items()
    ]


def reads_prompt(part: Reward) -> bool:
    """Whether a part may read the prompt: parts of ours that do not are known, and so are functions that name it."""
    if any(True for _ in inner_rewards(part)) or isinstance(part, _WITHOUT_PROMPT):
        return False
    if isinstance(part, Function):
        return "prompts" in inspect.signature(part.function).parameters
    return True


def check_given(tree: Reward, given: Given, answers: str, ids: str) -> None:
    """Refuses a reward that reads a column the rows do not have.

    Args:
        tree: the rewards.
        given: what was handed over.
        answers: what to do where reference answers are missing.
        ids: and where the problems have no `id`.

    Raises:
        InputError: a part reads reference answers, or stored references by problem, and there are none.
    """
    for name, part in parts_of(tree):
        if given.answers is None and _reads_answers(part):
            raise InputError(f"{name!r} reads reference answers, and {given.library} handed over none. {answers}")
        stored = getattr(part, "references", None)
        if "id" not in given.columns and stored is not None and not isinstance(stored, int | float | bool):
            raise InputError(
                f"{name!r} looks reference levels up by problem, and {given.library} handed over no `id`. {ids}"
            )


def say(tree: Sum, batch: Batch, library: str) -> Said:
    """Scores a batch and makes plain numbers of it.

    Raises:
        InputError: a stream the library cannot take (values for tokens, an advantage, a weight), or one that rests on
            what the library does not hand over.
    """
    streams = tree.score(batch)
    trained = {name: stream for name, stream in streams.items() if stream.train}
    for name, stream in streams.items():
        if isinstance(stream.values, Unknown):
            raise missing(stream.values.field, stream.values.library, repr(name))
    for name, stream in trained.items():
        check_stream(name, stream, batch)
        if stream.kind != "reward" or stream.values.ndim != 1:
            what = "a value for every token" if stream.values.ndim != 1 else f"a stream of kind {stream.kind}"
            raise InputError(
                f"{name!r} gives {what}, and {library} takes one reward for a response. Make it one number for a"
                " response, or train with it in reckon's own loop."
            )
    if not trained:
        raise InputError(f"no reward here trains, so {library} would have nothing to learn from. Give one a weight.")
    total = sum_known(torch.stack([stream.values.float() for stream in trained.values()]), batch.seq.group)
    metrics = {key.removeprefix("reward/"): value for key, value in _metrics(streams, batch).items()}
    return Said(
        total=plain(total.tolist()),
        streams={name: plain(stream.values.tolist()) for name, stream in streams.items() if stream.values.ndim == 1},
        metrics={key: value for key, value in metrics.items() if not math.isnan(value)},
    )


def settled(results: Sequence[object], then: Callable[[list[object]], Values]) -> Values | Awaitable[Values]:
    """What `then` makes of results, at once or, where some must be awaited, later.

    Plain functions are never called inside an event loop, for some run one of their own.
    """
    if not any(inspect.isawaitable(result) for result in results):
        return then(list(results))

    async def later() -> Values:
        return then([await result if inspect.isawaitable(result) else result for result in results])

    return later()


def plain(values: Sequence[float]) -> Values:
    """NaN as None."""
    return [None if math.isnan(value) else value for value in values]


def known(value: float | None, unknown: float | None, library: str) -> float:
    """A reward for a library in which a response cannot be left out.

    Raises:
        RunError: the reward is unknown and nothing stands in for it.
    """
    if value is not None:
        return value
    if unknown is None:
        raise RunError(
            f"a response's reward is unknown, and {library} cannot leave a response out. Pass unknown=0.0, or what else"
            " it shall count as, or take problems whose answers can be checked."
        )
    return unknown


def name_of(tree: Sum, name: str | None) -> str:
    """What to call a tree of rewards: the given name, that of its only part, or `reckon`."""
    chosen = name or (next(iter(tree.parts)) if len(tree.parts) == 1 else "reckon")
    if not chosen.isidentifier():
        raise InputError(f"{chosen!r} cannot name a reward function: use letters, digits and underscores.")
    return chosen


def _metrics(streams: Mapping[str, Stream], batch: Batch) -> Metrics:
    flat = {name: stream for name, stream in streams.items() if stream.values.ndim == 1}
    return reward_metrics(flat, batch)


def _learns(part: Reward) -> bool:
    """Whether a part has statistics or weights of its own; one made of parts only passes their memories on."""
    if not callable(getattr(part, "assess", None)):
        return False
    alone = not any(True for _ in inner_rewards(part))
    # A z-score within groups keeps statistics too, and never reads them.
    return alone or ("statistics" in part.state_dict() and getattr(part, "over", "") != "group")  # type: ignore[attr-defined]


def _reads_answers(part: Reward) -> bool:
    if isinstance(part, Fitted):
        return _reads_answers(part.judge)
    if isinstance(part, OnlineReferenceBased):
        return part.show_reference
    return isinstance(part, Containment) or (isinstance(part, ReferenceBased) and part.reference)


def _check_tokenizer(name: str, part: Reward, tokenizer: PreTrainedTokenizerBase | None) -> None:
    if tokenizer is None or isinstance(part, _OWN_TOKENS):
        return
    for value in vars(part).values():
        own = getattr(value, "tokenizer", None) if callable(getattr(value, "outputs", None)) else None
        if own is not None and own.get_vocab() != tokenizer.get_vocab():
            raise InputError(
                f"the model of {name!r} has another vocabulary than `tokenizer`, so it cannot read the policy's tokens."
                " Take a model of the policy's family, or a SequenceClassifier, which reads text."
            )
