"""The whole path, bit for bit: what must not change a run does not, and what must does.

Every run here is a real one of a one-layer model: warm-up, sampling, checking, learning, evaluation, checkpoints.
"""

import json
import multiprocessing
import time
from contextlib import chdir

import numpy as np
import pyarrow.parquet
import pytest

import whole_runs
from whole_runs import checkpoint, made_once, train

OWN = '''
import os, signal

def digits(completions, **kwargs):
    """The share of digits; at the call that RECKON_TEST_STOP counts down to, somebody presses Ctrl-C."""
    left = int(os.environ.get("RECKON_TEST_STOP", 0))
    if left:
        os.environ["RECKON_TEST_STOP"] = str(left - 1)
        if left == 1:
            os.kill(os.getpid(), signal.SIGINT)
    return [sum(c.isdigit() for c in text) / (1 + len(text)) for text in completions]

def brief(completions, **kwargs):
    return [-len(text) for text in completions]
'''
RECIPE = """\
model: {{name: "{model}", dtype: float32}}
task: {{kind: chain_arithmetic, operations: 2, train: 40, dev: 12, test: 12}}
sampling: {{max_new_tokens: 6}}
warmup: {{examples: 16, epochs: 6, lr: 3e-2, batch: 8}}
reward: {{correct: verifier, digits: {{kind: "own.py:digits", weight: 0.5}}}}
optimizer: {{lr: 3e-3}}
steps: 6
prompts: 4
answers: 4
evaluate: {{every: 2, n: 12, k: 2}}
save: {{every: 2}}
"""
VARIANTS = {
    "plain": (),
    "bfloat16": ("model.dtype=bfloat16",),
    "reference": ("method={kind: grpo, kl: 0.1}",),
    "mini-batches": (
        "optimizer={lr: 3e-3, epochs: 2, minibatches: 2, schedule: cosine, warmup: 3, weight_decay: 0.1}",
        "objective={ratio: clipped_ratio, kl: {kind: kl_penalty, coef: 0.1}, bonus: {kind: entropy_bonus, coef: 0.01}}",
    ),
    "memory of the advantage": ("method={kind: reinforce, decay: 0.8}",),
    "adapters": ("model.lora={rank: 2}", "method={kind: rloo, kl: 0.1}"),
    "critic": (
        "method=ppo",
        "reward.kl={kind: adaptive_kl_reward, target: 0.05, horizon: 20}",
        "optimizer={lr: 3e-3, epochs: 2, minibatches: 2}",
    ),
    "critic of its own": (
        "method={kind: ppo, kl: 0, whiten: batch}",
        "critic={optimizer: {lr: 1e-2, epochs: 3, minibatches: 2, schedule: linear}}",
        "advantage.warmup=1",
    ),
    "domains": (
        "task={kind: mixture, tasks: {easy: {kind: chain_arithmetic, operations: 2, train: 40, dev: 6, test: 6},"
        " hard: {kind: chain_arithmetic, operations: 3, train: 20, dev: 6, test: 6}}}",
        "sampler={kind: domain_sampler, tau: 0.1, rounding: chance}",
    ),
    "refill": ("keep=drop_equal", "refill={rounds: 4, on_short: fill}", "prompts=3", "answers=3"),
    "judge of evaluations": (
        "eval_reward={gain: {kind: monte_carlo_advantage, n_mc: 8, splitter: {regex: ','}}}",
        "evaluate={every: 2, n: 12}",
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    """A folder with a recipe and a reward function, where the tests run."""
    folder = tmp_path_factory.mktemp("exact")
    (folder / "own.py").write_text(OWN)
    (folder / "exact.yaml").write_text(RECIPE.format(model=small_model))
    with chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def trained(home):
    return made_once(home, "exact.yaml")


def metrics(folder):
    """The metrics of each step; what it cost is no business of the recipe's."""
    return whole_runs.metrics(folder, (*whole_runs.CLOCK, "computed/"))


def series(folder, name):
    return [float(line[name]) for line in metrics(folder) if name in line]


def tables(folder):
    """Every table, as it stands on the disk."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.glob("*/*.parquet"))}


def assert_same_run(one, other):
    assert metrics(one) == metrics(other)
    assert tables(one).keys() == tables(other).keys()
    for name, content in tables(one).items():
        assert content == tables(other)[name], f"{name} differs"
    assert checkpoint(one) == checkpoint(other)
    assert (one / "checkpoints" / "best").read_text() == (other / "checkpoints" / "best").read_text()


@pytest.mark.parametrize("variant", VARIANTS)
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(home, trained, monkeypatch, variant):
    settings, broken = VARIANTS[variant], home / f"broken-{variant}"
    whole = trained(*settings)
    monkeypatch.setenv("RECKON_TEST_STOP", "3")
    assert train("exact.yaml", *settings, "--out", str(broken)) == 130
    assert [line["step"] for line in metrics(broken)] == ["0", "1", "2", "3"]
    assert train("--resume", str(broken)) == 0
    assert_same_run(broken, whole)


def test_interrupted_at_every_step(home, trained, monkeypatch):
    broken = home / "often"
    monkeypatch.setenv("RECKON_TEST_STOP", "1")
    assert train("exact.yaml", "--out", str(broken)) == 130
    for step in range(2, 7):
        monkeypatch.setenv("RECKON_TEST_STOP", "1")
        assert train("--resume", str(broken)) == (0 if step == 6 else 130)
        assert metrics(broken)[-1]["step"] == str(step)
    assert_same_run(broken, trained())


def test_the_variants_do_what_they_are_here_for(trained):
    """Else the test above would compare runs in which nothing happens."""
    plain = trained()
    assert max(series(plain, "policy/grad_norm")) > 0
    assert min(series(plain, "advantage/zero_groups")) < 1
    assert checkpoint(plain) != checkpoint(plain, step=4)
    assert max(series(trained(*VARIANTS["reference"]), "policy/kl")) > 1e-4
    assert series(trained(*VARIANTS["mini-batches"]), "policy/steps") == [4.0] * 6
    assert "advantage.json" in checkpoint(trained(*VARIANTS["memory of the advantage"]))
    shared, own = trained(*VARIANTS["critic"]), trained(*VARIANTS["critic of its own"])
    assert b"value_head" in checkpoint(shared)["policy.safetensors"]
    coefs = series(shared, "reward/kl/coef")
    assert len(set(coefs)) == 6
    assert b"value_head" not in checkpoint(own)["policy.safetensors"]
    assert b"value_head" in checkpoint(own)["advantage.safetensors"]
    assert series(own, "policy/steps") == [0.0] + [1.0] * 5
    assert series(own, "critic/steps") == [6.0] * 6
    domains = trained(*VARIANTS["domains"])
    assert "sampler.json" in checkpoint(domains)
    assert len(set(series(domains, "sampler/weight/easy"))) > 3
    adapters = trained(*VARIANTS["adapters"])
    assert b"lora_A" in checkpoint(adapters)["policy.safetensors"]
    assert b"embed_tokens" not in checkpoint(adapters)["policy.safetensors"]
    assert max(series(trained(*VARIANTS["refill"]), "keep/rounds")) > 1
    assert len(set(series(trained(*VARIANTS["judge of evaluations"]), "eval/dev/stream/gain"))) > 2


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_was_saved(home):
    """SIGKILL at moments of chance, also while a checkpoint is written, for one is written at every step."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reckon.cli", "reckon.recipe", "reckon.report", "reckon.train", "transformers"])

    def start(*arguments):
        process = context.Process(target=train, args=arguments)
        process.start()
        return process

    settings = ("steps=30", "save.every=1", "evaluate.every=5")
    whole, broken = home / "unhurt", home / "killed"
    process = start("exact.yaml", *settings, "--out", str(whole))
    process.join(120)
    assert process.exitcode == 0
    seconds = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]
    chance, log = np.random.default_rng(7), broken / "metrics.jsonl"
    process, kills = start("exact.yaml", *settings, "--out", str(broken)), 0
    while kills < 3:
        before, deadline = log.stat().st_size if log.exists() else 0, time.monotonic() + 60
        while process.is_alive() and not (log.exists() and log.stat().st_size != before):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(chance.uniform(0, seconds / 10))  # a tenth of the run: three of them leave most of it
        process.kill()
        process.join(60)
        assert process.exitcode == -9, "it was done before it could be killed"
        kills += 1
        process = start("--resume", str(broken))
    process.join(120)
    assert process.exitcode == 0
    assert metrics(broken) == metrics(whole)
    assert tables(broken) == tables(whole)
    assert checkpoint(broken, 30) == checkpoint(whole, 30)


