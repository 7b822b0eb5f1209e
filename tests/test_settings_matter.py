"""No setting that nothing reads: each is given another valid value, and the outcome must change.

Settings are found by introspection, so a new one without an entry in other_settings.py fails here. Parts are tried on a
fixed batch, tasks on a few problems, everything else by real runs of a one-layer model.
"""

import contextlib
import dataclasses
import functools
import json
import re
import shutil
import typing
from pathlib import Path

import pytest
import torch

from exempt_settings import EXEMPT
from other_settings import NEEDED, PARTS, RUNS, In
from reckon.errors import ReckonError
from reckon.methods import METHODS
from reckon.models import Optimization, Sampling, load_model
from reckon.recipe import KINDS, Recipe, load_kind, run_recipe, settings
from reckon.rewards import Function
from reckon.samplers import Refill
from reckon.types import Batch, Credit, End, Outputs, Problem, Rng, Rollouts, Seen, Sequences, Stream, Verdict, Worked

OWN = """
import asyncio

import torch

def letters(completions, **kwargs):
    return [sum(map(ord, text)) / 500 for text in completions]

async def slow(completions):
    await asyncio.sleep(0.01)
    return [1.0] * len(completions)

def some(completions):
    return [None if "wait" in text else len(text) / 40 for text in completions]

def rising(rollouts, steps):
    return torch.linspace(0.1, 0.9, int(steps.count.max()) + 1).expand(len(steps.ends), -1)

def falling(rollouts, steps):
    return 1 - rising(rollouts, steps)

def halves(rollouts, steps):
    return torch.full((len(steps.ends), int(steps.count.max())), 0.5)

def words(text):
    return [i + 1 for i, letter in enumerate(text) if letter == " "]

def initial(text):
    return text[:1]

def never(answer):
    return False

def whole(text):
    return text
"""
RECIPE = """
model: {name: ./small, dtype: float32}
task: {kind: chain_arithmetic, operations: 2, train: 20, dev: 6, test: 6}
sampling: {max_new_tokens: 6}
reward: {letters: "own.py:letters"}
optimizer: {lr: 3e-3}
steps: 2
prompts: 2
answers: 3
evaluate: null
"""


def nested(prefix, target):
    """Every setting of a class or function as "prefix.name", those of settings that are themselves mappings too."""
    for name, setting in settings(target).items():
        yield f"{prefix}{name}"
        for option in (setting.annotation, *typing.get_args(setting.annotation)):
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                yield from nested(f"{prefix}{name}.", option)


def every_setting():
    found = list(below_the_top())
    with pytest.raises(ReckonError) as told:
        Recipe.parse(RECIPE, ["no_such_key=1"])
    keys = re.findall(r"\w+", str(told.value).partition("(settings: ")[2])
    assert {"model", "task", "reward", "steps"} <= set(keys)
    return {*found, *(key for key in keys if not any(name.startswith(f"{key}.") for name in found))}


