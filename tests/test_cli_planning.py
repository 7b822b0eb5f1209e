"""`reckon plan-labels`: from a pilot's table to words, numbers and a page."""

import json

import pytest

from reckon.cli import main
from reckon.labels import Production, pilot_grid

LAW = Production(rate=0.8, saturation=500.0, ceiling=0.9, half=150.0, steepness=1.1)
GIVEN = ["--prices", "weak=0.1,gold=1", "--budget", "256", "--draws", "20"]


@pytest.fixture
def pilot(tmp_path):
    path = tmp_path / "pilot.csv"
    rows = [
        f"{weak},{gold},{seed},{float(LAW.accuracy(weak, gold)) + (0.003 if (weak + gold + seed) % 3 else -0.003):.4f}"
        for seed in (0, 1)
        for weak, gold in pilot_grid()
    ]
    path.write_text("\n".join(["n_weak,n_gold,seed,accuracy", *rows]) + "\n")
    return path


def test_words_numbers_and_a_page(pilot, capsys):
    assert main(["plan-labels", "--pilot", str(pilot), *GIVEN]) == 0
    told = capsys.readouterr().out
    assert told.startswith("For 256, buy ")
    for part in ("Mixed: ", "Expected accuracy ", "Runner-up: ", "One more unit of money buys ", "all gold"):
        assert part in told
    page = pilot.with_suffix(".html")
    assert f"Page: {page}" in told
    assert page.read_text().count("<svg") >= 2


def test_json(pilot, capsys, tmp_path):
    page = tmp_path / "plan.html"
    assert main(["plan-labels", "--pilot", str(pilot), *GIVEN, "--out", str(page), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(page)
    assert page.is_file()
    assert (told["regime"], told["clear"]) == ("mixed", True)
    assert told["cost"] == pytest.approx(0.1 * told["n_weak"] + told["n_gold"])
    assert told["predicted"]["low"] < told["predicted"]["value"] < told["predicted"]["high"]
    assert told["weak"]["price"] == 0.1


def test_gold_is_gold_in_either_order(pilot, capsys):
    found = []
    for prices in ("weak=0.1,gold=1", "gold=1,weak=0.1"):
        arguments = ["--prices", prices, "--budget", "256", "--draws", "0", "--json"]
        assert main(["plan-labels", "--pilot", str(pilot), *arguments]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]


def test_pools_and_fixed_costs(pilot, capsys):
    more = ["--pools", "weak=300", "--fixed", "weak=20", "--json"]
    assert main(["plan-labels", "--pilot", str(pilot), *GIVEN, *more]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n_weak"] <= 300
    assert told["cost"] == pytest.approx(20 + 0.1 * told["n_weak"] + told["n_gold"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--prices", "weak=0,gold=1"], "the price of 'weak' is 0, but must be above 0"),
        (["--prices", "weak=0.1"], "must give two, the weak source's first"),
        (["--prices", "weak=cheap,gold=1"], "'weak=cheap' is not NAME=NUMBER"),
        (["--prices", "weak=0.1,weak=1"], "the name comes twice"),
        (["--prices", "judge=0.1,gold=1"], "column `n_judge` is missing"),
        (["--budget", "0"], "the budget is 0, but must be a sum of money above 0"),
        (["--budget", "1000000"], "enlarge the pilot, or allow extrapolation"),
        (["--spent", "256"], "nothing to plan"),
        (["--pools", "silver=3"], "--pools names 'silver', but the sources of --prices are weak, gold"),
        (["--pools", "weak=0.5"], "must be a whole number of labels"),
        (["--law", "line"], "--law is 'line', but must be hill or power"),
        (["--pilot", "nowhere.csv"], "there is no file nowhere.csv"),
    ],
)
def test_mistakes(pilot, capsys, change, words):
    assert main(["plan-labels", "--pilot", str(pilot), *GIVEN, *change]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert "Traceback" not in err


def test_what_is_missing_is_said_and_the_pilot_is_never_overwritten(pilot, capsys):
    assert main(["plan-labels"]) == 2
    assert "plan-labels needs --pilot, --prices and --budget" in capsys.readouterr().err
    before = pilot.read_text()
    assert main(["plan-labels", "--pilot", str(pilot), *GIVEN, "--out", str(pilot)]) == 2
    assert pilot.read_text() == before
