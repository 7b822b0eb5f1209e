"""The world of the study against enumeration and the task's own checker, and every line of the study once."""

import itertools
import math

import numpy as np
import pytest
import torch

from reckon.models import Optimization
from reckon.rewards import OnlineImplicitReward
from reckon.samplers import All, Uniform, collect
from reckon.studies import prime
from reckon.studies._prime_world import ChainPolicy, ExactSteps, chance_of_success, start_table, valid_steps
from reckon.studies.prime import CLAIMS, STUDY, cell
from reckon.tasks import ChainArithmetic
from reckon.types import Rng

ADAM = Optimization(lr=0.05, beta2=0.999, clip=None)
TASK = ChainArithmetic(seed=2, operations=3, train=60, dev=0, test=20)


@pytest.fixture
def noisy():
    return ChainPolicy(start_table(0.6, Rng((5,))), ADAM)


def batch_from(policy, n=20, k=4, seed=1):
    def verify(rollouts):
        return [TASK.check(rollouts.problem(row), text) for row, text in enumerate(rollouts.text)]

    return collect(Uniform(TASK), policy, verify, All(), n, k, Rng((seed,)), step=0)


def test_the_chance_of_success_is_that_of_all_paths(noisy):
    """Two operations: 10 starts, 81 pairs of operands, 100 ways to answer, one by one."""
    law = noisy.logits.detach().double().softmax(dim=2).numpy()
    total = 0.0
    for start, first, second in itertools.product(range(10), range(1, 10), range(1, 10)):
        right = (start + first + second) % 10
        total += sum(law[start, first - 1, c] * law[c, second - 1, right] for c in range(10))
    assert chance_of_success(noisy.logits, 2) == pytest.approx(total / 810, abs=1e-12)


def test_without_noise_it_is_the_closed_form():
    """0.1 + 0.9 (1 - 10/9 error)^L; noise of 0.5 lowers it: a wrong digit's chance is convex in its logit."""
    before, operand = torch.meshgrid(torch.arange(10), torch.arange(1, 10), indexing="ij")
    law = torch.full((10, 9, 10), 0.25 / 9).scatter(2, ((before + operand) % 10)[:, :, None], 0.75)
    assert chance_of_success(law.log(), 6) == pytest.approx(0.1 + 0.9 * (1 - 2.5 / 9) ** 6, abs=1e-6)
    drawn = start_table(0.75, Rng((0,)))
    assert float((drawn - law.log()).std()) == pytest.approx(0.5, abs=0.05)
    assert float((drawn - law.log()).mean()) == pytest.approx(0, abs=0.06)


def test_sampled_steps_follow_the_table_and_are_what_the_task_says(noisy):
    batch = batch_from(noisy, n=60, k=60)
    valid = valid_steps(batch.seq)
    for row in range(0, 3600, 91):
        problem, text = batch.rollouts.problem(row), batch.rollouts.text[row]
        assert [step.valid for step in TASK.steps(problem, text)] == valid[row].tolist()
        assert "".join(batch.rollouts.pieces[row]) == text
    exact = chance_of_success(noisy.logits, 3)
    error = math.sqrt(exact * (1 - exact) / 3600)
    assert float(batch.outcome.mean()) == pytest.approx(exact, abs=5 * error)  # of these 60 prompts, not of all
    law = noisy.logits.detach().softmax(dim=2)
    digits = torch.stack(batch.seq.prompts)[batch.seq.group]
    counts, expected = np.zeros(10), np.zeros(10)
    for row in range(3600):
        expected += law[digits[row, 0], digits[row, 1] - 1].numpy()
        counts[batch.seq.tokens[row, 0]] += 1
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-squared, 9 degrees, p = .001


