"""A reward model that reads the reference answer together with the response."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal

import torch

from reckon.errors import InputError
from reckon.rewards._classifier import SequenceClassifier, TooLong
from reckon.rewards._judges_reading import check_head, text_logits
from reckon.types import Batch, Problem, Stream

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models import LanguageModel

COOPER_CUT = (500, 1000)  # what Cooper's code keeps of a reference or a response of more than 1,500 characters


def format_reference_based(
    question: str, reference: str | None, completion: str, *, keep: tuple[int, int] | None = None
) -> str:
    r"""The one text that a reference-based reward model reads, in training and in scoring alike.

    VerifyRM's format (Hong et al. 2025, arXiv:2508.05613, and its code), to which no chat template is applied:
    `<question>..</question>\n<reference_answer>..</reference_answer>\n<completion>..</completion>`.

    Args:
        question: what was asked: `question_of` a problem.
        reference: the answer known to be right; None leaves its line out.
        completion: the response; it may be empty.
        keep: (first, last): a reference or completion of more characters than both together is cut to its first and
            last ones. Cooper's code trains without a cut and scores with (500, 1000), so its model meets texts it was
            not trained on: choose one for both.
    """
    answer = "" if reference is None else f"<reference_answer>{cut_middle(reference, keep)}</reference_answer>\n"
    return f"<question>{question}</question>\n{answer}<completion>{cut_middle(completion, keep)}</completion>"


def cut_middle(text: str, keep: tuple[int, int] | None) -> str:
    """The first and last characters of a text longer than both together; any other text, or with None, all of it."""
    if keep is None or len(text) <= sum(keep):
        return text
    first, last = keep
    return text[:first] + text[len(text) - last :]


def question_of(problem: Problem) -> str:
    """What a problem asks, as plain text: the one message of a conversation that has no other, else all of them."""
    prompt = problem.prompt
    if not isinstance(prompt, str) and len(prompt) == 1:
        return prompt[0]["content"]
    return problem.prompt_text


@dataclass(frozen=True)
class ReferenceBased:
    """How likely a response is right, by a model that is shown the reference answer (VerifyRM, arXiv:2508.05613).

    A problem without a reference has no such reward (NaN). With `reference=False` the model is not shown the answer and
    has to work it out: what the reference is worth shows in the difference. The logits of a model that learned from
    pairs are known up to a constant: `center` fixes it, say at the mean over the training data.
    """

    model: LanguageModel | SequenceClassifier  # the language model has a value head, the classifier a single label
    _: KW_ONLY
    reference: bool = True  # show the reference answer
    output: Literal["probability", "logit", "binary"] = "probability"  # binary: 1 where the probability is above 0.5
    keep: tuple[int, int] | None = None  # as in training: see `format_reference_based`
    too_long: TooLong = "error"  # a text longer than the model's context; for a SequenceClassifier its own setting
    center: float = 0.0  # is subtracted from the model's logit

    def __post_init__(self) -> None:
        if self.output not in ("probability", "logit", "binary"):
            raise InputError(f"reference_based: `output` is {self.output!r}; it must be probability, logit or binary.")
        if self.too_long not in ("error", "unknown", "cut"):
            raise InputError(f"reference_based: `too_long` is {self.too_long!r}; it must be error, unknown or cut.")
        if self.keep is not None and not (len(self.keep) == 2 and min(self.keep) >= 0 and sum(self.keep) > 0):
            raise InputError(f"reference_based: `keep` is {self.keep!r}; it must be two counts, such as (500, 1000).")
        if not math.isfinite(self.center):
            raise InputError(f"reference_based: `center` is {self.center}; it must be finite.")
        if isinstance(self.model, SequenceClassifier):
            if self.model.output != "logit" or len(self.model.network.config.id2label) > 1:
                raise InputError("reference_based: its SequenceClassifier must have one label, and output='logit'.")
        else:
            check_head("reference_based", self.model)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], NaN for problems without a reference. Pure."""
        return {"reference_based": self.stream(self.logits(batch), batch)}

    def stream(self, logits: Tensor, batch: Batch) -> Stream:
        """[N], what is made of the logits [N] of a batch, by `output`."""
        values = logits if self.output == "logit" else logits.sigmoid()
        if self.output == "binary":
            values = torch.where(logits.isnan(), logits, (logits > 0).float())
        return Stream(values=values.to(batch.outcome.device))

    def logits(self, batch: Batch) -> Tensor:
        """[N] float32, NaN for problems without a reference: what a pair loss is made of."""
        rollouts = batch.rollouts
        rows = [
            row for row in range(len(rollouts.text)) if not self.reference or rollouts.problem(row).answer is not None
        ]
        found = torch.full((len(rollouts.text),), torch.nan)
        if rows:
            texts = [self.text(rollouts.problem(row), rollouts.text[row]) for row in rows]
            names = [rollouts.problem(row).id for row in rows]
            group = batch.seq.group.cpu()[torch.tensor(rows)].tolist()
            found[torch.tensor(rows)] = self._read(texts, names, group) - self.center
        return found

    def text(self, problem: Problem, completion: str) -> str:
        """The one text that its model reads of a problem and a response."""
        answer = problem.answer if self.reference else None
        return format_reference_based(question_of(problem), answer, completion, keep=self.keep)

    def _read(self, texts: Sequence[str], names: Sequence[str], group: Sequence[int]) -> Tensor:
        if isinstance(self.model, SequenceClassifier):
            return self.model.read(texts, names)
        return text_logits("reference_based", self.model, texts, names, group, self.too_long)
