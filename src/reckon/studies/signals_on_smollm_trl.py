"""The bridge of the study signals-on-smollm: its signals in somebody else's loop, TRL's GRPOTrainer.

    python -m reckon.studies.signals_on_smollm_trl verdict         # GRPO, for comparison
    python -m reckon.studies.signals_on_smollm_trl format-length   # a signal that knows no answers
    python -m reckon.studies.signals_on_smollm_trl best            # that of the study's best arm

The same start, the same problems in the same order, the same budget of generated tokens and the same exams; the loop,
its sampler and its optimizer are TRL's. After each run trl/README.md compares the loops by the rule in `told`, which
was committed before the first of them. Needs TRL and datasets.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reckon.errors import InputError, MissingError
from reckon.files import write_file
from reckon.studies import signals_on_smollm as study
from reckon.studies._script import run_script
from reckon.studies._study import slug
from reckon.studies.signals_on_smollm_pages import START, ByProblem, Shares, paired
from reckon.types import Json, Metrics, Rng

if TYPE_CHECKING:
    from reckon.evaluate import Difference
    from reckon.rewards import Sum
    from reckon.rewards.adapters import TrlReward
    from reckon.studies._smollm_start import Start
    from reckon.studies._study import Settings
    from reckon.tasks import RunningSums

VERDICT, LEAVE_ONE_OUT, SURROGATE, JUDGE = "verdict", "leave-one-out", "format-length", "judge"
IMPLICIT, NOVEL = "implicit", "novel"


@dataclass(frozen=True, kw_only=True)
class Form:
    """What an arm's signal becomes where a reward is one number a response and nothing learns beside the policy."""

    arm: str
    loss: str  # TRL's `loss_type`: averages as the arm does
    scale: str  # TRL's `scale_rewards`
    differs: str = ""  # what TRL does not do as the arm does


# OREAL's weights and the step advantages, values of single tokens, have no such form.
FORMS: Mapping[str, Form] = {
    VERDICT: Form(arm=study.GRPO, loss="grpo", scale="group"),
    LEAVE_ONE_OUT: Form(arm=study.RLOO, loss="dr_grpo", scale="none"),
    SURROGATE: Form(arm=study.SURROGATE, loss="grpo", scale="group"),
    JUDGE: Form(arm=study.COOPER, loss="dapo", scale="group", differs="the judge does not learn"),
    IMPLICIT: Form(
        arm=study.PRIME,
        loss="dapo",
        scale="none",
        differs="the reward model does not learn, pays whole answers, and no group is dropped",
    ),
    NOVEL: Form(arm=study.NOVELTY, loss="grpo", scale="none", differs="novelty is that in the group alone"),
}
Marks = Mapping[str, Mapping[str, ByProblem]]  # by arm or signal and seed


def best_signal(results: Mapping[str, Json]) -> str:
    """The signal of the arm with the highest mean held-out accuracy at equal generated tokens.

    Among the arms that TRL has a place for.

    Raises:
        InputError: the study has not finished all of these arms.
    """
    left = cast("list[str]", results["not run"])
    if left:
        raise InputError(f"the study has not run {'; '.join(left)}, so nobody knows the best signal. Finish it.")
    rows = cast("list[dict[str, Json]]", results["rows"])
    found = {
        row["arm"]: cast("dict[str, float]", row["here"])["mean"] for row in rows if row["says"] == "held-out: accuracy"
    }
    return max(FORMS, key=lambda signal: found[FORMS[signal].arm])


def make_reward(signal: str, start: Start, task: RunningSums, tokenizer: object) -> TrlReward:
    """A signal as a reward function of TRL's.

    Raises:
        InputError: there is no such signal.
    """
    from transformers import PreTrainedTokenizerBase

    from reckon.rewards.adapters import to_trl

    if signal not in FORMS:
        raise InputError(f"there is no signal {signal!r}. There are {', '.join(FORMS)}.")
    group = cast("int", start.settings["group"])
    known = cast("PreTrainedTokenizerBase", tokenizer)
    return to_trl(_tree(signal, start, group), "signal", task=task, tokenizer=known, num_generations=group)


