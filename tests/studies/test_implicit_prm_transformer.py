"""The study implicit-prm-transformer: its texts and labels, its judges at the start and after, its readings by hand."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

from reckon.evaluate import auc
from reckon.fit import OutcomeSteps, Paired, StepLabels, Stepwise, Unpaired
from reckon.rewards import ImplicitReward
from reckon.studies import _implicit_prm_judges as judges
from reckon.studies import _implicit_prm_texts as texts
from reckon.studies.implicit_prm_transformer import (
    ARMS,
    CE,
    CLAIMS,
    COPIED,
    DPO,
    KTO,
    LIKELIHOOD,
    ORACLE,
    ORM,
    SOFT,
    SOFT_EQUAL,
    STUDY,
    VOTE,
    cell,
)
from reckon.types import Batch, End, Problem, Rollouts, Sequences

SMALL = {
    "operations": 3,
    "error": 0.2,
    "worked": 512,
    "passes": 3,
    "examples": 1024,
    "sft_lr": 3e-3,
    "pool": 40,
    "asked": 30,
}


@pytest.fixture(scope="module")
def world():
    """A reference that writes digits, and has not learned to add them."""
    return texts.make_world(texts.Size(**SMALL), 5)


@pytest.fixture(scope="module")
def labels():
    return texts.make_labels(texts.Size(**SMALL), 5, 4)


def batch_of(world, problems, responses, group):
    """Given responses, judged."""
    verdicts = tuple(world.task.check(problems[g], text) for g, text in zip(group, responses, strict=True))
    outcome = torch.tensor([verdict.outcome for verdict in verdicts])
    n = len(responses)
    seq = Sequences(
        prompts=tuple(torch.zeros(1, dtype=torch.int64) for _ in problems),
        group=torch.tensor(group),
        tokens=torch.zeros(n, 8, dtype=torch.int64),
        mask=torch.ones(n, 8, dtype=torch.bool),
    )
    rollouts = Rollouts(
        seq=seq,
        problems=tuple(problems),
        text=tuple(responses),
        pieces=tuple(tuple(text) for text in responses),
        logprobs=torch.zeros(n, 8),
        end=torch.zeros(n, dtype=torch.int64),
    )
    return Batch.given(rollouts, outcome, verdicts=verdicts, train=True)


@pytest.fixture
def by_hand(world):
    """3 + 4 + 8: 7, then 5; twice four candidates, of which one and two cannot be judged step by step."""
    problem = Problem(id="p", prompt="3+4+8=", answer="5")
    given = ["7,5", "7,6", "8,5", "x,5", "8,6", "7", "7,5,", "7, 5"]
    return texts._written(world.task, batch_of(world, [problem, problem], given, [0, 0, 0, 0, 1, 1, 1, 1]))


def test_what_is_known_of_steps_by_hand(by_hand):
    """8, 5: the first step is wrong and so is the second, 8 + 8 = 16. `7` is one step. A trailing comma is none."""
    assert by_hand.right.tolist() == [1, 0, 1, 1, 0, 0, 1, 1]
    assert by_hand.answers == ("5", "6", "5", "5", "6", "7", "5", "5")
    assert by_hand.known.tolist() == [True, True, True, False, True, True, True, False]
    nan = math.nan
    wanted = [[1, 1], [1, 0], [0, 0], [0, 1], [1, nan], [1, 1]]
    np.testing.assert_array_equal(by_hand.valid, wanted)
    assert by_hand.first.tolist() == [-1, 1, 0, 0, -1, -1]


def test_choices_and_votes_by_hand(by_hand):
    """Of four the best, of one any: 3 of the first four are right and 2 of the second."""
    scores = [0.9, 0.1, 0.2, 0.3, 0.9, 0.1, 0.2, 0.3]  # the best is right in the first group, wrong in the second
    found = judges.choosing(scores, by_hand, (1, 2, 4))
    assert found["best/4"] == 0.5
    assert found["best/1"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    # Pairs of the first group, best first: a-b, a-c, a-d right, d-b, d-c right, c-b right: 6 of 6. Of the second the
    # best is wrong in e-f, e-g, e-h, right in h-f, h-g and g-f: 3 of 6.
    assert found["best/2"] == pytest.approx((1 + 1 / 2) / 2)
    # 5 three times of four; in the second group 6, 7, 5, 5.
    assert judges.voting(None, by_hand, (4,)) == {"vote/4": 1.0}
    assert judges.voting([1, 0, 0, 0, 9, 1, 1, 1], by_hand, (4,)) == {"vote/4": 0.5}


def test_picking_is_the_mean_over_sizes_by_hand(by_hand):
    """Best of two 3/4 and of four 1/2, as above."""
    assert judges.picking([0.9, 0.1, 0.2, 0.3, 0.9, 0.1, 0.2, 0.3], by_hand, (2, 4)) == pytest.approx(5 / 8)


def test_readings_of_steps_by_hand(by_hand):
    """Rows that cannot be judged count nowhere, whatever their scores."""
    scores = torch.where(torch.tensor([[1, 1], [1, 0], [0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [0, 0]]) > 0, 2.0, -1.0)
    scores[5, 1] = torch.nan  # `7` has one step
    assert judges.step_auc(scores, by_hand) == 1.0
    assert judges.step_auc(-scores, by_hand) == 0.0
    assert judges.found_errors(scores, by_hand, scores, by_hand, False) == 1.0
    clean = dataclasses.replace(by_hand, first=np.full(6, -1))
    assert math.isnan(judges.found_errors(scores, clean, scores, by_hand, False))


def test_the_reference_writes_what_can_be_judged(world):
    assert world.test.known.mean() > 0.9
    assert 0.03 < world.test.right.mean() < 0.3  # by chance 0.1
    rows = world.train.rollouts
    assert len(rows.text) == 40 * 8
    assert {problem.prompt for problem in rows.problems}.isdisjoint(
        problem.prompt for problem in world.task.problems("train")[: SMALL["worked"] + SMALL["examples"]]
    )


def test_rows_of_the_first_responses(world):
    assert texts.first_rows(2, 3).tolist() == [0, 1, 2, 8, 9, 10]
    rows = judges.outcome_rows(world, "ce", 3, 2)
    batch = world.train
    assert [row.text for row in rows] == [batch.rollouts.text[i] for i in (0, 1, 8, 9, 16, 17)]
    assert [row.label for row in rows] == [float(batch.outcome[i]) for i in (0, 1, 8, 9, 16, 17)]
    assert all(isinstance(row, Unpaired) for row in rows)


def test_pairs_are_all_of_right_and_wrong(world):
    rows = judges.outcome_rows(world, "dpo", 40, 8)
    assert all(isinstance(row, Paired) for row in rows)
    right = world.train.outcome.reshape(40, 8).sum(dim=1)
    assert len(rows) == int((right * (8 - right)).sum())
    assert all(
        (world.task.check(row.problem, row.chosen).outcome, world.task.check(row.problem, row.rejected).outcome)
        == (1, 0)
        for row in rows
    )


def test_monte_carlo_labels_and_what_they_cost(world, labels):
    tokens = texts.tokens_of_prompts(world, labels)
    assert len(tokens) == 40
    assert tokens.sum() == labels.cost.tokens
    rows = judges.labeled_rows(labels, 16)
    assert len(rows) == 16
    for place, soft in enumerate(rows):
        assert isinstance(soft, Stepwise)
        assert "".join(soft.steps) == world.train.rollouts.text[place]
        if world.train.rollouts.end[place] == End.EOS:  # a whole response is its own only completion
            assert soft.labels[-1] == world.train.outcome[place]
        assert all(label * 4 == int(label * 4) for label in soft.labels)


def nothing(model):
    raise AssertionError("who learns nothing is not looked at")


@pytest.mark.parametrize("method", judges.IMPLICIT)
def test_untrained_all_rewards_are_exactly_0_and_rank_nothing(world, method):
    learned = judges.learn(world, method, judges.outcome_rows(world, method, 4, 8), (), 1e-3, nothing)
    rewards = ImplicitReward(learned.model, reference=world.start, splitter=texts.SPLITTER).step_rewards(
        world.test.batch
    )
    assert learned.steps == 0
    assert not rewards.nan_to_num().any()
    assert judges.step_auc(rewards, world.test) == 0.5


def high(text, place):
    return float(text.split(",")[place] >= "5")


def whole(batch):
    """Which responses are three digits, and which of these are high."""
    rows = [row for row, text in enumerate(batch.rollouts.text) if re.fullmatch("[0-9],[0-9],[0-9]", text)]
    return rows, np.array([[high(batch.rollouts.text[row], place) for place in range(3)] for row in rows])


def test_labels_of_steps_stand_on_their_commas_and_the_last_on_the_end_token(world, labels):
    """`7,5,0` and its end are the tokens 0 to 5: the steps end at 1, 3 and 5, for outcomes copied and labels alike."""
    rows, _ = whole(world.train)
    row = rows[0]
    for loss, examples in (
        (OutcomeSteps(splitter=texts.SPLITTER), judges.outcome_rows(world, "copied", 40, 8)),
        (StepLabels(), judges.labeled_rows(labels, 320)),
    ):
        _, columns = loss.prepare(world.start, [examples[row]])
        assert columns["share"][0].nonzero().squeeze(1).tolist() == [1, 3, 5]


def test_an_implicit_reward_learns_from_outcomes(world):
    """Responses are right if their last digit is high: the last step is rewarded for it, without a label of its own."""
    rows, labels = whole(world.train)
    examples = [
        Unpaired(problem=world.train.rollouts.problem(row), text=world.train.rollouts.text[row], label=own[-1])
        for row, own in zip(rows, labels.tolist(), strict=True)
    ]
    learned = judges.learn(world, "ce", examples, (40,), 1e-3, lambda _: world.dev.right)
    assert learned.steps == 40
    judge = ImplicitReward(learned.model, reference=world.start, splitter=texts.SPLITTER)
    asked, wanted = whole(world.test.batch)
    scores = judge.step_rewards(world.test.batch)[asked].numpy()
    assert auc(scores[:, 2], wanted[:, 2]) > 0.9


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in (*model.network.parameters(), model.head.weight)])


def test_a_judge_is_kept_as_it_was_at_its_best_look(world):
    """Its second of three looks is the best: it is what two looks alone would have made of it, and steps are two's."""
    rows = judges.outcome_rows(world, "copied", 40, 8)
    quality = {1: -world.dev.right, 2: world.dev.right, 3: 0 * world.dev.right}
    seen = []

    def score(model):
        seen.append(weights(model))
        return quality[len(seen)]

    learned = judges.learn(world, "copied", rows, (1, 3, 4), 1e-3, score)
    assert len(seen) == 3
    assert learned.steps == 3
    assert learned.dev == pytest.approx(judges.picking(world.dev.right, world.dev))
    assert [weights(learned.model).equal(then) for then in seen] == [False, True, False]


