"""The bandit of eight domains, the released arithmetic, and the rules of the study."""

import json
import math

import numpy as np
import pytest
import torch

from reckon.methods import grpo
from reckon.samplers import collect
from reckon.studies import judge, run_study
from reckon.studies._bits import DOMAINS, NAMES, Bits
from reckon.studies._bits_policy import BitsPolicy
from reckon.studies._released_sampler import ReleasedSampler, released_target, released_weights
from reckon.studies.domain_sampling import _ARMS, EVERY, STUDY, cell
from reckon.types import Problem, Rng, Seen

RNG = Rng((0, "test"))


# The domains


def test_answers_by_hand():
    bits = [1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1]
    answers = {name: answer(bits) for name, (_, answer) in DOMAINS.items()}
    assert answers == {
        "one bit": 1,  # b0
        "two bits": 1,  # 2 * 0 + 1
        "parity of 2": 0,  # 1 + 1
        "count of 3": 2,  # 0 + 1 + 1
        "parity of 3": 0,  # 1 + 0 + 1
        "majority of 4": 1,  # 1 1 0 1
        "sum mod 4": 0,  # 1 + 2 + 1
        "parity of 4": 1,  # 1 + 1 + 1 + 0
    }
    no_majority = [0] * 11 + [1, 1, 0, 0, 0]
    assert DOMAINS["majority of 4"][1](no_majority) == 0


def test_sizes_splits_and_checks():
    task = Bits(3)
    train, test = task.problems("train"), task.problems("test")
    sizes = [sum(problem.domain == name for problem in train) for name in NAMES]
    assert sizes == [1000, 1000, 1000, 200, 150, 150, 40, 40]
    assert [sum(problem.domain == name for problem in test) for name in NAMES] == [300] * 8
    assert len({problem.id for problem in [*train, *test]}) == 3580 + 2400
    assert task.problems("dev") == []
    problem = train[0]
    assert task.check(problem, problem.answer).outcome == 1
    assert task.check(problem, str(1 - int(problem.answer))).outcome == 0
    assert [p.answer for p in Bits(3).problems("train")] == [p.answer for p in train]
    assert [p.id for p in Bits(4).problems("train")] != [p.id for p in train]


# The policy


def test_the_network_draws_from_the_law_it_scores_by():
    task = Bits(0)
    policy, problems = BitsPolicy(0, task), task.problems("train")[::400]
    drawn = policy.sample(problems, 4000, RNG)
    torch.testing.assert_close(policy.outputs(drawn.seq).logprobs, drawn.logprobs)
    law = policy.log_law(torch.cat(drawn.seq.prompts)).exp()
    for g in range(len(problems)):
        found = torch.bincount(drawn.seq.tokens[drawn.seq.group == g, 0], minlength=4) / 4000
        assert (found - law[g]).abs().max() < 4 * 0.5 / math.sqrt(4000)
    assert drawn.text[:3] == tuple(str(token) for token in drawn.seq.tokens[:3, 0].tolist())


def test_what_the_network_reads():
    """16 bits as -1 or 1, and the domain's number, one-hot times 2."""
    task = Bits(0)
    policy, problem = BitsPolicy(0, task), next(p for p in task.problems("train") if p.domain == "count of 3")
    (prompt,) = policy.sample([problem], 1, RNG).seq.prompts
    bits = [2 * int(bit) - 1 for bit in problem.prompt.removeprefix("count of 3: ")]
    assert len(bits) == 16
    features = torch.tensor([*bits, 0, 0, 0, 2, 0, 0, 0, 0], dtype=torch.float32)
    assert policy._features[prompt.item()].tolist() == features.tolist()
    torch.testing.assert_close(policy.log_law(prompt)[0], policy.network(features).log_softmax(dim=0))


def test_accuracy_is_that_of_the_likeliest_answer():
    task = Bits(0)
    policy, problems = BitsPolicy(0, task), task.problems("test")
    with torch.no_grad():
        policy.network[2].weight.zero_()
        policy.network[2].bias.copy_(torch.tensor([0.0, 0.1, 0.0, 0.0]))  # always 1
    found = policy.accuracy(problems)
    for name in NAMES:
        assert found[name] == np.mean([p.answer == "1" for p in problems if p.domain == name])


