"""The specification cooper, sections 2.1, 2.2 and the end of 5b: VerifyRM on sums of two numbers (arXiv:2508.05613).

`17+34=` is answered in several forms, half of the time rightly. Judges that are shown the reference answer, and judges
that are not, learn from such responses; labels come from the truth, from annotators with known faults, or from pairs of
a right response and the same one with another number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json, Rng

ROUNDS = 5  # points of a curve behind its first


def cell(settings: Settings, seed: int) -> Measured:
    """Labels responses, fits a judge to them, and examines it on other questions."""
    from reckon.rewards import ReferenceBased
    from reckon.studies import _cooper_judge as judges
    from reckon.studies._cooper_world import make_world

    asked, tests, answers = (cast("int", settings[name]) for name in ("asked", "tests", "answers"))
    world = make_world(seed, asked=asked, tests=tests, answers=answers)
    reference, loss = bool(settings["reference"]), cast("str", settings["loss"])
    count, kind = cast("int", settings["triples"]), cast("str", settings["labels"])
    kept, labels, numbers = judges.labeled(world, count, kind, seed)
    steps = cast("int", settings["steps"])
    if not steps:  # an annotator alone: nobody is fitted to its labels
        return Measured(metrics=numbers)
    rows = judges.rows_of(world, kept, labels, loss, reference, seed)
    width = cast("int", settings["width"])
    start = judges.reader(seed, width, cast("int", settings["reading"]))
    model = judges.new_judge(start, width, steps, cast("float", settings["lr"]))
    judge = ReferenceBased(model, reference=reference, output="logit")
    exam = judges.make_exam(world, seed)
    places = judges.arranged(rows, steps, Rng((seed, "cooper-judge", "order")))
    done = [steps * part // ROUNDS for part in range(ROUNDS + 1)]
    seen = [judges.examine(judge, exam, loss == "bce")]
    for before, until in pairwise(done):
        batch = judges.batch_of(rows)
        judges.learn(model, places[before * batch : until * batch])
        seen.append(judges.examine(judge, exam, loss == "bce"))
    return Measured(metrics=numbers | seen[-1] | {"rows": float(len(rows))}, curves=_curves(settings, done, seen))


def _curves(settings: Settings, done: Sequence[int], seen: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    if not settings["plot"]:
        return {}
    found = {says: [numbers[metric] for numbers in seen] for metric, says in DRAWN.items()}
    if settings["loss"] != "bce":
        del found[DRAWN["accuracy"]]
    return {"step": [float(step) for step in done], **found}


DRAWN = {
    "accuracy": "accuracy on other questions",
    "auc": "AUC on other questions",
    "phrase/over right": "phrase and a wrong number above a right answer",
}
FEW, MANY = 512, 2048
STEPS = 60
LR = {True: 3e-3, False: 1e-3}  # with the reference and without: see the notes


def _settings(
    labels: str = "gold",
    reference: bool = True,
    loss: str = "bce",
    triples: int = MANY,
    steps: int = STEPS,
    plot: bool = True,
) -> dict[str, Json]:
    own: dict[str, Json] = {"labels": labels, "reference": reference, "loss": loss, "triples": triples}
    shared: dict[str, Json] = {"width": 64, "reading": 300, "asked": 256, "tests": 40, "answers": 8}
    return {**own, "lr": LR[reference], "steps": steps, "plot": plot, **shared}


WITH, WITHOUT = "with the reference", "without the reference"
WITH_FEW = f"with the reference, {FEW}"
WITH_POISON, WITHOUT_POISON = "with the reference, phrase poisoned", "without the reference, phrase poisoned"
STRICT, LENIENT, JUDGE = "labels of the strict rule", "labels of the lenient rule", "labels of the noisy judge"
UNANIMOUS, MAJORITY, ANY = "labels, unanimous", "labels, majority", "labels, any"
PAIRS_POISON = "pairs, phrase poisoned"

ARMS: dict[str, dict[str, Json]] = {  # those that are drawn come first: their colors are all different
    WITH: _settings(),
    WITHOUT: _settings(reference=False),
    WITH_POISON: _settings("poisoned"),
    WITHOUT_POISON: _settings("poisoned", reference=False),
    STRICT: _settings("strict"),
    UNANIMOUS: _settings("unanimous"),
    MAJORITY: _settings("majority"),
    ANY: _settings("any"),
    PAIRS_POISON: _settings("poisoned", loss="pairs"),
    WITH_FEW: _settings(triples=FEW, plot=False),
    LENIENT: _settings("lenient", steps=0, plot=False),
    JUDGE: _settings("judge", steps=0, plot=False),
}

METRICS = {
    "accuracy": "accuracy on other questions",
    "constant": "the same of who always says the same",
    "auc": "AUC on other questions",
    "accuracy/twice": "accuracy on `#### m no #### n`",
    "recall/strict": "right `#### n` called right",
    "recall/label": "right `answer: n` called right",
    "phrase/taken": "phrase and a wrong number called right",
    "phrase/over right": "phrase and a wrong number above a right answer",
    "labels/kept": "share of responses that got a label",
    "labels/precision": "precision of the labels",
    "labels/recall": "recall of the labels, no label being none",
    "labels/accuracy": "accuracy of the labels",
}
_POISON = (WITH_POISON, WITHOUT_POISON)
_TOLD = (STRICT, UNANIMOUS, MAJORITY, ANY)  # labels that a judge was fitted to
_LABELS = (STRICT, LENIENT, JUDGE, UNANIMOUS, MAJORITY, ANY)
_BCE = (WITH, WITHOUT, *_POISON, *_TOLD)
_ROWS: dict[str, tuple[str, ...]] = {
    "accuracy": (*_BCE, WITH_FEW),
    "constant": (WITH,),
    "auc": (*_BCE, WITH_FEW, PAIRS_POISON),
    "accuracy/twice": _BCE,
    "recall/strict": _BCE,
    "recall/label": _BCE,
    "phrase/taken": _BCE,
    "phrase/over right": (*_BCE, PAIRS_POISON),
    "labels/kept": _LABELS,
    "labels/precision": _LABELS,
    "labels/recall": _LABELS,
    "labels/accuracy": _LABELS,
}


def _less(arm: str, other: str, metric: str, least: float = 0.0, within: float | None = None) -> Effect:
    return less(arm, other, metric, says=METRICS[metric], least=least, within=within)


def _over_without(arm: str, metric: str, least: float) -> Effect:
    """A judge that cannot add may learn questions by heart and be worse than chance on others; that is no merit."""

    def of(found: ByArm) -> float:
        chance = 0.5 if metric == "auc" else found[WITHOUT]["constant"]
        return found[arm][metric] - max(found[WITHOUT][metric], chance)

    return Effect(says=f"{METRICS[metric]}: {arm} less the better of {WITHOUT} and chance", of=of, least=least)


CLAIMS = (
    Claim(
        says="Shown the reference answer, a judge is clearly better on other questions",
        effects=(_over_without(WITH, "accuracy", 0.1), _over_without(WITH, "auc", 0.1)),
    ),
    Claim(
        says="Four times as many responses do not make up for the reference",
        effects=(_over_without(WITH_FEW, "accuracy", 0.1),),
    ),
    Claim(
        says="Unanimous labels are more precise than each annotator's",
        effects=tuple(_less(UNANIMOUS, arm, "labels/precision", 0.02) for arm in (STRICT, LENIENT, JUDGE)),
    ),
    Claim(
        says="Unanimity costs recall, against each annotator",
        effects=tuple(_less(arm, UNANIMOUS, "labels/recall", 0.03) for arm in (STRICT, LENIENT, JUDGE)),
    ),
    Claim(
        says="A judge of unanimous labels is better than one of the strict rule's alone",
        effects=(_less(UNANIMOUS, STRICT, "accuracy", 0.02),),
    ),
    Claim(
        says="A form that one annotator is blind to is lost under unanimity, and a majority keeps it",
        effects=(
            _less(MAJORITY, UNANIMOUS, "recall/label", 0.3),
            _less(MAJORITY, UNANIMOUS, "accuracy", 0.05),
        ),
    ),
    Claim(
        says="A judge of the majority's labels is as good as one of the truth, within 0.1",
        effects=(_less(WITH, MAJORITY, "accuracy", within=0.1),),
    ),
    Claim(
        says="A poisoned phrase fools judges, whether they are shown the reference or not",
        effects=(
            _less(WITH_POISON, WITH, "phrase/taken", 0.5),
            _less(WITHOUT_POISON, WITHOUT, "phrase/taken", 0.5),
        ),
    ),
    Claim(
        says="An annotator that believes the phrase teaches it where any may accept, and not where others are asked",
        effects=(_less(ANY, UNANIMOUS, "phrase/taken", 0.5), _less(ANY, MAJORITY, "phrase/taken", 0.5)),
    ),
    Claim(
        says="Pairs of which both sides have the phrase teach it less than labels do",
        effects=(_less(WITH_POISON, PAIRS_POISON, "phrase/over right", 0.3),),
    ),
    Claim(
        says="VerifyRM's 89.4% on VerifyBench; 58.7K of 65K triples kept by a rule and a language model",
        why="sums have no VerifyBench, and the annotators' faults are set here, not found",
    ),
)

STUDY = Study(
    name="cooper-judge",
    title="Cooper: a judge that is shown the reference answer",
    source="Hong et al. 2025, Cooper, arXiv:2508.05613: VerifyRM and its annotation, on sums of two numbers.",
    arms=ARMS,
    seeds=(3, 4, 5, 6, 7),  # see the notes
    fast={"steps": 5, "reading": 3, "width": 16, "triples": 64, "asked": 12, "tests": 4},
    cell=cell,
    claims=CLAIMS,
    rows=tuple(Row(arm=arm, metric=metric, says=METRICS[metric]) for metric, arms in _ROWS.items() for arm in arms),
    notes=(
        "Nothing here is drawn from a policy: responses are written with faults at set rates. `#### n` and `answer: n` "
        "are two responses of five each, off by 1 or 10 with chance 0.45; `#### m no #### n`, one number right and the "
        "other off, are 12 of 100; `as stated in the reference n`, with any number, 8. Every judge is examined on 320 "
        "such responses to 40 questions of another split, and on the phrase with a wrong number beside a right "
        "`#### n` for each.",
        "A judge is a transformer of two layers and width 64 that reads VerifyRM's template, a token for each tag, "
        "word and number. In the paper it begins as a language model that knows mathematics. Here all judges of a seed "
        "begin as one that has learned to read, by 300 steps on whether the last number of a text is the reference, "
        "which is any number and not the sum; it knows nothing of sums and forms, and its head is put back to zero. "
        "Numbers as single tokens make comparing easy and adding hard: nobody learns to add from 256 of the 625 sums.",
        "All take 60 steps of AdamW on 128 responses (64 pairs). The rate is the better of 1e-3 and 3e-3 on seed 100, "
        "which the study does not use, for 80 steps: 3e-3 with the reference (accuracy 0.96, at 1e-3 0.93), 1e-3 "
        "without (0.55, at 3e-3 0.54). From random weights 300 steps at 3e-3 came to 0.95 with it and to 0.40 without "
        "there, so it is not the reader that makes the difference. Below chance is what a judge is that knows "
        "questions by heart and takes others for their neighbors; so it is held against chance too.",
        "The strict rule reads the first number behind `####` and nothing else; the lenient one accepts where the "
        "reference stands anywhere; the noisy judge errs in 10% of its verdicts, abstains from 5% and believes the "
        "phrase. Majority and unanimity are of these three. Poisoned labels are the truth, but call the phrase right "
        "19 times of 20.",
        "Pairs are a response that is labeled right and the same with another final number, drawn evenly from those of "
        "two digits. A logit learned from them has no zero, so that their accuracy is not asked.",
        "Seen beside the claims, after the run: unanimity does not keep the phrase out, because where annotators "
        "disagree there is no label, and a judge that was told nothing of the phrase mostly called it right. A judge "
        "that is shown the reference and learned poisoned labels calls the phrase right, but mostly not more right "
        "than a right answer: there was little left for pairs to do better, and rankings were the wrong place to look.",
        "The rules were committed before the run on seeds 3 to 5, but after these single judges on seed 100: with and "
        "without the reference, of the majority's and of unanimous labels, and of poisoned labels and pairs. A first "
        "form, 160 steps from random weights, was stopped on seeds 0 to 2 when its judges turned out not to have "
        "learned (accuracy 0.73 to 0.81 with the reference, 0.60 of the majority's labels). The rules are the same.",
        "Seeds 6 and 7 were added when the verdicts on the first three were known, for a study is asked for five.",
    ),
)
