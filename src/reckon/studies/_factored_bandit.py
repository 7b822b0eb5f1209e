"""Twelve bits, and six tokens that each have to be a function of some of them: E2's world, and who answers in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reckon.fit import negative_log_likelihood
from reckon.models.table import draw
from reckon.studies._learner import Learner
from reckon.types import Batch, End, Outputs, Problem, Reason, Rng, Rollouts, Sequences, Split, Stream, Verdict, Want

BITS, PLACES, WORDS = 12, 6, 5
HELD_OUT = 600  # prompts of dev, and of test
SHOWN, WRONG = 500, 0.45  # demonstrations, and the share of their tokens that is drawn anew
IMITATION, IMITATED, IMITATION_RATE = 250, 64, 1e-3  # steps, demonstrations to a step, rate of Adam
RATE = 5e-4  # of whatever the policy learns after that
NARROW = (0, 3, 7)  # bits that are 1 in every prompt of the narrow set

# What each token has to be, of one to three bits [P, 12]; which bits and which functions is ours.
TARGETS: tuple[Callable[[NDArray[np.int64]], NDArray[np.int64]], ...] = (
    lambda b: b[:, 0],
    lambda b: b[:, 1] + b[:, 2],
    lambda b: b[:, 3] ^ b[:, 4],
    lambda b: 2 * b[:, 5] + b[:, 6],
    lambda b: b[:, 7] + b[:, 8] + b[:, 9],
    lambda b: b[:, 0] + b[:, 10] + 2 * b[:, 11],
)
EVERY_PROMPT: NDArray[np.int64] = np.arange(2**BITS)[:, None] >> np.arange(BITS) & 1  # [P, BITS], of 0 and 1
WANTED = torch.from_numpy(np.stack([target(EVERY_PROMPT) for target in TARGETS], axis=1))  # [P, PLACES] int64
FEATURES = torch.from_numpy(2.0 * EVERY_PROMPT - 1).float()  # [P, BITS], of -1 and 1
IS_NARROW = torch.from_numpy(EVERY_PROMPT[:, NARROW].all(axis=1))  # [P] bool

_PROBLEMS = tuple(
    Problem(
        id=str(number),
        prompt="".join(map(str, bits)),
        answer="".join(map(str, wanted)),
    )
    for number, (bits, wanted) in enumerate(zip(EVERY_PROMPT.tolist(), WANTED.tolist(), strict=True))
)
_NUMBERS = torch.arange(2**BITS)[:, None]  # a prompt is its number


@dataclass(frozen=True, kw_only=True)
class Bandit:
    """The prompts of each split, by number; a response is worth the share of its tokens that are right."""

    numbers: Mapping[Split, Sequence[int]]
    name: str = "factored_bandit"

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split."""
        return [_PROBLEMS[number] for number in self.numbers[split]]

    def check(self, problem: Problem, text: str) -> Verdict:
        """The gold score, which no arm learns from."""
        assert problem.answer is not None
        right = sum(a == b for a, b in zip(text, problem.answer, strict=True))
        reason: Reason = "right" if right == PLACES else "partial" if right else "wrong"
        return Verdict(outcome=right / PLACES, answer=text, reason=reason)


def make_bandit(seed: int) -> Bandit:
    """The splits of a seed."""
    order = Rng((seed, "factored bandit", "splits")).numpy().permutation(2**BITS).tolist()
    return Bandit(
        numbers={
            "test": order[:HELD_OUT],
            "dev": order[HELD_OUT : 2 * HELD_OUT],
            "train": order[2 * HELD_OUT :],
        }
    )


class BanditPolicy:
    """A network 12 -> 128 -> 30 that draws its six tokens independently, given the bits, as a `Policy`."""

    def __init__(self, network: nn.Sequential, rate: float = RATE) -> None:
        """Takes the network as it is; it learns by Adam, its gradient's norm clipped at 1."""
        self.network = network
        learner = Learner(network, self._forward, partial(ClippedAdam, lr=rate, betas=(0.9, 0.95)))
        self.outputs, self.step, self.update = learner.outputs, learner.step, learner.update
        self.state_dict, self.load_state_dict = learner.state_dict, learner.load_state_dict

    def copy(self) -> BanditPolicy:
        """The same law, in weights of its own, with an optimizer that has seen nothing."""
        return BanditPolicy(copy.deepcopy(self.network))

    def log_law(self, numbers: Tensor) -> Tensor:
        """[n, PLACES, WORDS] float32: log-probabilities of each token for prompts [n]; carries the gradient."""
        logits: Tensor = self.network(FEATURES[numbers])
        return logits.reshape(-1, PLACES, WORDS).log_softmax(dim=2)

    def draw(self, numbers: Tensor, k: int, rng: Rng) -> Tensor:
        """[n, k, PLACES] int64: k responses to each of n prompts, by numbers that depend on `rng` alone."""
        uniforms = torch.from_numpy(rng.numpy().random((len(numbers), k, PLACES)))
        with torch.no_grad():
            law = self.log_law(numbers).double().exp()
        places = [draw(law[:, place], uniforms[:, :, place]) for place in range(PLACES)]
        return torch.stack(places, dim=2)

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Answers each of G problems k times."""
        assert prefixes is None, "the tokens of a response do not depend on each other"
        numbers = torch.tensor([int(problem.id) for problem in problems])
        seq = sequences(numbers, self.draw(numbers, k, rng))
        logprobs = self.outputs(seq).logprobs
        assert logprobs is not None
        text = tuple("".join(map(str, row)) for row in seq.tokens.tolist())
        return Rollouts(
            seq=seq,
            problems=tuple(problems),
            text=text,
            pieces=tuple(tuple(row) for row in text),
            logprobs=logprobs,
            end=torch.full((len(text),), int(End.EOS)),
        )

    def _forward(self, seq: Sequences, want: tuple[Want, ...]) -> Outputs:
        law = self.log_law(torch.cat(seq.prompts))[seq.group]
        return Outputs(
            logprobs=law.gather(2, seq.tokens[:, :, None])[:, :, 0] if "logprobs" in want else None,
            entropy=-(law.exp() * law).sum(dim=2) if "entropy" in want else None,
        )


class ClippedAdam(torch.optim.Adam):
    """Adam on gradients whose norm over all weights is at most 1."""

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float, betas: tuple[float, float]) -> None:
        self._clipped = list(params)
        super().__init__(self._clipped, lr=lr, betas=betas)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Clips, then steps."""
        nn.utils.clip_grad_norm_(self._clipped, 1.0)
        super().step(closure)


