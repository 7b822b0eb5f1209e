"""Responses from files and runs: every convention, every bad cell by row, and back into a file."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reckon.errors import InputError, MissingError, RunError
from reckon.files import write_table
from reckon.rewards import Function, Length, Verifier
from reckon.runs import (
    EVALUATIONS,
    Responses,
    Run,
    Signal,
    label_responses,
    make_table,
    read_responses,
    score_responses,
    tokenize_with,
    write_responses,
)
from reckon.tasks import RunningSums
from reckon.types import Problem, Step, Stream


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_trls_unpaired_rows_of_one_prompt_stand_together(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"prompt": "1 + 1?", "completion": "So: \\boxed{2}", "label": True, "answer": "2", "judge": 0.9},
        {"prompt": "2 + 2?", "completion": "5", "label": False, "answer": "4", "judge": None},
        {"prompt": "1 + 1?", "completion": "Answer: 3", "label": None, "answer": "2", "judge": -1},
    )
    found = read_responses(path)
    assert found.source == "a.jsonl"
    assert found.text == ("So: \\boxed{2}", "Answer: 3", "5")
    assert found.group.tolist() == [0, 0, 1]
    assert found.row.tolist() == [0, 2, 1]
    assert found.parsed == ("2", "3", "5")
    np.testing.assert_equal(found.outcome, [1, math.nan, 0])
    np.testing.assert_equal(found.streams["judge"].values, [0.9, -1, math.nan])
    assert [p.prompt for p in found.problems] == ["1 + 1?", "2 + 2?"]
    assert [p.id for p in found.problems] == ["row-1", "row-2"]
    assert found.lengths.tolist() == [13, 9, 1]
    assert found.unit == "characters"


def test_messages_pairs_and_steps_of_trl_are_understood(tmp_path):
    chat = [{"role": "user", "content": "Hi?"}]
    said = [{"role": "assistant", "content": "Hello."}]
    found = read_responses(write(tmp_path / "chat.jsonl", {"prompt": chat, "completion": said, "correct": 0.5}))
    assert found.problems[0].prompt == tuple(chat)
    assert found.text == ("Hello.",)
    assert found.right.tolist() == [0]  # partly right is not right
    pairs = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "P", "chosen": "good", "rejected": "bad", "score_chosen": 2.0, "score_rejected": 1.0},
        {"chosen": [*chat, *said], "rejected": [*chat, {"role": "assistant", "content": "No."}]},
    )
    found = read_responses(pairs)
    assert found.text == ("good", "bad", "Hello.", "No.")
    assert found.outcome.tolist() == [1, 0, 1, 0]
    np.testing.assert_equal(found.streams["score"].values, [2, 1, math.nan, math.nan])
    assert found.problems[1].prompt == tuple(chat)
    stepwise = {"prompt": "P", "completions": ["ab", "c"], "labels": [True, False], "stream/prm/steps": [0.9, 0.2]}
    found = read_responses(write(tmp_path / "steps.jsonl", stepwise))
    assert found.text == ("ab\nc",)
    assert found.steps == ((Step(start=0, end=3, valid=True), Step(start=3, end=4, valid=False)),)
    assert found.streams["prm"].values.tolist() == [0.2]  # the worst step
    assert np.isnan(found.outcome).all()


def test_a_csv_has_numbers_and_truths_in_words(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,prompt,response,correct,judge,note\n7,P,x,True,0.5,fine\n7,P,y,false,,3\n8,Q,z,,2,\n")
    found = read_responses(path)
    np.testing.assert_equal(found.outcome, [1, 0, math.nan])
    np.testing.assert_equal(found.streams["judge"].values, [0.5, math.nan, 2])
    assert [p.id for p in found.problems] == ["7", "8"]
    assert list(found.streams) == ["judge"]  # most notes are words


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "P"}, r"there is no response \(columns: prompt\). Call its column text, completion, response"),
        ({"text": "x"}, r"nothing says which question is answered \(columns: text\). Add a column prompt"),
        ({"prompt": "P", "text": "x", "response": "y"}, "`text` and `response` mean the same. Keep one"),
        ({"prompt": "P", "text": "x", "label": 1, "correct": 1}, "`correct` and `label` mean the same"),
        ({"prompt": "P", "text": "x", "label": "maybe"}, "`label` is 'maybe'; it must be a finite number"),
        ({"prompt": "P", "text": "x", "label": 2}, "`label` is 2; a verdict is true, false or a number from 0 to 1"),
        ({"prompt": "P", "text": {"a": 1}}, "`text` must be text or a list of messages, not dict"),
        ({"prompt": "P", "text": [{"role": "assistant"}]}, "each message of `text` must be an object with"),
        ({"prompt": 3, "text": "x"}, "`prompt` must be text or a list of messages"),
        ({"prompt": "P", "text": "x", "stream/a": "high"}, "`stream/a` is 'high'; it must be a finite number"),
        ({"prompt": "P", "text": "x", "stream/a": math.inf}, "`stream/a` is inf; it must be a finite number"),
        ({"prompt": "P", "text": "x", "stream/a/b/c": 1}, "`stream/a/b/c` is not the name of a stream"),
        ({"prompt": "P", "text": "xy", "pieces": ["x"]}, "`pieces` joined are not the response"),
        ({"prompt": "P", "text": "x", "pieces": [1]}, "`pieces` must be a list of texts"),
        ({"prompt": "P", "text": "x", "tokens": ["x"]}, "`tokens` must be a list of whole numbers"),
        (
            {"prompt": "P", "text": "xy", "pieces": ["x", "y"], "stream/a/tokens": [1]},
            "`stream/a/tokens` has 1 numbers, and the response 2 tokens",
        ),
        ({"prompt": "P", "text": "x", "stream/a/tokens": 1}, "`stream/a/tokens` must be a list of numbers, not int"),
        ({"prompt": "P", "text": "x", "steps": [{"start": 0, "end": 9}]}, "`steps` must be a list of objects with"),
        ({"prompt": "P", "completions": ["a"], "labels": [True, False]}, "`labels` must have one true or false for"),
        ({"prompt": "P", "completions": ["a"], "labels": ["x"]}, "`labels` holds 'x'; it must be true, false or null"),
        ({"prompt": "P", "completions": "a"}, "`completions` must be a list of texts"),
        ({"prompt": "P", "text": "x", "answer": ["a"]}, "`answer` must be text or a number, not list"),
        ({"prompt": "P", "text": "x", "end": "cut"}, "`end` is 'cut'; it must be eos, stop or length, or empty"),
    ],
)
def test_a_bad_cell_is_named_by_file_row_and_remedy(tmp_path, row, said):
    good = {name: None for name in row if name not in ("prompt", "text", "response", "completions")}
    good |= {"prompt": "P"} if "prompt" in row else {}
    good |= {"text": "x"} if "text" in row else {}
    good |= {"completions": ["a"]} if "completions" in row else {}
    with pytest.raises(InputError, match=f"^bad.jsonl, row [12]: {said}"):
        read_responses(write(tmp_path / "bad.jsonl", good, row))


def test_why_a_response_ended_is_read_in_any_letter_case(tmp_path):
    rows = [{"prompt": "P", "text": "x", "end": end} for end in ("EOS", "Length", "stop", None, "")]
    assert read_responses(write(tmp_path / "a.jsonl", *rows)).end == ("eos", "length", "stop", None, None)


def test_a_word_among_numbers_is_an_error_and_a_number_among_words_is_not(tmp_path):
    rows = [{"prompt": "P", "text": "x", "judge": value} for value in (1, 2, "n/a")]
    with pytest.raises(InputError, match=r"row 3: `judge` is 'n/a'; it must be a finite number. Leave the cell empty"):
        read_responses(write(tmp_path / "a.jsonl", *rows))
    rows = [{"prompt": "P", "text": "x", "note": value} for value in ("fine", "good", 3)]
    assert not read_responses(write(tmp_path / "b.jsonl", *rows)).streams


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(MissingError, match="no such file"):
        read_responses(tmp_path / "none.jsonl")
    with pytest.raises(MissingError, match=r"is a folder and no run: it has no recipe.yaml"):
        read_responses(tmp_path)
    with pytest.raises(InputError, match="is a file, which has no splits"):
        read_responses(write(tmp_path / "a.jsonl", {"prompt": "P", "text": "x"}), split="dev")
    with Run.create(tmp_path / "run", recipe={"model": "none"}):
        pass
    with pytest.raises(MissingError, match="has no rollouts of training"):
        read_responses(tmp_path / "run")
    with pytest.raises(MissingError, match="has no evaluations on the split 'dev'"):
        read_responses(tmp_path / "run", split="dev")


def evaluation(n, k):
    """n problems, k samples and a greedy answer each, of a run's schema."""
    rows = [(g, s) for g in range(n) for s in range(-1, k)]
    return {
        "step": [3] * len(rows), "row": list(range(len(rows))), "group": [g for g, _ in rows],
        "problem": [f"p{g}" for g, _ in rows], "domain": ["d"] * len(rows), "prompt": ["user: add"] * len(rows),
        "answer": ["3"] * len(rows), "text": ["a b"] * len(rows), "outcome": [1.0] * len(rows),
        "parsed": ["b"] * len(rows), "reason": ["right"] * len(rows), "end": ["eos"] * len(rows),
        "tokens": [[1, 2, 0]] * len(rows), "pieces": [["a", " b", ""]] * len(rows),
        "logprobs": [[-1.0, -2.0, -0.5]] * len(rows), "sample": [max(s, 0) for _, s in rows],
        "greedy": [s < 0 for _, s in rows], "stream/judge/tokens": [[0.5, None, 1.0]] * len(rows),
        "stream/correct": [1.0] * len(rows),
    }  # fmt: skip


