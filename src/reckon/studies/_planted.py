"""The planted sequence: an environment whose every value is known exactly (Setlur et al. 2024).

A response of up to 10 tokens from 0 to 14 is right if 3 6 0 3 5 stands in it before token 14, which ends it. What is to
come depends on the past only through the time t and k, how much of the target the last tokens spell (5 = it was there).
A table over (t, k, token) therefore holds the exact Q of any policy that looks at t and k alone; backward dynamic
programming fills it in milliseconds, without a rollout. One token is one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from reckon.models.table import draw
from reckon.types import End, Problem, Reason, Rng, Rollouts, Sequences, Split, Verdict

TARGET = (3, 6, 0, 3, 5)
WORDS, END, LENGTH = 15, 14, 10
FOUND = len(TARGET)  # the state k once the target was there; nothing leaves it

# [n, LENGTH] tokens and a time t to [n, WORDS] probabilities of the token at t, given the tokens before it.
Law: TypeAlias = Callable[[Tensor, int], Tensor]


def spelled(k: int, token: int) -> int:
    """How much of the target the last tokens spell after one more (Knuth, Morris and Pratt 1977)."""
    if k == FOUND:
        return FOUND
    said = (*TARGET[:k], token)
    return max(size for size in range(min(len(said), FOUND) + 1) if said[len(said) - size :] == TARGET[:size])


NEXT = torch.tensor([[spelled(k, token) for token in range(WORDS)] for k in range(FOUND + 1)])  # [6, WORDS]


def prover(gamma: float) -> Tensor:
    """[LENGTH, 6, WORDS] float64: the law mu_gamma, which says the target's next token gamma times as often as another.

    Args:
        gamma: 1 is the uniform law.
    """
    weights = torch.ones(FOUND + 1, WORDS, dtype=torch.float64)
    weights[range(FOUND), TARGET] = gamma
    weights[FOUND] = torch.eye(WORDS, dtype=torch.float64)[END]  # its samples go on with the end once they are right
    return (weights / weights.sum(dim=1, keepdim=True)).expand(LENGTH, -1, -1)


def q_and_v(law: Tensor) -> tuple[Tensor, Tensor]:
    """Exact chances of success by backward dynamic programming.

    Args:
        law: [LENGTH, 6, WORDS] float64, probabilities of the next token by t and k.

    Returns:
        Q [LENGTH, 6, WORDS] after token a, and V [LENGTH + 1, 6] before it; V[0, 0] is the chance at the start.
    """
    v = torch.zeros(LENGTH + 1, FOUND + 1, dtype=torch.float64)
    q = torch.zeros(LENGTH, FOUND + 1, WORDS, dtype=torch.float64)
    v[LENGTH, FOUND] = 1
    for t in reversed(range(LENGTH)):
        q[t] = v[t + 1][NEXT]
        q[t, :FOUND, END] = 0  # it ends before the target was there
        v[t] = (law[t] * q[t]).sum(dim=1)
    return q, v


def visits(law: Tensor) -> Tensor:
    """[LENGTH, 6] float64: the chance to be undecided at time t with k tokens spelled."""
    d = torch.zeros(LENGTH + 1, FOUND + 1, dtype=torch.float64)
    d[0, 0] = 1
    for t in range(LENGTH):
        flow = d[t, :FOUND, None] * law[t, :FOUND]
        flow[:, END] = 0
        d[t + 1].index_add_(0, NEXT[:FOUND].flatten(), flow.flatten())
        d[t + 1, FOUND] = 0  # decided
    return d[:LENGTH]


def expected_gradient(law: Tensor, signal: Tensor) -> Tensor:
    """The policy gradient of a table of logits over (t, k), expected exactly: d(s) pi(a|s) (signal - E_pi signal).

    Args:
        law: [LENGTH, 6, WORDS] float64, the policy.
        signal: [LENGTH, 6, WORDS] float64, what multiplies the log-probability of token a in state (t, k), on average.

    Returns:
        [LENGTH, 6, WORDS].
    """
    centered = signal - (law * signal).sum(dim=2, keepdim=True)
    return visits(law)[:, :, None] * law * centered


def summed_to_go(law: Tensor, advantages: Tensor) -> Tensor:
    """[LENGTH, 6, WORDS]: a step's advantage and all later ones, expected when `law` goes on; added up, not telescoped.

    Args:
        law: [LENGTH, 6, WORDS] float64.
        advantages: [LENGTH, 6, WORDS] float64.
    """
    total = torch.zeros_like(advantages)
    later = torch.zeros(FOUND + 1, dtype=torch.float64)
    for t in reversed(range(LENGTH)):
        total[t] = advantages[t] + later[NEXT]
        total[t, :FOUND, END] = advantages[t, :FOUND, END]
        total[t, FOUND] = 0  # nothing changes once it is right
        later = (law[t] * total[t]).sum(dim=1)
    return total


def diagnostics(law: Tensor, q: Tensor) -> tuple[float, float]:
    """How a prover's step advantages lie to a policy, exactly: E Var[A^mu] and E[A^mu A^pi], summed over its visits.

    Args:
        law: [LENGTH, 6, WORDS] float64, the policy.
        q: [LENGTH, 6, WORDS] float64, the prover's Q. Its V is the same for all actions and leaves both alone.
    """
    own = q_and_v(law)[0]

    def covariance(a: Tensor, b: Tensor) -> float:
        means = (law * a).sum(dim=2) * (law * b).sum(dim=2)
        return float((visits(law) * ((law * a * b).sum(dim=2) - means)).sum())

    return covariance(q, q), covariance(q, own)


def states(tokens: Tensor) -> Tensor:
    """[n, T + 1] int64: k before each of n x T tokens, and after the last. Ends are the caller's to see to."""
    k = torch.zeros(len(tokens), dtype=torch.int64)
    seen = [k]
    for column in tokens.unbind(dim=1):
        k = NEXT[k, column]
        seen.append(k)
    return torch.stack(seen, dim=1)


