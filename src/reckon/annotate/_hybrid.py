"""Labels from several cheap annotators that check each other."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias, get_args

from reckon.annotate._agreement import Against, Agreement, against_gold, agreement
from reckon.annotate._calls import Called, gather
from reckon.errors import InputError
from reckon.tasks import verdict_on
from reckon.types import Problem, Rollouts, Task

AnnotationPolicy: TypeAlias = Literal["unanimous", "majority", "any"]


@dataclass(frozen=True, kw_only=True)
class Triple:
    """A question, its reference answer, and a completion to be judged."""

    problem: Problem  # the question, and with `answer` the reference
    completion: str
    gold: bool | None = None  # the truth, where somebody knows it; no verifier may read it


# True = right, False = wrong, None = abstains.
Verifier: TypeAlias = Callable[[Triple], "bool | Awaitable[bool | None] | None"]
Ask: TypeAlias = Callable[[str], "str | Awaitable[str]"]  # a prompt to a language model's answer

JUDGE = (
    "Question:\n{question}\n\nReference answer:\n{reference}\n\nSolution:\n{completion}\n\n"
    "Does the solution end in the reference answer, in whatever form? Reply with Yes or No."
)


@dataclass(frozen=True)
class TaskVerifier:
    """A task's checker as a verifier: abstains where the verdict is unknown; partial credit is wrong."""

    task: Task

    def __call__(self, triple: Triple) -> bool | None:
        """The verdict."""
        outcome = verdict_on(self.task, triple.problem, triple.completion).outcome
        return None if outcome is None else outcome == 1


@dataclass(frozen=True)
class AskedVerifier:
    """A language model as a verifier: its last Yes or No counts, and without either it abstains.

    `ask` takes a prompt and gives the answer's text; it may be `async def`. The template may name `{question}`,
    `{reference}` and `{completion}`.
    """

    ask: Ask
    template: str = JUDGE

    def __post_init__(self) -> None:
        fill(self.template, Triple(problem=Problem(id="", prompt=""), completion=""))

    async def __call__(self, triple: Triple) -> bool | None:
        """The verdict."""
        reply = self.ask(fill(self.template, triple))
        return said_yes(reply if isinstance(reply, str) else await reply)


def fill(template: str, triple: Triple) -> str:
    """A template with a triple's question, reference and completion put in.

    Raises:
        InputError: it names something else.
    """
    values = {
        "question": triple.problem.prompt_text,
        "reference": triple.problem.answer or "",
        "completion": triple.completion,
    }
    # Not str.format: braces of LaTeX in the template, or in what is put in, are no fields.
    names = set(re.findall(r"\{([a-z_]+)\}", template)) - set(values)
    if names:
        raise InputError(
            f"the template names {{{min(names)}}}; it may name {{question}}, {{reference}}, {{completion}}."
        )
    return re.sub(r"\{(question|reference|completion)\}", lambda match: values[match[1]], template)


