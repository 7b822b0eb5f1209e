"""The page of a label plan."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from string import Template

from reckon import __version__
from reckon.files import write_file
from reckon.labels import BudgetPlanner, Option, Plan, cells, indifference_curves
from reckon.report._html import Html, content_policy, count, inline, join, number, share, table, tag
from reckon.report._signals_plots import Frame

_SHARES = tuple(i / 40 for i in range(41))
_TICKS = 5  # labels of an axis, about


def write_plan(planner: BudgetPlanner, plan: Plan, out: str | Path) -> Path:
    """Writes a plan as one HTML file that needs no network and no other file.

    Args:
        planner: fitted; its pilot and its law are shown.
        plan: one of its plans.
        out: where to write; a file that was there is replaced.

    Returns:
        The file.

    Raises:
        RunError: the page cannot be written.
    """
    write_file(Path(out), render_plan(planner, plan).encode())
    return Path(out)


def render_plan(planner: BudgetPlanner, plan: Plan) -> str:
    """The page as text."""
    css, theme = _file("page.css") + _file("signals.css"), _file("theme.js")
    warnings = [tag("p", told[0].upper() + told[1:], class_="note") for told in plan.warnings]
    sections = (
        ("result", "What to buy", _result(plan)),
        ("remarks", "What speaks against it", join(warnings or [tag("p", "Nothing that the pilot could tell.")])),
        ("shares", "If the money were divided otherwise", _along(planner, plan)),
        ("plane", "Purchases that are worth the same", _plane(planner, plan)),
        ("pilot", "The pilot, and what the law makes of it", _pilot(planner)),
    )
    byline = (
        f"A budget of {plan.budget:g}; {plan.weak.name} {plan.weak.price:g} a label, {plan.gold.name} "
        f"{plan.gold.price:g}; a pilot of {count(len(planner.trials))} trials"
    )
    return Template(_file("static.html")).substitute(
        policy=inline(content_policy(css, [theme])),
        version=inline(__version__),
        title=inline(f"A plan for {plan.budget:g}: which labels to buy"),
        kicker="label plan",
        name="Which labels to buy",
        byline=inline(byline),
        css=css,
        theme=theme,
        contents=join(tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in sections),
        sections=join(tag("section", tag("h2", title), body, id=key) for key, title, body in sections),
    )


def _result(plan: Plan) -> Html:
    """The plan in words, and a table of the ways to spend the money."""
    buy, expect, *others = plan.sentences
    rows = [[one.name, count(one.n_weak), count(one.n_gold), f"{one.cost:g}", _span(one)] for one in plan.options]
    head = ["", plan.weak.name, plan.gold.name, "Cost", "Expected accuracy"]
    caption = "Ways to spend the money, the best first. Intervals are a 95% bootstrap over the pilot's trials."
    return join(
        [
            tag("p", f"{buy} {expect}", class_="lead"),
            tag("p", " ".join(others)),
            table(caption, head, rows, numeric=(1, 2, 3, 4)),
        ]
    )


def _along(planner: BudgetPlanner, plan: Plan) -> Html:
    """Expected accuracy over the share of money for weak labels, with its band and the ways of the table."""
    line = planner.along(plan.cost, _SHARES)
    spent = [(plan.weak.cost(one.n_weak) / plan.cost, one.predicted) for one in line]
    every = [value for _, one in spent for value in (one.value, one.low, one.high) if not math.isnan(value)]
    low, high = math.floor(20 * min(every)) / 20, math.ceil(20 * max(every)) / 20
    frame = Frame(640, 320, (0.0, 1.0), (low, max(high, low + 0.05)))
    frame.right = 24  # half of the last label, which a narrow screen draws larger
    step = 0.05 if high - low <= 0.3 else 0.1
    marks = [low + i * step for i in range(int((high - low) / step + 1e-9) + 1)]
    frame.axes(
        [(x, f"{100 * x:.0f}") for x in (0.0, 0.25, 0.5, 0.75, 1.0)],
        [(mark, f"{100 * mark:.0f}%") for mark in marks],
        f"percent of the money for {plan.weak.name} labels",
    )
    for bound in ([(x, one.low) for x, one in spent], [(x, one.high) for x, one in spent]):
        frame.line(bound, "curve line-base dashed")
    frame.line([(x, one.value) for x, one in spent], "curve line-0")
    frame.dot(plan.weak_share, plan.predicted.value, "line-1", 5.0)
    words = "The line is the fitted law, the dashed lines its 95% interval, the dot the plan."
    return join([tag("p", words), frame.svg("Expected accuracy over the share of money for weak labels")])


def _plane(planner: BudgetPlanner, plan: Plan) -> Html:
    """Indifference curves, the budget line, the pilot and the plan."""
    on_labels = plan.n_weak * plan.weak.price + plan.n_gold * plan.gold.price  # without fixed costs
    ends = [(0.0, on_labels / plan.gold.price), (on_labels / plan.weak.price, 0.0)]
    across, up = 1.05 * ends[1][0], 1.05 * ends[0][1]
    frame = Frame(640, 380, (0.0, across), (0.0, up))
    frame.axes([(x, count(x)) for x in ticks(across)], [(y, count(y)) for y in ticks(up)], f"{plan.weak.name} labels")
    best = float(planner.production.equivalents(plan.n_weak, plan.n_gold))
    places = [across * i / 200 for i in range(201)]
    curves = indifference_curves(planner.production, [best / 4, best / 2, best, 1.5 * best], places)
    for level, points in curves.items():
        inside = [(x, y) for x, y in points if y <= up]
        frame.line(inside, "curve line-0" if level == best else "curve line-base")
        if inside:
            x, y = frame.at(*inside[0])
            frame.text(x + 6, y - 5, share(float(planner.production.curve(level))), "start")
    frame.line(ends, "curve line-1")
    for cell in cells(planner.trials):
        if cell.bought.n_weak <= across and cell.bought.n_gold <= up:
            frame.dot(*cell.bought, "line-base")
    frame.dot(plan.n_weak, plan.n_gold, "line-1", 5.0)
    words = (
        f"Upward are {plan.gold.name} labels. Along a curve accuracy stays the same; it steepens where "
        f"{plan.weak.name} labels are worth more. The dashed line is what the money buys, the large dot the plan, gray "
        "dots the pilot."
    )
    return join([tag("p", words), frame.svg("Indifference curves, budget line and plan")])


def _pilot(planner: BudgetPlanner) -> Html:
    law = planner.production
    words = (
        f"A first {planner.weak.name} label is worth {number(law.rate)} {planner.gold.name} labels, and all together "
        f"never more than {count(law.rate * law.saturation)}. With endless {planner.gold.name} labels accuracy reaches "
        f"{share(law.ceiling)}."
    )
    rows = [
        [
            count(cell.bought.n_weak),
            count(cell.bought.n_gold),
            share(cell.accuracy),
            "–" if math.isnan(cell.error) else f"{100 * cell.error:.1f} points",
            share(float(law.accuracy(*cell.bought))),
        ]
        for cell in cells(planner.trials)
    ]
    head = [planner.weak.name, planner.gold.name, "Measured", "Standard error", "By the law"]
    return join([tag("p", words), table("Means over the pilot's seeds.", head, rows, numeric=(1, 2, 3, 4))])


def _span(option: Option) -> str:
    told = option.predicted
    bounds = "" if math.isnan(told.low) else f" ({share(told.low)} to {share(told.high)})"
    return f"{share(told.value)}{bounds}"


def ticks(most: float) -> list[float]:
    """Round numbers from 0 to `most`, about five of them."""
    raw = most / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return [i * step for i in range(int(most / step) + 1)]


def _file(name: str) -> Html:
    return Html(files("reckon.report").joinpath(name).read_text(encoding="utf-8"))
