"""What the study signals-on-smollm writes beside its README, by hand: arms and loops compared, what signals knew."""

import math

import pyarrow
import pytest

from reckon.errors import InputError
from reckon.evaluate import Difference
from reckon.studies.signals_on_smollm import COOPER, EXACT, GRPO, NOVELTY, OREAL, PRIME, RLOO, STEPS, SURROGATE
from reckon.studies.signals_on_smollm_pages import PAID, START, compared, knowledge, over_time, paired, told_apart
from reckon.studies.signals_on_smollm_trl import best_signal, loops_compared, told


def test_arms_are_paired_by_problem_and_by_the_seeds_that_both_have():
    """Means over seeds of 0.5 and 1, less 0.25 and 0.25: 0.5, the differences 0.25 and 0.75, the error 0.25."""
    arm = {"0": {"a": 0.25, "b": 1.0}, "1": {"a": 0.75, "b": 1.0}, "2": {"a": 0.0, "b": 0.0}}
    other = {"0": {"a": 0.5, "b": 0.25}, "1": {"a": 0.0, "b": 0.25}}
    found = paired(arm, other)
    assert (found.mean, found.error) == (pytest.approx(0.5), pytest.approx(0.25))
    page = compared({"held-out": {GRPO: other, "the start": {"0": other["0"]}, PRIME: arm}})
    assert f"| {PRIME} | 0, 1, 2 | 0.500 | +0.250 ± 0.500 | +0.500 ± 0.250 (+0.250, +0.750) |" in page
    assert f"| {GRPO} | 0, 1 | 0.250 | +0.000 ± 0.000 |  |" in page
    assert "| the start | 0 | 0.375 |  |  |" in page


def rows_of(group, *answers, step=1, stream="s"):
    return [{"step": step, "group": group, "outcome": right, stream: paid} for right, paid in answers]


def knew(monkeypatch, rows, stream="s"):
    """Of one step, so that all of it is in the second half."""
    table = pyarrow.Table.from_pylist(rows)
    monkeypatch.setattr("reckon.runs.read_rollouts", lambda run, columns: table)
    return knowledge("run", stream)["second half"]


def test_what_rewards_knew_by_hand(monkeypatch):
    """One group won a pair and tied another (3/4), one lost, and one has no wrong answer. Sums of (2, 1, 2) and (0.5,
    0.75), whose means are 5/3 and 0.625; deviations over those of the verdicts (1, 0, 0) and (1, 0)."""
    rows = [
        *rows_of(0, (1.0, [2.0, None]), (0.0, [1.0]), (0.0, [2.0])),
        *rows_of(1, (1.0, [0.5]), (0.0, [0.25, 0.5])),
        *rows_of(2, (1.0, [1.0])),
    ]
    found = knew(monkeypatch, rows)
    spread = (2**0.5 / 3 + 0.125) / (2**0.5 / 3 + 0.5)
    expected = {"auc": 0.375, "error": 0.375, "groups": 2, "mean": (5 / 3 + 0.625) / 2, "spread": spread}
    assert found == pytest.approx(expected)
    alone = knew(monkeypatch, rows_of(0, (1.0, 2.0), (0.0, 1.0), (None, 9.0), (0.0, None)))  # two are not known
    assert alone == pytest.approx({"auc": 1, "error": math.nan, "groups": 1, "mean": 1.5, "spread": 1}, nan_ok=True)
    page = told_apart({COOPER: {"0": {"first half": found, "second half": alone}}})
    assert f"| {COOPER} | `judge` | 0 | " in page
    assert " (2) | 1.15 | 0.61 | 1.00 ± nan (1) | 1.50 | 1.00 |" in page
    none = knew(monkeypatch, rows_of(0, (1.0, 2.0), (1.0, 1.0)))
    assert none["groups"] == 0
    assert math.isnan(none["auc"])


def test_what_advantages_knew_by_hand(monkeypatch):
    """Means over tokens of 0.5 and 1, one without a step left out; the spread is that of 0, 1, 1, 1 over 1/2."""
    rows = rows_of(0, (1.0, [0.0, None, 1.0]), (0.0, [1.0, 1.0]), stream=PAID[STEPS])
    found = knew(monkeypatch, rows, PAID[STEPS])
    assert (found["auc"], found["mean"]) == (0, 0.75)
    assert found["spread"] == pytest.approx((3 / 16) ** 0.5 / 0.5)


def test_curves_over_time_are_means_over_seeds():
    x = {"minutes of training": [1.0, 3.0], "generated tokens": [10, 20]}
    figure = over_time(
        {"one": [{**x, "height": [0.0, 1.0]}, {**x, "minutes of training": [3.0, 5.0], "height": [1.0, 2.0]}]}
    )
    (panel,) = figure.axes
    mean = panel.lines[-1]
    assert (mean.get_xdata().tolist(), mean.get_ydata().tolist()) == ([2.0, 4.0], [0.5, 1.5])
    assert len(panel.lines) == 3