def test_log_probs_and_a_step_of_the_table(noisy):
    batch = batch_from(noisy, n=2, k=2)
    digits = torch.stack(batch.seq.prompts)[batch.seq.group]
    law = noisy.logits.detach().log_softmax(dim=2)
    for row in range(4):
        before = digits[row, 0]
        for t in range(3):
            token = batch.seq.tokens[row, t]
            assert batch.rollouts.logprobs[row, t] == law[before, digits[row, t + 1] - 1, token]
            before = token
    twin, start = noisy.twin(ADAM), noisy.reference()
    twin.step(batch.seq, {}, lambda outputs, _: -outputs.logprobs)
    assert (twin.outputs(batch.seq).logprobs > batch.rollouts.logprobs).float().mean() > 0.9
    for still in (noisy, start):
        assert torch.equal(still.outputs(batch.seq).logprobs, batch.rollouts.logprobs)
    moved = (twin.logits - noisy.logits).detach().abs().max()
    assert float(moved) == pytest.approx(0.05, abs=1e-4)  # Adam's first step


def test_the_oracle_charges_for_wrong_steps_alone(noisy):
    batch = batch_from(noisy)
    values = ExactSteps().score(batch)["exact_steps"].values
    worst = int((~valid_steps(batch.seq)).sum(dim=1).max())
    assert torch.equal(values == 0, valid_steps(batch.seq))
    assert float(values.min()) == pytest.approx(-1 / worst, rel=1e-5)


def test_steps_are_told_apart_without_a_step_label(noisy):
    reward = OnlineImplicitReward(noisy, noisy.reference(), optimizer=ADAM)
    policy = noisy
    assert prime._auc(reward, policy, TASK, Rng((9,))) == 0.5
    for step in range(60):
        reward.assess(batch_from(policy, n=60, seed=step), Rng((step, "reward")))
    assert prime._auc(reward, policy, TASK, Rng((9,))) > 0.75


@pytest.fixture(scope="module")
def every_arm():
    return {arm: cell({**settings, **STUDY.fast}, 0) for arm, settings in STUDY.arms.items()}


def test_every_claim_and_row_reads_what_is_there(every_arm):
    found = {arm: measured.metrics for arm, measured in every_arm.items()}
    for claim in CLAIMS:
        assert all(math.isfinite(effect.of(found)) for effect in claim.effects)
    for row in STUDY.rows:
        assert math.isfinite(found[row.arm][row.metric])


def test_arms_begin_alike_and_part_ways(every_arm):
    """The first two updates of the plain arms see the same rollouts; a model that is 0 at first changes nothing yet."""
    at_end = {arm: measured.metrics["end"] for arm, measured in every_arm.items()}
    plain = at_end["RLOO, outcome only"]
    assert at_end["oracle step reward"] != plain
    assert at_end["PRIME, before"] != at_end["PRIME, after"]
    first = {
        arm: cell({**STUDY.arms[arm], "steps": 1}, 0).metrics["end"]
        for arm in ("RLOO, outcome only", "PRIME, after", "PRIME, policy as reference", "RLOO, no filter")
    }
    assert first["PRIME, after"] == first["RLOO, outcome only"] != first["RLOO, no filter"]
    assert first["PRIME, policy as reference"] != first["PRIME, after"]


def test_by_rollouts_is_where_the_run_was_when_it_had_made_so_many(every_arm):
    unfiltered = every_arm["RLOO, no filter"]
    assert unfiltered.metrics["generated"] == 2 * 128
    assert unfiltered.metrics["at equal rollouts"] == unfiltered.metrics["end"]
    filtered = every_arm["RLOO, outcome only"]
    assert filtered.metrics["generated"] > 2 * 128
    assert filtered.metrics["at equal rollouts"] != filtered.metrics["end"]
    updates, rollouts = (
        filtered.curves[f"6 operations: chance of success by {what}"] for what in ("updates", "generated rollouts")
    )
    assert updates[0] == rollouts[0]
    assert updates[-1] == filtered.metrics["end"]
    assert rollouts[-1] == filtered.metrics["at equal rollouts"]


def test_a_cell_depends_on_settings_and_seed_alone():
    settings = {**STUDY.arms["pre-trained, online"], **STUDY.fast}
    again, other = cell(settings, 1), cell(settings, 2)
    assert repr(cell(settings, 1).metrics) == repr(again.metrics) != repr(other.metrics)


def test_the_regression_test_of_the_specification():
    """A seed the study does not use: the model learns the steps, and the policy gains by it."""
    found = cell({**STUDY.arms["PRIME, before"]}, 17).metrics
    assert found["auc at first"] == 0.5
    assert found["auc at last"] > 0.9
    assert found["end"] > 0.5
