"""References by prompt: drawn once, never again, saved, and honest about prompts they do not know."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch

from reckon.credit import LeaveOneOut
from reckon.errors import InputError, MissingError, RunError
from reckon.losses import PolicyGradient
from reckon.models.table import Action, TablePolicy
from reckon.rewards import Function, Sum, Verifier
from reckon.rewards._combine import Centered, Probability, and_
from reckon.rewards._combine_groups import MinMax
from reckon.rewards._combine_numbers import BaseSamples
from reckon.rewards._references import ReferenceStore
from reckon.runs import Run
from reckon.samplers import All, Uniform
from reckon.train import Plan, train
from reckon.types import End, Parts, Problem, Rng, Rollouts, Sequences, Verdict

NAN = float("nan")


def worth(completions):
    return [float(text) if text != "?" else None for text in completions]


def twice(completions):
    return [2 * float(text) if text != "?" else None for text in completions]


def problem(i, prompt=None):
    return Problem(id=f"p{i}", prompt=prompt or f"question {i}")


def rollouts(*texts, problems=None):
    """A row of texts for each problem."""
    flat = [text for row in texts for text in row]
    group = torch.tensor([g for g, row in enumerate(texts) for _ in row])
    problems = problems or [problem(i) for i in range(len(texts))]
    seq = Sequences(
        prompts=tuple(torch.tensor([1]) for _ in problems),
        group=group,
        tokens=torch.zeros(len(flat), 1, dtype=torch.int64),
        mask=torch.ones(len(flat), 1, dtype=torch.bool),
    )
    return Rollouts(
        seq=seq,
        problems=tuple(problems),
        text=tuple(flat),
        pieces=tuple((text,) for text in flat),
        logprobs=torch.zeros(len(flat), 1),
        end=torch.full((len(flat),), int(End.EOS)),
    )


class Policy:
    """Answers problem i with i, i + 1, ..."""

    def __init__(self):
        self.asked = []

    def sample(self, problems, k, rng, prefixes=None):
        self.asked.append((len(problems), rng.key))
        rows = [[str(int(p.id[1:]) + j) for j in range(k)] for p in problems]
        return rollouts(*rows, problems=problems)


class Task:
    """Everything under 2 is right."""

    name = "under two"

    def problems(self, split):
        return [problem(0)]

    def check(self, problem, text):
        return Verdict(outcome=float(float(text) < 2), answer=text, reason="right")


def fitted(*texts, reward=None, problems=None, **settings):
    store = ReferenceStore(**settings)
    return store.fit(reward or Function(worth), rollouts(*texts, problems=problems), policy_id="base")


def levels(store, *problems, key=""):
    values, known = store.levels(key, problems)
    return values.tolist(), known.tolist()


def test_levels_by_problem():
    store = fitted("0123", "4")
    assert levels(store, problem(0), problem(1), problem(0)) == (
        pytest.approx([2.55, 4.0, 2.55]),  # the 0.85 quantile of 0, 1, 2, 3
        [True, True, True],
    )
    assert levels(fitted("0123", how="gaussian"), problem(0))[0] == pytest.approx([2.658768], abs=1e-5)
    sample = fitted("0123", how="gaussian", sample_std=True)
    assert levels(sample, problem(0))[0] == pytest.approx([2.838030], abs=1e-5)
    assert levels(fitted("0123", how="mean"), problem(0))[0] == [1.5]
    assert levels(fitted("015", how="median"), problem(0))[0] == [1.0]
    assert levels(fitted("0123", q=0.5), problem(0))[0] == [1.5]
    everywhere = fitted("01", "23", per_prompt=False, q=0.5)
    assert levels(everywhere, problem(0), problem(1))[0] == [1.5, 1.5]


def test_each_reward_has_its_own():
    store = fitted("01", reward=Sum({"a": Function(worth), "b": Function(twice)}), how="mean")
    assert store.keys == ("a", "b")
    assert levels(store, problem(0), key="a")[0] == [0.5]
    assert levels(store, problem(0), key="b")[0] == [1.0]
    with pytest.raises(InputError, match=r"several rewards, and `key` names none\. It has a, b"):
        store.levels("", [problem(0)])
    with pytest.raises(InputError, match="no 'c'"):
        store.levels("c", [problem(0)])


def test_samples_without_a_value_are_left_out():
    store = fitted("?1", "?", how="mean")
    assert levels(store, problem(0), problem(1)) == ([1.0, 1.0], [True, False])  # p1 has none: the median
    with pytest.raises(RunError, match="no base sample has a known reward 'worth'"):
        fitted("?")


def test_it_is_fitted_once():
    store = fitted("01")
    for again in (
        lambda: store.fit(Function(worth), rollouts("9"), policy_id="now"),
        lambda: store.fit_from(Function(worth), [problem(0)], Policy(), n=1, rng=Rng((0,)), policy_id="now"),
        lambda: store.fit_canned(Function(worth), [problem(0)], "1", tokenize=tokenize),
    ):
        with pytest.raises(RunError, match="fitted already, on 'base', and is never fitted again"):
            again()
    assert levels(store, problem(0))[0] == pytest.approx([0.85])


def test_sampling_the_base_model():
    policy = Policy()
    store = ReferenceStore("mean").fit_from(
        Sum({"v": Verifier(), "w": Function(worth)}),
        [problem(i) for i in range(20)],
        policy,
        n=3,
        rng=Rng((0, "base")),
        policy_id="sft",
        task=Task(),
    )
    assert [count for count, _ in policy.asked] == [16, 4]
    assert len({key for _, key in policy.asked}) == 2  # each part of the problems from numbers of its own
    assert levels(store, problem(0), problem(7), key="w")[0] == [1.0, 8.0]  # (7 + 8 + 9) / 3
    assert levels(store, problem(0), problem(1), key="v")[0] == pytest.approx([2 / 3, 1 / 3])
    assert store.fitted_on["policy"] == "sft"
    assert store.fitted_on["problems"] == 20
    other = ReferenceStore("mean").fit(Function(worth), rollouts("9"), policy_id="sft")
    assert other.fitted_on["samples"] != store.fitted_on["samples"]
    with pytest.raises(InputError, match="0 samples of 1 problems are none"):
        ReferenceStore().fit_from(Function(worth), [problem(0)], policy, n=0, rng=Rng((0,)), policy_id="x")


def tokenize(problems, texts):
    n = len(texts)
    return Sequences(
        prompts=tuple(torch.tensor([1]) for _ in problems),
        group=torch.arange(n),
        tokens=torch.zeros(n, 2, dtype=torch.int64),
        mask=torch.ones(n, 2, dtype=torch.bool),
    )


def test_a_given_answer_as_the_reference():
    store = ReferenceStore().fit_canned(Function(worth), [problem(0), problem(1)], "0.5", tokenize=tokenize)
    assert levels(store, problem(0), problem(1))[0] == [0.5, 0.5]
    assert store.fitted_on["policy"] == "canned text"


def test_unknown_prompts_get_the_median_and_are_counted(make_batch):
    store = fitted("1", "2", "9", how="mean")
    assert levels(store, problem(7), problem(0)) == ([2.0, 1.0], [False, True])
    assert store.missing == 1
    batch = make_batch(["3", "3"], problems=(problem(0), problem(7)), group=[0, 1])
    streams = Centered(reward=Function(worth), references=store).score(batch)
    assert streams["centered"].values.tolist() == [2.0, 1.0]
    assert streams["reference"].values.tolist() == [1.0, 2.0]
    assert streams["no_reference"].values.tolist() == [0.0, 1.0]  # its mean, the share, is what a run logs
    assert not streams["no_reference"].train
    assert store.missing == 2


def test_another_prompt_under_the_same_id_is_refused():
    store = fitted("1")
    with pytest.raises(InputError, match="'p0' has another prompt than when its samples were drawn"):
        store.levels("", [problem(0, "something else")])
    with pytest.raises(RunError, match="'p0' stands twice, with two prompts"):
        fitted("1", "2", problems=[problem(0), problem(0, "other")])


def test_the_prompt_is_the_key_where_ids_are_others():
    """Data that come through another library have no ids of ours, but the same prompts."""
    store = fitted("1", "2", how="mean")
    assert levels(store, Problem(id="row 7", prompt="question 1")) == ([2.0], [True])
    assert levels(store, Problem(id="p0", prompt="question 1")) == ([2.0], [True])


def prompts_of_growing_length(n=12):
    return [problem(i, "x" * 2 ** (i % 6 + 1) + " " * i) for i in range(n)]


def test_ridge_where_it_explains_something():
    """Levels that are the logarithm of the prompt's length: linear in a feature. And then noise: the median stays."""
    problems = prompts_of_growing_length()
    texts = [[str(math.log(len(p.prompt)))] for p in problems]
    store = fitted(*texts, problems=problems, how="mean", model="ridge")
    assert store.explained() > 0.9
    new = problem(99, "x" * 20)
    assert levels(store, new)[0] == pytest.approx([math.log(20)], abs=0.3)
    noise = np.random.default_rng(3).standard_normal(len(problems))
    useless = fitted(*[[str(v)] for v in noise], problems=problems, how="mean", model="ridge")
    assert useless.explained() < 0
    assert levels(useless, new)[0] == pytest.approx([np.median(noise)])
    flat = fitted(*[["1"] for _ in problems], problems=problems, model="ridge")
    assert flat.explained() == 0
    assert levels(fitted("1", "3", model="ridge"), new)[0] == pytest.approx([2.0])  # two levels fit no line


