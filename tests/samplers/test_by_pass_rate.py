"""Problems by the pass rates they had before training: a pass counted by hand, and the way from `reckon eval`."""

import pyarrow
import pyarrow.parquet
import pytest
from sampler_worlds import assert_resumes, ids, seen_of

from reckon.cli import main
from reckon.errors import InputError, MissingError, RunError
from reckon.methods import oreal
from reckon.recipe import Recipe
from reckon.samplers import ByPassRate, Uniform
from reckon.types import Problem, Rng

RNG = Rng((0, "test"))
NAN = float("nan")


class Rated:
    """A problem for each pass rate given, in a column; called a, b, c and so on."""

    name = "rated"

    def __init__(self, *rates, column="pass_rate"):
        self.rates, self.column = rates, column

    def problems(self, split):
        return [
            Problem(id=name, prompt=f"{name}?", columns={self.column: rate})
            for name, rate in zip("abcdefghi", self.rates, strict=False)
        ]


EDGES = Rated(0.0, 0.19, 0.2, 0.4, 0.5, 0.6, 0.79, 0.8, 1.0)


def times(sampler, n):
    """How often each problem is among the next n."""
    drawn = ids(sampler.draw(n, RNG))
    return {name: drawn.count(name) for name in sorted(set(drawn))}


def test_a_pass_of_the_released_prompts():
    """Below .2 six times, to .4 and .6 four times, to .8 twice, and never from there: 2 x 6 + 3 x 4 + 2 x 2 = 28."""
    sampler = ByPassRate(EDGES)
    assert times(sampler, 28) == {"a": 6, "b": 6, "c": 4, "d": 4, "e": 4, "f": 2, "g": 2}
    assert sampler.learn(seen_of([], [])) == {"sampler/passes": 1.0, "sampler/kept": 7 / 9}


def test_passes_come_in_orders_of_chance_that_the_seed_decides():
    first, second = (ids(ByPassRate(EDGES).draw(56, Rng((seed,)))) for seed in (0, 1))
    assert first[:28] != first[28:]
    assert first != second
    assert first == ids(ByPassRate(EDGES).draw(56, Rng((0,))))
    assert first[:6] != ["a"] * 6


def test_a_band_is_kept_and_the_rest_dropped():
    band = ByPassRate(EDGES, edges=[0.2, 0.8], repeats=[0, 1, 0])
    assert times(band, 5) == dict.fromkeys("cdefg", 1)


def test_without_edges_it_is_uniform():
    assert times(ByPassRate(EDGES, edges=[], repeats=[1]), 9) == dict.fromkeys("abcdefghi", 1)


def test_it_resumes_exactly():
    assert_resumes(lambda: ByPassRate(EDGES), lambda problem, step: float(step % 2))


