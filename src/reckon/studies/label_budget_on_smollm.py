"""What should an outcome model of SmolLM2's running sums be taught with: verdicts, or the cheap labels of a judge?

No paper asks this. The responses, their verdicts and what the judges say of them are those of
results/signals-running-sums; the outcome model is a linear head on a model that stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from reckon.studies._claims import ByArm, Claim, Effect
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json

IMPLICIT, OUTCOME, VOTE = "implicit", "outcome", "vote"
SOURCES = (IMPLICIT, OUTCOME, VOTE)
BUDGETS = (16, 32, 64)
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PILOT = [(n_weak, n_gold) for n_weak in (0, 50, 200, 600) for n_gold in (0, 32, 128) if n_weak + n_gold]
TEACH, JUDGE = (100, 101, 102), (300, 301, 302)  # seeds of the pilot, and of what is reported


def cell(settings: Settings, seed: int) -> Measured:
    """One source of cheap labels on one split of the problems."""
    from reckon.labels import BudgetPlanner, LabelSource, budget_grid, run_grid
    from reckon.studies._budget_world import sequential
    from reckon.studies._labeled_sums import sums_data

    source = cast("str", settings["source"])
    data = sums_data(cast("str", settings["responses"]), cast("str | None", settings["model"]), source, seed)
    weak, gold = LabelSource(source, cast("float", settings["price"])), LabelSource("gold", 1.0)
    steps = cast("int", settings["weak_steps"]), cast("int", settings["gold_steps"])
    trainer = sequential(data.x.shape[1], steps)
    pilot = run_grid(trainer, data, PILOT, TEACH, weak, gold)
    planner = BudgetPlanner(weak, gold, draws=0).fit(pilot)
    metrics = {"labels": float((data.weak == data.gold).mean()), "rate": planner.production.rate}
    metrics |= {f"pilot/{one.n_weak}/{one.n_gold}/{one.seed}": one.accuracy for one in pilot}
    curves: dict[str, list[float]] = {"weak share of the money": list(SHARES)}
    for budget in BUDGETS:
        plan = planner.plan(budget, allow_extrapolation=True)
        ways = {f"{share:g}": budget_grid([budget], [share], weak, gold)[0] for share in SHARES}
        for name, bought in {**ways, "plan": (plan.n_weak, plan.n_gold)}.items():
            trials = run_grid(trainer, data, [bought], JUDGE, weak, gold)
            metrics[f"accuracy/{budget}/{name}"] = sum(one.accuracy for one in trials) / len(trials)
        metrics[f"weak share/{budget}"] = plan.weak_share
        curves[f"accuracy at {budget}"] = [metrics[f"accuracy/{budget}/{share:g}"] for share in SHARES]
    return Measured(metrics=metrics, curves=curves)


def _knows(source: str, least: float = 0.0, within: float | None = None) -> Effect:
    return Effect(
        says=f"share of {source} labels that are right, less one half",
        of=lambda found: found[source]["labels"] - 0.5,
        least=least,
        within=within,
    )


def _division(source: str, budget: int, share: float, other: float, least: float) -> Effect:
    return Effect(
        says=f"{source}, accuracy at {budget}: {share:.0%} of the money on weak labels less {other:.0%}",
        of=lambda found: found[source][f"accuracy/{budget}/{share:g}"] - found[source][f"accuracy/{budget}/{other:g}"],
        least=least,
    )


def _behind(source: str) -> Effect:
    def ahead(found: ByArm) -> float:
        mine: Mapping[str, float] = found[source]
        behind = [
            max(mine[f"accuracy/{budget}/0"], mine[f"accuracy/{budget}/1"]) - mine[f"accuracy/{budget}/plan"]
            for budget in BUDGETS
        ]
        return 0.02 - sum(behind) / len(behind)

    return Effect(says=f"{source}: 0.02 less what the plan loses to the better pure way, mean over budgets", of=ahead)


CLAIMS = (
    Claim(says="The implicit judge's labels know something", effects=(_knows(IMPLICIT, 0.05),)),
    Claim(says="Agreement with the vote knows more", effects=(_knows(VOTE, 0.1),)),
    Claim(says="The outcome judge's labels know next to nothing", effects=(_knows(OUTCOME, within=0.05),)),
    Claim(
        says="For 16 the implicit judge's labels teach more than verdicts",
        effects=(_division(IMPLICIT, 16, 1.0, 0.0, 0.01),),
    ),
    Claim(
        says="For 64 verdicts teach more than the implicit judge's labels",
        effects=(_division(IMPLICIT, 64, 0.0, 1.0, 0.01),),
    ),
    Claim(
        says="Votes teach more than verdicts at every budget",
        effects=tuple(_division(VOTE, budget, 1.0, 0.0, 0.01) for budget in BUDGETS),
    ),
    Claim(
        says="For 64 votes first and verdicts after beat either alone",
        effects=(_division(VOTE, 64, 0.4, 0.0, 0.01), _division(VOTE, 64, 0.4, 1.0, 0.01)),
    ),
    Claim(
        says="A plan made of a pilot loses less than two points to the better pure way",
        effects=tuple(_behind(source) for source in SOURCES),
    ),
    Claim(
        says="The plan leaves the outcome judge's labels alone",
        effects=(
            Effect(
                says="share of plans for 64 with less than 5% of the money on them, less one half",
                of=lambda found: float(found[OUTCOME]["weak share/64"] < 0.05) - 0.5,
                least=0.3,
            ),
        ),
    ),
)


def _rows() -> tuple[Row, ...]:
    rows = []
    for source in SOURCES:
        rows.append(Row(arm=source, metric="labels", says="share of the weak labels that are right"))
        rows.append(Row(arm=source, metric="rate", says="fitted exchange rate r"))
        for budget in BUDGETS:
            for share in SHARES:
                says = f"accuracy at {budget}, {share:.0%} on weak labels"
                rows.append(Row(arm=source, metric=f"accuracy/{budget}/{share:g}", says=says))
            rows.append(Row(arm=source, metric=f"accuracy/{budget}/plan", says=f"accuracy at {budget}, the plan"))
            says = f"share of the money for weak labels in the plan for {budget}"
            rows.append(Row(arm=source, metric=f"weak share/{budget}", says=says))
    return tuple(rows)


def _arm(source: str) -> dict[str, Json]:
    return {
        "source": source,
        "responses": "results/signals-running-sums/responses.parquet",
        "model": "smollm2-135m",
        "price": 0.1,
        "weak_steps": 600,
        "gold_steps": 400,
    }


STUDY = Study(
    name="label-budget-on-smollm",
    title="Verdicts or cheap labels for an outcome model of SmolLM2's running sums",
    source="A question of our own, by the method of Mallen & Belrose 2024 (arXiv:2410.13215).",
    arms={source: _arm(source) for source in SOURCES},
    seeds=tuple(range(10)),
    fast={"model": None, "weak_steps": 2, "gold_steps": 2},
    cell=cell,
    claims=CLAIMS,
    rows=_rows(),
    axis="weak share of the money",
    notes=(
        "An arm is a source of weak labels at a tenth of a verdict's price: scores of the judges `implicit` and "
        "`outcome` above the median of the pool, or agreement with the commonest of a problem's 16 answers.",
        "Rules were committed before the first run. What was known: within a problem `implicit` ranks 61% of right "
        "responses above wrong ones, `outcome` 51%, and the vote is right on 32% of problems.",
        "As many wrong responses as right ones are kept, as in the paper, and medians say that half of the pool is "
        "right. That needs verdicts of all, which nobody has who is about to buy them.",
        "Seeds split the same 200 problems anew, 140 to learn from and 60 to test on, so standard errors know of the "
        "split and not of other problems. Each accuracy is a mean over three purchases.",
        "Not charged: the 688 verdicts that taught the judges, the pilot's 128 verdicts, and some 400 of the test. "
        "Each is more than the largest budget, so for one such purchase a pilot does not pay.",
        "The outcome model is a linear head on 64 components of SmolLM2's last hidden states as it was published, and "
        "on tokens, lines, and the mean and least log-probability of a token. Nothing is tuned: its steps and rates "
        "are those of the study label-budget. A model that is trained as a whole may need other labels.",
    ),
)