def test_ridge_is_judged_by_levels_it_has_not_seen():
    """The shortcut through the hat matrix against fitting anew without each row."""
    problems = prompts_of_growing_length(8)
    targets = np.random.default_rng(0).standard_normal(8) + np.array([len(p.prompt) for p in problems]) / 20
    store = fitted(*[[str(v)] for v in targets], problems=problems, how="mean", model="ridge")
    features, levels_ = store._table("worth")
    design = np.hstack(
        [np.ones((8, 1)), (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)]
    )
    penalty = np.diag([0, 1, 1, 1, 1])
    error = by_mean = 0.0
    for i in range(8):
        rest = [j for j in range(8) if j != i]
        weights = np.linalg.solve(design[rest].T @ design[rest] + penalty, design[rest].T @ levels_[rest])
        error += (levels_[i] - design[i] @ weights) ** 2
        by_mean += (levels_[i] - levels_[rest].mean()) ** 2
    assert store.explained() == pytest.approx(1 - error / by_mean, abs=1e-6)


def test_a_function_for_unknown_prompts(tmp_path):
    def guess(key, problem):
        return float(len(key) + len(problem.prompt))

    store = fitted("1", model=guess)
    assert levels(store, problem(5))[0] == [15.0]  # "worth", "question 5"
    store.save(tmp_path / "r.json")
    with pytest.raises(InputError, match="made with a function as `model`; give that function again"):
        ReferenceStore.load(tmp_path / "r.json")
    assert levels(ReferenceStore.load(tmp_path / "r.json", model=guess), problem(5))[0] == [15.0]


