"""The signal bench's page, section by section."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reckon.evaluate import PROBES, WORDS, Disagreement, SignalBench, SignalReport
from reckon.report._html import Html, count, inline, join, number, share, table, tag
from reckon.report._signals_plots import best_of_n_plot, matrix, reliability_plot, scale, swatch

LONGEST = 1500  # characters of a text that are shown
_SHORT = {
    "length": "length", "alike": "length", "format": "form", "unknown": "no value", "falls": "over-optimized",
    "easy": "easy prompts",
}  # fmt: skip


def lead(bench: SignalBench) -> Html:
    """The page's first sentence: which signal to trust."""
    known = [one for one in bench.signals if one.trust not in ("unknown", "verdict")]
    good = [one for one in known if one.trust == "trust"]
    better = [one for one in known if one.trust == "care"]
    if not known:
        words = (
            "Nobody can tell which signal to trust: no prompt has both right and wrong answers that a signal scored."
        )
        return tag("p", words, class_="lead")
    one = good[0] if good else better[0] if better else known[0]
    name = tag("strong", one.name)
    if good:
        opening: list[object] = ["Trust ", name, ": it"]
    elif better:
        opening = ["No signal can be trusted without care. The best, ", name, ","]
    else:
        return tag("p", "No signal tells right answers from wrong ones better than chance.", class_="lead")
    ranked = [
        " ranks ",
        tag("strong", share(one.within.value)),
        " of right answers above wrong ones to the same prompt",
    ]
    if len(bench.ks) > 1:
        ranked += [
            f", and of {bench.n} answers the one it likes best is right in ", tag("strong", share(one.curve[-1])),
            f" of cases, where a single answer is right in {share(bench.rate)}",
        ]  # fmt: skip
        if bench.vote:
            ranked.append(f" and the majority vote in {share(bench.vote[-1])}")
    return tag("p", *opening, *ranked, ".", class_="lead")


def overview(bench: SignalBench) -> Html:
    """The first picture: one row a signal."""
    head = [
        "Signal", "Ranks right above wrong", f"Best of {bench.n}", "Calibration", "Length", "No value", "Cost",
        "Blind spots",
    ]  # fmt: skip
    body = [
        tag("tr", *(_cell(head[i], value, i) for i, value in enumerate(_row(bench, one))), class_=f"trust-{one.trust}")
        for one in bench.signals
    ]
    top = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    caption = (
        f"{count(bench.responses)} responses to {count(bench.prompts)} prompts; only the {count(bench.mixed)} prompts "
        "with right and wrong answers can rank anything; ties count half. "
        "A gray tick is what a coin would do; lines are 95% intervals over problems."
    )
    if bench.unknown:
        caption += f" Responses without a verdict are left out: {share(bench.unknown)}."
    return tag("table", tag("caption", caption), top, tag("tbody", *body), class_="overview")


def _cell(head: str, value: object, place: int) -> Html:
    if place == 0:
        return tag("th", value, scope="row")
    return tag("td", value, data_label=head)


def _row(bench: SignalBench, one: SignalReport) -> list[object]:
    within, gain, length = one.within, one.gain, one.length
    told = one.calibration
    auc = [tag("b", share(within.value)), _range(within.low, within.high, 100, "")]
    won = [tag("b", _points(gain.value)), _range(gain.low, gain.high, 100, "")]
    fitted = f"{_two(told.recalibrated_error)} recalibrated"
    cost = [_time(one.seconds)] + ([f"{one.tokens:.0f} tokens"] if math.isfinite(one.tokens) else [])
    return [
        join([tag("span", one.name, class_="name"), tag("span", WORDS[one.trust], class_="chip")]),
        join([tag("span", *auc, class_="figures"), scale(within, 0, 1, 0.5, f"AUC {share(within.value)}")]),
        join([tag("span", *won, class_="figures"), scale(gain, -0.5, 0.5, 0, f"gain {_points(gain.value)} points")]),
        join(
            [
                tag("b", f"off by {_two(told.error)}" if told.probability else "no probability"),
                tag("small", fitted),
            ]
        ),
        join(
            [
                tag("b", "–" if math.isnan(length.value) else f"{length.value:+.2f}".replace("-", "−")),
                scale(length, -1, 1, 0, f"rank correlation with length {length.value:.2f}"),
            ]
        ),
        tag("b", share(one.unknown), class_="loud" if one.unknown > 0.05 else None),
        tag("span", *(tag("span", part) for part in cost), class_="stack"),
        _spots(one),
    ]


