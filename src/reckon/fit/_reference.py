"""Log-probs of a reference, computed once for each response where it is frozen."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from reckon.models import Reference
from reckon.types import Sequences


class CachedReference:
    """Remembers what a frozen model says of each response, by the very tokens of prompt and response.

    A reference that follows the model (`model.reference(sync_every=512)`) is asked anew every time.

    What it keeps is of one model, and the tokens hold all that tokenizer, template and text have a say in: a row is
    never mistaken for another by its place in a shuffled file.
    """

    def __init__(self, reference: Reference) -> None:
        """Nothing is computed yet.

        Args:
            reference: `model.reference()`, taken before the model has learned anything. With LoRA it shares the model's
                weights, the adapters off.
        """
        self.reference = reference
        self.follows = getattr(reference, "sync_every", None) is not None
        self._known: dict[bytes, Tensor] = {}

    def __len__(self) -> int:
        """How many responses are remembered."""
        return len(self._known)

    def logprobs(self, seq: Sequences, *, keep: bool = True) -> Tensor:
        """[N, T] float32, 0 where the mask is False; what is not known yet is computed, and kept with `keep`."""
        keys = _keys(seq)
        missing = [row for row, key in enumerate(keys) if key not in self._known]
        fresh: dict[bytes, Tensor] = {}
        if missing:
            found = self.reference.outputs(seq.take(torch.tensor(missing, device=seq.group.device))).logprobs
            assert found is not None
            fresh = {keys[row]: logprobs.cpu() for row, logprobs in zip(missing, found, strict=True)}
        out = torch.zeros(seq.mask.shape)
        for row, key in enumerate(keys):
            known = self._known[key] if key in self._known else fresh[key]
            n = min(len(known), out.shape[1])  # what is behind is padding, of this batch or of that one
            out[row, :n] = known[:n]
        if keep and not self.follows:
            self._known |= {key: row[: int(row.nonzero().max()) + 1 if row.any() else 0] for key, row in fresh.items()}
        return out.to(seq.mask.device)


def _keys(seq: Sequences) -> list[bytes]:
    prompts = [hashlib.sha256(prompt.cpu().numpy().tobytes()).digest() for prompt in seq.prompts]
    return [
        hashlib.sha256(prompts[group] + tokens[mask].numpy().tobytes() + mask.nonzero().numpy().tobytes()).digest()
        for group, tokens, mask in zip(seq.group.tolist(), seq.tokens.cpu(), seq.mask.cpu(), strict=True)
    ]