def sequences(numbers: Tensor, tokens: Tensor) -> Sequences:
    """Responses [n, k, PLACES] to prompts [n], as arrays of n groups of k."""
    n, k, _ = tokens.shape
    return Sequences(
        prompts=tuple(_NUMBERS[numbers]),
        group=torch.arange(n).repeat_interleave(k),
        tokens=tokens.reshape(n * k, PLACES),
        mask=torch.ones(n * k, PLACES, dtype=torch.bool),
    )


def gold(numbers: Tensor, tokens: Tensor) -> Tensor:
    """[n, k] int64: how many tokens of responses [n, k, PLACES] to prompts [n] are right, 0 to 6."""
    return (tokens == WANTED[numbers][:, None]).sum(dim=2)


def state(policy: BanditPolicy, start: BanditPolicy, numbers: Tensor) -> dict[str, float]:
    """What a policy is expected to earn on prompts [n], and its divergence from `start` in nats a response; exact."""
    with torch.no_grad():
        law, before = policy.log_law(numbers), start.log_law(numbers)
    right = law.exp().gather(2, WANTED[numbers][:, :, None])[:, :, 0].mean(dim=1)  # [n]
    kl = (law.exp() * (law - before)).sum(dim=(1, 2))
    return {
        "gold": float(right.mean()),
        "gold, narrow": float(right[IS_NARROW[numbers]].mean()),
        "KL": float(kl.mean()),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """What the arms of a seed share."""

    seed: int
    rng: Rng
    task: Bandit
    start: BanditPolicy  # what everybody begins as, and the reference; it learns nothing more

    def numbers(self, split: Split) -> Tensor:
        """[n] int64: the prompts of a split."""
        return torch.tensor(self.task.numbers[split])


@lru_cache(maxsize=1)  # every arm of a seed begins with it
def make_world(seed: int) -> World:
    """Teaches the policy to imitate demonstrations in which 45% of the tokens are drawn anew from all five."""
    root, task = Rng((seed, "preference-learning-grid")), make_bandit(seed)
    numbers = torch.tensor(task.numbers["train"][:SHOWN])
    noise = root.child("demonstrations").numpy()
    redrawn = torch.from_numpy(noise.random((SHOWN, PLACES)) < WRONG)
    tokens = torch.where(redrawn, torch.from_numpy(noise.integers(WORDS, size=(SHOWN, PLACES))), WANTED[numbers])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(root.child("weights").integer() % 2**31)
        network = nn.Sequential(nn.Linear(BITS, 128), nn.ReLU(), nn.Linear(128, PLACES * WORDS))
    policy = BanditPolicy(network, IMITATION_RATE)
    for rows in minibatches(SHOWN, IMITATED, IMITATION, root.child("imitation")):
        seq = sequences(numbers[rows], tokens[rows][:, None])
        policy.step(seq, {"scale": torch.full(seq.mask.shape, 1 / seq.mask.numel())}, negative_log_likelihood)
    return World(seed=seed, rng=root, task=task, start=policy.copy())


def minibatches(n: int, size: int, steps: int, rng: Rng) -> list[Tensor]:
    """Rows of each of so many steps, in passes of an order of chance each; a short end of a pass is left out.

    Raises:
        ValueError: there are fewer rows than a step takes.
    """
    if n < size:
        raise ValueError(f"a step takes {size} rows, and there are {n}")
    found: list[Tensor] = []
    for number in range(-(-steps // (n // size))):
        order = torch.from_numpy(rng.child(number).numpy().permutation(n))
        found += order[: n // size * size].split(size)
    return found[:steps]


class BanditJudge:
    """A reward model: a network over the bits and the response, one-hot, that gives one score."""

    def __init__(self, width: int, seed: int) -> None:
        """Draws the weights from `seed`, whatever the global random state is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(nn.Linear(BITS + PLACES * WORDS, width), nn.ReLU(), nn.Linear(width, 1))

    def scores(self, numbers: Tensor, tokens: Tensor) -> Tensor:
        """[n, k] float32, of responses [n, k, PLACES] to prompts [n]; carries the gradient."""
        ones = nn.functional.one_hot(tokens, WORDS).float().flatten(start_dim=2)
        bits = FEATURES[numbers][:, None].expand(-1, tokens.shape[1], -1)
        found: Tensor = self.network(torch.cat([bits, ones], dim=2))[:, :, 0]
        return found

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N]. Pure."""
        numbers = torch.cat(batch.seq.prompts)[batch.seq.group]
        with torch.no_grad():
            return {"reward_model": Stream(values=self.scores(numbers, batch.seq.tokens[:, None])[:, 0])}
