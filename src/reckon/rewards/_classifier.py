"""A Hugging Face sequence-classification model as a reward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from reckon.errors import InputError
from reckon.types import Batch, End, Problem, Stream

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END_TOKEN_KEY, SYSTEM_KEY = "reckon_end_token", "reckon_system"  # what `LanguageModel.save_classifier` writes
TooLong: TypeAlias = Literal["error", "unknown", "cut"]


class SequenceClassifier:
    """Any sequence-classification model of the hub or a folder: `as_reward(SequenceClassifier("folder"))`.

    It reads the prompt and the response as one conversation under the chat template of its own tokenizer (without a
    template: the prompt's text and the response's, joined), so it need not share a tokenizer with the policy. A
    classifier that reckon exported is read where its head learned to be: the prompt as a policy is asked, with the
    system message of the fit, the response, and behind one that ended by itself the end token. The reward is its logit,
    the number such models are trained on; as a probability it saturates. One that was fitted with the reference answer
    shown reads texts that `ReferenceBased` makes, and is a reward through it alone.
    """

    def __init__(
        self,
        name: str | Path,
        *,
        label: int | str | None = None,
        output: Literal["logit", "probability"] = "logit",
        too_long: TooLong = "error",
        dtype: Literal["float32", "bfloat16"] = "float32",
        device: str = "auto",
        tokens_per_batch: int = 4096,
    ) -> None:
        """Opens the model.

        Args:
            name: a folder, or a hub id such as "org/model"; safetensors only.
            label: which of the model's labels is the reward, by place or name. A reward model has one, and needs no
                answer here; of a classifier with several (toxic, not toxic) one must be named.
            output: the label's logit, or its probability: a sigmoid for a model of one label, else a softmax.
            too_long: what becomes of a text longer than the model's context: an error, unknown (NaN), or read up to
                where the context ends.
            dtype: of the weights.
            device: "auto" is CUDA, then MPS, then the CPU.
            tokens_per_batch: how many tokens are computed at once, padding included. Results do not depend on it.

        Raises:
            MissingError: there is no such model, or its weights cannot be opened.
            InputError: the weights are pickled or lack a part, as a model without a classifier does; a label that is
                not there.
        """
        from transformers import AutoModelForSequenceClassification

        from reckon.models import find_device, open_pretrained

        if tokens_per_batch < 1:
            raise InputError(f"sequence_classifier: `tokens_per_batch` is {tokens_per_batch}; it must be at least 1.")
        for key, value, known in (
            ("output", output, ("logit", "probability")),
            ("too_long", too_long, ("error", "unknown", "cut")),
            ("dtype", dtype, ("float32", "bfloat16")),
        ):
            if value not in known:
                raise InputError(f"sequence_classifier: `{key}` is {value!r}; it must be one of {', '.join(known)}.")
        self.name = str(name)
        self.output, self.too_long, self.tokens_per_batch = output, too_long, tokens_per_batch
        found = find_device(device, "device")
        network, self.tokenizer = open_pretrained(
            self.name,
            AutoModelForSequenceClassification,
            "a sequence-classification model",
            torch.bfloat16 if dtype == "bfloat16" else torch.float32,
        )
        self.network: PreTrainedModel = network.to(found).requires_grad_(False)
        self._own_pad: int | None = getattr(self._config, "pad_token_id", None)
        self._at_end_token: bool | None = getattr(network.config, END_TOKEN_KEY, None)  # None = not our export
        self._system: str | None = getattr(network.config, SYSTEM_KEY, None)
        self.label = _label(self.name, label, dict(network.config.id2label))

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N]. Pure.

        Raises:
            InputError: a text is longer than the model's context, its chat template refuses a prompt, or the head
                learned from whole texts.
        """
        if self._at_end_token is False:
            raise InputError(
                f"sequence_classifier: {self.name!r} learned from whole texts that show the reference answer. Ask it "
                "through ReferenceBased(SequenceClassifier(...)), or name the folder of the fit."
            )
        rollouts = batch.rollouts
        problems = [rollouts.problem(row) for row in range(len(rollouts.text))]
        if self._at_end_token:
            rows = [
                as_learned(self.tokenizer, problem, text, ended=ended, system=self._system)
                for problem, text, ended in zip(problems, rollouts.text, _ended(batch), strict=True)
            ]
        else:
            rows = [
                conversation(self.tokenizer, problem, text)
                for problem, text in zip(problems, rollouts.text, strict=True)
            ]
        values = self._values(rows, [problem.id for problem in problems])
        return {"sequence_classifier": Stream(values=values.to(batch.outcome.device))}

    def read(self, texts: Sequence[str], names: Sequence[str] | None = None) -> Tensor:
        """The model's output for whole texts as they stand, no template put around them.

        Args:
            texts: n texts.
            names: n names to call them by in an error.

        Returns:
            [n] float32, NaN where a text is too long and that is to be unknown.
        """
        rows = [list(self.tokenizer(text)["input_ids"]) for text in texts]
        return self._values(rows, names or [f"text {i}" for i in range(len(rows))]).cpu()

    def _values(self, rows: Sequence[list[int]], names: Sequence[str]) -> Tensor:
        limit = context_of(self.network, self.tokenizer)
        fitted = [
            fitted_tokens("sequence_classifier", row, limit, self.too_long, name)
            for row, name in zip(rows, names, strict=True)
        ]
        known = [i for i, row in enumerate(fitted) if row is not None]
        found = torch.full((len(rows),), torch.nan, device=self.network.device)
        self.network.eval()  # whoever else holds the network may have put it into training mode
        with torch.no_grad():
            for places in _cuts([len(fitted[i] or ()) for i in known], self.tokens_per_batch):
                chosen = [known[place] for place in places]
                found[torch.tensor(chosen, device=found.device)] = self._forward([fitted[i] or [] for i in chosen])
        return found

    @property
    def _config(self) -> object:
        return self.network.config.get_text_config()

    def _forward(self, rows: Sequence[list[int]]) -> Tensor:
        """[n] float32 of n rows of tokens.

        Decoder-only classifiers look for the last token that is not the padding one, by its id: where that id also
        ends texts (padding = end token) they would read one token early. Rows are therefore padded with an id that
        none of them has.
        """
        used = {token for row in rows for token in row}
        pad = self._own_pad
        if pad is None or pad in used:
            unused = (token for token in range(getattr(self._config, "vocab_size", 0)) if token not in used)
            pad = next(unused, None)
        if pad is None and len(rows) > 1:
            return torch.cat([self._forward([row]) for row in rows])
        longest = max(len(row) for row in rows)
        tokens = torch.tensor([row + [pad or 0] * (longest - len(row)) for row in rows], device=self.network.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.network.device)
        seen = torch.arange(longest, device=self.network.device) < lengths[:, None]
        setattr(self._config, "pad_token_id", pad)  # noqa: B010  # the attribute is the library's
        try:
            logits = self.network(input_ids=tokens, attention_mask=seen.long()).logits.float()
        finally:
            setattr(self._config, "pad_token_id", self._own_pad)  # noqa: B010
        if self.output == "logit":
            found: Tensor = logits[:, self.label]
        elif logits.shape[1] == 1:
            found = logits[:, 0].sigmoid()
        else:
            found = logits.softmax(dim=1)[:, self.label]
        return found


