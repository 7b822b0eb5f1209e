"""Triples, labels and pairs as files."""

import json

import pytest

from reckon.annotate import (
    CheckerVerifier,
    Pair,
    Triple,
    annotate_file,
    labeled_rows,
    paired_rows,
    read_triples,
    write_rows,
)
from reckon.errors import InputError
from reckon.fit import Paired, Unpaired
from reckon.tasks import Exact, Number, read_rows
from reckon.types import Problem


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


COOPER = [  # the columns of the published training data
    {"question": "1 + 1?", "reference_answer": "2", "completion": "Answer: 2", "label": 1},
    {"question": "1 + 2?", "reference_answer": "3", "completion": "Answer: 3.0", "label": 1},
    {"question": "1 + 3?", "reference_answer": "4", "completion": "Answer: 5", "label": 0},
]


def test_a_file_is_labeled_by_two_rules(tmp_path):
    """Exact rejects 3.0 and Number accepts it: two of three are kept, and the lost one is Exact's missed right one."""
    source = write(tmp_path / "triples.jsonl", COOPER)
    verifiers = {"exact": CheckerVerifier(Exact()), "number": CheckerVerifier(Number())}
    report = annotate_file(source, tmp_path / "kept.jsonl", verifiers)
    assert (report.n, report.kept, report.accepted) == (3, 2, 1)
    exact, number = report.tallies
    assert (exact.gold.precision, exact.gold.recall) == (1.0, 0.5)
    assert (number.gold.precision, number.gold.recall) == (1.0, 1.0)
    assert [row.values for row in read_rows(str(tmp_path / "kept.jsonl"))] == [
        {"id": "row-1", "prompt": "1 + 1?", "completion": "Answer: 2", "label": 1, "answer": "2"},
        {"id": "row-3", "prompt": "1 + 3?", "completion": "Answer: 5", "label": 0, "answer": "4"},
    ]


def test_other_columns_and_chats(tmp_path):
    chat = [{"role": "user", "content": "1 + 1?"}]
    rows = [{"id": "a", "prompt": chat, "answer": 2, "response": "2", "gold": False}, {"prompt": "x", "text": ""}]
    assert read_triples(write(tmp_path / "t.jsonl", [{**rows[0], "id": 0}]))[0].problem.id == "0"
    first, second = read_triples(write(tmp_path / "t.jsonl", rows))
    assert first == Triple(problem=Problem(id="a", prompt=tuple(chat), answer="2"), completion="2", gold=False)
    assert second == Triple(problem=Problem(id="row-2", prompt="x"), completion="", gold=None)
    assert CheckerVerifier(Number())(second) is None  # no reference
    write_rows(tmp_path / "t.parquet", labeled_rows([first], [True]))
    assert read_rows(str(tmp_path / "t.parquet"))[0].values["prompt"] == chat


def test_rows_are_what_fit_reads(tmp_path):
    from reckon.fit._read import read_examples

    triple = Triple(problem=Problem(id="p", prompt="q", answer="2"), completion="2")
    write_rows(tmp_path / "u.jsonl", labeled_rows([triple], [False]))
    assert read_examples(tmp_path / "u.jsonl", "unpaired").rows == (
        Unpaired(problem=triple.problem, text="2", label=0.0),
    )
    pair = Pair(problem=triple.problem, chosen="2", rejected="3", row=0)
    write_rows(tmp_path / "p.parquet", paired_rows([pair]))
    assert read_examples(tmp_path / "p.parquet", "paired").rows == (
        Paired(problem=triple.problem, chosen="2", rejected="3"),
    )


def test_bad_files_are_told(tmp_path):
    with pytest.raises(InputError, match=r"t\.jsonl, row 1: none of the columns completion, response, text is there"):
        read_triples(write(tmp_path / "t.jsonl", [{"prompt": "x"}]))
    with pytest.raises(InputError, match="row 1: none of the columns prompt, question"):
        read_triples(write(tmp_path / "t.jsonl", [{"text": "x"}]))
    with pytest.raises(InputError, match="row 1: the truth is 'maybe'"):
        read_triples(write(tmp_path / "t.jsonl", [{"prompt": "x", "text": "x", "label": "maybe"}]))
    with pytest.raises(InputError, match="row 1: the completion must be text, not int"):
        read_triples(write(tmp_path / "t.jsonl", [{"prompt": "x", "text": 3}]))
    for prompt, says in (
        ([3], r"each message of `prompt` must be an object with `role` \(system, user, assistant\)"),
        ([{"role": "bot", "content": "x"}], "each message of `prompt` must be an object"),
        ([{"role": "user", "content": None}], "each message of `prompt` must be an object"),
        (7, "`prompt` must be text or a list of messages, not int"),
        ("", "`prompt` is empty"),
        ([], "`prompt` is empty"),
    ):
        with pytest.raises(InputError, match=rf"t\.jsonl, row 1: {says}"):
            read_triples(write(tmp_path / "t.jsonl", [{"prompt": prompt, "text": "x"}]))
    with pytest.raises(InputError, match="row 1: each message of `question` must be"):
        read_triples(write(tmp_path / "t.jsonl", [{"question": [{"role": "user"}], "text": "x"}]))
    with pytest.raises(InputError, match=r"rows are written as \.jsonl or \.parquet"):
        write_rows(tmp_path / "t.csv", [])
    with pytest.raises(InputError, match="there is no row to write"):
        write_rows(tmp_path / "t.parquet", [])
