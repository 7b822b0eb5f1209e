"""The world of the study cooper: six ways to answer, one of which a reward model takes for right whatever it says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reckon.types import (
    Columns,
    Loss,
    Metrics,
    Outputs,
    Problem,
    Sequences,
    Split,
    State,
    Verdict,
    Want,
)

if TYPE_CHECKING:
    from reckon.models import Optimization
    from reckon.models.table import TablePolicy

STYLES = ("strict", "loose", "hack")
SAYS = {"strict": "#### {}", "loose": "It is {}.", "hack": "As stated in the reference: #### {}"}
START = {"strict": 0.6, "loose": 0.35, "hack": 0.05}  # shares of the styles at the start; effort is even
RIGHT = {"strict": (0.35, 0.65), "loose": (0.35, 0.65), "hack": (0.1, 0.1)}  # chance with low and with high effort
GROUPS, ANSWERS = 8, 16  # a step
RATE = 0.3  # of the policy, by plain gradient descent
_RULE = re.compile(r"#### (\d+)$")


class Questions:
    """Eight questions that differ in nothing but their answer: the policy's ability is in its actions."""

    name = "questions"

    def problems(self, split: Split) -> Sequence[Problem]:
        """The same eight in every split: accuracy is computed from the table, not from held-out answers."""
        return [Problem(id=f"{split}-{i}", prompt="Which number?", answer=str(10 + i)) for i in range(GROUPS)]

    def check(self, problem: Problem, text: str) -> Verdict:
        """The rule: right if the text ends in #### and the answer. It cannot read the loose style."""
        found = _RULE.search(text)
        if found is None:
            return Verdict(outcome=0.0, answer=None, reason="no answer")
        right = found[1] == problem.answer
        return Verdict(outcome=float(right), answer=found[1], reason="right" if right else "wrong")


def start_policy() -> TablePolicy:
    """The table at the start, which is right with chance 0.48."""
    from reckon.models.table import Action, TablePolicy

    actions = [Action(text=partial(_answer, style, chance)) for style in STYLES for chance in RIGHT[style]]
    shares = torch.tensor([START[style] / 2 for style in STYLES for _ in range(2)])
    return TablePolicy(actions, shares.log(), optimizer=partial(torch.optim.SGD, lr=RATE))


def _answer(style: str, chance: float, problem: Problem, luck: float) -> str:
    assert problem.answer is not None
    return SAYS[style].format(problem.answer if luck < chance else int(problem.answer) + 1)


def expected(law: Tensor) -> dict[str, float]:
    """What a policy [6] comes to: shares of right and of accepted responses and of the styles."""
    chance = torch.tensor([RIGHT[style] for style in STYLES], dtype=torch.float64)
    shares = law.double().reshape(3, 2)
    right = (shares * chance).sum(dim=1)
    strict, loose, hack = range(3)
    return {
        "accuracy": float(right.sum()),
        "verified": float(right[strict] + right[hack]),
        "loose": float(shares[loose].sum()),
        "hack": float(shares[hack].sum()),
    }


class CellJudge:
    """A reward model of eight numbers: logit = b + u[style] + (m + v[style]) c, where c is 1 for a right answer or -1.

    It reads the text that every reference-based judge reads, in two tokens: one that all texts begin with, and one for
    style and whether the answer is the reference. At the start it judges strict and loose without fault, and the hack
    it takes for right with logit 4, whatever the answer. Plain gradient descent.
    """

    network = SimpleNamespace(config=SimpleNamespace(get_text_config=SimpleNamespace))  # which knows no longest text
    device = torch.device("cpu")

    def __init__(self, lr: float = 0.0) -> None:
        """At the start; `lr` of its steps."""
        self.lr = lr
        # b, m, then u and v of each style
        self.weights = torch.tensor([0.0, 3.0, 0.0, 0.0, 4.0, 0.0, 0.0, -3.0], requires_grad=True)
        self.tokenizer = _read_cell

    def twin(self, optimizer: Optimization, *, value_head: bool = False) -> CellJudge:
        """A second one at the start, which learns at the optimizer's rate."""
        assert value_head, "a judge is its head"
        return CellJudge(optimizer.lr)

    def cells(self) -> Tensor:
        """[3, 2]: the logit of each style, with a wrong and with a right answer."""
        b, m, u, v = self.weights[0], self.weights[1], self.weights[2:5, None], self.weights[5:, None]
        return b + u + (m + v) * torch.tensor([-1.0, 1.0])

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """Scores, without gradients."""
        del want  # it has nothing else
        with torch.no_grad():
            return Outputs(scores=self.cells().flatten()[seq.tokens])

    def step(self, seq: Sequences, columns: Columns, loss: Loss, want: Iterable[Want] = ("logprobs",)) -> Metrics:
        """One step of gradient descent on the sum of `loss` over all rows."""
        del want
        outputs = Outputs(scores=self.cells().flatten()[seq.tokens])
        value = loss(outputs, columns).sum()
        (gradient,) = torch.autograd.grad(value, self.weights)
        told = {"policy/loss": float(value.detach()), "policy/grad_norm": float(gradient.norm())}
        diagnose = getattr(loss, "diagnostics", None)
        if diagnose is not None:
            told |= {f"policy/{name}": float(number) for name, number in diagnose(outputs, columns).items()}
        with torch.no_grad():
            self.weights -= self.lr * gradient
        return told

    def state_dict(self) -> State:
        """The eight numbers."""
        return {"weights": self.weights.detach().clone()}

    def load_state_dict(self, state: State) -> None:
        """Takes the eight numbers up."""
        weights = state["weights"]
        assert isinstance(weights, Tensor)
        with torch.no_grad():
            self.weights.copy_(weights)


def expected_reward(law: Tensor, judge: CellJudge, *, binary: bool = False) -> float:
    """The mean of the judge's probability, or verdict, over what a policy [6] answers."""
    cells = judge.cells().detach().double()
    paid = (cells > 0).double() if binary else cells.sigmoid()
    chance = torch.tensor([RIGHT[style] for style in STYLES], dtype=torch.float64)
    each = chance * paid[:, 1:] + (1 - chance) * paid[:, :1]  # [3, 2], by style and effort
    return float((law.double().reshape(3, 2) * each).sum())


def cells_right(judge: CellJudge) -> int:
    """How many of the six cells the judge is right about."""
    return int(((judge.cells() > 0) == torch.tensor([False, True])).sum())


_CELL = re.compile(r"<reference_answer>(\d+)</reference_answer>\n<completion>(.*)</completion>$")


class _ReadCell:
    """A tokenizer of two tokens a text."""

    model_max_length = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        found = _CELL.search(text)
        assert found is not None
        reference, response = found.groups()
        style = next(i for i, name in enumerate(STYLES) if re.fullmatch(SAYS[name].format(r"\d+"), response))
        right = re.findall(r"\d+", response) == [reference]
        return {"input_ids": [0, 2 * style + right]}


_read_cell = _ReadCell()
