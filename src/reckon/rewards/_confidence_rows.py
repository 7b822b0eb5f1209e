"""Labels of steps from a step model's own confidence, as rows that another one is fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

import torch

from reckon.annotate import confidence_labels
from reckon.rewards._judges_reading import steps_of
from reckon.rewards._process_models import StepModel
from reckon.types import Batch, End, Json, Stream


@dataclass
class ConfidenceRows:
    """A step model that is asked for labels of steps, not for a reward (AutoPSV; Lu et al. 2024, arXiv:2405.16802).

    A model trained on the outcome of responses, copied to each of their steps (`reckon fit outcome-steps`), loses
    confidence where a response goes wrong: `reckon.annotate.confidence_labels`. Its labels cost no completion, and
    `reckon fit process` learns from them. Before the first step it is not asked, so that the first step is right.

    As a reward it scores like the model, so that whatever scores responses fills `rows` on the way.
    """

    judge: StepModel
    _: KW_ONLY
    threshold: float = -0.5  # in (-1, 0): the relative change below which a step is wrong
    after: Literal["wrong", "own"] = "wrong"  # the labels behind the first wrong step
    rows: list[dict[str, Json]] = field(default_factory=list)  # TRL's columns for stepwise supervision, and more

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """What the model says; `rows` grows by one for every response with text.

        Raises:
            InputError: `threshold` or `after` cannot be.
        """
        probabilities = self.judge.probabilities(batch)  # [N, H]
        unasked = torch.full_like(probabilities[:, :1], torch.nan)
        confidence = torch.cat([unasked, probabilities], dim=1)
        labels = confidence_labels(confidence, threshold=self.threshold, after=self.after)
        steps = steps_of(batch, self.judge.splitter)
        rollouts = batch.rollouts
        for row, text in enumerate(rollouts.text):
            if not text:
                continue
            problem, ends = rollouts.problem(row), steps.ends[row]
            prompt = problem.prompt
            self.rows.append(
                {
                    "id": problem.id,
                    "prompt": prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt],
                    "answer": problem.answer,
                    "completions": _texts(rollouts.pieces[row], ends),
                    "labels": [bool(label) for label in labels[row, : len(ends)].tolist()],
                    "truncated": int(rollouts.end[row]) == End.LENGTH,
                }
            )
        return self.judge.score(batch)


def _texts(pieces: Sequence[str], ends: Sequence[int]) -> list[Json]:
    """The text of each step, of which `ends` are the last tokens; what is behind them goes with the last."""
    starts = [0, *(end + 1 for end in ends[:-1])]
    return ["".join(pieces[start:stop]) for start, stop in zip(starts, [*starts[1:], len(pieces)], strict=True)]