def test_a_runs_evaluations_are_read_without_the_greedy_answers(tmp_path):
    with Run.create(tmp_path / "run", recipe={"model": "none"}) as run:
        run.evaluation("dev", 3, evaluation(2, 4))
    found = read_responses(tmp_path / "run", split="dev")
    assert found.source == "run"
    assert len(found.text) == 8
    assert found.tokens[0] == (1, 2, 0)
    assert found.lengths.tolist() == [3] * 8
    assert found.streams["judge"].values.tolist() == [1.5] * 8  # what is known of the tokens, added up
    np.testing.assert_equal(found.streams["judge"].tokens[0], [0.5, math.nan, 1.0])
    assert list(found.streams) == ["correct", "judge"]
    table = tmp_path / "one.parquet"
    write_table(table, make_table(evaluation(2, 4), EVALUATIONS))
    assert read_responses(table).text == found.text


def test_the_same_problem_at_two_steps_is_two_groups_and_one_unit(tmp_path):
    with Run.create(tmp_path / "run", recipe={"model": "none"}) as run:
        for step in (1, 2):
            columns = evaluation(1, 2)
            run.evaluation("dev", step, columns | {"step": [step] * 3})
    found = read_responses(tmp_path / "run", split="dev")
    assert found.group.tolist() == [0, 0, 1, 1]
    assert found.units.tolist() == [0, 0]
    assert read_responses(tmp_path / "run", split="dev", steps=[2]).group.tolist() == [0, 0]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
