"""Makes tests/oracles/preferences.json: what TRL's own trainers make of pairs and labels on a tiny model.

Run in an environment with TRL (`pip install 'reckon-rl[oracles]'`), offline, in less than a minute:

    python scripts/make_preference_oracles.py tests/oracles/preferences.json

DPOTrainer, KTOTrainer and RewardTrainer are built whole, with a policy and a reference of a few hundred random weights,
and are handed the first batch of their own data loader. What is kept: the log-probs (or scores) their models gave, the
loss they made of them, and its gradient with respect to them. CPOTrainer's loss, which takes log-probs, is called.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl.experimental.cpo import CPOTrainer

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
            per_device_train_batch_size=len(data),
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            **settings,
        )
        trainer = kind(args=config, train_dataset=data, processing_class=tokenizer(), **others)
        trainer.model.train()
        yield trainer


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


def main(path: Path) -> None:
    oracle = {
        "made_by": "scripts/make_preference_oracles.py",
        "versions": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "dpo": dpo_losses(),
        "kto": kto_losses(),
        "reward": reward_losses(),
        "cpo": cpo_losses(),
    }
    path.write_text(json.dumps(oracle, indent=1) + "\n")
    print(f"{path}: {sum(len(oracle[key]) for key in ('dpo', 'kto', 'reward', 'cpo'))} losses, TRL {trl.__version__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