def test_looking_changes_nothing_of_what_is_learned(world):
    """Four steps at one go, or with looks between: the same weights at the end."""
    rows = judges.outcome_rows(world, "orm", 40, 8)
    count = [0]

    def better_and_better(_):
        count[0] += 1
        return world.dev.right if count[0] in (1, 3) else -world.dev.right

    whole = judges.learn(world, "orm", rows, (4,), 1e-3, better_and_better)
    parts = judges.learn(world, "orm", rows, (2, 4), 1e-3, better_and_better)
    assert parts.steps == 4
    assert weights(whole.model).equal(weights(parts.model))


def test_prompts_come_together_but_pairs_do_not(world, monkeypatch):
    """The first 64 responses are of eight prompts with eight each; the first 32 pairs of many more than two."""
    taken = {}

    def watch(model, rows, loss, plan, order):
        taken[type(loss).__name__] = [rows[place].problem.prompt for place in order(rows, None)]
        return True

    monkeypatch.setattr(judges, "fit", watch)
    for method in ("ce", "dpo"):
        judges.learn(world, method, judges.outcome_rows(world, method, 40, 8), (1,), 1e-3, lambda _: world.dev.right)
    assert [len(prompts) for prompts in taken.values()] == [64, 32]
    assert len(set(taken["ImplicitCE"])) == 8
    assert len(set(taken["Preference"])) > 4


