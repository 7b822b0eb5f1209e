"""Pilots read from files."""

import pytest

from reckon.errors import InputError, MissingError
from reckon.labels import LabelSource, read_pilot

JUDGE, HUMAN = LabelSource("judge", 0.1), LabelSource("human", 1.0)
CELLS = [(0, 32, 0.6), (100, 0, 0.58), (400, 0, 0.65), (400, 32, 0.7), (1600, 128, 0.8)]


def pilot(folder, rows, head="n_judge,n_human,accuracy"):
    path = folder / "pilot.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


ROWS = [",".join(map(str, cell)) for cell in CELLS]


def test_columns_carry_the_sources_names(tmp_path):
    trials = read_pilot(pilot(tmp_path, [*ROWS, "0,32,0.62"]), JUDGE, HUMAN)
    assert [(one.n_weak, one.n_gold, one.accuracy) for one in trials[:5]] == CELLS
    assert trials[4].cost == pytest.approx(160 + 128)
    assert [one.seed for one in trials] == [0, 0, 0, 0, 0, 1]  # the last is a repetition


def test_seeds_and_other_columns(tmp_path):
    rows = [f"{row},7,0.9,told" for row in ROWS]
    trials = read_pilot(pilot(tmp_path, rows, "n_judge,n_human,accuracy,seed,auroc,note"), JUDGE, HUMAN)
    assert {(one.seed, one.auroc) for one in trials} == {(7, 0.9)}


@pytest.mark.parametrize(
    ("rows", "head", "words"),
    [
        (ROWS, "n_weak,n_human,accuracy", r"pilot\.csv: column `n_judge` is missing\. There are: n_weak, n_human"),
        ([*ROWS, "many,3,0.5"], None, "line 7: `n_judge` is 'many', but must be a number"),
        ([*ROWS, "1.5,3,0.5"], None, "line 7: `n_judge` is '1.5', but must be a whole number"),
        ([*ROWS, "-1,3,0.5"], None, "must be a whole number of 0 or more"),
        ([*ROWS, "1e30,3,0.5"], None, "line 7: `n_judge` is '1e30', but must be a whole number"),
        ([*ROWS, "1,3,nan"], None, "line 7: `accuracy` is 'nan'"),
        ([*ROWS, "1,3"], None, "line 7: `accuracy` is None"),
        ([*ROWS, "1,3,64"], None, r"pilot\.csv: .*accuracy 64"),
        (["100,0,0.6", "200,0,0.6"], None, r"pilot\.csv: the pilot has no trial with gold labels"),
        ([f"{row},3" for row in [*ROWS, ROWS[0]]], "n_judge,n_human,accuracy,seed", r"pilot\.csv: .*are there twice"),
        ([*ROWS, "", "many,3,0.5"], None, "line 8: `n_judge` is 'many'"),  # an empty line counts as one
    ],
)
def test_bad_pilots(tmp_path, rows, head, words):
    path = pilot(tmp_path, rows, head or "n_judge,n_human,accuracy")
    with pytest.raises(InputError, match=words):
        read_pilot(path, JUDGE, HUMAN)


def test_files_that_are_no_pilot(tmp_path):
    with pytest.raises(MissingError, match="there is no file"):
        read_pilot(tmp_path / "none.csv", JUDGE, HUMAN)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_pilot(tmp_path / "bytes.csv", JUDGE, HUMAN)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="There are: none"):
        read_pilot(tmp_path / "empty.csv", JUDGE, HUMAN)
