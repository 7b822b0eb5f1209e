"""The factored bandit of E2: its targets and laws by hand, what arms share, and what each learner does."""

import math

import pytest
import torch

from reckon.samplers import All, Uniform, collect
from reckon.studies import _factored_bandit as bandit
from reckon.studies import _factored_learn as learn
from reckon.studies import run_study
from reckon.studies.preference_learning_grid import (
    CLAIMS,
    DATA,
    EARLY,
    LEVELS,
    STUDY,
    at_divergence,
    at_equal_divergence,
    cell,
    gap,
    spread_at_equal_divergence,
    spread_of_data,
)
from reckon.types import Rng, Stream


@pytest.fixture(scope="module")
def world():
    return bandit.make_world(7)


def lopsided():
    """A policy that says 0 with probability 0.6 everywhere, and each other token with 0.1."""
    network = torch.nn.Sequential(torch.nn.Linear(12, 128), torch.nn.ReLU(), torch.nn.Linear(128, 30))
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        network[2].bias.copy_(torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1]).log().repeat(6))
    return bandit.BanditPolicy(network)


def uniform():
    policy = lopsided()
    with torch.no_grad():
        policy.network[2].bias.zero_()
    return policy


def no_look(policy, step):
    pass


def batch_of(world, prompts, k):
    """Responses of the start to the first prompts of the train split, in some order."""
    task = bandit.Bandit(numbers={"train": world.task.numbers["train"][:prompts]})

    def verify(rollouts):
        return [task.check(rollouts.problem(row), text) for row, text in enumerate(rollouts.text)]

    return collect(Uniform(task), world.start, verify, All(), prompts, k, Rng((0,)), step=0)


def test_targets_by_hand(world):
    """b0 = 1; b1 + b2 = 1 + 0; b3 xor b4 = 1; 2 b5 + b6 = 3; b7 + b8 + b9 = 0 + 1 + 1; b0 + b10 + 2 b11 = 1 + 0 + 2."""
    problems = [problem for split in ("train", "dev", "test") for problem in world.task.problems(split)]
    (found,) = [problem for problem in problems if problem.prompt == "110101101101"]
    assert found.answer == "111323"
    assert found.id == str(sum(int(bit) << place for place, bit in enumerate("110101101101")))
    assert world.task.check(found, "111323").outcome == 1
    assert world.task.check(found, "111320").outcome == pytest.approx(5 / 6)
    assert world.task.check(found, "000000").reason == "wrong"
    assert not bandit.IS_NARROW[int(found.id)]  # b7 is 0


def test_every_prompt_is_in_one_split(world):
    numbers = [set(world.task.numbers[split]) for split in ("train", "dev", "test")]
    assert [len(own) for own in numbers] == [2896, 600, 600]
    assert len(set.union(*numbers)) == 4096
    assert int(bandit.IS_NARROW.sum()) == 512
    assert bandit.make_bandit(8).numbers != world.task.numbers


def test_gold_and_divergence_by_hand():
    """From a uniform law: a token's divergence is 0.6 log(0.6 / 0.2) + 0.4 log(0.1 / 0.2), and there are six."""
    numbers = torch.arange(4096)
    found = bandit.state(lopsided(), uniform(), numbers)
    assert found["KL"] == pytest.approx(6 * (0.6 * math.log(3) - 0.4 * math.log(2)), abs=1e-5)
    zeros = float((bandit.WANTED == 0).float().mean())
    # b0; b1 + b2; xor; two bits; three bits; and b0 + b10 + 2 b11 are 0 in 1/2, 1/4, 1/2, 1/4, 1/8 and 1/8 of prompts.
    assert zeros == pytest.approx((1 / 2 + 1 / 4 + 1 / 2 + 1 / 4 + 1 / 8 + 1 / 8) / 6)
    assert found["gold"] == pytest.approx(0.1 + 0.5 * zeros, abs=1e-6)
    assert bandit.state(uniform(), uniform(), numbers) == pytest.approx(
        {"gold": 0.2, "gold, narrow": 0.2, "KL": 0.0}, abs=1e-6
    )
    # With b0 = b3 = b7 = 1 the zeros are 0, 1/4, 1/2, 1/4, 0, 0.
    assert found["gold, narrow"] == pytest.approx(0.1 + 0.5 * (1 / 4 + 1 / 2 + 1 / 4) / 6, abs=1e-6)


