"""Policy gradient on the planted sequence: one run, and how often it is right on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

from reckon.types import Batch, Judges, Objective, Rng, Stream

if TYPE_CHECKING:
    from reckon.studies._planted_policy import NetworkPolicy

BASE = 5.0  # gamma of the law that the network imitates first
ANSWERS = 64  # a step
WINDOW = 20  # steps that accuracy is averaged over
SOLVED = 0.9
PASS, DRAWN, AT = 64, 4096, 60  # pass@64 after 60 steps, from 4,096 responses

Observe: TypeAlias = "Callable[[NetworkPolicy, Batch, Mapping[str, Stream]], None]"


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A run as it went."""

    accuracy: tuple[float, ...]  # at each step, the mean of the last WINDOW
    entropy: tuple[float, ...]  # at each step, nats a token
    pass_at: float  # pass@64 after AT steps, or after all if there are fewer
    most: int  # steps it was given

    @property
    def metrics(self) -> dict[str, float]:
        """When it was solved, whether, and how good it was at the end. Unsolved counts as all the steps it had."""
        solved = [i + 1 for i, mean in enumerate(self.accuracy) if i + 1 >= WINDOW and mean >= SOLVED]
        return {
            "steps to 0.9": solved[0] if solved else self.most,
            "solved": float(bool(solved)),
            "accuracy at the end": self.accuracy[-1],
            "pass@64": self.pass_at,
        }


def learn(
    judge_of: Callable[[NetworkPolicy], Judges],
    entropy: float,
    steps: int,
    seed: int,
    *,
    until_solved: bool = False,
    observe: Observe | None = None,
) -> Learned:
    """Trains the network, which first imitates mu_5, for some steps.

    Args:
        judge_of: gives what judges that network's responses.
        entropy: the bonus's coefficient.
        steps: the most.
        seed: of first weights, examples and responses, which are the same whatever judges.
        until_solved: stop when it is solved, though not before step AT.
        observe: is shown the network, and every step's batch and streams, before it learns from them.
    """
    import torch

    from reckon.credit import GroupNormalized
    from reckon.losses import EntropyBonus, Objectives, PolicyGradient
    from reckon.process import unbiased_best_of_k
    from reckon.samplers import All, Uniform
    from reckon.studies._planted import Planted, prover, sample, table_law
    from reckon.studies._planted_policy import NetworkPolicy, imitate
    from reckon.studies._watched import Watched
    from reckon.train import take_step
    from reckon.types import Parts

    task, root = Planted(), Rng((seed, "process-advantage-verifiers"))
    policy = NetworkPolicy(root.child("weights").integer() % 2**31)
    examples = sample(table_law(prover(BASE)), task.problems("train"), 50 * ANSWERS, root.child("examples"))
    imitate(policy, examples, ANSWERS)
    # Sums over tokens: the advantage of a step is not the smaller because the response is long.
    terms: dict[str, Objective] = {
        "policy": PolicyGradient(average="constant", length=1),
        "entropy": EntropyBonus(coef=entropy, average="constant", length=1),
    }

    def passes() -> float:
        with torch.no_grad():
            drawn = policy.sample(task.problems("test"), DRAWN, root.child("test"))
        right = sum(cast("float", task.check(drawn.problem(i), text).outcome) for i, text in enumerate(drawn.text))
        return float(unbiased_best_of_k(torch.tensor(right), DRAWN, PASS))

    right: list[float] = []
    recent: list[float] = []
    entropies: list[float] = []
    pass_at = float("nan")

    def look(batch: Batch, streams: Mapping[str, Stream]) -> None:
        entropies.append(policy.mean_entropy(batch.seq))
        if observe is not None:
            observe(policy, batch, streams)

    parts = Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Watched(judge_of(policy), look),
        advantage=GroupNormalized(std=False),
        objective=Objectives(terms),
    )
    for step in range(steps):
        done = take_step(policy, task, parts, root.child(step), step=step, prompts=1, answers=ANSWERS)
        right.append(float(done.batch.outcome.mean()))
        recent.append(sum(right[-WINDOW:]) / len(right[-WINDOW:]))
        if step + 1 == min(AT, steps):
            pass_at = passes()
        if until_solved and step + 1 >= max(AT, WINDOW) and max(recent[WINDOW - 1 :]) >= SOLVED:
            break
    return Learned(accuracy=tuple(recent), entropy=tuple(entropies), pass_at=pass_at, most=steps)
