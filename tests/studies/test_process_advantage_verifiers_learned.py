"""Labels, a learned verifier and its measures on the planted sequence, against the exact table."""

import functools
import json
import math

import numpy as np
import pytest
import torch

from reckon.fit import Calibration, Prefix
from reckon.studies import _planted_learn, judge, run_study
from reckon.studies._planted import END, FOUND, LENGTH, WORDS, Planted, prover, q_and_v, sample, states, table_law
from reckon.studies._planted_learn import learn
from reckon.studies._planted_policy import NetworkPolicy, exact_judge, imitate
from reckon.studies._planted_quality import agreement, quality
from reckon.studies._planted_verifier import Drawn, LearnedJudge, Verifier, draw_labels, fit_verifier
from reckon.studies._study import slug
from reckon.studies.process_advantage_verifiers_learned import BUDGETS, STUDY, WAYS, cell
from reckon.types import Batch, Problem, Rng

PROBLEM = Problem(id="p", prompt="Which sequence?")
Q, V = q_and_v(prover(10))


def exact(row):
    k = int(states(torch.tensor([row.tokens], dtype=torch.int64))[0, -1])
    return 1.0 if k == FOUND else float(V[len(row.tokens), k])


class Table:
    """A verifier that is right: the table read by time and what is spelled, plus a constant."""

    def __init__(self, off=0.0):
        self.off = off

    def values(self, tokens):
        k = states(tokens)
        return torch.where(k == FOUND, 1.0, V[torch.arange(LENGTH + 1), k]) + self.off

    def after_each(self, tokens):
        return Q[torch.arange(LENGTH), states(tokens)[:, :-1]]


# Labels

BUDGET = 6000


@functools.cache
def drawn_once(seeds, n_mc):
    """What several tests look at."""
    return draw_labels(seeds, n_mc, BUDGET, Rng((5,)))


@pytest.mark.parametrize("seeds", ["random", "first pit", "both"])
@pytest.mark.parametrize("n_mc", [1, 20])
def test_labels_are_unbiased_and_cost_what_was_given(seeds, n_mc):
    """The mean error of all drawn labels is 0 within four standard errors, the ends of wrong responses included."""
    drawn = drawn_once(seeds, n_mc)
    assert BUDGET - 2 * (1 + LENGTH) * (n_mc + 8) < drawn.rollouts <= BUDGET
    rows = [row for trace in drawn.traces for row in trace]
    assert all(END not in row.tokens and len(row.tokens) <= LENGTH for row in rows)
    assert all(row.text == "".join(f"{token} " for token in row.tokens) for row in rows)
    errors = np.array([row.q - exact(row) for row in rows if len(row.tokens) < LENGTH])
    variance = np.array([exact(row) * (1 - exact(row)) / n_mc for row in rows if len(row.tokens) < LENGTH])
    assert abs(errors.sum()) < 4 * math.sqrt(variance.sum())
    assert any(row.q == 1 and exact(row) == 1 for row in rows)  # what is right already is among them


def test_random_seeds_cost_as_the_paper_counts():
    """With one completion a label is a rollout, but where the response is over and checked; and each seed is one."""
    drawn = drawn_once("random", 1)
    completed = sum(len(row.tokens) < LENGTH and exact(row) < 1 for trace in drawn.traces for row in trace)
    assert drawn.rollouts == len(drawn.traces) + completed


def test_pits_are_not_gone_beyond():
    """Of wrong completions every label is of a beginning of the same response, and none is right already."""
    drawn = draw_labels("first pit", 4, BUDGET, Rng((5,)))
    hunts = [trace for trace in drawn.traces if len(trace) > 1]
    assert len(hunts) > 20
    for trace in hunts:
        assert [row.tokens for row in trace] == [trace[-1].tokens[:size] for size in range(len(trace))]
        assert exact(trace[-1]) < 1
    # the dearer the label, the fewer of them
    assert len(drawn_once("first pit", 20).traces) < len(drawn.traces)


