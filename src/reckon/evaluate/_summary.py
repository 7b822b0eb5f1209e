"""From a table of answers to numbers: what counts, what is left out, and how sure the rest is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reckon.evaluate._statistics import best_constant, majority_vote, pass_at_k, wilson
from reckon.types import Metrics


@dataclass(frozen=True, kw_only=True)
class Response:
    """One answer and its verdict: a row of an evaluation's table."""

    row: int  # counts responses
    group: int  # counts problems
    problem: str  # its id
    domain: str
    prompt: str  # a chat is flattened to "role: content" paragraphs
    answer: str | None  # the reference; None = nobody knows
    text: str
    outcome: float | None  # in [0, 1]; None = unknown
    parsed: str | None  # the answer read out of the text
    reason: str  # a `Reason`, or what a checker of the user's own says
    end: str  # "eos", "stop" or "length"
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]  # the text each token added
    logprobs: tuple[float, ...]
    sample: int  # which of the samples to its problem, from 0; 0 for a greedy answer
    greedy: bool
    streams: Mapping[str, float | None] = field(default_factory=dict)  # what rewards say of it; None = do not apply


@dataclass(frozen=True, kw_only=True)
class Item:
    """All that a policy answered to one problem."""

    problem: str
    domain: str
    prompt: str
    reference: str | None
    first: tuple[float | None, ...]  # outcomes that make pass@1: of the greedy answer, or of all samples without one
    sampled: tuple[float | None, ...]  # outcomes of the samples
    parsed: tuple[str | None, ...]  # answers read out of the samples

    @property
    def share(self) -> float | None:
        """Share of known verdicts that are right; None if all are unknown."""
        return _share(self.first)


def items(responses: Sequence[Response]) -> list[Item]:
    """Responses by problem, in the order of first sight."""
    by_problem: dict[str, list[Response]] = defaultdict(list)
    for response in responses:
        by_problem[response.problem].append(response)
    found = []
    for problem, mine in by_problem.items():
        sampled = [response for response in mine if not response.greedy]
        first = [response for response in mine if response.greedy] or sampled
        found.append(
            Item(
                problem=problem,
                domain=mine[0].domain,
                prompt=mine[0].prompt,
                reference=mine[0].answer,
                first=tuple(response.outcome for response in first),
                sampled=tuple(response.outcome for response in sampled),
                parsed=tuple(response.parsed for response in sampled),
            )
        )
    return found


def summarize(responses: Sequence[Response]) -> Metrics:
    """Every number of an evaluation, from its responses alone.

    A response is right if its outcome is 1. Unknown outcomes leave the denominator of every score, and are counted.

    Returns:
        "pass@1" with its Wilson 95% interval "low" and "high": of the greedy answers where there are any, else the mean
        over problems of the share of right samples. "items" (problems) and "items/unknown" (left out of pass@1).
        With samples beside greedy answers "sampled/pass@1". With at least two samples "majority" and unbiased
        "pass@k" for k = 2, 4, ... and their number, each with "pass@k/unknown": problems with fewer than k verdicts.
        "constant": the best constant answer, chosen with hindsight. Shares of all responses: "unparsable", "unknown",
        "truncated". "length/mean" in tokens. With more than one domain "domain/<name>/pass@1", "/low", "/high" and
        "/items". "stream/<name>" for what rewards said, the mean over the responses they apply to. A score of nothing
        is NaN.
    """
    found = items(responses)
    metrics = _first(found)
    if any(r.greedy for r in responses) and any(item.sampled for item in found):
        metrics["sampled/pass@1"] = _mean([_share(item.sampled) for item in found])
    metrics |= _voted(found)
    metrics["constant"] = best_constant([item.reference for item in found]).accuracy
    metrics["unparsable"] = _mean([r.parsed is None and r.outcome is not None for r in responses])
    metrics["unknown"] = _mean([r.outcome is None for r in responses])
    metrics["truncated"] = _mean([r.end == "length" for r in responses])
    metrics["length/mean"] = _mean([len(r.tokens) for r in responses])
    for name in responses[0].streams if responses else ():
        metrics[f"stream/{name}"] = _mean([r.streams[name] for r in responses])
    domains = sorted({item.domain for item in found})
    for domain in domains if len(domains) > 1 else ():
        part = _first([item for item in found if item.domain == domain])
        metrics |= {f"domain/{domain}/{name}": part[name] for name in ("pass@1", "low", "high", "items")}
    return metrics


def _first(found: Sequence[Item]) -> Metrics:
    shares = [item.share for item in found if item.share is not None]
    low, high = wilson(sum(shares), len(shares))
    return {
        "pass@1": _mean(shares),
        "low": low,
        "high": high,
        "items": float(len(found)),
        "items/unknown": float(len(found) - len(shares)),
    }


def _voted(found: Sequence[Item]) -> Metrics:
    most = max((len(item.sampled) for item in found), default=0)
    if most < 2:
        return {}
    metrics = {"majority": _mean([_majority(item) for item in found])}
    k = 2
    while k < 2 * most:
        tries = min(k, most)
        known = [[_right(o) for o in item.sampled if o is not None] for item in found]
        enough = [verdicts for verdicts in known if len(verdicts) >= tries]
        metrics[f"pass@{tries}"] = _mean([pass_at_k(len(verdicts), sum(verdicts), tries) for verdicts in enough])
        metrics[f"pass@{tries}/unknown"] = float(len(found) - len(enough))
        k *= 2
    return metrics


def _majority(item: Item) -> float | None:
    """Whether the most frequent answer is right; None = nobody knows."""
    choice = majority_vote(item.parsed)
    if choice is None:  # nothing could be read: wrong, unless even that is unknown
        return None if None in item.sampled else 0.0
    verdicts = [o for o, answer in zip(item.sampled, item.parsed, strict=True) if answer == choice and o is not None]
    return float(_right(verdicts[0])) if verdicts else None


def _share(outcomes: Sequence[float | None]) -> float | None:
    known = [_right(outcome) for outcome in outcomes if outcome is not None]
    return sum(known) / len(known) if known else None


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _right(outcome: float) -> bool:
    return outcome >= 1.0
