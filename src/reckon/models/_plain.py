"""The plain path, for networks whose answers cannot share a prompt: rows by themselves, through transformers alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from reckon.models._pack import lengths
from reckon.models._sample import Drawn, Order, Record
from reckon.types import Sequences, Want


def _sizes(seq: Sequences) -> list[int]:
    """Of each row: tokens of prompt and response."""
    prompts = [len(seq.prompts[group]) for group in seq.group.tolist()]
    return [prompt + length for prompt, length in zip(prompts, lengths(seq).tolist(), strict=True)]


def area(seq: Sequences) -> int:
    """The tokens of n rows, padded to the longest."""
    sizes = _sizes(seq)
    return len(sizes) * max(sizes)


def micro_batches(seq: Sequences, budget: int, *, whole: bool = False) -> list[Tensor]:
    """Cuts N responses into runs of rows that take `budget` tokens or less with padding; one row where one takes more.

    Args:
        seq: N responses.
        budget: tokens, padding included.
        whole: cut between groups only: a group stays together where it takes more.

    Returns:
        [n] int64 row indices of each micro-batch, in order.
    """
    cuts: list[list[int]] = []
    longest = 0
    for rows, size in _units(seq, whole):
        if not cuts or (len(cuts[-1]) + len(rows)) * max(longest, size) > budget:
            cuts.append([])
            longest = 0
        cuts[-1] += rows
        longest = max(longest, size)
    return [torch.tensor(cut, device=seq.tokens.device) for cut in cuts]


def _units(seq: Sequences, whole: bool) -> list[tuple[list[int], int]]:
    """What must not be cut, rows or groups, in order: its rows and the tokens of the longest of them."""
    sizes = _sizes(seq)
    units: dict[int, list[int]] = {}
    for row, group in enumerate(seq.group.tolist()):
        units.setdefault(group if whole else row, []).append(row)
    return [(rows, max(sizes[row] for row in rows)) for rows in units.values()]


def score(network: PreTrainedModel, seq: Sequences, want: Sequence[Want], temperature: float) -> dict[str, Tensor]:
    """As the packed path's: [M] or [M, D] by sampled token. Padding stands behind, where causal layers never look."""
    device = seq.tokens.device
    ends = lengths(seq).tolist()
    rows = [
        torch.cat([seq.prompts[group], seq.tokens[row, :end]])
        for row, (group, end) in enumerate(zip(seq.group.tolist(), ends, strict=True))
    ]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    seen = (
        torch.arange(tokens.shape[1], device=device) < torch.tensor([len(row) for row in rows], device=device)[:, None]
    )
    hidden_wanted = not {"values", "scores", "hidden"}.isdisjoint(want)
    out = network(input_ids=tokens, attention_mask=seen.long(), use_cache=False, output_hidden_states=hidden_wanted)
    at, columns = seq.mask.nonzero(as_tuple=True)
    first = torch.tensor([len(seq.prompts[group]) for group in seq.group.tolist()], device=device)
    places = first[at] + columns
    laws = (out.logits[at, places - 1].float() / temperature).log_softmax(dim=1)
    found = {"logprobs": laws.gather(1, seq.tokens[at, columns][:, None]).squeeze(1)}
    if "entropy" in want:
        found["entropy"] = -(laws.exp() * laws).sum(dim=1)
    if hidden_wanted:
        last = out.hidden_states[-1].float()
        found |= {"hidden": last[at, places], "before": last[at, places - 1]}
    return found


class _Chooser(LogitsProcessor):  # type: ignore[misc]  # untyped in transformers
    """Draws by our own numbers inside transformers' generation: leaves it one token to choose from."""

    def __init__(self, rows: Sequence[int], record: Record, end: int) -> None:
        self._rows, self._record, self._end = rows, record, end
        self._over = [False] * len(rows)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [n, V] to scores that are finite for the token of each row alone; a row that is over gets `end`."""
        going = [place for place, over in enumerate(self._over) if not over]
        tokens = [self._end] * len(self._rows)
        drawn, over = self._record.choose([self._rows[place] for place in going], scores[going].float())
        for place, token, ended in zip(going, drawn, over, strict=True):
            tokens[place], self._over[place] = token, ended
        forced = torch.full_like(scores, -torch.inf)
        return forced.scatter(1, torch.tensor(tokens, device=scores.device)[:, None], 0.0)

    def stop(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        """[n] bool, as a stopping criterion: which rows are over."""
        return torch.tensor(self._over, device=input_ids.device)


@contextmanager
def _bare(network: PreTrainedModel) -> Iterator[None]:
    """Within it generation is not told of what the network's makers advise, such as a penalty on repetition.

    That would change the law which is drawn from, and only here: log-probs are of the network as it is.
    """
    own, network.generation_config = network.generation_config, GenerationConfig()
    try:
        yield
    finally:
        network.generation_config = own


@torch.no_grad()
def draw(network: PreTrainedModel, order: Order, end: int) -> Drawn:
    """As `_sample.draw`, prompt by prompt, so that nothing is padded, by `network.generate`."""
    record, computed = Record(order), 0
    for group in dict.fromkeys(order.group):
        rows = [row for row, owner in enumerate(order.group) if owner == group]
        prompt = order.prompts[group][None].expand(len(rows), -1)
        chooser = _Chooser(rows, record, end)
        with _bare(network):
            out = network.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=max(order.limits[row] for row in rows),
                eos_token_id=None,
                pad_token_id=end,
                logits_processor=LogitsProcessorList([chooser]),
                stopping_criteria=[chooser.stop],
            )
        computed += out.numel() - len(rows)  # the last token of each is never read
    return record.drawn(network.device, computed)
