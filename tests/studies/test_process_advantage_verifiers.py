"""The planted sequence against its specification's numbers, and the identities of policy gradients on it."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

from reckon.credit import GroupNormalized
from reckon.losses import PolicyGradient
from reckon.methods import pav_rl
from reckon.process import best_of_k
from reckon.runs import Run
from reckon.studies import _planted_learn, judge, run_study
from reckon.studies._planted import (
    END,
    FOUND,
    LENGTH,
    NEXT,
    TARGET,
    WORDS,
    Planted,
    diagnostics,
    expected_gradient,
    prover,
    q_and_v,
    sample,
    spelled,
    states,
    summed_to_go,
    table_law,
    visits,
)
from reckon.studies._planted_policy import NetworkPolicy, exact_judge, imitate
from reckon.studies.process_advantage_verifiers import STUDY, cell, prover_values, values_after
from reckon.train import Plan, take_step, train
from reckon.types import Batch, End, Outputs, Problem, Rng

PROBLEM = Problem(id="p", prompt="Which sequence?")


def same(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=tolerance, atol=tolerance)


# The environment


@pytest.mark.parametrize(
    ("gamma", "value"),
    [(1, 6.70e-6), (2, 1.4790e-4), (5, 5.39474e-3), (10, 0.04552423), (15, 0.11810294), (100, 0.81508775)],
)
def test_values_at_the_start(gamma, value):
    _, v = q_and_v(prover(gamma))
    assert float(v[0, 0]) == pytest.approx(value, rel=1e-3 if gamma < 10 else 2e-7)
    # five tokens left and nothing spelled: all five must be said
    assert float(v[5, 0]) == pytest.approx((gamma / (gamma + 14)) ** 5, rel=1e-12)


def test_advantages_at_the_start():
    q, v = q_and_v(prover(10))
    a = (q - v[:LENGTH, :, None])[0, 0]
    assert float(a[3]) == pytest.approx(0.012339, abs=1e-6)
    assert float(a[END]) == pytest.approx(-0.045524, abs=1e-6)
    assert a[[0, 1, 2, 4, 13]].tolist() == pytest.approx([-0.005990] * 5, abs=1e-6)


def test_what_is_spelled():
    assert [spelled(4, token) for token in (5, 6, 3, 0, END)] == [5, 2, 1, 0, 0]
    assert spelled(FOUND, 0) == FOUND
    # against the definition, on the tokens themselves
    for said in itertools.product((0, 3, 5, 6), repeat=6):
        k = 0
        for t, token in enumerate(said):
            k = int(NEXT[k, token])
            if k == FOUND:
                break
            sizes = [s for s in range(5) if said[t + 1 - s : t + 1] == TARGET[:s] and s <= t + 1]
            assert k == max(sizes)


def test_values_are_what_rollouts_find():
    """20,000 responses of mu_15, the text checked by the task: within four standard errors of the table."""
    law, task = prover(15), Planted()
    drawn = sample(table_law(law), [PROBLEM], 20000, Rng((0,)))
    share = sum(task.check(PROBLEM, text).outcome for text in drawn.text) / 20000
    p = float(q_and_v(law)[1][0, 0])
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 20000)
    counted = (states(drawn.seq.tokens)[:, 3] == 3).float().mean()
    by_visits = visits(law)[3, 3]
    assert abs(float(counted) - float(by_visits)) < 4 * math.sqrt(float(by_visits) / 20000)


def test_rollouts_of_the_planted_sequence():
    drawn = sample(table_law(prover(100)), [PROBLEM], 50, Rng((1,)), prefixes=[[1, 3]])
    task = Planted()
    for row in range(50):
        size = int(drawn.seq.mask[row].nonzero().max()) + 1
        tokens = drawn.seq.tokens[row, :size].tolist()
        assert tokens[:2] == [1, 3]
        assert drawn.text[row] == "".join(drawn.pieces[row]) == "".join(f"{token} " for token in tokens if token != END)
        assert (drawn.end[row] == End.EOS) == (tokens[-1] == END)
        right = any(tuple(tokens[i : i + 5]) == TARGET for i in range(size))
        assert task.check(PROBLEM, drawn.text[row]).outcome == float(right)
    assert drawn.seq.mask[:, :2].sum() == 0
    assert task.check(PROBLEM, "13 6 0 3 5 ").outcome == 0  # 13 is not 3
    assert task.check(PROBLEM, "").outcome == 0


def test_values_after_a_beginning():
    v = q_and_v(prover(10))[1]
    drawn = sample(table_law(prover(10)), [PROBLEM], 300, Rng((2,)))
    found = values_after(v, drawn)
    outcome = [Planted().check(PROBLEM, text).outcome for text in drawn.text]
    same(found, outcome)  # of a whole response it is the outcome
    one = sample(table_law(prover(10)), [PROBLEM], 30, Rng((3,)), one_step=True)
    q = q_and_v(prover(10))[0]
    same(values_after(v, one), q[0, 0][one.seq.tokens[:, 0]])


# Gradients, exactly


PI = prover(5)


def advantages(gamma):
    q, v = q_and_v(prover(gamma))
    return q - v[:LENGTH, :, None]


def test_summed_advantages_are_only_more_of_the_outcome():
    """The mistake: an advantage handed over as a reward. Its expected gradient is (1 + alpha) times the outcome's."""
    q, _ = q_and_v(PI)
    outcome = expected_gradient(PI, q)
    for alpha in (1.0, 3.0):
        summed = expected_gradient(PI, q + alpha * summed_to_go(PI, advantages(10)))
        same(summed, (1 + alpha) * outcome, 1e-16)
    per_step = expected_gradient(PI, q + advantages(10))
    cosine = (per_step * outcome).sum() / per_step.norm() / outcome.norm()
    assert float(cosine) == pytest.approx(0.92, abs=0.005)
    assert float(per_step.norm() / outcome.norm()) == pytest.approx(3.9, abs=0.05)