# The verifier


def test_what_comes_after_each_token_is_the_value_of_the_longer_text():
    verifier = Verifier(3)
    tokens = sample(table_law(prover(100)), [PROBLEM], 40, Rng((1,))).seq.tokens
    worth = verifier.after_each(tokens)
    assert worth.shape == (40, LENGTH, WORDS)
    for t, token in ((0, 3), (4, 5), (7, 11)):
        longer = tokens.clone()
        longer[:, t] = token
        torch.testing.assert_close(worth[:, t, token], verifier.values(longer)[:, t + 1], rtol=1e-5, atol=1e-6)
    k = states(tokens)
    assert (worth[:, :, END] == (k[:, :-1] == FOUND)).all()  # the end is checked
    last = worth[:, LENGTH - 1]  # and so is what has no room to go on: 5 is right from k = 4 alone
    assert (last[:, 5] == ((k[:, LENGTH - 1] == 4) | (k[:, LENGTH - 1] == FOUND))).all()
    assert (k[:, 5] == FOUND).any()


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(0)
    one = Verifier(1).state_dict()
    torch.manual_seed(1)
    assert all(torch.equal(value, Verifier(1).state_dict()[name]) for name, value in one.items())


@pytest.mark.parametrize("balanced", [False, True])
def test_a_verifier_learns_the_table_from_good_labels(balanced):
    """Labels without noise: the exact values of 400 responses. It must come near them on others, calibrated."""
    tokens = sample(table_law(prover(10)), [PROBLEM], 400, Rng((2,))).seq.tokens.tolist()
    traces = []
    for row in tokens:
        open_until = row.index(END) if END in row else LENGTH - 1
        prefixes = [Prefix(problem=PROBLEM, text="", q=0.0, tokens=tuple(row[:size])) for size in range(open_until + 1)]
        traces.append(tuple(Prefix(problem=PROBLEM, text="", q=exact(one), tokens=one.tokens) for one in prefixes))
    verifier = fit_verifier(Drawn(traces=tuple(traces), rollouts=0), 300, Rng((3,)), balanced=balanced)
    assert (verifier.calibration != Calibration()) == balanced
    found, untrained = (
        quality(which, V, sample(table_law(prover(10)), [PROBLEM], 500, Rng((4,)))) for which in (verifier, Verifier(0))
    )
    assert found["values, low: share"] < 0.3
    assert found["values, low: rank"] > 0.8
    assert found["values, high: error"] < 0.1 < untrained["values, high: error"]
    assert found["values, low: error"] < untrained["values, low: error"] / 10


def test_labels_that_say_nothing_leave_a_verifier_uncalibrated():
    traces = tuple((Prefix(problem=PROBLEM, text="", q=0.0, tokens=()),) for _ in range(10))
    verifier = fit_verifier(Drawn(traces=traces, rollouts=0), 3, Rng((3,)), balanced=True)
    assert verifier.calibration == Calibration()


# What is measured


def test_the_table_itself_is_without_error():
    rollouts = sample(table_law(prover(10)), [PROBLEM], 1000, Rng((8,)))
    found = quality(Table(), V, rollouts)
    errors = [value for name, value in found.items() if "error" in name]
    assert errors == pytest.approx([0] * 4, abs=1e-15)
    ranks = {name: value for name, value in found.items() if "rank" in name}
    assert math.isnan(ranks.pop("values, high: rank"))  # all are 1
    assert list(ranks.values()) == pytest.approx([1] * 4)
    assert found["values, low: share"] == pytest.approx(0)


