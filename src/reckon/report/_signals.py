"""The page of the signal bench."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template

from reckon import __version__
from reckon.evaluate import SignalBench
from reckon.files import write_file
from reckon.report._html import Html, content_policy, count, inline, join, tag
from reckon.report._signals_sections import (
    SECTIONS,
    calibration_section,
    correlations_section,
    curves_section,
    examples_section,
    lead,
    overview,
    probes_section,
    remarks_section,
    steps_section,
)


def write_signals(bench: SignalBench, out: str | Path) -> Path:
    """Writes what a person looks at to choose a reward: one HTML file that needs no network and no other file.

    Args:
        bench: what `reckon.evaluate.signal_bench` found.
        out: where to write; a file that was there is replaced.

    Returns:
        The file.

    Raises:
        RunError: the page cannot be written.
    """
    write_file(Path(out), render_signals(bench).encode())
    return Path(out)


def render_signals(bench: SignalBench) -> str:
    """The page as text."""
    css, theme = _file("page.css") + _file("signals.css"), _file("theme.js")
    made = {
        "result": join([lead(bench), overview(bench)]),
        "remarks": remarks_section(bench),
        "best": curves_section(bench),
        "probe": probes_section(bench),
        "calibration": calibration_section(bench),
        "correlation": correlations_section(bench),
        "steps": steps_section(bench),
        "examples": examples_section(bench),
    }
    sections = (tag("section", tag("h2", title), made[key], id=key) for key, _, title in SECTIONS)
    byline = f"{count(len(bench.signals))} signals, {count(bench.responses)} responses, {count(bench.prompts)} prompts"
    return Template(_file("static.html")).substitute(
        policy=inline(content_policy(css, [theme])),
        version=inline(__version__),
        title=inline(f"{bench.source}: which signal to trust"),
        kicker="signal bench",
        name=inline(bench.source),
        byline=inline(byline),
        css=css,
        theme=theme,
        contents=join(tag("li", tag("a", short, href=f"#{key}")) for key, short, _ in SECTIONS),
        sections=join(sections),
    )


def _file(name: str) -> Html:
    return Html(files("reckon.report").joinpath(name).read_text(encoding="utf-8"))
