"""The rules of verdicts, each with a mean and a standard error worked out by hand."""

import math

import pytest

from reckon.studies import Claim, Effect, judge


def seeds(*values):
    return [{"arm": {"score": value}} for value in values]


def effect(**rule):
    return Effect(says="score", of=lambda found: found["arm"]["score"], **rule)


def verdict(values, wanted=3, **rule):
    return judge(Claim(says="", effects=(effect(**rule),)), seeds(*values), wanted)


@pytest.mark.parametrize(
    ("values", "rule", "seen"),
    [
        # mean .2, sd .1, error .1/sqrt(3) = .0577: .2 - .1155 > 0
        ((0.1, 0.2, 0.3), {}, "seen"),
        ((0.1, 0.2, 0.3), {"least": 0.2}, "seen"),
        ((0.1, 0.2, 0.3), {"least": 0.21}, "not seen"),  # sure, but too small
        # mean .2, sd .2, error .1155: .2 - .2309 < 0
        ((0.0, 0.2, 0.4), {}, "not seen"),  # large, but not sure
        ((-0.1, -0.2, -0.3), {}, "not seen"),
        ((0.0, 0.0, 0.0), {}, "not seen"),
        ((0.3, 0.3, 0.3), {"least": 0.3}, "seen"),
        # |mean| + 2 errors: .2 + .1155 = .3155
        ((0.1, 0.2, 0.3), {"within": 0.32}, "seen"),
        ((0.1, 0.2, 0.3), {"within": 0.31}, "not seen"),
        ((-0.1, -0.2, -0.3), {"within": 0.31}, "not seen"),
    ],
)
def test_verdicts(values, rule, seen):
    assert verdict(values, **rule).verdict == seen


def test_what_was_found():
    found = verdict((0.1, 0.2, 0.3)).found[0]
    assert found.mean == pytest.approx(0.2)
    assert found.error == pytest.approx(0.1 / math.sqrt(3))
    assert found.seeds == 3


def test_every_effect_must_hold():
    claim = Claim(says="", effects=(effect(), effect(least=0.5)))
    assert judge(claim, seeds(0.1, 0.2, 0.3), 3).verdict == "not seen"


def test_too_few_seeds_decide_nothing():
    judged = verdict((0.3, 0.3), wanted=3)
    assert (judged.verdict, judged.why) == ("not testable here", "2 of 3 seeds are finished")
    assert judged.found[0].mean == pytest.approx(0.3)
    assert verdict((), wanted=3).why == "0 of 3 seeds are finished"


def test_a_claim_may_be_beyond_the_study():
    judged = judge(Claim(says="", why="needs a large model"), seeds(1.0, 1.0, 1.0), 3)
    assert (judged.verdict, judged.why) == ("not testable here", "needs a large model")


def test_not_a_number_is_no_verdict():
    assert verdict((0.1, math.nan, 0.2)).verdict == "not testable here"


def test_rules_in_words():
    assert effect(least=0.05).rule == "mean at least 0.05, and two standard errors above 0"
    assert effect(within=0.02).rule == "mean and two standard errors within ±0.02"