def test_draws_follow_the_law(world):
    numbers = world.numbers("test")
    drawn = bandit.gold(numbers, world.start.draw(numbers, 50, Rng((1,)))) / 6
    expected = bandit.state(world.start, world.start, numbers)["gold"]
    assert float(drawn.mean()) == pytest.approx(expected, abs=4 * 0.21 / math.sqrt(600 * 50))
    first = lopsided().draw(numbers, 50, Rng((2,)))
    for place in range(6):
        assert float((first[:, :, place] == 0).float().mean()) == pytest.approx(0.6, abs=4 * math.sqrt(0.24 / 30_000))


def test_the_start_has_learned_something_and_not_all(world):
    assert 0.4 < bandit.state(world.start, world.start, world.numbers("test"))["gold"] < 0.7


def test_sampled_logprobs_are_the_laws(world):
    problems = world.task.problems("test")[:3]
    rollouts = world.start.sample(problems, 2, Rng((3,)))
    law = world.start.log_law(torch.tensor([int(problem.id) for problem in problems])).detach()
    for row, text in enumerate(rollouts.text):
        wanted = [float(law[row // 2, place, int(word)]) for place, word in enumerate(text)]
        assert rollouts.logprobs[row].tolist() == pytest.approx(wanted, abs=1e-6)


def test_fewer_pairs_are_the_first_of_more(world):
    few, many = (learn.draw_preferences(world, n, "policy", 4.0, 0.0) for n in (500, 2000))
    assert few.numbers.equal(many.numbers[:500])
    assert few.tokens.equal(many.tokens[:500])
    assert set(many.numbers.tolist()) <= set(world.task.numbers["train"])


def test_labels_differ_between_data_sets_and_nothing_else(world):
    clean, soft, off = (
        learn.draw_preferences(world, 2000, responses, sharpness, 0.0)
        for responses, sharpness in (("policy", 4.0), ("policy", 1.0), ("uniform", 4.0))
    )
    assert clean.numbers.equal(soft.numbers)
    assert clean.numbers.equal(off.numbers)
    assert clean.tokens.sum(dim=1).equal(soft.tokens.sum(dim=1))  # the same two, in some order
    right = {name: bandit.gold(pairs.numbers, pairs.tokens) for name, pairs in (("clean", clean), ("soft", soft))}
    lead = {name: own[:, 0] - own[:, 1] for name, own in right.items()}
    for name, sharpness in (("clean", 4.0), ("soft", 1.0)):
        by_one = lead[name].abs() == 1
        n, p = int(by_one.sum()), 1 / (1 + math.exp(-sharpness))
        share = float((lead[name][by_one] == 1).float().mean())
        assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))


def test_flipped_pairs_are_turned_round(world):
    plain, some, all_ = (learn.draw_preferences(world, 2000, "policy", 1.0, share) for share in (0.0, 0.3, 1.0))
    assert all_.tokens.equal(plain.tokens.flip(1))
    differ = plain.tokens[:, 0].ne(plain.tokens[:, 1]).any(dim=1)
    turned = some.tokens.ne(plain.tokens).any(dim=(1, 2))[differ]
    assert float(turned.float().mean()) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 2000))


@pytest.mark.parametrize("n", [0, 8001])
def test_more_pairs_than_there_are(world, n):
    with pytest.raises(ValueError, match="there are 8000 pairs"):
        learn.draw_preferences(world, n, "policy", 4.0, 0.0)


def test_minibatches_take_every_row_once_a_pass():
    steps = bandit.minibatches(10, 3, 5, Rng((0,)))
    assert [len(rows) for rows in steps] == [3] * 5
    assert len(set(torch.cat(steps[:3]).tolist())) == 9
    with pytest.raises(ValueError, match="a step takes 32 rows, and there are 31"):
        bandit.minibatches(31, 32, 1, Rng((0,)))