cells = st.lists(
    st.tuples(st.integers(0, 3), texts, st.sampled_from([None, 0.0, 1.0, 0.25]), st.none() | st.floats(-9, 9)),
    min_size=1,
    max_size=8,
)


@given(cells, st.sampled_from([".jsonl", ".parquet"]))
def test_what_is_written_is_read_again(tmp_path_factory, rows, ending):
    rows = sorted(rows, key=lambda row: row[0])
    groups = sorted({row[0] for row in rows})
    n = len(rows)
    made = Responses(
        source="a" + ending,
        problems=tuple(Problem(id=f"p{g}", prompt=f"Q{g}", answer="7" if g else None) for g in groups),
        group=np.array([groups.index(row[0]) for row in rows]),
        text=tuple(row[1] for row in rows),
        outcome=np.array([math.nan if row[2] is None else row[2] for row in rows]),
        parsed=tuple(row[1].strip() or None for row in rows),
        end=("eos",) * n,
        row=np.arange(n),
        pieces=tuple(tuple(row[1]) for row in rows),
        steps=tuple((Step(start=0, end=len(row[1]), valid=True),) for row in rows),
        streams={
            "a": Signal(
                values=np.array([math.nan if row[3] is None else row[3] for row in rows]), seconds=2.0, read=8.0
            ),
            "b": Signal.of_tokens([np.arange(len(row[1]), dtype=float) for row in rows]),
            "c": Signal.of_tokens([np.arange(len(row[1]), dtype=float) for row in rows], "advantage"),
        },
    )
    path = tmp_path_factory.mktemp("files") / ("a" + ending)
    write_responses(made, path)
    found = read_responses(path)
    assert found.text == made.text
    assert found.pieces == made.pieces
    assert found.steps == made.steps
    assert [(p.id, p.prompt, p.answer) for p in found.problems] == [(p.id, p.prompt, p.answer) for p in made.problems]
    np.testing.assert_equal(found.outcome, made.outcome)
    for name, signal in made.streams.items():
        if name in found.streams:
            np.testing.assert_equal(found.streams[name].values, signal.values)
            assert found.streams[name].kind == signal.kind
        else:
            assert np.isnan(signal.values).all()
    if "a" in found.streams:
        assert found.streams["a"].seconds == pytest.approx(2)
        assert found.streams["a"].read == pytest.approx(8)


