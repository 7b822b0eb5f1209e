"""The bridge of the study signals-on-smollm: one of its signals in somebody else's loop, TRL's GRPOTrainer.

    python -m reckon.studies.signals_on_smollm_trl best --seed 0
    python -m reckon.studies.signals_on_smollm_trl verdict --seed 0

The same start, the same problems, the same exams; the loop, its sampler and its optimizer are TRL's. If signals come
out in TRL in the order in which they came out here, it is the signal that makes the difference. Needs TRL and datasets.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from reckon.errors import InputError, MissingError
from reckon.files import write_file
from reckon.studies import signals_on_smollm as study
from reckon.types import Json, Metrics

if TYPE_CHECKING:
    from reckon.rewards.adapters import TrlReward
    from reckon.studies._smollm_start import Start
    from reckon.studies._study import Settings
    from reckon.tasks import RunningSums

VERDICT, SURROGATE, JUDGE, IMPLICIT, NOVEL = "verdict", "format-length", "judge", "implicit", "novel"
# What an arm's signal becomes where a reward is one number a response and nothing learns beside the policy. OREAL's
# weights and the step advantages, values of single tokens, have no such form.
OF_ARM: Mapping[str, str] = {
    study.GRPO: VERDICT,
    study.RLOO: VERDICT,
    study.PRIME: IMPLICIT,
    study.SURROGATE: SURROGATE,
    study.NOVELTY: NOVEL,
    study.COOPER: JUDGE,
}
SIGNALS = tuple(dict.fromkeys(OF_ARM.values()))
STEPS = 12  # of 32 answers


def best_signal(results: Mapping[str, Json]) -> str:
    """The signal of the arm with the highest mean held-out accuracy at equal generated tokens.

    Among the arms that TRL has a place for. The verdict is compared with in any case: where it is the best itself,
    `format-length` is the other one to run.

    Raises:
        InputError: the study has not finished all of these arms.
    """
    rows = cast("list[dict[str, Json]]", results["rows"])
    found = {
        str(row["arm"]): cast("dict[str, float]", row["here"])["mean"]
        for row in rows
        if row["says"] == "held-out accuracy" and row["arm"] in OF_ARM
    }
    missing = [arm for arm in OF_ARM if found.get(arm) is None]
    if missing:
        raise InputError(f"the study has no accuracy of {', '.join(missing)}, so nobody knows the best. Finish it.")
    return OF_ARM[max(found, key=lambda arm: found[arm])]


def make_reward(signal: str, start: Start, task: RunningSums, tokenizer: object) -> TrlReward:
    """A signal as a reward function of TRL's.

    Raises:
        InputError: there is no such signal.
    """
    from transformers import PreTrainedTokenizerBase

    from reckon.rewards import EpisodicCount, FormatLength, NormalizeThenSum, Sum, Verifier, load_judge
    from reckon.rewards.adapters import to_trl
    from reckon.studies._smollm_exam import total

    if signal == VERDICT:
        reward = Sum({"correct": Verifier()})
    elif signal == SURROGATE:
        limit, p = cast("int", start.give("limit")), cast("float", start.give("p"))
        reward = Sum({"surrogate": FormatLength(l_max=limit, p=p, extract=total)})
    elif signal == JUDGE:
        reward = Sum({"judge": load_judge(start.judge, dtype="float32")})
    elif signal == IMPLICIT:  # as in PRIME both have a say, whatever their units
        process = load_judge(start.implicit, per="response", how="mean", dtype="float32")
        reward = Sum({"both": NormalizeThenSum(parts={"correct": Verifier(), "process": process})})
    elif signal == NOVEL:
        reward = Sum({"correct": Verifier(), "novel": EpisodicCount()}, weights={"novel": 0.1})
    else:
        raise InputError(f"there is no signal {signal!r}. There are {', '.join(SIGNALS)}.")
    known = cast("PreTrainedTokenizerBase", tokenizer)
    return to_trl(reward, "signal", task=task, tokenizer=known, num_generations=cast("int", _group(start)))


def train_in_trl(signal: str, settings: Settings, seed: int, steps: int = STEPS) -> dict[str, Json]:
    """Trains the study's start with one signal in TRL's GRPOTrainer, and lets it sit the study's exams.

    Args:
        signal: one of `SIGNALS`.
        settings: of any arm of the study; what all have in common is read.
        seed: of the order of problems and of the draws.
        steps: of the optimizer, with as many answers each as in the study.

    Returns:
        The marks before and after by exam, the paired gain, tokens generated and minutes.

    Raises:
        MissingError: TRL or datasets is not installed.
    """
    try:
        trl, datasets = (importlib.import_module(name) for name in ("trl", "datasets"))
    except ImportError as error:
        raise MissingError("the bridge trains with TRL: pip install 'trl>=1.16' datasets") from error
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from reckon.models import LanguageModel, Sampling
    from reckon.studies import _smollm_exam as exam
    from reckon.studies._smollm_start import TRAINED, Start

    start = Start.of(settings)
    prompts, group, limit = (cast("int", settings[key]) for key in ("prompts", "group", "limit"))
    sums = cast("Mapping[str, object]", settings["sums"])
    task = exam.make_task(sums, seed=TRAINED, train=min(steps * prompts, cast("int", settings["problems"])))
    tokenizer = AutoTokenizer.from_pretrained(str(start.policy))
    network = AutoModelForCausalLM.from_pretrained(str(start.policy), dtype="float32")
    reward = make_reward(signal, start, task, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.GRPOTrainer(
            model=network,
            processing_class=tokenizer,
            reward_funcs=reward,
            train_dataset=datasets.Dataset.from_list(rows_for(task, chat=tokenizer.chat_template is not None)),
            args=trl.GRPOConfig(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=group,
                gradient_accumulation_steps=prompts,
                num_generations=group,
                max_completion_length=limit,
                temperature=1.0,
                learning_rate=cast("float", settings["lr"]),
                lr_scheduler_type="constant",
                adam_beta2=0.95,
                max_grad_norm=1.0,
                loss_type="grpo",
                beta=0.0,
                seed=seed,
                gradient_checkpointing=False,
                logging_steps=1,
                report_to="none",
                save_strategy="no",
                bf16=False,
                disable_tqdm=True,
            ),
        )
        began = time.perf_counter()
        trainer.train()
        minutes = (time.perf_counter() - began) / 60
    lines = [line for line in trainer.state.log_history if "loss" in line]
    policy = LanguageModel(trainer.model, tokenizer, sampling=Sampling(max_new_tokens=limit), dtype="float32")
    return {
        "signal": signal,
        "seed": seed,
        "steps": steps,
        "trl": str(trl.__version__),
        "minutes": round(minutes, 2),
        "generated": sum(line["completions/mean_length"] for line in lines) * prompts * group,
        "rewards": [line["reward"] for line in lines],
        **_examined(policy, start),
    }


def rows_for(task: RunningSums, *, chat: bool) -> list[dict[str, Json]]:
    """The training problems as rows of TRL, as a conversation where the policy has a template for it."""
    from reckon.rewards.adapters import rows_of

    rows = rows_of(task, "train")
    return [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows] if chat else rows


def _examined(policy: object, start: Start) -> dict[str, Json]:
    from reckon.evaluate import Answers
    from reckon.studies import _smollm_exam as exam

    samples = cast("int", start.settings["samples"])
    before: dict[str, Metrics] = {}
    after: dict[str, Metrics] = {}
    for name in exam.EXAMS:
        task = exam.exam_task(start.settings, name)
        found, at_first = exam.sit(cast("Answers", policy), task, samples), start.sat(name)
        gain = exam.gained(at_first, found, samples)
        before[name] = exam.marks(at_first, task)
        after[name] = {**exam.marks(found, task), "gain": gain.mean, "gain error": gain.error}
    return cast("dict[str, Json]", {"before": before, "after": after})


def _group(start: Start) -> Json:
    return start.settings["group"]


def main(arguments: Sequence[str] | None = None) -> dict[str, Json]:
    """Trains, writes trl/SIGNAL-seed-N.json into the study's folder, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("signal", choices=[*SIGNALS, "best"])
    parser.add_argument("--out", type=Path, default=Path("results/signals-on-smollm"), help="the study's folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--fast", action="store_true", help="the tiny model of the study's --fast form")
    asked = parser.parse_args(arguments)
    signal = asked.signal
    if signal == "best":
        path = asked.out / "results.json"
        if not path.is_file():
            raise MissingError(f"there is no {path}, so nobody knows the best signal. Run the study, or name a signal.")
        signal = best_signal(json.loads(path.read_text(encoding="utf-8")))
    place = asked.out / "trl" / f"{signal}-seed-{asked.seed}{'-fast' if asked.fast else ''}.json"
    if not place.exists():
        settings = {**study.ARMS[study.GRPO], **(study.STUDY.fast if asked.fast else {})}
        found = train_in_trl(signal, settings, asked.seed, asked.steps)
        write_file(place, (json.dumps(found, indent=1) + "\n").encode())
    told: dict[str, Json] = json.loads(place.read_text(encoding="utf-8"))
    after = cast("dict[str, Metrics]", told["after"])["held-out"]
    sys.stdout.write(
        f"{signal}, seed {asked.seed}: held-out accuracy {after['accuracy']:.3f}, gain {after['gain']:+.3f} ± "
        f"{after['gain error']:.3f} over problems, {told['steps']} steps of TRL {told['trl']}; {place}\n"
    )
    return told


if __name__ == "__main__":
    main()
