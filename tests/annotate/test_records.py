"""Labels as Parquet, and labels of a real language model."""

import math

import pyarrow
import pyarrow.parquet
import pytest
import torch

from reckon.annotate import (
    PREFIXES,
    Budget,
    Cost,
    Drawing,
    FirstPit,
    Labels,
    PrefixLabel,
    label_first_pits,
    label_prefixes,
    make_labels,
    prefix_table,
    read_labels,
    records_from,
    write_labels,
)
from reckon.errors import InputError, RunError
from reckon.models import Sampling, load_model
from reckon.steps import Pattern
from reckon.tasks import ChainArithmetic
from reckon.types import End, Problem, Rng

DIGIT = Pattern(r"[0-9]")


def record(**changes):
    values = {
        "problem": Problem(id="p", prompt="1+2=", answer="3"),
        "prefix": ("a\n", "b"),
        "tokens": (5, 6, 7),
        "n_mc": 4,
        "n_correct": 3,
        "policy_id": "base",
        "trace": 2,
        "steps": 3,
        "outcome": 1,
        "ended": False,
        "n_drawn": 5,
        "generated": 17,
    }
    return PrefixLabel(**{**values, **changes})


def test_a_record_goes_to_parquet_and_back(tmp_path):
    chat = Problem(id="c", prompt=({"role": "user", "content": 'say "hi"'},), domain="talk")
    empty = record(problem=chat, prefix=(), tokens=(), n_mc=0, n_correct=0, outcome=None, source="pit")
    labels = Labels(records=(record(), empty), cost=Cost(rollouts=9, tokens=40, checks=8), left_out=3)
    write_labels(tmp_path / "labels.parquet", labels)
    assert read_labels(tmp_path / "labels.parquet") == labels
    table = prefix_table(labels.records)
    assert table.column_names == list(PREFIXES)
    assert table.schema.equals(prefix_table([]).schema)
    row = table.to_pylist()[0]
    assert (row["q_hat"], row["step"], row["prefix"], row["prompt"]) == (0.75, 2, ["a\n", "b"], "1+2=")
    assert table.to_pylist()[1]["q_hat"] is None
    assert table.to_pylist()[1]["prompt"] == 'user: say "hi"'
    assert math.isnan(empty.q_hat)


def test_text_that_is_no_utf8_is_written_all_the_same():
    table = prefix_table([record(prefix=("\ud800",))])
    assert records_from(table)[0].text == "?"


def test_a_table_without_a_column_is_told():
    with pytest.raises(InputError, match="has no column `n_mc`"):
        records_from(prefix_table([record()]).drop_columns(["n_mc"]))


def test_a_damaged_number_is_told_with_its_file(tmp_path):
    table = prefix_table([record()])
    place = table.column_names.index("trace")
    holed = table.set_column(place, "trace", pyarrow.array([None], pyarrow.int32()))
    pyarrow.parquet.write_table(holed, tmp_path / "labels-0.parquet")
    with pytest.raises(InputError, match=r"labels-0.parquet: the column `trace` .* must be whole numbers, none empty"):
        read_labels(tmp_path)


def test_no_permission_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"could not be written.*what was saved before is intact"):
        write_labels(tmp_path / "file" / "labels.parquet", Labels(records=(), cost=Cost()))


def test_fit_reads_the_table_as_prefixes(tmp_path):
    from reckon.fit._read import read_examples

    labels = Labels(records=(record(), record(prefix=(), tokens=()), record(n_mc=0, n_correct=0)), cost=Cost())
    write_labels(tmp_path / "labels.parquet", labels)
    read = read_examples(tmp_path / "labels.parquet", "prefix")
    assert [(row.text, row.q, row.tokens) for row in read.rows] == [("a\nb", 0.75, (5, 6, 7)), ("", 0.75, ())]
    assert [row.problem for row in read.rows] == [record().problem] * 2
    assert read.unknown == 1


def test_counts_by_step():
    empty, late = record(prefix=(), trace=4), record(prefix=("a",), trace=4, n_correct=1)
    other = record(prefix=(), trace=1, outcome=None)
    values = Labels(records=(empty, late, other), cost=Cost()).values()
    torch.testing.assert_close(values.q, torch.tensor([[0.75, math.nan], [0.75, 0.25]]), equal_nan=True)
    assert values.n.tolist() == [[4, 0], [4, 4]]
    assert values.correct.tolist() == [[3, 0], [3, 1]]
    assert values.outcome.tolist()[1] == 1.0
    assert math.isnan(values.outcome[0])
    assert Labels(records=(), cost=Cost()).values().q.shape == (0, 0)