def _spots(one: SignalReport) -> Html:
    hacks = [probe for probe in one.probes if probe.flag is not None]
    chips = []
    if hacks:
        severe = any(probe.flag == "right" for probe in hacks)
        words = f"pays {len(hacks)} of {len(one.probes) - 1} hacks"
        chips.append(tag("span", words, class_="spot hack" if severe else "spot"))
    kinds = [_SHORT[r.kind] for r in one.remarks if r.blind and r.kind in _SHORT]
    chips += [tag("span", kind, class_="spot") for kind in dict.fromkeys(kinds)]
    if not chips:
        words = "not probed" if not one.probes else "none found"
        return tag("span", words, class_="quiet")
    if not one.probes:
        chips.append(tag("span", "not probed", class_="quiet"))
    return tag("span", *chips, class_="spots")


def remarks_section(bench: SignalBench) -> Html:
    """What to know of each signal, in words."""
    rows = []
    for one in bench.signals:
        words = [tag("li", remark.text, class_="blind" if remark.blind else None) for remark in one.remarks]
        rows.append(tag("dt", one.name))
        why = tag("p", tag("strong", WORDS[one.trust]), f": {'; '.join(one.reasons)}.")
        rows.append(tag("dd", why, tag("ul", *words) if words else "Nothing else stands out."))
    return tag("dl", *rows, class_="remarks")


def curves_section(bench: SignalBench) -> Html:
    """What choosing by each signal buys."""
    words = (
        f"Averaged over all subsets of the samples, on the {count(bench.curve_prompts)} prompts with at least "
        f"{bench.n} of them. A curve that falls is a signal that more samples fool."
    )
    return join([tag("p", words), best_of_n_plot(bench)])


def calibration_section(bench: SignalBench) -> Html:
    """Whether scores mean what they say."""
    words = (
        "Each dot is an equal number of answers; its line is a Wilson 95% interval, the dashed diagonal what a "
        "probability promises. “Off by” is the binned error with chance taken out; recalibration is monotone, fitted "
        "on other problems, and changes no ranking."
    )
    return join([tag("p", words), tag("div", *map(reliability_plot, bench.signals), class_="smalls")])


def correlations_section(bench: SignalBench) -> Html:
    """Which signals say the same."""
    inner = "Within prompts: which answer is better. Two signals near +1 are one signal twice."
    outer = "Over all answers at once: what is easy counts too."
    tables = (matrix(bench.names, bench.within, inner), matrix(bench.names, bench.pooled, outer))
    return tag("div", *tables, class_="pair")


def steps_section(bench: SignalBench) -> Html:
    """Which signals know where an answer goes wrong."""
    rows = []
    for one in bench.signals:
        for step in one.steps:
            reading = "each step alone" if step.reading == "single" else "all up to a step"
            auc = step.auc
            rows.append(
                [
                    one.name,
                    reading,
                    share(auc.value),
                    scale(auc, 0, 1, 0.5, f"AUC {share(auc.value)}"),
                    number(step.f1.value),
                    share(step.on_wrong),
                    share(step.on_clean),
                    count(step.steps),
                ]
            )
    if not rows:
        words = (
            "No signal of steps or tokens was found beside steps whose truth is known. A task that checks steps, or a "
            "file with completions and labels, and a signal stream/NAME/tokens or stream/NAME/steps make this section."
        )
        return tag("p", words, class_="note")
    caption = (
        "Right against wrong steps of one response; and the first wrong step, found by a threshold chosen on the other "
        "half of the problems (F1: harmonic mean of the two columns after it)."
    )
    head = ["Signal", "Reads", "AUC", "", "F1", "Found, of wrong", "Left alone, of clean", "Steps"]
    return table(caption, head, rows, numeric=(2, 4, 5, 6, 7), class_="steps")


