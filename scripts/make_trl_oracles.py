"""Makes the files of tests/oracles: what TRL's own trainers compute on tensors we choose, or on a tiny model.

Run in an environment with TRL (`pip install 'reckon-rl[oracles]'`), offline, in about a minute:

    python scripts/make_trl_oracles.py tests/oracles/{trl,preferences,reference}.json

trl.json: GRPOTrainer and RLOOTrainer are built whole around a random model of a few hundred weights. Then what they
would sample, score and compute with the model is replaced by fixed tensors, and their own code makes the advantages and
the losses.

preferences.json: DPOTrainer, KTOTrainer and RewardTrainer are built whole, with such a policy and a reference, and are
handed the first batch of their own data loader. What is kept: the log-probs (or scores) their models gave, the loss
they made of them, and its gradient with respect to them. CPOTrainer's loss, which takes log-probs, is called.

reference.json: SyncRefModelCallback mixes the weights of two small networks, twice.
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
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl.experimental.cpo import CPOTrainer
from trl.trainer.callbacks import SyncRefModelCallback

# Of trl.json
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

# Of preferences.json
PAIRS = [  # prompt, chosen, rejected; the space keeps the last word of a prompt apart from the first of a response
    ("a b", " c d e f", " g h"),
    ("c", " a", " b b b a"),
    ("d e f", " h h a", " a c"),
    ("g", " b c", " d"),
]
MARGINS = [0.5, 0.0, 1.5, 1.0]
LABELED = [("a b", " c d e f", True), ("c", " b b b a", False), ("d e f", " a c", False), ("g h", " d a b", True)]

DPO: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss_type": ["sigmoid"], "beta": 0.3},
    "ipo": {"loss_type": ["ipo"], "beta": 0.7},
    "nca_pair": {"loss_type": ["nca_pair"], "beta": 0.4},
    "sigmoid_norm": {"loss_type": ["sigmoid_norm"], "beta": 5.0},
}
KTO: dict[str, dict[str, Any]] = {
    "kto": {"beta": 0.3},
    "weighted": {"beta": 0.8, "desirable_weight": 1.5, "undesirable_weight": 0.5},
    "clamped": {"beta": 0.5},  # policy and reference exchanged, so that the mean of the mismatched is below 0
}
REWARD: dict[str, dict[str, Any]] = {
    "plain": {},
    "margin": {"margin": True},
    "centered": {"center_rewards_coefficient": 0.07},
    "both": {"margin": True, "center_rewards_coefficient": 0.07},
}
CPO: dict[str, tuple[str, float, float, float]] = {  # loss, beta, gamma, label smoothing
    "smoothed": ("sigmoid", 0.3, 0.0, 0.2),
    "simpo": ("simpo", 2.0, 0.6, 0.0),
    "simpo_smoothed": ("simpo", 2.0, 0.6, 0.1),
    "ipo": ("ipo", 0.7, 0.0, 0.0),
}


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "<eos>": 1} | {letter: i + 2 for i, letter in enumerate("abcdefgh")}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def model(kind: type, seed: int) -> Any:
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=1,
        initializer_range=0.8,  # so that two models differ by nats, not by hundredths
        num_labels=1,
    )
    torch.manual_seed(seed)
    return kind(config)


@contextmanager
def trainer_of(kind: type, config_kind: type, data: Dataset, settings: dict[str, Any], **others: Any) -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as runs:
        config = config_kind(
            output_dir=runs,
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            **{"per_device_train_batch_size": len(data), **settings},
        )
        trainer = kind(args=config, train_dataset=data, processing_class=tokenizer(), **others)
        trainer.model.train()
        yield trainer


def rl_trainer(kind: type, config_kind: type, **settings: Any) -> Any:
    """A trainer with responses to two prompts, K to each; its model is asked nothing."""
    data = Dataset.from_dict({"prompt": ["a b", "c d"]})
    settings |= {"per_device_train_batch_size": len(LENGTHS), "gradient_accumulation_steps": 1}
    settings |= {"num_generations": K, "max_completion_length": LIMIT}
    # With a KL term the trainer loads its reference from where the model came from: a folder.
    with tempfile.TemporaryDirectory() as folder:
        model(LlamaForCausalLM, 0).save_pretrained(folder)
        rewards = {"model": folder, "reward_funcs": lambda completions, **_: [0.0] * len(completions)}
        with trainer_of(kind, config_kind, data, settings, **rewards) as trainer:
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


def rl_oracle() -> dict[str, Any]:
    """Advantages and losses on fixed tensors."""
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
            trainer = rl_trainer(trl.GRPOTrainer, trl.GRPOConfig, scale_rewards=scale)
            made[f"grpo_{scale}"] = advantages_of(trainer, rewards, grpo_generated)
        trainer = rl_trainer(trl.RLOOTrainer, trl.RLOOConfig, beta=0.0)
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
        trainer = rl_trainer(trl.GRPOTrainer, trl.GRPOConfig, **settings)
        losses[name] = {"settings": settings, **loss_of(trainer, logprobs, inputs)}

    trainer = rl_trainer(trl.RLOOTrainer, trl.RLOOConfig, beta=0.0)
    # On policy: the old log-probs are the present ones, so nothing is clipped and the gradient is REINFORCE's.
    on_policy = inputs | {
        "old_logps": (logprobs * mask).sum(1),
        "advantages": torch.tensor(advantages["mixed"]["rloo"]),
    }
    rloo = loss_of(trainer, logprobs, on_policy)

    return {
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


class Kept:
    """A model that keeps what it answered, so that gradients can be asked for."""

    def __init__(self, inner: Any, field: str) -> None:
        self.inner, self.field, self.answers = inner, field, []

    def __call__(self, **inputs: Any) -> Any:
        outputs = self.inner(**inputs)
        answer = getattr(outputs, self.field)
        if answer.requires_grad:
            answer.retain_grad()
        self.answers.append(answer)
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def checked(logprobs: torch.Tensor, inner: Any, ids: torch.Tensor, attention: torch.Tensor, mask: torch.Tensor) -> None:
    """TRL's log-probs against a plain forward pass: its fused head is no oracle by itself."""
    with torch.no_grad():
        logits = LlamaForCausalLM.forward(inner, input_ids=ids, attention_mask=attention).logits[:, :-1]
    plain = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(logprobs.detach() * mask, plain * mask, rtol=1e-4, atol=1e-5)


