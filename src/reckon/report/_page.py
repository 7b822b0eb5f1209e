"""Puts the page together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from reckon import __version__
from reckon.files import write_file
from reckon.report._budget import budget, command, in_words
from reckon.report._curves import curves, figures
from reckon.report._held_out import HeldOut, held_out
from reckon.report._html import Html, content_policy, embed, inline, join
from reckon.report._read import Folder, read_folder
from reckon.report._result import result
from reckon.report._rollouts import BUDGET, Source, pack_rollouts
from reckon.report._sections import budget_section, curves_section, recipe_section, rollouts_section, streams_section
from reckon.report._streams import stream_facts
from reckon.types import Json


def write_report(run_folder: str | Path, out: str | Path | None = None, *, budget_bytes: float = BUDGET) -> Path:
    """Writes what a person looks at after a run: one HTML file that needs no network and no other file.

    Args:
        run_folder: the folder of a run, finished or not.
        out: where to write; left out, `report.html` in the run's folder. A file that was there is replaced.
        budget_bytes: about how much of the file rollouts may take. Where there are more of them, the page holds a
            seeded sample of whole groups and says how many of how many.

    Returns:
        The file.

    Raises:
        MissingError: there is no run.
        RunError: a file of the run is damaged, or the page cannot be written; names it.
    """
    folder = read_folder(Path(run_folder))
    path = folder.path / "report.html" if out is None else Path(out)
    if "explore" in folder.recipe:
        from reckon.report._explore import render_explore

        page = render_explore(folder)
    else:
        page = render(folder, budget_bytes)
    write_file(path, page.encode())  # whoever has the old one open never sees half of a new one
    return path


def render(folder: Folder, budget_bytes: float = BUDGET) -> str:
    """The page as text."""
    evaluated = held_out(folder)
    shares, packed = pack_rollouts(_sources(folder, evaluated), budget_bytes)
    css, theme = _file("page.css"), _file("theme.js")
    scripts = "\n".join(_file(name) for name in ("base.js", "curves.js", "rollouts.js"))
    run = _run(folder)
    return Template(_file("page.html")).substitute(
        policy=inline(content_policy(css, [theme, scripts])),
        version=inline(__version__),
        title=inline(f"{folder.path.resolve().name}: a run of reckon"),
        name=inline(folder.path.resolve().name),
        byline=inline(" · ".join(part for part in (run["Method"], run["Model"], run["Task"], run["Date"]) if part)),
        css=css,
        theme=theme,
        result=result(evaluated),
        budget=budget_section(budget(folder), run),
        curves=curves_section(figures(folder.metrics), Html(_file("curves.html"))),
        streams=streams_section(stream_facts(folder.rollouts), _uses(folder.recipe)),
        rollouts=rollouts_section(shares, Html(_file("rollouts.html"))),
        recipe=recipe_section(folder),
        data=join([embed("curves-data", curves(folder.metrics)), embed("rollouts-data", packed)]),
        scripts=scripts,
    )


def _sources(folder: Folder, evaluated: HeldOut | None) -> list[Source]:
    """Training's rollouts, then the held-out answers that the headline compares."""
    sources = [Source(name="training", tables=folder.rollouts)] if folder.rollouts else []
    if evaluated is not None:
        for score, when in ((evaluated.before, "first"), (evaluated.after, "last")):
            if score is not None:
                tables = {score.step: folder.evals[evaluated.split][score.step]}
                sources.append(Source(name=f"{evaluated.split}, {when} evaluation", tables=tables))
    return sources


def _run(folder: Folder) -> dict[str, str | None]:
    """What was run, in words; None = not recorded."""
    environment, values = folder.environment, folder.recipe
    machine = [in_words(environment.get("cpu")) or in_words(environment.get("platform"))]
    cores = environment.get("cores")
    machine.append(None if cores is None else f"{cores} cores")
    return {
        "Method": in_words(values.get("method")),
        "Model": in_words(values.get("model")),
        "Task": in_words(values.get("task")),
        "Seed": in_words(values.get("seed")),
        "Command": command(environment),
        "Machine": ", ".join(part for part in machine if part) or None,
        "Date": _date(in_words(environment.get("date"))),
    }


def _date(text: str | None) -> str | None:
    """2026-01-31T17:05:12+00:00 as a reader writes it; anything else as it stands."""
    return None if text is None else re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\+00:00|Z)$", r"\1 \2 UTC", text)


def _uses(recipe: Mapping[str, Json]) -> dict[str, str]:
    """For each reward that the recipe names, whether it was trained on."""
    rewards = recipe.get("reward")
    parts = rewards.items() if isinstance(rewards, dict) else ()
    return {
        name: "watched" if isinstance(part, dict) and (part.get("watch") or part.get("weight") == 0) else "trained on"
        for name, part in parts
    }


def _file(name: str) -> str:
    return files("reckon.report").joinpath(name).read_text(encoding="utf-8")
