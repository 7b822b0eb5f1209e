import math

import pyarrow
import pytest
import torch

from reckon.errors import InputError, RunError
from reckon.files import write_table
from reckon.runs import EVALUATIONS, ROLLOUTS, read_evaluations, read_rollouts, rollout_table
from reckon.runs._tables import make_table
from reckon.types import Credit, Stream, Verdict

NAN = float("nan")


@pytest.fixture
def credit(batch):
    ones = torch.ones(3, 4)
    advantages = torch.tensor([[0.5, 0.5, 0.25, 0], [-1, 0, 0, 0], [0, 0, 0, 0.0]])
    return Credit(advantages=advantages, weights=ones, mask=batch.seq.mask)


@pytest.fixture
def streams():
    return {
        "correct": Stream(values=torch.tensor([1.0, 0.0, NAN])),
        "steps": Stream(values=torch.tensor([[0.1, 0.2, 0.3, 7], [NAN] * 4, [NAN, 1.0, NAN, 2.0]]), kind="advantage"),
    }


def test_every_column_of_a_rollout(batch, streams, credit):
    verdicts = [
        Verdict(outcome=1.0, answer="4", reason="right"),
        Verdict(outcome=0.0, answer=None, reason="no answer"),
        Verdict(outcome=None, answer=None, reason="timed out"),
    ]
    table = rollout_table(7, batch, streams, credit, verdicts)
    assert table.column_names == [*ROLLOUTS, "stream/correct", "stream/steps/tokens"]
    types = [str(field.type).replace("element", "item") for field in table.schema]
    assert types == [
        *("int32", "int32", "int32", "string", "string", "string", "string", "string", "float", "string", "string"),
        *("string", "bool", "list<item: int32>", "list<item: string>", "list<item: float>", "list<item: float>"),
        *("float", "list<item: float>"),
    ]
    first, second, third = table.to_pylist()
    assert (first["step"], first["row"], first["group"], first["problem"], first["domain"]) == (
        7,
        0,
        0,
        "p1",
        "default",
    )
    assert (first["answer"], first["text"], first["outcome"]) == ("4", "4!", 1)
    assert first["prompt"] == "system: Be brief.\n\nuser: 2+2?"
    assert (first["parsed"], first["reason"], first["end"], first["train"]) == ("4", "right", "eos", True)
    assert first["tokens"] == [11, 12, 2]  # padding is left out
    assert first["pieces"] == ["4", "!", ""]  # as many as tokens
    assert first["logprobs"] == pytest.approx([-0.1, -0.2, -0.3], rel=1e-7)
    assert first["advantages"] == [0.5, 0.5, 0.25]
    assert first["stream/correct"] == 1.0
    assert first["stream/steps/tokens"] == pytest.approx([0.1, 0.2, 0.3], rel=1e-7)
    assert (second["parsed"], second["reason"], second["end"], second["outcome"]) == (None, "no answer", "stop", 0.0)
    assert second["stream/steps/tokens"] is None
    assert (third["outcome"], third["reason"], third["end"], third["train"]) == (None, "timed out", "length", False)
    assert (third["answer"], third["domain"], third["stream/correct"]) == (None, "hard", None)
    assert (third["text"], third["pieces"]) == ("abc?", ["a", "b", "c", "?"])  # half a surrogate pair is no text
    assert third["logprobs"] == [-1, -2, -3, -math.inf]
    assert math.isnan(third["stream/steps/tokens"][0])
    assert third["stream/steps/tokens"][3] == 2


def test_without_verdicts_reasons_say_what_the_outcome_tells(batch):
    table = rollout_table(1, batch, {})
    assert table["reason"].to_pylist() == ["right", "wrong", "no reference"]
    assert table["advantages"].to_pylist() == [None] * 3


def test_a_hole_in_the_mask_stays(batch):
    batch.seq.mask[0] = torch.tensor([1, 0, 1, 0], dtype=torch.bool)
    assert rollout_table(1, batch, {})["tokens"].to_pylist()[0] == [11, 12, 2]
    batch.seq.mask[2] = torch.tensor([1, 0, 1, 0], dtype=torch.bool)
    with pytest.raises(ValueError, match="a response of 3 tokens has 4 pieces"):
        rollout_table(1, batch, {})


