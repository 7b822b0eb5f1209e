"""Kills small runs with SIGKILL at random moments, resumes them, and compares every file with an undisturbed run's.

    python scripts/kill_test.py --kills 100

The loop is a small one with torch and NumPy in its parts. Every other kill waits for a save to begin and strikes within
it. Each attempt is a fork of a process in which all is loaded. Exits with 1 if any file differs, times aside.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import torch

from reckon.runs import Run
from reckon.types import Batch, Credit, Problem, Rng, Rollouts, Seen, Sequences, State, Stream

STEPS, SAVE_EVERY, EVAL_EVERY, N, T = 24, 3, 5, 8, 6


class Policy:
    """A vector of logits and Adam's moments, taught nothing in particular."""

    def __init__(self) -> None:
        self.weights = torch.zeros(64, 512, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.weights], lr=0.01)

    def update(self, rng: Rng) -> float:
        target = torch.from_numpy(rng.numpy().normal(size=(64, 512))).float()
        loss = ((self.weights - target) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def state_dict(self) -> State:
        return {"weights": self.weights, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])


class Sampler:
    """Remembers how each domain went."""

    def __init__(self) -> None:
        self.means = {"a": 0.5, "b": 0.1 + 0.2}

    def state_dict(self) -> State:
        return {"means": dict(self.means)}

    def load_state_dict(self, state: State) -> None:
        self.means = dict(state["means"])


def rollouts(rng: Rng) -> Rollouts:
    random_numbers = rng.numpy()
    tokens = torch.from_numpy(random_numbers.integers(0, 9, size=(N, T)))
    pieces = tuple(tuple(str(token) for token in row) for row in tokens.tolist())
    return Rollouts(
        seq=Sequences(
            prompts=(torch.tensor([1]), torch.tensor([2])),
            group=torch.arange(N) // (N // 2),
            tokens=tokens,
            mask=torch.ones(N, T, dtype=torch.bool),
        ),
        problems=(Problem(id="a-1", prompt="?", answer="4", domain="a"), Problem(id="b-1", prompt="!", domain="b")),
        text=tuple("".join(row) for row in pieces),
        pieces=pieces,
        logprobs=torch.from_numpy(random_numbers.normal(size=(N, T))).float(),
        end=torch.zeros(N, dtype=torch.int64),
    )


def batch_of(step: int, rng: Rng) -> Batch:
    answers, outcome = rollouts(rng), torch.arange(N).float() % 2
    problems = tuple(answers.problem(row) for row in range(N))
    lengths = torch.full((N,), T)
    seen = Seen(problems=problems, outcome=outcome, lengths=lengths, end=answers.end, rounds=1, wanted=2, kept=2)
    return Batch(rollouts=answers, outcome=outcome, train=torch.ones(N, dtype=torch.bool), seen=seen, step=step)


def evaluate(run: Run, step: int, rng: Rng) -> float:
    answers, n = rollouts(rng), N
    columns: dict[str, list[object]] = {name: [0] * n for name in ("row", "group", "sample")} | {
        name: ["x"] * n for name in ("problem", "domain", "prompt", "text", "end")
    }
    columns |= {"step": [step] * n, "greedy": [True] * n, "tokens": [[1]] * n, "pieces": [["x"]] * n}
    columns["logprobs"] = answers.logprobs.tolist()
    run.evaluation("dev", step, columns)
    score = float(answers.logprobs.mean())
    run.log(step, {"eval/dev/score": score})
    return score


def loop(folder: Path, seed: int) -> None:
    """The shape of the real loop: restore, step, log, record, evaluate, and save as the last thing of a step."""
    recipe = {"seed": seed, "steps": STEPS}
    run = Run.resume(folder, recipe) if (folder / "recipe.yaml").exists() else Run.create(folder, recipe=recipe)
    policy, sampler, rng = Policy(), Sampler(), Rng((seed,))
    parts: Mapping[str, object] = {"policy": policy, "sampler": sampler}
    start = run.restore(parts)
    if start == 0:
        evaluate(run, 0, rng.child("eval", 0))
    for step in range(start, STEPS):
        batch = batch_of(step, rng.child("sample", step))
        loss = policy.update(rng.child("update", step))
        sampler.means["a"] = sampler.means["a"] * 0.9 + loss * 0.1
        advantages = batch.rollouts.logprobs * policy.weights.detach()[0, 0]
        credit = Credit(advantages=advantages, weights=torch.ones(N, T), mask=batch.seq.mask)
        run.record(step + 1, batch, {"correct": Stream(values=batch.outcome)}, credit)
        run.log(step + 1, {"policy/loss": loss, "sampler/a": sampler.means["a"]})
        due = (step + 1) % EVAL_EVERY == 0
        score = evaluate(run, step + 1, rng.child("eval", step)) if due else None
        run.save_if_due(step + 1, STEPS, parts, every=SAVE_EVERY, score=score)
    run.close()


def saving(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".*"))


def attempt(folder: Path, seed: int, delay: float | None = None, *, aim: bool = False) -> bool:
    """Runs the loop in a fork and kills it after `delay` seconds; True if it ended by itself.

    `aim`: the delay counts from the moment that the next checkpoint begins to be written.
    """
    child = os.fork()
    if child == 0:
        try:
            loop(folder, seed)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if delay is not None:
        while aim and not saving(folder) and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.0001)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status) != 0:
        sys.exit(f"the loop failed in {folder}")
    return True


def contents(folder: Path) -> dict[str, object]:
    """Every file of a run, the time of each line of metrics and where it was made left out."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
        elif path.is_file() and name not in ("environment.json", ".lock"):
            found[name] = path.read_bytes()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    moments = random.Random(arguments.seed)
    kills = runs = halves = differ = 0
    with tempfile.TemporaryDirectory() as place:
        loop(Path(place, "warm-up"), 0)  # the first step loads much
        while kills < arguments.kills:
            whole, killed = Path(place, f"whole-{runs}"), Path(place, f"killed-{runs}")
            began = time.monotonic()
            loop(whole, runs)
            pace = (time.monotonic() - began) / STEPS
            done = False
            while not done and kills < arguments.kills:
                if kills % 2:
                    done = attempt(killed, runs, moments.uniform(0, pace), aim=True)
                else:
                    done = attempt(killed, runs, moments.uniform(0, 12 * pace))
                kills += not done
                halves += not done and saving(killed)
            if not done:
                attempt(killed, runs)
            runs += 1
            left, right = contents(whole), contents(killed)
            for name in sorted(set(left) | set(right)):
                if left.get(name) != right.get(name):
                    differ += 1
                    print(f"run {runs}: {name} differs")
    print(
        f"{kills} kills in {runs} runs of {STEPS} steps, {halves} of them with a save half done: {differ} files differ"
    )
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
