"""Runs a study cell by cell and leaves a folder that tells what came of it."""

from __future__ import annotations

import importlib
import importlib.util
import json as jsonlib
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from reckon import __version__
from reckon.errors import InputError, MissingError, RunError
from reckon.files import write_file
from reckon.studies._claims import ByArm, Judged, judge
from reckon.studies._report import draw, markdown, mean_and_error
from reckon.studies._study import Measured, Pool, Settings, Study, slug
from reckon.types import Json, Rng

STUDIES: Mapping[str, str] = {
    "cooper": "A judge hacked, and one that learns from what a rule is sure of, on a table of six actions",
    "cooper-judge": "A judge that is shown the reference answer: imperfect labels, a poisoned phrase, corrupted pairs",
    "cooper-transformer": "The same hack as text: a rule, a judge that stays as it is, and one that learns on",
    "domain-sampling": "Which domain to draw from next, on a bandit of eight domains, counted in rollouts",
    "domain-sampling-transformer": "The same by a transformer, on questions about rules, and one step further",
    "exploration-bonuses": "Counts of what is new, in the run, in the episode and their product, on mazes that differ",
    "exploration-bonuses-learned": "The same by networks: random distillation, elliptical bonuses, product and sum",
    "implicit-prm": "Step scores from outcome labels alone, on chains of sums and a table of 900 cells",
    "implicit-prm-transformer": "The same as text, by a transformer of two layers, beside outcome and step models",
    "label-budget": "Cheap labels or trusted ones for a budget, a planner, and digits where cheap ones are a mistake",
    "label-budget-on-smollm": "Verdicts or cheap labels for a judge of SmolLM2's sums; needs the extra smollm2",
    "neural-subset-selection": "Choosing subsets from examples: what an energy must see of the rest of a set",
    "novelty-transformer": "Bonuses for new answers, in the group and in the run, on a transformer sure of wrong ones",
    "oreal": "Cloned right answers, reshaped wrong ones and token weights, where two tokens of twelve decide",
    "oreal-transformer": "The same losses on a small transformer; token weights beside credit that is known exactly",
    "preference-learning": "DPO, PPO and their kin on three responses, held to the policy known in closed form",
    "preference-learning-grid": "Data, DPO or PPO, reward model and prompts, one at a time, on a bandit of 12 bits",
    "preference-learning-transformer": "Four data sets, DPO and PPO, on a transformer that copies and sorts digits",
    "prime": "An implicit process reward that learns online, on chains of sums and tables with exact chances",
    "prime-transformer": "The same on a small transformer, with six arms and the true step errors beside them",
    "process-advantage-verifiers": "A prover's step advantages on a planted sequence with exact values: RL and search",
    "process-advantage-verifiers-learned": "The same with a verifier learned from rollouts, spent in six ways",
    "process-advantage-verifiers-transformer": "The same as text: policy and learned verifier are transformers",
    "rare-events-presto": "The rare last stage of a funnel: PRESTO, proportional odds and logit, held to the truth",
    "reward-transformation": "Rewards transformed and combined, compared at equal KL, in closed form and by RL",
    "signals-on-smollm": "Eight signals on SmolLM2-135M adding numbers, at equal tokens; needs the extra smollm2",
    "staged-reward-head": "A reward head of ordered stages, where under 2 % of rollouts are right",
    "surrogate-rewards": "Rewards for format and length, without answers, on a table of 16 actions",
    "surrogate-transformer": "The same on sums as text, by a transformer of two layers, and by one that cannot add",
}


def load_study(name: str) -> Study:
    """The study of that name; its module is imported only now.

    Raises:
        InputError: if there is none; names the nearest.
    """
    if name not in STUDIES:
        near = get_close_matches(name, STUDIES, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(STUDIES)}."
        raise InputError(f"there is no study {name!r}. {hint}")
    module = importlib.import_module(f"reckon.studies.{name.replace('-', '_')}")
    return cast("Study", module.STUDY)


