"""Reading rows: every convention, every source, and a sentence for what cannot be read."""

from __future__ import annotations

import json

import pytest

from reckon.annotate import Cost, Labels, PrefixLabel, write_labels
from reckon.errors import InputError, MissingError
from reckon.fit import Paired, Prefix, Stepwise, Unpaired, fitting, held_back, read_examples
from reckon.types import Problem

USER, ANSWER = {"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}
WRONG = {"role": "assistant", "content": "3"}
ASKED = "\n\nHuman: 1+1?\n\nAssistant:"  # as HH-RLHF writes it


def one(values, shape, **settings):
    (row,) = read_examples([values], shape, **settings).rows
    return row


@pytest.mark.parametrize("label", [True, 1, 1.0, "true", "1", "True", "right"])
def test_unpaired_labels_in_all_spellings(label):
    row = one({"prompt": "1+1", "completion": "2", "label": label}, "unpaired")
    assert (row.problem.prompt, row.text, row.label, row.ended) == ("1+1", "2", 1.0, True)


def test_conversations_are_prompt_and_one_turn():
    row = one({"prompt": [USER], "completion": [ANSWER], "label": False}, "unpaired")
    assert (row.problem.prompt, row.text, row.label) == ((USER,), "2", 0.0)
    pair = one({"prompt": [USER], "chosen": [ANSWER], "rejected": [WRONG], "margin": 0.5}, "paired")
    assert (pair.problem.prompt, pair.chosen, pair.rejected, pair.margin) == ((USER,), "2", "3", 0.5)


def test_an_implicit_prompt_is_what_both_conversations_begin_with():
    pair = one({"chosen": [USER, ANSWER], "rejected": [USER, WRONG]}, "paired")
    assert (pair.problem.prompt, pair.chosen, pair.rejected) == ((USER,), "2", "3")
    imitated = one({"messages": [USER, WRONG, USER, ANSWER]}, "imitation")
    assert (imitated.problem.prompt, imitated.text) == ((USER, WRONG, USER), "2")


def test_transcripts_are_cut_where_their_answers_first_differ():
    """What follows the difference answers other conversations; blank lines inside a turn belong to it."""
    begun = f"{ASKED} 2.\n\nSo it is.\n\nHuman: And 2+2?\n\nAssistant:"
    chosen, rejected = f"{begun} 4", f"{begun} 5\n\nHuman: Sure?\n\nAssistant: No."
    pair = one({"chosen": chosen, "rejected": rejected}, "paired")
    asked = [("user", "1+1?"), ("assistant", "2.\n\nSo it is."), ("user", "And 2+2?")]
    assert pair.problem.prompt == tuple({"role": role, "content": text} for role, text in asked)
    assert (pair.chosen, pair.rejected) == ("4", "5")


def test_several_responses_in_a_row():
    found = read_examples([{"prompt": "p", "completions": ["a", "b"], "correctness": [True, None]}], "unpaired")
    assert [(row.text, row.label) for row in found.rows] == [("a", 1.0)]


def test_steps_get_their_separator_but_the_last():
    row = one({"prompt": "p", "completions": ["a", "b\n", "c"], "labels": [True, 0.5, None]}, "stepwise")
    assert (row.steps, row.labels) == (("a\n", "b\n", "c"), (1.0, 0.5, None))
    assert one({"prompt": "p", "completions": ["a", "b"], "labels": [1, 0]}, "stepwise", separator=" ").steps == (
        "a ",
        "b",
    )


def test_prefixes_from_their_table_and_from_steps():
    row = one({"prompt": "p", "prefix": ["a\n", "b"], "q_hat": 0.25, "tokens": [5, 6]}, "prefix")
    assert (row.text, row.q, row.tokens) == ("a\nb", 0.25, (5, 6))
    chat = json.dumps([USER])
    assert one({"prompt": "user: 1+1", "messages": chat, "prefix": [], "q_hat": 1}, "prefix").problem.prompt == (USER,)
    found = read_examples([{"prompt": "p", "completions": ["a", "b"], "labels": [0.5, 0.0]}], "prefix").rows
    assert [(prefix.text, prefix.q) for prefix in found] == [("a\n", 0.5), ("a\nb", 0.0)]


@pytest.mark.parametrize(
    ("more", "ended"),
    [
        ({}, True),
        ({"end": "eos"}, True),
        ({"end": "length"}, False),
        ({"end": "stop"}, False),
        ({"truncated": 1}, False),
    ],
)
def test_a_response_that_was_cut_off_is_flagged(more, ended):
    assert one({"prompt": "p", "completion": "a", "label": 1, **more}, "unpaired").ended is ended


def test_a_side_of_a_pair_may_be_cut_off():
    pair = one({"prompt": "p", "chosen": "a", "rejected": "b", "rejected_truncated": True}, "paired")
    assert pair.ended == (True, False)


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_files_of_all_kinds_say_the_same(tmp_path, suffix):
    rows = [
        {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]},
        {"prompt": "q", "completions": ["c"], "labels": [True]},
    ]
    found = read_examples(write(tmp_path / f"data.{suffix}", rows), "stepwise").rows
    assert [(row.steps, row.labels) for row in found] == [(("a\n", "b"), (1.0, 0.0)), (("c",), (1.0,))]
    assert found[0].problem.id == f"data.{suffix}, row 1"


