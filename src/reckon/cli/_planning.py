"""The command that plans what to buy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from reckon.cli._commands import PLAN, Json, app, check_not_source
from reckon.cli._show import print_json
from reckon.errors import InputError

if TYPE_CHECKING:
    from reckon.labels import LabelSource

_EXAMPLE = "reckon plan-labels --pilot pilot.csv --prices weak=0.1,gold=1 --budget 256"


@app.command(name="plan-labels", rich_help_panel=PLAN)
def plan_labels(
    pilot: Annotated[Path | None, typer.Option(metavar="FILE", help="Trials: n_weak, n_gold, accuracy, seed.")] = None,
    prices: Annotated[str, typer.Option(metavar="NAME=P,NAME=P", help="Of a weak and of a gold label.")] = "",
    budget: Annotated[float | None, typer.Option(help="Money to spend, in the unit of the prices.")] = None,
    spent: Annotated[float, typer.Option(help="Of it, gone already: a test set, a pilot thrown away.")] = 0.0,
    fixed: Annotated[str, typer.Option(metavar="NAME=COST,...", help="Paid once, with the first label.")] = "",
    pools: Annotated[str, typer.Option(metavar="NAME=N,...", help="The most labels there are.")] = "",
    law: Annotated[str, typer.Option(help="How accuracy grows: hill or power.")] = "hill",
    max_rate: Annotated[float, typer.Option(help="The most gold labels a weak one may be worth.")] = 1.0,
    extrapolate: Annotated[bool, typer.Option("--extrapolate", help="Plan far outside of the pilot too.")] = False,
    draws: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0 = no intervals.")] = 200,
    out: Annotated[Path | None, typer.Option(metavar="PAGE", help="The page; beside the pilot if left out.")] = None,
    as_json: Json = False,
) -> None:
    """How many cheap and how many trusted labels to buy, planned from a pilot: in words, numbers and a picture.

    The pilot is a CSV of trials: how many labels of each kind a model was trained on, and the accuracy it reached.
    """
    from reckon.labels import BudgetPlanner, read_pilot
    from reckon.report import write_plan

    if pilot is None or not prices or budget is None:
        raise InputError(f"plan-labels needs --pilot, --prices and --budget: {_EXAMPLE}")
    weak, gold = _sources(prices, fixed, pools)
    page = out or pilot.with_suffix(".html")
    check_not_source("--out", page, pilot)
    planner = BudgetPlanner(weak, gold, law=_law(law), max_rate=max_rate, draws=draws)
    planner.fit(read_pilot(pilot, weak, gold))
    plan = planner.plan(budget, spent=spent, allow_extrapolation=extrapolate)
    write_plan(planner, plan, page)
    if as_json:
        more = {"weak_share": plan.weak_share, "clear": plan.clear, "law": planner.production}
        print_json(report=str(page), **vars(plan), **more)
    else:
        typer.echo(f"{plan}\n\nPage: {page}")


def _sources(prices: str, fixed: str, pools: str) -> tuple[LabelSource, LabelSource]:
    """The two sources: one that is called gold is the trusted one, else the second."""
    from reckon.labels import LabelSource

    priced, costs, most = _pairs("--prices", prices), _pairs("--fixed", fixed), _pairs("--pools", pools)
    if len(priced) != 2:
        raise InputError(f"--prices is {prices!r}, but must give two, the weak source's first: weak=0.1,gold=1.")
    for option, given in (("--fixed", costs), ("--pools", most)):
        for name in given:
            if name not in priced:
                raise InputError(f"{option} names {name!r}, but the sources of --prices are {', '.join(priced)}.")
    for name, number in most.items():
        if number != int(number):
            raise InputError(f"--pools: {name} is {number:g}, but must be a whole number of labels.")
    made = [
        LabelSource(name, price, costs.get(name, 0.0), int(most[name]) if name in most else None)
        for name, price in priced.items()
    ]
    return (made[1], made[0]) if made[0].name == "gold" else (made[0], made[1])


def _pairs(option: str, text: str) -> dict[str, float]:
    """`NAME=NUMBER,...` as numbers by name."""
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.strip().partition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not name or name in found or not abs(number) < float("inf"):
            raise InputError(f"{option}: {part!r} is not NAME=NUMBER, or the name comes twice. Write weak=0.1,gold=1.")
        found[name] = number
    return found


def _law(name: str) -> Literal["hill", "power"]:
    if name not in ("hill", "power"):
        raise InputError(f"--law is {name!r}, but must be hill or power.")
    return cast('Literal["hill", "power"]', name)
