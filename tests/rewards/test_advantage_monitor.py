"""A judge of steps held against known chances: correlations by hand, what is checked and when, and what is refused."""

import math
from dataclasses import replace

import pytest
import torch
from judge_models import batch_of

from reckon.costs import Ledger
from reckon.errors import InputError, RunError
from reckon.rewards import AdvantageMonitor, ExactAdvantage, Sum, Verifier
from reckon.rewards._advantage_monitor import correlated
from reckon.steps import Pattern
from reckon.types import LearningReward, Reporting, Rng

NAN = math.nan
RNG = Rng((0, "reward"))
LINES = Pattern()
PIECES = [["a", "\n", "b", ""], ["c", ""], ["d", "\n", "e", ""]]
TRUTH = {"a\nb": [0.5, 0.6, 0.9], "c": [0.5, 0.3], "d\ne": [0.5, 0.5, 0.4]}  # steps: .1, .3; -.2; 0, -.1
JUDGED = {"a\nb": [0.5, 0.6, 0.8], "c": [0.5, 0.4], "d\ne": [0.5, 0.6, 0.6]}  # .1, .2; -.1; .1, 0


def known(chances, splitter=LINES):
    """The chances of each text, NaN behind the last."""

    def values(rollouts, steps):
        width = max(len(ends) for ends in steps.ends) + 1
        rows = [chances[text] for text in rollouts.text]
        return torch.tensor([[*row, *[NAN] * (width - len(row))] for row in rows], dtype=torch.float64)

    return ExactAdvantage(values, splitter=splitter)


def responses(step=0):
    return replace(batch_of(PIECES, outcomes=[1.0, 0.0, 1.0]), step=step)


def monitor(judged=JUDGED, **settings):
    return AdvantageMonitor(known(judged), **{"against": known(TRUTH), "every": 2, **settings})


def test_the_correlation_of_all_steps_by_hand():
    """Judge .1, .2, -.1, .1, 0 (mean .06), truth .1, .3, -.2, 0, -.1 (mean .02): .084 / sqrt(.052 * .148)."""
    part = monitor()
    part.assess(responses(), RNG)
    assert part.metrics() == {"check/correlation": pytest.approx(0.084 / math.sqrt(0.052 * 0.148)), "check/steps": 5}
    same = monitor(TRUTH)
    same.assess(responses(), RNG)
    assert same.metrics()["check/correlation"] == pytest.approx(1)
    assert isinstance(part, LearningReward)
    assert isinstance(part, Reporting)


def test_what_is_known_of_one_alone_does_not_count():
    a, b = torch.tensor([[0.1, NAN, 0.3], [0.2, 0.5, NAN]]), torch.tensor([[-0.1, 0.7, -0.3], [-0.2, NAN, NAN]])
    assert correlated(a, b) == (pytest.approx(-1), 3)
    for one, places in (([0.5, NAN], 1), ([0.5, 0.5], 2), ([NAN, NAN], 0)):
        found, number = correlated(torch.tensor(one), torch.tensor([0.1, 0.2]))
        assert math.isnan(found)
        assert number == places


def test_it_changes_nothing_that_the_judge_says():
    judge, part = known(JUDGED), monitor()
    wanted = judge.score(responses())["exact_advantage"]
    for streams in (part.score(responses()), part.assess(responses(), RNG)):
        assert list(streams) == ["exact_advantage"]
        assert torch.equal(streams["exact_advantage"].values, wanted.values)
        assert streams["exact_advantage"].kind == "advantage"


def test_it_looks_every_so_many_steps_and_is_charged_apart():
    tree = Sum({"right": Verifier(), "progress": monitor()}, weights={"progress": 3.0})
    for step, due in ((0, True), (1, False), (2, True)):
        with Ledger() as ledger:
            tree.assess(responses(step), RNG)
        assert ("time/advantage_check" in ledger.metrics()) is due
        assert ("reward/progress/check/correlation" in tree.metrics()) is due


def test_only_some_responses_are_checked_and_others_at_other_steps():
    asked = []

    def counted(rollouts, steps):
        asked.append(rollouts.text)
        return known(TRUTH).values(rollouts, steps)

    part = monitor(against=ExactAdvantage(counted, splitter=LINES), responses=2, every=1)
    for step in range(12):
        part.assess(responses(step), Rng((0, step)))
        assert part.metrics()["check/steps"] == sum(len(TRUTH[text]) - 1 for text in asked[-1])
    assert {len(texts) for texts in asked} == {2}
    assert len(set(asked)) == 3  # every pair of the three comes


def test_steps_cut_elsewhere_are_refused():
    part = monitor(against=known({"a\nb": [0.5, 0.6], "c": [0.5, 0.3], "d\ne": [0.5, 0.4]}, Pattern("x")))
    with pytest.raises(RunError, match="in response 0 of those checked the judge's advantage changes within a step"):
        part.assess(responses(), RNG)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"every": 0}, "`every` is 0; it must be 1 or more"),
        ({"responses": 0}, "`responses` is 0"),
        ({"against": Verifier()}, "`against` is of type Verifier; it must be a monte_carlo_advantage"),
        ({"reward": "judge"}, "'reward' is not a reward, for it has no `score`"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=f"advantage_monitor: {says}"):
        AdvantageMonitor(**{"reward": known(JUDGED), "against": known(TRUTH), **settings})


def test_a_judge_of_responses_is_refused():
    with pytest.raises(RunError, match=r"of the streams \['verifier'\] 0 are advantages of tokens"):
        AdvantageMonitor(Verifier(), against=known(TRUTH)).assess(responses(), RNG)
