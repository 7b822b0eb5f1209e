"""A small network on the planted sequence, and the judge that knows each step's advantage exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from reckon.rewards import ExactAdvantage, Sum, Verifier
from reckon.steps import Steps
from reckon.studies._learner import Learner
from reckon.studies._planted import FOUND, LENGTH, WORDS, sample, states
from reckon.types import (
    Batch,
    Columns,
    Outputs,
    Problem,
    Reward,
    Rng,
    Rollouts,
    Sequences,
    Stream,
    Want,
)

Use: TypeAlias = Literal["nothing", "advantage", "return"]


class NetworkPolicy:
    """Three hidden layers over the tokens so far and the position, as a `Policy`: 160 -> 128 -> 128 -> 128 -> 15."""

    def __init__(self, seed: int) -> None:
        """Draws the weights from `seed`, whatever the global random state is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = [LENGTH * WORDS + LENGTH, 128, 128, 128, WORDS]
            layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
            self.network = nn.Sequential(*layers[:-1])
            for layer in self.network:
                if isinstance(layer, nn.Linear):  # He et al. 2015, arXiv:1502.01852, as is usual with ReLU
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
        learner = Learner(self.network, self._forward, partial(torch.optim.Adam, lr=1e-3))
        self.renew, self.outputs, self.step, self.update = learner.renew, learner.outputs, learner.step, learner.update
        self.state_dict, self.load_state_dict = learner.state_dict, learner.load_state_dict

    def log_law(self, tokens: Tensor) -> Tensor:
        """[n, T, WORDS] float32: log-probabilities of each next token, given those before it; carries the gradient."""
        n, size = tokens.shape
        ones = nn.functional.one_hot(tokens, WORDS).float()  # [n, T, WORDS]
        past = torch.zeros(n, size, LENGTH, WORDS)
        for t in range(1, size):
            past[:, t, :t] = ones[:, :t]
        place = torch.eye(LENGTH)[:size].expand(n, -1, -1)
        logits: Tensor = self.network(torch.cat([past.flatten(start_dim=2), place], dim=2))
        return logits.log_softmax(dim=2)

    def _law(self, tokens: Tensor, t: int) -> Tensor:
        past = torch.zeros(len(tokens), LENGTH, WORDS)
        past[:, :t] = nn.functional.one_hot(tokens[:, :t], WORDS)
        place = torch.eye(LENGTH)[t].expand(len(tokens), -1)
        probabilities: Tensor = self.network(torch.cat([past.flatten(start_dim=1), place], dim=1)).softmax(dim=1)
        return probabilities

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Answers each of G problems k times."""
        with torch.no_grad():
            return sample(self._law, problems, k, rng, prefixes)

    def mean_entropy(self, seq: Sequences) -> float:
        """Nats, over the sampled tokens."""
        entropy = self.outputs(seq, ("entropy",)).entropy
        assert entropy is not None
        return float(entropy[seq.mask].mean())

    def _forward(self, seq: Sequences, want: tuple[Want, ...]) -> Outputs:
        law = self.log_law(seq.tokens)
        picked = law.gather(2, seq.tokens[:, :, None])[:, :, 0]
        entropy = -(law.exp() * law).sum(dim=2)
        return Outputs(
            logprobs=torch.where(seq.mask, picked, 0.0) if "logprobs" in want else None,
            entropy=torch.where(seq.mask, entropy, 0.0) if "entropy" in want else None,
        )


def imitate(policy: NetworkPolicy, law_rollouts: Rollouts, batch: int) -> None:
    """Supervised warm-up: one pass over sampled responses, so many a step."""

    def loss(outputs: Outputs, columns: Columns) -> Tensor:
        assert outputs.logprobs is not None
        return -outputs.logprobs * columns["scale"]

    seq = law_rollouts.seq
    for rows in torch.arange(len(seq.tokens)).split(batch):
        part = seq.take(rows)
        scale = part.mask / part.mask.sum()
        policy.step(part, {"scale": scale}, loss)
    policy.renew()


def expected(policy: NetworkPolicy, tokens: Tensor, worth: Tensor) -> Tensor:
    """[n, T]: the policy's mean of what a token is worth, in the place of each.

    Args:
        policy: whose mean it is.
        tokens: [n, T] int64.
        worth: [n, T, WORDS] float, of every token in the place of each.
    """
    with torch.no_grad():
        mean: Tensor = (policy.log_law(tokens).exp() * worth).sum(dim=2)
    return mean


def centered(policy: NetworkPolicy, tokens: Tensor, worth: Tensor) -> Tensor:
    """[n, T]: what each token was worth, less what the policy could expect there; see `expected`."""
    return worth.gather(2, tokens[:, :, None])[:, :, 0] - expected(policy, tokens, worth)


def exact_judge(policy: NetworkPolicy, q: Tensor, v: Tensor, use: Use, alpha: float) -> Sum:
    """The verdict, and what each step did to a prover's chance of success, read from the table: the parts of PAV-RL.

    With "advantage" a step is credited with its own A less the policy's mean of A there, which leaves
    Q(s, a) - E_pi Q(s, .): exact control of variance, as the prover's own value would not have mean 0 under the policy.
    With "return" A is given as a reward of its token, to be summed into returns: the mistake.

    Args:
        policy: whose mean is taken off.
        q: [LENGTH, 6, WORDS] float64, the prover's.
        v: [LENGTH + 1, 6] float64, the same prover's.
        use: what is done with the advantages.
        alpha: multiplies them.
    """

    def worth(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """[n, T, WORDS], of every token in the place of each, and [n, T]: what is spelled before it."""
        k = states(rollouts.seq.tokens)[:, :-1]
        return q[torch.arange(k.shape[1]), k], k

    def values(rollouts: Rollouts, steps: Steps) -> Tensor:
        after = worth(rollouts)[0].gather(2, rollouts.seq.tokens[:, :, None])[:, :, 0]
        return torch.cat([v[0, :1].expand(len(after), 1), after], dim=1)[:, : int(steps.count.max()) + 1]

    def mean(rollouts: Rollouts, steps: Steps) -> Tensor:
        every, k = worth(rollouts)
        # Once it is right it is so whatever comes: no step changes that.
        before = torch.where(k == FOUND, 1.0, expected(policy, rollouts.seq.tokens, every))
        return before[:, : int(steps.count.max())]

    parts: dict[str, Reward] = {"correct": Verifier()}
    if use == "advantage":
        parts["step"] = ExactAdvantage(values, before=mean)
    elif use == "return":
        parts["step"] = Summed(ExactAdvantage(values))
    return Sum(parts, weights={} if use == "nothing" else {"step": alpha})


@dataclass(frozen=True)
class Summed:
    """The mistake: step advantages handed over as rewards."""

    advantages: ExactAdvantage

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T] of kind "reward"."""
        return {name: replace(stream, kind="reward") for name, stream in self.advantages.score(batch).items()}