def test_step_advantages_are_held_against_each_other_over_the_seeds_that_both_have():
    """By hand: 0.5 and 1 where the learned ones have 0 and 0.5; the second seed has no partner."""
    arms = {START: {"0": {"a": 0.0, "b": 0.0}}, STEPS: {"0": {"a": 0.0, "b": 0.5}}}
    arms[EXACT] = {"0": {"a": 0.5, "b": 1.0}, "1": {"a": 0.0, "b": 0.0}}
    page = compared({"held-out": arms})
    assert f"| held-out | {EXACT} less {STEPS} | +0.500 ± 0.000 |" in page
    assert page.count(" less step advantages |") == 1
    assert "by what their judge knows" not in compared({"held-out": {START: arms[START], STEPS: arms[STEPS]}})


def accuracy_rows(left=(), **accuracies):
    names = {"grpo": GRPO, "rloo": RLOO, "prime": PRIME, "surrogate": SURROGATE, "novelty": NOVELTY, "cooper": COOPER}
    return {
        "rows": [
            {"arm": names[name], "says": "held-out: accuracy", "here": {"mean": value}}
            for name, value in accuracies.items()
        ]
        + [{"arm": OREAL, "says": "held-out: accuracy", "here": {"mean": 0.9}}],
        "not run": list(left),
    }


def test_the_best_signal_is_one_that_trl_has_a_place_for():
    known = {"grpo": 0.3, "rloo": 0.2, "prime": 0.1, "surrogate": 0.1, "novelty": 0.2, "cooper": 0.4}
    assert best_signal(accuracy_rows(**known)) == "judge"
    assert best_signal(accuracy_rows(**{**known, "rloo": 0.5})) == "leave-one-out"
    with pytest.raises(InputError, match="has not run PRIME, seed 1; RLOO, seed 1"):
        best_signal(accuracy_rows(["PRIME, seed 1", "RLOO, seed 1"], **known))


def apart(mean, error):
    return Difference(mean=mean, error=error, low=mean - 2 * error, high=mean + 2 * error, n=9)


@pytest.mark.parametrize(
    ("own", "theirs", "loops", "expected"),
    [
        (apart(0.2, 0.1), apart(0.3, 0.1), [apart(0.1, 0.1)] * 2, "the signal"),
        (apart(-0.2, 0.1), apart(-0.3, 0.1), [apart(0.1, 0.1)] * 2, "the signal"),
        (apart(0.2, 0.1), apart(-0.3, 0.1), [apart(0.1, 0.1)] * 2, "neither is seen"),  # each the other way
        (apart(0.19, 0.1), apart(0.3, 0.1), [apart(0.1, 0.1)] * 2, "neither is seen"),
        (apart(0.19, 0.1), apart(0.3, 0.1), [apart(0.1, 0.1), apart(-0.2, 0.1)], "the loop"),
        (apart(0.2, 0.1), apart(0.3, 0.1), [apart(0.2, 0.1), apart(0.0, 0.1)], "both"),
        (apart(0.2, math.nan), apart(0.3, math.nan), [apart(0.2, math.nan), apart(0.0, 0.0)], "neither is seen"),
    ],
)
def test_what_tells_apart(own, theirs, loops, expected):
    assert told(own, theirs, loops) == expected


def test_loops_are_compared_by_problem():
    """By hand: with the verdict TRL has (0.5, 0.5) where this loop has (0.5, 0.25); with format and length (1, 0.75)
    where this has (0.75, 0.75); the start has (0, 0.25)."""
    sides = {START: [0.0, 0.25], GRPO: [0.5, 0.25], SURROGATE: [0.75, 0.75]}
    ours = {"held-out": {arm: {"0": dict(zip("ab", values, strict=True))} for arm, values in sides.items()}}
    run = {"seed": 0, "steps": 25, "generated": 32100, "minutes": 9.0}
    found = [
        {**run, "signal": "verdict", "shares": {"held-out": {"a": 0.5, "b": 0.5}}},
        {**run, "signal": "format-length", "shares": {"held-out": {"a": 1.0, "b": 0.75}}},
    ]
    cell = {"generated/spent/generated": 32900.0, "minutes": 5.25}
    page = loops_compared(ours, found, {(GRPO, 0): cell, (SURROGATE, 0): cell})
    assert "| verdict | GRPO | 0 | 25 | 32,100 | 32,900 | 9.0 | 5.2 |  |" in page
    assert "| verdict | +0.375 ± 0.125 | +0.250 ± 0.250 | +0.125 ± 0.125 |  |  |  |" in page
    assert (
        "| format-length | +0.750 ± 0.250 | +0.625 ± 0.125 | +0.125 ± 0.125 | +0.375 ± 0.125 | +0.375 ± 0.125 |"
        " the signal |" in page
    )
