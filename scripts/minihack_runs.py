"""Agents on MiniHack for real: two tasks, four bonuses, and what came of it in results/minihack/.

    python scripts/minihack_runs.py [--out results/minihack] [--frames 1100000] [--arms none global_count]

Run it in an environment that has the extra minihack. One run at a time; one that was interrupted is resumed, a finished
one is not run again: to fill two cores, start it twice with arms of their own and the same folder, then once without
for the page. Settings were chosen beforehand and are the same for all arms: nothing is tuned on a task.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reckon.explore import PPO, Settings, resume_explore, run_explore
from reckon.report import write_report
from reckon.runs import Run

RECENT = 10  # updates whose episodes count
ARMS = {
    "no bonus": "none",
    "global": "global_count",
    "episodic": "episodic_count",
    "product": "episodic_times_global_count",
}


@dataclass(frozen=True)
class Job:
    """A task, what is counted there, and the seeds of its runs."""

    task: str
    key: str
    seeds: tuple[int, ...]


JOBS = (
    Job("MiniHack-Freeze-Wand-Restricted-v0", "msg", (0, 1)),
    Job("MiniHack-MultiRoom-N10-OpenDoor-v0", "pos", (0,)),
)


def settings(job: Job, bonus: str, seed: int, frames: int) -> Settings:
    return Settings(
        bonus=bonus,
        key=None if bonus == "none" else job.key,
        alpha=0.1,
        hidden=128,
        ppo=PPO(lr=5e-4, epochs=2, entropy=0.01),
        environments=16,
        steps=128,
        frames=frames,
        save_every=50,
        seed=seed,
    )


def share(rows: list[dict[str, Any]]) -> float | None:
    ended = sum(row["episode/count"] for row in rows)
    return sum(row["episode/count"] * row.get("episode/success", 0.0) for row in rows) / ended if ended else None


def best(rows: list[dict[str, Any]]) -> float | None:
    """The largest share of as many updates in a row as count, the last ones among them."""
    windows = (rows[i : i + RECENT] for i in range(max(1, len(rows) - RECENT + 1)))
    return max((found for window in windows if (found := share(window)) is not None), default=None)


def course(rows: list[dict[str, Any]], parts: int = 8) -> list[float | None]:
    """The share in each of so many equal parts of the run."""
    cuts = [round(i * len(rows) / parts) for i in range(parts + 1)]
    return [share(rows[first:end]) for first, end in itertools.pairwise(cuts)]


def make(job: Job, arm: str, seed: int, frames: int, folder: Path) -> dict[str, Any]:
    given = settings(job, ARMS[arm], seed, frames)
    act = resume_explore if (folder / "recipe.yaml").exists() else run_explore
    done = act(job.task, given, folder, show="lines")
    write_report(folder)
    if not done.finished:
        raise KeyboardInterrupt
    rows = Run.open(folder).metrics()
    spent = [sum(row[name] for name in row if name.startswith("time/")) for row in rows]
    return {
        "task": job.task,
        "arm": arm,
        "key": "" if ARMS[arm] == "none" else job.key,
        "seed": seed,
        "frames": done.frames,
        "success at first": share(rows[:RECENT]),
        "success": share(rows[-RECENT:]),
        "best": best(rows),
        "course": course(rows),
        "minutes": sum(spent) / 60,
        "frames per second": rows[0]["frames"] / statistics.median(spent),
    }


def page(found: list[dict[str, Any]]) -> str:
    def told(value: float | None) -> str:
        return "none ended" if value is None else f"{value:.2f}"

    lines = [
        "# MiniHack",
        "",
        "Share of the episodes that earned more than 0: of the first ten updates, of the last ten, and of the best ten "
        "in a row; and of each eighth of the run. Made by `python scripts/minihack_runs.py`; a single seed or two say "
        "what happened, not what would.",
        "",
        "| task | bonus | counts | seed | frames | at first | at last | best | frames/s | minutes | eighth by eighth |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        shares = (told(one[name]) for name in ("success at first", "success", "best"))
        lines.append(
            f"| {one['task']} | {one['arm']} | {one['key']} | {one['seed']} | {one['frames']:,} | "
            f"{' | '.join(shares)} | {one['frames per second']:,.0f} | {one['minutes']:.1f} | "
            f"{', '.join(map(told, one['course']))} |"
        )
    made = f"{datetime.date.today()}, {platform.platform()}, Python {platform.python_version()}, a core for each run."
    return "\n".join([*lines, "", made]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/minihack"))
    parser.add_argument("--frames", type=int, default=1_100_000, help="of a run: about ten minutes on a core")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS.values()), default=list(ARMS.values()))
    asked = parser.parse_args()
    found: list[dict[str, Any]] = []
    for job in JOBS:
        for seed in job.seeds:
            for arm in (arm for arm, bonus in ARMS.items() if bonus in asked.arms):
                folder = asked.out / "runs" / job.task / f"{arm.replace(' ', '-')}-seed-{seed}"
                found.append(make(job, arm, seed, asked.frames, folder))
                (asked.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
                (asked.out / "README.md").write_text(page(found))


if __name__ == "__main__":
    main()
