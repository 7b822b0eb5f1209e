"""The world of the study against enumeration, its identities, and every line of the study once."""

import itertools
import math

import numpy as np
import pytest
import torch

from reckon.models import Optimization
from reckon.rewards import TokenOutcomeModel
from reckon.samplers import All, Uniform, collect
from reckon.studies._oreal_theory import largest_errors
from reckon.studies._oreal_world import (
    FEATURES,
    PROMPTS,
    TOKENS,
    WORDS,
    CriticalTokens,
    localization,
    start_policy,
)
from reckon.studies.oreal import CLAIMS, IDENTITIES, STUDY, cell
from reckon.types import Rng

ADAM = Optimization(lr=0.05, beta2=0.999, clip=None)
ROOT = Rng((3, "test"))


@pytest.fixture
def world():
    task = CriticalTokens(ROOT)
    return task, start_policy(task, ADAM, ROOT)


def batch_from(task, policy, n=16, k=16, seed=1):
    def verify(rollouts):
        return [task.check(rollouts.problem(row), text) for row, text in enumerate(rollouts.text)]

    return collect(Uniform(task), policy, verify, All(), n, k, Rng((seed,)), step=0)


def test_two_different_places_decide_and_no_other(world):
    task, _ = world
    for x in (0, 7, 31):
        problem = task.problems("train")[x]
        (first, second), (one, other) = task.places[x].tolist(), task.words[x].tolist()
        assert first != second
        for filler, a, b in itertools.product(range(WORDS), repeat=3):
            text = [str(filler)] * TOKENS
            text[first], text[second] = str(a), str(b)
            assert task.check(problem, "".join(text)).outcome == float((a, b) == (one, other))


def test_the_chance_of_success_is_that_of_all_texts(world):
    """At two places and all 25 words there, prompt by prompt."""
    task, policy = world
    law, total = policy.law().double(), 0.0
    for x in range(PROMPTS):
        (first, second), wanted = task.places[x].tolist(), task.words[x].tolist()
        for a, b in itertools.product(range(WORDS), repeat=2):
            total += float(law[x, first, a] * law[x, second, b]) * ([a, b] == wanted)
    assert task.chance_of_success(policy.law()) == pytest.approx(total / PROMPTS, abs=1e-12)


def test_the_start_is_the_least_squares_fit_of_what_is_aimed_at(world):
    """The residual is orthogonal to every feature; 0.45 at a critical word where nothing is shared."""
    task, policy = world
    aimed = torch.zeros(PROMPTS, TOKENS, WORDS)
    for x in range(PROMPTS):
        for place, word in zip(task.places[x].tolist(), task.words[x].tolist(), strict=True):
            aimed[x, place, word] = math.log(0.45 * 4 / 0.55)
    assert float(aimed[0, task.places[0, 0]].softmax(0).max()) == pytest.approx(0.45)
    residual = (policy.features @ policy.weights).detach() - aimed
    leans = torch.einsum("xtd,xtv->dv", policy.features, residual)
    assert float(leans.abs().max()) < 1e-4
    assert 0.04 < task.chance_of_success(policy.law()) < 0.12
    assert float(policy.features.square().sum(2).mean()) == pytest.approx(1, abs=0.05)
    assert policy.features.shape == (PROMPTS, TOKENS, FEATURES)


def test_words_follow_the_law_and_log_probs_are_theirs(world):
    task, policy = world
    batch = batch_from(task, policy, n=1, k=4000)
    x = int(batch.rollouts.problems[0].id)
    law = policy.law()[x]
    for t in (0, 11):
        counts = np.bincount(batch.seq.tokens[:, t].numpy(), minlength=WORDS)
        expected = 4000 * law[t].numpy()
        assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-squared, 4 degrees, p = .001
    for row in range(3):
        wanted = [math.log(law[t, int(word)]) for t, word in enumerate(batch.rollouts.text[row])]
        assert batch.rollouts.logprobs[row].tolist() == pytest.approx(wanted, abs=1e-5)