def below_the_top():
    for role, kinds in KINDS.items():
        for kind in kinds:
            yield from nested(f"{role}.{kind}.", load_kind(role, kind))
    for name, method in METHODS.items():
        yield from nested(f"method.{name}.", method)
    beside = set(Recipe.parse(RECIPE, ["reward={x: containment}"]).resolved()["reward"]["x"]) - {"kind", "extract"}
    yield from (f"reward.*.{name}" for name in sorted(beside))
    yield from nested("reward.own.py:slow.", functools.partial(Function, len))
    for key, section in (("sampling", Sampling), ("optimizer", Optimization), ("refill", Refill)):
        yield from nested(f"{key}.", section)
    recipe = Recipe.parse(RECIPE)
    yield from (name for name in nested("model.", load_model) if name.split(".")[1] in recipe.model)
    yield from nested("", type(recipe.frame))


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    """A folder with functions, data and two models, where the tests run."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("settings")
    (folder / "own.py").write_text(OWN)
    for name, sign in (("one", "+"), ("two", "*")):
        rows = [
            {"prompt": f"{i}{sign}1", "question": f"{i}?", "answer": f"{i}.0", "solution": f"{i}1"} for i in range(12)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [
        {
            "id": f"{i}",
            "prompt": f"{i}?",
            "domain": "abcda"[i % 5],
            "hops": 1 + i % 4,
            "hardness": 7 * i % 50,
            "rate": i % 7 / 7,
            "other_rate": i % 11 / 11,
            "split": ("train", "train", "dev")[i % 3],
        }
        for i in range(90)
    ]
    (folder / "domains.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("small", "chatty"):
        shutil.copytree(small_model, folder / name)
    tokenizer = AutoTokenizer.from_pretrained(folder / "chatty")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}\n{% endfor %}a:"
    tokenizer.save_pretrained(folder / "chatty")
    with contextlib.chdir(folder):
        yield folder


FAILS = {"refill.on_short", "reward.own.py:slow.timeout"}  # what the other value is for: to end the run


# Tasks: what is asked, what is right, how it is worked


def pose(kind, given):
    task = Recipe.parse(RECIPE, [f"task={json.dumps({'kind': kind, **given})}"]).made_task
    posed = {split: task.problems(split) for split in ("train", "dev", "test")}
    shown = [problem for problems in posed.values() for problem in problems[:6]]
    answers = [["", "7", "<answer>21</answer>", f"{p.answer}", f"{p.answer}0"] for p in shown]
    return repr(
        [
            [len(problems) for problems in posed.values()],
            shown,
            [[task.check(p, text) for text in texts] for p, texts in zip(shown, answers, strict=True)],
            [task.solution(p) for p in shown] if isinstance(task, Worked) else None,
        ]
    )


# Parts: one step on a batch that is always the same

TEXTS = (
    r"a \boxed{4}",
    "but wait, but wait: 4",
    "<think>x</think><answer>4</answer>",
    "a a a b \\boxed{5}",
    "<think>x</think> \\boxed{4}",
    "maybe 9",
    "9 9 9 9",
    "",
)
ANSWERS = ("4", "4", "4", "5", "4", "9", None, None)


class Fixed:
    """A policy that says about a token what its number says; once taught, something else, and so does its reference."""

    tokenizer = None

    def __init__(self, modulus=5):
        self.modulus = modulus

    def outputs(self, seq, want=("logprobs",)):
        said = seq.tokens % self.modulus + 1
        hidden = torch.stack([said, seq.tokens % 3, seq.tokens % 2], dim=2).float()
        return Outputs(logprobs=-said / 4, entropy=(seq.tokens % 3 + 1) / 2, values=said / 3, hidden=hidden)

    def reference(self):
        return Fixed(3)

    def update(self, objective, batch, credit, rng):
        self.modulus += 1
        return {}

    def twin(self, optimizer, *, value_head=False):
        return Scaled(7, optimizer.lr)


class Scaled(Fixed):
    """What such a policy says, times a number that learns."""

    def __init__(self, modulus, lr):
        super().__init__(modulus)
        self.scale, self.lr = torch.ones((), requires_grad=True), lr

    def outputs(self, seq, want=("logprobs",)):
        said = super().outputs(seq)
        logprobs = (self.scale * said.logprobs).detach()
        return Outputs(logprobs=logprobs, values=said.values, scores=-said.values + 2)

    def update(self, objective, batch, credit, rng):
        return {"policy/steps": 1.0, "policy/grad_norm": 0.0, "tokens/trained": 0.0}

    def step(self, seq, columns, loss, want=("logprobs",)):
        said = Outputs(logprobs=self.scale * super().outputs(seq).logprobs)
        (gradient,) = torch.autograd.grad(loss(said, columns).sum(), self.scale)
        with torch.no_grad():
            self.scale -= self.lr * gradient
        return {"policy/grad_norm": float(gradient.abs())}


def make_batch(outcome):
    lengths = torch.tensor([2, 3, 5, 8, 4, 1, 6, 7])
    tokens = torch.arange(64).reshape(8, 8) * 7 % 11
    group = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    problems = (Problem(id="p", prompt="2+2", answer="4"), Problem(id="q", prompt="4+5", answer="9"))
    rollouts = Rollouts(
        seq=Sequences(
            prompts=(torch.tensor([3]), torch.tensor([4, 5])),
            group=group,
            tokens=tokens,
            mask=torch.arange(8) < lengths[:, None],
        ),
        problems=problems,
        text=TEXTS,
        pieces=tuple((text,) for text in TEXTS),
        logprobs=-(tokens % 4 + 1) / 3,
        end=torch.tensor([End.EOS, End.EOS, End.EOS, End.LENGTH, End.LENGTH, End.EOS, End.EOS, End.EOS]),
    )
    verdicts = tuple(
        Verdict(outcome=value, answer=answer, reason="no answer" if answer is None else "right" if value else "wrong")
        for value, answer in zip(outcome, ANSWERS, strict=True)
    )
    outcome = torch.tensor(outcome)
    return Batch.given(rollouts, outcome, verdicts=verdicts, train=True)


BATCH = make_batch([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])  # means 1/2 and 1/4
LATER = [make_batch([float(i < n) for i in range(8)]) for n in (7, 3)]


def one_step(*overrides):
    """All that the parts of a recipe do with the batch."""
    try:
        parts = Recipe.parse(RECIPE, ["reward=null", *overrides]).build(Fixed())
        streams = parts.reward.assess(BATCH, Rng((0,)))
    except ReckonError as error:
        return str(error)
    mask = BATCH.seq.mask
    slope = torch.linspace(-2, 2, 64).reshape(8, 8)
    credit = Credit(advantages=slope * mask, weights=torch.ones(8, 8), mask=mask, returns=slope, values=slope.flip(0))
    columns = parts.objective.prepare(BATCH, credit)
    loss = parts.objective(Fixed().outputs(BATCH.seq), columns)
    credited = [
        parts.advantage(b, {"r": Stream(values=b.outcome), "correct": Stream(values=(b.seq.tokens % 3) / 10)})
        for b in (BATCH, *LATER)
    ]
    return repr(
        [
            [problem.id for problem in parts.sampler.draw(3, Rng((0,)))],
            parts.keep(BATCH.rollouts, BATCH.outcome, Rng((0,))).tolist(),
            {name: (stream.values.tolist(), stream.kind, stream.train) for name, stream in streams.items()},
            [given.advantages.tolist() for given in credited],
            loss.tolist(),
        ]
    )


# Samplers: what three steps of a task with four domains pose, two of which go well


def posed(kind, given):
    """The ids drawn, and what the sampler says of them."""
    task = "task={kind: file, path: domains.jsonl}"
    sampler = Recipe.parse(RECIPE, [task, f"sampler={json.dumps({'kind': kind, **given})}"]).build(Fixed()).sampler
    told = []
    for step in range(3):
        problems = sampler.draw(10, Rng((0, step)))
        outcome = torch.tensor([{"a": 0.9, "b": 0.6}.get(p.domain, p.columns["hops"] / 5) for p in problems])
        zeros = torch.zeros(len(problems), dtype=torch.int64)
        seen = Seen(
            problems=tuple(problems), outcome=outcome, lengths=zeros + 1, end=zeros, rounds=1, wanted=10, kept=10
        )
        told.append(([problem.id for problem in problems], sampler.learn(seen)))
    return told


# Runs: every file, and every number but the clock's


def run(folder, *overrides):
    try:
        run_recipe(Recipe.parse(RECIPE, [*overrides, f"out={folder}"]), show="nothing")
    except ReckonError as error:
        return str(error)
    files = sorted([*folder.glob("*/*.parquet"), *folder.glob("checkpoints/*/*.*")])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "time/", "memory/", "computed/")
    metrics = [{k: repr(v) for k, v in line.items() if not k.startswith(clock)} for line in lines]
    return metrics, {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def unchanged(home):
    """unchanged(*overrides) -> the outcome of a run with these and no other settings, made once."""
    made = {}

    def outcome(*overrides):
        if overrides not in made:
            made[overrides] = run(home / f"unchanged-{len(made)}", *overrides)
        return made[overrides]

    return outcome


def entry(table, name):
    found = table[name]
    return found if isinstance(found, In) else In(found)


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub, which a test must not need."""
    datasets = pytest.importorskip("datasets")

    def load(path, config=None):
        file = {"owner/one": "one.jsonl", "owner/two": "two.jsonl"}[path]
        rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
        return datasets.DatasetDict({"train": datasets.Dataset.from_list(rows[:8] if config == "hard" else rows)})

    monkeypatch.setattr(datasets, "load_dataset", load)


