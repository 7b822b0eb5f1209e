"""TRL's side: `GRPOTrainer.train()` itself, held between its steps until the orchestrator says go.

Nothing of the trainer's work is replaced. The subclass reads clocks and counts tokens; the callback waits.
"""

from __future__ import annotations

import functools
import gc
import tempfile
import time
from typing import Any

import torch
import wire
from datasets import Dataset
from side_generate import EndAt
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

# Always set, since each makes TRL's step shorter and none changes what is learned: no reference model, nothing logged,
# saved or shuffled, one generation for all micro-batches of a step. What else may help is tried by trl_settings.py.
ALWAYS = {
    "beta": 0.0,
    "num_iterations": 1,
    "loss_type": "grpo",
    "epsilon": 0.2,
    "temperature": 1.0,
    "top_p": 1.0,
    "shuffle_dataset": False,
    "optim": "adamw_torch_fused",
    "lr_scheduler_type": "constant",
    "logging_strategy": "no",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "use_cpu": True,
}


class Watched(GRPOTrainer):
    """A GRPOTrainer whose parts are timed and whose trained tokens are counted."""

    job: wire.Message
    ends: EndAt
    number = 0  # of the step
    sample = 0.0  # seconds
    trained = 0  # tokens
    spread = 0.0  # least standard deviation of the advantages within a group

    def _generate(self, prompts: list[str]) -> Any:
        self.ends.set(self.job["lengths"][self.number], self.job["shape"]["limit"])
        began = time.perf_counter()
        found = super()._generate(prompts)
        self.sample = time.perf_counter() - began
        self.prompt_lengths = sorted({len(ids) for ids in found[0]})
        expected = [text for text in self.job["prompts"][self.number] for _ in range(self.num_generations)]
        if prompts != expected:
            raise SystemExit("trl: the trainer asked for other prompts than ours answers in this step.")
        return found

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        made = super()._generate_and_score_completions(inputs)
        self.spread = float(made["advantages"].view(-1, self.num_generations).std(dim=1).min())
        return made

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        self.trained += int(inputs["completion_mask"].sum())
        return super().compute_loss(model, inputs, *rest, **named)


class Gate(TrainerCallback):
    """Holds the trainer before its first step and after every step, and reports the step from gate to gate."""

    def __init__(self, orders: wire.Orders) -> None:
        self.orders = orders
        self.commands = iter(orders)
        self.kept: wire.Message | None = None  # the next job, or None: the orchestrator has gone
        self.trainer: Watched
        self.began = 0.0

    def wait(self, control: Any) -> None:
        command = next(self.commands, None)
        if command is None or command["do"] != "step":
            self.kept, control.should_training_stop = command, True
            return
        self.trainer.number, self.trainer.trained = command["step"], 0
        self.began = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.wait(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        seconds, trainer = time.perf_counter() - self.began, self.trainer
        self.orders.answer(
            seconds=seconds,
            sample=trainer.sample,
            learn=seconds - trainer.sample,
            tokens=trainer.trained,
            prompt=trainer.prompt_lengths,
            spread=trainer.spread,
        )
        self.wait(control)


def place(prompts: list[str], completions: list[str], trainer_state: Any, **columns: Any) -> list[float]:
    """Rewards a response for its place in its group, as our side does."""
    return [float(prompts[:row].count(prompt)) for row, prompt in enumerate(prompts)]


def make_trainer(job: wire.Message, gate: Gate, output: str) -> Watched:
    shape, learning, settings = job["shape"], job["learning"], dict(job["settings"])
    rows, weights = settings.pop("rows"), settings.pop("weights")
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, weights))
    ends = EndAt([tokenizer.eos_token_id], shape["prompt"])
    model.generate = functools.partial(model.generate, logits_processor=LogitsProcessorList([ends]))
    if settings.get("use_transformers_continuous_batching"):  # takes no processor, so it cannot end answers unequally
        settings["generation_kwargs"] = {"suppress_tokens": [tokenizer.eos_token_id]}
    answers = shape["prompts"] * shape["answers"]
    config = GRPOConfig(
        output_dir=output,
        max_steps=len(job["prompts"]),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=answers // rows,
        num_generations=shape["answers"],
        max_completion_length=shape["limit"],
        learning_rate=learning["lr"],
        max_grad_norm=learning["clip"],
        adam_beta1=learning["beta1"],
        adam_beta2=learning["beta2"],
        weight_decay=learning["weight_decay"],
        seed=job["seed"],
        **(ALWAYS | settings),
    )
    posed = Dataset.from_dict({"prompt": [text for step in job["prompts"] for text in step]})
    trainer = Watched(
        model=model,
        reward_funcs=place,
        args=config,
        train_dataset=posed,
        processing_class=tokenizer,
        callbacks=[gate],
    )
    trainer.job, trainer.ends, gate.trainer = job, ends, trainer
    return trainer


def main() -> None:
    orders = wire.Orders()
    gate = Gate(orders)
    job = next(gate.commands, None)
    while job is not None:
        with tempfile.TemporaryDirectory() as output:
            trainer = make_trainer(job, gate, output)
            orders.answer()
            trainer.train()  # returns when the gate has heard of something else than a step
            job = gate.kept
            del trainer, gate.trainer
            gc.collect()


if __name__ == "__main__":
    main()