def test_an_interrupted_fit_is_no_judge(world, monkeypatch):
    monkeypatch.setattr(judges, "fit", lambda *_, **__: False)
    with pytest.raises(KeyboardInterrupt):
        judges.learn(world, "ce", judges.outcome_rows(world, "ce", 4, 8), (5,), 1e-3, nothing)


def test_balanced_rows_are_as_many_right_as_wrong(world):
    labels = [row.label for row in judges.outcome_rows(world, "ce", 40, 8, "dataset")]
    assert labels.count(1.0) == labels.count(0.0) == int(world.train.outcome.sum())


def test_learning_leaves_the_reference_as_it_was(world):
    before = [parameter.clone() for parameter in world.start.network.parameters()]
    learned = judges.learn(world, "soft", judges.outcome_rows(world, "copied", 4, 8)[:0], (3,), 1e-2, nothing)
    judges.learn(world, "copied", judges.outcome_rows(world, "copied", 4, 8), (3,), 1e-2, lambda _: world.dev.right)
    new = learned.model.network.parameters()
    for parameter, old, own in zip(world.start.network.parameters(), before, new, strict=True):
        assert parameter.equal(old)
        assert own.equal(old)  # no rows: nothing learned


@pytest.fixture(scope="module")
def every_arm():
    """One seed of small settings."""
    changed = {**STUDY.fast, **SMALL, "prompts": 40, "looks": [1, 3]}
    return {arm: cell({**ARMS[arm], **changed}, 5) for arm in ARMS}