def _tree(signal: str, start: Start, group: int) -> Sum:
    from reckon.rewards import EpisodicCount, FormatLength, NormalizeThenSum, Sum, Verifier, load_judge
    from reckon.studies._smollm_exam import total

    if signal == LEAVE_ONE_OUT:  # TRL takes the group's mean off; the distance from the siblings' is so much larger
        return Sum({"correct": Verifier()}, weights={"correct": group / (group - 1)})
    if signal == SURROGATE:
        limit, p = cast("int", start.give("limit")), cast("float", start.give("p"))
        return Sum({"surrogate": FormatLength(l_max=limit, p=p, extract=total)})
    if signal == JUDGE:
        return Sum({"judge": load_judge(start.judge, dtype="float32")})
    if signal == IMPLICIT:  # as in PRIME both have a say, whatever their units
        process = load_judge(start.implicit, per="response", how="mean", dtype="float32")
        return Sum({"both": NormalizeThenSum(parts={"correct": Verifier(), "process": process})})
    if signal == NOVEL:  # the bonus is added to what is normalized already
        normalized = NormalizeThenSum(parts={"correct": Verifier()}, whiten=False)
        return Sum({"correct": normalized, "novel": EpisodicCount()}, weights={"novel": 0.1})
    return Sum({"correct": Verifier()})


def train_in_trl(signal: str, settings: Settings, seed: int) -> dict[str, Json]:
    """Trains the study's start with one signal in TRL's GRPOTrainer, and lets it sit the study's exams.

    Args:
        signal: one of `FORMS`.
        settings: of any arm of the study; what all have in common is read.
        seed: of the order of problems, as in the study's arms, and of TRL's draws.

    Returns:
        The marks before and after by exam, the paired gain, the share of right samples by problem, what was generated,
        and minutes.

    Raises:
        MissingError: TRL or datasets is not installed.
    """
    from reckon.models import LanguageModel, Sampling
    from reckon.studies._smollm_start import Start

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(signal, settings, seed, folder)
        began = time.perf_counter()
        trainer.train()
        minutes = (time.perf_counter() - began) / 60
    history = trainer.state.log_history
    lines = [line for line in history if "loss" in line]
    sampling = Sampling(max_new_tokens=cast("int", settings["limit"]))
    policy = LanguageModel(trainer.model, trainer.processing_class, sampling=sampling, dtype="float32")
    return {
        "signal": signal,
        "seed": seed,
        "steps": len(lines),
        "trl": str(importlib.import_module("trl").__version__),
        "minutes": round(minutes, 2),
        "generated": round(_generated(history, settings)),
        "rewards": [line["reward"] for line in lines],
        **_examined(policy, Start.of(settings)),
    }


def make_trainer(signal: str, settings: Settings, seed: int, folder: str, **more: object) -> Any:
    """TRL's GRPOTrainer with the start, the arm's problems and its settings, ending where the arm is read.

    Args:
        signal: one of `FORMS`.
        settings: of any arm of the study.
        seed: of the order of problems and of TRL's draws.
        folder: TRL's own.
        more: of the trainer.

    Raises:
        MissingError: TRL or datasets is not installed.
    """
    try:
        trl, datasets = (importlib.import_module(name) for name in ("trl", "datasets"))
    except ImportError as error:
        raise MissingError("the bridge trains with TRL: pip install 'trl>=1.16' datasets") from error
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

    from reckon.studies import _smollm_exam as exam
    from reckon.studies._smollm_start import TRAINED, Start

    class Ends(TrainerCallback):  # type: ignore[misc]
        """Ends the run where the study's arms are read: after the step that uses the budget up."""

        def on_log(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: object
        ) -> None:
            spent = _generated(state.log_history, settings)
            control.should_training_stop |= spent >= cast("int", settings["generated"])

    start = Start.of(settings)
    sums = cast("Mapping[str, object]", settings["sums"])
    task = exam.make_task(sums, seed=TRAINED, train=cast("int", settings["problems"]))
    tokenizer = AutoTokenizer.from_pretrained(str(start.policy))
    count = cast("int", settings["most"]) * cast("int", settings["prompts"])
    rows = rows_for(task, seed, count, chat=tokenizer.chat_template is not None)
    return trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(str(start.policy), dtype="float32"),
        processing_class=tokenizer,
        reward_funcs=make_reward(signal, start, task, tokenizer),
        train_dataset=datasets.Dataset.from_list(rows),
        callbacks=[Ends()],
        args=trl.GRPOConfig(output_dir=folder, **_arguments(FORMS[signal], settings), seed=seed),
        **more,
    )


def _generated(history: Sequence[Mapping[str, float]], settings: Settings) -> float:
    """Tokens that the steps of TRL's log have generated."""
    answers = cast("int", settings["prompts"]) * cast("int", settings["group"])
    return sum(line.get("completions/mean_length", 0.0) for line in history) * answers