def test_the_policy_as_its_own_prover_gives_no_new_direction():
    q, _ = q_and_v(PI)
    same(expected_gradient(PI, q + 2.0 * advantages(5)), 3.0 * expected_gradient(PI, q), 1e-16)
    same((PI * advantages(5)).sum(dim=2)[:, :FOUND], torch.zeros(LENGTH, FOUND), 1e-15)


def test_the_gradient_is_that_of_the_chance_of_success():
    """Automatic differentiation through the dynamic programming, as oracle."""
    logits = PI[:, :, :].log().clamp(min=-30).clone().requires_grad_()
    law = logits.softmax(dim=2)
    v = torch.zeros(FOUND + 1, dtype=torch.float64)
    v[FOUND] = 1
    keep = torch.ones(FOUND + 1, WORDS, dtype=torch.float64)
    keep[:FOUND, END] = 0
    for t in reversed(range(LENGTH)):
        v = (law[t] * v[NEXT] * keep).sum(dim=1)
    v[0].backward()
    same(expected_gradient(PI, q_and_v(PI)[0]), logits.grad, 1e-10)


def test_the_first_order_gain_has_the_policys_own_variance():
    """Policy mu_5, prover mu_100: 0.01585 measured, 0.01583 by Var[A^pi], 0.2153 by the printed Var[A^mu]."""
    own, mu = advantages(5), advantages(100)
    new = PI * torch.exp(1e-3 * (own + mu))
    new = new / new.sum(dim=2, keepdim=True)
    gain = float((q_and_v(new)[1][0, 0] - q_and_v(PI)[1][0, 0]) / 1e-3)
    assert gain == pytest.approx(0.01585, abs=1e-5)
    variance, agreement = diagnostics(PI, q_and_v(prover(100))[0])
    own_variance, _ = diagnostics(PI, q_and_v(PI)[0])
    assert own_variance + agreement == pytest.approx(0.01583, abs=1e-5)
    assert variance + agreement == pytest.approx(0.2153, abs=1e-4)


def test_best_of_k_provers():
    q, v = prover_values(5.0, 4)
    same(q, best_of_k(q_and_v(prover(5))[0], 4))
    assert float(v[0, 0]) == pytest.approx(1 - (1 - 0.00539474) ** 4, rel=1e-5)
    assert ((PI * (q - v[:LENGTH, :, None])).sum(dim=2) <= 1e-15).all()  # Jensen, in every state


# The network and the judge


