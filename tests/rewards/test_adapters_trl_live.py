"""Against the TRL that is installed (extra `bench`): its trainer trains on our rewards, its rewards run in ours."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from reckon.models import tiny
from reckon.rewards import (
    CosineLength,
    Function,
    Gate,
    KeywordReward,
    OverlongPenalty,
    RepetitionPenalty,
    Sum,
    ThinkFormat,
    Verifier,
)
from reckon.rewards.adapters import from_trl, rows_of, to_trl, to_trl_parts
from reckon.samplers import All, Uniform, collect
from reckon.tasks import ChainArithmetic
from reckon.types import Problem, Rng, Stream

trl = pytest.importorskip("trl", reason="TRL is not installed (extra `bench`)")
datasets = pytest.importorskip("datasets")
trl_rewards = pytest.importorskip("trl.rewards")

ROOT = Path(__file__).parents[2]
TASK = ChainArithmetic(operations=4, train=40, dev=5, test=5)


class Centered:
    """A reward that compares the responses to one prompt: a text's length less its group's mean."""

    group_level = True

    def score(self, batch):
        values = torch.tensor([float(len(text)) for text in batch.rollouts.text])
        means = torch.stack([values[batch.seq.group == g].mean() for g in batch.seq.group.tolist()])
        return {"centered": Stream(values=0.01 * (values - means))}


def digits(completions):
    return [float(sum(c.isdigit() for c in text)) for text in completions]


def train(tmp_path, functions, rows, steps=2, **settings):
    """Two steps of GRPOTrainer on a model of one layer; what it logged, and whether any weight moved."""
    network = tiny.make_network(layers=1, width=16, heads=2, context=96)
    tokenizer = tiny.make_tokenizer()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    args = trl.GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=steps,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=12,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
        **settings,
    )
    trainer = trl.GRPOTrainer(
        model=network,
        processing_class=tokenizer,
        reward_funcs=functions,
        args=args,
        train_dataset=datasets.Dataset.from_list(rows),
    )
    trainer.train()
    moved = any(not torch.equal(old, new.detach()) for old, new in zip(before, network.parameters(), strict=True))
    return [entry for entry in trainer.state.log_history if "loss" in entry], moved, trainer


def test_a_combination_of_ours_trains_in_trls_trainer(tmp_path):
    """The rewards stand in TRL's log under their own names, and their total is what TRL learns from."""
    reward = Sum(
        {
            "correct": Verifier(),
            "gated": Gate(condition=ThinkFormat(), then=KeywordReward(words=["1"], cap=4)),
            "overlong": OverlongPenalty(l_max=12, buffer=8),
            "centered": Centered(),
        },
        weights={"overlong": 0.5},
    )
    function = to_trl(reward, "ours", task=TASK, tokenizer=tiny.make_tokenizer(), num_generations=4)
    history, moved, trainer = train(tmp_path, function, rows_of(TASK, "train", 16))
    assert len(history) == 2
    assert moved
    for entry in history:
        parts = ("correct", "gated", "overlong", "centered")
        total = sum(entry[f"rewards/ours/{part}/mean"] for part in parts)
        assert entry["reward"] == pytest.approx(total, abs=1e-5)
        assert entry["rewards/ours/mean"] == pytest.approx(entry["reward"], abs=1e-6)
        assert entry["rewards/ours/overlong/mean"] < 0  # a random model runs into the limit
        assert entry["rewards/ours/centered/mean"] == pytest.approx(0, abs=1e-6)  # of whole groups
        assert entry["rewards/ours/correct/unknown"] == 0
    logged = trainer._logs["extra"]
    assert {f"ours/{part}" for part in parts} <= set(logged)


def test_parts_go_in_one_by_one_with_their_weights(tmp_path):
    reward = Sum({"correct": Verifier(), "digits": Function(digits)}, weights={"digits": 0.5})
    functions, weights = to_trl_parts(reward, task=TASK)
    rows = rows_of(TASK, "train", 16)
    settings = {"reward_weights": weights, "multi_objective_aggregation": "normalize_then_sum"}
    history, moved, _ = train(tmp_path, functions, rows, steps=1, **settings)
    (entry,) = history
    assert moved
    expected = entry["rewards/correct/mean"] + 0.5 * entry["rewards/digits/mean"]
    assert entry["reward"] == pytest.approx(expected, abs=1e-6)
    assert expected > 0


def test_unknown_rewards_are_nothing_to_trl(tmp_path):
    """A task that knows no answers: every reward is None, and TRL's trainer goes on without a gradient."""
    rows = [{**row, "answer": None} for row in rows_of(TASK, "train", 16)]
    history, _, _ = train(tmp_path, to_trl(Verifier(), task=TASK), rows, steps=1)
    assert history[0]["rewards/verifier/verifier/unknown"] == 1
    assert history[0]["grad_norm"] == 0


@pytest.fixture
def batch():
    """Two sums and what a model of one layer said to them."""
    from reckon.models import Sampling, load_model

    policy = load_model("tiny", sampling=Sampling(max_new_tokens=20))

    def verify(rollouts):
        return [TASK.check(rollouts.problem(row), text) for row, text in enumerate(rollouts.text)]

    return collect(Uniform(TASK), policy, verify, All(), n=2, k=3, rng=Rng((0, 1)), step=1)