def conversation(tokenizer: PreTrainedTokenizerBase, problem: Problem, text: str) -> list[int]:
    """The tokens of a prompt and its response as one conversation under the tokenizer's chat template.

    Without a template: of the prompt's text and the response's, joined as they stand.

    Raises:
        InputError: the template refuses the prompt; prompt and response are both empty.
    """
    if tokenizer.chat_template is None:
        ids = tokenizer(problem.prompt_text + text)["input_ids"]
    else:
        ids = _templated(tokenizer, problem, text)
    if not ids:
        raise InputError(f"the prompt of problem {problem.id!r} is empty, and so is a response to it. Drop the row.")
    return list(ids)


def _templated(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, text: str | None, system: str | None = None
) -> list[int]:
    """A prompt and its response under the chat template; without a response, up to where one would begin."""
    from jinja2 import TemplateError

    prompt = problem.prompt
    talk = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
    if system is not None and (not talk or talk[0]["role"] != "system"):
        talk.insert(0, {"role": "system", "content": system})
    if text is not None:
        talk.append({"role": "assistant", "content": text})
    try:
        ids = tokenizer.apply_chat_template(talk, add_generation_prompt=text is None, tokenize=True, return_dict=False)
    except TemplateError as error:
        raise InputError(
            f"the chat template of this judge refuses the prompt of problem {problem.id!r}: {error}. "
            "Change the prompt, or choose another judge."
        ) from error
    return list(ids)


