"""A Hugging Face causal language model as a policy, a judge, a critic or a reference: one backbone, one `step`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reckon import costs
from reckon.errors import InputError
from reckon.models import _given, _limits, _plain, _sample, _text
from reckon.models._adapters import add_adapters, merged, use_adapters
from reckon.models._attention import attending
from reckon.models._heads import save_classifier, save_head
from reckon.models._load import compute_dtype, find_device
from reckon.models._memory import keep_freed_memory
from reckon.models._network import ready, recompute_layers, why_not_packed
from reckon.models._pack import lengths
from reckon.models._reference import Reference, followers_state, load_followers
from reckon.models._score import cuts, score
from reckon.models._settings import Dtype, Lora, Optimization, Sampling
from reckon.models._twin import copy_weights, twin
from reckon.models._update import update
from reckon.types import (
    Batch,
    Columns,
    Credit,
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

Purpose: TypeAlias = Literal["sample", "score", "learn"]

_log = logging.getLogger(__name__)


class LanguageModel:
    """A decoder-only language model that answers, scores and learns.

    Weights are float32; matrix products run in bfloat16 where the machine has it. Dropout is off throughout: a ratio of
    two passes must be 1 when nothing was learned between them.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        sampling: Sampling | None = None,
        optimizer: Optimization | None = None,
        lora: Lora | None = None,
        dtype: Dtype = "auto",
        device: str = "auto",
        tokens_per_batch: int = 1024,
        rows_per_batch: int = 64,
        activation_checkpointing: bool = False,
        value_head: bool = False,
        head_lr: float | None = None,
    ) -> None:
        """Takes a network as it is.

        Args:
            network: float32 weights.
            tokenizer: the network's own.
            sampling: how it answers, and the temperature of its log-probs.
            optimizer: how it learns.
            lora: train adapters and leave the weights as they are; None trains all weights.
            dtype: of matrix products; "auto" is bfloat16 where the machine computes it natively.
            device: "auto", "cpu", "cuda", "mps", ...
            tokens_per_batch: how many tokens are computed at once in learning and scoring. Results do not depend on it.
            rows_per_batch: how many responses are drawn at once; as one ends, the next takes its place. Results do not
                depend on it.
            activation_checkpointing: keep each layer's input alone for the backward pass and compute the layer again
                there: less memory, a third more time in learning.
            value_head: adds a linear head, zero at first, that `values` and `scores` are read with.
            head_lr: the head's own learning rate, on the optimizer's schedule; None = the optimizer's.

        Raises:
            InputError: a size below 1, or a rate for a head that there is not.
        """
        for name, size in (("tokens_per_batch", tokens_per_batch), ("rows_per_batch", rows_per_batch)):
            if size < 1:
                raise InputError(f"`model.{name}` is {size}, but must be at least 1.")
        if head_lr is not None and not value_head:
            raise InputError("`head_lr` is the rate of a value head, and this model has none. Leave it out.")
        self.device = find_device(device)
        self.dtype = compute_dtype(dtype, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.network = network.to(self.device).eval()
        reason = why_not_packed(self.network)
        self._packs = reason is None
        if reason is not None:
            _log.warning(
                "%s: answers cannot share their prompt, so each is computed by itself (%s).",
                network.config.model_type,
                reason,
            )
        # Tokens that went through the layers since loading, padding included.
        self.counters: dict[Purpose, int] = {"sample": 0, "score": 0, "learn": 0}
        self.tokenizer = tokenizer
        self.sampling = sampling or Sampling()
        self.optimization = optimizer or Optimization()
        self.tokens_per_batch = tokens_per_batch
        self.rows_per_batch = rows_per_batch
        self.lora = lora
        self._adapters = None if lora is None else add_adapters(self.network, lora)
        self.activation_checkpointing = activation_checkpointing
        if activation_checkpointing:
            recompute_layers(self.network)
        self.head: nn.Linear | None = None
        if value_head:
            # One head for values, outcomes, steps and token weights. No bias, as in reward models (w . h; Ouyang et al.
            # 2022), in OREAL (arXiv:2502.06781) and in the classifiers it is exported to; a loss of pairs moves none.
            self.head = nn.Linear(network.config.hidden_size, 1, bias=False, device=self.device)
            nn.init.zeros_(self.head.weight)
        self._trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        if self.head is not None:
            self._trained["value_head.weight"] = self.head.weight
        # One schedule for all weights, or two: the head's comes last, as its weight does.
        self._schedules = [self.optimization]
        groups = [{"params": list(self._trained.values())}]
        if head_lr is not None:
            self._schedules.append(replace(self.optimization, lr=head_lr))
            groups = [{"params": groups[0]["params"][:-1]}, {"params": groups[0]["params"][-1:]}]
        self._adamw = torch.optim.AdamW(
            groups,
            lr=self.optimization.lr,
            betas=(self.optimization.beta1, self.optimization.beta2),
            weight_decay=self.optimization.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self._steps = 0
        self._idle = 0  # steps of the run so far that its batches had nothing for; follows from the batch's own step
        self._followers: list[Reference] = []
        generation = network.generation_config
        eos = generation.eos_token_id if generation is not None else None
        known = {tokenizer.eos_token_id} | set(eos if isinstance(eos, list) else [eos])
        self._eos = frozenset(token for token in known if token is not None)

    # Answering

    def sample(
        self,
        problems: Sequence[Problem],
        k: int,
        rng: Rng,
        prefixes: Sequence[Sequence[int]] | None = None,
        limits: Sequence[int] | None = None,
    ) -> Rollouts:
        """Draws k responses to each of G problems.

        Each row draws from numbers of its own, named by (rng, place of its problem, place among the k), so that it does
        not depend on what else is in the batch.

        Args:
            problems: G problems.
            k: responses to each.
            rng: names the random numbers.
            prefixes: G: tokens that each response to a problem begins with, given and not drawn.
            limits: G * k: the most tokens to draw for each response, where that is less than
                `sampling.max_new_tokens`; the responses to a problem stand together.

        Raises:
            InputError: a prompt leaves no room in the context for `sampling.max_new_tokens`, or a limit is below 1.
        """
        most = self.sampling.max_new_tokens
        uniforms = np.stack([rng.child(g, j).numpy().random(most) for g in range(len(problems)) for j in range(k)])
        return self._answer(problems, k, torch.from_numpy(uniforms), prefixes, limits)

    def greedy(self, problems: Sequence[Problem]) -> Rollouts:
        """The likeliest next token each time: one response to each problem."""
        return self._answer(problems, 1, None, None, None)

    def _answer(
        self,
        problems: Sequence[Problem],
        k: int,
        uniforms: Tensor | None,
        prefixes: Sequence[Sequence[int]] | None,
        limits: Sequence[int] | None,
    ) -> Rollouts:
        most = self.sampling.max_new_tokens
        prompts = [_text.encode(self.tokenizer, problem, self.sampling.system) for problem in problems]
        given = [torch.tensor(list(p), dtype=torch.int64) for p in prefixes or [()] * len(problems)]
        starts = [torch.cat([prompt, prefix]).to(self.device) for prompt, prefix in zip(prompts, given, strict=True)]
        _limits.check_room(self.network, problems, starts, most)
        group = torch.arange(len(problems), device=self.device).repeat_interleave(k)
        order = _sample.Order(
            prompts=starts,
            group=group.tolist(),
            limits=_limits.row_limits(limits, len(group), most),
            uniforms=uniforms,
            sampling=self.sampling,
            eos=self._eos,
            tail=lambda tokens: self.tokenizer.decode(tokens, skip_special_tokens=True),
        )
        self._take_up()
        with self._autocast(), torch.no_grad(), ready(self.network, self.dtype, min(self.rows_per_batch, len(group))):
            if self._packs:
                drawn = _sample.draw(
                    self.network,
                    order,
                    dtype=self.dtype,
                    rows_per_batch=self.rows_per_batch,
                    tokens_per_batch=self.tokens_per_batch,
                )
            else:
                drawn = _plain.draw(self.network, order, self.tokenizer.eos_token_id)
        self._count("sample", drawn.computed)
        drawn = _given.with_prefixes(drawn, [given[g] for g in group.tolist()])
        on_device = tuple(prompt.to(self.device) for prompt in prompts)
        seq = Sequences(prompts=on_device, group=group, tokens=drawn.tokens, mask=drawn.mask)
        pieces = self.pieces(seq)
        return Rollouts(
            seq=seq,
            problems=tuple(problems),
            text=tuple("".join(row) for row in pieces),
            pieces=pieces,
            logprobs=drawn.logprobs,
            end=drawn.end,
            truncated=uniforms is None or self.sampling.truncated,
        )

    def tokenize(
        self, problems: Sequence[Problem], texts: Sequence[str], ended: Sequence[bool] | None = None
    ) -> Sequences:
        """Given responses as tokens, each cut apart from its prompt and ended by the end token, as if sampled.

        Args:
            problems: N problems; each response stands in a group of its own.
            texts: N responses.
            ended: N: False for a response that was cut off, which then has no end token. Left out, all have ended.

        Raises:
            InputError: a prompt and its response are longer than the context, or a response has no token at all.
        """
        return self.tokenize_groups(problems, texts, range(len(texts)), ended)

    def tokenize_groups(
        self,
        problems: Sequence[Problem],
        texts: Sequence[str],
        group: Sequence[int],
        ended: Sequence[bool] | None = None,
    ) -> Sequences:
        """As `tokenize`, for several responses to a problem, which share its prompt.

        Args:
            problems: G problems.
            texts: N responses.
            group: N indices into `problems`, ascending.
            ended: as in `tokenize`.
        """
        ended = [True] * len(texts) if ended is None else ended
        rows = [self.response_tokens(text, ended=over) for text, over in zip(texts, ended, strict=True)]
        return self.arrange(problems, rows, group)

    def response_tokens(self, text: str, *, ended: bool = True) -> list[int]:
        """The tokens of a response, apart from any prompt, with the end token if it has `ended`."""
        tokens = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return [*tokens, self.tokenizer.eos_token_id] if ended else tokens

    def arrange(self, problems: Sequence[Problem], rows: Sequence[Sequence[int]], group: Sequence[int]) -> Sequences:
        """As `tokenize_groups`, of N responses that are tokens already."""
        prompts = [_text.encode(self.tokenizer, problem, self.sampling.system) for problem in problems]
        _limits.check_given(self.network, [problems[g] for g in group], [prompts[g] for g in group], rows)
        return _given.arranged(prompts, rows, group, self.device)

    def room(self, problem: Problem) -> int | None:
        """How many tokens a response to this problem can have; None = the network knows no limit."""
        context: int | None = getattr(self.network.config, "max_position_embeddings", None)
        return None if context is None else context - len(_text.encode(self.tokenizer, problem, self.sampling.system))

    def pieces(self, seq: Sequences) -> tuple[tuple[str, ...], ...]:
        """The text each token of N responses added, up to the last that counts; see `Rollouts.pieces`."""
        rows = zip(seq.tokens.tolist(), lengths(seq).tolist(), strict=True)
        decode = _text.decoder(self.tokenizer)
        return tuple(_text.pieces(self.tokenizer, row[:n], decode) for row, n in rows)

    # Scoring and learning

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """What the model says about N responses, without gradients; see `Outputs` for the shapes."""
        want = tuple(want)
        self._take_up()
        with torch.no_grad():
            parts = [self._score(seq.take(rows), want, "score") for rows in self._cuts(seq)]
        return Outputs(**{name: torch.cat([getattr(part, name) for part in parts]) for name in want})

    def step(self, seq: Sequences, columns: Columns, loss: Loss, want: Iterable[Want] = ("logprobs",)) -> Metrics:
        """One optimizer step on the sum of `loss` over all rows.

        A loss whose attribute `whole_groups` is True gets every group in one piece, whatever `tokens_per_batch` says. A
        gradient that is not finite makes no step, and "policy/skipped" says so.

        Returns:
            "policy/loss", "policy/grad_norm" (before clipping), "policy/lr", "policy/skipped" (0 or 1), and what the
            loss's own `diagnostics(outputs, columns)` adds up to, if it has one.
        """
        want = tuple(want)
        diagnose = getattr(loss, "diagnostics", None)
        self._take_up()
        self._adamw.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        metrics: Metrics = {}
        for rows in self._cuts(seq, whole=bool(getattr(loss, "whole_groups", False))):
            part = {name: column[rows] for name, column in columns.items()}
            with attending(self.network) if self._packs else nullcontext():  # layers may be computed again in backward
                outputs = self._score(seq.take(rows), want, "learn")
                value = loss(outputs, part).sum()
                value.backward()
            total += value.detach()
            if diagnose is not None:
                for name, number in diagnose(outputs, part).items():
                    metrics[f"policy/{name}"] = metrics.get(f"policy/{name}", 0.0) + float(number)
        norm = nn.utils.clip_grad_norm_(self._trained.values(), self.optimization.clip or torch.inf)
        finite = bool(torch.isfinite(norm))
        rate = self.optimization.rate(self._steps, self._idle)
        if finite:
            for group, schedule in zip(self._adamw.param_groups, self._schedules, strict=True):
                group["lr"] = schedule.rate(self._steps, self._idle)
            self._adamw.step()
            self._steps += 1
            for reference in self._followers:
                reference.follow(self._steps)
        self._adamw.zero_grad(set_to_none=True)
        return metrics | {
            "policy/loss": float(total),
            "policy/grad_norm": float(norm),
            "policy/lr": rate,
            "policy/skipped": float(not finite),
        }

    def update(self, objective: Objective, batch: Batch, credit: Credit, rng: Rng) -> Metrics:
        """Learns from a batch in `optimizer.epochs` passes of `optimizer.minibatches` steps.

        The schedule is where `batch.step` is: steps that were due and not made count as done.
        """
        settings = self.optimization
        self._idle = max(0, batch.step * settings.epochs * settings.minibatches - self._steps)
        return update(self, objective, batch, credit, rng, epochs=settings.epochs, minibatches=settings.minibatches)

    def _score(self, seq: Sequences, want: tuple[Want, ...], purpose: Purpose) -> Outputs:
        """One pass over n responses."""
        for name in ("values", "scores"):
            if name in want and self.head is None:
                raise InputError(f"{name} were asked of a model without a value head. Load it with value_head=True.")
        with self._autocast():
            outputs, computed = score(
                self.network,
                self.head,
                seq,
                want,
                temperature=self.sampling.temperature,
                dtype=self.dtype,
                packs=self._packs,
            )
        self._count(purpose, computed)
        return outputs

    def _count(self, purpose: Purpose, tokens: int) -> None:
        self.counters[purpose] += tokens
        costs.computed(tokens)

    def _take_up(self) -> None:
        """Puts this model's own adapters to use, on a network that several models may share."""
        if self._adapters is not None:
            use_adapters(self.network, self._adapters)

    def _cuts(self, seq: Sequences, *, whole: bool = False) -> list[Tensor]:
        return cuts(seq, self.tokens_per_batch, packs=self._packs, whole=whole)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    # Keeping

    def reference(self, *, sync_every: int | None = None, sync_alpha: float = 0.6) -> Reference:
        """This model as it is now, frozen; with LoRA the same weights with the adapter off, at no cost in memory.

        With `sync_every` it follows the model, has weights of its own, and is saved with the model: see `Reference`.
        """
        made = Reference(self, sync_every=sync_every, sync_alpha=sync_alpha)
        self._followers += [] if sync_every is None else [made]
        return made

    def twin(self, optimizer: Optimization, *, value_head: bool = False) -> LanguageModel:
        """A second model that begins as this one is now, with a value head that says 0 or none, and learns by itself.

        With LoRA it is another set of adapters on the same weights; otherwise a copy of the whole network.
        """
        return twin(self, optimizer, value_head=value_head)

    def copy_from(self, other: Model) -> None:
        """Takes over the trained weights of its twin, or of what it is a twin of; its own optimizer is left alone."""
        copy_weights(self, other)

    def state_dict(self) -> State:
        """Trained weights, optimizer, step count, and the references that follow the model."""
        moments = self._adamw.state_dict()["state"]
        return {
            "steps": self._steps,
            "weights": {name: p.detach() for name, p in self._trained.items()},
            "adamw": {name: dict(moments[i]) for i, name in enumerate(self._trained) if i in moments},
            **followers_state(self._followers),
        }

    def load_state_dict(self, state: State) -> None:
        """Takes up exactly where `state_dict` left off."""
        weights, moments = state["weights"], state["adamw"]
        if set(weights) != set(self._trained):  # type: ignore[arg-type]
            raise InputError(
                "the checkpoint is of another model: its weights have other names. Use the run's own recipe."
            )
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(weights[name])  # type: ignore[index]
        optimizer = self._adamw.state_dict()
        optimizer["state"] = {i: moments[name] for i, name in enumerate(self._trained) if name in moments}  # type: ignore
        self._adamw.load_state_dict(optimizer)
        self._steps = int(state["steps"])  # type: ignore[arg-type]
        load_followers(self._followers, state)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a plain Hugging Face model folder, adapters merged into the weights.

        A value head goes beside it, into value_head.safetensors, where `load_model(folder, value_head=True)` finds it.
        """
        self._merged().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.head is not None:
            save_head(self.head, Path(folder))

    def save_classifier(self, folder: str | Path, *, end_token: bool = True) -> None:
        """Writes a folder that `AutoModelForSequenceClassification` opens: one logit, our score of the last token.

        Text must be given to it as `tokenize` makes it: prompt, with the system message if there is one, response, end
        token; or, of a head that learned from whole texts (`end_token` False), as such a text. The config says which.

        Raises:
            InputError: there is no value head, or transformers has no such classifier for this kind of model.
        """
        if self.head is None:
            raise InputError("a model without a value head cannot be a classifier. Load it with value_head=True.")
        system = self.sampling.system
        save_classifier(self._merged(), self.head, self.tokenizer, Path(folder), system=system, end_token=end_token)

    def _merged(self) -> PreTrainedModel:
        self._take_up()
        return self.network if self.lora is None else merged(self.network)
