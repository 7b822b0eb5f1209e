"""vLLM's CPU build as a sampler. Runs in an environment of its own (`make bench-vllm`)."""

from __future__ import annotations

import os
import time
from typing import Any

import wire

# Both cores: left to itself vLLM keeps one for its server. The cache holds the largest shape.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{(os.cpu_count() or 1) - 1}")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

_loaded: dict[str, Any] = {}  # it loads for two minutes, so one engine serves all shapes of a model


def engine(folder: str, dtype: str, seed: int) -> Any:
    if folder not in _loaded:
        from vllm import LLM

        _loaded.clear()
        _loaded[folder] = LLM(model=folder, dtype=dtype, max_model_len=1024, max_num_seqs=64, seed=seed)
    return _loaded[folder]


def open_job(job: wire.Message) -> tuple[wire.Message, wire.Callable[[int], wire.Message]]:
    llm = engine(job["model"], job["dtype"], job["seed"])
    import vllm

    shape = job["shape"]

    def step(number: int) -> wire.Message:
        texts, lengths, k = job["prompts"][number], job["lengths"][number], shape["answers"]
        settings = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "ignore_eos": True}
        if shape["ragged"]:
            texts = [text for text in texts for _ in range(k)]
            wanted = [vllm.SamplingParams(max_tokens=length, **settings) for length in lengths]
        else:
            wanted = [vllm.SamplingParams(n=k, max_tokens=shape["limit"], **settings)] * len(texts)
        began = time.perf_counter()
        found = llm.generate(texts, wanted, use_tqdm=False)
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "tokens": sum(len(answer.token_ids) for request in found for answer in request.outputs),
            "prompt": sorted({len(request.prompt_token_ids) for request in found}),
        }

    return {"version": vllm.__version__}, step


if __name__ == "__main__":
    wire.serve(open_job)