def test_a_hugging_face_dataset_is_read_as_it_is():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([{"prompt": "p", "chosen": "a", "rejected": "b"}])
    (row,) = read_examples(data, "paired").rows
    assert isinstance(row, Paired)
    assert row.chosen == "a"


def test_a_run_is_read_by_its_rollouts(tmp_path, monkeypatch):
    from reckon.methods import rloo
    from reckon.models import Sampling, load_model
    from reckon.runs import Run
    from reckon.tasks import ChainArithmetic
    from reckon.train import Plan, train

    monkeypatch.setenv("RECKON_CACHE", str(tmp_path / "cache"))
    task = ChainArithmetic(operations=4)
    policy = load_model("tiny", sampling=Sampling(max_new_tokens=20))
    with Run.create(tmp_path / "run", recipe={}) as run:
        train(policy, task, rloo(task), run, Plan(steps=1, prompts=2, answers=3, show="nothing"))
    found = read_examples(tmp_path / "run", "unpaired").rows
    assert len(found) == 6
    assert {row.ended for row in found} <= {False, True}
    assert all(row.label in (0.0, 1.0) for row in found)
    assert found[0].problem.answer is not None


def test_a_folder_of_labels_is_read_by_its_table(tmp_path):
    label = PrefixLabel(
        problem=Problem(id="p", prompt="1+1"), prefix=("2",), tokens=(5,), n_mc=4, n_correct=1, policy_id="", trace=0,
        steps=1, outcome=1,
    )  # fmt: skip
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(MissingError, match="its labels are not finished: give the same `reckon label` again"):
        read_examples(tmp_path, "prefix")
    write_labels(tmp_path / "labels.parquet", Labels(records=(label,), cost=Cost()))
    write_labels(tmp_path / "labels-00000.parquet", Labels(records=(), cost=Cost()))  # a chunk of them is not all
    assert [(row.text, row.q) for row in read_examples(tmp_path, "prefix").rows] == [("2", 0.25)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=r"empty is a folder without rows: it has neither recipe\.yaml nor labels"):
        read_examples(tmp_path / "empty", "prefix")


def test_unknown_labels_are_left_out_and_counted():
    rows = [{"prompt": "p", "completion": "a", "label": label} for label in (1, None, float("nan"))]
    found = read_examples(rows, "unpaired")
    assert (len(found.rows), found.unknown) == (1, 2)


def test_rows_that_cannot_be_used_are_dropped_only_where_that_was_asked_for():
    rows = [{"prompt": "p", "completion": "a", "label": 1}, {"prompt": "p", "completion": "a", "label": 7}]
    with pytest.raises(InputError, match="the list, row 2: `label` is 7"):
        read_examples(rows, "unpaired")
    found = read_examples(rows, "unpaired", on_bad="drop")
    assert len(found.rows) == 1
    assert found.dropped[0].startswith("the list, row 2: `label` is 7")


def test_the_fingerprint_is_of_what_was_read():
    rows = [{"prompt": "p", "completion": "a", "label": 1}]
    first = read_examples(rows, "unpaired").fingerprint
    assert first == read_examples([dict(rows[0])], "unpaired").fingerprint
    assert first != read_examples([{**rows[0], "label": 0}], "unpaired").fingerprint


