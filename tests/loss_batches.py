"""Mini-batches with their credit, every objective there is, and what is learned from them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch

from reckon.losses import ClippedRatio, EntropyBonus, KLPenalty, PolicyGradient, ValueLoss
from reckon.types import Batch, Credit, Outputs, Problem, Rollouts, Seen, Sequences


@dataclass
class Fixed:
    """A reference that answers every batch of the right size with the same log-probs."""

    logprobs: torch.Tensor
    asked: list[int] = field(default_factory=list)

    def outputs(self, seq: Sequences, want: Iterable[str] = ("logprobs",)) -> Outputs:
        assert tuple(want) == ("logprobs",)
        self.asked.append(len(seq.tokens))
        return Outputs(logprobs=self.logprobs)


def batch_of(mask, old):
    n = len(mask)
    nothing = torch.zeros(0)
    rollouts = Rollouts(
        seq=Sequences(
            prompts=(torch.tensor([1]),),
            group=torch.zeros(n, dtype=torch.int64),
            tokens=torch.zeros(mask.shape, dtype=torch.int64),
            mask=mask,
        ),
        problems=(Problem(id="0", prompt="?"),),
        text=("",) * n,
        pieces=((),) * n,
        logprobs=old,
        end=torch.zeros(n, dtype=torch.int64),
    )
    return Batch(
        rollouts=rollouts,
        outcome=torch.zeros(n),
        train=torch.ones(n, dtype=torch.bool),
        seen=Seen(problems=(), outcome=nothing, lengths=nothing.long(), end=nothing.long(), rounds=1, wanted=1, kept=1),
        step=0,
    )


def credit_of(advantages, mask, weights=None):
    if advantages.ndim == 1:
        advantages = advantages[:, None].expand(mask.shape)
    return Credit(
        advantages=torch.where(mask, advantages, 0.0),
        weights=torch.ones(mask.shape) if weights is None else weights,
        mask=mask,
    )


def drawn(n=6, width=5, seed=0):
    """A ragged batch with a row that does not train, its credit, log-probs, the reference's, and entropies.

    The entropies serve as values too; a critic had others before.
    """
    rng = torch.Generator().manual_seed(seed)
    mask = torch.arange(width) < torch.randint(1, width + 1, (n,), generator=rng)[:, None]
    trains = mask.clone()
    trains[1] = False
    old, ref, entropy = (-3 * torch.rand(n, width, generator=rng) for _ in range(3))
    logprobs = old + 0.4 * torch.randn(n, width, generator=rng)
    weights = torch.rand(n, width, generator=rng)
    credit = credit_of(torch.randn(n, width, generator=rng), trains, weights)
    returns, values = torch.randn(2, n, width, generator=rng).unbind()
    return batch_of(mask, old), replace(credit, returns=returns, values=values - entropy), logprobs, ref, -entropy


def parts_of(ref):
    return {
        "clipped": ClippedRatio(),
        "dapo": ClippedRatio(high=0.28, dual=3.0, average="tokens"),
        "gspo": ClippedRatio(low=0.1, high=0.1, level="sequence"),
        "gradient": PolicyGradient(average="constant", length=7),
        "k2": KLPenalty(reference=Fixed(ref), coef=0.1, estimator="k2", average="tokens"),
        "k3": KLPenalty(reference=Fixed(ref), coef=0.1),
        "entropy": EntropyBonus(coef=0.1),
        "white": ClippedRatio(whiten=True, average="tokens"),
        "white gradient": PolicyGradient(whiten=True),
        "value": ValueLoss(average="sequences"),
        "held value": ValueLoss(clip=0.5, coef=0.7),
    }


def learn(objective, batch, credit, logprobs, entropy=None):
    """Loss [N, T] and its gradient with respect to log-probs (and entropies, added)."""
    leaf = logprobs.clone().requires_grad_()
    other = None if entropy is None else entropy.clone().requires_grad_()
    loss = objective(Outputs(logprobs=leaf, entropy=other, values=other), objective.prepare(batch, credit))
    loss.sum().backward()
    zero = torch.zeros_like(leaf)
    return loss.detach(), (zero if leaf.grad is None else leaf.grad) + (
        zero if other is None or other.grad is None else other.grad
    )
