"""Mean-field inference over subsets (EquiVSet, Ou et al. 2022, section 3), sampled or exact, and what checks it.

A subset S of n elements has the probability exp(F(S)) / Z. Its stand-in is q(S; psi): every element is in S by itself,
with probability psi_i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from reckon.errors import InputError, RunError
from reckon.subsets._energy import SetFunction

Uniform: TypeAlias = Callable[[tuple[int, ...]], Tensor]  # numbers in [0, 1) of a shape

MOST = 12  # elements of a set whose subsets can all be listed: 4,096


def every_subset(like: Tensor) -> Tensor:
    """[2^n, n], every subset of as many elements as `like` [B, n] has, with its dtype and device.

    Raises:
        InputError: for more than `MOST` elements.
    """
    n = like.shape[-1]
    if n > MOST:
        raise InputError(f"subsets: the subsets of {n} elements cannot be listed (at most {MOST}); set `samples`.")
    codes = torch.arange(2**n, device=like.device).unsqueeze(1)
    return ((codes >> torch.arange(n, device=like.device)) & 1).to(like.dtype)


def multilinear(energy: SetFunction, psi: Tensor) -> Tensor:
    """The multilinear extension f(psi) = sum over S of F(S) q(S; psi), by listing all subsets: [B].

    Args:
        energy: of B sets.
        psi: [B, n] in [0, 1], n at most `MOST`; 0 in padding.
    """
    rows = every_subset(psi)
    likely = torch.where(rows == 1, psi.unsqueeze(1), 1 - psi.unsqueeze(1)).prod(dim=-1)
    return (likely * energy(rows.expand(len(psi), -1, -1))).sum(dim=1)


def exact_gradient(energy: SetFunction, psi: Tensor) -> Tensor:
    """The gradient of the multilinear extension, E[F(S + i) - F(S - i)] for each i, by listing all subsets.

    It can be differentiated by psi and by what the energy is made of.

    Args:
        energy: of B sets.
        psi: [B, n] in [0, 1], n at most `MOST`; 0 in padding.

    Returns:
        [B, n].
    """
    rows = every_subset(psi)
    n = psi.shape[1]
    likely = torch.where(rows == 1, psi.unsqueeze(1), 1 - psi.unsqueeze(1))  # [B, 2^n, n]
    itself = torch.eye(n, dtype=torch.bool, device=psi.device)
    others = likely.unsqueeze(2).masked_fill(itself, 1.0).prod(dim=-1)  # [B, 2^n, n], of all elements but i
    return (energy(rows.expand(len(psi), -1, -1)).unsqueeze(-1) * (2 * rows - 1) * others).sum(dim=1)


def sampled_gradient(energy: SetFunction, psi: Tensor, uniforms: Tensor) -> Tensor:
    """The same gradient by sampling: unbiased, its error falls as one over the root of M.

    The draws are not differentiated, so gradients reach the energy's weights and not psi, as in the released code.

    Args:
        energy: of B sets.
        psi: [B, n] in [0, 1], 0 in padding.
        uniforms: [B, M, n, n] in [0, 1): element i has draws [:, :, i, :] of its own. One row for all elements would
            make their errors depend on each other.

    Returns:
        [B, n].
    """
    b, m, n = uniforms.shape[:3]
    itself = torch.eye(n, dtype=torch.bool, device=psi.device)
    rows = uniforms < psi.detach()[:, None, None, :]
    pair = torch.stack([rows & ~itself, rows | itself], dim=1).to(psi.dtype)
    without, within = energy(pair.reshape(b, 2 * m * n, n)).reshape(b, 2, m, n).unbind(dim=1)
    return (within - without).mean(dim=1)


def entropy(psi: Tensor) -> Tensor:
    """The entropy of q in nats: [B], 0 for what is certain.

    Its gradient is infinite at 0 and 1 and given as 0 there: a sigmoid that has come so far is flat, and infinity times
    0 would be nan.
    """
    certain = (psi <= 0) | (psi >= 1)
    open_ = psi.masked_fill(certain, 0.5)
    each: Tensor = torch.special.entr(open_) + torch.special.entr(1 - open_)
    return each.masked_fill(certain, 0.0).sum(dim=-1)


def elbo(energy: SetFunction, psi: Tensor) -> Tensor:
    """f(psi) plus the entropy of q, which never exceeds log Z: [B]; exact, for n at most `MOST`."""
    return multilinear(energy, psi) + entropy(psi)


def log_partition(energy: SetFunction, mask: Tensor) -> Tensor:
    """The log of Z, over all subsets of the elements that are there: [B]; for n at most `MOST`."""
    return _listed(energy, mask)[1].logsumexp(dim=1)


def marginals(energy: SetFunction, mask: Tensor) -> Tensor:
    """The true probability of each element to be in S: [B, n], 0 in padding; for n at most `MOST`."""
    rows, energies = _listed(energy, mask)
    return energies.softmax(dim=1) @ rows.to(energies.dtype)


def _listed(energy: SetFunction, mask: Tensor) -> tuple[Tensor, Tensor]:
    """All subsets [2^n, n], and their energies [B, 2^n], -inf where padding is in one."""
    rows = every_subset(mask.to(torch.get_default_dtype()))
    stray = (rows.bool() & ~mask.unsqueeze(1)).any(dim=-1)
    return rows, energy(rows.expand(len(mask), -1, -1)).masked_fill(stray, -torch.inf)


def fixed_point(
    update: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    damping: float = 0.0,
    tolerance: float = 1e-6,
    limit: int = 1000,
) -> Tensor:
    """Where psi = update(psi), differentiable by the implicit function theorem, whatever the number of steps.

    With J the Jacobian of the update at the fixed point, a gradient g by psi becomes (I - J^T)^-1 g by the update,
    which is differentiated once. The gradient does not depend on the start.

    Args:
        update: from [B, n] to [B, n]; each set by itself.
        start: [B, n].
        damping: the share of the old psi that is kept in each step, in [0, 1). Updates of elements that repel each
            other may oscillate without it.
        tolerance: steps end when no element moves further.
        limit: steps at most.

    Returns:
        [B, n].

    Raises:
        RunError: it did not settle within `limit` steps.
    """
    at, moved = start.detach(), torch.inf
    with torch.no_grad():
        for _ in range(limit):
            new = damping * at + (1 - damping) * update(at)
            moved, at = float((new - at).abs().max()), new
            if moved <= tolerance:
                break
        else:
            raise RunError(
                f"mean field: no fixed point within {limit} steps, elements still move by {moved:.2g}. Raise `damping`."
            )
    if not torch.is_grad_enabled():
        return at
    leaf = at.requires_grad_()
    image = update(leaf)
    by_element = [torch.autograd.grad(image[:, i].sum(), leaf, retain_graph=True)[0] for i in range(image.shape[1])]
    jacobian = torch.stack(by_element, dim=1)  # [B, i, j], of psi_i by psi_j
    system = (torch.eye(image.shape[1], dtype=image.dtype, device=image.device) - jacobian).mT
    image.register_hook(lambda gradient: torch.linalg.solve(system, gradient))
    # Its value stays that of `at`: where the update is steep and only damping settles it, one more would lead away.
    return leaf.detach() + (image - image.detach())


@dataclass(frozen=True, kw_only=True)
class MeanField:
    """How psi is found for an energy: psi_i <- sigmoid(E[F(S + i) - F(S - i)]), again and again.

    Raises:
        InputError: a setting is out of range, or they do not go together.
    """

    steps: int | None = 1  # None = to the fixed point, differentiated through it; needs exact gradients
    samples: int | None = 5  # draws for each element; None = exact, for at most `MOST` elements
    damping: float = 0.0  # the share of the old psi that is kept, in [0, 1)
    # In turn, each element sees what became of those before it: with exact gradients and no damping the ELBO then never
    # falls. Together is n times as fast, and may oscillate.
    order: Literal["together", "in turn"] = "together"

    def __post_init__(self) -> None:
        if self.order not in ("together", "in turn"):
            raise InputError(f"MeanField: order is {self.order!r}; it must be 'together' or 'in turn'.")
        if not 0 <= self.damping < 1:
            raise InputError(f"MeanField: damping is {self.damping}; it must lie in [0, 1).")
        if (self.steps is not None and self.steps < 1) or (self.samples is not None and self.samples < 1):
            raise InputError(f"MeanField: steps {self.steps} and samples {self.samples} must be at least 1, or None.")
        if self.steps is None and (self.samples is not None or self.order == "in turn"):
            raise InputError(
                "MeanField: steps=None goes to the fixed point, which needs samples=None (exact gradients) and "
                "order='together'."
            )

    def __call__(self, energy: SetFunction, mask: Tensor, uniform: Uniform, start: Tensor | None = None) -> Tensor:
        """Infers how likely each element is to be in the subset.

        Args:
            energy: of B sets.
            mask: [B, n] bool, True where there is an element.
            uniform: where the draws come from; not asked for exact gradients.
            start: [B, n] float32 in [0, 1], treated as a constant; without it 0.5 everywhere.

        Returns:
            [B, n] float32 in [0, 1], 0 in padding; carries the gradient of the energy's weights.

        Raises:
            InputError: too many elements for exact gradients.
            RunError: no fixed point was found.
        """
        begin = torch.full(mask.shape, 0.5, device=mask.device) if start is None else start.detach()
        psi = torch.where(mask, begin, 0.0)

        def update(at: Tensor) -> Tensor:
            return torch.where(mask, self._gradient(energy, at, uniform).sigmoid(), 0.0)

        if self.steps is None:
            return fixed_point(update, psi, damping=self.damping)
        for _ in range(self.steps):
            if self.order == "together":
                psi = self.damping * psi + (1 - self.damping) * update(psi)
                continue
            for i in range(mask.shape[1]):
                here = torch.arange(mask.shape[1], device=mask.device) == i
                psi = torch.where(here, self.damping * psi + (1 - self.damping) * update(psi), psi)
        return psi

    def _gradient(self, energy: SetFunction, psi: Tensor, uniform: Uniform) -> Tensor:
        if self.samples is None:
            return exact_gradient(energy, psi)
        b, n = psi.shape
        return sampled_gradient(energy, psi, uniform((b, self.samples, n, n)).to(psi.device))
