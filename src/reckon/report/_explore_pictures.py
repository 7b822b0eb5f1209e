"""Pictures of exploration: maps of visits, and episodes as strips of frames. SVG that needs no script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reckon.report._explore_album import Episode
from reckon.report._html import Html, count, inline, join, number, tag

FRAMES = 8  # moments of an episode that are drawn
_KINDS = {".": "floor", "G": "goal", "#": "wall", "~": "lava"}
_ORDINALS = ("first", "second", "third", "fourth", "last")


class Box(NamedTuple):
    """A rectangle of cells."""

    x: int
    y: int
    width: int
    height: int


def box(cells: Iterable[tuple[int, int]], columns: int, rows: int) -> Box:
    """What of a screen is worth showing: around these cells, one more on each side; all if there are none."""
    seen = [(x, y) for x, y in cells if x >= 0 and y >= 0]
    if not seen:
        return Box(0, 0, columns, rows)
    left, top = (max(min(cell[i] for cell in seen) - 1, 0) for i in (0, 1))
    right, bottom = (min(max(cell[i] for cell in seen) + 2, end) for i, end in ((0, columns), (1, rows)))
    return Box(left, top, right - left, bottom - top)


def maps_figure(visits: Sequence[Sequence[Sequence[int]]]) -> Html:
    """A map for each part of a run, in one scale and of one place."""
    visited = ((x, y) for rows in visits for y, row in enumerate(rows) for x, cell in enumerate(row) if cell)
    shown = box(visited, len(visits[0][0]), len(visits[0]))
    largest = max((cell for rows in visits for row in rows for cell in row), default=0)
    figures = []
    for part, rows in enumerate(visits):
        cells = [
            f'<rect class="visit" x="{x}" y="{y}" width="1" height="1" fill-opacity="{math.sqrt(cell / largest):.3f}"/>'
            for y, row in enumerate(rows)
            for x, cell in enumerate(row)
            if cell
        ]
        total = sum(map(sum, rows))
        words = f"{_ORDINALS[part] if part < len(_ORDINALS) else part + 1} fifth"
        svg = _svg(shown, "".join(cells), f"Visits in the {words} of the run")
        figures.append(tag("figure", tag("figcaption", f"{words}: {count(total)} visits"), svg))
    return tag("div", *figures, class_="maps")


def episode_figure(episode: Episode, index: int, largest: float) -> Html:
    """One episode: frames, if there is a drawing, over the bars of its bonus.

    Args:
        episode: it.
        index: its place on the page.
        largest: the largest bonus of a step on the page.
    """
    steps = len(episode.bonus)
    facts = [
        f"update {count(episode.step)}",
        f"{count(steps)} {'step' if steps == 1 else 'steps'}" + ("" if episode.whole else ", cut off"),
    ]
    if episode.context is not None:
        facts.append(f"context {episode.context}")
    facts += [f"bonus {number(math.fsum(episode.bonus))}", f"reward {number(math.fsum(episode.rewards))}"]
    parts = [tag("figcaption", *(tag("span", fact) for fact in facts), class_="facts")]
    if episode.drawing:
        parts.append(_strip(episode, index, largest))
    parts.append(_bars(episode, largest))
    return tag("figure", *parts, class_="episode")


def moments(steps: int, most: int = FRAMES) -> list[int]:
    """At most `most` steps out of 0 ... steps, evenly spread, the first and the last among them."""
    if steps < most:
        return list(range(steps + 1))
    return [round(i * steps / (most - 1)) for i in range(most)]


def _strip(episode: Episode, index: int, largest: float) -> Html:
    """Frames side by side; the map is drawn once and used by each."""
    width, height = max(map(len, episode.drawing)), len(episode.drawing)
    drawn = ((x, y) for y, row in enumerate(episode.drawing) for x, sign in enumerate(row) if sign in _KINDS)
    shown = box((*drawn, *episode.path), width, height)
    name = f"map-{index}"
    symbol = f'<symbol id="{name}" viewBox="0 0 {width} {height}">{_drawing(episode.drawing)}</symbol>'
    hidden = Html(f'<svg class="defined" aria-hidden="true" width="0" height="0">{symbol}</svg>')
    frames = []
    for at in moments(len(episode.bonus)):
        inside = f'<use href="#{name}" width="{width}" height="{height}"/>{_walk(episode, at, largest)}'
        svg = _svg(shown, inside, f"After {at} steps")
        frames.append(tag("figure", svg, tag("figcaption", f"after {at}")))
    return join([hidden, tag("div", *frames, class_="strip")])


def _drawing(rows: Sequence[str]) -> str:
    """Cells of a kind as one path."""
    paths = dict.fromkeys(_KINDS.values(), "")
    for y, row in enumerate(rows):
        for x, sign in enumerate(row):
            if sign in _KINDS:
                paths[_KINDS[sign]] += f"M{x} {y}h1v1h-1z"
    return "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in paths.items() if path)


def _walk(episode: Episode, at: int, largest: float) -> str:
    """Dots for what was entered so far, as large as the largest bonus that entering each was worth, and a ring."""
    worth: dict[tuple[int, int], float] = {}
    for place, bonus in zip(episode.path[1 : at + 1], episode.bonus, strict=False):
        worth[place] = max(worth.get(place, 0.0), bonus)
    dots = [
        f'<circle class="paid" cx="{x + 0.5}" cy="{y + 0.5}" r="{0.08 + 0.34 * _part(bonus, largest):.3f}"/>'
        for (x, y), bonus in worth.items()
        if x >= 0 and y >= 0
    ]
    x, y = episode.path[at]
    ring = f'<circle class="here" cx="{x + 0.5}" cy="{y + 0.5}" r="0.42"/>' if x >= 0 and y >= 0 else ""
    return "".join(dots) + ring


def _bars(episode: Episode, largest: float) -> Html:
    """The bonus of each step, in the page's scale, and a mark below where the task paid."""
    steps = max(len(episode.bonus), 1)
    bars = [
        f'<rect class="bar-bonus" x="{i + 0.1:.1f}" y="{10 - 10 * _part(bonus, largest):.3f}" width="0.8" '
        f'height="{10 * _part(bonus, largest):.3f}"/>'
        for i, bonus in enumerate(episode.bonus)
    ]
    dots = [
        f'<rect class="bar-reward" x="{i + 0.1:.1f}" y="10.6" width="0.8" height="1.4"/>'
        for i, reward in enumerate(episode.rewards)
        if reward
    ]
    label = inline(f"Bonus of {len(episode.bonus)} steps, the largest {number(max(episode.bonus, default=0.0))}")
    start = f'<svg class="bars" viewBox="0 0 {steps} 12" preserveAspectRatio="none" role="img" aria-label="{label}">'
    base = f'<path class="base" d="M0 10.2H{steps}" vector-effect="non-scaling-stroke"/>'
    return Html(f"{start}{''.join(bars)}{''.join(dots)}{base}</svg>")


def _part(value: float, largest: float) -> float:
    return min(max(value / largest, 0.0), 1.0) if largest > 0 else 0.0


def _svg(shown: Box, inside: str, label: str) -> Html:
    x, y, width, height = shown
    start = f'<svg class="grid-map" viewBox="{x} {y} {width} {height}" role="img" aria-label="{inline(label)}">'
    frame = f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}"/>'
    return Html(f"{start}{frame}{inside}</svg>")