def as_learned(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, text: str, *, ended: bool, system: str | None = None
) -> list[int]:
    """The tokens of a prompt and its response as `LanguageModel.tokenize` gives them to a head that learns.

    The prompt is asked under the chat template, and what follows is the response alone, cut apart from it: of a
    template's own ending only the end token was learned at, and of a response that was cut off not even that. `system`
    goes before a prompt that does not bring a system message of its own.

    Raises:
        InputError: the template refuses the prompt, or it is empty.
    """
    if tokenizer.chat_template is None:
        asked = list(tokenizer(problem.prompt_text)["input_ids"])
    else:
        asked = _templated(tokenizer, problem, None, system)
    if not asked:
        raise InputError(f"the prompt of problem {problem.id!r} is empty. Drop the row, or write a prompt.")
    answer = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    end = tokenizer.eos_token_id
    if ended and answer[-1:] != [end]:  # a library may hand over a text that shows it
        answer.append(end)
    return [*asked, *answer]


def _ended(batch: Batch) -> list[bool]:
    """Of each response: whether it ended by itself. Where a library does not tell, it is taken to have."""
    from reckon.rewards.adapters._unknown import Unknown

    end = batch.rollouts.end
    return [True] * len(end) if isinstance(end, Unknown) else (end == End.EOS).tolist()


def context_of(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens the model can read; None = nobody says."""
    own = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    known = [int(limit) for limit in (own, tokenizer.model_max_length) if limit is not None and limit < 1 << 30]
    return min(known, default=None)


def fitted_tokens(who: str, tokens: list[int], limit: int | None, too_long: TooLong, name: str) -> list[int] | None:
    """The tokens if they fit into the context; else, as `too_long` says, those that do, None for unknown, or an error.

    Raises:
        InputError: there are none, or too many and `too_long` is "error".
    """
    if not tokens:
        raise InputError(f"{who}: there is nothing to read for {name!r}: its text has no tokens.")
    if limit is None or len(tokens) <= limit:
        return tokens
    if too_long == "error":
        raise InputError(
            f"{who}: prompt and response of {name!r} have {len(tokens)} tokens, more than the judge's context of "
            f"{limit}. Shorten them, or set too_long to unknown or cut."
        )
    return tokens[:limit] if too_long == "cut" else None


def _cuts(lengths: Sequence[int], budget: int) -> Iterable[list[int]]:
    """Runs of places, long rows first, whose padded size stays within `budget`; one row where one takes more."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    cut: list[int] = []
    for place in order:
        if cut and (len(cut) + 1) * lengths[cut[0]] > budget:
            yield cut
            cut = []
        cut.append(place)
    if cut:
        yield cut


def _label(name: str, label: int | str | None, labels: Mapping[int, str]) -> int:
    if label is None:
        if len(labels) == 1:
            return 0
        raise InputError(
            f"sequence_classifier: {name!r} has {len(labels)} labels ({', '.join(map(repr, labels.values()))}). "
            "Say which one is the reward: label=..."
        )
    places = {text: place for place, text in labels.items()}
    place = places.get(label) if isinstance(label, str) else label
    if place is None or place not in labels:
        raise InputError(
            f"sequence_classifier: {name!r} has no label {label!r}; it has {', '.join(map(repr, labels.values()))}."
        )
    return place
