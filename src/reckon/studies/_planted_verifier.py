"""A verifier of the planted sequence that is learned from rollouts: labels, network, and the judge made of it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from reckon.annotate import Budget, Drawing, FirstPit, Labels, label_first_pits, label_prefixes
from reckon.errors import InputError
from reckon.fit import Calibration, Plan, Prefix, by_buckets, recalibrate, schedule, shuffled
from reckon.preferences import step_ce
from reckon.steps import Pattern
from reckon.studies._planted import END, FOUND, LENGTH, NEXT, WORDS, Planted, TableContinues, prover, states
from reckon.studies._planted_policy import NetworkPolicy, centered
from reckon.types import Batch, Rng, Rollouts, Stream

Seeds: TypeAlias = Literal["random", "first pit", "both"]

GAMMA = 10.0  # of the prover, unless another is asked for
HIDDEN, BATCH, LR = 32, 64, 3e-3
HELD, LOOK = 5, 20  # every fifth trace is held back, and looked at every 20 steps
TOGETHER = 8  # seeds of one hunt for pits
# A step is a token, which the task writes with a space behind it.
STEP = Pattern(r" ")
# No beginning that is not right yet is worth more than 0.43 here, so the usual threshold of 0.5 would be passed by luck
# alone. With 4 looks, 0.2 asks for one success.
HUNT = FirstPit(n_rough=4, tau_high=0.2, per_state=1)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a label budget bought."""

    traces: tuple[tuple[Prefix, ...], ...]  # the labels of each trace
    rollouts: int  # spent, seeds and rough looks included


def draw_labels(seeds: Seeds, n_mc: int, rollouts: int, rng: Rng, gamma: float = GAMMA) -> Drawn:
    """Labels prefixes of the prover with its own completions, until the next trace might not fit the budget.

    Args:
        seeds: "random": every prefix of the prover's responses. "first pit": those of wrong completions up to the first
            prefix from which nothing went right, and, as they cost nothing more, the right ones among the seeds.
            "both": half of the budget for each.
        n_mc: completions of each prefix.
        rollouts: the budget.
        rng: names the random numbers.
        gamma: of the prover.
    """
    half = rollouts // 2
    parts: Iterator[Part]
    if seeds == "random":
        parts = _random(gamma, n_mc, rollouts, rng)
    elif seeds == "first pit":
        parts = _pits(gamma, n_mc, rollouts, rng)
    else:
        first, second = rng.child("random"), rng.child("pit")
        parts = chain(_random(gamma, n_mc, half, first), _pits(gamma, n_mc, rollouts - half, second))
    traces: list[tuple[Prefix, ...]] = []
    spent = 0
    for extra, labels in parts:
        traces += [*extra, *_traces(labels)]
        spent += labels.cost.rollouts
    return Drawn(traces=tuple(traces), rollouts=spent)


Part: TypeAlias = "tuple[list[tuple[Prefix, ...]], Labels]"


def _drawing(gamma: float) -> Drawing:
    """The end is a token of its own, and nothing is cut."""
    return Drawing(policy_id=f"mu_{gamma:g}", cut="checked")


def _random(gamma: float, n_mc: int, left: int, rng: Rng) -> Iterator[Part]:
    """As many seeds as are sure to fit, and again, for most are shorter than the longest."""
    task, policy = Planted(), TableContinues(prover(gamma), one_step=False)
    turn = 0
    while count := left // (1 + LENGTH * n_mc):
        drawn = policy.sample(task.problems("train"), count, rng.child("seeds", turn))
        labels = label_prefixes(policy, task, drawn, STEP, n_mc, rng.child("labels", turn), drawing=_drawing(gamma))
        left, turn = left - labels.cost.rollouts, turn + 1
        yield [], labels