def batch_of(policy, n=16):
    drawn = policy.sample([PROBLEM], n, Rng((7,)))
    outcome = torch.tensor([Planted().check(PROBLEM, text).outcome for text in drawn.text])
    return Batch.given(drawn, outcome, train=True)


def test_the_network_draws_from_the_law_it_scores_by():
    policy = NetworkPolicy(0)
    drawn = batch_of(policy).rollouts
    torch.testing.assert_close(policy.outputs(drawn.seq).logprobs, drawn.logprobs, rtol=1e-5, atol=1e-5)
    policy.load_state_dict(NetworkPolicy(1).state_dict())
    assert not torch.allclose(policy.outputs(drawn.seq).logprobs, drawn.logprobs)


def test_imitation_raises_the_likelihood_of_what_is_imitated():
    policy = NetworkPolicy(0)
    examples = sample(table_law(prover(5)), [PROBLEM], 640, Rng((8,)))
    before = policy.outputs(examples.seq).logprobs.sum()
    imitate(policy, examples, 64)
    assert policy.outputs(examples.seq).logprobs.sum() > before + 100


def test_the_judges_advantages_telescope_and_its_centered_ones_have_mean_0():
    policy = NetworkPolicy(0)
    examples = sample(table_law(prover(100)), [PROBLEM], 1280, Rng((8,)))
    imitate(policy, examples, 64)  # so that some responses are right
    batch = batch_of(policy, 256)
    q, v = prover_values(10.0, 1)
    summed = exact_judge(policy, q, v, "return", 1.0).score(batch)["step"]
    assert summed.kind == "reward"
    total = torch.where(batch.seq.mask, summed.values, 0.0).sum(dim=1)
    torch.testing.assert_close(total, batch.outcome - float(v[0, 0]), rtol=1e-5, atol=1e-6)
    assert batch.outcome.sum() > 0
    own = exact_judge(policy, q, v, "advantage", 2.0).score(batch)["step"]
    assert own.kind == "advantage"
    # Sum over all tokens at the first place of what the judge would say, by the policy's law: mean 0
    law = policy.log_law(batch.seq.tokens[:1])[0, 0].exp().double()
    worth = 2 * (q[0, 0] - (law * q[0, 0]).sum())
    torch.testing.assert_close(own.values[:, 0].double(), worth[batch.seq.tokens[:, 0]], rtol=1e-5, atol=1e-7)
    assert exact_judge(policy, q, v, "nothing", 1.0).score(batch).keys() == {"correct"}


# The parts of PAV-RL on the planted sequence


def imitator(seed=0):
    """A network that has imitated mu_100, so that some of its responses are right."""
    policy = NetworkPolicy(seed)
    imitate(policy, sample(table_law(prover(100)), [PROBLEM], 2560, Rng((8, seed))), 64)
    return policy


def by_hand(policy, batch, q):
    """Credit without any part: R - mean R, and Q(s, a) - E_pi Q(s, .) on a token itself, while nothing is right yet."""
    tokens, mask = batch.seq.tokens, batch.seq.mask
    credit = (batch.outcome - batch.outcome.mean())[:, None].expand(mask.shape).double().clone()
    laws = policy.log_law(tokens).detach().double().exp()
    for row in range(len(tokens)):
        k = 0
        for t in range(LENGTH):
            if not mask[row, t]:
                break
            if k != FOUND:
                worth = q[t, k]
                credit[row, t] += worth[tokens[row, t]] - (laws[row, t] * worth).sum()
            k = int(NEXT[k, tokens[row, t]])
    return torch.where(mask, credit, 0.0)


