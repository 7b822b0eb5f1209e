"""A small network that answers questions about bits, one token an answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from reckon.models.table import draw
from reckon.studies._bits import ANSWERS, BITS, NAMES, Bits
from reckon.studies._learner import Learner
from reckon.types import End, Outputs, Problem, Rng, Rollouts, Sequences, Want


class BitsPolicy:
    """A network 24 -> 96 -> 4 over 16 bits of -1 or 1 and the domain's number, one-hot times 2, as a `Policy`."""

    def __init__(self, seed: int, task: Bits) -> None:
        """Draws the weights from `seed`, whatever the global random state is, and reads every problem of the task."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(nn.Linear(BITS + len(NAMES), 96), nn.ReLU(), nn.Linear(96, ANSWERS))
        adam = partial(torch.optim.Adam, lr=3e-3, betas=(0.9, 0.95), fused=True)
        learner = Learner(self.network, self._forward, adam)
        self.renew, self.outputs, self.step, self.update = learner.renew, learner.outputs, learner.step, learner.update
        self.state_dict, self.load_state_dict = learner.state_dict, learner.load_state_dict
        problems = [*task.problems("train"), *task.problems("test")]
        self._rows = {problem.id: row for row, problem in enumerate(problems)}
        self._features = torch.tensor([_features(problem) for problem in problems])  # [P, 24] float32
        self._prompts = torch.arange(len(problems))[:, None]  # a prompt is the number of its problem

    def log_law(self, rows: Tensor) -> Tensor:
        """[G, ANSWERS] float32: log-probabilities of the answers to problems [G]; carries the gradient."""
        logits: Tensor = self.network(self._features[rows])
        return logits.log_softmax(dim=1)

    def accuracy(self, problems: Sequence[Problem]) -> dict[str, float]:
        """The share of each domain's problems to which the likeliest answer is right."""
        with torch.no_grad():
            rows = torch.tensor([self._rows[problem.id] for problem in problems])
            answers = self.log_law(rows).argmax(dim=1).tolist()
        right: dict[str, list[bool]] = {}
        for problem, answer in zip(problems, answers, strict=True):
            right.setdefault(problem.domain, []).append(_TEXTS[answer] == problem.answer)
        return {domain: sum(own) / len(own) for domain, own in right.items()}

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Answers each of G problems k times. The draws depend on `rng` and the probabilities alone."""
        assert prefixes is None, "an answer of one token has no beginning"
        rows = [self._rows[problem.id] for problem in problems]
        with torch.no_grad():
            law = self.log_law(torch.tensor(rows))
        uniforms = torch.from_numpy(rng.child("answer").numpy().random((len(problems), k)))
        chosen = draw(law.double().exp(), uniforms)
        tokens = chosen.reshape(-1, 1)
        text = tuple(_TEXTS[token] for token in tokens[:, 0].tolist())
        return Rollouts(
            seq=Sequences(
                prompts=tuple(self._prompts[row] for row in rows),
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

    def _forward(self, seq: Sequences, want: tuple[Want, ...]) -> Outputs:
        law = self.log_law(torch.cat(seq.prompts))[seq.group]
        return Outputs(
            logprobs=law.gather(1, seq.tokens) if "logprobs" in want else None,
            entropy=-(law.exp() * law).sum(dim=1, keepdim=True) if "entropy" in want else None,
        )


def _features(problem: Problem) -> list[float]:
    """16 bits of -1 or 1, and the domain's number, one-hot times 2."""
    domain, _, bits = str(problem.prompt).partition(": ")
    return [2.0 * int(bit) - 1 for bit in bits] + [2.0 * (name == domain) for name in NAMES]


_TEXTS = tuple(str(token) for token in range(ANSWERS))
