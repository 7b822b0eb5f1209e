"""A small network that answers questions about bits, one token an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from reckon.studies._bits import ANSWERS, BITS, NAMES
from reckon.types import (
    Batch,
    Columns,
    Credit,
    End,
    Loss,
    Metrics,
    Objective,
    Outputs,
    Problem,
    Rng,
    Rollouts,
    Sequences,
    State,
    Want,
)


class BitsPolicy:
    """A network 24 -> 96 -> 4 over 16 bits of -1 or 1 and the domain's number, one-hot times 2, as a `Policy`."""

    def __init__(self, seed: int) -> None:
        """Draws the weights from `seed`, whatever the global random state is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(nn.Linear(BITS + len(NAMES), 96), nn.ReLU(), nn.Linear(96, ANSWERS))
        self._adam = torch.optim.Adam(self.network.parameters(), lr=3e-3, betas=(0.9, 0.95))
        self._prompts: dict[str, Tensor] = {}

    def _prompt(self, problem: Problem) -> Tensor:
        """[1 + BITS] int64: the domain's number, then the bits."""
        if problem.id not in self._prompts:
            domain, _, bits = str(problem.prompt).partition(": ")
            self._prompts[problem.id] = torch.tensor([NAMES.index(domain), *(int(bit) for bit in bits)])
        return self._prompts[problem.id]

    def log_law(self, prompts: Tensor) -> Tensor:
        """[G, ANSWERS] float32: log-probabilities of the answers to prompts [G, 1 + BITS]; carries the gradient."""
        domain = 2.0 * nn.functional.one_hot(prompts[:, 0], len(NAMES))
        logits: Tensor = self.network(torch.cat([2.0 * prompts[:, 1:] - 1, domain], dim=1))
        return logits.log_softmax(dim=1)

    def accuracy(self, problems: Sequence[Problem]) -> dict[str, float]:
        """The share of each domain's problems to which the likeliest answer is right."""
        with torch.no_grad():
            answers = self.log_law(torch.stack([self._prompt(problem) for problem in problems])).argmax(dim=1).tolist()
        right: dict[str, list[bool]] = {}
        for problem, answer in zip(problems, answers, strict=True):
            right.setdefault(problem.domain, []).append(str(answer) == problem.answer)
        return {domain: sum(own) / len(own) for domain, own in right.items()}

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Answers each of G problems k times. The draws depend on `rng` and the probabilities alone."""
        assert prefixes is None, "an answer of one token has no beginning"
        prompts = tuple(self._prompt(problem) for problem in problems)
        with torch.no_grad():
            law = self.log_law(torch.stack(prompts))
        heights = law.double().exp().cumsum(dim=1)
        uniforms = torch.from_numpy(rng.child("answer").numpy().random((len(problems), k))) * heights[:, -1:]
        chosen = torch.searchsorted(heights, uniforms, right=True).clamp_(max=ANSWERS - 1)  # [G, k]
        tokens = chosen.reshape(-1, 1)
        text = tuple(_TEXTS[token] for token in tokens[:, 0].tolist())
        return Rollouts(
            seq=Sequences(
                prompts=prompts,
                group=torch.arange(len(problems)).repeat_interleave(k),
                tokens=tokens,
                mask=torch.ones_like(tokens, dtype=torch.bool),
            ),
            problems=tuple(problems),
            text=text,
            pieces=tuple((one,) for one in text),
            logprobs=law.gather(1, chosen).reshape(-1, 1),
            end=torch.full((len(text),), int(End.EOS)),
        )

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """Log-probs and entropy, without gradients."""
        with torch.no_grad():
            return self._forward(seq, tuple(want))

    def step(self, seq: Sequences, columns: Columns, loss: Loss, want: Iterable[Want] = ("logprobs",)) -> Metrics:
        """One Adam step on the sum of `loss` over all rows."""
        self._adam.zero_grad()
        value = loss(self._forward(seq, tuple(want)), columns).sum()
        value.backward()
        self._adam.step()
        return {"policy/loss": float(value.detach())}

    def update(self, objective: Objective, batch: Batch, credit: Credit, rng: Rng) -> Metrics:
        """Learns from a batch in one step."""
        del rng  # nothing is shuffled
        columns = objective.prepare(replace(batch, on_policy=True), credit)
        return self.step(batch.seq, columns, objective, objective.want)

    def _forward(self, seq: Sequences, want: tuple[Want, ...]) -> Outputs:
        law = self.log_law(torch.stack(seq.prompts))[seq.group]
        return Outputs(
            logprobs=law.gather(1, seq.tokens) if "logprobs" in want else None,
            entropy=-(law.exp() * law).sum(dim=1, keepdim=True) if "entropy" in want else None,
        )

    def state_dict(self) -> State:
        """The weights."""
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def load_state_dict(self, state: State) -> None:
        """Takes the weights up; Adam begins anew."""
        self.network.load_state_dict(dict(state))
        self._adam = torch.optim.Adam(self.network.parameters(), lr=3e-3, betas=(0.9, 0.95))


_TEXTS = tuple(str(token) for token in range(ANSWERS))