def _pits(gamma: float, n_mc: int, left: int, rng: Rng) -> Iterator[Part]:
    """A few seeds and all their pits, and again."""
    task, policy = Planted(), TableContinues(prover(gamma), one_step=False)
    turn, left_out = 0, 0
    while left >= TOGETHER and not left_out:
        drawn = policy.sample(task.problems("train"), TOGETHER, rng.child("seeds", turn))
        budget = Budget(rollouts=left)
        names = rng.child("labels", turn)
        labels = label_first_pits(
            policy, task, drawn, STEP, n_mc, names, hunt=HUNT, drawing=_drawing(gamma), budget=budget
        )
        left, turn, left_out = left - labels.cost.rollouts, turn + 1, labels.left_out
        yield _right(drawn, task), labels


def _right(drawn: Rollouts, task: Planted) -> list[tuple[Prefix, ...]]:
    """The right responses, without their ends, as labels of their own: 1."""
    rows = zip(drawn.seq.tokens.tolist(), drawn.seq.mask.sum(dim=1).tolist(), drawn.text, strict=True)
    return [
        (Prefix(problem=drawn.problems[0], text=text, q=1.0, tokens=tuple(t for t in tokens[:size] if t != END)),)
        for tokens, size, text in rows
        if task.check(drawn.problems[0], text).outcome
    ]


def _traces(labels: Labels) -> list[tuple[Prefix, ...]]:
    """The labels by trace, but those of wrong responses that ended of themselves.

    What was not completed but checked (n_drawn = 0) is a whole response. Here the end is a step like any other: before
    it, the text could have gone on, and the verdict on the response is not its value.
    """
    traces: dict[int, list[Prefix]] = {}
    for record in labels:
        if record.n_drawn or record.outcome or not record.ended:
            row = Prefix(problem=record.problem, text=record.text, q=record.q_hat, tokens=record.tokens)
            traces.setdefault(record.trace, []).append(row)
    return [tuple(trace) for trace in traces.values()]


