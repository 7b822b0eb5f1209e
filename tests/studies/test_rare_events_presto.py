"""The study rare-events-presto: its worlds as specified, its measures by hand, and that every arm runs."""

import os

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from reckon.errors import MissingError
from reckon.studies import _rare_soup as soup
from reckon.studies import load_study
from reckon.studies._rare_world import METHODS, draw_world, expected_auc, fit_rare
from reckon.types import Rng


def world(seed=0, **more):
    settings = {"design": "sparse", "share": 0.5, "rows": 2500, "features": 10, "fresh": 300} | more
    return draw_world(Rng((seed, "test")), intercepts=np.array([0.0, 3.0, 5.0]), **settings)


def test_a_world_is_the_papers():
    """Section 4: a rare rate of 1.17 % in the median over draws of the sparse design with q = 1/2."""
    rates = [float((world(seed).y == 3).mean()) for seed in range(20)]
    assert 0.009 < np.median(rates) < 0.015
    one = world()
    assert one.x.shape == (2500, 10)
    assert np.abs(one.x).max() <= 1
    assert set(one.y) == {0, 1, 2, 3}
    assert (np.bincount(one.y) >= 2).all()
    assert one.fresh_true.shape == (300,)
    assert one.true.mean() == pytest.approx((one.y == 3).mean(), abs=0.01)
    again = world()
    assert (one.x == again.x).all()
    assert (one.y == again.y).all()


def test_slopes_of_the_designs_as_truth_shows_them():
    """The logit of the truth is linear in x; its slopes are sums of three steps of 0.5 (sparse) or any (dense)."""
    for design, whole in (("sparse", True), ("dense", False)):
        made = world(design=design)
        scores = np.log((1 - made.true) / made.true)
        slopes = np.linalg.lstsq(np.hstack([np.ones((2500, 1)), made.x]), scores, rcond=None)[0]
        assert slopes[0] == pytest.approx(5.0)
        assert np.allclose(2 * slopes[1:], np.round(2 * slopes[1:])) is whole
        assert np.abs(slopes[1:]).max() <= 1.5 + 1e-9


def test_expected_auc_by_hand_and_as_the_mean_over_labels():
    """Two rows of truth .8 and .4: the pair counts where exactly one is a member; (.8 * .6) / (.8 * .6 + .4 * .2) when
    only the pair of different rows counts, but a row also meets itself as its own other, and ties count half.
    """
    scores, true = np.array([1.0, 0.0]), np.array([0.8, 0.4])
    wins = 0.8 * 0.6 + (0.8 * 0.2 + 0.4 * 0.6) / 2
    assert expected_auc(scores, true) == pytest.approx(wins / ((0.8 + 0.4) * (0.2 + 0.6)))
    certain = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    scores = np.array([3.0, 1.0, 1.0, 2.0, 0.0])
    assert expected_auc(scores, certain) == pytest.approx(roc_auc_score(certain, scores))
    assert expected_auc(np.zeros(5), certain) == pytest.approx(0.5)


def test_every_arm_runs_and_arms_meet_the_same_world():
    study = load_study("rare-events-presto")
    assert {settings["method"] for settings in study.arms.values()} == set(METHODS)
    assert any(arm.startswith("soup") for arm in study.arms) == (not soup.why_not())
    rates = {}
    for arm in ("PRESTO", "logit, tuned ridge", "constant rate", "PRESTO, tuned as released"):
        found = study.cell({**study.arms[arm], **study.fast}, 0).metrics
        assert all(np.isfinite(value) for value in found.values())
        rates[arm] = found["rate"]
    assert len(set(rates.values())) == 1


def fake_r(folder, monkeypatch, script):
    """An R that only knows this."""
    (folder / "library" / "ordinal").mkdir(parents=True)
    (folder / "Rscript").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "Rscript").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(soup, "LIBRARIES", (folder / "library",))
    soup.read_soup.cache_clear()