def columns(rows: list[tuple[Any, ...]], *names: str) -> dict[str, list[Any]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def dpo_losses() -> dict[str, Any]:
    data = Dataset.from_dict(columns(PAIRS, "prompt", "chosen", "rejected"))
    found = {}
    for name, settings in DPO.items():
        policy, reference = model(LlamaForCausalLM, 0), model(LlamaForCausalLM, 1)
        with trainer_of(trl.DPOTrainer, trl.DPOConfig, data, settings, model=policy, ref_model=reference) as trainer:
            batch = next(iter(trainer.get_train_dataloader()))
            kept, trainer.ref_model = Kept(trainer.model, "log_probs"), Kept(trainer.ref_model, "log_probs")
            loss = trainer._compute_loss(kept, batch, return_outputs=False)
            loss.backward()
            mask = batch["completion_mask"][:, 1:].bool()
            (answer,), (ref,) = kept.answers, trainer.ref_model.answers
            checked(answer, policy, batch["input_ids"], batch["attention_mask"], mask)
            found[name] = {
                "beta": settings["beta"],
                "mask": mask.tolist(),  # winners first, then losers
                "logprobs": (answer * mask).tolist(),
                "ref_logprobs": (ref * mask).tolist(),
                "loss": loss.item(),
                "gradient": (answer.grad * mask).tolist(),
            }
    return found


def kto_losses() -> dict[str, Any]:
    data = Dataset.from_dict(columns(LABELED, "prompt", "completion", "label"))
    found = {}
    for name, settings in KTO.items():
        seeds = (1, 0) if name == "clamped" else (0, 1)
        policy, reference = (model(LlamaForCausalLM, seed) for seed in seeds)
        with trainer_of(trl.KTOTrainer, trl.KTOConfig, data, settings, model=policy, ref_model=reference) as trainer:
            batch = next(iter(trainer.get_train_dataloader()))
            kept, trainer.ref_model = Kept(trainer.model, "log_probs"), Kept(trainer.ref_model, "log_probs")
            loss = trainer._compute_loss(kept, batch, return_outputs=False)
            loss.backward()
            mask, mismatched = (batch[key][:, 1:].bool() for key in ("completion_mask", "KL_completion_mask"))
            (other, answer), (ref_other, ref) = kept.answers, trainer.ref_model.answers
            checked(answer, policy, batch["input_ids"], batch["attention_mask"], mask)
            found[name] = {
                **settings,
                "label": batch["label"].tolist(),
                "mask": mask.tolist(),
                "logprobs": (answer * mask).tolist(),
                "ref_logprobs": (ref * mask).tolist(),
                "mismatched_mask": mismatched.tolist(),
                "mismatched_logprobs": (other * mismatched).tolist(),
                "mismatched_ref_logprobs": (ref_other * mismatched).tolist(),
                "kl": trainer._metrics["train"]["kl"][-1],
                "loss": loss.item(),
                "gradient": (answer.grad * mask).tolist(),
            }
    return found


def reward_losses() -> dict[str, Any]:
    found = {}
    for name, asked in REWARD.items():
        settings = {key: value for key, value in asked.items() if key != "margin"}
        margins = {"margin": MARGINS} if "margin" in asked else {}
        data = Dataset.from_dict(columns(PAIRS, "prompt", "chosen", "rejected") | margins)
        scorer = model(LlamaForSequenceClassification, 2)
        with trainer_of(trl.RewardTrainer, trl.RewardConfig, data, settings, model=scorer) as trainer:
            batch = next(iter(trainer.get_train_dataloader()))
            kept = Kept(trainer.model, "logits")
            margin = batch.get("margin")
            loss = trainer.compute_loss(kept, batch)
            loss.backward()
            (answer,) = kept.answers
            found[name] = {
                "center": settings.get("center_rewards_coefficient", 0.0),
                "margin": None if margin is None else margin.tolist(),
                "scores": answer.squeeze(-1).tolist(),  # winners first, then losers
                "loss": loss.item(),
                "gradient": answer.grad.squeeze(-1).tolist(),
            }
    return found


def cpo_losses() -> dict[str, Any]:
    """CPOTrainer's loss takes log-probs; handed log-ratios with label smoothing it is conservative DPO."""
    chosen, rejected = torch.tensor([1.5, -2.0, 0.25, -0.75]), torch.tensor([-0.5, -1.0, 0.5, -3.0])
    found = {}
    for name, (loss_type, beta, gamma, smoothing) in CPO.items():
        trainer = CPOTrainer.__new__(CPOTrainer)
        trainer.alpha, trainer.beta, trainer.simpo_gamma = 0.0, beta, gamma
        trainer.label_smoothing, trainer.loss_type = smoothing, loss_type
        trainer.accelerator = type("Accelerator", (), {"device": torch.device("cpu")})()
        losses, *_ = trainer.cpo_loss(chosen, rejected)
        found[name] = {
            "beta": beta,
            "gamma": gamma,
            "smoothing": smoothing,
            "chosen": chosen.tolist(),
            "rejected": rejected.tolist(),
            "losses": losses.tolist(),
        }
    return found


def synced_reference() -> dict[str, Any]:
    """What TRL makes of a reference's weights when it is synchronized, once and once more."""
    torch.manual_seed(0)
    model, reference = (torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3)) for _ in range(2))
    found: dict[str, Any] = {"alpha": 0.6, "model": weights_of(model), "reference": weights_of(reference), "after": []}
    for _ in range(2):
        SyncRefModelCallback._sync_target_model(model, reference, 0.6)
        found["after"].append(weights_of(reference))
    return found


def weights_of(network: torch.nn.Module) -> list[list[float]]:
    return [parameter.detach().flatten().tolist() for parameter in network.parameters()]


ORACLES: dict[str, Callable[[], dict[str, Any]]] = {
    "trl.json": rl_oracle,
    "preferences.json": lambda: {
        "dpo": dpo_losses(),
        "kto": kto_losses(),
        "reward": reward_losses(),
        "cpo": cpo_losses(),
    },
    "reference.json": synced_reference,
}


def main(paths: list[Path]) -> None:
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    for path in paths:
        oracle = {"made_by": "scripts/make_trl_oracles.py", "versions": versions, **ORACLES[path.name]()}
        path.write_text(json.dumps(oracle, indent=1) + "\n")
        print(f"{path}: TRL {trl.__version__}")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
