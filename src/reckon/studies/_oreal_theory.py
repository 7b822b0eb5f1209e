"""Section 5 (a) of the specification oreal: its identities on random laws of five outcomes."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from reckon.objectives import kl
from reckon.process import best_of_k_kl, best_of_k_law, best_of_k_temperature
from reckon.types import Rng

OUTCOMES, BEST = 5, (1, 2, 4)  # best-of-4 has 625 ways to come about


def largest_errors(seed: int) -> dict[str, float]:
    """How far both sides of each identity are apart at most, in float64, for a law drawn by `seed`."""
    numbers = Rng((seed, "oreal", "theory")).numpy()
    logits = torch.from_numpy(numbers.normal(size=OUTCOMES))
    right = torch.zeros(OUTCOMES, dtype=torch.bool)
    right[torch.from_numpy(numbers.permutation(OUTCOMES)[:2])] = True
    other = torch.from_numpy(numbers.normal(size=OUTCOMES))
    found = [_of_best(logits, right, k) for k in BEST]
    return {name: max(one[name] for one in found) for name in found[0]} | {
        "reshaping": _reshaping(logits, right),
        "sampled k3": _sampled_k3(logits, other),
    }


def _of_best(logits: Tensor, right: Tensor, k: int) -> dict[str, float]:
    law = logits.softmax(dim=0)
    p = law[right].sum()
    best = best_of_k_law(law, right, k)
    enumerated = torch.zeros(OUTCOMES, dtype=torch.float64)
    for drawn in itertools.product(range(OUTCOMES), repeat=k):
        taken = next((y for y in drawn if right[y]), drawn[0])
        enumerated[taken] += law[list(drawn)].prod()
    tilted = (logits + right / best_of_k_temperature(p, k)).softmax(dim=0)  # k = 1: alpha is infinite
    divergence = (best * (best / law).log()).sum()
    leaf = logits.clone().requires_grad_()
    chance = leaf.softmax(dim=0)[right].sum()
    (slope,) = torch.autograd.grad(chance, leaf, retain_graph=True)
    (best_slope,) = torch.autograd.grad(1 - (1 - chance) ** k, leaf)
    return {
        "law of the best": _apart(best, enumerated),
        "optimum under KL": _apart(best, tilted),
        "KL of the best": _apart(divergence, best_of_k_kl(p, k)),
        "gradient of the best": _apart(best_slope, k * (1 - p) ** (k - 1) * slope),
    }


def _reshaping(logits: Tensor, right: Tensor) -> float:
    """E[1{right} grad log pi] = -E[1{wrong} grad log pi]: no side needs another factor than the other."""
    law = logits.softmax(dim=0)
    scores = torch.eye(OUTCOMES, dtype=torch.float64) - law  # [y, logit]: grad log pi(y)
    ours, theirs = ((law * side)[:, None] * scores for side in (right, ~right))
    return _apart(ours.sum(dim=0), -theirs.sum(dim=0))


def _sampled_k3(logits: Tensor, other: Tensor) -> float:
    """k3 as a loss on the policy's samples pulls along the gradient of KL(ref || pi), which is pi - ref."""
    leaf, ref = logits.clone().requires_grad_(), other.log_softmax(dim=0)
    log_law = leaf.log_softmax(dim=0)
    penalty = kl(log_law[None], ref[None], torch.ones(1, OUTCOMES, dtype=torch.bool))[0]
    (sampled,) = torch.autograd.grad((log_law.detach().exp() * penalty).sum(), leaf)
    reverse = logits.clone().requires_grad_()
    (exact,) = torch.autograd.grad((ref.exp() * (ref - reverse.log_softmax(dim=0))).sum(), reverse)
    return max(_apart(sampled, exact), _apart(sampled, log_law.detach().exp() - ref.exp()))


def _apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max())
