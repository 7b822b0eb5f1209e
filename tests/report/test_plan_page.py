"""The page of a label plan: closed, escaped, and true to the plan."""

import base64
import hashlib
import html
import re

import pytest

from reckon.labels import BudgetPlanner, LabelSource, Production, Trial, pilot_grid
from reckon.report import write_plan
from reckon.report._plan import ticks

LAW = Production(rate=0.8, saturation=500.0, ceiling=0.9, half=150.0, steepness=1.1)


def made(folder, name="weak", draws=20, seeds=(0, 1)):
    trials = [
        Trial(n_weak=w, n_gold=g, seed=seed, accuracy=float(LAW.accuracy(w, g)) + 0.002 * seed)
        for seed in seeds
        for w, g in pilot_grid()
    ]
    planner = BudgetPlanner(LabelSource(name, 0.1), LabelSource("gold", 1.0), draws=draws).fit(trials)
    plan = planner.plan(256)
    return plan, write_plan(planner, plan, folder / "plan.html").read_text()


def test_the_page_says_what_the_plan_says(tmp_path):
    plan, page = made(tmp_path)
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert all(told in text for told in plan.sentences)
    assert all(one.name in text for one in plan.options)
    assert page.count('<svg class="plot"') == 2
    # Of the pilot's 11 purchases (1600, 0), (1600, 32) and (1600, 128) lie inside of 2,688 x 269 labels as well.
    assert page.count('<circle class="line-base"') == 11


def test_the_page_stands_alone(tmp_path):
    _, page = made(tmp_path)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    for kind, body in re.findall(r"<(style|script)>(.*?)</\1>", page, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_names_cannot_act_as_markup(tmp_path):
    _, page = made(tmp_path, name="<script>alert(1)</script>")
    assert "<script>alert" not in page


def test_without_intervals_no_nan_is_shown(tmp_path):
    _, page = made(tmp_path, draws=0, seeds=(0,))
    assert "nan" not in re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL).lower()


@pytest.mark.parametrize(
    ("most", "marks"),
    [(1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (2560, [0, 1000, 2000]), (268.8, [0, 100, 200]), (7, [0, 2, 4, 6])],
)
def test_ticks_are_round(most, marks):
    assert ticks(most) == pytest.approx(marks)
