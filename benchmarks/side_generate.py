"""`transformers.generate` on the same rows, weights in bfloat16, with whichever cache is the faster here."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import wire
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList


class EndAt(LogitsProcessor):
    """Ends each answer at its own length and no sooner, by forbidding and forcing the end token in place."""

    def __init__(self, end: Sequence[int], prompt: int) -> None:
        self.end, self.prompt = list(end), prompt
        self.last = torch.zeros(0)  # [N] the place of each answer's last token

    def set(self, lengths: Sequence[int], limit: int) -> None:
        """The lengths of the next call. An answer as long as the limit is cut by it and needs no end token."""
        self.last = torch.tensor([length if length < limit else limit + 1 for length in lengths]) - 1

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.end] = -torch.inf
        ending = (self.last == input_ids.shape[1] - self.prompt).nonzero().squeeze(1)
        if len(ending):
            scores[ending] = -torch.inf
            scores[ending, self.end[0]] = 0.0
        return scores


def open_job(job: wire.Message) -> tuple[wire.Message, wire.Callable[[int], wire.Message]]:
    shape = job["shape"]
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"])).eval()
    ends = EndAt([tokenizer.eos_token_id], shape["prompt"])

    caches: list[str | None] = [None, "static"]

    def answer(number: int, cache: str | None) -> wire.Message:
        torch.manual_seed(job["seed"] + number)
        ends.set(job["lengths"][number], shape["limit"])
        texts = [text for text in job["prompts"][number] for _ in range(shape["answers"])]
        began = time.perf_counter()
        inputs = tokenizer(texts, return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(
                **inputs,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=shape["limit"],
                pad_token_id=tokenizer.eos_token_id,
                logits_processor=LogitsProcessorList([ends]),
                cache_implementation=cache,
                disable_compile=True,
            )
        answers = out[:, shape["prompt"] :]
        tokenizer.batch_decode(answers, skip_special_tokens=True)
        seconds = time.perf_counter() - began
        ended = answers == tokenizer.eos_token_id
        found = torch.where(ended.any(dim=1), ended.long().argmax(dim=1) + 1, answers.shape[1])
        prompt = [inputs["input_ids"].shape[1]]
        return {"seconds": seconds, "tokens": int(found.sum()), "prompt": prompt, "cache": cache or "dynamic"}

    def step(number: int) -> wire.Message:
        done = {cache: answer(number, cache) for cache in caches}
        caches[:] = [min(caches, key=lambda cache: done[cache]["seconds"])]  # the warm-up decides which
        return done[caches[0]]

    return {}, step


if __name__ == "__main__":
    wire.serve(open_job)