def test_a_step_is_grpo_s():
    """The gradient of the parts against two loops: -(r - mean) / (std + 1e-6) grad log p, over all responses."""
    task = Bits(0)
    policy = BitsPolicy(1, task)
    parts = grpo(task)
    batch = collect(
        parts.sampler,
        policy,
        lambda r: [task.check(r.problem(i), text) for i, text in enumerate(r.text)],
        parts.keep,
        16,
        8,
        RNG,
        step=0,
    )
    credit = parts.advantage(batch, parts.reward.assess(batch, RNG))
    columns = parts.objective.prepare(batch, credit)
    parts.objective(policy._forward(batch.seq, ("logprobs",)), columns).sum().backward()
    found = [parameter.grad.clone() for parameter in policy.network.parameters()]
    policy.network.zero_grad()
    loss = torch.tensor(0.0)
    for g, problem in enumerate(batch.rollouts.problems):
        law = policy.log_law(batch.rollouts.seq.prompts[g])[0]
        rows = [i for i in range(len(batch.outcome)) if int(batch.seq.group[i]) == g]
        rewards = [float(batch.rollouts.text[i] == problem.answer) for i in rows]
        for i, reward in zip(rows, rewards, strict=True):
            worth = (reward - np.mean(rewards)) / (np.std(rewards, ddof=1) + 1e-6)
            loss = loss - worth * law[int(batch.rollouts.text[i])] / len(batch.outcome)
    loss.backward()
    for ours, parameter in zip(found, policy.network.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-6)
    assert max(float(one.abs().max()) for one in found) > 1e-3


# The released arithmetic


def test_released_numbers_of_the_specification():
    accuracy = {"a": 0.9, "b": 0.6, "c": 0.53, "d": 0.1}
    for eps in (0.0, 0.1, 5.0):
        found = released_weights(accuracy, tau=0.3, eps=eps)
        assert list(found.values()) == pytest.approx([0.141513, 0.141513, 0.141513, 0.575460], abs=5e-7)
    assert released_target("harmonic") == pytest.approx(0.520833, abs=5e-7)
    assert released_target("geometric") == 0.46875
    assert released_target("none") == 0.25
    worst = released_weights({"a": 1.0, "b": 0.0}, tau=0.3)
    assert worst["b"] / worst["a"] == pytest.approx(5.7, abs=0.05)


class Small:
    name = "small"

    def problems(self, split):
        return [Problem(id=f"{d}{i}", prompt="?", domain=d) for d, n in (("a", 9), ("b", 5)) for i in range(n)]


def seen_of(outcomes):
    problems = [Problem(id="x", prompt="?", domain=name) for name, _ in outcomes]
    n = len(problems)
    return Seen(
        problems=tuple(problems),
        outcome=torch.tensor([value for _, value in outcomes]),
        lengths=torch.ones(n, dtype=torch.int64),
        end=torch.zeros(n, dtype=torch.int64),
        rounds=1,
        wanted=n,
        kept=n,
    )


def test_the_released_sampler_looks_at_every_eighth_step_alone():
    sampler = ReleasedSampler(Small())
    for _ in range(7):
        sampler.learn(seen_of([("a", 0.0), ("b", 1.0)]))
        assert sampler.weights == {"a": 0.5, "b": 0.5}
    sampler.learn(seen_of([("a", 1.0), ("a", 0.0), ("b", 0.2)]))
    assert sampler.weights == pytest.approx(released_weights({"a": 0.5, "b": 0.2}))


def test_the_released_sampler_loses_a_domain_for_ever_and_throws_queues_away():
    sampler = ReleasedSampler(Small())
    first, second = (sampler.draw(6, Rng((step,))) for step in range(2))
    b = [[problem.id for problem in drawn if problem.domain == "b"] for drawn in (first, second)]
    assert [len(one) for one in b] == [3, 3]
    assert set(b[0]) & set(b[1])  # 2 of 5 were left, too few for 3: all 5 are shuffled anew
    for _ in range(8):
        sampler.learn(seen_of([("b", 0.0)]))
    assert sampler.weights == {"b": 1.0}
    assert len(sampler.draw(8, RNG)) == 5  # the batch is short
    for _ in range(80):
        sampler.learn(seen_of([("b", 1.0)]))
    assert sampler.weights == {"b": 1.0}