def test_a_constant_error_stays_in_values_and_leaves_advantages_but_where_the_verdict_stands():
    """Off by 0.1 everywhere: the error of a value is 0.01, of an advantage 0, but at a last step 0.01 again.

    Three responses of 10, 2 and 1 steps, none right: three of the thirteen steps are last ones.
    """
    rollouts = sample(table_law(prover(10)), [PROBLEM], 400, Rng((9,)))
    sizes = rollouts.seq.mask.sum(dim=1).tolist()
    wrong = [not Planted().check(PROBLEM, text).outcome for text in rollouts.text]
    chosen = [next(i for i in range(400) if sizes[i] == size and wrong[i]) for size in (10, 2, 1)]
    found = quality(Table(0.1), V, rollouts.take(torch.tensor(chosen)))
    assert found["values, low: error"] == pytest.approx(0.01)
    assert found["advantages, low: error"] == pytest.approx(0.01 * 3 / 13)
    assert found["values, low: rank"] == pytest.approx(1)


def batch_of(policy, n):
    drawn = policy.sample([PROBLEM], n, Rng((7,)))
    outcome = torch.tensor([Planted().check(PROBLEM, text).outcome for text in drawn.text])
    return Batch.given(drawn, outcome, train=True)


def test_with_exact_values_the_learned_judge_is_the_exact_one():
    policy = NetworkPolicy(0)
    imitate(policy, sample(table_law(prover(100)), [PROBLEM], 1280, Rng((8,))), 64)
    batch = batch_of(policy, 128)
    known, found = exact_judge(policy, Q, V, "advantage", 2.0), LearnedJudge(policy, Table(), 2.0)
    mask = batch.seq.mask
    streams = found.assess(batch, Rng((0,)))
    assert streams["step"].kind == "advantage"
    wanted = known.score(batch)["step"].values
    torch.testing.assert_close(streams["step"].values[mask].float(), wanted[mask], rtol=1e-5, atol=1e-6)
    assert streams["correct"].values is batch.outcome
    assert batch.outcome.sum() > 0
    assert agreement(batch, streams, known) == pytest.approx(1, abs=1e-3)
    assert abs(agreement(batch, LearnedJudge(policy, Verifier(0), 2.0).score(batch), known)) < 0.9


def test_a_run_stops_when_it_is_solved_and_is_otherwise_the_same():
    whole = learn(lambda policy: exact_judge(policy, Q, V, "advantage", 1.0), 0.01, 4, 0)
    seen = []
    judged = learn(
        lambda policy: exact_judge(policy, Q, V, "advantage", 1.0),
        0.01,
        4,
        0,
        until_solved=True,
        observe=lambda policy, batch, streams: seen.append((batch.step, sorted(streams))),
    )
    assert judged == whole
    assert seen == [(step, ["correct", "step"]) for step in range(4)]
    assert whole.metrics["steps to 0.9"] == 4
    assert whole.metrics["solved"] == 0


# The study


def test_fast_runs_end_to_end_and_a_cell_depends_on_its_seed_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(_planted_learn, "DRAWN", 128)  # the pass@64 of two steps may be rough
    results = run_study(STUDY, tmp_path, fast=True, seeds=[1])
    assert results["not run"] == []
    assert json.loads((tmp_path / "results.json").read_text())["claims"] == []
    arm = "first pit, n_mc 4"
    kept = json.loads((tmp_path / "cells" / f"{slug(arm)}-seed-1.json").read_text())["metrics"]
    known = {name: value for name, value in kept.items() if value is not None}
    again, other = (cell({**STUDY.arms[arm], **STUDY.fast}, seed).metrics for seed in (1, 2))
    assert {name: again[name] for name in known} == pytest.approx(known, rel=1e-5)  # a file has six digits
    assert {name: other[name] for name in known} != pytest.approx(known, rel=1e-5)