@pytest.mark.parametrize(
    ("method", "added"),
    [
        (method, added)
        for method in ("grpo", "{kind: reinforce, decay: 0.8}")
        for added in (
            "reward.extra={kind: 'own.py:brief', watch: true}",
            "reward.extra={kind: 'own.py:brief', weight: 0}",
            "reward.extra={kind: kl_reward, coef: 0}",
            "reward.extra={kind: kl_reward, coef: 0.5, watch: true}",
        )
    ],
)
def test_a_reward_that_is_only_watched_is_as_if_it_were_not_there(trained, method, added):
    without, beside = trained(f"method={method}"), trained(f"method={method}", added)
    assert any(series(beside, "reward/extra/mean")) != ("coef: 0}" in added)
    assert checkpoint(beside)["policy.safetensors"] == checkpoint(without)["policy.safetensors"]
    for one, other in zip(metrics(without), metrics(beside), strict=True):
        assert one == {name: value for name, value in other.items() if not name.startswith("reward/extra/")}


@pytest.mark.parametrize("added", ["{kind: kl_penalty, coef: 0}", "{kind: entropy_bonus, coef: 0}"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_an_objective_of_coefficient_0_is_as_if_it_were_not_there(trained, added, place):
    both = {"before": f"{{extra: {added}, ratio: clipped_ratio}}", "after": f"{{ratio: clipped_ratio, extra: {added}}}"}
    without, beside = trained(), trained(f"objective={both[place]}")
    assert checkpoint(beside)["policy.safetensors"] == checkpoint(without)["policy.safetensors"]
    watched = {"policy/kl", "policy/entropy"}
    assert watched & set(metrics(beside)[1])
    for one, other in zip(metrics(without), metrics(beside), strict=True):
        assert one == {name: value for name, value in other.items() if name not in watched}


@pytest.mark.parametrize("tokens", [1, 40, 200])
def test_the_size_of_micro_batches_changes_rounding_only(trained, tokens):
    """Of one step: AdamW's first step is the gradient's sign, which makes of a rounding a whole step of the rate."""
    settings = ("warmup=null", "steps=1", "prompts=8", "answers=8", "method={kind: grpo, kl: 0.1}")
    whole, cut = trained(*settings), trained(*settings, f"model.tokens_per_batch={tokens}")
    assert series(whole, "policy/grad_norm")[0] > 1e-3
    for one, other in zip(metrics(whole), metrics(cut), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert float(other[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-7), name


def test_the_seed_decides(home, trained):
    assert train("exact.yaml", "seed=0", "--out", "again") == 0
    assert_same_run(home / "again", trained())
    other = trained("seed=1")
    assert checkpoint(other) != checkpoint(trained())
    texts = [
        pyarrow.parquet.read_table(run / "rollouts" / "step-000001.parquet")["text"].to_pylist()
        for run in (other, trained())
    ]
    assert texts[0] != texts[1]