def test_other_rates_cannot_be_resumed():
    """As many places in a pass, and in other buckets."""
    state = ByPassRate(Rated(0.3, 0.7, 0.5)).state_dict()
    with pytest.raises(RunError, match="had 0, 1, 1, 1, 0 problems when the run was saved and have 0, 0, 2, 1, 0 now"):
        ByPassRate(Rated(0.5, 0.7, 0.5)).load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edges": [0.5, 0.5], "repeats": [1, 1, 1]}, r"`edges` are \[0.5, 0.5\]; they must rise"),
        ({"edges": [0.0], "repeats": [1, 1]}, "each above 0 and at most 1"),
        ({"edges": [NAN], "repeats": [1, 1]}, "each above 0 and at most 1"),
        ({"edges": [0.5], "repeats": [1]}, "1 edges make 2 buckets"),
        ({"edges": [0.5], "repeats": [1, -1]}, "each needs a number of 0 or more"),
        ({"edges": [0.5], "repeats": [0, 0]}, r"no problem is left. The buckets have 4, 5 problems, and .* \[0, 0\]"),
        ({"column": "rate"}, r"problem 'a' has no number from 0 to 1 in the column 'rate' \(columns: pass_rate\)"),
        ({"column": "rate", "rates": "x.parquet"}, "`rates` and `column` both say where the rates are"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(InputError, match=f"by_pass_rate: .*{message}"):
        ByPassRate(EDGES, **settings)


@pytest.mark.parametrize("rate", [None, True, "0.5", 1.5, NAN])
def test_a_rate_is_a_number_from_0_to_1(rate):
    with pytest.raises(InputError, match="problem 'b' has no number from 0 to 1"):
        ByPassRate(Rated(0.5, rate))


# --- rates of a table


def write(path, *rows):
    """A table of answers of which only the columns that are read are there."""
    names = ("problem", "prompt", "outcome", "greedy")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def answers(name, *outcomes, greedy=False):
    return [(name, f"{name}?", outcome, greedy) for outcome in outcomes]


def test_rates_of_a_table_are_shares_of_right_samples(tmp_path):
    """a: 1 of 4 is .25, four times; b: 1 of 2 known is .5, four times; c: 0 of 2, a half being wrong, six times."""
    rows = [*answers("a", 1.0, 0.0, 0.0, 0.0), *answers("b", 1.0, None, 0.0), *answers("c", 0.5, 0.0)]
    rows += [*answers("a", 1.0, greedy=True), *answers("elsewhere", 1.0)]
    write(tmp_path / "rates.parquet", *rows)
    assert times(ByPassRate(Rated(None, None, None), rates=tmp_path / "rates.parquet"), 14) == {"a": 4, "b": 4, "c": 6}


def test_likeliest_answers_are_taken_where_there_are_no_samples(tmp_path):
    write(tmp_path / "rates.parquet", *answers("a", 1.0, greedy=True), *answers("b", 0.0, greedy=True))
    assert times(ByPassRate(Rated(None, None), rates=str(tmp_path / "rates.parquet")), 6) == {"b": 6}


def test_a_table_that_does_not_fit_is_refused(tmp_path):
    path, task = tmp_path / "rates.parquet", Rated(None, None)
    with pytest.raises(MissingError, match=r"there is no table .*\. Make it: reckon eval MODEL --split train"):
        ByPassRate(task, rates=path)
    path.write_text("no table")
    with pytest.raises(InputError, match="cannot be read as a table of answers"):
        ByPassRate(task, rates=path)
    pyarrow.parquet.write_table(pyarrow.table({"problem": ["a"], "prompt": ["a?"], "outcome": [1.0]}), path)
    with pytest.raises(InputError, match=r"by_pass_rate: .*greedy"):
        ByPassRate(task, rates=path)
    write(path, *answers("a", 1.0), *answers("b", None))
    with pytest.raises(InputError, match="has no verdict on the problem 'b', so its pass rate is unknown"):
        ByPassRate(task, rates=path)
    write(path, *answers("a", 1.0), ("b", "something else", 1.0, False))
    with pytest.raises(InputError, match="asks another question under the id 'b': 'something else'"):
        ByPassRate(task, rates=path)


RECIPE = """
model: ./nothing
task: {kind: chain_arithmetic, operations: 1, train: 12, dev: 3, test: 3}
sampler: {kind: by_pass_rate, rates: rates.parquet, edges: [0.3, 0.6], repeats: [3, 2, 1]}
"""


def test_from_reckon_eval_to_a_recipes_sampler(tmp_path, small_model, monkeypatch):
    """The table that `--out` writes of the train split, read again by the recipe that lies beside it."""
    task = ["--task", "chain_arithmetic", "operations=1", "train=12", "dev=3", "test=3", "sampling.max_new_tokens=3"]
    out = tmp_path / "rates.parquet"
    tries = ["--split", "train", "--sample", "--k", "3", "--out", str(out), "--json"]
    assert main(["eval", str(small_model), *task, *tries]) == 0
    (tmp_path / "own.yaml").write_text(RECIPE)
    monkeypatch.chdir("/")  # the table is found beside the recipe
    recipe = Recipe.load(tmp_path / "own.yaml")
    sampler = recipe.build(object()).sampler
    right = {}
    for row in pyarrow.parquet.read_table(out, columns=["problem", "outcome"]).to_pylist():
        right.setdefault(row["problem"], []).append(row["outcome"])
    assert len(right) == 12
    assert all(len(outcomes) == 3 for outcomes in right.values())
    wanted = {name: {0: 3, 1: 2, 2: 1, 3: 1}[sum(outcomes)] for name, outcomes in right.items()}
    assert times(sampler, sum(wanted.values())) == wanted
    (tmp_path / "oreal.yaml").write_text(
        RECIPE.split("sampler:", maxsplit=1)[0] + "method: {kind: oreal, kl: 0, rates: rates.parquet}\n"
    )
    named = Recipe.load(tmp_path / "oreal.yaml").sampler
    assert (named.kind, named.settings["rates"]) == ("by_pass_rate", str(out))


def test_oreal_takes_a_table_and_does_without(tmp_path):
    write(tmp_path / "rates.parquet", *answers("a", 1.0, 0.0), *answers("b", 0.0))
    task = Rated(None, None)
    assert isinstance(oreal(task, kl=0.0, policy=object()).sampler, Uniform)
    sampler = oreal(task, kl=0.0, policy=object(), rates=tmp_path / "rates.parquet").sampler
    assert times(sampler, 10) == {"a": 4, "b": 6}
