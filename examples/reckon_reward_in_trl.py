"""Trains TRL's GRPOTrainer with a combination of reckon's rewards: `python examples/reckon_reward_in_trl.py`.

Needs TRL and datasets. The model has two layers and reads characters; it is made on the spot, so nothing is downloaded,
and 40 steps take about 15 seconds on a CPU. The model starts out random and learns to end its answers in time, not yet
to add: what is shown is how the parts fit together.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from reckon.models import tiny
from reckon.rewards import Function, Gate, Length, OverlongPenalty, Sum, Verifier
from reckon.rewards.adapters import rows_of, to_trl
from reckon.tasks import ChainArithmetic

LIMIT = 16  # tokens of a response


def digits_and_commas(completions: list[str], **columns: object) -> list[float]:
    """A function of your own: the share of characters that are a digit or a comma."""
    return [sum(c in "0123456789," for c in text) / max(1, len(text)) for text in completions]


def make_reward() -> Sum:
    """No sum of functions could say this: length is rewarded only where the response is right."""
    return Sum(
        {
            "correct": Verifier(),
            "length": Gate(condition=Verifier(), then=Length(l_max=LIMIT)),
            "digits": Function(digits_and_commas),
            "overlong": OverlongPenalty(l_max=LIMIT, buffer=8),
        },
        weights={"digits": 0.5},
    )


def main(steps: int = 40, folder: Path | None = None) -> list[dict[str, float]]:
    """Trains, prints one line a step and returns what TRL logged."""
    task = ChainArithmetic(operations=4, train=200, dev=10, test=10)
    tokenizer = tiny.make_tokenizer()
    reward = to_trl(make_reward(), "sums", task=task, tokenizer=tokenizer, num_generations=8)
    trainer = GRPOTrainer(
        model=tiny.make_network(layers=2, width=64),
        processing_class=tokenizer,
        reward_funcs=reward,
        train_dataset=Dataset.from_list(rows_of(task, "train")),
        args=GRPOConfig(
            output_dir=str(folder or tempfile.mkdtemp()),
            max_steps=steps,
            per_device_train_batch_size=32,
            num_generations=8,
            max_completion_length=LIMIT,
            learning_rate=3e-3,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            bf16=False,
            disable_tqdm=True,
        ),
    )
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry in history:
        parts = ("correct", "length", "digits", "overlong")
        shown = "  ".join(f"sums/{part} {entry[f'rewards/sums/{part}/mean']:.3f}" for part in parts)
        sys.stdout.write(f"step {entry['step']:3}  reward {entry['reward']:.3f}  {shown}\n")
    return history


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