class Verifier(nn.Module):
    """Reads a response token by token (GRU, Cho et al. 2014) and says after each how likely the prover will be right.

    What it says of a finished response is not asked: that is checked.
    """

    def __init__(self, seed: int) -> None:
        """Draws the weights from `seed`, whatever the global random state is."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.token = nn.Embedding(WORDS + 1, HIDDEN)  # the last one opens
            self.place = nn.Embedding(LENGTH + 1, HIDDEN)
            self.reader = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
            self.head = nn.Linear(HIDDEN, 1)
        self.calibration = Calibration()

    def _read(self, tokens: Tensor) -> Tensor:
        """[n, T + 1, HIDDEN]: before the first token, and after each."""
        opened = torch.cat([tokens.new_full((len(tokens), 1), WORDS), tokens], dim=1)
        read: Tensor = self.reader(self.token(opened) + self.place(torch.arange(opened.shape[1])))[0]
        return read

    def logits(self, tokens: Tensor) -> Tensor:
        """[n, T + 1] float32, uncalibrated: column h after h of the tokens [n, T]; carries the gradient."""
        found: Tensor = self.head(self._read(tokens))[:, :, 0]
        return found

    def values(self, tokens: Tensor) -> Tensor:
        """[n, T + 1] float32: the chances of success."""
        with torch.no_grad():
            return self.calibration(self.logits(tokens))

    def after_each(self, tokens: Tensor) -> Tensor:
        """[n, T, WORDS] float32: the chances after each token in the place of the one at t; T is LENGTH.

        Where that token ends the response, or is the last there may be, it is the verdict.
        """
        n, size = tokens.shape
        every = torch.arange(WORDS)
        with torch.no_grad():
            before = self._read(tokens)[:, :-1, None].expand(-1, -1, WORDS, -1).reshape(1, -1, HIDDEN)
            then = self.token(every) + self.place(torch.arange(1, size + 1))[:, None]
            after = self.reader(then.expand(n, -1, -1, -1).reshape(-1, 1, HIDDEN), before.contiguous())[1]
            worth: Tensor = self.calibration(self.head(after[0])).reshape(n, size, WORDS)
        right = (NEXT[states(tokens)[:, :-1]] == FOUND).float()
        over = (every == END) | (torch.arange(size)[:, None] == LENGTH - 1)
        return torch.where(over, right, worth)


def fit_verifier(drawn: Drawn, steps: int, rng: Rng, *, balanced: bool = False) -> Verifier:
    """Learns from labels by their cross-entropy, and keeps the weights that do best on traces that were held back.

    Args:
        drawn: the labels.
        steps: of Adam.
        rng: names first weights and order.
        balanced: False: BATCH whole traces a step. True: BATCH prefixes, with labels below 0.5 and above equally often,
            which is undone on the traces held back (section 4 of the paper). If they cannot tell, it stays.
    """
    verifier = Verifier(rng.child("weights").integer() % 2**31)
    held = _tensors([trace for i, trace in enumerate(drawn.traces) if (i + 1) % HELD == 0])
    rows = [trace for i, trace in enumerate(drawn.traces) if (i + 1) % HELD]
    if balanced:
        rows = [(label,) for trace in rows for label in trace]
    tokens, target = _tensors(rows)
    epochs = ceil(steps / ceil(len(rows) / BATCH))
    plan = Plan(epochs=epochs, batch=BATCH, seed=rng.child("order").integer() % 2**31)
    adam = torch.optim.Adam(verifier.parameters(), lr=LR)
    best, kept = float("inf"), verifier
    batches = schedule([row[0] for row in rows], plan, by_buckets if balanced else shuffled)[:steps]
    for step, places in enumerate(batches):
        loss = _cross_entropy(verifier.logits(tokens[places]), target[places])
        adam.zero_grad()
        loss.backward()
        adam.step()
        if (step + 1) % LOOK == 0 or step + 1 == steps:
            now = copy.deepcopy(verifier)
            loss_held = _look(now, held, balanced)
            if loss_held < best:
                best, kept = loss_held, now
    return kept


def _look(verifier: Verifier, held: tuple[Tensor, Tensor], balanced: bool) -> float:
    """The cross-entropy on what was held back; if `balanced`, after calibration there."""
    tokens, target = held
    with torch.no_grad():
        logits = verifier.logits(tokens)
    if balanced:
        known = ~target.isnan()
        with contextlib.suppress(InputError):
            verifier.calibration = recalibrate(logits[known], target[known])
        logits = logits / verifier.calibration.temperature + verifier.calibration.bias
    return float(_cross_entropy(logits, target))


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over the labels; both are [n, LENGTH + 1], the target NaN where there is none."""
    known = ~target.isnan()
    return step_ce(logits, target, known).sum() / known.sum()


def _tensors(traces: Sequence[Sequence[Prefix]]) -> tuple[Tensor, Tensor]:
    """Tokens [n, LENGTH], padded with 0, and labels [n, LENGTH + 1] float32, column h after h tokens, NaN = none."""
    tokens = torch.zeros(len(traces), LENGTH, dtype=torch.int64)
    target = torch.full((len(traces), LENGTH + 1), torch.nan)
    for i, trace in enumerate(traces):
        for label in trace:  # each the beginning of the next
            row = label.tokens or ()
            tokens[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
            target[i, len(row)] = label.q
    return tokens, target


class LearnedJudge:
    """The verdict, and what each step did to the prover's chance of success as a verifier sees it.

    What `exact_judge` reads from the table it does not know: only a response that is over is checked.
    """

    def __init__(self, policy: NetworkPolicy, verifier: Verifier, alpha: float) -> None:
        """Takes the verifier.

        Args:
            policy: whose mean is taken off.
            verifier: of the prover's values.
            alpha: multiplies the advantages.
        """
        self._policy, self._verifier, self._alpha = policy, verifier, alpha

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One number for the response, and one for each token."""
        tokens = batch.seq.tokens
        values = self._alpha * centered(self._policy, tokens, self._verifier.after_each(tokens))
        return {"correct": Stream(values=batch.outcome), "step": Stream(values=values, kind="advantage")}

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`: nothing is learned here."""
        del rng
        return self.score(batch)
