"""Which prover to take: does it tell the policy's steps apart, and does it agree with the policy on them?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reckon.annotate._cost import Budget, Cost, Purse
from reckon.annotate._draw import Continues, Drawer, Drawing, Trace, count, make_trace
from reckon.annotate._prefixes import check_count
from reckon.annotate._records import PrefixLabel
from reckon.errors import InputError
from reckon.process import alignment, distinguishability, label_variance, unbiased_best_of_k
from reckon.steps import Splitter
from reckon.types import Problem, Rng, Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """How often a prover succeeded after each of m actions in S states."""

    correct: Tensor  # [S, m] int64
    n: Tensor  # [S, m] int64, completions with a known verdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Actions:
    """Next steps drawn from the policy in S states, valued by the policy and by provers."""

    policy: Counts
    provers: Mapping[str, Counts]
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class ProverQuality:
    """Diagnostics of one prover, as means over states. They are no bound on what a training step gains."""

    name: str
    distinguishability: float  # of its Q over the policy's actions, label noise subtracted
    distinguishability_error: float  # standard error of the mean over states
    alignment: float  # with the policy's advantages
    alignment_error: float
    states: int  # with enough labels to count


def label_actions(
    policy: Continues,
    task: Task,
    states: Sequence[PrefixLabel],
    splitter: Splitter,
    m: int,
    n_mc: int,
    rng: Rng,
    *,
    provers: Mapping[str, Continues] | None = None,
    drawing: Drawing | None = None,
    budget: Budget | None = None,
) -> Actions:
    """Draws m next steps from the policy in each state, and lets the policy and every prover finish them n_mc times.

    All draws are independent, so labels of two provers have independent errors. Actions that end the response are
    checked. The cost is at most S * m * (1 + n_mc * (1 + provers)) rollouts.

    Args:
        policy: whose actions are valued.
        task: checks answers.
        states: prefixes that have not ended, such as labels of `label_prefixes` with step < steps.
        splitter: says where steps end.
        m: actions in each state, at least 2.
        n_mc: completions of each action, at least 2 so that label noise can be told.
        rng: names the random numbers.
        provers: other policies by name.
        drawing: how completions are drawn and judged; its `policy_id` does not matter here.
        budget: the most that may be spent.

    Raises:
        InputError: a number is too small, there is no state, or the budget is below the worst case.
    """
    if m < 2 or n_mc < 2:
        raise InputError(f"`m` is {m} and `n_mc` {n_mc}; a variance needs at least 2 actions and 2 completions each.")
    if not states:
        raise InputError("there is no state to draw actions in; give labels of prefixes that have not ended.")
    drawing, others = drawing or Drawing(), dict(provers or {})
    purse = Purse(budget, drawing.most_tokens)
    worst = len(states) * m * (1 + n_mc * (1 + len(others)))
    if not purse.affords(worst):
        raise InputError(f"valuing the actions may take {worst} rollouts, more than the budget. Take fewer states.")
    drawer = Drawer(policy, task, drawing, purse)
    asked = [(state.problem, state.tokens) for state in states]
    actions: list[_Action] = []
    for many, (problem, prefix) in zip(drawer.complete(asked, m, rng.child("actions")), asked, strict=True):
        for one in many:
            trace = make_trace(problem, one, splitter, drawing, where="an action")
            actions.append(_action(trace, len(prefix)))
    found = {
        name: _value(Drawer(prover, task, drawing, purse), actions, len(states), n_mc, rng.child("value", name))
        for name, prover in {"": policy, **others}.items()
    }
    return Actions(policy=found.pop(""), provers=found, cost=purse.spent)


@dataclass(frozen=True)
class _Action:
    problem: Problem
    tokens: tuple[int, ...]
    over: bool  # nothing can follow
    outcome: int | None


def _action(trace: Trace, given: int) -> _Action:
    """The state's prefix and the first step that ends behind it."""
    end = next((end for end in trace.ends if end >= given), len(trace.tokens) - 1)
    over = end == len(trace.tokens) - 1
    return _Action(trace.problem, trace.tokens[: end + 1], over, trace.outcome)