# Cells


def short(arm, **settings):
    return {**_ARMS[arm][0], "steps": 2, "rollouts": 1024, **settings}


def test_a_cell_depends_on_its_seed_alone():
    settings = short("by accuracy")
    assert cell(settings, 1) == cell(settings, 1)
    assert cell(settings, 1) != cell(settings, 2)


def test_arms_begin_alike_and_rollouts_are_counted_with_those_that_are_dropped():
    kept, refilled = (
        cell(short(arm, rollouts=2 * EVERY), 0) for arm in ("equal shares", "equal groups refilled (DAPO)")
    )
    assert kept.metrics["rollouts"] == 1.024
    assert refilled.metrics["rollouts"] >= 1.024
    assert refilled.metrics["rollouts"] * 1000 % 512 == 0
    for curve in ("mean over domains", *NAMES):
        assert len(kept.curves[curve]) == 3
        assert kept.curves[curve][0] == refilled.curves[curve][0]
    assert list(kept.curves["rollouts, thousands"]) == [0, 20.48, 40.96]
    assert sum(kept.metrics[f"share: {name}"] for name in NAMES) == pytest.approx(1)
    assert kept.metrics["share: parity of 4"] == 1 / 8
    assert kept.metrics["mean"] == pytest.approx(np.mean([kept.metrics[f"accuracy: {name}"] for name in NAMES]))
    assert kept.metrics["worst"] == min(kept.metrics[f"accuracy: {name}"] for name in NAMES)
    assert kept.metrics["when spent"] == kept.curves["mean over domains"][-1]


def test_a_point_of_a_curve_has_spent_no_more_than_it_says():
    """After 40 steps of 512 rollouts the network is the one at 20,480, not the one a step later."""
    long = cell(short("equal shares", steps=40, rollouts=2 * EVERY), 0)
    after = cell(short("equal shares", steps=40, rollouts=EVERY), 0)
    assert long.curves["mean over domains"][1] == after.metrics["mean"] == long.metrics["mean"]


def test_fast_runs_end_to_end(tmp_path):
    results = run_study("domain-sampling", tmp_path, fast=True, seeds=[0])
    assert results["not run"] == []
    assert len(list((tmp_path / "cells").iterdir())) == len(_ARMS)
    assert json.loads((tmp_path / "results.json").read_text())["claims"] == []


def of_the_pilot():
    """The pilot's table. DAPO's accuracy is that of the text: as good as the domain sampler's at 3.9 times the cost."""
    pilot = {arm: {"mean": 0.592, "rollouts": 204.8, "when spent": 0.68} for arm in STUDY.arms}
    told = {"by accuracy": 0.631, "by accuracy, tau 0.3": 0.631, "by accuracy, tau 0.8": 0.627}
    told |= {"by accuracy, as released": 0.631, "weights shuffled": 0.582, "weights inverted": 0.546}
    told |= {"proportional": 0.652, "equal groups refilled (DAPO)": 0.651}
    for arm, mean in told.items():
        pilot[arm]["mean"] = mean
    pilot["by accuracy"]["when spent"] = 0.70
    pilot["equal groups refilled (DAPO)"] |= {"rollouts": 3.9 * 204.8, "when spent": 0.62}
    return pilot


def test_the_rules_see_the_pilot_and_would_not_see_its_opposite():
    verdicts = [judge(claim, [of_the_pilot()] * 12, 12).verdict for claim in STUDY.claims]
    assert verdicts == ["seen"] * 7 + ["not testable here"] * 2
    equal = {arm: of_the_pilot()["equal shares"] for arm in STUDY.arms}
    verdicts = [judge(claim, [equal] * 12, 12).verdict for claim in STUDY.claims]
    assert verdicts == ["not seen"] * 7 + ["not testable here"] * 2
