"""What a network says of responses it is given: log-probs, entropies, values, hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reckon.models import _plain
from reckon.models._network import last_hidden
from reckon.models._output import head_of, token_laws
from reckon.models._pack import Packed, micro_batches, pack
from reckon.types import Outputs, Sequences, Want


def cuts(seq: Sequences, budget: int, *, packs: bool, whole: bool = False) -> list[Tensor]:
    """The rows of each micro-batch of at most `budget` tokens: [n] int64 each, together 0 .. N - 1 in order.

    With `whole` no group is cut, also where it is longer than the budget by itself.
    """
    cut = micro_batches if packs else _plain.micro_batches
    return cut(seq, budget, whole=whole)


def score(
    network: PreTrainedModel,
    value_head: nn.Linear | None,
    seq: Sequences,
    want: Sequence[Want],
    *,
    temperature: float,
    dtype: torch.dtype,
    packs: bool,
) -> tuple[Outputs, int]:
    """One pass over n responses; the output layer runs on the tokens that were sampled, and on no others.

    Args:
        network: a decoder-only model in evaluation mode.
        value_head: what values and scores are read with, [D] to [1].
        seq: n responses.
        want: which outputs.
        temperature: logits are divided by it.
        dtype: of the matrix products.
        packs: whether the network can be given packed tokens; otherwise every row is computed by itself, padded.

    Returns:
        The outputs, and how many tokens went through the layers for them, padding included.
    """
    if value_head is None and ("values" in want or "scores" in want):
        raise ValueError("values or scores were asked of a model without a value head")
    if not packs:
        found, computed = _plain.score(network, seq, want, temperature), _plain.area(seq)
    else:
        packed = pack(seq, dtype, last="hidden" in want or "scores" in want)  # a score is read at the last token too
        found, computed = _packed(network, packed, seq, want, temperature), packed.tokens.shape[1]
    if value_head is not None:
        for name, source in (("values", "before"), ("scores", "hidden")):
            if name in want:
                found[name] = _read(value_head, found[source])
    places = seq.mask.nonzero(as_tuple=True)
    arranged = {
        name: values.new_zeros(*seq.mask.shape, *values.shape[1:]).index_put(places, values)
        for name, values in found.items()
        if name in want
    }
    return Outputs(**arranged), computed


def _read(head: nn.Linear, hidden: Tensor) -> Tensor:
    """[M] float32 of hidden states [M, D]: in float32 whatever the layers compute in: judges rank by differences."""
    with torch.autocast(hidden.device.type, enabled=False):
        read: Tensor = head(hidden.float())
    return read.squeeze(1)


def _packed(
    network: PreTrainedModel, packed: Packed, seq: Sequences, want: Sequence[Want], temperature: float
) -> dict[str, Tensor]:
    """[M] or [M, D] each, by sampled token; "before" is the hidden state that predicted it."""
    hidden = last_hidden(network, packed.tokens, packed.positions, packed)
    found: dict[str, Tensor] = {}
    # A group's answers begin at one state of their prompt. The gradient of hidden[reads] adds these up in the order in
    # which threads come by; that of index_select has one order, so that a run is the same again.
    before = hidden.index_select(0, packed.reads)
    if "logprobs" in want or "entropy" in want:
        found["logprobs"], found["entropy"] = token_laws(
            before,
            seq.tokens[seq.mask],
            head_of(network),
            temperature=temperature,
            entropy="entropy" in want,
            dtype=packed.dtype,
        )
    if "hidden" in want or "scores" in want:
        found["hidden"] = hidden[packed.at].float()
    if "values" in want:
        found["before"] = before
    return found