@pytest.mark.parametrize(
    ("factory", "arguments", "ours"),
    [
        (
            "get_soft_overlong_punishment",
            {"max_completion_len": 20, "soft_punish_cache": 8},
            OverlongPenalty(l_max=20, buffer=8),
        ),
        (
            "get_repetition_penalty_reward",
            {"ngram_size": 1, "max_penalty": -1.0},
            RepetitionPenalty(n=1, max_penalty=-1.0, unit="tokens"),
        ),
    ],
)
def test_trls_functions_run_in_ours_give_its_values_and_equal_our_own(batch, factory, arguments, ours):
    reward = from_trl(getattr(trl_rewards, factory), **arguments)
    ((_, stream),) = reward.score(batch).items()
    ids = [tokens[mask].tolist() for tokens, mask in zip(batch.seq.tokens, batch.seq.mask, strict=True)]
    direct = getattr(trl_rewards, factory)(**arguments)(completion_ids=ids)
    assert stream.values.tolist() == pytest.approx(direct, abs=1e-6)
    ((_, own),) = ours.score(batch).items()
    assert own.values.tolist() == pytest.approx(direct, abs=1e-6)
    assert min(direct) < 0  # else nothing was compared


def test_the_oracle_of_overlong_answers(make_batch):
    """90 tokens of 100, of which the last 20 are charged: (100 - 20 - 90) / 20 = -0.5."""
    reward = from_trl(trl_rewards.get_soft_overlong_punishment, max_completion_len=100, soft_punish_cache=20)
    batch = make_batch(["x"] * 3, lengths=[80, 90, 100])
    ((name, stream),) = reward.score(batch).items()
    assert name == "soft_overlong_punishment_reward"
    assert stream.values.tolist() == [0, -0.5, -1]
    ((_, own),) = OverlongPenalty(l_max=100, buffer=20).score(batch).items()
    assert own.values.tolist() == [0, -0.5, -1]


def test_the_oracle_of_the_cosine(make_batch):
    """50 tokens of 100: half way, 0.75 for a right answer and -0.75 for a wrong one."""
    pytest.importorskip("math_verify")
    problems = [Problem(id="a", prompt="What is a third?", answer=r"\frac{1}{3}")]
    texts = [r"\boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}}"]
    batch = make_batch(texts, lengths=[50, 50], outcomes=[1, 0], problems=problems)
    reward = from_trl(trl_rewards.get_cosine_scaled_reward, max_len=100)
    ((_, stream),) = reward.score(batch).items()
    assert stream.values.tolist() == pytest.approx([0.75, -0.75])
    ((_, own),) = CosineLength(l_max=100).score(batch).items()
    assert own.values.tolist() == pytest.approx([0.75, -0.75])


def test_trls_accuracy_and_think_format_run_on_plain_prompts_and_chats(make_batch):
    pytest.importorskip("math_verify")
    chat = ({"role": "user", "content": "What is a third?"},)
    for prompt in ("What is a third?", chat):
        problems = [Problem(id="a", prompt=prompt, answer=r"\frac{1}{3}"), Problem(id="b", prompt=prompt)]
        texts = [r"<think>x</think> \boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}}", r"\boxed{1}"]
        batch = make_batch(texts, group=[0, 0, 1], problems=problems)
        values = from_trl(trl_rewards.accuracy_reward).score(batch)["accuracy_reward"].values.tolist()
        assert values[:2] == [1, 0]
        assert values[2] != values[2]  # nobody knows the answer to the second problem
        assert from_trl(trl_rewards.think_format_reward).score(batch)["think_format_reward"].values.tolist() == [
            1,
            0,
            0,
        ]
        reasoned = from_trl(trl_rewards.reasoning_accuracy_reward, reasoning_delimiters=["</think>"]).score(batch)
        assert reasoned["reasoning_accuracy_reward"].values.tolist()[:2] == [1, 0]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("accuracy_reward", {}),
        ("think_format_reward", {}),
        ("get_cosine_scaled_reward", {"max_len": 100}),
        ("get_repetition_penalty_reward", {}),
        ("get_soft_overlong_punishment", {"max_completion_len": 100, "soft_punish_cache": 20}),
    ],
)
def test_trls_functions_through_ours_are_themselves(name, arguments):
    pytest.importorskip("math_verify")
    function = getattr(trl_rewards, name)
    direct = function(**arguments) if arguments or name.startswith("get") else function
    rows = {
        "prompts": [[{"role": "user", "content": "?"}]] * 2,
        "completions": [
            [{"role": "assistant", "content": text}] for text in (r"<think>a</think> \boxed{2}", "5 5 5 5")
        ],
        "completion_ids": [[1, 2, 3], [5] * 90],
        "solution": [r"\boxed{2}", "?"],
    }
    ours = to_trl(from_trl(function, **arguments))
    assert ours.__name__ == getattr(direct, "__name__", "")
    expected = direct(**rows)
    assert ours(**rows) == [None if v is None else pytest.approx(v, abs=1e-7) for v in expected]


def test_the_example_trains(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / "reckon_reward_in_trl.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.chdir(tmp_path)
    history = example.main(steps=2, folder=tmp_path / "run")
    assert [entry["rewards/sums/correct/unknown"] for entry in history] == [0, 0]
    assert "sums/correct" in capsys.readouterr().out
