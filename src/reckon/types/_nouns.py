"""The data every room shares. Nothing here computes, and nothing here imports torch at run time.

Sizes in shape comments: N responses, T tokens of the longest response, G prompts (groups), M rollouts generated.
Every mask is True where it counts. Log-probabilities are natural logarithms in float32.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Message: TypeAlias = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
Chat: TypeAlias = tuple[Message, ...]
Metrics: TypeAlias = dict[str, float]  # "room/name/statistic" to a number
State: TypeAlias = "Mapping[str, Tensor | Json | State]"  # nested; tensors and JSON values only, never pickled objects
Columns: TypeAlias = "Mapping[str, Tensor]"  # each [N] or [N, T], cut by rows along with the responses
Split: TypeAlias = Literal["train", "dev", "test"]
Kind: TypeAlias = Literal["reward", "advantage", "weight"]
Want: TypeAlias = Literal["logprobs", "entropy", "values", "scores", "hidden"]
Reason: TypeAlias = Literal[
    "right", "wrong", "partial", "no answer", "ambiguous", "timed out", "crashed", "no reference"
]


class End(enum.IntEnum):
    """Why a response ended."""

    EOS = 0  # the model said it was done
    STOP = 1  # a stop string or stop token of the caller's
    LENGTH = 2  # it ran into the limit: truncated


class Use(enum.IntEnum):
    """What a keep rule decides for one response."""

    DROP = 0  # generated, counted, forgotten
    CONTEXT = 1  # counts in its group's baseline and trains nothing
    TRAIN = 2


@dataclass(frozen=True)
class Rng:
    """A name for a stream of random numbers: (seed, part, step, ...), so that no part disturbs another's numbers.

    The same key gives the same numbers on every machine and in every order of calls, which makes resuming exact and
    makes a part of weight 0 equal to no part at all.
    """

    key: tuple[int | str, ...]

    def child(self, *names: int | str) -> Rng:
        """The stream of a part, step or row below this one."""
        return Rng(self.key + names)

    def integer(self) -> int:
        """A seed in [0, 2**63), for generators of other libraries."""
        return int.from_bytes(hashlib.sha256(repr(self.key).encode()).digest()[:8], "big") >> 1

    def numpy(self) -> np.random.Generator:
        """A fresh NumPy generator at the start of this stream."""
        return np.random.Generator(np.random.Philox(self.integer()))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to answer, as data that travels; what checks it is the task's."""

    id: str  # unique within its task and split
    prompt: str | Chat
    answer: str | None = None  # the reference; None = nobody knows, so the verdict is unknown
    domain: str = "default"
    columns: Mapping[str, Json] = field(default_factory=dict)  # whatever else came with the row

    @property
    def prompt_text(self) -> str:
        """The prompt for people to read: a conversation as "role: content" paragraphs."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in self.prompt)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A checker's finding on one response.

    An answer that is missing or cannot be read is wrong; a checker that failed, or a problem without an answer, is
    unknown.
    """

    outcome: float | None  # in [0, 1]; None = unknown, which is not 0
    answer: str | None  # what was read out of the response, normalized
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stretch [start, end) of a response's characters that is one step of its reasoning."""

    start: int
    end: int
    valid: bool | None  # None = this text is not a step that can be judged