def run_study(
    name: str | Study, out: str | Path, fast: bool = False, seeds: Sequence[int] | None = None, json: bool = False
) -> dict[str, Json]:
    """Runs what is not yet run of a study, and writes results.json, README.md and curves.png to `out`.

    Each finished cell (arm and seed) is a file under `out`/cells and is not run again as long as its settings and
    reckon's version stay the same, so a study that was stopped goes on where it was.

    Args:
        name: a key of `STUDIES`, or a study itself.
        out: the folder; made if it is not there.
        fast: run every line in seconds, with two seeds and settings too small to show anything; no verdicts.
        seeds: instead of the study's own. With fewer than the study asks for, the claims are not testable.
        json: print the results to stdout as JSON instead of a summary.

    Returns:
        What results.json holds.

    Raises:
        InputError: no such study; `seeds` is empty or holds one twice; `fast` into the folder of a full run.
        MissingError: matplotlib is not installed; said before anything is run.
        KeyboardInterrupt: on Ctrl-C, after the results so far are written.
    """
    study = name if isinstance(name, Study) else load_study(name)
    folder = Path(out)
    chosen = tuple(seeds) if seeds is not None else study.seeds[: 2 if fast else None]
    _check(study, folder, fast, chosen)
    plan = [
        _Cell(study=study, arm=arm, seed=seed, settings={**settings, **(study.fast if fast else {})})
        for seed in chosen
        for arm, settings in study.arms.items()
    ]
    done: dict[tuple[str, int], Measured] = {}
    try:
        for cell, measured in _cells(plan, folder, study):
            done[cell.arm, cell.seed] = measured
    finally:  # also on Ctrl-C: what is finished is told
        results = _results(study, folder, fast, chosen, plan, done)
        told = jsonlib.dumps(results, indent=1, ensure_ascii=False) + "\n"
        write_file(folder / "results.json", told.encode())
        drawn = draw(study, done, folder / "curves.png")
        write_file(folder / "README.md", markdown(results, plot="curves.png" if drawn else None).encode())
    _tell(results, folder, json)
    return results


@dataclass(frozen=True, kw_only=True)
class _Cell:
    study: Study
    arm: str
    seed: int
    settings: Settings

    def key(self) -> dict[str, Json]:
        """What must be the same for a finished cell to count."""
        return {
            "study": self.study.name,
            "reckon": __version__,
            "arm": self.arm,
            "seed": self.seed,
            "settings": dict(self.settings),
        }


def _check(study: Study, folder: Path, fast: bool, seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"study {study.name}: seeds are {list(seeds)}; give at least one, and each once.")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingError("a study draws its curves with matplotlib: pip install 'reckon-rl[studies]'")
    there = folder / "results.json"
    if fast and there.exists() and not jsonlib.loads(there.read_text(encoding="utf-8")).get("fast"):
        raise InputError(f"{folder} holds a full run, which --fast would overwrite. Choose another folder.")


def _cells(plan: Sequence[_Cell], folder: Path, study: Study) -> Iterator[tuple[_Cell, Measured]]:
    """Every cell with what it found, run now or read."""
    from reckon.runs import Progress

    with Progress(len(plan), unit="cell") as bar:
        for i, cell in enumerate(plan):
            path = folder / "cells" / f"{slug(cell.arm)}-seed-{cell.seed}.json"
            measured = _read(path, cell)
            if measured is None:
                began = time.perf_counter()
                fresh = study.cell(cell.settings, cell.seed)
                content = cell.key() | {
                    "seconds": round(time.perf_counter() - began, 2),
                    "metrics": {key: _number(value) for key, value in fresh.metrics.items()},
                    "curves": {key: [_number(value) for value in curve] for key, curve in fresh.curves.items()},
                }
                write_file(path, (jsonlib.dumps(content) + "\n").encode())
                measured = _read(path, cell)  # so that a study resumed and one in a single go have the same digits
            assert measured is not None
            yield cell, measured
            bar.update(i + 1, f"{cell.arm}, seed {cell.seed}")


def _read(path: Path, cell: _Cell) -> Measured | None:
    """What a finished cell found; None if it is not there or is another's."""
    if not path.exists():
        return None
    try:
        content = jsonlib.loads(path.read_text(encoding="utf-8"))
        if any(content.get(key) != value for key, value in cell.key().items()):
            return None
        return Measured(
            metrics={key: _nan(value) for key, value in content["metrics"].items()},
            curves={key: [_nan(value) for value in curve] for key, curve in content["curves"].items()},
        )
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunError(f"{path} is no finished cell ({error}). Delete it, and it will be run again.") from error


