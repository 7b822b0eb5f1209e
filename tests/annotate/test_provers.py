"""Diagnostics of provers, and how early a score tells the outcome."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from labeling_worlds import ChainPolicy, PitPolicy, PitTask, chain

from reckon.annotate import (
    Budget,
    Counts,
    best_of_k_errors,
    best_of_k_provers,
    best_threshold,
    label_actions,
    label_prefixes,
    other_provers,
    predictability,
)
from reckon.errors import InputError
from reckon.process import label_variance
from reckon.steps import Pattern
from reckon.types import Rng

NAN = float("nan")


def binomial(n, p):
    return torch.tensor([math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)], dtype=torch.float64)


def label(c, n, k):
    return 1 - math.comb(n - c, k) / math.comb(n, k)


@given(k=st.integers(1, 4), more=st.integers(0, 3), p=st.floats(0, 1))
def test_the_errors_of_best_of_k_labels_are_estimated_without_bias(k, more, p):
    """Against the variance and covariance of the label under the binomial law itself, by enumeration."""
    n = 2 * k + more
    law = binomial(n, p)
    labels = torch.tensor([label(c, n, k) for c in range(n + 1)], dtype=torch.float64)
    shares = torch.arange(n + 1, dtype=torch.float64) / n
    variance, covariance = best_of_k_errors(torch.arange(n + 1), torch.full((n + 1,), n), k)
    mean = (law * labels).sum()
    assert (law * variance).sum().item() == pytest.approx((law * (labels - mean) ** 2).sum().item(), abs=1e-9)
    exact = (law * (labels - mean) * (shares - p)).sum().item()
    assert (law * covariance).sum().item() == pytest.approx(exact, abs=1e-9)


def test_for_one_completion_they_are_the_variance_of_a_share():
    c, n = torch.arange(6), torch.full((6,), 5)
    variance, covariance = best_of_k_errors(c, n, 1)
    torch.testing.assert_close(variance, label_variance(c, 5))
    torch.testing.assert_close(covariance, label_variance(c, 5))
    assert best_of_k_errors(torch.tensor([1]), torch.tensor([3]), 2)[0].isnan().all()  # 2 k = 4 > 3


def test_label_noise_is_subtracted():
    """Four actions of values 0.2, 0.4, 0.6, 0.8 in 4,000 states, 8 completions each.

    The variance of m actions drawn with equal chance from the four is 0.05; BoK 2 has values 0.36, 0.64, 0.84, 0.96:
    mean 0.7, variance (0.1156 + 0.0036 + 0.0196 + 0.0676) / 4 = 0.0516, covariance with q
    (0.3 * 0.34 + 0.1 * 0.06 + 0.1 * 0.14 + 0.3 * 0.26) / 4 = 0.05.
    """
    generator = torch.Generator().manual_seed(0)
    q = torch.tensor([0.2, 0.4, 0.6, 0.8])[torch.randint(4, (4000, 4), generator=generator)]
    correct = torch.binomial(torch.full_like(q, 8), q, generator=generator).long()
    one, two = best_of_k_provers(Counts(correct=correct, n=torch.full_like(correct, 8)), [1, 2])
    for quality, apart, agreed in ((one, 0.05, 0.05), (two, 0.0516, 0.05)):
        assert abs(quality.distinguishability - apart) < 4 * quality.distinguishability_error
        assert abs(quality.alignment - agreed) < 4 * quality.alignment_error
        assert quality.states == 4000
        assert quality.distinguishability_error < 0.0015
    noisy = (correct / 8).var(dim=1).mean().item()
    assert noisy > 0.065  # what would have been reported without


def test_actions_of_a_known_world():
    """Pits: from the start a step is bad with chance 0.3. Values after it: 0.7^3 = 0.343, or 0: with policy itself.

    Its variance is 0.3 * 0.7 * 0.343^2 = 0.0247. A prover that never errs has 1 or 0: 0.21, aligned by 0.21 * 0.343 =
    0.0720. One that always errs has 0 whatever is done.
    """
    policy, task = PitPolicy(error=0.3, steps=4), PitTask(steps=4)
    seeds = policy.sample(list(task.problems("train")) * 1, 1, Rng((0,)))
    states = [record for record in label_prefixes(policy, task, seeds, Pattern(), 1, Rng((0,))) if record.step == 0]
    provers = {"perfect": PitPolicy(error=0.0, steps=4), "hopeless": PitPolicy(error=1.0, steps=4)}
    actions = label_actions(policy, task, states, Pattern(), 32, 16, Rng((1,)), provers=provers)
    assert actions.cost.rollouts == 8 * 32 * (1 + 16 * 3)
    (own,) = best_of_k_provers(actions.policy, [1])
    perfect, hopeless = other_provers(actions)
    assert (perfect.name, hopeless.name) == ("perfect", "hopeless")
    assert abs(own.distinguishability - 0.0247) < 4 * own.distinguishability_error
    assert abs(perfect.distinguishability - 0.21) < 4 * perfect.distinguishability_error
    assert abs(perfect.alignment - 0.0720) < 4 * perfect.alignment_error
    assert (hopeless.distinguishability, hopeless.alignment) == (0.0, 0.0)


def test_an_action_is_the_step_behind_the_state():
    """After one good step of four: values 0.7^2 = 0.49 or 0, of variance 0.3 * 0.7 * 0.49^2 = 0.0504."""
    policy, task = PitPolicy(error=0.3, steps=4), PitTask(steps=4)
    seeds = policy.sample(task.problems("train"), 2, Rng((0,)))
    labels = label_prefixes(policy, task, seeds, Pattern(), 1, Rng((0,)))
    states = [record for record in labels if record.text == "g\n"]
    actions = label_actions(policy, task, states, Pattern(), 32, 16, Rng((1,)))
    (own,) = best_of_k_provers(actions.policy, [1])
    assert own.states == len(states) > 5
    assert abs(own.distinguishability - 0.0504) < 4 * own.distinguishability_error


def test_actions_that_end_the_response_are_checked():
    policy, task = ChainPolicy(error=0.5), chain(operations=1)
    seeds = policy.sample(task.problems("train")[:3], 1, Rng((0,)))
    states = [r for r in label_prefixes(policy, task, seeds, Pattern(","), 1, Rng((0,))) if r.step == 0]
    actions = label_actions(policy, task, states, Pattern(","), 4, 5, Rng((1,)))
    assert actions.cost.rollouts == 12  # the actions themselves
    assert set(actions.policy.correct.flatten().tolist()) <= {0, 5}
    assert bool((actions.policy.n == 5).all())


def test_too_little_for_a_diagnosis_is_told():
    policy, task = ChainPolicy(), chain()
    seeds = policy.sample(task.problems("train")[:1], 1, Rng((0,)))
    states = label_prefixes(policy, task, seeds, Pattern(","), 1, Rng((0,))).records[:1]
    with pytest.raises(InputError, match="at least 2 actions and 2 completions"):
        label_actions(policy, task, states, Pattern(","), 1, 5, Rng((0,)))
    with pytest.raises(InputError, match="there is no state"):
        label_actions(policy, task, [], Pattern(","), 2, 5, Rng((0,)))
    with pytest.raises(InputError, match="may take 12 rollouts, more than the budget"):
        label_actions(policy, task, states, Pattern(","), 2, 5, Rng((0,)), budget=Budget(rollouts=11))
    with pytest.raises(ValueError, match="k is 0"):
        best_of_k_errors(torch.tensor([1]), torch.tensor([2]), 0)


def test_a_threshold_by_hand():
    """Scores 1 2 3 4 with outcomes 0 1 0 1: from 1.5 up one error (3), and so it is from 3.5 up (2): the lower one."""
    assert best_threshold(torch.tensor([3.0, 1.0, 4.0, 2.0]), torch.tensor([False, False, True, True])) == 1.5
    assert best_threshold(torch.tensor([1.0, 2.0]), torch.tensor([True, True])) == -math.inf
    assert best_threshold(torch.tensor([1.0, 2.0]), torch.tensor([False, False])) == math.inf
    assert best_threshold(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([True, False, False])) == math.inf  # no parting


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_is_better(rows):
    scores = torch.tensor([float(score) for score, _ in rows])
    right = torch.tensor([truth for _, truth in rows])

    def errors(threshold):
        return int(((scores >= threshold) != right).sum())

    assert errors(best_threshold(scores, right)) == min(errors(t) for t in [-math.inf, 0.5, 1.5, 2.5, 3.5, math.inf])


def test_predictability_by_hand():
    """Step 1: fitted on 0.25 wrong, 0.75 right: threshold 0.5; tested on 0.6 wrong, 0.9 right: one of two false.

    Step 2: only the second fitting row is so long, it is right: everything is; tested on one row that is right.
    """
    scores = torch.tensor([[0.25, NAN], [0.75, 0.7], [0.6, NAN], [0.9, 0.1], [0.5, 0.5]])
    outcome = torch.tensor([0.0, 1.0, 0.0, 1.0, NAN])
    fitting = torch.tensor([True, True, False, False, False])
    first, second = predictability(scores, outcome, fitting)
    assert (first.step, first.threshold, first.error, first.constant_error, first.n) == (1, 0.5, 0.5, 0.5, 2)
    assert (second.step, second.threshold, second.error, second.n) == (2, -math.inf, 0.0, 1)
    assert predictability(scores, outcome, torch.zeros(5, dtype=torch.bool)) == []
    with pytest.raises(ValueError, match="same number of rows"):
        predictability(scores, outcome[:3], fitting)
