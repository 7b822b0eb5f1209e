"""How much each step changed a prover's chance of being right, where nobody has to be fitted to say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from reckon.annotate import Drawing, Labels, best_of_k_errors, label_prefixes
from reckon.errors import InputError
from reckon.models import Optimization
from reckon.process import best_of_k, step_advantages, unbiased_best_of_k
from reckon.rewards._judges_reading import check_splitter
from reckon.steps import Pattern, Splitter, Steps, split_rollouts, spread, token_steps
from reckon.types import Batch, Metrics, Model, Policy, Rng, Rollouts, State, Stream, Task

if TYPE_CHECKING:
    from reckon.models import LanguageModel

# N responses and their steps, H of them at most, to [N, H + 1]: the chance before the first step, then after each.
PrefixValues: TypeAlias = Callable[[Rollouts, Steps], Tensor]


class Copy(Policy, Protocol):
    """A policy that can take over another's weights."""

    def copy_from(self, other: Model) -> None:
        """Becomes what a model of the same make is now."""
        ...


class CanProve(Model, Protocol):
    """A policy that can give a second one, which stays as it is: a language model, or a table."""

    def twin(self, optimizer: Optimization) -> Copy:
        """A second one, equal now."""
        ...


@dataclass(frozen=True)
class ExactAdvantage:
    """How much each step changed a prover's chance of being right, by a function that knows it (arXiv:2410.08146).

    For worlds whose chances are known: a table's by dynamic programming, a rule's by arithmetic. With `prover_k` the
    prover is the best of k completions of that one, in closed form.

    Every token of a step gets the step's advantage, in a stream of kind "advantage": it is added to its own tokens.
    Summed into a return it would telescope to outcome - constant, and the method would do nothing.
    """

    values: PrefixValues  # in [0, 1]; what it says behind a response's last step does not matter
    _: KW_ONLY
    splitter: Splitter | None = None  # None = every sampled token is a step, the end token too
    prover_k: int = 1  # of `values`: 1 = the prover's own
    # [N, H], what a step is measured against: of the best of k already. None = the chance before it. The mean of the
    # chance after it under the policy leaves no variance that does not tell the policy's choices apart.
    before: PrefixValues | None = None

    def __post_init__(self) -> None:
        _check_k("exact_advantage", self.prover_k)
        for name in ("values", "before"):
            function = getattr(self, name)
            if not (callable(function) or (name == "before" and function is None)):
                raise InputError(
                    f"exact_advantage: `{name}` is of type {type(function).__name__}; it must be a function of "
                    "rollouts and their steps."
                )
        if self.splitter is not None:
            check_splitter("exact_advantage", self.splitter)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T] of kind "advantage". Pure.

        Raises:
            InputError: a function gives numbers of another size, a chance outside of [0, 1], or what is not finite.
        """
        rollouts = batch.rollouts
        steps = token_steps(batch.seq.mask) if self.splitter is None else split_rollouts(rollouts, self.splitter)
        values = self._read("values", self.values, rollouts, steps)
        if bool(((values < 0) | (values > 1)).any()):
            raise InputError("exact_advantage: `values` gave a chance that is not in [0, 1]. A logit takes a sigmoid.")
        values = best_of_k(values, self.prover_k)
        if self.before is None:
            advantages = step_advantages(values)
        else:
            advantages = values[:, 1:] - self._read("before", self.before, rollouts, steps)
        return {"exact_advantage": Stream(values=spread(advantages.float(), steps), kind="advantage")}

    @staticmethod
    def _read(name: str, function: PrefixValues, rollouts: Rollouts, steps: Steps) -> Tensor:
        """[N, H + 1] of `values` or [N, H] of `before`, NaN behind a response's last step."""
        more = int(name == "values")
        shape = (len(steps.ends), max((len(ends) for ends in steps.ends), default=0) + more)
        said = function(rollouts, steps)
        if not isinstance(said, Tensor) or tuple(said.shape) != shape:
            gave = f"numbers of shape {tuple(said.shape)}" if isinstance(said, Tensor) else f"a {type(said).__name__}"
            raise InputError(f"exact_advantage: `{name}` gave {gave}, and a tensor of shape {shape} is needed.")
        said = said.to(steps.index.device)
        there = torch.arange(shape[1], device=said.device) < steps.count[:, None] + more
        if not bool(said[there].isfinite().all()):
            raise InputError(f"exact_advantage: `{name}` gave a number that is not finite.")
        return torch.where(there, said, torch.nan)


