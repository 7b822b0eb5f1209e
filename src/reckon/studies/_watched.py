"""A look at a batch before anything is learned from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reckon.types import Batch, Judges, Rng, Stream


@dataclass(frozen=True)
class Watched:
    """Judges as `judges` does, and then shows the batch and what was said of it; the policy has not learned yet."""

    judges: Judges
    look: Callable[[Batch, Mapping[str, Stream]], None]

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """What `judges` says. Nobody looks."""
        return self.judges.score(batch)

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """What `judges` says."""
        streams = self.judges.assess(batch, rng)
        self.look(batch, streams)
        return streams
