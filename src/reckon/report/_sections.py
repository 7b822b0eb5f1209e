"""The other sections of the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from reckon.report._budget import Budget, command
from reckon.report._curves import Figure
from reckon.report._html import Html, count, duration, inline, join, number, share, table, tag
from reckon.report._read import Folder
from reckon.report._rollouts import Share
from reckon.report._streams import StreamFacts
from reckon.types import Json


def budget_section(spent: Budget, run: Mapping[str, str | None]) -> Html:
    """What the run cost, and what was run."""
    peak = "–" if math.isnan(spent.peak_mib) else f"{count(spent.peak_mib)} MiB"
    what = [(name, value or "not recorded") for name, value in run.items()]
    rows = [
        ("Steps", count(spent.steps)),
        ("Wall time", duration(spent.seconds)),
        ("Tokens generated", count(spent.generated)),
        ("Tokens trained on", count(spent.trained)),
        ("Peak memory", peak),
    ]
    tables = (table("What it took.", [], rows, class_="pairs"), table("What was run.", [], what, class_="pairs"))
    return join([_time(spent), tag("div", *tables, class_="pair"), _parts(spent)])


_STAGES = {  # of the loop, in words
    "sample": "sampling",
    "verify": "checking",
    "reward": "judging",
    "advantage": "crediting",
    "update": "updating",
}


def _parts(spent: Budget) -> Html:
    """Seconds and tokens of every part: what each reward costs."""
    whole = math.fsum(seconds for seconds, _ in spent.parts.values())
    rows = [
        [
            tag("code", name),
            duration(seconds),
            share(seconds / whole) if whole else "–",
            count(tokens) if tokens else "–",
        ]
        for name, (seconds, tokens) in spent.parts.items()
        if seconds >= 0.001 * whole
    ]
    caption = (
        "Seconds and tokens computed by each part, each counted once; a judge that learns is charged for that too. "
        "Parts below a thousandth are left out."
    )
    return table(caption, ["Part", "Time", "Share", "Tokens"], rows, numeric=(1, 2, 3)) if rows else Html("")


def _time(spent: Budget) -> Html:
    stages: dict[str, float] = {}
    for part, (seconds, _) in spent.parts.items():
        stage = part.split("/")[0]
        stages[stage] = stages.get(stage, 0.0) + seconds
    parts = [(_STAGES.get(stage, stage), seconds) for stage, seconds in stages.items()]
    parts.append(("everything else", spent.other))
    total = math.fsum(seconds for _, seconds in parts)
    if math.isnan(total) or total <= 0:
        return tag("p", "The log does not say how the time was spent.", class_="note")
    bars, at = [], 0.0
    classes = [*(f"part-{i % 6}" for i in range(len(parts) - 1)), "part-rest"]
    for class_, (_, seconds) in zip(classes, parts, strict=True):
        bars.append(f'<rect class="{class_}" x="{at:.3f}" y="0" width="{100 * seconds / total:.3f}" height="1"/>')
        at += 100 * seconds / total
    words = [f"{name} {duration(seconds)} ({share(seconds / total)})" for name, seconds in parts]
    label = inline("Time: " + ", ".join(words))
    svg = Html(
        f'<svg viewBox="0 0 100 1" preserveAspectRatio="none" role="img" aria-label="{label}">{"".join(bars)}</svg>'
    )
    key = (tag("span", tag("i", class_=class_), text) for class_, text in zip(classes, words, strict=True))
    return join([tag("div", svg, class_="split"), tag("p", *key, class_="key")])


def curves_section(figures: Sequence[Figure], controls: Html) -> Html:
    """Empty figures of their final size, for the script to draw into."""
    if not figures:
        return tag("p", "The run logged no metrics to draw.", class_="note")
    return join([controls, tag("div", *(_figure(figure, i) for i, figure in enumerate(figures)), class_="charts")])


def _figure(figure: Figure, index: int) -> Html:
    caption = tag("figcaption", figure.title)
    swatch = Html(
        '<svg viewBox="0 0 16 7" aria-hidden="true"><line class="line-{0}" x1="0" x2="16" y1="3.5" y2="3.5"/></svg>'
    )
    lines = (
        tag("span", Html(swatch.format(i % 6)) if len(figure.lines) > 1 else "", tag("output"))
        for i in range(len(figure.lines))
    )
    legend = tag("p", *lines, class_="legend")
    svg = Html(f'<svg aria-label="{inline(figure.title)}, {inline(figure.unit)}"></svg>')
    return tag("figure", caption, legend, svg, class_="chart main" if index == 0 else "chart")


def streams_section(found: Sequence[StreamFacts], uses: Mapping[str, str]) -> Html:
    """What each judge says, and whether it agrees with the verifier."""
    if not found:
        return tag("p", "The logged rollouts have no streams.", class_="note")
    rows = [
        [
            tag("code", stream.name),
            "each token" if stream.dense else "response",
            uses.get(stream.name.split("/")[0], "not recorded"),
            number(stream.start),
            number(stream.end),
            "–" if math.isnan(stream.correlation) else f"{stream.correlation:+.2f}".replace("-", "−"),
            count(stream.known),
            share(stream.missing),
        ]
        for stream in found
    ]
    caption = (
        "Mean over the first and the last tenth of the logged steps; Pearson correlation with the verifier's verdict "
        "over all responses where both are known (a dash: one of them never varies), which is 1 where the signal says "
        "what the verifier says; share of responses the judge gives no value. A stream of tokens counts with its "
        "mean over a response."
    )
    head = ["Stream", "Judges", "Use", "Start", "End", "Correlation", "Responses", "No value"]
    return table(caption, head, rows, numeric=(3, 4, 5, 6, 7))


def rollouts_section(shares: Sequence[Share], controls: Html) -> Html:
    """How many rollouts are in the page, and the controls to look through them."""
    if not any(share.shown for share in shares):
        return tag("p", "The run has logged no rollouts.", class_="note")
    parts = (f"{count(share.shown)} of {count(share.total)} from {share.name}" for share in shares)
    whole = all(share.shown == share.total for share in shares)
    why = (
        "That is all there are."
        if whole
        else "The rest would make this file too large: these are whole groups, drawn at random with a fixed seed. "
        "All of them are in the run's folder."
    )
    words = tag("p", "In this page: ", ", ".join(parts), ". ", why)
    explained = tag(
        "p",
        "Each token is shaded by the credit it was given: blue was encouraged, red discouraged. Point at a token, or "
        "reach a response by Tab and its tokens by the arrow keys, to read the numbers.",
        class_="hint",
    )
    return join([words, explained, controls])


def recipe_section(folder: Folder) -> Html:
    """All that is needed to do it again."""
    line = command(folder.environment)
    made = ["This run was made by ", tag("code", line), ". "] if line else ["The command was not recorded. "]
    return join(
        [
            tag("p", *made, "To make it again, save the recipe below as recipe.yaml and say:"),
            tag("pre", "reckon train recipe.yaml --out again"),
            tag("h3", "Recipe, with every default filled in"),
            tag("pre", folder.recipe_text),
            tag("h3", "Environment"),
            table(
                "Numbers repeat bit for bit where torch, NumPy, CPU and threads are the same.",
                [],
                [(name, _plain(value)) for name, value in folder.environment.items()],
                class_="pairs",
            ),
        ]
    )


def _plain(value: Json) -> str:
    if isinstance(value, str):
        return value
    return "–" if value is None or value == [] else json.dumps(value, ensure_ascii=False)