def test_every_claim_and_row_reads_what_is_there(every_arm):
    found = {arm: measured.metrics for arm, measured in every_arm.items()}
    for claim in CLAIMS:
        assert all(math.isfinite(effect.of(found)) for effect in claim.effects)
    for row in STUDY.rows:
        assert math.isfinite(found[row.arm][row.metric])


def test_arms_choose_among_the_same_responses(every_arm):
    ones = {round(every_arm[arm].metrics["best/1"], 12) for arm in (CE, DPO, KTO, ORM, COPIED, SOFT, VOTE, ORACLE)}
    assert len(ones) == 1
    best = every_arm[ORACLE].metrics
    for measured in every_arm.values():
        assert all(measured.metrics[f"best/{n}"] <= best[f"best/{n}"] + 1e-12 for n in (1, 2, 4, 8, 16))


def test_equal_tokens_are_as_many_prompts_as_cost_no_more(every_arm):
    plain, labeled, equal = (every_arm[arm].metrics for arm in (CE, SOFT, SOFT_EQUAL))
    assert equal["sampled"] <= plain["sampled"] < labeled["sampled"]
    assert 0 < equal["examples"] < labeled["examples"] == plain["examples"] == 320
    assert equal["examples"] % 8 == 0


def test_every_learner_has_the_same_looks():
    """Nobody is kept after a number of steps that the others could not be."""
    looks = [tuple(settings["looks"]) for settings in ARMS.values() if settings["kind"] != "none"]
    assert len(looks) == 12
    assert len(set(looks)) == 1


def test_a_cell_depends_on_settings_and_seed_alone(every_arm):
    texts.make_world.cache_clear()
    texts.make_labels.cache_clear()
    changed = {**STUDY.fast, **SMALL, "prompts": 40, "looks": [1, 3]}
    again = cell({**ARMS[SOFT], **changed}, 5)
    assert again.metrics == every_arm[SOFT].metrics
    assert cell({**ARMS[LIKELIHOOD], **changed}, 6).metrics != every_arm[LIKELIHOOD].metrics