def world():
    """What one seed would find if the specification's expectations held, with numbers from no run."""
    found = {}
    for arm, plan in WAYS.items():
        found[arm] = {}
        for place, size in BUDGETS.items():
            n_mc, pit = plan["n_mc"], plan["seeds"] == "first pit"
            # rank rises with the budget; 1 completion is better by 0.1 when small, 20 when large
            tilt = {"small": -0.1, "middle": 0.0, "large": 0.1}[place] * math.log(n_mc) / math.log(20)
            rank = 0.4 + 0.1 * math.log10(size / 2000) + tilt + 0.06 * pit
            steps = 150 - 100 * rank
            found[arm] |= {
                f"{place}: values, low: rank": rank + 0.2,
                f"{place}: values, low: share": 0.8 - rank,
                f"{place}: advantages, low: share": 1.1 - rank,
                f"{place}: advantages, rank": rank,
                f"{place}: agreement with the exact judge": rank - 0.1,
                f"{place}: steps to 0.9": steps,
                f"{place}: solved": 1.0,
                f"{place}: rollouts to 0.9, labels included": size + 64 * steps,
            }
    found["random, n_mc 20, balanced"] = dict(found["random, n_mc 20"])
    found["half first pit, n_mc 4"] = dict(found["first pit, n_mc 4"])
    for arm, steps in (("outcome, entropy 0", 198), ("exact mu_10", 81)):
        found[arm] = {}
        for place in BUDGETS:
            found[arm] |= {
                f"{place}: steps to 0.9": steps,
                f"{place}: rollouts to 0.9, labels included": 64 * steps,
            }
    return found


def test_the_rules_see_what_is_expected_and_not_its_absence():
    verdicts = [judge(claim, [world()] * 5, 5).verdict for claim in STUDY.claims]
    assert verdicts == ["seen"] * 11 + ["not testable here"]
    flat = {arm: dict.fromkeys(metrics, 300.0) for arm, metrics in world().items()}
    verdicts = [judge(claim, [flat] * 5, 5).verdict for claim in STUDY.claims]
    # where all are equal, balance costs nothing, and the best steps are within one and a half times the exact ones
    assert verdicts == [*["not seen"] * 5, "seen", "not seen", "seen", *["not seen"] * 3, "not testable here"]


def test_the_rules_see_the_opposite_as_the_opposite():
    """Best and worst are chosen in each seed by the rank of advantages, not by the steps they took."""
    found = world()
    for arm in WAYS:
        for place in BUDGETS:
            found[arm][f"{place}: steps to 0.9"] = 30 + 300 * found[arm][f"{place}: advantages, rank"]
    verdict = {claim.says: judge(claim, [found] * 5, 5).verdict for claim in STUDY.claims}
    assert verdict["The worst verifier costs steps"] == "not seen"
    assert verdict["The best verifier's advantages need at most one and a half times the steps of exact ones"] == (
        "not seen"
    )


def test_giving_up_is_not_saving():
    """A run that was not there after its 200 steps counts as long as the outcome alone may take, 500."""
    found = world()
    for arm in WAYS:
        for place in BUDGETS:
            found[arm] |= {f"{place}: steps to 0.9": 200, f"{place}: solved": 0.0}
            found[arm][f"{place}: rollouts to 0.9, labels included"] = BUDGETS[place] + 64 * 200
    found["outcome, entropy 0"]["small: steps to 0.9"] = 355
    found["outcome, entropy 0"]["small: rollouts to 0.9, labels included"] = 64 * 355
    effect = {claim.says: claim.effects[0].of(found) for claim in STUDY.claims if claim.effects}
    assert effect["Even the worst verifier needs fewer steps than the outcome alone"] == 355 - 500
    rollouts = "With the labels' rollouts counted, the best verifier of the smallest budget still saves rollouts"
    assert effect[rollouts] == 64 * 355 - (2000 + 64 * 500)


def test_ends_are_not_cut():
    """The prover's responses of ten tokens are whole ones here, and may be right."""
    rows = [row for trace in drawn_once("random", 1).traces for row in trace]
    full = [row for row in rows if len(row.tokens) == LENGTH]
    assert {row.q for row in full} == {0.0, 1.0}
    assert all(row.q == exact(row) for row in full)