def probes_section(bench: SignalBench) -> Html:
    """What each signal pays for answers that say nothing."""
    probed = [one for one in bench.signals if one.probes]
    if not probed:
        words = (
            "No judge was at hand to score empty answers: columns of a file cannot be asked. Name the judges to probe."
        )
        return tag("p", words, class_="note")
    kinds = [kind for kind in ("wrong", *PROBES) if any(p.probe == kind for one in probed for p in one.probes)]
    rows = []
    for kind in kinds:
        found = [next((p for p in one.probes if p.probe == kind), None) for one in probed]
        name = PROBES.get(kind, "for comparison: median wrong answer")
        rows.append([name, *(_paid(p.over_right, p.flag) if p else "–" for p in found)])
    caption = (
        "Share of problems in which the judge pays an answer of no worth more than the median right answer. Bold: in "
        "most of them. Underlined: surely more than a wrong answer."
    )
    numeric = tuple(range(1, len(probed) + 1))
    return table(caption, ["", *(one.name for one in probed)], rows, numeric=numeric, class_="probes")


def _paid(value: float, flag: str | None) -> Html:
    return tag("span", share(value), class_=None if flag is None else f"paid-{flag}")


def examples_section(bench: SignalBench) -> Html:
    """Where each signal is most wrong."""
    parts: list[Html] = []
    for place, one in enumerate(bench.signals):
        if one.worst:
            title = tag("summary", swatch(place), tag("b", one.name), f" {len(one.worst)} prompts")
            attributes = {"open": "open"} if not parts else {}
            parts.append(tag("details", title, *map(_example, one.worst), **attributes))
    if not parts:
        return tag("p", "No signal puts a wrong answer above a right one to the same prompt.", class_="note")
    words = (
        "Prompts at which a signal liked a wrong answer best by the widest margin: what it sees, and what it misses."
    )
    return join([tag("p", words), *parts])


def _example(case: Disagreement) -> Html:
    sides = (
        (f"right, scored {number(case.right_score)}", case.right, "right"),
        (f"wrong, scored {number(case.wrong_score)}", case.wrong, "wrong"),
    )
    facts = [tag("span", case.problem)]
    if case.reference is not None:
        facts.append(tag("span", "reference ", tag("b", _cut(case.reference))))
    columns = (
        tag("div", tag("p", tag("span", words, class_=f"verdict {kind}"), class_="facts"), tag("pre", _cut(text)))
        for words, text, kind in sides
    )
    return tag(
        "article",
        tag("p", *facts, class_="facts"),
        tag("p", _cut(case.prompt), class_="prompt"),
        tag("div", *columns, class_="pair"),
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({count(len(text) - LONGEST)} characters more)"


def _two(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _points(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")


def _range(low: float, high: float, factor: float, unit: str) -> Html:
    if not (math.isfinite(low) and math.isfinite(high)):
        return inline("")
    words = f" {factor * low:.0f} to {factor * high:.0f}{unit}".replace("-", "−")
    return tag("small", words)


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "–"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return "<1 µs"


SECTIONS: Sequence[tuple[str, str, str]] = (
    ("result", "Which to trust", "Which to trust"),
    ("remarks", "Remarks", "What to know before using them"),
    ("best", "Best of N", "What choosing by them buys"),
    ("probe", "Hack probe", "What they pay for nothing"),
    ("calibration", "Calibration", "Whether scores mean what they say"),
    ("correlation", "Correlation", "Which say the same"),
    ("steps", "Steps", "Whether they know where an answer goes wrong"),
    ("examples", "Disagreements", "Where they are most wrong"),
)