def test_saved_and_loaded(tmp_path):
    store = fitted("0123", "4", how="gaussian", q=0.7, sample_std=True, model="ridge")
    path = tmp_path / "run" / "references.json"
    store.save(path)
    store.save(path)  # the same again is no harm
    again = ReferenceStore.load(path)
    assert again.state_dict() == store.state_dict()
    asked = [problem(0), problem(1), problem(5)]
    assert levels(again, *asked) == levels(store, *asked)
    with pytest.raises(RunError, match="holds other references, and references are never replaced"):
        fitted("9").save(path)
    with pytest.raises(RunError, match="no references to save"):
        ReferenceStore().save(tmp_path / "empty.json")
    with pytest.raises(RunError, match="fitted already"):
        again.fit(Function(worth), rollouts("9"), policy_id="now")
    assert [p.name for p in path.parent.iterdir()] == ["references.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "reckon references 1"}', "\x00"])
def test_files_that_are_no_references(content, tmp_path):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match=r"r\.json is no file of references"):
        ReferenceStore.load(tmp_path / "r.json")


def test_errors():
    with pytest.raises(MissingError, match="is not there"):
        ReferenceStore.load("nowhere.json")
    with pytest.raises(InputError, match="`how` is 'mode'"):
        ReferenceStore("mode")
    with pytest.raises(InputError, match="`q` is 1"):
        ReferenceStore(q=1)
    with pytest.raises(InputError, match="`model` is 'forest'"):
        ReferenceStore(model="forest")
    with pytest.raises(InputError, match="the store is empty"):
        Centered(reward=Function(worth), references=ReferenceStore())
    with pytest.raises(InputError, match="no 'b'"):
        Centered(reward=Function(worth), references=fitted("1"), key="b")


