"""Section 5.2 of the specification exploration-bonuses: counts in the run, in the episode, and their product.

Henaff, Jiang and Raileanu 2023 (arXiv:2306.03236) say that a bonus for what is new in all of training dies out where
contexts do not share what their states are worth, that one for what is new in the episode cannot tell a dead end, and
that the product is robust. Here on mazes whose number, and on a star whose dead ends, are dials.
"""

from __future__ import annotations

from reckon.studies._claims import ByArm, Claim, Effect
from reckon.studies._exploration import COUNTED, KEYS, arm, cell, variance
from reckon.studies._study import Pool, Row, Study
from reckon.types import Json

GLOBAL, EPISODIC, PRODUCT, NONE = "global", "episodic", "product", "no bonus"
BONUSES = {
    GLOBAL: "global_count",
    EPISODIC: "episodic_count",
    PRODUCT: "episodic_times_global_count",
}
# Maps, and what is counted.
MAPS: dict[str, dict[str, Json]] = {
    "1 map": {"contexts": 1},
    "3 maps": {"contexts": 3},
    "10 maps": {"contexts": 10},
    "3,000 maps": {"contexts": None},
    "3,000 maps, messages": {"contexts": None, "key": "msg"},
}
ONE, FEW, SOME, ALL, MESSAGES = MAPS
STAR = "star"
VALUES = "exact values"
PILOT = {  # success of seeds 0 to 2 on maps, seeds of eight that solved the star
    GLOBAL: {ONE: ".80 .70 .00", FEW: "0 0 0", SOME: "0 0 0", ALL: "0 0 0", MESSAGES: ".89 .89 .89", STAR: "7 of 8"},
    EPISODIC: {
        ONE: "1.0 1.0 1.0",
        FEW: "1.0 1.0 1.0",
        SOME: "1.0 .99 1.0",
        ALL: ".97 .97 .97",
        MESSAGES: ".99 1.0 1.0",
        STAR: "1 of 8",
    },
    PRODUCT: {
        ONE: "1.0 1.0 1.0",
        FEW: "1.0 1.0 1.0",
        SOME: "1.0 1.0 1.0",
        ALL: ".99 .98 .99",
        MESSAGES: "1.0 1.0 1.0",
        STAR: "7 of 8",
    },
    NONE: {STAR: "0 of 8"},
}
PILOT_VARIANCE = {1: "0", 3: ".179", 10: ".128", 100: ".124", 3000: ".124"}


def name(bonus: str, where: str) -> str:
    """The arm of a bonus in a world."""
    return f"{bonus}, {where}"


ARMS: dict[str, dict[str, Json]] = {
    name(bonus, where): arm("LavaTrail", kind, f"{where}: success", **changes)
    for where, changes in MAPS.items()
    for bonus, kind in BONUSES.items()
}
ARMS |= {name(bonus, STAR): arm("Star", kind, "star: success") for bonus, kind in {**BONUSES, NONE: "none"}.items()}
ARMS[VALUES] = {"world": "values", "contexts": 3000}


def _reaches(bonus: str, where: str, least: float) -> Effect:
    there = name(bonus, where)
    return Effect(says=f"success: {there}", of=lambda found: found[there]["success"], least=least)


def _fails(bonus: str, where: str) -> Effect:
    there = name(bonus, where)
    return Effect(says=f"success: {there}", of=lambda found: found[there]["success"], within=0.1)


def _more(bonus: str, other: str, where: str, least: float, metric: str = "success", lead: float = 0.0) -> Effect:
    """Of one bonus over another in one world; with a `lead`, how far the other may be ahead."""
    one, two = name(bonus, where), name(other, where)
    given = f", plus the {lead:g} that it may be behind" if lead else ""

    def of(found: ByArm) -> float:
        return found[one][metric] - found[two][metric] + lead

    return Effect(says=f"{metric}, {where}: {bonus} less {other}{given}", of=of, least=least)


def _varies(key: str, contexts: int, least: float) -> Effect:
    metric = variance(key, contexts)
    return Effect(says=f"{metric} maps", of=lambda found: found[VALUES][metric], least=least)


def _is_shared(key: str, contexts: int) -> Effect:
    metric = variance(key, contexts)
    return Effect(says=f"{metric} maps", of=lambda found: found[VALUES][metric], within=1e-9)