@pytest.mark.parametrize("name", [name for name in PARTS if name.startswith("task.")])
def test_a_setting_of_a_task_matters(home, hub, name):
    _, kind, setting = name.split(".")
    given = NEEDED.get(f"task.{kind}", {})
    assert pose(kind, {**given, setting: PARTS[name]}) != pose(kind, given)


@pytest.mark.parametrize("name", [name for name in PARTS if name.startswith("sampler.")])
def test_a_setting_of_a_sampler_matters(home, name):
    _, kind, setting = name.split(".")
    changed = entry(PARTS, name)
    given = {**NEEDED.get(f"sampler.{kind}", {}), **changed.beside}
    assert posed(kind, {**given, setting: changed.value}) != posed(kind, given) == posed(kind, given)


@pytest.mark.parametrize("name", [name for name in PARTS if not name.startswith(("task.", "sampler."))])
def test_a_setting_of_a_part_matters(home, name):
    owner, _, setting = name.rpartition(".")
    role, _, kind = owner.partition(".")
    changed = entry(PARTS, name)
    if kind == "*":
        named = "reward={x: {kind: length, l_max: 8}}"
        before, after = one_step(named), one_step(named, f"reward.x.{setting}={json.dumps(changed.value)}")
    else:
        given = {"kind": kind, **NEEDED.get(owner, {}), **changed.beside}
        before, after = (
            one_step(f"{role}={json.dumps({'x': part} if role == 'reward' else part)}")
            for part in (given, {**given, setting: changed.value})
        )
    assert before.startswith("["), before
    assert after.startswith("[") != (name in FAILS), after
    assert after != before


