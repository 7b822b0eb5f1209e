"""A policy that is a table of logits: the papers' exact experiments, through the same loop, in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor

from reckon.errors import InputError
from reckon.models._settings import Optimization
from reckon.models._update import update
from reckon.types import (
    Batch,
    Columns,
    Credit,
    End,
    Loss,
    Metrics,
    Model,
    Objective,
    Outputs,
    Problem,
    Rng,
    Rollouts,
    Sequences,
    State,
    Want,
)

Optimizer: TypeAlias = Callable[[list[Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class Action:
    """One thing a table can answer, as a response of `length` tokens.

    The first token chooses the action and carries its log-probability; the others follow from it with probability 1,
    so that lengths count as they do for a language model. An objective that divides by a response's length therefore
    divides this action's gradient too.
    """

    # What the response says. A function leaves it to the world: it gets a number drawn from [0, 1), and the policy
    # neither knows nor controls what comes out, as when a way of answering is right only some of the time.
    text: str | Callable[[Problem, float], str]
    length: int = 1  # in tokens, its end token included
    end: End = End.EOS

    def __post_init__(self) -> None:
        if self.length < 1:
            raise InputError(f"an action's `length` is {self.length}, but a response has at least 1 token.")


def draw(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Draws by inverting cumulative distributions, which are added up in float64.

    Args:
        probabilities: [G, A], at least 0; each row counts up to a factor.
        uniforms: [G, k] float64 in [0, 1).

    Returns:
        [G, k] int64: the actions.
    """
    heights = probabilities.double().cumsum(dim=1)
    return torch.searchsorted(heights, uniforms * heights[:, -1:], right=True).clamp_(max=probabilities.shape[1] - 1)


