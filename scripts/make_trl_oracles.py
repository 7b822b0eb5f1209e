"""Makes tests/oracles/trl.json: what TRL's own trainers compute on tensors we choose.

Run in an environment with TRL (`pip install 'reckon-rl[oracles]'`), offline, in about a minute:

    python scripts/make_trl_oracles.py tests/oracles/trl.json

GRPOTrainer and RLOOTrainer are built whole around a random model of a few hundred weights. Then what they would sample,
score and compute with the model is replaced by fixed tensors, and their own code makes the advantages and the losses.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

K = 4  # responses to each prompt
LENGTHS = [7, 3, 5, 1, 6, 7, 2, 4]  # of the responses
NAN = float("nan")
REWARDS = {
    "mixed": [1, 0, 0, 0, 0.5, 0.25, 1, 0.75],
    "equal": [0.1, 0.1, 0.1, 0.1, 1, 0, 1, 0],
    "signed": [1, -1, -1, -1, 1, 1, 1, -1],
    "unknown": [1, NAN, 0, 0, NAN, NAN, NAN, 0.3],
}
LIMIT = 9  # most tokens a response may have

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "dr_grpo": {"loss_type": "dr_grpo", "epsilon": 0.1},
    "sequence": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.03, "epsilon_high": 0.04},
    "delta": {"loss_type": "dapo", "delta": 1.5},  # for negative advantages the same as dual clip
    "kl": {"loss_type": "grpo", "beta": 0.05, "use_bias_correction_kl": False},
}


@contextmanager
def tiny_model() -> Iterator[tuple[str, PreTrainedTokenizerFast]]:
    """A folder, since with a KL term the trainer loads its reference from where the model came from."""
    vocabulary = {"<pad>": 0, "<eos>": 1} | {letter: i + 2 for i, letter in enumerate("abcdefgh")}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        yield folder, tokenizer


def trainer_of(kind: type, config_kind: type, **settings: Any) -> Any:
    with tiny_model() as (folder, tokenizer), tempfile.TemporaryDirectory() as runs:
        config = config_kind(
            output_dir=runs,
            per_device_train_batch_size=len(LENGTHS),
            gradient_accumulation_steps=1,
            num_generations=K,
            max_completion_length=LIMIT,
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            **settings,
        )
        trainer = kind(
            model=folder,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=config,
            train_dataset=Dataset.from_dict({"prompt": ["a b", "c d"]}),
            processing_class=tokenizer,
        )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def advantages_of(trainer: Any, rewards: list[float], generated: Callable[[list[list[int]]], tuple[Any, ...]]) -> Any:
    """What the trainer's own code makes of these rewards."""
    completions = [[2 + i % 8 for i in range(length - 1)] + [1] for length in LENGTHS]
    trainer._generate = lambda prompts: generated(completions)
    trainer._calculate_rewards = lambda *_: torch.tensor(rewards, dtype=torch.float32)[:, None]
    inputs = [{"prompt": "a b"}] * K + [{"prompt": "c d"}] * K
    return trainer._generate_and_score_completions(inputs)["advantages"].tolist()


def loss_of(trainer: Any, logprobs: torch.Tensor, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The trainer's own loss, its gradient with respect to the log-probs, and the clip fraction it logs."""
    leaf = logprobs.clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, torch.zeros_like(leaf), None)
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    logged = trainer._metrics["train"]
    return {
        "loss": loss.item(),
        "gradient": leaf.grad.tolist(),
        "clip_fraction": logged["clip_ratio/region_mean"][-1],
        "kl": logged["kl"][-1] if logged.get("kl") else None,
    }


def main(path: Path) -> None:
    n, width = len(LENGTHS), max(LENGTHS)
    draws = torch.Generator().manual_seed(20)
    mask = torch.arange(width) < torch.tensor(LENGTHS)[:, None]
    old = -3 * torch.rand(n, width, generator=draws)
    logprobs = old + 0.35 * torch.randn(n, width, generator=draws)
    ref = old + 0.5 * torch.randn(n, width, generator=draws)

    def grpo_generated(completions: list[list[int]]) -> tuple[Any, ...]:
        return [[2, 3]] * n, completions, None, ["a"] * n, None, {}, None, None

    def rloo_generated(completions: list[list[int]]) -> tuple[Any, ...]:
        return [[2, 3]] * n, completions, ["a"] * n

    advantages: dict[str, Any] = {}
    for name, rewards in REWARDS.items():
        made = {}
        for scale in ("group", "none"):
            trainer = trainer_of(trl.GRPOTrainer, trl.GRPOConfig, scale_rewards=scale)
            made[f"grpo_{scale}"] = advantages_of(trainer, rewards, grpo_generated)
        trainer = trainer_of(trl.RLOOTrainer, trl.RLOOConfig, beta=0.0)
        made["rloo"] = advantages_of(trainer, rewards, rloo_generated)
        advantages[name] = {"rewards": [None if math.isnan(r) else r for r in rewards], **made}

    inputs = {
        "prompt_ids": torch.full((n, 2), 2),
        "prompt_mask": torch.ones(n, 2, dtype=torch.long),
        "completion_ids": torch.full((n, width), 2),
        "completion_mask": mask.long(),
        "advantages": torch.tensor(advantages["mixed"]["grpo_group"]),
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }
    losses = {}
    for name, settings in LOSSES.items():
        trainer = trainer_of(trl.GRPOTrainer, trl.GRPOConfig, **settings)
        losses[name] = {"settings": settings, **loss_of(trainer, logprobs, inputs)}

    trainer = trainer_of(trl.RLOOTrainer, trl.RLOOConfig, beta=0.0)
    # On policy: the old log-probs are the present ones, so nothing is clipped and the gradient is REINFORCE's.
    on_policy = inputs | {
        "old_logps": (logprobs * mask).sum(1),
        "advantages": torch.tensor(advantages["mixed"]["rloo"]),
    }
    rloo = loss_of(trainer, logprobs, on_policy)

    oracle = {
        "made_by": "scripts/make_trl_oracles.py",
        "versions": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "group": [i // K for i in range(n)],
        "limit": LIMIT,
        "mask": mask.tolist(),
        "old_logprobs": old.tolist(),
        "logprobs": logprobs.tolist(),
        "ref_logprobs": ref.tolist(),
        "advantages": advantages,
        "losses": losses,
        "rloo_loss": {"loss": rloo["loss"], "gradient": rloo["gradient"]},
    }
    path.write_text(json.dumps(oracle, indent=1) + "\n")
    print(f"{path}: {len(advantages)} reward vectors, {len(losses) + 1} losses, TRL {trl.__version__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