def _arguments(form: Form, settings: Settings) -> dict[str, object]:
    """Of TRL's GRPOConfig: the arm's, where it has a name for it."""
    prompts, group, limit = (cast("int", settings[key]) for key in ("prompts", "group", "limit"))
    # TRL divides this sum over tokens by the limit, so the gradient that is clipped at 1 is smaller by it, and so is
    # what Adam compares with its epsilon.
    smaller = limit if form.loss == "dr_grpo" else 1
    return {
        "max_steps": settings["most"],
        "per_device_train_batch_size": group,
        "gradient_accumulation_steps": prompts,
        "num_generations": group,
        "shuffle_dataset": False,
        "max_completion_length": limit,
        "temperature": 1.0,
        "learning_rate": settings["lr"],
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-8 / smaller,
        "max_grad_norm": 1.0 / smaller,
        "loss_type": form.loss,
        "scale_rewards": form.scale,
        "beta": 0.0,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "bf16": False,
        "disable_tqdm": True,
    }


def rows_for(task: RunningSums, seed: int, count: int, *, chat: bool) -> list[dict[str, Json]]:
    """The problems that the study's arms pose, in their order, as rows of TRL.

    Args:
        task: poses them.
        seed: of the arm.
        count: of problems.
        chat: whether the policy has a template for conversations, so that a row must be one.
    """
    from reckon.rewards.adapters import rows_of
    from reckon.samplers import Uniform

    rows = {row["id"]: row for row in rows_of(task, "train")}
    first = Rng((seed, 0)).child("draw", 0)  # the loop's first draw, to which the order of all belongs
    drawn = [rows[problem.id] for problem in Uniform(task).draw(count, first)]
    return [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in drawn] if chat else drawn


def _examined(policy: object, start: Start) -> dict[str, Json]:
    from reckon.evaluate import Answers
    from reckon.studies import _smollm_exam as exam

    samples = cast("int", start.settings["samples"])
    before: dict[str, Metrics] = {}
    after: dict[str, Metrics] = {}
    shares: dict[str, ByProblem] = {}
    for name in exam.EXAMS:
        task = exam.exam_task(start.settings, name)
        found, at_first = exam.sit(cast("Answers", policy), task, samples), start.sat(name)
        gain = exam.gained(at_first, found, samples)
        before[name] = exam.marks(at_first, task)
        after[name] = {**exam.marks(found, task), "gain": gain.mean, "gain error": gain.error}
        shares[name] = exam.shares(found, samples)
    return cast("dict[str, Json]", {"before": before, "after": after, "shares": shares})


def told(own: Difference, theirs: Difference, loops: Sequence[Difference]) -> str:
    """What tells two policies apart, the signal or the loop.

    Args:
        own: one signal less the verdict, in this library's loop.
        theirs: the same in TRL's.
        loops: TRL's loop less this one, with either signal.

    Returns:
        "the signal": in both loops the signals lie two standard errors apart, on the same side. "the loop": with one
        of the signals the loops do. "both" where both is so, and "neither is seen".
    """
    signal = _seen(own) and _seen(theirs) and own.mean * theirs.mean > 0
    loop = any(map(_seen, loops))
    if signal and loop:
        return "both"
    return "the signal" if signal else "the loop" if loop else "neither is seen"


def _seen(found: Difference) -> bool:
    return abs(found.mean) >= 2 * found.error and found.mean != 0  # never by an error that is not a number


