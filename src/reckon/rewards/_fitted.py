"""A judge that was fitted, by its folder: opened when it is first asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from reckon.errors import MissingError
from reckon.rewards._judges import JUDGE_FILE, Judge, check_judge, load_judge
from reckon.types import Batch, Stream


def is_fitted(folder: str | Path) -> bool:
    """Whether a folder is a finished run of `reckon fit` that made a judge, or the judge's own."""
    path = Path(folder).expanduser()
    return any((place / JUDGE_FILE).is_file() for place in (path, path / "model"))


@dataclass(frozen=True)
class Fitted:
    """What `reckon fit` has learned, by the folder it wrote: the reward that its model was trained to be.

    `per` and `how` are for judges that have the choice: rewards of tokens, steps or responses, and how the steps of a
    response become one score. `unfinished` and `penalty` are for outcome models: what becomes of a response that ran
    into the limit. `prover_k` is for step advantages: the prover is the best of so many completions. `dtype` is what
    the model computes in: "auto" is bfloat16 where the machine has it, whatever it was fitted in. The model is opened
    when it is first asked; all else is checked when it is made.
    """

    folder: str
    per: str | None = None
    how: str | None = None
    unfinished: Literal["score", "unknown", "replace", "subtract"] | None = None
    penalty: float | None = None
    prover_k: int | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    tokens_per_batch: int = 1024

    def __post_init__(self) -> None:
        if not is_fitted(self.folder):
            raise MissingError(
                f"fitted: {self.folder!r} has no {JUDGE_FILE}, so it holds no judge. Name a folder in which `reckon "
                "fit` of a judge has finished (--resume goes on); a reward model of somebody else's is a "
                "sequence_classifier."
            )
        names = ("per", "how", "unfinished", "penalty", "prover_k")
        choices = {name: getattr(self, name) for name in names}
        check_judge(self.folder, choices)

    @cached_property
    def judge(self) -> Judge:
        """The reward itself.

        Raises:
            MissingError: its model cannot be opened.
            InputError: its model has no value head that learned.
        """
        return load_judge(
            self.folder,
            per=self.per,
            how=self.how,
            unfinished=self.unfinished,
            penalty=self.penalty,
            prover_k=self.prover_k,
            device=self.device,
            dtype=self.dtype,
            tokens_per_batch=self.tokens_per_batch,
        )

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """The judge's streams. Pure."""
        return self.judge.score(batch)
