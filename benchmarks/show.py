"""What the measured cells say: figures of a cell, the table, the plot, the page under results/bench."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import SHAPES, Shape
from rich.console import Console
from rich.table import Table

Cell = Mapping[str, Any]  # what grpo.py writes: one model, one shape
COLUMNS = (  # key, heading, format, what it means
    ("steps", "steps", "{:.0f}", "steps of each side, taken in turns"),
    ("ours", "ours s", "{:.2f}", "median seconds of a whole step of ours"),
    ("trl", "TRL s", "{:.2f}", "the same of TRL's `GRPOTrainer`"),
    ("ratio", "ratio", "{:.2f}", "TRL's seconds by ours: how many times as fast ours is"),
    ("sample_ratio", "sampling", "{:.2f}", "the same for sampling alone"),
    ("learn_ratio", "learning", "{:.2f}", "the same for everything after sampling"),
    ("rate", "tokens/s", "{:.0f}", "answer tokens a second in our sampling"),
    ("generate", "x generate", "{:.2f}", "that rate by `transformers.generate`'s"),
    ("vllm", "x vLLM", "{:.2f}", "that rate by vLLM's CPU build's"),
    ("limit_sample", "% limit s.", "{:.0%}", "our sampling's share of the physical limit"),
    ("limit_learn", "% limit l.", "{:.0%}", "our learning's share"),
    ("limit_step", "% limit", "{:.0%}", "the whole step's share"),
    ("padding", "padding", "{:.1%}", "places we computed that held no token, in sampling and learning together"),
)


def median(steps: Sequence[Mapping[str, float]], key: str) -> float:
    return statistics.median(step[key] for step in steps)


def figures(cell: Cell) -> dict[str, float | None]:
    """The numbers of a cell's row, None where a side was not measured."""
    steps = cell["steps"]
    ours = {key: median(steps["ours"], key) for key in ("seconds", "sample", "learn")}
    trl = {key: median(steps["trl"], key) for key in ("seconds", "sample", "learn")} if "trl" in steps else None
    rates = {
        side: statistics.median(
            step["tokens"] / step["sample" if side in ("ours", "trl") else "seconds"] for step in rows
        )
        for side, rows in steps.items()
    }
    limit = {part: cell["operations"][part] / cell["rate"]["per_second"] for part in ("sample", "learn")}
    return {
        "steps": float(len(steps["ours"])),
        "ours": ours["seconds"],
        "trl": trl and trl["seconds"],
        "ratio": trl and trl["seconds"] / ours["seconds"],
        "sample_ratio": trl and trl["sample"] / ours["sample"],
        "learn_ratio": trl and trl["learn"] / ours["learn"],
        "rate": rates["ours"],
        "generate": rates["ours"] / rates["generate"] if "generate" in rates else None,
        "vllm": rates["ours"] / rates["vllm"] if "vllm" in rates else None,
        "limit_sample": limit["sample"] / ours["sample"],
        "limit_learn": limit["learn"] / ours["learn"],
        "limit_step": sum(limit.values()) / ours["seconds"],
        "padding": padding(cell),
    }


def padding(cell: Cell) -> float | None:
    """Share of the places our linear layers computed that held no token, None where ours does not count them.

    A prompt has a place once for its group; the last token of an answer has none, since nothing is predicted from it.
    """
    shape, useful, computed = cell["shape"], 0, 0
    for step in cell["steps"]["ours"]:
        prompts, answers = shape["prompts"] * shape["prompt"], shape["prompts"] * shape["answers"]
        for part in ("sample", "learn"):
            useful += prompts + step["tokens"] - answers
            computed += step["computed"].get(part, 0)
    return max(0.0, 1 - useful / computed) if computed else None


def rows(cells: Sequence[Cell]) -> list[list[str]]:
    """The table's text."""
    found = []
    for cell in cells:
        numbers = figures(cell)
        texts = ["-" if numbers[key] is None else form.format(numbers[key]) for key, _, form, _ in COLUMNS]
        found.append([cell["model"]["name"], f"{cell['shape']['name']}: {Shape(**cell['shape']).title}", *texts])
    return found