def table_law(law: Tensor) -> Law:
    """A table over (t, k) as a law to draw from."""

    def of(tokens: Tensor, t: int) -> Tensor:
        return law[t][states(tokens[:, :t])[:, -1]]

    return of


class Planted:
    """The task: as many problems as asked for, which differ in nothing but their number."""

    name = "planted"

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def problems(self, split: Split) -> Sequence[Problem]:
        """The same in every split: there is nothing to generalize to."""
        return [Problem(id=f"{split}-{i}", prompt="Which sequence?", answer="found") for i in range(self.size)]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right if the target is in the text."""
        found = f" {' '.join(map(str, TARGET))} " in f" {text}"
        reason: Reason = "right" if found else "wrong"
        return Verdict(outcome=float(found), answer="found" if found else None, reason=reason)


def sample(
    law: Law,
    problems: Sequence[Problem],
    k: int,
    rng: Rng,
    prefixes: Sequence[Sequence[int]] | None = None,
    one_step: bool = False,
) -> Rollouts:
    """Draws k responses to each problem; see `Policy.sample`.

    Args:
        law: whom to draw from.
        problems: G of them.
        k: responses to each.
        rng: names the random numbers: the same for every law.
        prefixes: G token sequences to go on from.
        one_step: draw one token and stop there.
    """
    begun = [list(prefix) for prefix in (prefixes or [()] * len(problems)) for _ in range(k)]
    n = len(begun)
    tokens = torch.tensor([prefix + [0] * (LENGTH - len(prefix)) for prefix in begun], dtype=torch.int64)
    mask = torch.zeros(n, LENGTH, dtype=torch.bool)
    logprobs, end = torch.zeros(n, LENGTH), torch.full((n,), int(End.LENGTH))
    size = torch.tensor([len(prefix) for prefix in begun])
    uniforms = torch.from_numpy(rng.child("tokens").numpy().random((n, LENGTH)))
    alive = torch.ones(n, dtype=torch.bool)
    for t in range(int(size.min()), LENGTH):
        rows = (alive & (size <= t)).nonzero()[:, 0]
        if not len(rows):
            continue
        probabilities = law(tokens[rows], t).double()
        drawn = draw(probabilities, uniforms[rows, t, None])
        tokens[rows, t], mask[rows, t] = drawn[:, 0], True
        logprobs[rows, t] = probabilities.gather(1, drawn).log()[:, 0].float()
        over = drawn[:, 0] == END
        end[rows[over]] = int(End.EOS)
        alive[rows[over]] = False
        if one_step:
            end[rows[~over]] = int(End.STOP if t + 1 < LENGTH else End.LENGTH)
            alive[rows] = False
    return _rollouts(problems, k, tokens, mask, size, logprobs, end)


def _rollouts(
    problems: Sequence[Problem], k: int, tokens: Tensor, mask: Tensor, begun: Tensor, logprobs: Tensor, end: Tensor
) -> Rollouts:
    sizes = (begun + mask.sum(dim=1)).tolist()
    rows = [row[:size] for row, size in zip(tokens.tolist(), sizes, strict=True)]
    pieces = tuple(tuple("" if token == END else f"{token} " for token in row) for row in rows)
    return Rollouts(
        seq=Sequences(
            prompts=tuple(torch.zeros(1, dtype=torch.int64) for _ in problems),
            group=torch.arange(len(problems)).repeat_interleave(k),
            tokens=tokens,
            mask=mask,
        ),
        problems=tuple(problems),
        text=tuple("".join(row) for row in pieces),
        pieces=pieces,
        logprobs=logprobs,
        end=end,
    )


class TableContinues:
    """A table over (t, k) that a search can go on with, one token at a time."""

    def __init__(self, law: Tensor, one_step: bool = True) -> None:
        self._law = table_law(law)
        self._one_step = one_step

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """One more token, or all of them."""
        return sample(self._law, problems, k, rng, prefixes, self._one_step)