def test_a_head_reads_the_word_and_its_context(world):
    task, policy = world
    twin = policy.twin(ADAM, value_head=True)
    with torch.no_grad():
        twin.head.copy_(torch.arange(FEATURES * WORDS).reshape(FEATURES, WORDS) / 100)
    batch = batch_from(task, policy, n=2, k=2)
    scores = twin.outputs(batch.seq, ("scores",)).scores
    for row in range(4):
        x = int(batch.rollouts.problem(row).id)
        for t in (0, 5):
            wanted = float(policy.features[x, t] @ twin.head.detach()[:, batch.seq.tokens[row, t]])
            assert float(scores[row, t]) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_twins_and_references_move_apart(world):
    task, policy = world
    batch = batch_from(task, policy, n=2, k=4)
    twin, start = policy.twin(ADAM), policy.reference()
    twin.step(batch.seq, {}, lambda outputs, _: -outputs.logprobs)
    assert (twin.outputs(batch.seq).logprobs.sum() > batch.rollouts.logprobs.sum()).item()
    for still in (policy, start):
        assert torch.equal(still.outputs(batch.seq).logprobs, batch.rollouts.logprobs)
    again = policy.twin(ADAM, value_head=True)
    state = again.state_dict()
    again.step(batch.seq, {}, lambda outputs, _: outputs.scores - outputs.logprobs, ("logprobs", "scores"))
    assert again.head.any()
    again.load_state_dict(state)
    assert not again.head.any()
    assert torch.equal(again.weights, policy.weights)


def test_localization_by_hand(world):
    task, _ = world
    scores = torch.zeros(PROMPTS, TOKENS, WORDS)
    assert localization(scores, task)[0] == 0.5
    for x in range(PROMPTS):
        for place, word in zip(task.places[x].tolist(), task.words[x].tolist(), strict=True):
            scores[x, place, word] = 1.0
    assert localization(scores, task) == (1.0, 1.0)
    assert localization(-scores, task) == (1.0, 0.0)


def test_the_model_of_tokens_finds_the_critical_words_from_outcomes(world):
    task, policy = world
    reward = TokenOutcomeModel(policy, optimizer=ADAM, position="after", balanced=True)
    for step in range(40):
        reward.assess(batch_from(task, policy, n=32, seed=step), Rng((step,)))
    scores = (reward.model.features @ reward.model.head).detach()
    spread, top = localization(scores, task)
    assert spread > 0.6
    assert top > 0.5


@pytest.mark.parametrize("seed", [0, 11])
def test_the_identities_hold(seed):
    found = largest_errors(seed)
    assert list(found) == list(IDENTITIES)
    assert all(error < 1e-9 for error in found.values())


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
    """One start; ten frozen steps where tokens are weighed; arms that differ in any setting end apart."""
    starts = {measured.metrics["start"] for arm, measured in every_arm.items() if arm != "exact theory"}
    assert len(starts) == 1
    frozen = every_arm["code + weights"].curves["one pair: success"]
    assert frozen[0] == frozen[2]  # steps 0 and 10
    plain = every_arm["code"].curves["one pair: success"]
    assert plain[0] == frozen[0] != plain[1]
    ends = [measured.metrics["end"] for arm, measured in every_arm.items() if arm != "exact theory"]
    assert len(set(ends)) == len(ends)


def test_cloning_alone_does_not_push(every_arm):
    """Its coefficient of wrong responses is 0, so that how they are credited does not matter."""
    settings = {**STUDY.arms["cloning only"], **STUDY.fast}
    other = cell({**settings, "wrong": "failures"}, 0)
    assert other.metrics == every_arm["cloning only"].metrics


def test_a_cell_depends_on_settings_and_seed_alone():
    settings = {**STUDY.arms["code + weights"], **STUDY.fast}
    again, other = cell(settings, 1), cell(settings, 2)
    assert repr(cell(settings, 1).metrics) == repr(again.metrics) != repr(other.metrics)