def test_a_summary_for_people():
    labels = Labels(
        records=(record(), record(n_correct=1), record(n_mc=0, n_correct=0)),
        cost=Cost(rollouts=1234, tokens=5, checks=6),
        left_out=2,
    )
    assert str(labels) == (
        "3 labels for 1,234 rollouts, 5 tokens, 6 checks; mean value 0.500, 50% below one half; 1 unknown; "
        "2 left out by the budget"
    )


# A language model


@pytest.fixture(scope="module")
def model(small_model):
    return load_model(str(small_model), sampling=Sampling(max_new_tokens=12), dtype="float32")


TASK = ChainArithmetic(operations=2, train=8, dev=1, test=1)


def test_a_language_model_labels_its_own_prefixes(model, tmp_path):
    seeds = model.sample(TASK.problems("train")[:3], 2, Rng((0,)))
    drawing = Drawing(most_tokens=12, problems_per_chunk=2, share=True)
    labels = label_prefixes(model, TASK, seeds, DIGIT, 3, Rng((1,)), drawing=drawing, folder=tmp_path)
    for record in labels:
        row = [t for t, on in zip(seeds.seq.tokens[record.trace], seeds.seq.mask[record.trace], strict=True) if on]
        assert list(record.tokens) == [int(t) for t in row[: len(record.tokens)]]
        assert seeds.text[record.trace].startswith(record.text)
        assert model.tokenizer.decode(list(record.tokens)) == record.text
        assert record.generated <= 3 * (12 - len(record.tokens))
    whole = [record for record in labels if record.step == record.steps > 0]
    assert {record.n_drawn for record in whole} == {0}
    assert {r.q_hat for r in whole if int(seeds.end[r.trace]) == End.LENGTH} == {0.0}
    again = label_prefixes(model, TASK, seeds, DIGIT, 3, Rng((1,)), drawing=drawing, folder=tmp_path)
    assert [(r.text, r.n_correct) for r in again] == [(r.text, r.n_correct) for r in labels]
    fresh = label_prefixes(model, TASK, seeds, DIGIT, 3, Rng((1,)), drawing=drawing)
    assert [(r.text, r.n_correct) for r in fresh] == [(r.text, r.n_correct) for r in labels]
    assert fresh.cost == labels.cost == read_labels(tmp_path).cost


def test_pits_of_a_language_model(model):
    """An untrained model is hardly ever right: with `tau_high` 0, what it gets right by chance is promising."""
    seeds = model.sample(TASK.problems("train")[:8], 2, Rng((0,)))
    hunt = FirstPit(n_rough=4, tau_high=0.0)
    labels = label_first_pits(model, TASK, seeds, DIGIT, 2, Rng((1,)), hunt=hunt, budget=Budget(rollouts=2000))
    assert labels.cost.rollouts <= 2000
    for record in labels:
        assert record.outcome == 0
        assert record.step <= record.steps


def test_from_a_task_to_a_folder(model, tmp_path):
    told = []
    labels = make_labels(
        model,
        TASK,
        TASK.problems("train")[:3],
        tmp_path,
        n_cov=1,
        n_mc=2,
        splitter=DIGIT,
        budget=Budget(rollouts=60),
        tell=lambda done, text: told.append(done),
    )
    assert labels.cost.rollouts <= 60
    assert told == [3.0]
    assert read_labels(tmp_path).cost == labels.cost
    whole = read_labels(tmp_path / "labels.parquet")
    assert (whole.cost, whole.left_out, len(whole)) == (labels.cost, labels.left_out, len(labels))
    with pytest.raises(InputError, match="there is no problem"):
        make_labels(model, TASK, [], tmp_path)
    with pytest.raises(InputError, match="3 problems with 2 seeds each are more than the budget of 5 rollouts"):
        make_labels(model, TASK, TASK.problems("train")[:3], tmp_path, n_cov=2, budget=Budget(rollouts=5))
    with pytest.raises(InputError, match="`n_cov` is 0"):
        make_labels(model, TASK, TASK.problems("train")[:3], tmp_path, n_cov=0)