def test_soup_is_read_where_it_is_and_missed_where_it_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(soup, "LIBRARIES", ())
    assert "r-cran-ordinal, which is not installed" in soup.why_not()
    fake_r(tmp_path, monkeypatch, "echo '\"p\",\"s\",\"a\",\"b\"'; echo '1,6,0,1'; echo '1,1,1,1'; echo '2,3,0,0'")
    assert not soup.why_not()
    found = soup.read_soup()
    assert found.x.tolist() == [[0, 1], [1, 1], [0, 0]]
    assert found.y.tolist() == [0, 5, 3]  # sure that it is the reference is the last class
    assert found.person.tolist() == [1, 1, 2]
    held = soup.split(found, Rng((0,)), share=0.5)
    assert held.tolist() in ([True, True, False], [False, False, True])


def test_soup_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    fake_r(tmp_path, monkeypatch, "echo 'Error: no soup today' >&2; exit 1")
    with pytest.raises(MissingError, match="it said 'Error: no soup today'"):
        soup.read_soup()
    soup.read_soup.cache_clear()


def test_calibration_of_soup_is_of_sorted_predictions():
    """Section 6.7: the bins are (.1, .2) and (.8, .9), of which 0 and 1 came out: (.01 + .04 + .04 + .01) / 4."""
    p, y = np.array([0.9, 0.1, 0.8, 0.2]), np.array([True, False, True, False])
    found = soup.scores(p, y, bins=2)
    assert found["calibration"] == pytest.approx(0.025)
    assert found["brier"] == pytest.approx((0.01 + 0.01 + 0.04 + 0.04) / 4)
    assert found["log loss"] == pytest.approx(-(2 * np.log(0.9) + 2 * np.log(0.8)) / 4)


def strangers():
    """Forty people of five rows that are alike; their answers have nothing to do with what is known of them."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 5)
    return soup.Soup(x=rng.normal(size=(40, 20))[person], y=rng.permutation(np.arange(40) % 3)[person], person=person)


@pytest.mark.parametrize("method", ["presto", "presto, ridge", "logit, ridge"])
def test_no_fold_splits_a_person(method):
    """With their own rows on both sides people seem to be known best with next to no penalty; without, they are not."""
    made = strangers()
    whole, split = (fit_rare(method, made.x, made.y, people)(made.x) for people in (made.person, None))
    assert whole.std() < split.std() / 2


def test_soup_is_tuned_by_people(monkeypatch):
    made = strangers()
    monkeypatch.setattr(soup, "read_soup", lambda: made)
    found = load_study("rare-events-presto").cell({"design": "soup", "method": "presto", "bins": 2}, 0).metrics
    held = soup.split(made, Rng((0, "rare-events-presto", "soup")))
    scores = []
    for people in (made.person[~held], None):
        rare = fit_rare("presto", made.x[~held], made.y[~held], people)
        scores.append(soup.scores(rare(made.x[held]), made.y[held] == 2, bins=2))
    assert found == pytest.approx(scores[0])
    assert found != pytest.approx(scores[1])


def test_verdicts_can_fail():
    """Every arm equal: no advantage is seen, and what must be as good as absent is."""
    study = load_study("rare-events-presto")
    even = {arm: {"mse": 1.0, "fresh mse": 1.0, "auc": 0.7, "rate": 1.0, "log loss": 0.3} for arm in study.arms}
    for claim in study.claims:
        for effect in claim.effects:
            assert effect.of(even) == pytest.approx(0.0)
    better = {arm: {**found, "mse": 0.5 if arm == "PRESTO" else 1.0} for arm, found in even.items()}
    first = study.claims[0]
    assert all(effect.of(better) == pytest.approx(np.log(2)) for effect in first.effects)
    assert [effect.least for effect in first.effects] == pytest.approx([np.log(1 / 0.75), np.log(1 / 0.9)])
