r"""Section 5b of the specification surrogate-rewards: Xin et al. 2025 (arXiv:2505.19439) on a tiny language model.

A transformer of two layers is shown sums of three digits, worked and boxed, and written in five ways of which one is
right in all; then it trains by GRPO on rewards that need the answer, or only a box, or a box and a length. The control
has seen the same five ways with numbers of chance in them, and cannot add.

All arms share model, loop, rate and budget: GRPO divides a reward by its spread in the group, so that one rate serves
all, and one was tried, 3e-4, with the arms for correctness and for format and length alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import End, Json, Metrics, Rng, Split

if TYPE_CHECKING:
    from reckon.models import LanguageModel
    from reckon.studies._boxed_sums import BoxedSums
    from reckon.studies._language_model import Start

STEPS, EARLY = 60, 20
PROMPTS, ANSWERS = 16, 8  # a step
TEMPERATURE, KL, RATE = 0.8, 0.001, 3e-4
EVERY = 5  # steps between two exams
LAST = 6  # exams that the end is the mean of
WIDTH, CONTEXT = 96, 72  # 6 tokens of a prompt, 64 of a response

# What each arm's reward is, as a recipe writes it. The verdict is watched where it is no reward.
REWARDS: Mapping[str, dict[str, Json]] = {
    "correctness": {"correct": {"kind": "verifier"}},
    "format": {"format": {"kind": "format", "weight": 0.5}},
    "format-length": {"format_length": {"kind": "format_length", "l_max": 64, "p": 0.5, "weight": 0.5}},
    "correctness+linear": {
        "correct": {"kind": "verifier"},
        "length": {"kind": "length", "l_max": 64, "shape": "linear"},
    },
}


def cell(settings: Settings, seed: int) -> Measured:
    """One arm: GRPO from the taught model, examined on held-out sums on the way."""
    from reckon.studies import _boxed_sums as sums
    from reckon.studies._language_model import run

    test, steps, every = (cast("int", settings[name]) for name in ("test", "steps", "every"))
    shown = (cast("int", settings["worked"]), cast("int", settings["mixed"]))
    start = taught(seed, test, bool(settings["able"]), *shown)
    task = sums.BoxedSums(seed=seed, test=test)
    recipe: dict[str, Json] = {
        "method": {"kind": "grpo", "kl": KL},
        "task": {"kind": f"{sums.__file__}:BoxedSums", "seed": seed, "test": test},
        "reward": REWARDS[cast("str", settings["reward"])],
        "advantage": {"kind": "group_normalized", "std": settings["divided"]},
        "sampling": {"max_new_tokens": sums.LIMIT, "temperature": TEMPERATURE},
        "optimizer": {"lr": settings["lr"]},
        "steps": steps,
        "prompts": settings["prompts"],
        "answers": ANSWERS,
    }
    split = cast("Split", settings["split"])
    done = run(recipe, start, seed, examine=lambda model, _, __: look(model, task, seed, split), every=every)
    curves = {name: list(done.curve(f"exam/{name}").values()) for name in LOOKED}
    at = list(done.curve("exam/accuracy"))
    metrics: dict[str, float] = {}
    for name, curve in curves.items():
        metrics[f"{name}/0"] = curve[0]
        metrics[f"{name}/early"] = dict(zip(at, curve, strict=True))[min(EARLY, steps)]
        metrics[f"{name}/end"] = _mean(curve[1:][-LAST:])
    metrics["tokens"] = sum(done.curve("tokens/generated").values()) / 1000
    told = {name: curves[name] for name in ("accuracy", "formatted", "length", "truncated", "entropy")}
    return Measured(metrics=metrics, curves={"step": [float(step) for step in at], **told})


@lru_cache(maxsize=1)
def taught(seed: int, test: int, able: bool, worked: int, mixed: int) -> Start:
    """The model that all arms of a seed begin with: shown clean responses first, then the five ways in their shares.

    Args:
        seed: of the sums' splits, the weights and the texts.
        test: held-out sums; none of them is shown.
        able: False: the control, whose texts have numbers of chance for results.
        worked: clean responses.
        mixed: responses in all ways.
    """
    from reckon.models import tiny
    from reckon.studies import _boxed_sums as sums
    from reckon.studies._language_model import Lesson, teach

    problems = sums.BoxedSums(seed=seed, test=test).problems("train")
    rng = Rng((seed, "surrogate-transformer"))  # the same for both: what they are shown differs in numbers alone
    lessons = []
    for name, count, ways in (("worked", worked, {"clean": 1.0}), ("mixed", mixed, sums.SHARES)):
        chosen, texts, ended = sums.shown(
            problems, count, cast("Mapping[sums.Way, float]", ways), rng.child(name), able=able
        )
        lessons.append(Lesson(problems=chosen, texts=texts, ended=ended))
    network = tiny.make_network(width=WIDTH, context=CONTEXT, seed=rng.child("weights").integer())
    return teach(lessons, rng, max_new_tokens=sums.LIMIT, lr=1e-3, network=network)


LOOKED = ("accuracy", "formatted", "length", "truncated", "entropy", "working", "direct", "commonest")


def look(model: LanguageModel, task: BoxedSums, seed: int, split: Split) -> Metrics:
    """One response to each held-out sum, drawn at the model's temperature with the same numbers in all arms.

    Returns:
        "exam/" and: "accuracy"; "formatted", the share that ends with a readable box; "length" in tokens; "truncated";
        "entropy", estimated by the mean of -log-prob of the drawn tokens, in nats; "working", the share of right steps
        among the responses that show both; "direct", the share that shows no step; "commonest", the share of the answer
        given most often.
    """
    from reckon.evaluate import evaluate
    from reckon.rewards import Format
    from reckon.studies._boxed_sums import working

    asked = Format(weight=1.0)
    found = evaluate(model, task, rng=Rng((seed, "exam")), split=split, k=1, greedy=False, reward=asked).responses
    problems = {problem.id: problem for problem in task.problems(split)}
    ended = [response.end != End.LENGTH.name.lower() for response in found]
    shown = [working(problems[response.problem], response.text) for response in found]
    lengths = [len(response.tokens) for response in found]
    answers = Counter(response.parsed for response in found if response.parsed is not None)
    numbers = {
        "accuracy": _mean([float(response.outcome == 1) for response in found]),
        "formatted": _mean([response.streams["format"] or 0.0 for response in found]),
        "length": _mean([float(length) for length in lengths]),
        "truncated": 1 - _mean([float(over) for over in ended]),
        "entropy": -sum(sum(response.logprobs) for response in found) / sum(lengths),
        "working": _mean([float(right) for right in shown if right is not None]),
        "direct": _mean([float("=" not in response.text) for response in found]),
        "commonest": max(answers.values(), default=0) / len(found),
    }
    return {f"exam/{name}": numbers[name] for name in LOOKED}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


CORRECT, FORMAT, LINEAR = "correctness", "format only", "correctness + linear length"
SURROGATE, CENTERED = "format-length", "format-length, not divided by the spread"
BAD_FORMAT, BAD_SURROGATE = "cannot add: format only", "cannot add: format-length"


def _arm(reward: str, *, able: bool = True, divided: bool = True) -> dict[str, Json]:
    return {
        "reward": reward,
        "able": able,
        "divided": divided,
        "worked": 9600,
        "mixed": 6400,
        "test": 200,
        "split": "test",
        "lr": RATE,
        "steps": STEPS,
        "prompts": PROMPTS,
        "every": EVERY,
    }


ARMS: dict[str, dict[str, Json]] = {
    CORRECT: _arm("correctness"),
    FORMAT: _arm("format"),
    SURROGATE: _arm("format-length"),
    CENTERED: _arm("format-length", divided=False),
    LINEAR: _arm("correctness+linear"),
    BAD_FORMAT: _arm("format", able=False),
    BAD_SURROGATE: _arm("format-length", able=False),
}

SAYS = {
    "accuracy/0": "accuracy at the start",
    "accuracy/early": f"accuracy at step {EARLY}",
    "accuracy/end": f"accuracy, mean of the last {LAST} exams",
    "formatted/0": "well-formed at the start",
    "formatted/end": f"well-formed, mean of the last {LAST} exams",
    "length/0": "tokens at the start",
    "length/end": f"tokens, mean of the last {LAST} exams",
    "truncated/0": "cut off at the start",
    "truncated/end": f"cut off, mean of the last {LAST} exams",
    "entropy/end": f"entropy a token, nats, mean of the last {LAST} exams",
    "working/0": "right working at the start, of the responses that show it",
    "working/end": f"right working, mean of the last {LAST} exams",
    "direct/end": f"answers without working, mean of the last {LAST} exams",
    "commonest/end": f"share of the commonest answer, mean of the last {LAST} exams",
    "tokens": "tokens generated in training, thousands",
}


def _less(arm: str, other: str, metric: str, least: float = 0.0, within: float | None = None) -> Effect:
    return less(arm, other, metric, says=SAYS[metric], least=least, within=within)


def _gain(found: ByArm, arm: str, metric: str = "accuracy", until: str = "end") -> float:
    return found[arm][f"{metric}/{until}"] - found[arm][f"{metric}/0"]


def _gains(arm: str, metric: str, until: str = "end", least: float = 0.0, within: float | None = None) -> Effect:
    return Effect(
        says=f"{SAYS[f'{metric}/{until}']} less that at the start: {arm}",
        of=lambda found: _gain(found, arm, metric, until),
        least=least,
        within=within,
    )


def _beyond(arm: str, metric: str, bound: float, sign: int = 1) -> Effect:
    less = f"{SAYS[metric]} less {bound:g}" if sign > 0 else f"{bound:g} less {SAYS[metric]}"
    return Effect(says=f"{less}: {arm}", of=lambda found: sign * (found[arm][metric] - bound))


def _no_rise(arm: str, metric: str, what: str) -> Effect:
    return Effect(says=f"0.1 less the rise of {what}: {arm}", of=lambda found: 0.1 - _gain(found, arm, metric))


_SHORTCUTS = (("commonest", "the commonest answer's share"), ("direct", "answers without working"))

CLAIMS = (
    Claim(
        says="The model can do more than it shows: right in 40 to 55% of its answers, in over 75% of its working",
        effects=(
            _beyond(CORRECT, "accuracy/0", 0.4),
            _beyond(CORRECT, "accuracy/0", 0.55, sign=-1),
            _beyond(CORRECT, "working/0", 0.75),
        ),
    ),
    Claim(
        says=f"Format only has at least half of correctness's gain by step {EARLY}",
        effects=(
            _gains(CORRECT, "accuracy", "early", 0.05),
            Effect(
                says=f"gain by step {EARLY}: {FORMAT} less half of {CORRECT}",
                of=lambda found: _gain(found, FORMAT, until="early") - 0.5 * _gain(found, CORRECT, until="early"),
            ),
        ),
    ),
    Claim(
        says="Format-length ends within 5 points of correctness",
        effects=(_less(SURROGATE, CORRECT, "accuracy/end", within=0.05),),
    ),
    Claim(
        says="Format only gains, and what it teaches is to end in one box",
        effects=(_gains(FORMAT, "accuracy", least=0.05), _gains(FORMAT, "formatted", least=0.1)),
    ),
    Claim(
        says="Format-length is hacked: a token more pays, and in the end all sums get one answer",
        effects=(_gains(SURROGATE, "commonest", least=0.3), _less(FORMAT, SURROGATE, "accuracy/end", least=0.2)),
    ),
    Claim(
        says="It is the division by the group's spread that makes a token more count: without it accuracy is kept",
        effects=(_less(CENTERED, SURROGATE, "accuracy/end", least=0.2), _no_rise(CENTERED, *_SHORTCUTS[0])),
    ),
    Claim(
        says="Without the division, length adds what format alone does not ask for: to stop behind the box",
        effects=(
            _less(FORMAT, CENTERED, "length/end", least=3),
            _less(CENTERED, FORMAT, "accuracy/end", least=0.05),
        ),
    ),
    Claim(
        says="A linear length reward beside correctness drifts long, and costs accuracy",
        effects=(_less(LINEAR, CORRECT, "length/end", least=10), _less(CORRECT, LINEAR, "accuracy/end", least=0.05)),
    ),
    Claim(
        says="Who cannot add learns the format from surrogates as well, and gains nothing by it",
        effects=tuple(
            effect
            for arm in (BAD_FORMAT, BAD_SURROGATE)
            for effect in (_gains(arm, "formatted", least=0.1), _gains(arm, "accuracy", within=0.03))
        ),
    ),
    Claim(
        says="Format only takes no shortcut: neither an answer for all sums nor boxes without working",
        effects=tuple(_no_rise(FORMAT, metric, what) for metric, what in _SHORTCUTS),
    ),
    Claim(
        says="Gains as on competition mathematics, emergent reflection, transfer between model families",
        why="sums of three digits have none of them",
    ),
)

STUDY = Study(
    name="surrogate-transformer",
    title="Surrogate rewards of a small transformer: format and length instead of answers",
    source="Xin et al. 2025, Surrogate Signals from Format and Length, arXiv:2505.19439; sums of three digits as text.",
    arms=ARMS,
    seeds=(0, 1, 2),
    fast={"worked": 64, "mixed": 64, "test": 12, "steps": 1, "prompts": 2, "every": 1},
    cell=cell,
    claims=CLAIMS,
    rows=tuple(Row(arm=arm, metric=metric, says=says) for arm in ARMS for metric, says in SAYS.items()),
    notes=(
        "The model is shown 9600 clean responses and then 6400 in five ways: 45% clean, 20% clean with another sum "
        "behind the box, 15% without a box, 10% guesses (60% of them wrong), 10% that repeat a step up to the limit. "
        "None of the 200 held-out sums is among them; their digits in another order may be.",
        "The specification would stop teaching at a greedy accuracy of 40 to 55%. The likeliest response to a sum is "
        "the clean one long before that, so that greedy answers show nothing of the other ways; here accuracy is that "
        f"of one response a sum, drawn at the temperature of training, {TEMPERATURE}, and the amount shown is fixed.",
        "Who cannot add has seen the same ways in the same shares, with a number of chance for every result. Ability "
        "is all that it lacks.",
        "p = 0.5, 32 of 64 tokens, is the paper's. Of the well-formed responses that are shown the 60th percentile has "
        "25 tokens and the 80th about 55, so that it lies where a user who looked at lengths alone would put it; a "
        "worked answer has 22 to 26, for sums differ in their digits.",
        "On seed 100, which the study does not use, format-length first gained and then, by step 20 to 30, fell below "
        "its start: with p = 0.4 nearly all answers were 11, which is a digit longer than 9. Once all are well-formed "
        "the spread in a group is that of a few tokens, and GRPO makes it 1. Hence the arm without that division, and "
        "the claims about both; the specification's own expectation, 5 points within correctness, stands beside them.",
        "`truncated` responses count as right where their last box is; as well-formed only those that end.",
        "GRPO as in the specification: 16 sums with 8 responses a step, clip 0.2, k3 penalty 0.001, one update a step. "
        "The end is a mean of six exams, never the best. There are 60 steps, not 100: at this rate the correctness "
        "arm is done by then (all but one in a hundred right after 20, on seed 100).",
        "Tuning: one rate was tried, 3e-4, on seed 100, with the arms for correctness and for format and length; all "
        "arms have it.",
        "The rules were committed before the run on seeds 0 to 2.",
    ),
)
