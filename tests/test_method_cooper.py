"""Cooper as a recipe: its parts, and real runs of a one-layer model that agree to the last bit and stop when told."""

import contextlib
import json

import pytest

from reckon.cli import main
from reckon.credit import GroupNormalized
from reckon.errors import InputError, MissingError
from reckon.methods import cooper
from reckon.models import Optimization, tiny
from reckon.recipe import Recipe
from reckon.rewards import HackMonitor, OnlineReferenceBased
from reckon.samplers import All
from reckon.tasks import ChainArithmetic
from whole_runs import broken_off, checkpoint, made_once, metrics, train

RECIPE = """\
model: {name: ./small, dtype: float32}
method: {kind: cooper, lr: 1e-2}
task: {kind: chain_arithmetic, operations: 2, train: 40, dev: 12, test: 12}
sampling: {max_new_tokens: 6}
warmup: {examples: 16, epochs: 6, lr: 3e-2, batch: 8}
optimizer: {lr: 3e-3}
steps: 6
prompts: 6
answers: 4
evaluate: {every: 3, n: 12, k: 2}
save: {every: 2}
"""
JUDGE = "reward.judge"
INNER = f"{JUDGE}.reward"
VARIANTS = {
    "as it is": (),
    "adapters": ("model.lora={rank: 2}",),
    "all positives, mini-batches": (
        f"{INNER}.positive=all",
        f"{INNER}.optimizer={{lr: 1e-2, epochs: 2, minibatches: 2, weight_decay: 0.1}}",
    ),
    "every second step, lowest score": (f"{INNER}.every=2", f"{INNER}.positive=lowest_score"),
    "monitor of two steps": (f"{JUDGE}.window=1", f"{JUDGE}.frozen=8", f"{INNER}.output=binary"),
}


def test_its_parts_are_the_papers():
    """Section 2.3: the judge's probability alone, GRPO, clip 0.2 and k3 0.001 over all tokens, AdamW 1e-5 and 0.01."""
    policy, reference, task = object(), object(), ChainArithmetic()
    parts = cooper(task, policy=policy, reference=reference)
    assert list(parts.reward.parts) == ["judge"]  # the verdict is not mixed in
    monitor = parts.reward.parts["judge"]
    assert isinstance(monitor, HackMonitor)
    assert monitor.on_alarm == "warn"
    online = monitor.reward
    assert (online.policy, online.task, online.folder) == (policy, task, None)
    assert (online.output, online.every, online.positive, online.negatives) == (
        "probability",
        1,
        "first",
        "change_number",
    )
    assert online.optimizer == Optimization(lr=1e-5, weight_decay=0.01, clip=1.0)
    assert (parts.keep, parts.advantage) == (All(), GroupNormalized(std=True, eps=1e-6))
    ratio, penalty = parts.objective.parts["ratio"], parts.objective.parts["kl"]
    assert (ratio.low, ratio.high, ratio.average) == (0.2, 0.2, "tokens")
    assert (penalty.reference, penalty.coef, penalty.estimator, penalty.average) == (reference, 0.001, "k3", "tokens")


def test_what_it_cannot_do_without(tmp_path):
    with pytest.raises(InputError, match="cooper makes its judge of the `policy`"):
        cooper(ChainArithmetic())
    with pytest.raises(InputError, match="`kl` is above 0"):
        cooper(ChainArithmetic(), policy=object())
    assert cooper(ChainArithmetic(), policy=object(), kl=0.0).objective.average == "tokens"
    with pytest.raises(MissingError, match="there is no judge in"):
        cooper(ChainArithmetic(), policy=object(), kl=0.0, judge=str(tmp_path / "none"))


# Runs


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cooper")
    # Question, reference and response stand in one text of more than 96 tokens
    tiny.make_network(layers=1, width=16, heads=2, context=160).save_pretrained(folder / "small")
    tiny.make_tokenizer().save_pretrained(folder / "small")
    (folder / "cooper.yaml").write_text(RECIPE)
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def trained(home):
    """trained(*settings) -> the folder of a whole run with these settings, made once."""
    return made_once(home, "cooper.yaml")


