"""The tiny transformers of studies: what they are taught, that a run is the loop's own, and what an exam says."""

import gc
from dataclasses import replace

import pytest
import torch

from reckon.errors import InputError
from reckon.models import Optimization
from reckon.runs import read_rollouts
from reckon.studies import _language_model as language
from reckon.studies._language_model import Lesson, Trained, exam, run, teach
from reckon.tasks import ChainArithmetic
from reckon.types import End, Rng, Rollouts
from whole_runs import metrics, train

TASK = ChainArithmetic(seed=3, operations=2, train=200, dev=24, test=24)
PROBLEMS = TASK.problems("train")[:64]
TEXTS = [TASK.solution(problem) for problem in PROBLEMS]
RECIPE = {
    "method": "rloo",
    "task": {"kind": "chain_arithmetic", "seed": 3, "operations": 2, "train": 200, "dev": 24, "test": 24},
    "optimizer": {"lr": 1e-3},
    "steps": 2,
    "prompts": 4,
    "answers": 4,
}


def taught(name="a", passes=10, **changes):
    return teach([Lesson(problems=PROBLEMS, texts=TEXTS, passes=passes)], Rng((name,)), max_new_tokens=6, **changes)


@pytest.fixture(scope="module")
def start():
    return taught(passes=50, lr=3e-3)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.network.parameters()])


def test_a_model_is_taught_to_write_its_texts(start):
    """Two digits and a comma, where a new model writes any of a hundred characters."""
    new, old = taught(passes=1).open(), start.open()
    seq = old.tokenize(PROBLEMS, TEXTS)
    after, before = (float(model.outputs(seq).logprobs[seq.mask].mean()) for model in (old, new))
    assert after > -1.2 > before  # a digit at random has -2.3, the comma and the end are certain: -1.15 a token
    assert old.sampling.max_new_tokens == 6
    assert (len(old.network.model.layers), old.network.config.hidden_size) == (2, 64)


def test_lessons_follow_one_another():
    """Ones first, twos then: it ends with twos."""
    ones, twos = ([Lesson(problems=PROBLEMS, texts=[text] * 64, passes=30)] for text in ("1,1", "2,2"))
    model = teach([*ones, *twos], Rng(("b",)), max_new_tokens=6, lr=3e-3).open()
    assert set(model.greedy(PROBLEMS[:4]).text) == {"2,2"}


def test_teaching_ends_when_it_is_enough():
    """64 texts are two steps to a pass, so there are two steps between two questions."""
    asked = []

    def enough(model):
        asked.append(weights(model))
        return len(asked) == 3

    early = taught(enough=enough)
    assert len(asked) == 3
    assert not asked[0].equal(asked[1])
    assert weights(early.open()).equal(asked[2])
    assert weights(taught(passes=3).open()).equal(asked[2])  # asking changes nothing


def test_teaching_depends_on_its_rng_alone():
    torch.manual_seed(1)
    first = weights(taught("c", 1).open())
    torch.manual_seed(2)
    assert weights(taught("c", 1).open()).equal(first)
    assert not weights(taught("d", 1).open()).equal(first)


def test_a_start_is_opened_as_new_each_time_and_leaves_no_folder():
    start = taught(passes=1)
    one, other = start.open(Optimization(lr=0.1)), start.open(value_head=True)
    seq = one.tokenize(PROBLEMS[:4], TEXTS[:4])
    one.step(seq, {}, lambda outputs, _: -outputs.logprobs)
    assert weights(start.open()).equal(weights(other))
    assert not weights(one).equal(weights(other))
    assert not other.head.weight.any()
    folder = start.folder
    assert (folder / "model.safetensors").exists()
    del start
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("lessons", "message"),
    [
        ([], "without a lesson"),
        ([Lesson(problems=PROBLEMS, texts=TEXTS[:3])], "lesson 0 has 64 problems and 3 texts"),
        ([Lesson(problems=[], texts=[])], "lesson 0 has 0 problems and 0 texts"),
    ],
)
def test_lessons_that_cannot_be_taught(lessons, message):
    with pytest.raises(InputError, match=message):
        teach(lessons, Rng(()), max_new_tokens=6)


def test_a_run_is_what_the_command_makes_of_the_recipe(start, tmp_path):
    """Line by line, to the last digit, and in the folder it is told."""
    lines = (
        f"model: {{name: {start.folder}, dtype: float32, device: cpu, tokens_per_batch: 2048, rows_per_batch: 512}}",
        "method: rloo",
        "task: {kind: chain_arithmetic, seed: 3, operations: 2, train: 200, dev: 24, test: 24}",
        "sampling: {max_new_tokens: 6}",
        "optimizer: {lr: 1e-3}",
        "steps: 2",
        "prompts: 4",
        "answers: 4",
        "seed: 9",
        "evaluate: null",
    )
    (tmp_path / "recipe.yaml").write_text("\n".join(lines) + "\n")
    assert train(str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "theirs")) == 0
    done = run(RECIPE, start, 9, folder=tmp_path / "ours")
    assert metrics(tmp_path / "ours") == metrics(tmp_path / "theirs")
    assert [line["step"] for line in done.lines] == [0, 1, 2]
    assert done.curve("outcome/mean").keys() == {1, 2}


