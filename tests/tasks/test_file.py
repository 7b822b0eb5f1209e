import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reckon.errors import InputError, MissingError
from reckon.tasks import File, HubDataset, Number
from reckon.types import Verdict

ROWS = [
    {"prompt": f"What is {i} + {i}?", "answer": 2 * i, "domain": "sums", "id": f"s{i}", "level": i} for i in range(60)
]


@pytest.fixture
def write(tmp_path):
    def to(name, rows):
        path = tmp_path / name
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif name.endswith(".csv"):
            names = list(rows[0])
            cells = [",".join(names)] + [",".join(f'"{row[n]}"' for n in names) for row in rows]
            path.write_text("\n".join(cells) + "\n")
        else:
            path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    return to


def every(task):
    return [p for split in ("train", "dev", "test") for p in task.problems(split)]


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet", "p.csv"])
def test_three_formats_give_the_same_problems(write, name):
    task = File(write(name, ROWS), checker="number")
    problems = {p.id: p for p in every(task)}
    assert len(problems) == 60
    third = problems["s3"]
    assert (third.prompt, third.answer, third.domain) == ("What is 3 + 3?", "6", "sums")
    assert str(third.columns["level"]) == "3"
    assert task.check(third, "It is 6.").outcome == 1.0
    assert task.name == "p"
    reference = File(write("q.jsonl", ROWS), checker="number")
    assert [p.id for p in task.problems("test")] == [p.id for p in reference.problems("test")]


def test_only_a_prompt_is_needed(write):
    task = File(write("p.jsonl", [{"prompt": "Say something."}]), shares=(1, 0, 0))
    (problem,) = task.problems("train")
    assert (problem.id, problem.answer, problem.domain, dict(problem.columns)) == ("row-1", None, "default", {})
    assert task.check(problem, "something").reason == "no reference"
    assert list(task.problems("dev")) == []


def test_columns_may_have_other_names(write):
    task = File(
        write("p.jsonl", [{"question": "2?", "solution": "2", "prompt": "x"}]), prompt="question", answer="solution"
    )
    (problem,) = every(task)
    assert (problem.prompt, problem.answer, dict(problem.columns)) == ("2?", "2", {"prompt": "x"})


def test_chats(write):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2?", "name": "x"}]
    (problem,) = every(File(write("p.jsonl", [{"prompt": chat}])))
    assert problem.prompt == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2?"})


def test_lists_are_answers_for_the_set_checker(write):
    (problem,) = every(task := File(write("p.jsonl", [{"prompt": "?", "answer": [1, 2]}]), checker="set"))
    assert problem.answer == "1, 2"
    assert task.check(problem, "{2, 1}").outcome == 1.0


def test_a_split_column_and_its_aliases(write):
    rows = [{"prompt": str(i), "split": s} for i, s in enumerate(["train", "validation", "test", "dev"])]
    task = File(write("p.jsonl", rows))
    assert [[p.prompt for p in task.problems(s)] for s in ("train", "dev", "test")] == [["0"], ["1", "3"], ["2"]]


def test_files_for_splits(write):
    task = File({"train": write("a.jsonl", ROWS[:40]), "test": write("b.csv", ROWS[40:])})
    assert [len(task.problems(s)) for s in ("train", "dev", "test")] == [40, 0, 20]
    assert task.name == "file"


def test_a_prompt_keeps_its_split_when_the_file_changes(write):
    before = {p.prompt for p in File(write("a.jsonl", ROWS)).problems("test")}
    after = File(write("b.jsonl", [*reversed(ROWS), *({"prompt": f"new {i}"} for i in range(50))]))
    assert before
    assert before == {p.prompt for p in after.problems("test")} & {row["prompt"] for row in ROWS}


def test_duplicate_prompts_share_a_split(write):
    rows = [{"prompt": f"p{i % 40}", "answer": str(i)} for i in range(120)]
    task = File(write("p.jsonl", rows))
    sets = [{p.prompt for p in task.problems(s)} for s in ("train", "dev", "test")]
    assert sum(map(len, sets)) == 40


def test_checkers(write):
    path = write("p.jsonl", [{"prompt": "?", "answer": "3"}])
    (problem,) = every(File(path))
    assert File(path, checker=Number(minimum=0)).check(problem, "three").outcome == 1.0
    assert File(path, checker="exact").check(problem, "three").outcome == 0.0

    def own(text, answer):
        return Verdict(outcome=0.25, answer=answer, reason="partial")

    assert File(path, checker=own).check(problem, "x").outcome == 0.25

    def contains(text, answer):
        return answer in text

    with pytest.raises(InputError, match=r"checker 'contains' returned 'False' \(bool\)\. It must return a"):
        File(path, checker=contains).check(problem, "x")


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "p.jsonl",
            [{"prompt": "a"}, {"text": "b", "x": 1}],
            r"p\.jsonl, row 2: `prompt` is missing \(columns: text, x\)",
        ),
        ("p.jsonl", [{"prompt": ""}], r"p\.jsonl, row 1: `prompt` is missing"),
        ("p.jsonl", [{"prompt": "a"}, "", "{oops"], r"p\.jsonl, row 3: not JSON .* Write one JSON object a line"),
        ("p.jsonl", ["[1]"], r"p\.jsonl, row 1: a JSON object was expected, not list"),
        ("p.jsonl", ["[" * 100_000], r"p\.jsonl, row 1: not JSON"),
        ("p.jsonl", [{"prompt": 5}], r"row 1: `prompt` must be text or a list of messages, not int"),
        (
            "p.jsonl",
            [{"prompt": [{"role": "bot", "content": "x"}]}],
            r"row 1: each message of `prompt` must be an object",
        ),
        ("p.jsonl", [{"prompt": "a", "answer": {"x": 1}}], r"row 1: `answer` must be text, a number or a list"),
        ("p.jsonl", [{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}], r"row 2: `id` 'x' is that of row 1 too"),
        (
            "p.jsonl",
            [{"prompt": "a", "split": "train"}, {"prompt": "b"}],
            r"row 2: `split` must be train, dev or test, not",
        ),
        (
            "p.jsonl",
            [{"prompt": "a", "split": "train"}, {"prompt": "a", "split": "test"}],
            r"the same prompt is in split 'train' \(row-1\) and in 'test' \(row-2\)",
        ),
        ("p.jsonl", [], r"there are no rows"),
        ("p.parquet", [{"text": "x"}], r"p\.parquet, row 1: `prompt` is missing"),
        ("p.csv", [{"text": "x"}], r"p\.csv, row 1: `prompt` is missing"),
    ],
)
def test_bad_rows(write, name, rows, message):
    task = File(write(name, rows))
    with pytest.raises(InputError, match=message):
        task.problems("train")