@dataclass
class MonteCarloAdvantage:
    """How much each step changed a prover's chance of being right, by letting it finish responses (arXiv:2410.08146).

    The prover goes on `n_mc` times from the prompt and from the end of every step, and the task checks what comes of it
    (`reckon.annotate.label_prefixes`). A whole response is not gone on with: its value is its verdict, so that a
    response's advantages add up to its outcome less the prover's chance at the prompt. Right is an outcome of 1, and a
    completion is cut where the policy's own response would be. What nobody could check is no value, and the steps on
    both sides of it are credited with nothing.

    The prover is the policy as it was before training, as Setlur et al. 2024 train against; with `refresh` n, as it was
    at the last step that is a multiple of n; with `prover` another model, by name. Which prover helps is not its
    strength: one that always or never succeeds tells no step from another, and the policy itself as its own prover
    (`refresh=1`) gives more of the outcome's gradient, with less variance and no new direction. With `prover_k` it is
    the best of k completions, counted without bias.

    Every token of a step gets the step's advantage, in a stream of kind "advantage": it is added to its own tokens.
    Summed into a return it would telescope to outcome - constant, and the method would do nothing.
    """

    policy: CanProve  # whose copy proves, made when it is first needed; another model than the one that learns will do
    task: Task  # checks what the prover comes to
    _: KW_ONLY
    splitter: Pattern | Splitter = field(default_factory=Pattern)
    n_mc: int = 8  # completions of each beginning
    prover_k: int = 1  # at most n_mc
    refresh: int = 0  # steps from one prover to the next; 0 = the first one stays
    prover: str | None = None  # what `load_model` takes: a built-in model, a folder, a hub id

    def __post_init__(self) -> None:
        _check_k("monte_carlo_advantage", self.prover_k)
        check_splitter("monte_carlo_advantage", self.splitter)
        if self.n_mc < self.prover_k:
            raise InputError(
                f"monte_carlo_advantage: `n_mc` is {self.n_mc} and `prover_k` {self.prover_k}; the best of k is "
                "counted in k completions or more."
            )
        if self.refresh < 0 or (self.refresh and self.prover is not None):
            raise InputError(
                f"monte_carlo_advantage: `refresh` is {self.refresh}; it must be 0 steps or more, and 0 with a "
                "`prover` of its own, which does not follow the policy."
            )
        self._told: Metrics = {}
        if self.prover is not None:
            _ = self.finisher  # opened now, so that a model that is not there is told before anything is drawn

    @cached_property
    def finisher(self) -> Policy:
        """Who finishes responses. A copy of the policy is made as it is when it is first asked for."""
        if self.prover is None:
            return self.policy.twin(Optimization(clip=None))
        policy = cast("LanguageModel", self.policy)
        sampling, device = policy.sampling, str(policy.device)
        from reckon.models import load_model

        model = load_model(self.prover, sampling=sampling, device=device)
        if model.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise InputError(
                f"monte_carlo_advantage: `prover` is {self.prover}, whose tokens are others than the policy's, and it "
                "goes on from the very tokens that the policy writes. Take a model of the policy's family."
            )
        return model

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T] of kind "advantage". The same batch is finished in the same ways each time."""
        return self._scored(batch, Rng(("monte_carlo_advantage", batch.step)))[0]

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step: here the prover is renewed if it is due.

        Raises:
            InputError: a response was begun for the policy, so that its steps have no beginning of their own.
        """
        if self.refresh and batch.step % self.refresh == 0:
            cast("Copy", self.finisher).copy_from(self.policy)
        streams, self._told = self._scored(batch, rng)
        return streams

    def metrics(self) -> Metrics:
        """What the last `assess` took and how sure it is.

        "rollouts" and "tokens", those the prover sampled; "start", its mean chance at the prompts; "noise", the share
        of the advantages' mean square that is the labels' own variance, NaN where there are too few to tell (fewer than
        2 `prover_k` each) or all advantages are 0.
        """
        return dict(self._told)

    def state_dict(self) -> State:
        """The prover, unless it is another model, which is as it was."""
        return {} if self.prover is not None else {"prover": self.finisher.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            InputError: the state is of a run with another kind of prover.
        """
        if ("prover" in state) != (self.prover is None):
            raise InputError("monte_carlo_advantage: the saved state is of a run whose prover was another kind")
        if self.prover is None:
            self.finisher.load_state_dict(cast("State", state["prover"]))

    def _scored(self, batch: Batch, rng: Rng) -> tuple[dict[str, Stream], Metrics]:
        rollouts, mask = batch.rollouts, batch.seq.mask
        begun = (mask.any(dim=1) & ~mask[:, :1].any(dim=1)).nonzero()
        if len(begun):
            raise InputError(
                f"monte_carlo_advantage: response {int(begun[0, 0])} goes on from a given prefix. Let the policy write "
                "its responses from the prompt on."
            )
        sampling = getattr(self.finisher, "sampling", None)
        most = None if sampling is None else sampling.max_new_tokens
        drawing = Drawing(share=True, cut="checked", most_tokens=most)
        labels = label_prefixes(self.finisher, self.task, rollouts, self.splitter, self.n_mc, rng, drawing=drawing)
        values, variance = self._values(labels)
        advantages, steps = step_advantages(values), split_rollouts(rollouts, self.splitter)
        noise = (variance[:, 1:] + variance[:, :-1]).nanmean() / advantages.square().nanmean()
        told = {
            "rollouts": float(sum(label.n_drawn for label in labels)),
            "tokens": float(sum(label.generated for label in labels)),
            "start": float(values[:, 0].nanmean()),
            "noise": float(torch.where(noise.isfinite(), noise, torch.nan)),
        }
        stream = Stream(values=spread(advantages.float().to(mask.device), steps), kind="advantage")
        return {"monte_carlo_advantage": stream}, told

    def _values(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """[N, H + 1] float64 each: the prover's chances, NaN where there are too few completions; their variance."""
        found = labels.values()
        enough = found.n >= self.prover_k
        counted = torch.where(enough, found.n, self.prover_k)
        chance = unbiased_best_of_k(torch.where(enough, found.correct, 0), counted, self.prover_k)
        variance, _ = best_of_k_errors(found.correct, found.n, self.prover_k)
        return torch.where(enough, chance, torch.nan), torch.where(enough, variance, torch.nan)


def _check_k(kind: str, k: int) -> None:
    if k < 1:
        raise InputError(f"{kind}: `prover_k` is {k}; it must be 1 or more.")