def summary(cells: Sequence[Cell]) -> str:
    """The last line."""
    found = [numbers for cell in cells if (numbers := figures(cell))["ratio"] is not None]
    if not found:
        return "grpo step: TRL was not measured, so there is no ratio"
    ours, trl, ratio = (statistics.median(numbers[key] or 0.0 for numbers in found) for key in ("ours", "trl", "ratio"))
    return f"grpo step: ours {ours:.2f} s, trl {trl:.2f} s, ratio {ratio:.2f} (median of {len(found)} shapes)"


def table(cells: Sequence[Cell]) -> None:
    """Prints the table."""
    made = Table("model", "shape", *(heading for _, heading, _, _ in COLUMNS), box=None, pad_edge=False)
    for row in rows(cells):
        made.add_row(*row)
    Console(width=max(200, Console().width), highlight=False).print(made)


def page(cells: Sequence[Cell], folder: Path) -> None:
    """Writes README.md and the plot beside the cells' JSON."""
    plot(cells, folder / "bench.png")
    heads = ["model", "shape", *(heading for _, heading, _, _ in COLUMNS), "TRL setting"]
    settings = [cell["trl"]["name"] if "trl" in cell["steps"] else "-" for cell in cells]
    text = [
        "# A GRPO step, ours and TRL's",
        "",
        "Written by `make bench`; what is measured, and what is equal on both sides: [here](../../docs/benchmarks.md).",
        "",
        "![Seconds of TRL's step by ours, for each model and shape](bench.png)",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join([*row, setting])} |" for row, setting in zip(rows(cells), settings, strict=True)),
        "",
        f"`{summary(cells)}`",
        "",
        *(f"- {heading}: {meaning}." for _, heading, _, meaning in COLUMNS),
        "- TRL setting: the fastest of those tried, [all of them](trl_settings.json).",
        "",
        *measured(cells),
        "",
    ]
    (folder / "README.md").write_text("\n".join(text))


def measured(cells: Sequence[Cell]) -> list[str]:
    """Where, when and with what."""
    places = []
    for cell in cells:
        machine = cell["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        places.append(
            f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['memory_gib']} GiB; "
            f"Python {machine['python']}, {versions}; threads wait {machine['waiting']}; "
            f"seed {cell['seed']}"
        )
    rates = [cell["rate"]["per_second"] / 1e9 for cell in cells]
    dtypes, dates, commits = (
        ", ".join(sorted(values))
        for values in (
            {cell["rate"]["dtype"] for cell in cells},
            {cell["date"][:10] for cell in cells},
            {cell["commit"] for cell in cells},
        )
    )
    return [
        f"Measured {dates} at {commits} on:",
        "",
        *(f"- {place}" for place in dict.fromkeys(places)),
        "",
        f"Large matrix products in {dtypes}: {min(rates):.0f} to {max(rates):.0f} billion operations a second; each "
        f"cell's limit is taken with its own. While one side worked, the waiting ones took at most "
        f"{max(cell['idle'] for cell in cells):.1%} of a core.",
    ]


def plot(cells: Sequence[Cell], path: Path) -> None:
    """One bar a cell: how many times as fast, with the two targets as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    order = list(SHAPES)
    shown = sorted(
        (cell for cell in cells if "trl" in cell["steps"]),
        key=lambda cell: (cell["model"]["name"], order.index(cell["shape"]["name"])),
    )
    if not shown:
        return
    figure, axes = pyplot.subplots(figsize=(max(6, 1.8 + 1.1 * len(shown)), 4))
    for i, (key, label) in enumerate(
        (("ratio", "whole step"), ("sample_ratio", "sampling"), ("learn_ratio", "learning"))
    ):
        values = [figures(cell)[key] or 0.0 for cell in shown]
        axes.bar([place + 0.27 * (i - 1) for place in range(len(shown))], values, width=0.25, label=label)
    axes.axhline(4, color="black", linewidth=1, label="wanted of the median step")
    axes.axhline(2.5, color="black", linewidth=1, linestyle="dotted", label="wanted of every step")
    axes.set_xlim(-0.6, len(shown) - 0.4)
    axes.set_xticks(range(len(shown)), [f"{c['model']['name']}\n{c['shape']['name']}" for c in shown], fontsize=8)
    axes.set_ylabel("TRL's seconds by ours")
    figure.legend(*axes.get_legend_handles_labels(), loc="upper center", ncols=5, fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