@pytest.mark.parametrize("name", RUNS)
def test_a_setting_of_a_run_matters(home, unchanged, name):
    changed = entry(RUNS, name)
    before = unchanged(*changed.overrides)
    after = run(home / f"changed-{name}", *changed.overrides, f"{name}={json.dumps(changed.value)}")
    assert not isinstance(before, str), before
    assert isinstance(after, str) == (name in FAILS), after
    assert after != before


def test_the_same_settings_give_the_same_outcome(home, unchanged):
    """Else every setting would seem to matter."""
    assert run(home / "again") == unchanged()
    assert one_step() == one_step()
    assert pose("largest", NEEDED["task.largest"]) == pose("largest", NEEDED["task.largest"])


def test_every_setting_has_another_value_that_is_tried():
    found, listed = every_setting(), {**PARTS, **RUNS, **EXEMPT}
    assert len(listed) == len(PARTS) + len(RUNS) + len(EXEMPT), "a setting is listed twice"
    assert not (missing := sorted(found - set(listed))), (
        f"new settings {missing}: give each another valid value in tests/other_settings.py, in PARTS (tried on one "
        "batch or a few problems) or RUNS (tried by a run), or a reason in tests/exempt_settings.py"
    )
    assert not (gone := sorted(set(listed) - found)), f"{gone} are listed, which are no settings"