def said_yes(reply: str) -> bool | None:
    """What the last Yes or No of a reply says, in any letter case; None without one."""
    said = re.findall(r"\b(yes|no)\b", reply, re.IGNORECASE)
    return None if not said else said[-1].casefold() == "yes"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one verifier did."""

    name: str
    accepted: int
    rejected: int
    abstained: int  # said so itself
    raised: int  # failed, which counts as abstaining
    timed_out: int  # as well
    first_error: str = ""  # what the first failure said
    gold: Against | None = None


@dataclass(frozen=True, kw_only=True)
class AnnotationReport:
    """How the annotators agreed, what was kept, and how right both were where the truth is known."""

    n: int
    kept: int
    accepted: int  # of the kept, labeled right
    tallies: tuple[Tally, ...]
    pairs: tuple[Agreement, ...]  # every two verifiers
    labels_gold: Against | None  # the labels given, those not kept counted as abstained

    @property
    def kept_rate(self) -> float:
        """The share of triples that got a label; 0 if there was none."""
        return self.kept / self.n if self.n else 0.0

    def __str__(self) -> str:
        lines = [f"{self.kept} of {self.n} kept ({100 * self.kept_rate:.1f}%), {self.accepted} of them labeled right"]
        for tally in self.tallies:
            line = f"{tally.name}: {tally.accepted} accepted, {tally.rejected} rejected, {tally.abstained} abstained"
            line += f", {tally.raised} raised" * bool(tally.raised) + f", {tally.timed_out} timed out" * bool(
                tally.timed_out
            )
            lines.append(line + (f" ({tally.first_error})" if tally.first_error else "") + _told(tally.gold))
        for pair in self.pairs:
            lines.append(
                f"{pair.first} and {pair.second}: both accept {pair.both}, only {pair.first} {pair.only_first}, only "
                f"{pair.second} {pair.only_second}, both reject {pair.neither}; agreement {pair.rate:.3f}, kappa "
                f"{pair.kappa:.3f}"
            )
        if self.labels_gold is not None:
            lines.append("labels" + _told(self.labels_gold))
        return "\n".join(lines)


def _told(gold: Against | None) -> str:
    if gold is None:
        return ""
    return f"; against gold: precision {gold.precision:.3f}, recall {gold.recall:.3f} (n = {gold.n})"


def annotate(
    triples: Sequence[Triple],
    verifiers: Mapping[str, Verifier] | Sequence[Verifier],
    policy: AnnotationPolicy = "unanimous",
    *,
    workers: int = 1,
    seconds: float | None = None,
) -> tuple[list[Triple], list[bool], AnnotationReport]:
    """Labels triples by several verifiers, and keeps those whose label the policy trusts.

    Hong et al. 2025, arXiv:2508.05613 (Cooper), keep what a rule and a language model agree on ("unanimous"): no human
    label is needed. An abstention, a failure or a time-out is no agreement.

    Args:
        triples: what is to be labeled.
        verifiers: by name, or in a list, named by themselves.
        policy: "unanimous": all gave the same verdict. "majority": more than half of all verifiers, those that
            abstained included, gave it. "any": someone gave a verdict; right if anyone accepts (for verifiers that are
            seldom wrong when they accept, but often reject what is right).
        workers: the most calls of one verifier at a time.
        seconds: the most one call may take; None = no limit. A plain function that hangs is left behind in its thread.

    Returns:
        The kept triples in order, their labels, and the report.

    Raises:
        InputError: there is no verifier, two share a name, the policy is unknown, or a verifier gave something that is
            not True, False or None.
    """
    named = _named(verifiers)
    if policy not in get_args(AnnotationPolicy):
        raise InputError(f"`policy` is {policy!r}; it must be one of {', '.join(get_args(AnnotationPolicy))}.")
    found = {name: gather(verifier, triples, workers=workers, seconds=seconds) for name, verifier in named.items()}
    for name, called in found.items():
        for row, one in enumerate(called):
            if one.value is not None and not isinstance(one.value, bool):
                raise InputError(f"the verifier {name!r} gave {one.value!r} for triple {row}, not True, False or None.")
    verdicts = {name: [one.value for one in called] for name, called in found.items()}
    labels = [_label(row, policy) for row in zip(*verdicts.values(), strict=True)]
    gold = [triple.gold for triple in triples]
    known = any(truth is not None for truth in gold)
    kept = [(triple, label) for triple, label in zip(triples, labels, strict=True) if label is not None]
    report = AnnotationReport(
        n=len(triples),
        kept=len(kept),
        accepted=sum(label for _, label in kept),
        tallies=tuple(_tally(name, found[name], gold if known else None) for name in named),
        pairs=tuple(agreement(verdicts[a], verdicts[b], (a, b)) for a, b in combinations(named, 2)),
        labels_gold=against_gold(labels, gold) if known else None,
    )
    return [triple for triple, _ in kept], [label for _, label in kept], report


def triples_of(rollouts: Rollouts) -> list[Triple]:
    """A triple for each response."""
    return [Triple(problem=rollouts.problem(row), completion=text) for row, text in enumerate(rollouts.text)]


def _named(verifiers: Mapping[str, Verifier] | Sequence[Verifier]) -> dict[str, Verifier]:
    if isinstance(verifiers, Mapping):
        named = dict(verifiers)
    else:
        names = [str(getattr(verifier, "__name__", type(verifier).__name__)) for verifier in verifiers]
        twice = sorted(name for name in set(names) if names.count(name) > 1)
        if twice:
            raise InputError(
                f"two verifiers are called {twice[0]!r}; give them names: annotate(triples, {{NAME: ...}})."
            )
        named = dict(zip(names, verifiers, strict=True))
    if not named:
        raise InputError("there is no verifier; give at least one.")
    return named


def _label(verdicts: Sequence[bool | None], policy: AnnotationPolicy) -> bool | None:
    yes, no = sum(verdict is True for verdict in verdicts), sum(verdict is False for verdict in verdicts)
    if policy == "any":
        return None if yes + no == 0 else yes > 0
    needed = len(verdicts) if policy == "unanimous" else len(verdicts) // 2 + 1
    return True if yes >= needed else False if no >= needed else None


def _tally(name: str, called: Sequence[Called[bool | None]], gold: Sequence[bool | None] | None) -> Tally:
    values = [one.value for one in called]
    failed = [one for one in called if one.failure is not None]
    return Tally(
        name=name,
        accepted=sum(value is True for value in values),
        rejected=sum(value is False for value in values),
        abstained=sum(one.value is None and one.failure is None for one in called),
        raised=sum(one.failure == "raised" for one in failed),
        timed_out=sum(one.failure == "timed out" for one in failed),
        first_error=failed[0].error if failed else "",
        gold=None if gold is None else against_gold(values, gold),
    )