def test_a_run_begins_at_the_start_and_leaves_it_as_it_was(start):
    """Looks come before the first step, every so many, and after the last; what they say is logged."""
    looks = {}

    def look(model, parts, step):
        looks[step] = weights(model)
        assert parts.keep is not None
        return {"looked/at": 10.0 * step}

    before = weights(start.open())
    # After two steps most groups are of equal answers: of a few none may be left that changes anything.
    done = run({**RECIPE, "steps": 3, "prompts": 16, "answers": 16}, start, 9, examine=look, every=2)
    assert list(looks) == [0, 2, 3]
    assert looks[0].equal(before)
    assert looks[3].equal(weights(done.model))
    assert not looks[2].equal(looks[3])
    assert weights(start.open()).equal(before)
    assert done.curve("looked/at") == {0: 0.0, 2: 20.0, 3: 30.0}
    assert list(run(RECIPE, start, 9, examine=look).curve("looked/at")) == [0, 2]


def test_methods_of_a_seed_are_posed_the_same_and_draw_the_same(start, tmp_path):
    """Until they have learned different things."""
    wrote = []
    for place, (method, seed) in enumerate((("rloo", 9), ("grpo", 9), ("rloo", 10))):
        run({**RECIPE, "method": method}, start, seed, folder=tmp_path / str(place))
        rows = read_rollouts(tmp_path / str(place), columns=["step", "problem", "text"]).to_pylist()
        wrote.append([tuple(row.values()) for row in rows])
    first = [[row for row in rows if row[0] == 1] for rows in wrote]
    assert len(first[0]) == 16
    assert first[0] == first[1] != first[2]
    assert [row[1] for row in wrote[0]] == [row[1] for row in wrote[1]]


@pytest.mark.parametrize("key", ["model", "seed", "warmup", "evaluate", "save", "out"])
def test_what_a_run_fills_in_is_not_given(start, key):
    with pytest.raises(InputError, match=f"has `{key}`, which `run` fills in"):
        run({**RECIPE, key: None}, start, 1)


def test_a_misspelt_recipe_is_told_before_anything_is_trained(start):
    with pytest.raises(InputError, match="promts"):
        run({**RECIPE, "promts": 3}, start, 1)


def test_half_a_run_is_none(start, monkeypatch):
    monkeypatch.setattr(language, "train", lambda *_: False)
    with pytest.raises(KeyboardInterrupt):
        run(RECIPE, start, 1)


def test_curves_and_totals_of_lines(start):
    lines = ({"step": 0.0, "a": 7.0}, {"step": 1.0, "b": 2.0}, {"step": 2.0, "b": 3.0, "a": 8.0})
    done = Trained(model=start.open(), parts=None, lines=lines)
    assert done.curve("a") == {0: 7.0, 2: 8.0}
    assert done.total("b") == {0: 0.0, 1: 2.0, 2: 5.0}
    with pytest.raises(InputError, match=r"no line of this run has 'c'\. There are: a, b, step"):
        done.curve("c")


class Scripted:
    """Answers rightly when greedy; of its samples the first is right and the others end wrong by one slip."""

    def __init__(self, model):
        self.model = model

    def greedy(self, problems):
        return self._rollouts(problems, [TASK.solution(problem) for problem in problems], range(len(problems)))

    def sample(self, problems, k, rng, prefixes=None):
        texts = []
        for problem in problems:
            first, last = TASK.solution(problem).split(",")
            texts += [f"{first},{last}"] + [f"{first},{(int(last) + 1) % 10}"] * (k - 1)
        return self._rollouts(problems, texts, [g for g in range(len(problems)) for _ in range(k)])

    def _rollouts(self, problems, texts, group):
        seq = self.model.tokenize_groups(problems, texts, group)
        return Rollouts(
            seq=seq,
            problems=tuple(problems),
            text=tuple(texts),
            pieces=self.model.pieces(seq),
            logprobs=torch.where(seq.mask, -0.5, 0.0),
            end=torch.full((len(texts),), int(End.EOS)),
        )


def test_an_exam_by_hand(start):
    """Of four samples one is right, 4 of 8 first steps and 1 of 4 last ones: 5 of 8 steps are valid."""
    found = exam(Scripted(start.open()), TASK, 0, n=8, k=4)
    assert found == pytest.approx(
        {
            "greedy": 1.0,
            "sampled": 0.25,
            "pass@4": 1.0,
            "length": 4.0,  # two digits, a comma, the end
            "truncated": 0.0,
            "surprise": 0.5,
            "steps right": 5 / 8,
        }
    )


def test_an_exam_is_the_same_for_everybody_of_a_seed(start):
    one, again = (exam(start.open(), TASK, 1, split="dev", k=2) for _ in range(2))
    assert one == again
    assert exam(start.open(), TASK, 2, split="dev", k=2)["surprise"] != one["surprise"]
    assert exam(start.open(), replace(TASK, seed=4), 1, split="dev", k=2)["surprise"] != one["surprise"]


def test_an_exam_needs_two_samples(start):
    with pytest.raises(InputError, match="at least 2 samples to a problem, not 1"):
        exam(start.open(), TASK, 1, k=1)