def test_gradients_are_clipped():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = bandit.ClippedAdam([weight], lr=0.1, betas=(0.9, 0.95))
    weight.grad = torch.tensor([30.0, 40.0])
    optimizer.step()
    assert weight.grad.tolist() == pytest.approx([0.6, 0.8], abs=1e-4)


def test_credit_by_hand(world):
    """Scores 3 and 1 for all tokens; only the last token of the first response is charged, 1."""
    batch = batch_of(world, 2, 1)
    charge = torch.zeros(2, 6)
    charge[0, 5] = -1.0
    streams = {"score": Stream(values=torch.tensor([3.0, 1.0])), "kl": Stream(values=charge)}
    credit = learn.less_mean_at_place(batch, streams)
    # To go: 3 - 1 = 2 at every place of the first, 1 of the second; the mean is 1.5.
    assert credit.advantages.tolist() == [[0.5] * 6, [-0.5] * 6]


def test_the_price_has_no_say_before_there_is_a_divergence(world):
    """The first step of every PPO arm is the same; the fifth is not."""
    before = [weight.clone() for weight in world.start.network.parameters()]
    pairs = learn.draw_preferences(world, 128, "policy", 4.0, 0.0)
    judge = learn.learn_reward(world, pairs, 64)
    prompts = learn.posed(world, pairs, "own")
    cheap, dear = ({n: learn.learn_by_ppo(world, judge, prompts, kl, n, no_look) for n in (1, 5)} for kl in (0.0, 5.0))
    assert all(a.equal(b) for a, b in zip(cheap[1].network.parameters(), dear[1].network.parameters(), strict=True))
    assert not cheap[5].network[2].bias.equal(dear[5].network[2].bias)
    assert all(a.equal(b) for a, b in zip(before, world.start.network.parameters(), strict=True))


def test_dpo_and_ppo_learn_what_the_labels_say(world):
    pairs, numbers = learn.draw_preferences(world, 1000, "policy", 4.0, 0.0), world.numbers("dev")
    before = bandit.state(world.start, world.start, numbers)["gold"]
    by_dpo = learn.learn_by_dpo(world, pairs, 0.1, 60, no_look)
    judge = learn.learn_reward(world, pairs, 64)
    quality = learn.judge_quality(world, judge, "dev")
    assert quality["accuracy"] > 0.65
    assert before + 0.03 < quality["best of 16"] < quality["oracle of 16"] <= 1
    by_ppo = learn.learn_by_ppo(world, judge, learn.posed(world, pairs, "broad"), 0.3, 60, no_look)
    for policy in (by_dpo, by_ppo):
        found = bandit.state(policy, world.start, numbers)
        assert found["gold"] > before + 0.02
        assert found["KL"] > 0.05
    turned = learn.Preferences(numbers=pairs.numbers, tokens=pairs.tokens.flip(1))
    wrong = learn.learn_by_dpo(world, turned, 0.1, 60, no_look)
    assert bandit.state(wrong, world.start, numbers)["gold"] < before


def test_a_judge_scores_batches_as_it_scores_tokens(world):
    judge, batch = bandit.BanditJudge(8, 3), batch_of(world, 4, 2)
    numbers = torch.cat(batch.seq.prompts)
    expected = judge.scores(numbers, batch.seq.tokens.reshape(4, 2, 6)).flatten()
    assert judge.score(batch)["reward_model"].values.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    right = bandit.gold(numbers, batch.seq.tokens.reshape(4, 2, 6)).flatten() / 6
    assert batch.outcome.tolist() == pytest.approx(right.tolist())


def test_prompts_of_the_arms(world):
    pairs = learn.draw_preferences(world, 500, "policy", 4.0, 0.0)
    own, broad, narrow = (set(learn.posed(world, pairs, which).tolist()) for which in ("own", "broad", "narrow"))
    assert own == set(pairs.numbers.tolist())
    assert broad == set(world.task.numbers["train"])
    assert narrow == {number for number in broad if number & 0b10001001 == 0b10001001}  # bits 0, 3 and 7


