"""Another valid value for every setting of a recipe, and where it is one that matters.

Read by test_settings_matter.py. An entry is `name: value` or `name: In(value, ...)` with what it needs around it:
settings of the same part, or for settings of a whole run `key=value` overrides.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class In:
    """A value among other settings than the usual ones."""

    value: object
    beside: dict[str, object] = field(default_factory=dict)  # settings of the part, before and after the change
    overrides: tuple[str, ...] = ()  # of the recipe, before and after the change


SIZES = {"train": 9, "dev": 4, "test": 4}
STRINGS = {**SIZES, "length": [4, 6]}

_LENGTH = {"kind": "length", "l_max": 8}
_NUMBERS = {"a": "verifier", "b": _LENGTH, "c": "own.py:some"}  # the last does not apply to every response
_GOOD = {
    "a": {"kind": "probability", "reward": "verifier"},
    "b": {"kind": "centered", "reward": _LENGTH},
    "c": {"kind": "probability", "reward": "own.py:some"},
}
_FEWER = {name: part for name, part in _NUMBERS.items() if name != "b"}
_BONUSES = {"a": "episodic_count", "b": "global_count"}
_LESS_GOOD = {name: part for name, part in _GOOD.items() if name != "b"}

# Settings without a default, and sizes that keep the test quick. By "role.kind".
NEEDED: dict[str, dict[str, object]] = {
    "task.letter_count": STRINGS,
    "task.word_length": STRINGS,
    "task.distinct_letters": STRINGS,
    "task.substring": STRINGS,
    "task.chain_arithmetic": {**SIZES, "operations": 3},
    "task.running_sums": SIZES,
    "task.largest": SIZES,
    "task.rules": SIZES,
    "task.reasoning_gym": {**SIZES, "datasets": ["rectangle_count"]},
    "task.file": {"path": "one.jsonl"},
    "task.hub_dataset": {"path": "owner/one"},
    "task.mixture": {"tasks": {"a": {"kind": "largest", **SIZES}}},
    "sampler.easy_to_hard": {"difficulty": "hops"},
    "sampler.adaptive_difficulty": {"difficulty": "hops"},
    "sampler.retire": {"pass_rate": 0.7},
    "sampler.by_pass_rate": {"column": "rate"},
    "sampler.by_skill": {"skill": "hops", "after": 1, "pass_rate": 0.5},
    "keep.chain": {"rules": ["drop_equal"]},
    "reward.length": {"l_max": 8},
    "reward.format_length": {"l_max": 8},
    "reward.cosine_length": {"l_max": 8},
    "reward.overlong_penalty": {"l_max": 6, "buffer": 3},
    "reward.repetition_penalty": {"n": 1},
    "reward.http": {"url": "http://localhost:1"},
    "reward.gate": {"condition": "verifier", "then": {"kind": "length", "l_max": 8}},
    "reward.sum": {"parts": {"a": "verifier", "b": {"kind": "length", "l_max": 8}}},
    "reward.novelty": {"parts": _BONUSES},
    "reward.hack_monitor": {"reward": _LENGTH},
    "reward.advantage_monitor": {
        "reward": {"kind": "exact_advantage", "values": "own.py:rising"},
        "against": {"kind": "exact_advantage", "values": "own.py:rising"},
    },
    "reward.exact_advantage": {"values": "own.py:rising"},
    "reward.online_implicit_reward": {"optimizer": {"lr": 0.5}},
    "method.oreal": {"warmup": 0},
    "method.prime": {"lr": 0.5},
    "reward.own.py:slow": {},
    "reward.centered": {"reward": _LENGTH},
    "reward.probability": {"reward": "verifier"},
    "reward.and": {"parts": _GOOD},
    "reward.or": {"parts": _GOOD},
    "reward.not": {"reward": {"kind": "probability", "reward": "verifier"}},
    "reward.linear": {"parts": _NUMBERS},
    "reward.min": {"parts": _NUMBERS},
    "reward.product": {"parts": {"a": "verifier", "b": "own.py:some"}},
    "reward.ensemble": {"parts": _NUMBERS},
    "reward.clip": {"reward": _LENGTH, "low": -0.5, "high": 0.5},
    "reward.standardized": {"reward": _LENGTH},
    "reward.min_max": {"reward": _LENGTH},
    "reward.normalize_then_sum": {"parts": _NUMBERS},
    "reward.constrained": {"reward": "verifier", "costs": {"long": _LENGTH}, "limits": {"long": 0.1}},
    "reward.adaptive_kl_reward": {"target": 1.0},
    "objective.kl_penalty": {"coef": 0.1},
    "objective.entropy_bonus": {"coef": 0.1},
    "method.dapo": {"limit": 8},
    "method.dr_grpo": {"limit": 8},
}

CONSTANT = {"average": "constant", "length": 4}
_SIZES = {"train": 10, "dev": 5, "test": 5}
_STRINGS = {**_SIZES, "seed": 1, "length": [5, 7], "alphabet": "abcdefgh", "mode": "direct"}
_OWN = "own.py:"


def each(owner: str, values: dict[str, object]) -> dict[str, object]:
    return {f"{owner}.{name}": value for name, value in values.items()}


PARTS: dict[str, object] = {
    **each("task.letter_count", {**_STRINGS, "count": "natural", "most": 2}),
    **each("task.word_length", _STRINGS),
    **each("task.distinct_letters", {**_STRINGS, "count": "natural"}),
    **each("task.substring", {**_STRINGS, "size": [3, 3], "negatives": "edit"}),
    **each("task.chain_arithmetic", {**_SIZES, "seed": 1, "operations": 4}),
    **each("task.running_sums", {**_SIZES, "seed": 1, "count": [3, 4], "size": [10, 50]}),
    **each("task.largest", {**_SIZES, "seed": 1, "count": 4, "size": [10, 50]}),
    **each("task.rules", {**_SIZES, "seed": 1, "domains": ["kinship", "logic"], "hops": [1, 1]}),
    **each(
        "task.reasoning_gym",
        {
            **_SIZES,
            "seed": 1,
            "datasets": ["chain_sum"],
            "config": {"rectangle_count": {"max_rectangles": 2}},
            "partial": True,
        },
    ),
    **each(
        "task.file",
        {
            "path": "two.jsonl",
            "checker": "number",
            "prompt": "question",
            "answer": "solution",
            "shares": [0.2, 0.4, 0.4],
        },
    ),
    **each(
        "task.hub_dataset",
        {
            "path": "owner/two",
            "config": "hard",
            "checker": "number",
            "prompt": "question",
            "answer": "solution",
            "shares": [0.2, 0.4, 0.4],
        },
    ),
    "task.mixture.tasks": {"b": {"kind": "largest", **SIZES}},
    "sampler.uniform.split": "dev",
    **each(
        "sampler.fixed_domains",
        {
            "weights": {"a": 1, "b": 2, "c": 3, "d": 4},
            "rounding": "chance",
            "split": "dev",
        },
    ),
    "sampler.balanced.split": "dev",
    **each(
        "sampler.domain_sampler",
        {
            "alpha": 0.1,
            "tau": 0.2,
            "eps": 2.0,
            "floor": 0.2,
            "start": "first",
            "least": 3,
            "every": 2,
            "initial": "inverse",
            "value": "variance",
            "levels": {"a": [0.25, 1.0]},
            "cap": 0.26,
            "repeats": 1.1,
            "rounding": "chance",
            "control": "inverted",
            "split": "dev",
        },
    ),
    **each(
        "sampler.domain_buffer",
        {
            "size": In(1, {"every": 2}),
            "decay": In("none", {"every": 2}),
            "every": 1,
            "tau": In(0.1, {"every": 1}),
            "floor": In(0.2, {"every": 1}),
            "rounding": "chance",
            "split": "dev",
        },
    ),
    **each("sampler.easy_to_hard", {"difficulty": "hardness", "parts": 2, "passes": 2, "split": "dev"}),
    **each(
        "sampler.adaptive_difficulty",
        {"difficulty": "hardness", "start": 3.0, "eta": 1.0, "kappa": 0.1, "beta": 0.9, "split": "dev"},
    ),
    **each("sampler.retire", {"pass_rate": 0.3, "split": "dev"}),
    **each(
        "sampler.by_pass_rate",
        {"edges": [0.1, 0.2, 0.5, 0.9], "repeats": [1, 1, 2, 0, 0], "column": "other_rate", "split": "dev"},
    ),
    **each(
        "sampler.by_skill",
        {"skill": "hardness", "share": 0.2, "after": 2, "pass_rate": 0.1, "split": "dev"},
    ),
    "keep.accuracy_band.low": 0.6,
    "keep.accuracy_band.high": 0.3,
    "keep.accuracy_band.inclusive": In(False, {"low": 0.5}),
    "keep.drop_truncated.whole_group": True,
    "keep.chain.rules": ["drop_equal", "drop_truncated"],
    **each("reward.verifier", {"right": 2.0, "wrong": -1.0}),
    **each(
        "reward.format",
        {"weight": 0.7, "require_eos": False, "validate": _OWN + "never", "extract": _OWN + "whole"},
    ),
    "reward.think_format.weight": 0.7,
    "reward.strict_layout.weight": 0.7,
    **each("reward.length", {"l_max": 10, "p": 0.3, "shape": "v2", "clip": In(False, {"l_max": 4})}),
    **each(
        "reward.format_length",
        {
            "l_max": 10,
            "p": 0.3,
            "weight": 1.0,
            "require_eos": False,
            "validate": _OWN + "never",
            "extract": _OWN + "whole",
        },
    ),
    **each(
        "reward.cosine_length",
        {"l_max": 10, "right_short": 2.0, "right_long": 0.2, "wrong_short": -2.0, "wrong_long": -0.2},
    ),
    **each("reward.overlong_penalty", {"l_max": 7, "buffer": 5}),
    **each("reward.repetition_penalty", {"n": 2, "max_penalty": -1.0, "unit": "tokens"}),
    **each("reward.keyword_reward", {"words": ["maybe"], "weight": 0.7, "cap": 1}),
    "reward.containment.extract": _OWN + "whole",
    **each("reward.kl_reward", {"coef": 0.1, "clamp": True}),
    **each("reward.adaptive_kl_reward", {"coef": 0.1, "clamp": True}),
    **each("reward.gate", {"condition": "format", "then": "verifier", "otherwise": -1.0}),
    **each("reward.sum", {"parts": {"a": "verifier"}, "weights": {"b": 0.5}, "watch": ["b"]}),
    **each("reward.centered", {"reward": "verifier", "references": 0.5}),
    **each("reward.probability", {"reward": "own.py:some", "eps": 0.1}),
    **each("reward.and", {"parts": _LESS_GOOD, "weights": {"a": 0.5}, "missing": "left_out"}),
    **each("reward.or", {"parts": _LESS_GOOD, "missing": "left_out"}),
    "reward.not.reward": {"kind": "centered", "reward": _LENGTH},
    **each("reward.linear", {"parts": _FEWER, "weights": {"a": 0.5}, "missing": "left_out"}),
    **each("reward.min", {"parts": _FEWER, "temperature": 1.0, "missing": "left_out"}),
    **each("reward.product", {"parts": {"a": "verifier"}, "missing": "left_out"}),
    **each("reward.ensemble", {"parts": _FEWER, "how": "min", "coef": 0.5, "missing": "left_out"}),
    **each("reward.clip", {"reward": "verifier", "low": -0.1, "high": 0.9}),
    **each("reward.standardized", {"reward": "verifier", "over": "group", "eps": 0.5}),
    "reward.min_max.reward": "verifier",
    **each(
        "reward.normalize_then_sum",
        {"parts": _FEWER, "weights": {"a": 0.5}, "missing": "left_out", "whiten": False, "eps": 0.5},
    ),
    **each(
        "reward.constrained",
        {"reward": _LENGTH, "costs": {"long": "verifier"}, "limits": {"long": 0.3}, "start": 2.0},
    ),
    **each("reward.episodic_count", {"how": "sqrt", "label": "own.py:initial"}),
    **each("reward.global_count", {"per": In("run", {"label": "own.py:initial"}), "label": "own.py:initial"}),
    **each("reward.elliptical", {"ridge": 1.0, "center": False}),
    **each("reward.random_distillation", {"width": 8, "size": 4, "seed": 1}),
    **each(
        "reward.novelty",
        {
            "parts": {"a": "episodic_count"},
            "how": "sum",
            "weights": In({"a": 0.5}, {"how": "sum"}),
            "center": False,
            "normalize": "std",
        },
    ),
    **each(
        "reward.exact_advantage",
        {"values": _OWN + "falling", "splitter": _OWN + "words", "prover_k": 2, "before": _OWN + "halves"},
    ),
    **each(
        "reward.online_implicit_reward",
        {
            "update": "before",
            "against": "policy",
            "loss": In("dpo", {"update": "before"}),
            "beta": In(0.2, {"normalize": "none"}),
            "per": "whole",
            "smoothing": 0.5,
            "true_total": True,
            "normalize": "none",
            "warmup": 3,
        },
    ),
    **each(
        "reward.token_outcome_model",
        {"how": "token", "position": "after", "threshold": 0.55, "top": In(0.8, {"how": "top"})},
    ),
    "reward.hack_monitor.reward": "verifier",
    "reward.advantage_monitor.reward": {"kind": "exact_advantage", "values": "own.py:rising", "prover_k": 3},
    "reward.own.py:slow.timeout": 0.001,
    **each("reward.*", {"weight": 0.5, "watch": True}),
    **each("advantage.group_normalized", {"std": False, "eps": 0.1}),
    "advantage.running_mean.decay": 0.5,
    **each(
        "advantage.streamwise",
        {
            "estimator": "reinforce",
            "form": "code",
            "weights": {"correct": 0.5},
            "gammas": {"correct": 0.5},
            "std": In(False, {"estimator": "grpo"}),
            "token_std": In(True, {"estimator": "grpo"}),
            "eps": In(0.1, {"estimator": "grpo"}),
            "whiten": True,
        },
    ),
    **each("advantage.reshaped", {"right": "one", "wrong": "failures", "warmup": 1}),
    **each(
        "advantage.gae",
        {
            "gamma": 0.5,
            "lam": 0.5,
            "whiten": True,
            "whiten_rewards": True,
            "learn": "value_loss",
            "warmup": In(1, {"learn": "value_loss"}),
        },
    ),
    **each(
        "objective.clipped_ratio",
        {
            "low": 0.1,
            "high": 0.1,
            "dual": 1.01,
            "level": "sequence",
            "old": "step",
            "whiten": True,
            "average": "tokens",
            "length": In(6, CONSTANT),
        },
    ),
    **each("objective.clone_positives", {"coef": 0.2}),
    **each("objective.weighted_negatives", {"coef": 0.2}),
    **each("objective.policy_gradient", {"whiten": True, "average": "tokens", "length": In(6, CONSTANT)}),
    **each(
        "objective.kl_penalty",
        {"coef": 0.2, "estimator": "k2", "average": "tokens", "length": In(6, CONSTANT)},
    ),
    **each("objective.entropy_bonus", {"coef": 0.2, "average": "tokens", "length": In(6, CONSTANT)}),
    **each("objective.value_loss", {"clip": 0.1, "coef": 0.2, "average": "sequences", "length": In(6, CONSTANT)}),
    **each("method.grpo", {"clip": 0.1, "kl": 0.1}),
    **each("method.dr_grpo", {"clip": 0.1, "limit": 6}),
    **each("method.dapo", {"limit": 7, "buffer": 3, "low": 0.1, "high": 0.1}),
    **each("method.gspo", {"low": 0.1, "high": 0.1}),
    "method.rloo.kl": 0.1,
    "method.reinforce.decay": 0.5,
    **each(
        "method.ppo",
        {
            "kl": 0.1,
            "gamma": 0.5,
            "lam": 0.5,
            "clip": 0.1,
            "value_clip": 0.1,
            "value_coef": 0.2,
            "whiten": "batch",
            "old": "step",
        },
    ),
    "method.rule_reasoner.clip": 0.1,
    **each("method.oreal", {"schedule": "paper", "negatives": 0.2, "kl": 0.1, "warmup": 1}),
    **each("method.novelty", {"alpha": 0.5, "clip": 0.1}),
    **each("method.prime", {"update": "before", "lr": In(1.0, {"update": "before"}), "clip": 0.1}),
}

_TRUNCATED = ("objective=policy_gradient",)  # a clipped ratio refuses truncated sampling
_EXAMINED = ("evaluate={every: 1, n: 3}",)
_SAVED = ("steps=3", "save={every: 1, keep: 3}")
_SHOWN = ("warmup={examples: 8, lr: 1e-2, batch: 4}",)
_ADAPTED = ("model.lora={rank: 2}",)
_HELD = ("method={kind: grpo, kl: 0.1}",)  # near a reference
_DROPPED = ("keep=drop_truncated", "refill={rounds: 1, on_short: fill}", "sampling.stop=[a, e, i, o, u]")

RUNS: dict[str, object] = {
    "model.name": "./chatty",
    "model.dtype": "bfloat16",
    "model.lora": {"rank": 2},
    "model.lora.rank": In(3, overrides=_ADAPTED),
    "model.lora.alpha": In(8, overrides=_ADAPTED),
    "model.lora.targets": In(["q_proj"], overrides=_ADAPTED),
    "sampling.temperature": 2.0,
    "sampling.max_new_tokens": 5,
    "sampling.top_k": In(3, overrides=_TRUNCATED),
    "sampling.top_p": In(0.2, overrides=_TRUNCATED),
    "sampling.min_p": In(0.95, overrides=_TRUNCATED),
    "sampling.stop": list("abcdefghijklm"),
    "sampling.stop_token_ids": list(range(20, 60)),
    "sampling.ignore_eos": In(True, overrides=("sampling.max_new_tokens=80",)),
    "sampling.system": In("Be brief.", overrides=("model.name=./chatty",)),
    "optimizer.lr": 1e-3,
    "optimizer.schedule": "linear",
    "optimizer.warmup": 1,
    "optimizer.clip": 1e-3,
    "optimizer.beta1": 0.5,
    "optimizer.beta2": 0.5,
    "optimizer.weight_decay": 0.5,
    "optimizer.epochs": 2,
    "optimizer.minibatches": 2,
    "critic": In({"optimizer": {"lr": 1e-3}}, overrides=("method=ppo",)),
    "refill.rounds": In(2, overrides=_DROPPED),
    "refill.on_short": In("error", overrides=_DROPPED),
    "steps": 1,
    "prompts": 3,
    "answers": 2,
    "seed": 1,
    "warmup": {"examples": 8},
    "warmup.examples": In(4, overrides=_SHOWN),
    "warmup.epochs": In(2, overrides=_SHOWN),
    "warmup.lr": In(1e-3, overrides=_SHOWN),
    "warmup.batch": In(8, overrides=_SHOWN),
    "sync_reference": In({"every": 1}, overrides=_HELD),
    "sync_reference.every": In(1, overrides=(*_HELD, "sync_reference={every: 2}")),
    "sync_reference.alpha": In(0.9, overrides=(*_HELD, "sync_reference={every: 1}")),
    "evaluate": {"n": 3},
    "evaluate.every": In(2, overrides=_EXAMINED),
    "evaluate.n": In(2, overrides=_EXAMINED),
    "evaluate.k": In(2, overrides=_EXAMINED),
    "evaluate.greedy": In(False, overrides=_EXAMINED),
    "evaluate.split": In("train", overrides=_EXAMINED),
    "evaluate.final": In(None, overrides=_EXAMINED),
    "eval_reward": In({"brief": {"kind": "length", "l_max": 8}}, overrides=_EXAMINED),
    "save": {"every": 1},
    "save.every": In(2, overrides=_SAVED),
    "save.keep": In(1, overrides=_SAVED),
}
