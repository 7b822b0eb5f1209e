"""Section 5 B of the specification implicit-prm: Yuan et al. 2024 (arXiv:2412.01981) on a transformer of two layers.

The task of the study implicit-prm as text, but shorter: a generator adds four numbers modulo 10, one by one, and errs
at every step with probability 0.35. A small language model learns to write as it does. That is the reference; judges
begin at it and learn from nothing but whether its answers were right, or from labels that it makes itself by completing
its own prefixes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Batch, Json, Rng

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models import LanguageModel
    from reckon.studies._implicit_prm_judges import Balance, Method
    from reckon.studies._implicit_prm_texts import World

SIZES = (1, 2, 4, 8, 16)  # of best-of-N
LOOKS = (50, 100, 200)  # steps: every judge is kept as it was after as many as it chose best with on dev
LR: Mapping[Method, float] = {  # by pilots on a seed of its own; see the notes
    "ce": 3e-4,
    "dpo": 3e-4,
    "nca": 1e-3,
    "kto": 3e-4,
    "orm": 1e-3,
    "copied": 1e-3,
    "soft": 1e-3,
}


def cell(settings: Settings, seed: int) -> Measured:
    """One arm: learn, score the test responses, choose among them."""
    from reckon.studies._implicit_prm_texts import Size, make_world

    world = make_world(Size.of(settings), seed)
    if settings["kind"] == "none":
        return _untrained(cast("str", settings["choose"]), world)
    if settings["kind"] == "implicit":
        return _implicit(settings, world)
    return _explicit(settings, world)


def _implicit(settings: Settings, world: World) -> Measured:
    import torch

    from reckon.process import aggregate
    from reckon.rewards import ImplicitReward
    from reckon.search import vote_weights
    from reckon.studies import _implicit_prm_judges as judges
    from reckon.studies._implicit_prm_texts import SPLITTER, first_rows

    method = cast("Method", settings["method"])
    prompts, responses = cast("int", settings["prompts"]), cast("int", settings["responses"])
    rows = judges.outcome_rows(world, method, prompts, responses, _balance(settings))

    def rewards(model: LanguageModel, batch: Batch) -> Tensor:
        """Log-ratios themselves."""
        return ImplicitReward(model, reference=world.start, beta=1.0, splitter=SPLITTER).step_rewards(batch)

    learned = judges.learn(
        world,
        method,
        rows,
        cast("list[int]", settings["looks"]),
        cast("float", settings["lr"]),
        lambda model: aggregate(rewards(model, world.dev.batch), "min"),
    )
    model = learned.model
    held, asked = rewards(model, world.dev.batch), rewards(model, world.test.batch)
    lowest, total = aggregate(asked, "min"), aggregate(asked, "sum")
    free = ImplicitReward(model, per="response", how="sum").score(world.test.batch)["implicit_reward"].values
    right = torch.sigmoid(judges.BETA * total[world.test.batch.outcome == 1])
    metrics = judges.choosing(lowest, world.test, SIZES) | {
        "auc": judges.step_auc(asked, world.test),
        "sum": judges.choosing(total, world.test, SIZES[-1:])["best/16"],
        "free": judges.choosing(free, world.test, SIZES[-1:])["best/16"],
        "f1": judges.found_errors(held, world.dev, asked, world.test, False),
        "f1/sums": judges.found_errors(held, world.dev, asked, world.test, True),
        "vote/0.05": judges.voting(vote_weights(lowest, 0.05), world.test)["vote/16"],
        "sigmoid/right": float(right.mean()),
        "examples": float(len(rows)),
        "sampled": float(world.train.take(first_rows(prompts, responses)).seq.mask.sum()),
        "learned": float(model.counters["learn"]),
        "steps": float(learned.steps),
        "dev": learned.dev,
    }
    metrics |= judges.voting(vote_weights(lowest, 1.0), world.test)
    return _measured(settings, metrics)


def _explicit(settings: Settings, world: World) -> Measured:
    from reckon.process import aggregate
    from reckon.rewards import OutcomeModel, StepModel
    from reckon.studies import _implicit_prm_judges as judges
    from reckon.studies._implicit_prm_texts import PER, SPLITTER, first_rows, make_labels, tokens_of_prompts

    method, prompts = cast("Method", settings["method"]), cast("int", settings["prompts"])
    sampled = float(world.train.take(first_rows(prompts, PER)).seq.mask.sum())
    if method == "soft":
        labels = make_labels(world.size, world.seed, cast("int", settings["completions"]))
        spent = tokens_of_prompts(world, labels).cumsum()
        if settings["budget"] == "tokens":  # as many prompts as cost, labels included, no more than all without
            prompts = max(1, int((spent <= sampled).sum()))
        sampled = float(spent[prompts - 1])
        rows = judges.labeled_rows(labels, prompts * PER)
    else:
        rows = judges.outcome_rows(world, method, prompts, PER, _balance(settings))

    def probabilities(model: LanguageModel, batch: Batch) -> Tensor:
        return StepModel(model, splitter=SPLITTER).probabilities(batch)

    def scores(model: LanguageModel, batch: Batch) -> Tensor:
        if method == "orm":
            return OutcomeModel(model, probability=True).score(batch)["outcome_model"].values
        return aggregate(probabilities(model, batch), "min")

    learned = judges.learn(
        world,
        method,
        rows,
        cast("list[int]", settings["looks"]),
        cast("float", settings["lr"]),
        lambda model: scores(model, world.dev.batch),
    )
    asked = scores(learned.model, world.test.batch)
    metrics: dict[str, float] = {
        "examples": float(len(rows)),
        "sampled": sampled,
        "learned": float(learned.model.counters["learn"]),
        "steps": float(learned.steps),
        "dev": learned.dev,
    }
    if method != "orm":
        held, steps = (probabilities(learned.model, written.batch) for written in (world.dev, world.test))
        metrics |= {
            "auc": judges.step_auc(steps, world.test),
            "f1": judges.found_errors(held, world.dev, steps, world.test, False),
            "product": judges.choosing(aggregate(steps.logit(), "product"), world.test, SIZES[-1:])["best/16"],
        }
    metrics |= judges.choosing(asked, world.test, SIZES) | judges.voting(asked, world.test)
    return _measured(settings, metrics)


def _untrained(choose: str, world: World) -> Measured:
    """What can be had without learning from outcomes."""
    from reckon.process import aggregate
    from reckon.rewards import ImplicitReward
    from reckon.studies import _implicit_prm_judges as judges
    from reckon.studies._implicit_prm_texts import SPLITTER

    test = world.test
    if choose == "vote":
        votes = judges.voting(None, test, SIZES)
        return _measured({"plot": True}, votes | {f"best/{n}": votes[f"vote/{n}"] for n in SIZES})
    if choose == "oracle":
        metrics = judges.choosing(test.right, test, SIZES)
        metrics["pass@1"] = metrics["best/1"]
        metrics["steps right"] = float(test.valid[test.valid == test.valid].mean())
        metrics["readable"] = float(test.known.mean())
    elif choose == "likelihood":
        steps = ImplicitReward(world.start, splitter=SPLITTER).step_rewards(test.batch)
        metrics = judges.choosing(aggregate(steps, "sum"), test, SIZES) | {"auc": judges.step_auc(steps, test)}
    else:
        metrics = judges.choosing(Rng((world.seed, "random")).numpy().random(len(test.answers)), test, SIZES)
    return _measured({"plot": True}, metrics)


def _balance(settings: Settings) -> Balance:
    return cast("Balance", settings.get("balance", "none"))


def _measured(settings: Settings, metrics: Mapping[str, float]) -> Measured:
    curves: dict[str, list[float]] = {}
    if settings["plot"]:
        curves = {
            "candidates": [float(n) for n in SIZES],
            "share right: the best of them": [metrics[f"best/{n}"] for n in SIZES],
        }
    return Measured(metrics=metrics, curves=curves)


_WORLD: dict[str, Json] = {
    "operations": 4,
    "error": 0.35,
    "worked": 1000,
    "passes": 10,
    "examples": 4000,
    "sft_lr": 1e-3,
    "pool": 400,
    "asked": 120,
}


def _learner(
    method: Method, prompts: int, responses: int = 8, *, plot: bool = False, **others: Json
) -> dict[str, Json]:
    kind = "implicit" if method in ("ce", "dpo", "nca", "kto") else "explicit"
    base: dict[str, Json] = {"kind": kind, "method": method, "lr": LR[method], "looks": list(LOOKS), "plot": plot}
    return _WORLD | base | {"prompts": prompts, "responses": responses} | others


def _shepherd(prompts: int, budget: str = "responses", plot: bool = False) -> dict[str, Json]:
    return _learner("soft", prompts, plot=plot, completions=8, budget=budget)


def _none(choose: str) -> dict[str, Json]:
    return _WORLD | {"kind": "none", "choose": choose}


ORACLE, VOTE, RANDOM, LIKELIHOOD = "any of N (oracle)", "majority vote", "random", "the reference's likelihood"
CE, DPO, NCA, KTO = (f"{loss}, 400 x 8" for loss in ("CE", "DPO", "NCA", "KTO"))
ORM, COPIED = "ORM, 400 x 8", "outcome copied, 400 x 8"
SOFT, SOFT_EQUAL = "MC soft, 400 x 8", "MC soft, equal tokens"
CE_BALANCED, ORM_BALANCED = "CE, 400 x 8, balanced", "ORM, 400 x 8, balanced"
CE_TWO, DPO_TWO = "CE, 400 x 2", "DPO, 400 x 2"

ARMS: dict[str, dict[str, Json]] = {  # the ones that are drawn first: their colors are all different
    ORACLE: _none("oracle"),
    LIKELIHOOD: _none("likelihood"),
    CE: _learner("ce", 400, plot=True),
    CE_BALANCED: _learner("ce", 400, plot=True, balance="dataset"),
    DPO: _learner("dpo", 400, plot=True),
    ORM: _learner("orm", 400, plot=True),
    COPIED: _learner("copied", 400, plot=True),
    SOFT: _shepherd(400, plot=True),
    SOFT_EQUAL: _shepherd(400, "tokens", plot=True),
    VOTE: _none("vote"),
    RANDOM: _none("random"),
    NCA: _learner("nca", 400),
    KTO: _learner("kto", 400),
    ORM_BALANCED: _learner("orm", 400, balance="dataset"),
    CE_TWO: _learner("ce", 400, 2),
    DPO_TWO: _learner("dpo", 400, 2),
}


def _less(arm: str, other: str, least: float = 0.0, within: float | None = None) -> Effect:
    def of(found: ByArm) -> float:
        return found[arm]["best/16"] - found[other]["best/16"]

    return Effect(says=f"best of 16: {arm} less {other}", of=of, least=least, within=within)


def _over_pass(arm: str, least: float) -> Effect:
    return Effect(
        says=f"best of 16 less pass@1: {arm}",
        of=lambda found: found[arm]["best/16"] - found[ORACLE]["pass@1"],
        least=least,
    )


def _over_half(arm: str, least: float) -> Effect:
    return Effect(says=f"step AUC less 0.5: {arm}", of=lambda found: found[arm]["auc"] - 0.5, least=least)


def _scale(arm: str) -> Effect:
    return Effect(
        says=f"weighted vote, c = 1 less c = 0.05: {arm}",
        of=lambda found: found[arm]["vote/16"] - found[arm]["vote/0.05"],
        least=0.05,
    )


def _low(arm: str) -> Effect:
    return Effect(
        says=f"0.53 less the mean sigmoid of right responses' rewards: {arm}",
        of=lambda found: 0.53 - found[arm]["sigmoid/right"],
    )


def _cost(least: float) -> Effect:
    return Effect(
        says=f"tokens sampled for {SOFT}, in those for {CE}",
        of=lambda found: found[SOFT]["sampled"] / found[CE]["sampled"],
        least=least,
    )


CLAIMS = (
    Claim(
        says="Outcome labels alone make step scores: step AUC well above the 0.5 at which it starts",
        effects=tuple(_over_half(arm, 0.1) for arm in (CE, CE_BALANCED, DPO, NCA, KTO)),
    ),
    Claim(
        says="Losses on pairs, and CE on balanced labels, come as far as on the table: step AUC over 0.95",
        effects=tuple(_over_half(arm, 0.45) for arm in (DPO, NCA, CE_BALANCED)),
    ),
    Claim(
        says="Best-of-16 by the lowest step beats pass@1 by over 0.2 and majority voting by over 0.1",
        effects=tuple(
            effect for arm in (CE, CE_BALANCED, DPO) for effect in (_over_pass(arm, 0.2), _less(arm, VOTE, 0.1))
        ),
    ),
    Claim(
        says="Where one response in four is right, CE needs balanced labels",
        effects=(_less(CE_BALANCED, CE, 0.1),),
    ),
    Claim(says="More responses a prompt help both losses", effects=(_less(CE, CE_TWO), _less(DPO, DPO_TWO))),
    Claim(
        says="At equal sampled tokens, and within 200 steps, the implicit rewards beat Monte-Carlo labels",
        effects=tuple(_less(arm, SOFT_EQUAL) for arm in (CE, DPO)),
    ),
    Claim(
        says="At equal responses soft Monte-Carlo labels, at over 5 times the sampled tokens, are as good or better",
        effects=(_cost(5), _less(SOFT, CE), _less(SOFT, DPO, within=0.05)),
    ),
    Claim(
        says="Within 200 steps the implicit rewards choose better than a scalar outcome model of the same labels",
        effects=(_less(CE, ORM), _less(DPO, ORM), _less(CE_BALANCED, ORM_BALANCED)),
    ),
    Claim(says="The outcome copied to every step is above CE (seen on the table)", effects=(_less(COPIED, CE),)),
    Claim(
        says="CE is more data-efficient than DPO (the paper's claim)",
        effects=(_less(CE, DPO), _less(CE_TWO, DPO_TWO)),
    ),
    Claim(says="The scale inside a weighted vote matters", effects=(_scale(CE), _scale(DPO))),
    Claim(
        says="However well they rank, right responses' rewards do not rise above a sigmoid of about a half",
        effects=(_low(CE), _low(DPO)),
    ),
    Claim(
        says="The untrained reference's likelihood chooses as well as any of the implicit rewards",
        effects=tuple(_less(LIKELIHOOD, arm) for arm in (CE, CE_BALANCED, DPO, NCA, KTO)),
    ),
    Claim(
        says="Differences of 2 to 5 points between losses on MATH-500; the better scorer is the worse solver",
        why="chains of sums modulo 10 are no mathematics, and three seeds do not resolve points",
    ),
)

_LEARNED = (
    CE,
    CE_BALANCED,
    DPO,
    NCA,
    KTO,
    ORM,
    ORM_BALANCED,
    COPIED,
    SOFT,
    SOFT_EQUAL,
    CE_TWO,
    DPO_TWO,
)
_IMPLICIT = tuple(arm for arm, settings in ARMS.items() if settings["kind"] == "implicit")
_STEPS = tuple(arm for arm in _LEARNED if arm not in (ORM, ORM_BALANCED))


def _rows() -> tuple[Row, ...]:
    said = (  # arms, metric, what it is
        ((ORACLE,), "pass@1", "pass@1"),
        ((ORACLE,), "best/16", "pass@16"),
        ((ORACLE,), "steps right", "share of steps that are valid"),
        ((ORACLE,), "readable", "share of responses whose steps can be judged"),
        ((VOTE,), "best/16", "16 votes"),
        ((RANDOM,), "best/16", "best of 16"),
        ((LIKELIHOOD,), "best/16", "best of 16, sum"),
        ((LIKELIHOOD,), "auc", "step AUC"),
        (_STEPS, "auc", "step AUC"),
        (_LEARNED, "best/16", "best of 16, lowest step; of the ORM, its score"),
        (_LEARNED, "steps", "steps after which it chose best on dev"),
        (_IMPLICIT, "sum", "best of 16, sum"),
        (_IMPLICIT, "free", "best of 16, sum, no reference"),
        ((COPIED, SOFT), "product", "best of 16, product"),
        ((CE, DPO, NCA, KTO), "vote/0.05", "weighted vote, c = 0.05"),
        ((CE, DPO, NCA, KTO), "vote/16", "weighted vote, c = 1"),
        ((ORM, COPIED, SOFT), "vote/16", "vote weighted by probability"),
        ((CE, DPO, NCA, KTO, COPIED, SOFT), "f1", "first-error F1, single steps"),
        ((CE, DPO, NCA, KTO), "f1/sums", "first-error F1, sums so far"),
        ((CE, DPO, NCA, KTO), "sigmoid/right", "mean sigmoid of right responses' rewards"),
        ((CE, DPO, SOFT, SOFT_EQUAL), "sampled", "tokens sampled for training"),
        ((CE, DPO, ORM, SOFT, SOFT_EQUAL), "learned", "tokens learned from, padding and passes included"),
        ((CE, DPO, SOFT_EQUAL), "examples", "different rows or pairs learned from"),
    )
    return tuple(Row(arm=arm, metric=metric, says=says) for arms, metric, says in said for arm in arms)


STUDY = Study(
    name="implicit-prm-transformer",
    title="Implicit process rewards of a small transformer: step scores from outcome labels",
    source="Yuan et al. 2024, Free Process Rewards without Process Labels, arXiv:2412.01981; chains of sums as text.",
    arms=ARMS,
    seeds=(0, 1, 2),
    fast={
        "operations": 3,
        "worked": 256,
        "passes": 4,
        "examples": 512,
        "pool": 16,
        "asked": 12,
        "prompts": 8,
        "looks": [1, 2],
        "completions": 2,
    },
    cell=cell,
    claims=CLAIMS,
    rows=_rows(),
    axis="candidates",
    notes=(
        "`P x K` is P prompts with K responses each, drawn from the reference. `balanced` drops wrong responses until "
        "there are as many right ones. Learners take 200 steps of AdamW on 64 responses (32 pairs) each, and are "
        "looked at after 50, 100 and 200: each is kept as it was when it chose best among the responses to 120 dev "
        "prompts (mean of best of 2, 4, 8 and 16), so that all have had the same chance to learn enough, and not too "
        "much.",
        "Each implicit reward's rate is of 3e-4 and 1e-3 the one with the better best-of-16 of 120 prompts on seed "
        "100, which the study does not use, after 100 steps; a balanced arm has its loss's. There no judge with a head "
        "(the ORM, the step models) chose better than at random with either, so that they have 1e-3, their heads ten "
        "times that, and were tried with more: 800 steps at 1e-3 of soft labels and of the balanced ORM, 600 at 3e-3 "
        "and at 1e-2 of the outcome copied. None chose better than at random on dev either. So a verdict over a judge "
        "with a head is one over a budget in which an implicit reward, whose score is a comparison with what the "
        "reference expects, has learned, and a head has not; nothing is said of heads that are trained to their end.",
        "A judge that has not learned to add goes by the last digit alone, and chooses the same for all prompts: it is "
        "right one time in ten, which is worse than picking at random.",
        "An earlier form of this study, with 100 steps for all and no looks, was stopped after 7 of 54 cells of seed "
        "0, which were dropped: it was not fair to judges with a head. The claims are the earlier ones, but for hard "
        "labels, which are left out for want of time, and for the words on how many steps.",
        "The chains are half as long as the table's of the study implicit-prm (4 and not 8 digits to add) and its "
        "errors more frequent (0.35 and not 0.25), so that about as many answers are right. Numbers are comparable in "
        "direction only.",
        "The reference first learns from 1000 right solutions, ten times over, and then to err, from 4000 of the "
        "generator's. From the generator's alone it takes thousands of examples more before it begins to add.",
        "Best-of-N is over all subsets of the 16 responses, votes of 16 are one. `MC soft` are Math-Shepherd's "
        "labels of every step, the share of 8 completions that are right. A prefix that several "
        "responses begin with is completed once for all, and the prompt alone is completed too, which the labels do "
        "not need; both counts are in the price. `equal tokens` is as many prompts as cost, labels included, what "
        "400 x 8 cost without.",
        "The reference errs at random and knows what is right: its own likelihood tells valid steps from others. "
        "Scores without a reference are that knowledge more than what was learned. Log-ratios start without it, at "
        "step AUC 0.5 exactly. The step model and the ORM begin with a head of zeros.",
        "Unlike a table of digits, a language model can lower all that the reference writes, in favor of what it never "
        "does. With one right response in four that is how CE begins: it learns the base rate.",
        "The rules were committed before the run on seeds 0 to 2, but after the table's results and after the runs "
        "that chose the rates on seed 100.",
    ),
)
