"""Section 5 of the specification neural-subset-selection: EquiVSet (Ou et al. 2022) and INSET (Xie et al. 2024).

What is wanted of a set is learned from examples alone. Arms differ in what the energy sees of the rest of the set, in
how inference starts, and in what stands in for an energy; the sets of a task are the same in all of its arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json, Rng

if TYPE_CHECKING:
    from reckon.subsets import Candidates, Makes, Sets, SubsetSelector

TARGET = 0.65  # a mean Jaccard index on validation sets, for counting epochs
PARTS = ("training", "validation", "test")


def draw_sets(task: str, count: int, part: int, rng: Rng) -> Sets:
    """Sets of a task; `part` is a place in `PARTS`."""
    from reckon import subsets

    numbers = rng.child(task, part).numpy()
    if task == "near":
        return subsets.nearest_sets(count, numbers, n=20, k=4)
    if task == "mixture":
        return subsets.gaussian_mixture_sets(count, numbers, n=30, k=5)
    if task == "moons":
        return subsets.two_moons_sets(count, numbers, n=20, k=4)
    assert task == "digits"
    return subsets.digit_pair_sets(count, numbers, n=20, least=2, most=5, part=part, parts=len(PARTS))


def draw_responses(problems: int, part: int, rng: Rng) -> Candidates:
    """Problems with five responses of each of three kinds, of which the two kinds that are worth something are wanted.

    A kind has its place, from which a response is 0.1 away, and its worth, 1, 0.8 or 0, from which it is 0.05 away. So
    the two responses of most worth are of one kind, and what is wanted is the center of each kind's five.
    """
    import pyarrow as pa

    from reckon.subsets import candidates

    numbers = rng.child("responses", part).numpy()
    kinds = numbers.permuted(np.tile(np.repeat([0, 1, 2], 5), (problems, 1)), axis=1)
    places = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]])[kinds] + 0.1 * numbers.standard_normal((*kinds.shape, 2))
    worth = np.array([0.8, 1.0, 0.0])[kinds] + 0.05 * numbers.standard_normal(kinds.shape)
    table = pa.table({"problem": np.repeat(np.arange(problems), kinds.shape[1]), "worth": worth.flatten()})
    return candidates(table, places.reshape(-1, 2), worth="worth", share=2 / 3)


def model_of(settings: Settings) -> Makes:
    """What an arm trains."""
    from reckon.subsets import EnergyBased, Greedy, MeanField, Scorer

    known = cast("Mapping[str, Any]", settings)  # the shape is `_arm`'s
    context, width, hidden = known["context"], 32 * known["wide"], 64 * known["wide"]
    if known["model"] == "scorer":
        return Scorer(context=context, width=width, hidden=hidden)
    if known["model"] == "greedy":
        return Greedy(context=context, width=width, hidden=hidden)
    return EnergyBased(
        context=context,
        encoder=known["encoder"],
        width=width,
        hidden=hidden,
        posterior=known["posterior"],
        inference=MeanField(steps=1, samples=4),
    )


def cell(settings: Settings, seed: int) -> Measured:
    """One arm: trained, its epoch chosen on validation sets, and its subsets compared with the optimal ones."""
    task, root = cast("str", settings["task"]), Rng((seed, "neural-subset-selection"))
    counts = [cast("int", settings["sets" if part == "training" else "held"]) for part in PARTS]
    if task == "responses":
        return _choose(settings, [draw_responses(count, part, root) for part, count in enumerate(counts)], seed)
    train, check, test = (draw_sets(task, count, part, root) for part, count in enumerate(counts))
    if settings["model"] == "random":
        return Measured(metrics={"jaccard": _luck(test, seed)})
    selector = _fit(settings, train, check, seed)
    history = selector.history_
    reached = [epoch for epoch, value in enumerate(history.jaccard, start=1) if value >= TARGET]
    curves = {
        "epoch": [float(epoch) for epoch in range(1, len(history.loss) + 1)],
        f"{task}: mean Jaccard index, validation": history.jaccard,
    }
    if settings["model"] != "greedy" and settings["posterior"] == "none":
        curves[f"{task}: training loss"] = history.loss  # others are of another kind
    return Measured(
        metrics={
            "jaccard": selector.score(test),
            "loss": history.loss[-1],
            "epochs": float(reached[0] if reached else len(history.loss) + 1),
            "parameters": sum(weight.numel() for weight in selector.model_.parameters()) / 1000,
        },
        curves=curves,
    )


def _fit(settings: Settings, train: Sets, check: Sets, seed: int) -> SubsetSelector:
    from reckon.subsets import SubsetSelector, Training

    epochs = cast("int", settings["epochs"])
    training = Training(epochs=epochs, batch=32, lr=2e-3, patience=epochs)
    return SubsetSelector(model_of(settings), training=training, seed=seed).fit(train, check)


def _luck(test: Sets, seed: int) -> float:
    """The mean Jaccard index of random subsets of the right size."""
    import torch

    from reckon.subsets import jaccard, largest

    wanted = test.optimal()
    numbers = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(seed))
    return float(jaccard(largest(numbers, wanted.sum(dim=1), test.mask), wanted).mean())


def _choose(settings: Settings, parts: list[Candidates], seed: int) -> Measured:
    """Two responses to each problem of the test, chosen in one way."""
    from reckon.subsets import choose_responses, compare_choices

    train, check, test = parts
    if settings["model"] == "random":
        chosen = choose_responses(test, 2, "random", seed=seed)
    elif settings["model"] == "top":
        assert test.worth is not None
        known = np.zeros(test.height)
        known[test.rows] = test.worth
        chosen = choose_responses(test, 2, known)
    else:
        chosen = choose_responses(test, 2, _fit(settings, train.sets, check.sets, seed))
    (found,) = compare_choices(test, {"": chosen})
    return Measured(metrics={"coverage": found.coverage[0], "worth": found.worth[0]})


def _arm(
    task: str,
    context: str,
    *,
    model: str = "energy",
    posterior: str = "none",
    encoder: str = "mlp",
    wide: int = 1,
    sets: int = 1500,
    epochs: int = 30,
) -> dict[str, Json]:
    return {
        "task": task,
        "context": context,
        "model": model,
        "posterior": posterior,
        "encoder": encoder,
        "wide": wide,
        "sets": sets,
        "held": 300,
        "epochs": epochs,
    }


_NONE, _REST, _CONCAT, _ADD = "A: set alone", "A: complement", "A: concat", "A: add (the paper's form)"
_WIDE = "A: set alone, doubled width"
_IND, _COPULA = "A: set alone, independent posterior", "A: set alone, copula posterior"
_ALONE, _MEAN, _ATTENTION = "A: scorer of elements", "A: scorer, mean of the set", "A: Set Transformer"
_GREEDY, _RANDOM = "A: greedy (PGM)", "A: random"
_MIX_NONE, _MIX_REST = "B: mixture, set alone", "B: mixture, complement"
_MOON_NONE, _MOON_REST = "B: moons, set alone", "B: moons, complement"
_DIGIT_NONE, _DIGIT_REST = "C: digits, set alone", "C: digits, complement"
_DIGIT_WIDE, _DIGIT_MEAN = "C: digits, set alone, doubled width", "C: digits, scorer, mean of the set"
_DIGIT_RANDOM = "C: digits, random"
_TOP, _LUCKY = "D: responses, two of most worth", "D: responses, random"
_LIKELY, _TURN = "D: responses, likeliest by an energy", "D: responses, greedy by an energy"

# Arm: its settings, the pilot's mean Jaccard index and loss.
_ARMS: Mapping[str, tuple[dict[str, Json], str, str]] = {
    _NONE: (_arm("near", "none"), "0.721 (3 seeds)", "2.42 (3 seeds)"),
    _REST: (_arm("near", "complement"), "0.795 (3 seeds)", "2.14 (3 seeds)"),
    _CONCAT: (_arm("near", "concat"), "0.736 (3 seeds)", "2.14 (3 seeds)"),
    _ADD: (_arm("near", "add"), "", ""),
    _WIDE: (_arm("near", "none", wide=2), "", ""),
    _IND: (_arm("near", "none", posterior="independent"), "", ""),
    _COPULA: (_arm("near", "none", posterior="copula"), "", ""),
    _ALONE: (_arm("near", "none", model="scorer"), "", ""),
    _MEAN: (_arm("near", "mean", model="scorer"), "", ""),
    _ATTENTION: (_arm("near", "attention", model="scorer"), "", ""),
    _GREEDY: (_arm("near", "none", model="greedy"), "", ""),
    _RANDOM: (_arm("near", "none", model="random"), "0.124 (exact)", ""),
    _MIX_NONE: (_arm("mixture", "none", encoder="linear", sets=800, epochs=10), "0.946 to 0.948 (1 seed)", ""),
    _MIX_REST: (_arm("mixture", "complement", encoder="linear", sets=800, epochs=10), "0.946 to 0.948 (1 seed)", ""),
    _MOON_NONE: (_arm("moons", "none", sets=800, epochs=20), "1.00 (1 seed)", ""),
    _MOON_REST: (_arm("moons", "complement", sets=800, epochs=20), "1.00 (1 seed)", ""),
    _DIGIT_NONE: (_arm("digits", "none"), "", ""),
    _DIGIT_REST: (_arm("digits", "complement"), "", ""),
    _DIGIT_WIDE: (_arm("digits", "none", wide=2), "", ""),
    _DIGIT_MEAN: (_arm("digits", "mean", model="scorer"), "", ""),
    _DIGIT_RANDOM: (_arm("digits", "none", model="random"), "", ""),
    _TOP: (_arm("responses", "none", model="top", sets=300), "", ""),
    _LUCKY: (_arm("responses", "none", model="random", sets=300), "", ""),
    _LIKELY: (_arm("responses", "complement", sets=300), "", ""),
    _TURN: (_arm("responses", "none", model="greedy", sets=300), "", ""),
}


def _more(arm: str, other: str, least: float = 0.0) -> Effect:
    return less(arm, other, "jaccard", says="mean Jaccard index", least=least)


def _same(arm: str, other: str) -> Effect:
    return less(arm, other, "jaccard", says="mean Jaccard index", within=0.02)


def _fits(arm: str) -> Effect:
    return less(_NONE, arm, "loss", says="training loss of the last epoch")


def _above(arm: str, chance: float) -> Effect:
    return Effect(
        says=f"mean Jaccard index: {arm} less {chance:.3f}, that of random subsets",
        of=lambda found: found[arm]["jaccard"] - chance,
        least=0.5,
    )


def _wins(found: ByArm) -> float:
    return float(found[_REST]["jaccard"] > found[_NONE]["jaccard"])


_CLAIMS = (
    Claim(
        says="Where the whole set decides, an energy that sees the complement chooses better than one that does not",
        effects=(
            _more(_REST, _NONE, 0.03),
            Effect(says=f"share of seeds in which {_REST} is above {_NONE}", of=_wins, least=0.8),
        ),
    ),
    Claim(says="Both forms of context fit the examples better", effects=(_fits(_REST), _fits(_CONCAT))),
    Claim(says="This is not the number of weights", effects=(_more(_REST, _WIDE, 0.02),)),
    Claim(says="The paper's form gains as the released one does", effects=(_more(_ADD, _NONE, 0.03),)),
    Claim(
        says="It also learns in fewer epochs",
        effects=(
            less(
                _NONE, _REST, "epochs", says=f"epochs to a mean Jaccard index of {TARGET} on validation sets", least=1.0
            ),
        ),
    ),
    Claim(
        says="A set function chooses better than a scorer of elements that sees the set's mean, and than greedy choice",
        effects=(_more(_REST, _MEAN), _more(_NONE, _GREEDY)),
    ),
    Claim(
        says="An amortized start is better than 0.5 everywhere, and a copula better than an independent one",
        effects=(_more(_COPULA, _NONE), _more(_COPULA, _IND)),
    ),
    Claim(
        says="The sanity tasks are learned by every arm",
        effects=(
            _above(_MIX_NONE, 0.0993),
            _above(_MIX_REST, 0.0993),
            _above(_MOON_NONE, 0.1237),
            _above(_MOON_REST, 0.1237),
        ),
    ),
    Claim(
        says="In the sanity tasks context changes nothing, as a half-sample of the set is context enough",
        effects=(_same(_MIX_REST, _MIX_NONE), _same(_MOON_REST, _MOON_NONE)),
    ),
    Claim(
        says="Pictures of two digits: context helps, beyond the number of weights, and an energy beyond a scorer",
        effects=(
            _more(_DIGIT_REST, _DIGIT_NONE, 0.03),
            _more(_DIGIT_REST, _DIGIT_WIDE, 0.02),
            _more(_DIGIT_REST, _DIGIT_MEAN),
        ),
    ),
    Claim(
        says="Chosen in turn by an energy, two responses stand for all that is good, where the two best are alike",
        effects=(
            less(_TURN, _TOP, "coverage", least=0.1),
            less(_TURN, _LUCKY, "coverage", least=0.1),
            less(_TURN, _LUCKY, "worth", least=0.1),
        ),
    ),
    Claim(
        says="Chances of single elements do not tell that two are alike",
        effects=(less(_TURN, _LIKELY, "coverage", least=0.1),),
    ),
    Claim(
        says="Gains of .05 to .13 on baskets, faces and compounds",
        why="their data and networks of width 256 on 100 elements are beyond two cores",
    ),
)


def _rows() -> tuple[Row, ...]:
    rows = []
    for arm, (settings, jaccard, loss) in _ARMS.items():
        if settings["task"] == "responses":
            rows.append(Row(arm=arm, metric="coverage", says="how well the wanted are stood for, test"))
            rows.append(Row(arm=arm, metric="worth", says="mean worth of the chosen, test"))
            continue
        rows.append(Row(arm=arm, metric="jaccard", says="mean Jaccard index, test", pilot=jaccard))
        if settings["model"] == "random":
            continue
        rows.append(Row(arm=arm, metric="loss", says="training loss, last epoch", pilot=loss))
        rows.append(Row(arm=arm, metric="parameters", says="weights, thousands"))
        if settings["task"] == "near":
            rows.append(Row(arm=arm, metric="epochs", says=f"epochs to {TARGET} on validation sets"))
    return tuple(rows)


STUDY = Study(
    name="neural-subset-selection",
    title="Choosing subsets from examples: what an energy must see of the rest",
    source=(
        "Xie et al. 2024, INSET (ICLR), on Ou et al. 2022, EquiVSet (NeurIPS); tasks A, B and C of the specification, "
        "and a use of our own, D."
    ),
    arms={arm: settings for arm, (settings, _, _) in _ARMS.items()},
    seeds=tuple(range(5)),
    fast={"sets": 8, "held": 4, "epochs": 2},
    cell=cell,
    claims=_CLAIMS,
    rows=_rows(),
    axis="epoch",
    notes=(
        "Every arm is told how many elements are wanted, as in the papers: its subset is those with the largest psi.",
        "All arms of a task and a seed share their sets, 300 of them for validation and 300 for the test. The epoch "
        "with the best validation index is kept, in every arm; no arm stops early. The pilot kept the last epoch.",
        "Task A: 20 normal points around a center of their own, wanted are the 4 nearest to the mean of all. B: a few "
        "points of one Gaussian or half moon among many of the other. C: pictures of two-digit numbers, wanted are the "
        "2 to 5 that show the same one; training, validation and test share no picture of a digit.",
        "Task D: 15 responses to a problem, five of each of three kinds, of which one is worth 1, one 0.8 and one "
        "nothing; wanted is the center of each of the first two. It is planted: that like responses teach the same is "
        "its premise, and not its finding. The arm of most worth is told the worth of the test's responses; the arms "
        "by an energy see where they lie, and have learned from other problems. Coverage is the mean over the wanted "
        "of exp(-d^2 / h^2), d the distance to the nearest chosen, h^2 the median squared distance. A test of the "
        "library in a world like this one, with other seeds and 60 problems, had been seen before the rules were made.",
        "Training losses of energies and scorers are of the same kind, those with a posterior include minus its ELBO, "
        "and greedy choice has a likelihood of orders: only arms of one kind are compared by it.",
        f"An arm that never reaches {TARGET} counts as one epoch more than it had. The target was set beforehand, "
        "below what the pilot's arms end at.",
        "The papers' toys, and the numbers printed for them, have 100 elements and other data: none is comparable.",
        "The rules were committed before the run; those of tasks A and B come from the specification, whose pilot had "
        "been read.",
    ),
)