def test_answers_the_checker_cannot_read(write):
    task = File(write("p.jsonl", [{"prompt": "a", "answer": "5"}, {"prompt": "b", "answer": "many"}]), checker="number")
    with pytest.raises(InputError, match=r"p\.jsonl, row 2: the checker Number cannot read the answer 'many'"):
        task.problems("train")
    task = File(write("q.jsonl", [{"id": i, "prompt": f"{i}?", "answer": "many"} for i in range(2)]), checker="number")
    with pytest.raises(InputError, match=r"q\.jsonl, row 1: the checker Number cannot read the answer 'many'"):
        task.problems("train")


def test_bad_files(tmp_path, write):
    write("problems.jsonl", ROWS)
    with pytest.raises(MissingError, match=r"problem\.jsonl: no such file\. Did you mean problems\.jsonl\?"):
        File(str(tmp_path / "problem.jsonl"))
    (tmp_path / "p.txt").write_text("x")
    with pytest.raises(InputError, match=r"files of kind '\.txt' cannot be read\. Use \.jsonl, \.parquet or \.csv"):
        File(str(tmp_path / "p.txt")).problems("train")
    (tmp_path / "p.parquet").write_text("not parquet")
    with pytest.raises(InputError, match=r"p\.parquet: cannot be read as Parquet"):
        File(str(tmp_path / "p.parquet")).problems("train")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    with pytest.raises(InputError, match=r"latin\.jsonl: not UTF-8 text"):
        File(str(tmp_path / "latin.jsonl")).problems("train")
    (tmp_path / "wide.csv").write_text("prompt,answer\na,b,c\n")
    with pytest.raises(InputError, match=r"wide\.csv, row 1: more cells than column names"):
        File(str(tmp_path / "wide.csv")).problems("train")
    (tmp_path / "narrow.csv").write_text("prompt,answer\na,b\nc\n")
    with pytest.raises(InputError, match=r"narrow\.csv, row 2: fewer cells than column names"):
        File(str(tmp_path / "narrow.csv")).problems("train")
    (tmp_path / "open.csv").write_text('prompt,answer\n"a,b\nc,d\n')  # would be one prompt to the end of the file
    with pytest.raises(InputError, match=r"open\.csv: cannot be read as UTF-8 CSV"):
        File(str(tmp_path / "open.csv")).problems("train")


def test_bad_settings(write):
    path = write("p.jsonl", ROWS)
    with pytest.raises(InputError, match=r"File: 'numbr' is not a checker\. Did you mean 'number'\?"):
        File(path, checker="numbr")
    with pytest.raises(InputError, match=r"File: `shares` must be three numbers"):
        File(path, shares=(0.5, 0.5, 0.5))
    with pytest.raises(InputError, match="'eval' is not a split"):
        File({"eval": path})


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the network: `datasets.load_dataset` answers from memory, through the library's own types."""
    datasets = pytest.importorskip("datasets")
    shelf = {}

    def load(path, config):
        if isinstance(shelf.get(path), Exception):
            raise shelf[path]
        if path not in shelf:
            raise ConnectionError(f"Couldn't reach {path!r} on the Hub")
        return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in shelf[path].items()})

    monkeypatch.setattr(datasets, "load_dataset", load)
    return shelf


def test_hub_splits_are_taken_as_they_are(hub):
    hub["o/d"] = {"train": ROWS[:5], "validation": ROWS[5:8], "test": ROWS[8:9], "extra": ROWS[9:]}
    task = HubDataset("o/d", checker="number")
    assert [len(task.problems(s)) for s in ("train", "dev", "test")] == [5, 3, 1]
    assert task.name == "d"
    assert task.check(task.problems("test")[0], "16").outcome == 1.0


def test_a_hub_dataset_with_one_split_is_divided(hub):
    hub["o/d"] = {"train": ROWS}
    task = HubDataset("o/d")
    assert sorted(len(task.problems(s)) for s in ("train", "dev", "test"))[-1] > 40
    assert len(every(task)) == 60


def test_hub_errors(hub):
    with pytest.raises(MissingError, match=r"The dataset 'o/none' could not be loaded: Couldn't reach"):
        HubDataset("o/none").problems("train")
    hub["o/broken"] = KeyError()  # the package raises whatever its many readers do, with or without a word
    with pytest.raises(MissingError, match=r"The dataset 'o/broken' could not be loaded: KeyError\. Check its id"):
        HubDataset("o/broken").problems("train")
    hub["o/d"] = {"train": [{"text": "x"}]}
    with pytest.raises(InputError, match=r"o/d \(train\), row 1: `prompt` is missing"):
        HubDataset("o/d").problems("train")