def points(*pairs):
    return [{"step": float(10 * i), "KL": kl, "gold": gold} for i, (kl, gold) in enumerate(pairs)]


def test_gold_at_a_divergence_by_hand():
    """0.3 lies halfway between 0.2 and 0.4, and is reached again later, which does not count."""
    path = points((0.0, 0.5), (0.2, 0.6), (0.4, 0.7), (0.1, 0.9), (0.5, 0.8))
    assert at_divergence(path, 0.3) == pytest.approx(0.65)
    assert at_divergence(path, 0.2) == pytest.approx(0.6)
    assert math.isnan(at_divergence(path, 0.6))
    late = [{**point, "step": EARLY + point["step"]} for point in path]
    assert math.isnan(at_divergence(late, 0.3))  # only the first stands within the steps that count


def test_equal_divergence_is_the_largest_that_both_reach():
    nan = math.nan
    far = {f"gold at {level:g} nats": 0.5 + level / 10 for level in LEVELS}
    near = {f"gold at {level:g} nats": 0.5 + level / 5 if level <= 0.35 else nan for level in LEVELS}
    assert at_equal_divergence({"a": far, "b": near}, "a", "b") == pytest.approx(-0.03)  # at 0.3: 0.53 less 0.56
    assert math.isnan(at_equal_divergence({"a": far, "b": dict.fromkeys(far, nan)}, "a", "b"))


def test_spread_at_equal_divergence_is_taken_where_the_nearest_stops():
    """The first row's third arm stops at 0.3, where the golds are 0.53, 0.56 and 0.4; the second's both go to 4."""
    nan = math.nan
    found = {
        "far": {f"gold at {level:g} nats": 0.5 + level / 10 for level in LEVELS},
        "steep": {f"gold at {level:g} nats": 0.5 + level / 5 for level in LEVELS},
        "near": {f"gold at {level:g} nats": 0.4 if level <= 0.35 else nan for level in LEVELS},
        "nowhere": {f"gold at {level:g} nats": nan for level in LEVELS},
    }
    rows = [["far", "steep", "near"], ["far", "steep"]]
    assert spread_at_equal_divergence(found, rows) == pytest.approx((0.16 + 0.4) / 2)
    assert math.isnan(spread_at_equal_divergence(found, [["far", "nowhere"]]))


def test_spread_and_gap_by_hand():
    golds = {"DPO": (0.7, 0.65, 0.68, 0.6), "PPO": (0.74, 0.64, 0.7, 0.58)}
    found = {
        f"{algorithm}, {data}": {"gold, early": value}
        for algorithm, values in golds.items()
        for data, value in zip(DATA, values, strict=True)
    }
    assert spread_of_data(found) == pytest.approx((0.1 + 0.16) / 2)
    assert gap(found) == pytest.approx((0.04 - 0.01 + 0.02 - 0.02) / 4)


@pytest.fixture(scope="module")
def every_arm():
    return {arm: cell({**settings, "steps": 12, "pairs": 64}, 7).metrics for arm, settings in STUDY.arms.items()}


def test_all_arms_begin_as_one(every_arm):
    assert len({found["gold at first"] for found in every_arm.values()}) == 1
    assert len({found["gold"] for found in every_arm.values()}) > 8


def test_every_claim_and_row_reads_what_is_there(every_arm):
    """After 12 steps nobody is far enough for a comparison at equal divergence; those numbers are given."""
    reached = {f"gold at {level:g} nats": 0.6 for level in LEVELS}
    found = {arm: {**metrics, **reached} for arm, metrics in every_arm.items()}
    for claim in CLAIMS:
        assert all(math.isfinite(effect.of(found)) for effect in claim.effects)
    for row in STUDY.rows:
        assert math.isfinite(found[row.arm][row.metric])


def test_fast_runs_every_line(tmp_path):
    assert all(set(STUDY.fast) <= set(arm) for arm in STUDY.arms.values())
    found = run_study("preference-learning-grid", tmp_path / "fast", fast=True, seeds=[0])
    assert not found["not run"]