def _value(drawer: Drawer, actions: Sequence[_Action], states: int, n_mc: int, rng: Rng) -> Counts:
    check_count("n_mc", n_mc)
    live = [(action.problem, action.tokens) for action in actions if not action.over]
    drawn = iter(drawer.complete(live, n_mc, rng))
    n, correct = [], []
    for action in actions:
        if action.over:
            n.append(0 if action.outcome is None else n_mc)
            correct.append(n_mc * (action.outcome or 0))
        else:
            found = count(next(drawn), len(action.tokens))
            n.append(found.n)
            correct.append(found.correct)
    return Counts(
        correct=torch.tensor(correct).reshape(states, -1),
        n=torch.tensor(n).reshape(states, -1),
    )


def best_of_k_errors(correct: Tensor, n: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Variance of an unbiased best-of-k label, and its covariance with q-hat of the same completions; both unbiased.

    With c right of n, write W(j) = C(n - c, j) / C(n, j), which estimates (1 - p)^j. The label is 1 - W(k), so its
    variance is E W(k)^2 - (1 - p)^(2k), estimated by W(k)^2 - W(2k). The covariance of 1 - W(k) and c / n is
    p (1 - p)^k - E[W(k) c / n], and c / n * C(n - c, k) / C(n - 1, k) estimates the product without bias. For k = 1
    both are q (1 - q) / (n - 1). Own derivation: Setlur et al. (arXiv:2410.08146) do not treat label noise.

    Args:
        correct: c, any shape.
        n: completions with a known verdict, of the same shape.
        k: at least 1.

    Returns:
        Two tensors of float64 of that shape, NaN where n is below 2 k.
    """
    if k < 1:
        raise ValueError(f"k is {k}, but must be at least 1")
    enough = n >= 2 * k
    total = torch.where(enough, n, 2 * k)
    c = torch.where(enough, correct, 0)
    none_right = 1 - unbiased_best_of_k(c, total, k)
    variance = none_right.square() - (1 - unbiased_best_of_k(c, total, 2 * k))
    share = c.double() / total
    # C(n - c, k) / C(n - 1, k): k wrong ones out of all but one right one, whichever it is.
    beside = 1 - unbiased_best_of_k((c - 1).clamp(min=0), total - 1, k)
    covariance = torch.where(c > 0, share * beside, 0.0) - none_right * share
    return torch.where(enough, variance, torch.nan), torch.where(enough, covariance, torch.nan)


def best_of_k_provers(policy: Counts, ks: Sequence[int]) -> list[ProverQuality]:
    """Diagnostics of the provers that keep a right one of k completions of the policy, from its own counts.

    Prover and policy are then estimated from the same completions: what their labels share is subtracted too.

    Args:
        policy: counts of the policy itself.
        ks: k needs at least 2 k completions of every action of a state, else the state does not count.
    """
    q = policy.correct.double() / policy.n.clamp(min=1)
    qualities = []
    for k in ks:
        variance, covariance = best_of_k_errors(policy.correct, policy.n, k)
        enough = policy.n >= k
        prover = unbiased_best_of_k(torch.where(enough, policy.correct, 0), torch.where(enough, policy.n, k), k)
        qualities.append(_quality(f"BoK {k}", distinguishability(prover, variance), alignment(prover, q, covariance)))
    return qualities


def other_provers(actions: Actions) -> list[ProverQuality]:
    """Diagnostics of the other policies that finished the same actions, by name."""
    q = _shares(actions.policy)
    return [
        _quality(
            name,
            distinguishability(_shares(counts), label_variance(counts.correct, counts.n)),
            alignment(_shares(counts), q),  # completions of their own: no error is shared
        )
        for name, counts in actions.provers.items()
    ]


def _shares(counts: Counts) -> Tensor:
    """[S, m] float64, NaN where no verdict is known."""
    return torch.where(counts.n > 0, counts.correct.double() / counts.n.clamp(min=1), torch.nan)


def _quality(name: str, apart: Tensor, agreed: Tensor) -> ProverQuality:
    known = ~(apart.isnan() | agreed.isnan())
    apart_mean, apart_error = _mean(apart[known])
    agreed_mean, agreed_error = _mean(agreed[known])
    return ProverQuality(
        name=name,
        distinguishability=apart_mean,
        distinguishability_error=apart_error,
        alignment=agreed_mean,
        alignment_error=agreed_error,
        states=int(known.sum()),
    )


def _mean(values: Tensor) -> tuple[float, float]:
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    return mean, float(values.std() / math.sqrt(n)) if n > 1 else math.nan