def told(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_with_its_judge_it_is_as_if_nothing_had_happened(home, trained, variant):
    """Stopped after the third of six steps: every number and weight of policy and judge, all the monitor has seen."""
    settings = VARIANTS[variant]
    whole = trained(*settings)
    broken = broken_off(home / f"broken-{variant.replace(' ', '-')}", OnlineReferenceBased, "cooper.yaml", *settings)
    assert metrics(broken) == metrics(whole)
    assert checkpoint(broken, 6) == checkpoint(whole, 6)
    assert checkpoint(whole, 6)["reward.safetensors"] != checkpoint(whole, 4)["reward.safetensors"]


def test_what_a_step_tells_of_its_judge(trained):
    lines = told(trained())[1:]
    wanted = {"loss", "accuracy", "margin", "steps", "grad_norm", "skipped", "gap", "frozen_accuracy"}
    wanted |= {f"alarm/{name}" for name in ("gamed", "without_pairs", "inaccurate")}
    wanted |= {f"pairs/{name}" for name in ("share", "positive_share", "n", "learned")}
    for line in lines:
        found = {name.removeprefix("reward/judge/") for name in line if name.startswith("reward/judge/")}
        assert wanted <= found
        assert line["time/reward/judge"] > 0
        assert line["computed/reward/judge"] > 0
        assert 0 <= line["reward/judge/pairs/share"] <= line["reward/judge/pairs/positive_share"]
    assert lines[0]["reward/judge/mean"] == 0.5  # its head says nothing yet
    assert sum(line["reward/judge/pairs/learned"] for line in lines) > 0
    assert lines[-1]["reward/judge/std"] > 0
    second = told(trained(*VARIANTS["every second step, lowest score"]))[1:]
    assert [("reward/judge/loss" in line) for line in second] == [False, True] * 3


def test_policy_and_judge_are_saved_apart(trained):
    files = checkpoint(trained(*VARIANTS["adapters"]), 6)
    assert b"lora_A.default" in files["policy.safetensors"]
    assert b"lora_A.adapter1" in files["reward.safetensors"]
    assert b"value_head" in files["reward.safetensors"]
    assert b"value_head" not in files["policy.safetensors"]
    assert b"embed_tokens" not in files["reward.safetensors"]


# The monitor in a run


# Sounds as soon as the frozen responses have been measured, and at nothing else
ALARMED = (
    f"{JUDGE}.least_accuracy=1.0",
    f"{JUDGE}.window=1",
    f"{JUDGE}.frozen=4",
    f"{JUDGE}.rise=9.0",
    f"{JUDGE}.least_pairs=0.0",
)


def test_a_stop_is_told_saved_and_gone_on_from_exactly(home, trained, capfd, caplog):
    warned = trained(*ALARMED)
    caplog.clear()
    sounded = [line["step"] for line in told(warned)[1:] if line["reward/judge/alarm/inaccurate"]]
    assert sounded
    assert sounded[0] < 6
    stopping = home / "stopping"
    capfd.readouterr()
    assert main(["train", "cooper.yaml", *ALARMED, f"{JUDGE}.on_alarm=stop", "--out", str(stopping), "--quiet"]) == 130
    out = capfd.readouterr().out
    assert f"{sounded[0]} steps, stopped; go on with: reckon train --resume" in out
    assert "Stopped by hack_monitor, inaccurate: of 4 responses of the first steps" in out
    assert sum("hack_monitor, inaccurate: of 4 responses" in line for line in caplog.messages) == 1
    assert told(stopping)[-1]["step"] == sounded[0]
    assert main(["train", "--resume", str(stopping), "--quiet"]) == 0  # which is a decision: from now on it only warns
    assert metrics(stopping) == metrics(warned)
    assert checkpoint(stopping, 6)["policy.safetensors"] == checkpoint(warned, 6)["policy.safetensors"]


def test_a_machine_is_told_too(home, capfd):
    arguments = ["cooper.yaml", *ALARMED, f"{JUDGE}.on_alarm=stop", "--out", "machine", "--json"]
    assert main(["train", *arguments]) == 130
    found = json.loads(capfd.readouterr().out)
    assert found["finished"] is False
    assert found["stopped"].startswith("hack_monitor, inaccurate")


# The recipe


def test_settings_of_an_inner_part_are_changed_and_the_rest_stays(home):
    recipe = Recipe.load("cooper.yaml", [f"{INNER}.positive=all", f"{JUDGE}.on_alarm=stop"])
    judge = recipe.resolved()["reward"]["judge"]
    assert (judge["kind"], judge["on_alarm"], judge["window"]) == ("hack_monitor", "stop", 20)
    assert (judge["reward"]["kind"], judge["reward"]["positive"]) == ("online_reference_based", "all")
    assert judge["reward"]["optimizer"]["lr"] == 1e-2
    again = Recipe.parse(recipe.to_yaml()).resolved()
    assert again == recipe.resolved() | {"out": again["out"]}
    other = Recipe.load("cooper.yaml", [f"{INNER}=verifier"]).resolved()["reward"]["judge"]
    assert other["reward"] == {"kind": "verifier", "right": 1.0, "wrong": 0.0}


def test_negatives_of_ones_own(home):
    (home / "own.py").write_text("def nothing(problem, text, rng):\n    return None\n")
    negatives = f"{INNER}.negatives=own.py:nothing"
    assert train("cooper.yaml", negatives, "steps=2", "evaluate=null", "--out", "own") == 0
    lines = told(home / "own")[1:]
    for line in lines:
        assert line["reward/judge/steps"] == line["reward/judge/pairs/share"] == 0
    assert sum(line.get("reward/judge/pairs/refused/nothing", 0) for line in lines) > 0


def test_settings_of_the_method_and_of_its_parts_are_checked_in_the_recipe(home):
    for override, says in (
        ("method.positive=best", "`method.positive` must be one of first, random, all, lowest_score"),
        (f"{INNER}.negatives=letters", "`reward.judge.reward.negatives` must be one of change_number, swap_operator"),
        (f"{INNER}.every=0", "`every` is 0"),
        (f"{INNER}.optimizer.lrr=1", "`reward.judge.reward.optimizer.lrr` is not a setting"),
        (f"{JUDGE}.window=0", "`window` is 0"),
        (f"{JUDGE}.on_alarm=halt", "`reward.judge.on_alarm` must be one of warn, stop"),
    ):
        with pytest.raises(InputError, match=says):
            Recipe.load("cooper.yaml", [override])
    with pytest.raises(MissingError, match="there is no judge in nowhere"):
        Recipe.load("cooper.yaml", ["method.judge=nowhere"])


@pytest.mark.parametrize(
    ("beside", "changed"),
    [
        ((), "method.lr=1e-3"),
        ((), "method.positive=all"),
        ((), "method.kl=0.5"),
        (("optimizer={lr: 3e-2, epochs: 2, minibatches: 2}",), "method.clip=0.01"),
    ],
    ids=["lr", "positive", "kl", "clip"],
)
def test_settings_of_the_method_matter(trained, beside, changed):
    before, after = checkpoint(trained(*beside), 6), checkpoint(trained(*beside, changed), 6)
    assert before["policy.safetensors"] != after["policy.safetensors"]
