"""The staged head: by hand, against the exact solver, and that training it with torch arrives at the same place."""

import numpy as np
import pytest
import torch
from judge_models import Says, batch_of

from reckon.errors import InputError
from reckon.ordinal import PrestoClassifier, PrestoClassifierCV
from reckon.rewards import StagedReward, StagedRewardHead, stage_of_verdict, staged_log_probabilities
from reckon.types import Verdict


def rollouts(n=300, width=4):
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n, width))
    scores = np.array([-0.5, 1.0, 2.5]) + hidden[:, :1] @ np.array([[0.8, 0.8, 0.4]])
    stages = (rng.uniform(size=(n, 1)) > 1 / (1 + np.exp(-scores))).sum(axis=1)
    return torch.from_numpy(hidden), torch.from_numpy(stages)


def test_one_row_of_the_middle_stage():
    """log(s(2) - s(0)) and its slopes, as in the specification."""
    scores = torch.tensor([[0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    found = staged_log_probabilities(scores, torch.tensor([1]))
    found.sum().backward()
    assert found.item() == pytest.approx(-0.96548865, abs=1e-8)
    assert scores.grad[0].tolist() == pytest.approx([-0.65651764, 0.27572056], abs=1e-8)


def test_ends_of_the_order_and_saturated_scores():
    scores = torch.tensor([[0.0, 2.0], [0.0, 2.0], [-900.0, 900.0]], requires_grad=True)
    found = staged_log_probabilities(scores, torch.tensor([0, 2, 1]))
    found.sum().backward()
    assert found.tolist() == pytest.approx([np.log(0.5), np.log(1 - 1 / (1 + np.exp(-2))), 0.0], abs=1e-6)
    assert scores.grad.isfinite().all()


def test_boundaries_that_crossed_are_led_back():
    scores = torch.tensor([[1.0, 0.0]], requires_grad=True)
    staged_log_probabilities(scores, torch.tensor([1])).sum().backward()
    assert scores.grad[0, 0] < -100
    assert scores.grad[0, 1] > 100


def test_fit_is_the_exact_solvers():
    hidden, stages = rollouts()
    head = StagedRewardHead(4, 4).double().fit(hidden, stages)
    model = PrestoClassifierCV().fit(hidden.numpy(), stages.numpy())
    assert head.probabilities(hidden).detach().numpy() == pytest.approx(model.predict_proba(hidden.numpy()), abs=1e-9)
    rare = torch.from_numpy(model.predict_rare(hidden.numpy()))
    assert torch.allclose(head.score(hidden), rare.logit())
    assert torch.allclose(head.utility(hidden, [0.0, 0.0, 0.0, 1.0]), rare)


def test_training_with_torch_arrives_where_the_solver_does():
    hidden, stages = rollouts()
    lam, rate = 0.02, 0.2
    model = PrestoClassifier(lam=lam, standardize=False).fit(hidden.numpy(), stages.numpy())
    head = StagedRewardHead(4, 4).double()
    optimizer = torch.optim.SGD(head.parameters(), lr=rate)
    for _ in range(2000):
        optimizer.zero_grad()
        (-staged_log_probabilities(head(hidden), stages).mean()).backward()
        optimizer.step()
        head.shrink(rate * lam)
    assert head.psi.detach().numpy() == pytest.approx(model.psi_, abs=1e-4)
    assert ((head.psi == 0).numpy() == (model.psi_ == 0)).all()
    assert head.intercepts.detach().numpy() == pytest.approx(model.intercepts_, abs=1e-4)


def test_a_new_head_knows_nothing():
    found = StagedRewardHead(3, 4).probabilities(torch.randn(5, 3))
    assert torch.allclose(found, torch.full((5, 4), 0.25))


def test_bad_input():
    hidden, stages = rollouts()
    with pytest.raises(InputError, match="it needs 1 or more, and 2 or more"):
        StagedRewardHead(4, 1)
    with pytest.raises(InputError, match=r"of width 5 got hidden states .300, 4."):
        StagedRewardHead(5, 4).fit(hidden, stages)
    with pytest.raises(InputError, match=r"no row of class .*4"):
        StagedRewardHead(4, 5).fit(hidden, stages)
    with pytest.raises(InputError, match="3 worths for 4 stages"):
        StagedRewardHead(4, 4).utility(hidden, [0.0, 0.5, 1.0])


def known_head():
    """Two features, three stages: beta_1 = (1, 0), beta_2 = (1, -2); alpha = (0, 1)."""
    head = StagedRewardHead(2, 3)
    with torch.no_grad():
        head.psi.copy_(torch.tensor([[1.0, 0.0], [0.0, -2.0]]))
        head.intercepts.copy_(torch.tensor([0.0, 1.0]))
    return head


def said():
    """Three responses of 2, 1 and 0 tokens; the states at the last of them are (1, 0) and (0, 1)."""
    batch = batch_of([["a", "b"], ["c"], []])
    hidden = torch.full((3, batch.seq.mask.shape[1], 2), 7.0)
    hidden[0, 1], hidden[1, 0] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    return Says(hidden=hidden), batch


def test_the_reward_is_the_log_odds_of_the_last_stage_after_the_last_token():
    """-(1 + 1) = -2 and -(1 - 2) = 1; nothing was sampled of the third."""
    model, batch = said()
    values = StagedReward(model, known_head()).score(batch)["staged_reward"].values
    assert values[:2].tolist() == pytest.approx([-2.0, 1.0])
    assert values[2].isnan()
    assert not values.requires_grad


def test_worth_is_expected_over_stages():
    """The first row: s(1) = .731, s(2) = .881; its stages have .731, .150 and .119, and 0, 1 and 10 of worth."""
    model, batch = said()
    values = StagedReward(model, known_head(), worth=(0.0, 1.0, 10.0)).score(batch)["staged_reward"].values
    s1, s2 = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))
    assert values[0].item() == pytest.approx((s2 - s1) + 10 * (1 - s2), abs=1e-6)
    for worth in ((0.0, 1.0), (0.0, 1.0, float("nan"))):
        with pytest.raises(InputError, match="it must be 3 numbers, one for each stage"):
            StagedReward(model, known_head(), worth=worth)


def test_a_head_of_another_width_is_refused():
    model, batch = said()
    with pytest.raises(InputError, match="states have 2 numbers and its head reads 5"):
        StagedReward(model, StagedRewardHead(5, 3)).score(batch)


def test_a_head_is_saved_and_read_back(tmp_path):
    known_head().save(tmp_path)
    found = StagedRewardHead.load(tmp_path)
    assert torch.equal(found.psi, known_head().psi)
    assert torch.equal(found.intercepts, known_head().intercepts)
    (tmp_path / "staged_head.safetensors").write_bytes(b"no tensors")
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match=r"cannot be read .* Fit it again"):
            StagedRewardHead.load(folder)


@pytest.mark.parametrize(
    ("outcome", "answer", "stage"),
    [(None, "3", None), (0.0, None, 0), (0.0, "3", 1), (0.5, "3", 2), (1.0, "3", 3)],
)
def test_stages_that_a_verdict_shows(outcome, answer, stage):
    assert stage_of_verdict(Verdict(outcome=outcome, answer=answer, reason="wrong")) == stage