def _results(
    study: Study,
    folder: Path,
    fast: bool,
    seeds: Sequence[int],
    plan: Sequence[_Cell],
    done: Mapping[tuple[str, int], Measured],
) -> dict[str, Json]:
    whole: list[ByArm] = [
        {arm: done[arm, seed].metrics for arm in study.arms}
        for seed in seeds
        if all((arm, seed) in done for arm in study.arms)
    ]
    rows: list[Json] = []
    for row in study.rows:
        values = [done[row.arm, seed].metrics[row.metric] for seed in seeds if (row.arm, seed) in done]
        mean, error = mean_and_error(values)
        here: dict[str, Json] = {"mean": _number(mean), "error": _number(error), "seeds": len(values)}
        rows.append({"arm": row.arm, "says": row.says, "paper": row.paper, "pilot": row.pilot, "here": here})
    claims = [] if fast else [_claim(judge(claim, whole, len(study.seeds))) for claim in study.claims]
    command = f"reckon study {study.name} --out {folder}" + (" --fast" if fast else "")
    if tuple(seeds) != study.seeds and not fast:
        command += f" --seeds {','.join(map(str, seeds))}"
    return {
        "study": study.name,
        "title": study.title,
        "source": study.source,
        "fast": fast,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(),
        "seeds": list(seeds),
        "settings": {cell.arm: dict(cell.settings) for cell in plan},
        "claims": cast("list[Json]", claims),
        "rows": rows,
        "pools": [_pool(pool, seeds, done) for pool in study.pools],
        "not run": [f"{cell.arm}, seed {cell.seed}" for cell in plan if (cell.arm, cell.seed) not in done],
        "notes": list(study.notes),
    }


def _pool(pool: Pool, seeds: Sequence[int], done: Mapping[tuple[str, int], Measured]) -> Json:
    """The interquartile mean of all runs of its arms; null where an arm has none that gave a number."""
    from reckon.evaluate import pooled

    runs = [[done[arm, seed].metrics[pool.metric] for seed in seeds if (arm, seed) in done] for arm in pool.arms]
    known = [[value for value in task if math.isfinite(value)] for task in runs]
    found: dict[str, Json] = {"says": pool.says, "metric": pool.metric, "arms": list(pool.arms)}
    if not all(known):
        return found | {"mean": None, "low": None, "high": None, "runs": sum(map(len, known))}
    told = pooled(known, Rng(("study", pool.says)))
    bounds = {name: _number(value) for name, value in (("mean", told.value), ("low", told.low), ("high", told.high))}
    return found | bounds | {"runs": sum(map(len, known))}


def _claim(judged: Judged) -> dict[str, Json]:
    effects: list[Json] = [
        {
            "says": found.effect.says,
            "rule": found.effect.rule,
            "mean": _number(found.mean),
            "error": _number(found.error),
            "seeds": found.seeds,
            "holds": found.holds,
        }
        for found in judged.found
    ]
    return {"claim": judged.claim.says, "verdict": judged.verdict, "why": judged.why, "effects": effects}


def _machine() -> dict[str, Json]:
    versions: dict[str, Json] = {}
    for package in ("torch", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "reckon": __version__,
        **versions,
    }


def _tell(results: Mapping[str, Json], folder: Path, json: bool) -> None:
    if json:
        sys.stdout.write(jsonlib.dumps(results, ensure_ascii=False) + "\n")
        return
    claims = cast("list[dict[str, str]]", results["claims"])
    lines = [f"{claim['verdict']:>17}  {claim['claim']}" for claim in claims]
    if results["fast"]:
        lines = ["--fast: every line ran; too small for verdicts"]
    sys.stdout.write("\n".join([*lines, f"{folder / 'README.md'}"]) + "\n")


def _number(value: float) -> float | None:
    """JSON has no NaN: null. Six digits are more than any standard error here deserves."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