def test_cells_of_other_columns_stay_with_their_rows(tmp_path):
    rows = [
        {"prompt": "P", "id": "a", "text": "1", "note": "x", "split": "dev", "tokens": [4]},
        {"prompt": "Q", "id": "b", "text": "2", "note": None, "split": "dev", "tokens": None},
        {"prompt": "P", "id": "c", "text": "3", "note": ["y", 1], "split": "train", "tokens": [5, 6]},
    ]
    found = read_responses(write(tmp_path / "a.jsonl", *rows))
    assert found.columns["note"] == ("x", ["y", 1], None)  # in the order of the responses
    assert found.take(np.array([1, 2])).columns["id"] == ("c", "b")
    assert found.tokens is None  # not all have them
    write_responses(found, tmp_path / "b.jsonl")
    again = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in rows[0]} for row in again] == rows
    assert read_responses(tmp_path / "b.jsonl").columns == found.columns
    with pytest.raises(InputError, match=r"do not fit into Parquet .* Write them as \.jsonl"):
        write_responses(found, tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"`note` holds lists, which do not fit into \.csv"):
        write_responses(found, tmp_path / "b.csv")


def test_a_runs_rows_are_written_with_their_steps_and_reasons(tmp_path):
    with Run.create(tmp_path / "run", recipe={"model": "none"}) as run:
        for step in (1, 2):
            run.evaluation("dev", step, evaluation(1, 2) | {"step": [step] * 3})
    found = read_responses(tmp_path / "run", split="dev")
    write_responses(found, tmp_path / "a.parquet")
    again = read_responses(tmp_path / "a.parquet")
    assert again.columns["step"] == (1, 1, 2, 2)
    assert again.columns["reason"] == ("right",) * 4
    assert again.group.tolist() == found.group.tolist() == [0, 0, 1, 1]


def test_a_kind_that_there_is_not_is_told(tmp_path):
    row = {"prompt": "P", "text": "1", "tokens": [4], "stream/j/tokens": [0.5], "stream/j/kind": "reward?"}
    with pytest.raises(InputError, match=r"row 1: `stream/j/kind` is 'reward\?'; it must be one of reward, "):
        read_responses(write(tmp_path / "a.jsonl", row))


def test_rows_are_written_in_the_order_in_which_they_were_read(tmp_path):
    rows = [{"prompt": p, "text": t} for p, t in (("P", "1"), ("Q", "2"), ("P", "3"))]
    found = read_responses(write(tmp_path / "a.jsonl", *rows))
    assert found.text == ("1", "3", "2")
    write_responses(found, tmp_path / "b.csv")
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert [line.split(",")[4] for line in lines] == ["text", "1", "2", "3"]
    with pytest.raises(InputError, match=r"responses are written as .jsonl, .parquet, .csv"):
        write_responses(found, tmp_path / "b.txt")
    dense = found.with_streams({"j": Signal.of_tokens([np.zeros(1)] * 3)})
    with pytest.raises(InputError, match=r"`stream/j/tokens` holds lists, which do not fit into .csv"):
        write_responses(dense, tmp_path / "b.csv")


def four():
    return Responses(
        source="four",
        problems=(Problem(id="p", prompt="P", columns={"hint": "h"}), Problem(id="q", prompt="Q")),
        group=np.array([0, 0, 1, 1]),
        text=("a", "bb", "", "dddd"),
        outcome=np.array([1.0, 0.0, math.nan, 0.0]),
        parsed=("a", "bb", None, "dddd"),
        end=("eos", None, None, "length"),
        row=np.arange(4),
    )


def test_judges_add_columns_and_what_they_cost():
    seen = []

    def length(completions, prompts, hint, **_):
        seen.append((tuple(prompts), tuple(hint)))
        return [float(len(text)) if text else None for text in completions]

    found = score_responses(four(), {"mine": Function(length), "verdict": Verifier()})
    np.testing.assert_equal(found.streams["mine"].values, [1, 2, math.nan, 4])
    np.testing.assert_equal(found.streams["verdict"].values, [1, 0, math.nan, 0])
    assert seen == [(("P", "P", "Q", "Q"), ("h", "h", None, None))]
    assert found.streams["mine"].seconds > 0
    assert math.isnan(found.streams["mine"].read)  # nobody read tokens
    done = []
    score_responses(four(), {"a": Function(length), "b": Function(length)}, progress=lambda *now: done.append(now))
    assert done == [(4, 8), (8, 8)]


class Odd:
    """A judge that goes wrong as it is told."""

    def __init__(self, *streams):
        self.streams = list(streams)

    def score(self, batch):
        return self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]