def test_a_run_keeps_its_references(tmp_path, make_batch):
    """Resumed with a file that was made anew in the meantime, the levels are those the run was begun with."""
    path = tmp_path / "references.json"
    fitted("1").save(path)
    tree = and_(a=Centered(reward=Function(worth), references=path))
    saved = json.loads(json.dumps(tree.state_dict()))
    path.unlink()
    fitted("5").save(path)
    again = and_(a=Centered(reward=Function(worth), references=str(path)))
    batch = make_batch(["3"], problems=(problem(0),))
    assert again.score(batch)["a"].values.tolist() == [-2.0]
    again.load_state_dict(saved)
    assert again.score(batch)["a"].values.tolist() == [2.0]
    fixed = and_(a=Centered(reward=Function(worth), references=1.0))
    with pytest.raises(RunError, match="saved with other `references`"):
        fixed.load_state_dict(saved)
    with pytest.raises(RunError, match="saved with other `references`"):
        again.load_state_dict(fixed.state_dict())


def test_against_the_samples_themselves(make_batch, tmp_path):
    store = fitted("02", "5", how="mean")
    batch = make_batch(["1", "1", "1"], problems=(problem(0), problem(1), problem(7)), group=[0, 1, 2])
    soft = BaseSamples(reward=Function(worth), references=store)
    # sigmoid(1) and sigmoid(-1): 1/2; sigmoid(-4) = .017986; the median of 1 and 5: sigmoid(1 - 3) = .119203
    streams = soft.score(batch)
    assert streams["base_samples"].values.tolist() == pytest.approx([0.5, 0.017986, 0.119203], abs=1e-6)
    assert streams["no_reference"].values.tolist() == [0.0, 0.0, 1.0]
    rank = BaseSamples(reward=Function(worth), references=store, how="rank")
    assert rank.score(batch)["base_samples"].values.tolist() == [0.5, 0.0, 0.0]
    rank.load_state_dict(json.loads(json.dumps(soft.state_dict())))
    with pytest.raises(InputError, match="`how` is 'hard'"):
        BaseSamples(reward=Function(worth), references=store, how="hard")


class Choices:
    """Eight questions, four answers."""

    name = "choices"

    def problems(self, split):
        return [problem(i) for i in range(8)]

    def check(self, problem, text):
        return Verdict(outcome=None, answer=text, reason="no reference")


def run_for(steps, folder, references):
    """A short run whose reward is a tree over stored references."""
    learner = TablePolicy(
        [Action(text=str(i)) for i in range(4)], torch.zeros(4), optimizer=partial(torch.optim.SGD, lr=1.0)
    )
    tree = and_(
        worth=Centered(reward=Function(worth), references=references),
        seen=Probability(reward=MinMax(reward=Function(worth))),
    )
    parts = Parts(
        sampler=Uniform(Choices()),
        keep=All(),
        reward=Sum({"good": tree}),
        advantage=LeaveOneOut(),
        objective=PolicyGradient(average="constant", length=1),
    )
    make = Run.resume if (folder / "recipe.yaml").exists() else partial(Run.create, recipe={})
    with make(folder) as run:
        train(learner, Choices(), parts, run, Plan(steps=steps, prompts=4, answers=4, show="nothing"))
        return learner, run.metrics(), run.rollouts()


def test_a_run_trains_on_a_tree_and_goes_on_with_its_references(tmp_path):
    path = tmp_path / "references.json"
    fitted(*["0123"] * 8).save(path)
    whole, metrics, _ = run_for(4, tmp_path / "whole", path)
    run_for(2, tmp_path / "cut", path)
    path.unlink()
    fitted(*["9"] * 8).save(path)  # made anew in between; the run does not care
    resumed, again, rollouts = run_for(4, tmp_path / "cut", path)
    assert torch.equal(resumed.probabilities(), whole.probabilities())
    assert whole.probabilities()[0, 3] > 0.3
    names = [name for name in metrics[0] if name.startswith("reward/")]
    assert "reward/good/worth.reference/mean" in names
    assert [row["reward/good/worth.no_reference/mean"] for row in again] == [0.0] * 4
    assert [row["reward/good/and/mean"] for row in again] == [row["reward/good/and/mean"] for row in metrics]
    assert "stream/good/seen.reward.reward" in rollouts.column_names
