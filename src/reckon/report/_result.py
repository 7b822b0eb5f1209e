"""The page's first section: what training bought, as a sentence and as a table."""

from __future__ import annotations

import math

from reckon.evaluate import Comparison, Difference
from reckon.report._held_out import HeldOut, Score
from reckon.report._html import Html, count, inline, join, probability, share, table, tag


def result(found: HeldOut | None) -> Html:
    """The headline."""
    if found is None:
        words = "This run has no evaluation on held-out problems, so it cannot say whether training helped."
        hint = "Evaluate before and after training on the same problems to see it here."
        return join([tag("p", words, class_="lead"), tag("p", hint, class_="hint")])
    scores = [found.before] if found.after is None else [found.before, found.after]
    if all(score.items == score.unknown for score in scores):
        words = "Nobody knows how many answers to held-out problems are right: none of them has a verdict."
        hint = "Give some held-out problems reference answers, to be looked at and never trained on, to see it here."
        return join([tag("p", words, class_="lead"), tag("p", hint, class_="hint")])
    return join([*_words(found), _table(found, scores), *_notes(found, scores)])


def _words(found: HeldOut) -> list[Html]:
    before, after = found.before, found.after
    strong = [tag("strong", share(score.rate)) for score in (before, after) if score]
    problems = f"{count(before.items)} held-out problems"
    if after is None:
        sentence = tag(
            "p", "There is only one evaluation: at step ", count(before.step), ", ", strong[0], " of the answers to ",
            problems, " were right. Whether training helped cannot be said from it.", class_="lead",
        )  # fmt: skip
        return [sentence]
    if isinstance(found.change, str):
        sentence = tag(
            "p", strong[0], " of answers to held-out problems were right at step ", count(before.step), " and ",
            strong[1], " at step ", count(after.step), ".", class_="lead",
        )  # fmt: skip
        return [sentence, tag("p", "No test of the difference: ", found.change, class_="note")]
    change = found.change
    difference = change if isinstance(change, Difference) else change.difference
    shown = change.p < 0.05 if isinstance(change, Comparison) else change.low > 0 or change.high < 0
    verb = "left" if not shown else "raised" if difference.mean > 0 else "lowered"
    if verb == "left":
        opening = f"Training made no difference that {problems} could show: right answers went from "
    else:
        opening = f"Training {verb} the share of right answers on {problems} from "
    return [tag("p", opening, strong[0], " to ", strong[1], ".", class_="lead"), _test(change, difference)]


def _test(change: Comparison | Difference, difference: Difference) -> Html:
    low, high = points(difference.low), points(difference.high)
    told = f"That is {points(difference.mean)} percentage points (95% interval {low} to {high})"
    if isinstance(change, Difference):
        return tag("p", f"{told}, over {count(change.n)} problems, each with the share of its samples that are right.")
    words = (
        f"{told}: of the "
        f"{count(change.n)} problems with a verdict in both evaluations, {count(change.c)} became right and "
        f"{count(change.b)} became wrong; exact McNemar test on the same problems, p\u00a0=\u00a0"
    )
    return tag("p", words, probability(change.p), ".")


def _notes(found: HeldOut, scores: list[Score]) -> list[Html]:
    notes = []
    answer, accuracy = found.constant.answer, found.constant.accuracy
    if scores[-1].rate <= accuracy:
        words = (
            f"This is no better than always answering “{answer}”, which would be right {share(accuracy)} of the time."
        )
        notes.append(tag("p", words, class_="note"))
    return notes


def _table(found: HeldOut, scores: list[Score]) -> Html:
    how = "the likeliest answer to each problem" if found.greedy else "sampled answers"
    names = ["Before training" if scores[0].step == 0 else f"Step {scores[0].step}", "After training"]
    rows: list[list[object]] = []
    for name, score in zip(names if len(scores) == 2 else names[:1], scores, strict=True):
        interval = f"{share(score.low)} to {share(score.high)}"
        known = count(score.items - score.unknown)
        rows.append(
            [name, count(score.step), known, share(score.rate), interval, _interval(score.rate, score.low, score.high)]
        )
    if found.constant.answer is None:
        rows.append(["Best constant answer", "", "", "–", "no reference answers", ""])
    else:
        rate = found.constant.accuracy
        rows.append(["Best constant answer", "", "", share(rate), f"always “{found.constant.answer}”", _interval(rate)])
    if not isinstance(found.change, str):
        difference = found.change if isinstance(found.change, Difference) else found.change.difference
        interval = f"{points(difference.low)} to {points(difference.high)}"
        rows.append(["Difference, points", "", count(found.change.n), points(difference.mean), interval, ""])
    ticks = tag("span", *(tag("span", f"{tick}%") for tick in (0, 25, 50, 75, 100)), class_="ticks", aria_hidden="true")
    caption = f"pass@1 on the split “{found.split}”: {how}, with Wilson 95% intervals."
    if any(score.unknown for score in scores):
        left_out = " and ".join(count(score.unknown) for score in scores)
        caption += f" Problems whose verdict is unknown are left out: {left_out}."
    head = ["", "Step", "Problems", "Right", "95% interval", ticks]
    return table(caption, head, rows, numeric=(1, 2, 3), class_="forest")


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    if not math.isfinite(difference):
        return "unbounded"
    return f"{100 * difference:+.1f}".replace("-", "−")


def _interval(rate: float, low: float | None = None, high: float | None = None) -> Html:
    """A dot on a scale from 0 to 100%, its interval a bar; without one a tick that stands for a fixed number."""
    if math.isnan(rate):
        return Html("")
    lines = [
        f'<path class="grid" d="M{tick} 0V10" vector-effect="non-scaling-stroke"/>' for tick in (0, 25, 50, 75, 100)
    ]
    if low is not None and high is not None:
        bar = f"M{100 * low:.2f} 5H{100 * high:.2f}"
        lines.append(f'<path class="span" d="{bar}" vector-effect="non-scaling-stroke"/>')
        lines.append(f'<path class="dot" d="M{100 * rate:.2f} 5h0" vector-effect="non-scaling-stroke"/>')
    else:
        lines.append(f'<path class="mark" d="M{100 * rate:.2f} 0V10" vector-effect="non-scaling-stroke"/>')
    start = f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{inline(share(rate))}">'
    return Html(f"{start}{''.join(lines)}</svg>")