P = {"prompt": "p"}


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        (
            {"completion": "a", "label": 1},
            "unpaired",
            r"row 1: there is no column `prompt` \(columns: completion, label\)",
        ),
        ({**P, "label": 1}, "unpaired", "no column `completion` or `text` or `response`"),
        ({**P, "completion": "a"}, "unpaired", "no column `label` or `outcome`"),
        ({**P, "completion": 3, "label": 1}, "unpaired", "`completion` must be text, not int"),
        ({**P, "completion": "a", "label": "maybe"}, "unpaired", "`label` is 'maybe', not a number"),
        ({**P, "completion": "a", "label": [1]}, "unpaired", r"`label` is \[1\], not a number"),
        ({"prompt": "", "completion": "a", "label": 1}, "unpaired", "`prompt` is empty"),
        ({"prompt": 3, "completion": "a", "label": 1}, "unpaired", "`prompt` must be text or a list of messages"),
        ({"prompt": [{"role": "tool"}], "completion": "a", "label": 1}, "unpaired", "each message of `prompt`"),
        ({**P, "completion": [USER], "label": 1}, "unpaired", "one message of the assistant, not 1 messages"),
        ({**P, "completions": ["a"], "correctness": []}, "unpaired", "`completions` has 1 entries and `correctness` 0"),
        ({**P, "chosen": "a"}, "paired", "no column `rejected`"),
        ({**P, "chosen": "a", "rejected": "a"}, "paired", "are the same text"),
        ({**P, "chosen": "a", "rejected": "b", "margin": "x"}, "paired", "`margin` is 'x', not a number"),
        ({"chosen": [USER, ANSWER], "rejected": [ANSWER, WRONG]}, "paired", "must differ in their last turn alone"),
        ({"chosen": [USER], "rejected": [USER]}, "paired", "ends with the assistant's turn"),
        ({"chosen": "a", "rejected": "b"}, "paired", "`chosen` must be text or a list of messages, not str"),
        ({"chosen": f"{ASKED} 2", "rejected": f"{ASKED} 2"}, "paired", "do not first differ in an answer"),
        ({"chosen": f"{ASKED} 2", "rejected": "\n\nHuman: 1+2?\n\nAssistant: 2"}, "paired", "do not first differ"),
        ({"chosen": f"{ASKED} 2", "rejected": f"{ASKED}"}, "paired", "`rejected` is a transcript .* says nothing"),
        ({"chosen": f"{ASKED} 2\n\nAssistant: 3", "rejected": f"{ASKED} 3"}, "paired", "do not take turns"),
        ({**P, "completions": ["a"], "labels": [1, 0]}, "stepwise", "`completions` has 1 entries and `labels` 2"),
        ({**P, "completions": [], "labels": []}, "stepwise", "has no steps"),
        ({**P, "completions": "[1", "labels": [1]}, "stepwise", "`completions` is text that is not JSON"),
        ({**P, "completions": 3, "labels": [1]}, "stepwise", "`completions` must be a list, not int"),
        ({**P, "q_hat": 0.5}, "prefix", "no column `prefix`"),
        ({**P, "prefix": "a"}, "prefix", "no column `q_hat` or `label`"),
        ({**P, "prefix": "a", "q_hat": 2}, "prefix", r"`q_hat` is 2, but a label is in \[0, 1\]"),
        ({"messages": [USER]}, "imitation", "ends with the assistant's turn"),
        ({**P, "completion": None, "label": 1}, "unpaired", 'row 1: `completion` is null. Write "" where'),
        ({**P, "chosen": "a", "rejected": None}, "paired", "`rejected` is null"),
        ({**P, "chosen": None, "rejected": "a"}, "paired", "`chosen` is null"),
        ({**P, "completions": ["a", None], "labels": [1, 0]}, "stepwise", "`completions` is null"),
        ({**P, "prefix": None, "q_hat": 1}, "prefix", "`prefix` is null"),
        (
            {**P, "completion": "a", "label": 1, "end": ["eos"]},
            "unpaired",
            "`end` is a list, but there is one",
        ),
        (
            {**P, "completions": ["a", "b"], "correctness": [1, 0], "end": ["eos"]},
            "unpaired",
            "`end` has 1 entries for 2 responses",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(values, shape, message):
    with pytest.raises(InputError, match=message):
        read_examples([values], shape)


def test_sources_that_are_not_there_or_hold_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError, match="no such file"):
        read_examples(tmp_path / "none.jsonl", "unpaired")
    with pytest.raises(InputError, match="a mapping from column names"):
        read_examples(["text"], "unpaired")
    with pytest.raises(InputError, match="none of 0 rows"):
        read_examples([], "unpaired")
    with pytest.raises(InputError, match="of 1 nobody knows the label"):
        read_examples([{"prompt": "p", "completion": "a", "label": None}], "unpaired")


