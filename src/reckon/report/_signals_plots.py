"""The signal bench's pictures: small SVG, drawn once, that need no script."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reckon.evaluate import Estimate, SignalBench, SignalReport
from reckon.report._html import Html, inline, join, number, share, table, tag

VOTE = "majority vote"
COLORS = 6  # line-0 ... line-5 of page.css; each also has its own dashes


def scale(estimate: Estimate, low: float, high: float, middle: float, label: str) -> Html:
    """A dot and its interval on a line from low to high, with a tick at the middle, where a signal is worth nothing."""
    if not math.isfinite(estimate.value):
        return Html("")

    def place(value: float) -> float:
        return 100 * (min(max(value, low), high) - low) / (high - low)

    side = "good" if estimate.low > middle else "bad" if estimate.high < middle else "even"
    parts = [
        '<path class="rail" d="M0 5H100" vector-effect="non-scaling-stroke"/>',
        f'<path class="mark" d="M{place(middle):.2f} 0V10" vector-effect="non-scaling-stroke"/>',
    ]
    if math.isfinite(estimate.low):
        bar = f"M{place(estimate.low):.2f} 5H{place(estimate.high):.2f}"
        parts.append(f'<path class="span {side}" d="{bar}" vector-effect="non-scaling-stroke"/>')
    parts.append(f'<path class="dot {side}" d="M{place(estimate.value):.2f} 5h0" vector-effect="non-scaling-stroke"/>')
    start = f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{inline(label)}">'
    svg = Html(f"{start}{''.join(parts)}</svg>")
    return tag("span", svg, class_="scale-line")


def swatch(place: int | None, *, dashed: bool = False) -> Html:
    """A short stretch of a line, for a legend; None = a gray one."""
    kind = ("line-base dashed" if dashed else "line-base") if place is None else f"line-{place % COLORS}"
    return Html(
        f'<svg viewBox="0 0 22 7" aria-hidden="true"><line class="{kind}" x1="0" x2="22" y1="3.5" y2="3.5"/></svg>'
    )


class Frame:
    """A plot's axes: where a pair of numbers lies, and the marks around it."""

    def __init__(self, width: int, height: int, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.width, self.height = width, height
        self._x, self._y = x, y
        self.left, self.right, self.top, self.bottom = 58, 12, 14, 44
        self.parts: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        (a, b), (c, d) = self._x, self._y
        across, up = (x - a) / (b - a or 1.0), (y - c) / (d - c or 1.0)
        return (
            self.left + across * (self.width - self.left - self.right),
            self.height - self.bottom - up * (self.height - self.top - self.bottom),
        )

    def axes(self, xs: Sequence[tuple[float, str]], ys: Sequence[tuple[float, str]], title: str) -> None:
        """Grid lines, their labels, and what the horizontal axis is."""
        for value, label in ys:
            x, y = self.at(self._x[0], value)
            self.parts.append(f'<path class="grid" d="M{x:.1f} {y:.1f}H{self.width - self.right}"/>')
            self.text(x - 6, y + 4, label, "end")
        base = self.height - self.bottom
        self.parts.append(f'<path class="axis" d="M{self.left} {base}H{self.width - self.right}"/>')
        for value, label in xs:
            x, _ = self.at(value, self._y[0])
            self.parts.append(f'<path class="axis" d="M{x:.1f} {base}v4"/>')
            self.text(x, base + 17, label, "middle")
        self.text((self.left + self.width - self.right) / 2, self.height - 4, title, "middle")

    def text(self, x: float, y: float, words: str, anchor: str) -> None:
        """Words at a place."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{inline(words)}</text>')

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A path through points; nothing for those that are not finite."""
        spots = [self.at(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        if spots:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
            self.parts.append(f'<path class="{kind}" d="M{path}"/>')

    def dot(self, x: float, y: float, kind: str, radius: float = 3.5) -> None:
        """A point."""
        a, b = self.at(x, y)
        self.parts.append(f'<circle class="{kind}" cx="{a:.1f}" cy="{b:.1f}" r="{radius}"/>')

    def svg(self, label: str) -> Html:
        """The drawing."""
        start = f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{inline(label)}">'
        return Html(f"{start}{''.join(self.parts)}</svg>")


def best_of_n_plot(bench: SignalBench) -> Html:
    """The share of right answers among the best of k, a line for each signal, with what nobody has to learn in gray."""
    if len(bench.ks) < 2:
        words = "There is only one response with a verdict to each prompt, so nothing can be chosen."
        return tag("p", words, class_="note")
    lines = [(one.name, one.curve, f"line-{i % COLORS}", i) for i, one in enumerate(bench.signals)]
    gray: list[tuple[str, Sequence[float]]] = [("oracle: any right", bench.oracle)]
    if bench.vote:
        gray.append((VOTE, bench.vote))
    every = [value for _, curve, *_ in [*lines, *((n, c, "", 0) for n, c in gray)] for value in curve]
    low, high = math.floor(10 * min(every) - 1e-9) / 10, math.ceil(10 * max(every) + 1e-9) / 10
    low, high = max(0.0, low), min(1.0, max(high, low + 0.1))
    frame = Frame(640, 340, (0.0, float(len(bench.ks) - 1)), (low, high))
    step = 0.1 if high - low <= 0.6 else 0.2
    marks = [low + i * step for i in range(round((high - low) / step) + 1)]
    frame.axes(
        [(float(i), str(k)) for i, k in enumerate(bench.ks)],
        [(mark, f"{100 * mark:.0f}%") for mark in marks if mark <= high + 1e-9],
        "samples to choose from",
    )
    for i, (_, curve) in enumerate(gray):
        frame.line(list(enumerate(curve)), "curve line-base" + (" dashed" if i else ""))
    for _, curve, kind, _ in lines:
        frame.line(list(enumerate(curve)), f"curve {kind}")
        frame.dot(len(curve) - 1, curve[-1], kind)
    ends = [(name, curve[-1], i) for name, curve, _, i in lines] + [(name, curve[-1], None) for name, curve in gray]
    ends.sort(key=lambda end: -end[1])
    legend = tag(
        "p",
        *(
            tag("span", swatch(place, dashed=name == VOTE), name, " ", tag("b", share(value)))
            for name, value, place in ends
        ),
        class_="legend",
    )
    label = f"Share of right answers among the best of 1 to {bench.n} samples, by signal"
    return join([frame.svg(label), legend])


def reliability_plot(one: SignalReport) -> Html:
    """How often answers of each score are right: bins of equal numbers, with Wilson intervals."""
    told = one.calibration
    if len(told.bins) == 0:
        return tag("figure", tag("figcaption", one.name), tag("p", "No value with a verdict.", class_="hint"))
    left, right = told.bins[0].score, told.bins[-1].score
    if told.probability:
        left, right = 0.0, 1.0
    pad = 0.0 if told.probability else (right - left or 1.0) * 0.04
    frame = Frame(320, 250, (left - pad, right + pad), (0.0, 1.0))
    ticks = [0.0, 0.5, 1.0] if told.probability else [left, right] if right > left else [left]
    frame.axes([(t, number(t)) for t in ticks], [(t, f"{100 * t:.0f}%") for t in (0.0, 0.5, 1.0)], "score")
    if told.probability:
        frame.line([(0.0, 0.0), (1.0, 1.0)], "curve line-base dashed")
    for b in told.bins:
        frame.line([(b.score, b.low), (b.score, b.high)], "whisker line-0")
    frame.line([(b.score, b.rate) for b in told.bins], "curve line-0 thin")
    for b in told.bins:
        frame.dot(b.score, b.rate, "line-0")
    if told.probability:
        words = f"off by {number(told.error)}; {number(told.recalibrated_error)} after recalibration"
    else:
        words = f"no probability; off by {number(told.recalibrated_error)} after recalibration"
    words += f". Recalibrated it takes {share(told.skill)} off the base rate’s Brier score." if told.skill > 0 else "."
    label = f"{one.name}: share of right answers by score"
    return tag("figure", tag("figcaption", one.name), frame.svg(label), tag("p", words, class_="hint"), class_="small")


def matrix(names: Sequence[str], values: Sequence[Sequence[float]], caption: str) -> Html:
    """Rank correlations as shaded cells; columns are numbered as rows are."""
    rows = []
    for i, (name, row) in enumerate(zip(names, values, strict=True)):
        cells = [_cell(value) if i != j else tag("span", "·", class_="self") for j, value in enumerate(row)]
        rows.append([tag("span", tag("b", str(i + 1)), " ", name), *cells])
    numbered = range(1, len(names) + 1)
    return table(caption, ["", *map(str, numbered)], rows, numeric=tuple(numbered), class_="matrix")


def _cell(value: float) -> Html:
    if not math.isfinite(value):
        return tag("span", "–", class_="shade-0")
    shade = min(4, round(abs(value) * 4 + 0.2))
    side = "plus" if value >= 0 else "minus"
    return tag("span", f"{value:+.2f}".replace("-", "−"), class_=f"{side} shade-{shade}")