class TablePolicy:
    """A softmax over A actions, one row of logits for each context, as a `Policy`.

    Tokens are the numbers of the actions, and A for every token that follows from one. The temperature is 1.

    With `values` it is a critic too, exact in what it can say: a number for each context before the choice, and one for
    each context and action after it.
    """

    def __init__(
        self,
        actions: Sequence[Action],
        logits: Tensor,
        *,
        optimizer: Optimizer,
        contexts: Sequence[str] | None = None,
        epochs: int = 1,
        minibatches: int = 1,
        values: bool = False,
    ) -> None:
        """Starts from given logits.

        Args:
            actions: what can be answered, A of them.
            logits: [A], or [C, A] with `contexts`; float32, finite, natural log up to a constant for each row.
            optimizer: makes the optimizer from the table, [logits] or [logits, values]: `partial(torch.optim.SGD,
                lr=0.5)`.
            contexts: the C prompts that have a row of their own. Left out, all prompts share the one row.
            epochs: passes over a batch.
            minibatches: optimizer steps a pass.
            values: keep values as well, 0 at first.

        Raises:
            InputError: if sizes do not fit, a logit is not finite, or a context stands twice.
        """
        rows = 1 if contexts is None else len(contexts)
        wanted = (len(actions),) if contexts is None else (rows, len(actions))
        if tuple(logits.shape) != wanted or 0 in wanted:
            raise InputError(
                f"a table of {len(actions)} actions needs logits of shape {wanted}, not {tuple(logits.shape)}."
            )
        if not bool(torch.isfinite(logits).all()):
            raise InputError("a logit is not finite; for a probability near 0 give a low logit, such as -20.")
        if contexts is not None and len(set(contexts)) < rows:
            raise InputError("a context stands twice in `contexts`; give each prompt one row.")
        self.actions = tuple(actions)
        self.contexts = None if contexts is None else tuple(contexts)
        self.logits = logits.detach().clone().float().reshape(rows, -1).requires_grad_()
        # [C, 1 + A]: before the choice, then after each action.
        self.values = torch.zeros(rows, 1 + len(actions), requires_grad=True) if values else None
        self.epochs, self.minibatches = epochs, minibatches
        self._make_optimizer = optimizer
        self._optimizer = optimizer(list(self._tables().values()))
        self._lengths = torch.tensor([action.length for action in self.actions])
        self._ends = torch.tensor([int(action.end) for action in self.actions])

    def probabilities(self) -> Tensor:
        """[C, A] float32, each row sums to 1: the law of the answers, for exact expectations."""
        return self.logits.detach().softmax(dim=1)

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Answers each of G problems k times.

        The draws invert the cumulative distribution at numbers that depend on `rng` alone, so two tables with the same
        `rng` differ no more than their probabilities do.

        Raises:
            InputError: if prefixes are given (an action is chosen whole), or a prompt is not in `contexts`.
        """
        if prefixes is not None and any(len(prefix) for prefix in prefixes):
            raise InputError("a table of logits cannot continue a prefix: it chooses each response whole.")
        rows = self._rows(problems)
        uniforms = torch.from_numpy(rng.child("action").numpy().random((len(problems), k)))
        chosen = draw(self.probabilities()[rows], uniforms)
        return self._rollouts(problems, rows, chosen, rng.child("text"), likeliest=False)

    def greedy(self, problems: Sequence[Problem]) -> Rollouts:
        """The likeliest action: one response to each problem. What the world draws, it draws alike each time."""
        rows = self._rows(problems)
        chosen = self.logits.detach()[rows].argmax(dim=1, keepdim=True)
        return self._rollouts(problems, rows, chosen, Rng(("greedy",)), likeliest=True)

    def _rows(self, problems: Sequence[Problem]) -> Tensor:
        """[G] int64: each problem's row of the table."""
        if self.contexts is None:
            return torch.zeros(len(problems), dtype=torch.int64)
        places = {context: row for row, context in enumerate(self.contexts)}
        for problem in problems:
            if not isinstance(problem.prompt, str) or problem.prompt not in places:
                raise InputError(f"the prompt of problem {problem.id!r} has no row in the table; add it to `contexts`.")
        return torch.tensor([places[str(problem.prompt)] for problem in problems])

    def _rollouts(
        self, problems: Sequence[Problem], rows: Tensor, chosen: Tensor, rng: Rng, *, likeliest: bool
    ) -> Rollouts:
        """The responses for actions `chosen` [G, k] int64; `likeliest` marks that they were not drawn."""
        k = chosen.shape[1]
        flat = chosen.flatten()
        lengths = self._lengths[flat]
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        tokens = torch.where(mask, len(self.actions), 0)
        tokens[:, 0] = flat
        luck = rng.numpy().random(len(flat)).tolist()
        text = tuple(
            action.text if isinstance(action.text, str) else action.text(problems[i // k], luck[i])
            for i, action in enumerate(self.actions[a] for a in flat.tolist())
        )
        seq = Sequences(
            prompts=tuple(row[None] for row in rows),
            group=torch.arange(len(problems)).repeat_interleave(k),
            tokens=tokens,
            mask=mask,
        )
        logprobs = self.outputs(seq).logprobs
        assert logprobs is not None
        return Rollouts(
            seq=seq,
            problems=tuple(problems),
            text=text,
            pieces=tuple((words, *[""] * (n - 1)) for words, n in zip(text, lengths.tolist(), strict=True)),
            logprobs=logprobs,
            end=self._ends[flat],
            truncated=likeliest,
        )

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """Log-probs and entropy of responses, 0 on tokens that follow from the first, and values; without gradients.

        Raises:
            InputError: for scores or hidden states, which a table does not have, or values that were not asked for.
        """
        with torch.no_grad():
            return self._forward(seq, tuple(want))

    def step(self, seq: Sequences, columns: Columns, loss: Loss, want: Iterable[Want] = ("logprobs",)) -> Metrics:
        """One optimizer step on the sum of `loss` over all rows.

        Returns:
            "policy/loss", "policy/grad_norm" (of logits and values together), "policy/lr", and whatever the loss's own
            `diagnostics(outputs, columns)` adds up to, if it has one.
        """
        self._optimizer.zero_grad()
        outputs = self._forward(seq, tuple(want))
        value = loss(outputs, columns).sum()
        value.backward()
        squares = [table.grad.square().sum() for table in self._tables().values() if table.grad is not None]
        metrics = {
            "policy/loss": float(value.detach()),
            "policy/grad_norm": float(torch.stack(squares).sum().sqrt()),
            "policy/lr": float(self._optimizer.param_groups[0]["lr"]),
        }
        diagnose = getattr(loss, "diagnostics", None)
        if diagnose is not None:
            metrics |= {f"policy/{name}": float(number) for name, number in diagnose(outputs, columns).items()}
        self._optimizer.step()
        return metrics

    def update(self, objective: Objective, batch: Batch, credit: Credit, rng: Rng) -> Metrics:
        """Learns from a batch in `epochs` passes of `minibatches` steps."""
        return update(self, objective, batch, credit, rng, epochs=self.epochs, minibatches=self.minibatches)

    def _forward(self, seq: Sequences, want: tuple[Want, ...]) -> Outputs:
        for name in ("values", "scores", "hidden"):
            if name in want and (name != "values" or self.values is None):
                raise InputError(
                    f"{name} were asked of a table of logits, which has none; choose parts that need none"
                    + (", or give the table values=True." if name == "values" else ".")
                )
        rows = torch.cat(seq.prompts)[seq.group]
        laws = self.logits.log_softmax(dim=1)[rows]  # [n, A]
        first = laws.gather(1, seq.tokens[:, :1])  # [n, 1]
        entropy = -(laws.exp() * laws).sum(dim=1, keepdim=True)
        rest = (0, seq.tokens.shape[1] - 1)
        return Outputs(
            logprobs=torch.nn.functional.pad(first, rest) if "logprobs" in want else None,
            entropy=torch.nn.functional.pad(entropy, rest) if "entropy" in want else None,
            values=self._values(rows, seq.tokens) if "values" in want else None,
        )

    def _values(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """[n, T]: before the first token the context's value, before the others that of context and action."""
        assert self.values is not None
        states = torch.where(torch.arange(tokens.shape[1]) == 0, 0, 1 + tokens[:, :1])
        return self.values[rows].gather(1, states)

    def _tables(self) -> dict[str, Tensor]:
        """What learns, by name."""
        return {"logits": self.logits} | ({} if self.values is None else {"values": self.values})

    def reference(self) -> TablePolicy:
        """A copy as the table is now, which later steps leave alone."""
        logits = self.logits.detach()
        return TablePolicy(
            self.actions,
            logits[0] if self.contexts is None else logits,
            optimizer=self._make_optimizer,
            contexts=self.contexts,
        )

    def twin(self, optimizer: Optimization) -> TablePolicy:
        """A second table that begins as this one is now and learns by itself, with AdamW.

        Raises:
            InputError: a schedule, a warm-up or a clipped gradient, none of which a table has.
        """
        if optimizer.schedule != "constant" or optimizer.warmup or optimizer.clip is not None:
            raise InputError(
                "a table learns at a constant rate from unclipped gradients: give its twin an optimizer with "
                "schedule='constant', warmup=0 and clip=None."
            )
        logits = self.logits.detach()
        return TablePolicy(
            self.actions,
            logits[0] if self.contexts is None else logits,
            optimizer=partial(
                torch.optim.AdamW,
                lr=optimizer.lr,
                betas=(optimizer.beta1, optimizer.beta2),
                weight_decay=optimizer.weight_decay,
            ),
            contexts=self.contexts,
            epochs=optimizer.epochs,
            minibatches=optimizer.minibatches,
        )

    def copy_from(self, other: Model) -> None:
        """Takes over the logits of a table of the same size; values and optimizer are left alone."""
        logits = other.state_dict()["logits"]
        assert isinstance(logits, Tensor)
        with torch.no_grad():
            self.logits.copy_(logits)

    def state_dict(self) -> State:
        """The tables and their optimizer's moments."""
        return {name: table.detach().clone() for name, table in self._tables().items()} | {
            "optimizer": {
                name: {key: x.clone() for key, x in moments.items() if isinstance(x, Tensor)}
                for name, table in self._tables().items()
                if (moments := self._optimizer.state.get(table))
            }
        }

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            InputError: if the saved tables have other shapes.
        """
        moments, tables = cast("dict[str, dict[str, Tensor]]", state["optimizer"]), self._tables()
        saved: dict[str, Tensor] = {}
        for name, table in tables.items():
            there = state.get(name)
            if not isinstance(there, Tensor) or there.shape != table.shape or not isinstance(moments, dict):
                raise InputError(
                    f"the saved table is not one of {name} of shape {tuple(table.shape)}; use the run's own recipe."
                )
            saved[name] = there
        self._optimizer = self._make_optimizer(list(tables.values()))
        for name, table in tables.items():
            with torch.no_grad():
                table.copy_(saved[name])
            if name in moments:
                self._optimizer.state[table] = {key: x.clone() for key, x in moments[name].items()}
