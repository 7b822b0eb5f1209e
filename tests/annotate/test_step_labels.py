"""Labels of steps from counts, confidences and outcomes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from labeling_worlds import ChainPolicy, PitPolicy, PitTask, chain

from reckon.annotate import (
    FirstPit,
    best_of_k_labels,
    confidence_labels,
    hard_labels,
    label_first_pits,
    label_prefixes,
    outcome_labels,
    soft_labels,
    step_rows,
)
from reckon.errors import InputError
from reckon.steps import Pattern
from reckon.types import Rng

NAN = float("nan")


def close(tensor, expected):
    torch.testing.assert_close(tensor, torch.tensor(expected), equal_nan=True, rtol=1e-5, atol=1e-6)


def test_math_shepherd_by_hand():
    correct, n = torch.tensor([[8, 3, 0, 0]]), torch.tensor([[8, 8, 8, 0]])
    close(hard_labels(correct, n), [[1.0, 1.0, 0.0, NAN]])
    close(soft_labels(correct, n), [[1.0, 0.375, 0.0, NAN]])


def test_best_of_k_by_hand():
    """n = 20, c = 2, K = 4: 1 - (18 * 17 * 16 * 15) / (20 * 19 * 18 * 17) = 1 - 240 / 380 = 0.36842; plug-in 0.3439."""
    labels = best_of_k_labels(torch.tensor([2, 0, 20, 2, 1]), torch.tensor([20, 20, 20, 3, 4]), 4)
    close(labels, [1 - 240 / 380, 0.0, 1.0, NAN, 1.0])
    close(best_of_k_labels(torch.tensor([2]), torch.tensor([8]), 1), [0.25])


@given(st.integers(1, 4), st.floats(0, 1), st.integers(0, 4))
def test_best_of_k_labels_are_unbiased(k, p, more):
    n = k + more
    c = torch.arange(n + 1)
    law = torch.tensor([math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)], dtype=torch.float64)
    mean = (law * best_of_k_labels(c, torch.full_like(c, n), k)).sum().item()
    assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-6)


def test_confidence_labels_by_hand():
    """Relative changes: 0.5 to 0.6: +0.2; 0.6 to 0.25: -0.583 < -0.5, wrong; 0.25 to 0.5: +1, right by itself."""
    confidence = torch.tensor([[0.5, 0.6, 0.25, 0.5], [0.8, 0.4, 0.21, NAN], [NAN, 0.9, 0.0, 0.9]])
    close(confidence_labels(confidence), [[1.0, 0.0, 0.0], [1.0, 1.0, NAN], [1.0, 0.0, 0.0]])
    # 0.8 to 0.4 is exactly -0.5, not less. After 0.0 there is nothing to lose: the next step is wrong by itself too.
    close(confidence_labels(confidence, after="own"), [[1.0, 0.0, 1.0], [1.0, 1.0, NAN], [1.0, 0.0, 0.0]])
    close(confidence_labels(confidence, threshold=-0.1)[1:2], [[0.0, 0.0, NAN]])


def test_with_true_values_a_lost_step_is_labeled_wrong_and_no_other():
    policy, task = PitPolicy(error=0.2, steps=5), PitTask(steps=5)
    labels = label_prefixes(policy, task, policy.sample(task.problems("train"), 4, Rng((0,))), Pattern(), 1, Rng((0,)))
    exact = torch.full(labels.values().q.shape, NAN)
    truth = torch.full((exact.shape[0], exact.shape[1] - 1), NAN)
    for record in labels:
        exact[record.trace, record.step] = policy.value(record.text)
        if record.step:
            truth[record.trace, record.step - 1] = float("b" not in record.text)
    assert 0 in truth
    torch.testing.assert_close(confidence_labels(exact), truth, equal_nan=True)


def test_outcome_copied_to_steps():
    close(outcome_labels(torch.tensor([1.0, 0.0, NAN]), torch.tensor([2, 1, 2])), [[1.0, 1.0], [0.0, NAN], [NAN, NAN]])
    assert outcome_labels(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0, 0)


def test_rows_for_stepwise_supervision():
    policy, task = ChainPolicy(), chain()
    seeds = policy.sample(task.problems("train")[:2], 1, Rng((0,)))
    labels = label_prefixes(policy, task, seeds, Pattern(","), 4, Rng((0,)))
    rows = step_rows(labels)
    assert [row["prompt"] for row in rows] == [problem.prompt for problem in seeds.problems]
    for row, text, q in zip(rows, seeds.text, labels.values().q, strict=True):
        assert "".join(row["completions"]) == text
        assert row["truncated"] is False
        assert row["labels"] == pytest.approx(q[1:].tolist())  # the value after each step, not the one before it
    hard = step_rows(labels, "hard")
    assert [row["labels"] for row in hard] == [[value > 0 for value in row["labels"]] for row in rows]


def test_rows_up_to_a_pit_end_there():
    policy, task = PitPolicy(error=0.1, steps=6), PitTask(steps=6)
    seeds = policy.sample(task.problems("train")[:2], 1, Rng((0,)))
    rows = step_rows(label_first_pits(policy, task, seeds, Pattern(), 4, Rng((0,)), hunt=FirstPit(n_rough=32)))
    assert rows
    assert {row["labels"][-1] for row in rows} == {0.0}
    assert [row["truncated"] for row in rows] == [len(row["labels"]) < 6 for row in rows]
    assert True in {row["truncated"] for row in rows}
    assert all(len(row["labels"]) == len(row["completions"]) for row in rows)


def test_bad_input_is_told():
    with pytest.raises(InputError, match=r"`threshold` is 0\.5; it is a loss"):
        confidence_labels(torch.zeros(1, 2), threshold=0.5)
    with pytest.raises(InputError, match="`after` is 'right'"):
        confidence_labels(torch.zeros(1, 2), after="right")
    with pytest.raises(InputError, match="a logit goes through a sigmoid"):
        confidence_labels(torch.full((1, 2), 1.5))
    with pytest.raises(ValueError, match="correct must lie"):
        soft_labels(torch.tensor([3]), torch.tensor([2]))
    with pytest.raises(ValueError, match="of one shape"):
        hard_labels(torch.tensor([1]), torch.tensor([[2]]))