def loops_compared(ours: Shares, runs: Sequence[Mapping[str, Json]], cells: Mapping[tuple[str, int], Metrics]) -> str:
    """A page: each signal in either loop, less the start, less the verdict, and loop less loop.

    Args:
        ours: share of right samples by exam, arm, seed and problem; see `signals_on_smollm_pages`.
        runs: what `train_in_trl` has found.
        cells: what the study measured, by arm and seed.
    """
    lines = [
        "# The same signals in TRL's loop",
        "",
        "From one start, on the same problems in the same order, until as many tokens are generated. Share of right",
        "samples, paired by problem; ± is the standard error over problems, which leaves out how much one run of a",
        "loop differs from the next. What tells apart: *the signal* where the signals lie two errors apart in both",
        "loops, on the same side; *the loop* where with one of the two signals the loops do.",
        "",
        "Written by `python -m reckon.studies.signals_on_smollm_trl`.",
        "",
        "| signal | arm | seed | steps, TRL | tokens, TRL | reckon | minutes, TRL | reckon | TRL does otherwise |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    theirs: dict[str, dict[str, dict[str, ByProblem]]] = {}
    for run in runs:
        signal, seed = str(run["signal"]), cast("int", run["seed"])
        form, cell = FORMS[signal], cells[FORMS[signal].arm, seed]
        mine = f"{cell['generated/spent/generated']:,.0f}", f"{cell['minutes']:.1f}"
        lines.append(
            f"| {signal} | {form.arm} | {seed} | {run['steps']} | {run['generated']:,} | {mine[0]} | "
            f"{run['minutes']:.1f} | {mine[1]} | {form.differs} |"
        )
        for exam, by_problem in cast("dict[str, ByProblem]", run["shares"]).items():
            theirs.setdefault(exam, {}).setdefault(signal, {})[str(seed)] = by_problem
    for exam, signals in theirs.items():
        lines += [
            "",
            f"## {exam}",
            "",
            "| signal | TRL less the start | reckon less the start | TRL less reckon | less the verdict, TRL "
            "| less the verdict, reckon | what tells apart |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(signal, signals, ours[exam]) for signal in FORMS if signal in signals]
    return "\n".join(lines) + "\n"


def _row(signal: str, theirs: Marks, ours: Marks) -> str:
    in_trl, arm = theirs[signal], {seed: ours[FORMS[signal].arm][seed] for seed in theirs[signal]}
    loop = paired(in_trl, arm)
    found = [paired(in_trl, ours[START]), paired(arm, ours[START]), loop]
    said = ""
    both = {seed: marks for seed, marks in theirs.get(VERDICT, {}).items() if seed in in_trl}
    if signal != VERDICT and both:
        grpo = {seed: ours[study.GRPO][seed] for seed in both}
        found += [paired(in_trl, both), paired(arm, grpo)]
        said = told(found[4], found[3], [loop, paired(both, grpo)])
    cells = [f"{one.mean:+.3f} ± {one.error:.3f}" for one in found] + [""] * (5 - len(found))
    return f"| {' | '.join([signal, *cells, said])} |"


def _study_of(out: Path) -> tuple[dict[str, Json], Shares]:
    """What the study and its pages have written.

    Raises:
        MissingError: one of them has not.
    """
    needs = {
        "results.json": f"reckon study signals-on-smollm --out {out}",
        "by-problem.json": f"python -m reckon.studies.signals_on_smollm_pages {out}",
    }
    for name, command in needs.items():
        if not (out / name).is_file():
            raise MissingError(f"there is no {out / name}, so there is nothing to compare with. Run `{command}` first.")
    results, shares = (json.loads((out / name).read_text(encoding="utf-8")) for name in needs)
    return results, shares


def _cell(out: Path, arm: str, seed: int) -> Metrics:
    path = out / "cells" / f"{slug(arm)}-seed-{seed}.json"
    if not path.is_file():
        raise MissingError(f"the study in {out} has not run {arm} with seed {seed}, so nothing can be compared.")
    return cast("Metrics", json.loads(path.read_text(encoding="utf-8"))["metrics"])


def main(arguments: Sequence[str] | None = None) -> dict[str, Json]:
    """Trains, writes trl/SIGNAL-seed-N.json and trl/README.md into the study's folder, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("signal", choices=[*FORMS, "best"])
    parser.add_argument("--out", type=Path, default=Path("results/signals-on-smollm"), help="the study's folder")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    results, shares = _study_of(asked.out)
    signal = best_signal(results) if asked.signal == "best" else asked.signal
    _cell(asked.out, FORMS[signal].arm, asked.seed)  # told before the training
    place = asked.out / "trl" / f"{signal}-seed-{asked.seed}.json"
    if not place.exists():
        settings = cast("dict[str, Settings]", results["settings"])[study.GRPO]
        write_file(place, (json.dumps(train_in_trl(signal, settings, asked.seed), indent=1) + "\n").encode())
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.parent.glob("*.json"))]
    pairs = [(FORMS[run["signal"]].arm, run["seed"]) for run in found]
    cells = {(arm, seed): _cell(asked.out, arm, seed) for arm, seed in pairs}
    page = place.parent / "README.md"
    write_file(page, loops_compared(shares, found, cells).encode())
    trained: dict[str, Json] = json.loads(place.read_text(encoding="utf-8"))
    after = cast("dict[str, Metrics]", trained["after"])["held-out"]
    sys.stdout.write(
        f"{signal}, seed {asked.seed}: held-out accuracy {after['accuracy']:.3f}, gain {after['gain']:+.3f} ± "
        f"{after['gain error']:.3f} over problems, {trained['steps']} steps of TRL {trained['trl']}; {place}, {page}\n"
    )
    return trained


if __name__ == "__main__":
    run_script(main)