@pytest.mark.parametrize(("gamma", "k"), [(10.0, 1), (5.0, 4)])
def test_the_parts_give_the_gradient_of_the_formula(gamma, k):
    """One step of 64 responses, by a double loop: credit and gradient of every weight agree to 1e-6."""
    policy = imitator()
    batch = batch_of(policy, 64)
    assert 0 < batch.outcome.sum() < 64
    q, v = prover_values(gamma, k)
    streams = exact_judge(policy, q, v, "advantage", 1.0).score(batch)
    credit = GroupNormalized(std=False)(batch, streams)
    wanted = by_hand(policy, batch, q)
    torch.testing.assert_close(credit.advantages.double(), wanted, rtol=0, atol=1e-6)
    objective = PolicyGradient(average="constant", length=1)
    parameters = list(policy.network.parameters())
    picked = policy.log_law(batch.seq.tokens).gather(2, batch.seq.tokens[:, :, None])[:, :, 0]
    loss = objective(Outputs(logprobs=picked), objective.prepare(batch, credit)).sum()
    found = torch.autograd.grad(loss, parameters, retain_graph=True)
    # The constant divides by the responses.
    formula = torch.autograd.grad(-(picked * wanted.float()).sum() / 64, parameters)
    for one, other in zip(found, formula, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert max(float(grad.abs().max()) for grad in formula) > 1e-3


def test_the_loop_of_a_language_model_makes_the_studys_steps(tmp_path):
    """`train` with the method's parts, its prover replaced by the exact one, against steps without a folder."""

    def parts_of(policy):
        parts = pav_rl(Planted(), alpha=1.0, kl=0.0, policy=policy)
        q, v = prover_values(10.0, 1)
        return replace(parts, reward=exact_judge(policy, q, v, "advantage", 1.0), advantage=GroupNormalized(std=False))

    looped, stepped, task = imitator(), imitator(), Planted()
    with Run.create(tmp_path / "run", recipe={}) as run:
        assert train(looped, task, parts_of(looped), run, Plan(steps=3, prompts=1, answers=64, seed=5, show="nothing"))
    parts = parts_of(stepped)
    for step in range(3):
        take_step(stepped, task, parts, Rng((5, step)), step=step, prompts=1, answers=64)
    start, ends = imitator().state_dict(), (looped.state_dict(), stepped.state_dict())
    for name, weights in start.items():
        assert torch.equal(ends[0][name], ends[1][name])
        assert not torch.equal(ends[0][name], weights)


# The study


def test_a_cell_depends_on_its_seed_alone():
    settings = dict(STUDY.arms["mu_10"], steps=3)
    assert cell(settings, 1) == cell(settings, 1)
    searched = dict(STUDY.arms["search, B = 1"], problems=20)
    assert cell(searched, 1) == cell(searched, 1)
    assert cell(searched, 1) != cell(searched, 2)


def test_fast_runs_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(_planted_learn, "DRAWN", 128)  # the pass@64 of two steps may be rough
    results = run_study(STUDY, tmp_path, fast=True, seeds=[0])
    assert results["not run"] == []
    assert json.loads((tmp_path / "results.json").read_text())["claims"] == []


def pilot():
    """The pilot's own table as what one seed found; "-" is the arm's last step."""
    found = {arm: {"accuracy at the end": 1.0, "pass@64": 0.0} for arm in STUDY.arms}
    steps = {"outcome": 500, "outcome, entropy 0": 273, "mu_2": 300, "mu_5": 266, "mu_10": 95, "mu_15": 98}
    steps |= {"mu_100": 139, "Bo4 of mu_5": 98, "Bo64 of mu_5": 247}
    steps |= {"mu_10 summed as a reward": 300, "mu_10, entropy 0": 300}
    for arm, number in steps.items():
        found[arm]["steps to 0.9"] = number
    found["mu_10"]["pass@64"] = 0.63
    found["mu_10 summed as a reward"]["accuracy at the end"] = 0.0
    found["mu_10, entropy 0"]["accuracy at the end"] = 0.0
    for row in STUDY.rows:
        if row.arm.startswith("search"):
            found[row.arm][row.metric] = float(row.pilot) if row.pilot else math.nan
    for arm in ("search, B = 4", "search, B = 8"):
        found[arm]["Q and A of mu_15, exact"] = found[arm]["Q exact"]
    return found


def test_the_rules_see_the_pilot_and_would_not_see_its_opposite():
    verdicts = [judge(claim, [pilot()] * 5, 5).verdict for claim in STUDY.claims]
    assert verdicts == ["seen"] * 10 + ["not testable here"] * 2
    found = pilot()
    equal = {arm: dict(found["outcome"], **dict.fromkeys(found["search, B = 4"], 0.5)) for arm in STUDY.arms}
    verdicts = [judge(claim, [equal] * 5, 5).verdict for claim in STUDY.claims]
    # what gains nothing gains nothing here either
    assert verdicts == ["not seen"] * 8 + ["seen"] * 2 + ["not testable here"] * 2
