r"""Section 5 of the specification label-budget: Mallen & Belrose 2024 (arXiv:2410.13215) in a linear world.

Which labels a budget should buy, every budget divided in eight ways; what the planner loses to the best division when
all it has is a pilot of 11 purchases; and digits, where weak labels are a mistake, as a control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json

if TYPE_CHECKING:
    from reckon.labels import LabelData, LabelSource, Purchase, Trainer, Trial

SHARES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
BUDGETS = (16, 64, 256, 1024, 4096)
PLANNED = (64, 256, 1024)
DIGIT_BUDGETS = (16, 32, 64, 128)
DIGIT_PILOT = [(n_weak, n_gold) for n_weak in (0, 50, 200, 800) for n_gold in (0, 32, 128) if n_weak + n_gold]
WEAK_POOL = 40_960  # what the largest budget buys at a tenth of gold's price
TRAINING: Mapping[str, Json] = {"weak_steps": 600, "gold_steps": 400}  # at most
MICROBATCH = 8  # of the log-confidence loss, inside of batches of 32 like those of every arm
TEACH, CHOOSE, JUDGE = (100, 101), (200, 201), (300, 301)  # seeds of the pilot, of the best cell, of what is reported


def cell(settings: Settings, seed: int) -> Measured:
    """One way of training over the whole grid, or one planner, in the world of a seed."""
    kinds = {"grid": _grid_cell, "planner": _planner_cell, "digits": _digits_cell}
    return kinds[cast("str", settings["kind"])](settings, seed)


def _grid_cell(settings: Settings, seed: int) -> Measured:
    """Accuracy of every budget and division, trained in one way."""
    from reckon.studies._budget_world import linear_world, weak_accuracy

    budgets = cast("Sequence[int]", settings["budgets"])
    weak, gold, pool = _sources(settings, 0.1)
    data = linear_world(pool, seed, shuffled=settings["errors"] == "shuffled")
    trainer = _trainer(cast("str", settings["way"]), data, settings)
    reached = _divisions(trainer, data, budgets, (seed,), weak, gold)
    metrics = {f"accuracy/{budget}/{share:g}": value for (budget, share), value in reached.items()}
    curves = {f"accuracy at {budget}": [reached[budget, share] for share in SHARES] for budget in budgets}
    return Measured(
        metrics={**metrics, "weak labels": weak_accuracy(data)},
        curves={"weak share of the money": list(SHARES), **curves},
    )


def _planner_cell(settings: Settings, seed: int) -> Measured:
    """What plans made of a pilot lose to the best division of the money, which is chosen and judged on other seeds."""
    from reckon.labels import BudgetPlanner, pilot_grid, run_grid
    from reckon.studies._budget_world import linear_world

    budgets = cast("Sequence[int]", settings["budgets"])
    weak, gold, pool = _sources(settings, cast("float", settings["price"]))
    data = linear_world(pool, seed)
    trainer = _trainer("sequential", data, settings)
    planner = BudgetPlanner(weak, gold, max_rate=cast("float", settings["cap"]), draws=0)
    planner.fit(run_grid(trainer, data, pilot_grid(), TEACH, weak, gold))
    chosen = _divisions(trainer, data, budgets, CHOOSE, weak, gold)
    judged = _divisions(trainer, data, budgets, JUDGE, weak, gold)
    metrics: dict[str, float] = {"rate": planner.production.rate}
    losses: dict[str, list[float]] = {"plan": [], "all gold": [], "all weak": [], "plan, as the pilot counts": []}
    for budget in budgets:
        plan = planner.plan(budget, allow_extrapolation=True)
        planned = _mean(run_grid(trainer, data, [(plan.n_weak, plan.n_gold)], JUDGE, weak, gold))
        best = max(SHARES, key=lambda share: chosen[budget, share])
        losses["plan"].append(judged[budget, best] - planned)
        losses["all gold"].append(judged[budget, best] - judged[budget, 0.0])
        losses["all weak"].append(judged[budget, best] - judged[budget, 1.0])
        losses["plan, as the pilot counts"].append(max(judged[budget, share] for share in SHARES) - planned)
        metrics[f"weak share/{budget}"] = plan.weak_share
    metrics |= {f"regret/{name}": sum(values) / len(values) for name, values in losses.items()}
    return Measured(metrics=metrics)


def _digits_cell(settings: Settings, seed: int) -> Measured:
    """The control: all gold and all weak at each budget, and what the planner says."""
    from reckon.labels import BudgetPlanner, LabelSource, run_grid
    from reckon.studies._budget_world import digits_world, weak_accuracy

    budgets = cast("Sequence[int]", settings["budgets"])
    weak, gold = LabelSource("weak", 0.1), LabelSource("gold", 1.0)
    data = digits_world(seed)
    trainer = _trainer("sequential", data, settings)
    planner = BudgetPlanner(weak, gold, draws=cast("int", settings["draws"]), seed=seed)
    planner.fit(run_grid(trainer, data, DIGIT_PILOT, TEACH, weak, gold))
    plans = [planner.plan(budget, allow_extrapolation=True) for budget in budgets]
    metrics = {
        "weak labels": weak_accuracy(data),
        "quality": sum(plan.regime == "quality-dominant" for plan in plans) / len(plans),
        "rate": planner.production.rate,
    }
    for budget in budgets:
        for name, bought in (("gold", (0, budget)), ("weak", (10 * budget, 0))):
            metrics[f"accuracy/{budget}/{name}"] = _mean(run_grid(trainer, data, [bought], (seed,), weak, gold))
    return Measured(metrics=metrics)


def _trainer(way: str, data: LabelData, settings: Settings) -> Trainer:
    from reckon.labels import LogConfidence
    from reckon.studies._budget_world import Mixing, sequential

    features = data.x.shape[1]
    steps = cast("int", settings["weak_steps"]), cast("int", settings["gold_steps"])
    made: Mapping[str, Callable[[], Trainer]] = {
        "sequential": lambda: sequential(features, steps),
        "mixing": lambda: Mixing(features, steps[0]),
        "log-confidence": lambda: sequential(
            features, steps, loss=LogConfidence(microbatch=cast("int", settings["microbatch"]))
        ),
        "uncertain": lambda: sequential(features, steps, choose_gold="uncertain"),
    }
    return made[way]()


def _divisions(
    trainer: Trainer,
    data: LabelData,
    budgets: Sequence[int],
    seeds: Sequence[int],
    weak: LabelSource,
    gold: LabelSource,
) -> dict[tuple[int, float], float]:
    """Mean accuracy over seeds by budget and weak share; divisions that buy the same are trained once."""
    from reckon.labels import budget_grid, run_grid

    known: dict[Purchase, float] = {}
    found = {}
    for budget in budgets:
        for share in SHARES:
            (bought,) = budget_grid([budget], [share], weak, gold)
            if bought not in known:
                known[bought] = _mean(run_grid(trainer, data, [bought], seeds, weak, gold))
            found[budget, share] = known[bought]
    return found


def _mean(trials: Sequence[Trial]) -> float:
    return sum(trial.accuracy for trial in trials) / len(trials)


def _sources(settings: Settings, price: float) -> tuple[LabelSource, LabelSource, int]:
    """Both sources, and how many examples are enough for any purchase."""
    from reckon.labels import LabelSource

    weak, gold = cast("int", settings["weak_pool"]), cast("int", settings["gold_pool"])
    return LabelSource("weak", price, pool=weak), LabelSource("gold", 1.0, pool=gold), weak + gold


_SEQUENTIAL, _MIXING, _SHUFFLED = "weak, then gold", "both in one stage", "weak, then gold; errors shuffled"
_CONFIDENT, _UNCERTAIN = "log-confidence loss", "gold where unsure"
_DIGITS = "digits"
_PLANNERS = {
    "planner, weak at 0.1": (0.1, 1.0),
    "planner, weak at 0.01": (0.01, 1.0),
    "planner, weak at 0.5": (0.5, 1.0),
    "planner without a cap, weak at 0.5": (0.5, 1e3),
}
_TENTH, _HUNDREDTH, _HALF, _FREE = _PLANNERS

# The pilot's table (specification, section 5), by budget and in the order of SHARES.
_PILOT = {
    16: (0.573, 0.559, 0.579, 0.614, 0.617, 0.528, 0.503, 0.662),
    64: (0.637, 0.630, 0.677, 0.670, 0.708, 0.718, 0.558, 0.722),
    256: (0.734, 0.758, 0.767, 0.752, 0.749, 0.713, 0.721, 0.723),
    1024: (0.869, 0.874, 0.859, 0.839, 0.799, 0.774, 0.734, 0.725),
    4096: (0.918, 0.927, 0.934, 0.921, 0.916, 0.859, 0.777, 0.722),
}
# Mean accuracy of Llama-3-8B over five data sets, read off the paper's figure by ±0.005.
_PAPER = {
    16: ("0.501", "0.509", "0.505", "0.558", "0.605", "0.625", "", "0.633"),
    64: ("0.563", "0.519", "0.610", "0.655", "0.676", "0.711", "0.699", "0.721"),
    256: ("0.679", "0.688", "0.766", "0.781", "0.764", "0.758", "0.752", "0.759"),
    1024: ("0.820", "0.825", "0.816", "0.816", "0.808", "0.795", "0.753", ""),
    4096: ("0.870", "0.868", "", "", "", "", "", ""),
}
_PILOT_REGRET = {_TENTH: ("0.020", "0.040", "0.072"), _HUNDREDTH: ("0.022", "0.043", "0.074")}


def _grid(way: str, errors: str = "systematic") -> dict[str, Json]:
    made: dict[str, Json] = {"kind": "grid", "way": way, "errors": errors, "budgets": list(BUDGETS)}
    return {**made, **_pools(BUDGETS[-1]), **TRAINING}


def _planner(price: float, cap: float) -> dict[str, Json]:
    made: dict[str, Json] = {"kind": "planner", "price": price, "cap": cap, "budgets": list(PLANNED)}
    return {**made, **_pools(PLANNED[-1]), **TRAINING}


def _pools(gold: int) -> dict[str, Json]:
    return {"weak_pool": WEAK_POOL, "gold_pool": gold}


def _at(found: ByArm, budget: int, share: float, arm: str = _SEQUENTIAL) -> float:
    return found[arm][f"accuracy/{budget}/{share:g}"]


def _division(budget: int, share: float, other: float, least: float) -> Effect:
    return Effect(
        says=f"accuracy at {budget}: {share:.0%} on weak labels less {other:.0%}",
        of=lambda found: _at(found, budget, share) - _at(found, budget, other),
        least=least,
    )


def _mixture(budget: int, share: float, least: float) -> Effect:
    return Effect(
        says=f"accuracy at {budget}: {share:.0%} on weak labels less the better of none and all, seed by seed",
        of=lambda found: _at(found, budget, share) - max(_at(found, budget, 0.0), _at(found, budget, 1.0)),
        least=least,
    )


def _way(arm: str, other: str, budget: int, share: float, least: float = 0.0, within: float | None = None) -> Effect:
    return Effect(
        says=f"accuracy at {budget}, {share:.0%} on weak labels: {arm} less {other}",
        of=lambda found: _at(found, budget, share, arm) - _at(found, budget, share, other),
        least=least,
        within=within,
    )


def _saves(arm: str, pure: str, least: float) -> Effect:
    return Effect(
        says=f"regret of {pure} less that of the plan: {arm}",
        of=lambda found: found[arm][f"regret/{pure}"] - found[arm]["regret/plan"],
        least=least,
    )


def _digit(budget: int, least: float) -> Effect:
    return Effect(
        says=f"digits, accuracy at {budget}: all gold less all weak",
        of=lambda found: found[_DIGITS][f"accuracy/{budget}/gold"] - found[_DIGITS][f"accuracy/{budget}/weak"],
        least=least,
    )


CLAIMS = (
    Claim(
        says="Little money belongs to weak labels alone (quantity-dominant)",
        effects=(_division(16, 1.0, 0.0, 0.05), _division(64, 1.0, 0.0, 0.05)),
    ),
    Claim(says="At 256 a mixture beats both pure ways (mixed)", effects=(_mixture(256, 0.2, 0.02),)),
    Claim(
        says="At 1,024 gold alone beats weak labels alone",
        effects=(_division(1024, 0.0, 1.0, 0.1),),
    ),
    Claim(says="At 4,096 a mixture is best once more; the paper did not look", effects=(_mixture(4096, 0.2, 0.005),)),
    Claim(
        says="A last stage of three gold labels wrecks what weak labels taught",
        effects=(_division(16, 1.0, 0.8, 0.05), _division(64, 1.0, 0.95, 0.05)),
    ),
    Claim(
        says="Weak labels alone teach no more than they know, however many there are",
        effects=(
            Effect(
                says="accuracy of all weak at 1024 less that of the weak labels",
                of=lambda found: _at(found, 1024, 1.0) - found[_SEQUENTIAL]["weak labels"],
                within=0.03,
            ),
        ),
    ),
    Claim(
        says="Weak first and gold after beats both in one stage",
        effects=(
            _way(_SEQUENTIAL, _MIXING, 256, 0.4, 0.02),
            _way(_SEQUENTIAL, _MIXING, 1024, 0.4, 0.05),
        ),
    ),
    Claim(
        says="Errors that fall at random are far easier to learn from than systematic ones",
        effects=(_way(_SHUFFLED, _SEQUENTIAL, 1024, 1.0, 0.05),),
    ),
    Claim(
        says="Buying gold where the model is unsure helps at 256",
        effects=(_way(_UNCERTAIN, _SEQUENTIAL, 256, 0.4, 0.005),),
    ),
    Claim(
        says="The log-confidence loss changes nothing much",
        effects=tuple(_way(_CONFIDENT, _SEQUENTIAL, budget, 0.4, within=0.02) for budget in (64, 256, 1024)),
    ),
    Claim(
        says="A plan made of a pilot loses less than either pure way, at a tenth and at a hundredth of gold's price",
        effects=(
            _saves(_TENTH, "all gold", 0.005),
            _saves(_TENTH, "all weak", 0.02),
            _saves(_HUNDREDTH, "all gold", 0.005),
            _saves(_HUNDREDTH, "all weak", 0.02),
        ),
    ),
    Claim(
        says="At half of gold's price a plan whose exchange rate is capped is not worse than all gold by 0.01 or more",
        effects=(
            Effect(
                says="0.01 and the regret of all gold, less that of the plan",
                of=lambda found: 0.01 + found[_HALF]["regret/all gold"] - found[_HALF]["regret/plan"],
            ),
        ),
    ),
    Claim(
        says="The cap on the exchange rate saves regret at half of gold's price",
        effects=(
            Effect(
                says="regret of the plan without a cap less that with it",
                of=lambda found: found[_FREE]["regret/plan"] - found[_HALF]["regret/plan"],
            ),
        ),
    ),
    Claim(
        says="Control, digits: gold wins at every budget, and the planner says so",
        effects=(
            *(_digit(budget, least) for budget, least in zip(DIGIT_BUDGETS, (0.02, 0.05, 0.05, 0.1), strict=True)),
            Effect(
                says="share of plans that are quality-dominant",
                of=lambda found: found[_DIGITS]["quality"],
                least=0.9,
            ),
        ),
    ),
    Claim(
        says="Elicitation: a pretrained model knows more than its weak labels, and two examples in front bring it out",
        why="the student is linear and was taught nothing before",
    ),
)


def _rows() -> tuple[Row, ...]:
    rows = [
        Row(
            arm=_SEQUENTIAL,
            metric=f"accuracy/{budget}/{share:g}",
            says=f"accuracy at {budget}, {share:.0%} on weak labels",
            paper=_PAPER[budget][i],
            pilot=f"{_PILOT[budget][i]:.3f}",
        )
        for budget in BUDGETS
        for i, share in enumerate(SHARES)
    ]
    says = "accuracy of the weak labels"
    rows.append(Row(arm=_SEQUENTIAL, metric="weak labels", says=says, paper="0.747", pilot="0.734"))
    for arm in _PLANNERS:
        for i, name in enumerate(("plan", "all gold", "all weak")):
            pilot = _PILOT_REGRET[arm][i] if arm in _PILOT_REGRET else ""
            rows.append(Row(arm=arm, metric=f"regret/{name}", says=f"regret of {name}", pilot=pilot))
        rows.append(Row(arm=arm, metric="regret/plan, as the pilot counts", says="regret to the best of a noisy grid"))
        rows.append(Row(arm=arm, metric="rate", says="fitted exchange rate r"))
    for budget, gold, weak in ((16, "0.691", "0.622"), (32, "", ""), (64, "", ""), (128, "0.899", "0.619")):
        rows.append(Row(arm=_DIGITS, metric=f"accuracy/{budget}/gold", says=f"all gold at {budget}", pilot=gold))
        rows.append(Row(arm=_DIGITS, metric=f"accuracy/{budget}/weak", says=f"all weak at {budget}", pilot=weak))
    rows.append(Row(arm=_DIGITS, metric="weak labels", says=says, pilot="0.63"))
    return tuple(rows)


STUDY = Study(
    name="label-budget",
    title="Label budgets: how many cheap and how many trusted labels to buy",
    source="Mallen & Belrose 2024, Balancing Label Quantity and Quality for Scalable Elicitation, arXiv:2410.13215; "
    "a linear world.",
    arms={
        _SEQUENTIAL: _grid("sequential"),
        _MIXING: _grid("mixing"),
        _SHUFFLED: _grid("sequential", "shuffled"),
        _CONFIDENT: {**_grid("log-confidence"), "microbatch": MICROBATCH},
        _UNCERTAIN: _grid("uncertain"),
        **{arm: _planner(price, cap) for arm, (price, cap) in _PLANNERS.items()},
        _DIGITS: {"kind": "digits", "budgets": list(DIGIT_BUDGETS), "draws": 0, **TRAINING},
    },
    seeds=tuple(range(10)),
    fast={"weak_steps": 2, "gold_steps": 2, "weak_pool": 1700, "gold_pool": 200},
    cell=cell,
    claims=CLAIMS,
    rows=_rows(),
    axis="weak share of the money",
    notes=(
        "The rules were committed before the first run of this study, but after the pilot's table had been read: they "
        "test that it repeats, not a guess made blind.",
        "The mixture of a claim is one share, named beforehand, and not the best of six, which would favor mixtures; "
        "it must beat the better pure way of each seed, which favors those.",
        "Regret is what a purchase loses to the best of eight divisions, which is chosen on two seeds and judged, like "
        "the plan, on two others. The pilot took the best of one noisy grid, which makes regrets larger: that number "
        "stands in the table too. The pilot's planner at half of gold's price, 0.030 against 0.014 for all gold, had "
        "no cap.",
        "By the library's own `regime()` 1,024 is mixed: 5% on weak labels is ahead of all gold there by 0.0062 (95% "
        "interval 0.0018 to 0.0105). 4,096 is quality-dominant. The claim at 1,024 compares the two pure ways alone.",
        "A plan may extrapolate here; weak labels end at 40,960.",
        "With weak labels at a tenth of gold's price the plan's mean regret is that of two kinds of worlds. In 0, 1, "
        "2, 4 and 6 it is all weak at all three budgets and loses 0.034 to 0.073, in the other five -0.006 to 0.009. "
        "Plans are made with allow_extrapolation=True and draws=0, so neither the planner's refusal to extrapolate nor "
        "the warnings of its bootstrap could act.",
        "The log-confidence loss ranks microbatches of 8 inside batches of 32. In a first run its weak stage had "
        "batches of 8, so that loss and batch differed at once from the arm it is held against. Its cells were run "
        "anew, under the same rule.",
        "The paper's numbers are those of Llama-3-8B and five data sets. None of them is this world's: what can agree "
        "is the shape.",
        "The specification leaves open which part of the digits the weak labeler sees: here 4 of 16 pixels, drawn "
        "anew for each seed. Its accuracy over ten seeds, 0.60, was looked at once before the rules were committed.",
    ),
)