@pytest.mark.parametrize(
    ("stream", "verdicts", "message"),
    [
        (torch.zeros(2), None, "stream `x` has 2 rows, and the batch 3"),
        (torch.zeros(3), [], "0 verdicts for 3 responses"),
    ],
)
def test_rows_that_do_not_fit(batch, stream, verdicts, message):
    with pytest.raises(ValueError, match=message):
        rollout_table(1, batch, {"x": Stream(values=stream)}, None, verdicts)


def test_reading_joins_steps_whose_streams_differ(tmp_path, batch, streams):
    write_table(tmp_path / "rollouts/step-000010.parquet", rollout_table(10, batch, streams))
    write_table(tmp_path / "rollouts/step-000002.parquet", rollout_table(2, batch, {}))
    (tmp_path / "rollouts/.tmp-step-000003.parquet").write_bytes(b"half")
    table = read_rollouts(tmp_path)
    assert table["step"].to_pylist() == [2, 2, 2, 10, 10, 10]
    assert table["stream/correct"].to_pylist() == [None, None, None, 1, 0, None]
    assert read_rollouts(tmp_path, columns=["text", "stream/correct"]).column_names == ["text", "stream/correct"]
    assert read_rollouts(tmp_path, columns=["step"], steps=[10])["step"].to_pylist() == [10] * 3
    with pytest.raises(InputError, match=r"no column `txt`\. Columns: step, row"):
        read_rollouts(tmp_path, columns=["txt"])


def test_no_rollouts_are_an_empty_table(tmp_path):
    assert read_rollouts(tmp_path).column_names == list(ROLLOUTS)
    assert read_rollouts(tmp_path).num_rows == 0


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts/step-000001.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(RunError, match=r"step-000001\.parquet cannot be read"):
        read_rollouts(tmp_path)


def test_ten_thousand_rollouts(tmp_path):
    n = 500
    columns = {name: ["x"] * n for name in ("problem", "domain", "prompt", "text", "reason", "end")}
    columns |= {"row": range(n), "group": [0] * n, "train": [True] * n, "tokens": [list(range(100))] * n}
    columns |= {"pieces": [["ab"] * 100] * n, "logprobs": [[-0.5] * 100] * n}
    for step in range(1, 22):
        write_table(
            tmp_path / f"rollouts/step-{step:06}.parquet", make_table({**columns, "step": [step] * n}, ROLLOUTS)
        )
    table = read_rollouts(tmp_path)
    assert table.num_rows == 10_500
    assert sum(len(chunk) for chunk in table["pieces"].chunks[-1]) == 50_000


def test_splits_whose_names_begin_alike_are_kept_apart(tmp_path):
    columns = {name: [None] for name in ("answer", "outcome", "parsed", "reason")}
    columns |= {name: [0] for name in ("step", "row", "group", "sample")} | {"greedy": [True]}
    columns |= {name: ["x"] for name in ("problem", "domain", "prompt", "text", "end")}
    columns |= {"tokens": [[1]], "pieces": [["x"]], "logprobs": [[-1.0]], "stream/s": [1.0]}
    table = make_table(columns, EVALUATIONS)
    write_table(tmp_path / "evals/dev-step-000000.parquet", table)
    write_table(tmp_path / "evals/dev-hard-step-000000.parquet", table.slice(0, 0))
    assert read_evaluations(tmp_path, "dev").num_rows == 1
    assert read_evaluations(tmp_path, "dev-hard").num_rows == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": ["a"]}, "`texts` is not a column of this table"),
        ({"stream/a/b/c/d": ["a"]}, "`stream/a/b/c/d` is not a column"),
        ({"text": None}, "The column `text` is missing"),
        ({"text": [5]}, "The column `text` must be string"),
        ({"outcome": ["right"]}, "The column `outcome` must be float32"),
        ({"tokens": [[2**40]]}, "The column `tokens` must be list<int32>"),
        ({"text": ["a", "b"]}, "The column `text` has 2 rows, and the first column 1"),
    ],
)
def test_columns_that_do_not_fit_are_named(batch, change, message):
    row = rollout_table(1, batch, {}).slice(0, 1).to_pydict() | change
    with pytest.raises(InputError, match=message):
        make_table({name: values for name, values in row.items() if values is not None}, ROLLOUTS)


def test_the_same_rollouts_are_the_same_bytes(tmp_path, batch, streams):
    for name in ("a", "b"):
        write_table(tmp_path / name, rollout_table(1, batch, streams))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert isinstance(pyarrow.parquet.read_table(tmp_path / "a"), pyarrow.Table)