def test_a_judge_that_goes_wrong_is_named():
    with pytest.raises(RunError, match=r"the judge 'odd' gave a stream of shape \[3\]; it must have one value for"):
        score_responses(four(), {"odd": Odd({"x": Stream(values=torch.zeros(3))})})
    with pytest.raises(InputError, match="there is no judge"):
        score_responses(four(), {})
    with pytest.raises(InputError, match="'a/b' cannot name a judge"):
        score_responses(four(), {"a/b": Verifier()})


def test_several_streams_are_named_after_their_judge_and_groups_stay_whole():
    two = {"x": Stream(values=torch.ones(4)), "y": Stream(values=torch.ones(4, 4), kind="advantage")}
    found = score_responses(four(), {"odd": Odd(two)})
    assert list(found.streams) == ["odd/x", "odd/y"]
    assert found.streams["odd/y"].values.tolist()[0] == 1  # an advantage of tokens counts with its mean
    many = Responses(
        source="many", problems=(Problem(id="p", prompt="P"), Problem(id="q", prompt="Q")),
        group=np.repeat([0, 1], 70), text=("x",) * 140, outcome=np.zeros(140), parsed=(None,) * 140,
        end=(None,) * 140, row=np.arange(140),
    )  # fmt: skip
    sizes = []

    def count(completions, **_):
        sizes.append(len(completions))
        return [0.0] * len(completions)

    score_responses(many, {"count": Function(count)})
    assert sizes == [70, 70]


@dataclass
class Likelihood:
    """A judge that reads a model's tokens."""

    model: object

    def score(self, batch):
        return {"likelihood": Stream(values=self.model.outputs(batch.seq).logprobs)}


def test_a_language_model_reads_its_own_tokens(small_model):
    from reckon.models import load_model

    model = load_model(str(small_model))
    responses = Responses(
        source="sums", problems=(Problem(id="p", prompt="3 + 4 ="),), group=np.array([0, 0]), text=("7", "12 or so"),
        outcome=np.array([1.0, 0.0]), parsed=("7", "12"), end=("eos", "length"), row=np.arange(2),
    )  # fmt: skip
    judge = Likelihood(model)
    found = score_responses(responses, {"judge": judge})
    rollouts = tokenize_with(model)(responses)
    assert rollouts.seq.mask.sum(1).tolist() == [2, 8]  # "7" and its end token; what was cut off has none
    expected = model.outputs(rollouts.seq).logprobs.double()
    assert found.streams["judge"].values == pytest.approx(expected.sum(1).numpy())
    assert found.pieces == (("7", ""), tuple("12 or so"))
    assert [len(row) for row in found.streams["judge"].tokens] == [2, 8]
    assert found.streams["judge"].read == 10
    again = score_responses(found, {"again": judge})  # from the tokens that it has now
    assert again.streams["again"].values == pytest.approx(found.streams["judge"].values)


def test_a_task_adds_verdicts_and_steps():
    task = RunningSums(train=20, dev=5, test=5)
    problem = task.problems("train")[0]
    solution = task.solution(problem)
    responses = Responses(
        source="sums", problems=(Problem(id=problem.id, prompt=problem.prompt_text, answer=problem.answer),),
        group=np.zeros(3, dtype=int), text=(solution, "no idea", "x"), outcome=np.array([math.nan, math.nan, 1.0]),
        parsed=(None, None, "x"), end=(None,) * 3, row=np.arange(3),
    )  # fmt: skip
    found = label_responses(responses, task)
    assert found.outcome.tolist() == [1, 0, 1]  # a verdict that was there is left alone
    assert found.problems[0] == problem
    assert all(step.valid for step in found.steps[0])
    assert found.steps[1] is None


def test_length_of_a_judge_that_needs_tokens_is_told_in_tokens():
    tokens = ((1,), (2, 2), (), (3, 3, 3, 3))
    made = four()
    with_tokens = Responses(**{**vars(made), "tokens": tokens, "pieces": tuple(tuple(text) for text in made.text)})
    found = score_responses(with_tokens, {"length": Length(l_max=4)})
    assert found.streams["length"].read == 7
    assert found.unit == "tokens"


def test_fields_of_other_lengths_and_groups_out_of_order_are_refused():
    good = vars(four())
    with pytest.raises(ValueError, match="every field must have 4 rows"):
        Responses(**{**good, "parsed": ("a",)})
    with pytest.raises(ValueError, match="must ascend within"):
        Responses(**{**good, "group": np.array([0, 1, 0, 1])})
    part = four().take(np.array([1, 3]))
    assert (part.text, part.group.tolist()) == (("bb", "dddd"), [0, 1])
    assert four().take(np.array([3])).problems[0].id == "q"