CLAIMS = (
    Claim(
        says="What is new in all of training stops to lead anywhere as maps become many",
        effects=(
            *(_fails(GLOBAL, where) for where in (FEW, SOME, ALL)),
            Effect(
                says="success: global, 1 map less 3,000 maps",
                of=lambda found: found[name(GLOBAL, ONE)]["success"] - found[name(GLOBAL, ALL)]["success"],
                least=0.2,
            ),
        ),
    ),
    Claim(
        says="What is new in the episode leads on, on one map and on any number",
        effects=tuple(_reaches(EPISODIC, where, 0.9) for where in (ONE, FEW, SOME, ALL)),
    ),
    Claim(
        says="So does the product",
        effects=tuple(_reaches(PRODUCT, where, 0.9) for where in (ONE, FEW, SOME, ALL)),
    ),
    Claim(
        says="Counted by messages, which mean the same on all maps, what is new in all of training leads on again",
        effects=(
            _reaches(GLOBAL, MESSAGES, 0.6),
            Effect(
                says="success: global, messages less places, 3,000 maps",
                of=lambda found: found[name(GLOBAL, MESSAGES)]["success"] - found[name(GLOBAL, ALL)]["success"],
                least=0.5,
            ),
        ),
    ),
    Claim(
        says="Dead ends reverse the order: on the star a global bonus moves on, an episodic one does not",
        effects=(_more(GLOBAL, EPISODIC, STAR, 0.5, "solved"), _more(GLOBAL, NONE, STAR, 0.5, "solved")),
    ),
    Claim(
        says="On maps the product is never 0.1 behind the better of the two",
        effects=tuple(_more(PRODUCT, single, where, 0.0, lead=0.1) for where in MAPS for single in (GLOBAL, EPISODIC)),
    ),
    Claim(
        says="Nor on the star",
        effects=(
            _more(PRODUCT, GLOBAL, STAR, 0.0, "solved", lead=0.1),
            _more(PRODUCT, EPISODIC, STAR, 0.0, "solved", lead=0.1),
        ),
    ),
    Claim(
        says="What a place is worth varies over maps, and what a message is worth does not",
        effects=(
            *(_varies("pos", count, 0.1) for count in COUNTED[1:]),
            _is_shared("pos", 1),
            *(_is_shared("msg", count) for count in COUNTED),
        ),
    ),
    Claim(
        says="MultiRoom-N6-Lava with new maps in every episode: 0.87 ± 0.10 by an episodic count, 0.00 by a global one",
        why="figures of 50 million frames of NetHack and an agent that reads the screen",
    ),
)
_SUCCESS = "success, last ten updates"
ROWS = (
    *(
        Row(arm=name(bonus, where), metric="success", says=_SUCCESS, pilot=PILOT[bonus][where])
        for where in MAPS
        for bonus in BONUSES
    ),
    *(
        Row(arm=name(bonus, STAR), metric="solved", says="share of seeds that solved it", pilot=PILOT[bonus][STAR])
        for bonus in (*BONUSES, NONE)
    ),
    *(Row(arm=name(bonus, STAR), metric="success", says=_SUCCESS) for bonus in (*BONUSES, NONE)),
    *(
        Row(
            arm=VALUES,
            metric=variance(key, count),
            says=f"mean variance of a state's value, {key}, {count:,} maps",
            pilot=PILOT_VARIANCE[count] if key == "pos" else "0",
        )
        for key in KEYS
        for count in COUNTED
    ),
    *(Row(arm=name(bonus, ALL), metric="length", says="steps of an episode, last ten updates") for bonus in BONUSES),
)
_PLACES = (ONE, FEW, SOME, ALL)
POOLS = tuple(
    Pool(says=f"{bonus}, {says}", arms=tuple(name(bonus, where) for where in worlds), metric="success")
    for says, worlds in (("places on maps", _PLACES), ("all six tasks", (*MAPS, STAR)))
    for bonus in BONUSES
)

STUDY = Study(
    name="exploration-bonuses",
    title="Global and episodic counts: which works when, and their product",
    source="Henaff, Jiang and Raileanu 2023, A Study of Global and Episodic Bonuses for Exploration in Contextual "
    "MDPs, arXiv:2306.03236; LavaTrail and Star, grids of our own.",
    arms=ARMS,
    seeds=(0, 1, 2, 3, 4, 5, 6, 7),
    fast={"frames": 512, "environments": 16, "steps": 16, "contexts": 3},
    cell=cell,
    claims=CLAIMS,
    rows=ROWS,
    pools=POOLS,
    axis="frames",
    notes=(
        "Success is the share of the last ten updates' episodes that reached the goal; the bonus is in no number here.",
        "PPO, two networks of 64-64 tanh units, 128 environments of 64 steps an update (star: 64 of 32), three "
        "readings in four parts, Adam 1e-3, entropy 0.04 (star: 0.003), bonus in deviations times 0.1, nothing "
        "where the task was over, at the goal as in the lava; time is part of the task (bootstrap=False), as in the "
        "pilot.",
        "A seed is that of the maps, the first weights and all that is drawn, in every arm. The pilot has three seeds "
        "on maps and eight on the star; here all have eight, of which the first three are the table's.",
        "The specification asks of the product 0.1 behind at most in the mean; the rule here asks it of the mean less "
        "two standard errors too.",
        "On the star nobody enters a place twice in an episode, so what is new in the episode is always 1, and the "
        "product is the global bonus: their runs are the same to the last digit. That the product is not behind it "
        "there could not have come out otherwise, and over all six tasks both bonuses have these eight runs.",
        "An agent on maps sees where its episode has been, so no arm needs a memory of its own.",
        "The rules were committed before the first full run, after the pilot's table had been read: they test that it "
        "repeats, not a guess made blind.",
    ),
)