def test_a_row_number_is_the_lines(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n\n{"prompt": "p", "chosen": "a"}\n')
    with pytest.raises(InputError, match=r"pairs\.jsonl, row 3: there is no column `rejected`"):
        read_examples(path, "paired")


def test_rows_are_never_cut_but_refused_or_dropped_and_counted(make):
    """256 tokens of context: a prompt of 4 and a response of 252 with its end fit, one more does not."""
    model = make()
    problem = Problem(id="long", prompt="1+1=")
    fits = Unpaired(problem=problem, text="x" * 251, label=1.0)
    cut_off = Unpaired(problem=problem, text="x" * 252, label=1.0, ended=False)
    long = Unpaired(problem=problem, text="x" * 252, label=1.0)
    assert fitting(model, [fits, cut_off]) == ([fits, cut_off], 0)
    with pytest.raises(InputError, match=r"problem 'long' has 253 tokens, and beside its prompt .* room for 252"):
        fitting(model, [fits, long])
    assert fitting(model, [fits, long], "drop") == ([fits], 1)
    pair = Paired(problem=problem, chosen="x" * 251, rejected="x" * 252)
    steps = Stepwise(problem=problem, steps=("x" * 252,), labels=(1.0,))
    prefix = Prefix(problem=problem, text="x" * 252, q=1.0)
    assert fitting(model, [fits, pair, steps, prefix], "drop") == ([fits], 3)
    with pytest.raises(InputError, match="all of 1 rows are longer"):
        fitting(model, [long], "drop")


def test_a_prompt_is_learned_from_or_held_back_never_both():
    rows = [Unpaired(problem=Problem(id=str(i), prompt=str(i % 50)), text="a", label=1.0) for i in range(200)]
    kept, back = held_back(rows, 0.2)
    assert len(kept) + len(back) == 200
    assert 4 <= len({row.problem.prompt for row in back}) <= 20  # of 50 prompts about 10
    assert not {row.problem.prompt for row in kept} & {row.problem.prompt for row in back}
    assert held_back(rows, 0) == (rows, [])
    assert held_back(rows[:100], 0.2)[1] == [row for row in back if int(row.problem.id) < 100]
    with pytest.raises(InputError, match="held back is 1"):
        held_back(rows, 1)


def test_several_responses_end_each_for_itself():
    row = {"prompt": "p", "completions": ["a", "b", "c"], "correctness": [1, None, 0]}
    ends = [{"end": ["eos", "eos", "length"]}, {"truncated": [False, False, True]}, {"truncated": "[0, 0, 1]"}]
    for end in ends:
        assert [found.ended for found in read_examples([row | end], "unpaired").rows] == [True, False]
    assert [found.ended for found in read_examples([row | {"end": "length"}], "unpaired").rows] == [False, False]


def test_an_empty_cell_of_csv_is_an_empty_response(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("prompt,completion,label\np,,1\n")
    assert read_examples(path, "unpaired").rows[0].text == ""
    assert one({"prompt": "p", "completion": "", "label": 1}, "unpaired").text == ""


def test_steps_of_a_prefix_are_joined_by_the_separator_but_ours_hold_their_delimiters():
    row = {"prompt": "p", "prefix": ["a", "b\n\n", "c"], "q_hat": 0.5}
    assert one(row, "prefix").text == "a\nb\n\nc"
    assert one(row, "prefix", separator="; ").text == "a; b\n\n; c"
    assert one({**row, "n_mc": 4}, "prefix").text == "ab\n\nc"