def check_shapes(owner: object, /, **shapes: str) -> None:
    """Raises ValueError unless the named fields have these shapes, where a letter is one size throughout.

    `check_shapes(self, group="N", tokens="N T")`. A field that is None passes.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, letters in shapes.items():
        value = getattr(owner, name)
        if value is None:
            continue
        shape = tuple(value.shape)
        wanted = letters.split()
        if len(shape) != len(wanted):
            raise ValueError(f"{type(owner).__name__}.{name} must be [{', '.join(wanted)}], not of shape {shape}")
        for size, letter in zip(shape, wanted, strict=True):
            first, owner_name = sizes.setdefault(letter, (size, name))
            if size != first:
                raise ValueError(
                    f"{type(owner).__name__}.{name} has {letter} = {size}, but {owner_name} has {letter} = {first}"
                )


@dataclass(frozen=True, kw_only=True, eq=False)  # eq=False: == on tensors is elementwise
class Sequences:
    """N responses of at most T tokens to G prompts, as a struct of arrays; each prompt is stored once."""

    prompts: tuple[Tensor, ...]  # G tensors of int64, ragged, never empty
    group: Tensor  # [N] int64 in [0, G), ascending: which prompt a response answers
    tokens: Tensor  # [N, T] int64, the response alone, padded on the right
    # [N, T] bool, True where the policy sampled the token, its end token included. False before the first True: a given
    # prefix; False after the last True: padding.
    mask: Tensor

    def __post_init__(self) -> None:
        check_shapes(self, group="N", tokens="N T", mask="N T")
        if bool((self.group[1:] < self.group[:-1]).any()):  # packing would return the rows in another order
            raise ValueError("Sequences.group must ascend: the responses to a prompt stand together")

    def take(self, rows: Tensor) -> Sequences:
        """The responses at `rows` ([n] int64, ascending), with the prompts they answer and no others."""
        kept, group = self.group[rows].unique(return_inverse=True)
        return Sequences(
            prompts=tuple(self.prompts[g] for g in kept.tolist()),
            group=group,
            tokens=self.tokens[rows],
            mask=self.mask[rows],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollouts:
    """What a policy answered, as it was sampled."""

    seq: Sequences
    problems: tuple[Problem, ...]  # G, in the order of seq.prompts
    text: tuple[str, ...]  # N, end token left out
    pieces: tuple[tuple[str, ...], ...]  # N rows: the text each token added; joined they are `text`
    logprobs: Tensor  # [N, T] float32 at the sampling temperature, before truncation by top-k, top-p or min-p
    end: Tensor  # [N] int64, an `End`
    truncated: bool = False  # True = drawn under top-k, top-p or min-p, so `logprobs` is not the law of the draw

    def __post_init__(self) -> None:
        n = self.seq.tokens.shape[0]
        if not len(self.text) == len(self.pieces) == self.logprobs.shape[0] == self.end.shape[0] == n:
            raise ValueError(f"Rollouts: text, pieces, logprobs and end must each have {n} rows, as seq has")
        if len(self.problems) != len(self.seq.prompts):
            raise ValueError("Rollouts: one problem for each prompt")

    def problem(self, row: int) -> Problem:
        """The problem that response `row` answers."""
        return self.problems[int(self.seq.group[row])]

    def take(self, rows: Tensor) -> Rollouts:
        """The responses at `rows` ([n] int64, ascending) and their problems."""
        indices = rows.tolist()
        return Rollouts(
            seq=self.seq.take(rows),
            problems=tuple(self.problems[g] for g in self.seq.group[rows].unique().tolist()),
            text=tuple(self.text[i] for i in indices),
            pieces=tuple(self.pieces[i] for i in indices),
            logprobs=self.logprobs[rows],
            end=self.end[rows],
            truncated=self.truncated,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """Every rollout generated for one step, dropped ones too: what a sampler learns from and a budget is charged."""

    problems: tuple[Problem, ...]  # M, one for each rollout
    outcome: Tensor  # [M] float32, NaN = unknown
    lengths: Tensor  # [M] int64, sampled tokens
    end: Tensor  # [M] int64, an `End`
    rounds: int  # how often problems were drawn
    wanted: int  # groups asked for
    kept: int  # groups that a keep rule left


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The kept rollouts of one step, judged by the verifier."""

    rollouts: Rollouts
    outcome: Tensor  # [N] float32 in [0, 1], the verifier's verdict; NaN = unknown
    train: Tensor  # [N] bool; False = only there for its group's baseline
    seen: Seen
    step: int
    verdicts: tuple[Verdict, ...] = ()  # N, what `outcome` is made of; empty where nothing was verified
    on_policy: bool = False  # True = learned from in one step by the very weights that sampled: every ratio is 1
    rng: Rng = Rng(())  # names the random numbers of this step, for parts that are given none: an advantage's critic

    def __post_init__(self) -> None:
        check_shapes(self, outcome="N", train="N")
        if self.outcome.shape[0] != self.seq.tokens.shape[0]:
            raise ValueError("Batch: outcome and rollouts must have the same number of rows")

    @property
    def seq(self) -> Sequences:
        """The token arrays."""
        return self.rollouts.seq

    @classmethod
    def given(
        cls,
        rollouts: Rollouts,
        outcome: Tensor,
        *,
        verdicts: tuple[Verdict, ...] = (),
        train: bool = False,
        step: int = 0,
    ) -> Batch:
        """Responses that are all there is, sampled by nobody and dropped by nobody: somebody wants them judged.

        Args:
            rollouts: N responses.
            outcome: [N] float32 in [0, 1], NaN = unknown.
            verdicts: N, or none.
            train: whether all of them train.
            step: of the run that they belong to.
        """
        import torch

        seen = Seen(
            problems=tuple(rollouts.problem(row) for row in range(len(rollouts.text))),
            outcome=outcome,
            lengths=rollouts.seq.mask.sum(dim=1),
            end=rollouts.end,
            rounds=1,
            wanted=len(rollouts.problems),
            kept=len(rollouts.problems),
        )
        trains = torch.full_like(outcome, train, dtype=torch.bool)
        return cls(rollouts=rollouts, outcome=outcome, train=trains, seen=seen, step=step, verdicts=verdicts)

    def take(self, rows: Tensor) -> Batch:
        """The part of the batch at `rows` ([n] int64, ascending). `seen` stays whole."""
        return Batch(
            rollouts=self.rollouts.take(rows),
            outcome=self.outcome[rows],
            train=self.train[rows],
            seen=self.seen,
            step=self.step,
            verdicts=tuple(self.verdicts[i] for i in rows.tolist()) if self.verdicts else (),
            on_policy=self.on_policy,
            rng=self.rng,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """What one judge says each response ([N]) or each token ([N, T]) is worth. NaN = the judge does not apply.

    kind says what may be done with it: a reward is summed into returns; an advantage is added to the advantage of its
    own tokens and never summed into a return (there it cancels); a weight multiplies.
    """

    values: Tensor  # [N] or [N, T] float32; in [N, T] what stands where the mask is False does not matter
    kind: Kind = "reward"
    train: bool = True  # False = only watched: logged and reported, never trained on

    def __post_init__(self) -> None:
        if self.values.ndim not in (1, 2):
            raise ValueError(f"a stream is [N] or [N, T], not of shape {tuple(self.values.shape)}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Credit:
    """What each token is credited with."""

    advantages: Tensor  # [N, T] float32, 0 where `mask` is False
    weights: Tensor  # [N, T] float32 multipliers, 1 where no stream gives weights
    mask: Tensor  # [N, T] bool, the tokens that train: sampled, in a row that trains, with a known reward
    returns: Tensor | None = None  # [N, T] float32, what a critic should have predicted; None = there is no critic
    values: Tensor | None = None  # [N, T] float32, what it did predict, before it learned anything from this batch

    def __post_init__(self) -> None:
        check_shapes(self, advantages="N T", weights="N T", mask="N T", returns="N T", values="N T")

    def take(self, rows: Tensor) -> Credit:
        """The part at `rows` ([n] int64)."""
        return Credit(
            advantages=self.advantages[rows],
            weights=self.weights[rows],
            mask=self.mask[rows],
            returns=None if self.returns is None else self.returns[rows],
            values=None if self.values is None else self.values[rows],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What a model says about n responses it is given; a field nobody asked for is None."""

    logprobs: Tensor | None = None  # [n, T] float32, at the model's temperature, 0 where the mask is False
    entropy: Tensor | None = None  # [n, T] float32 nats, of the whole distribution at each sampled token
    values: Tensor | None = None  # [n, T] float32: the head read where the token is predicted, before it is known
    # [n, T] float32: the head read after the token, so scores[:, t] is values[:, t + 1]; values[:, 0] is the head after
    # the prompt alone, and the score of a last token, mostly the end token's, is that of the whole response.
    scores: Tensor | None = None
    hidden: Tensor | None = None  # [n, T, D] float32: the last hidden state after reading the token


Loss: TypeAlias = (
    "Callable[[Outputs, Columns], Tensor]"  # [n, T] or [n]; summed by `step`, so it carries its denominators
)
