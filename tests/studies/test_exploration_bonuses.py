"""The studies exploration-bonuses: what their cells do, by hand and by the pilot's numbers, and that rules can fail."""

import json
import math

import pytest

from reckon.explore import BONUSES as NAMED
from reckon.explore import lava_trail, shared_structure
from reckon.studies import exploration_bonuses as counts
from reckon.studies import exploration_bonuses_learned as learned
from reckon.studies import judge, run_study
from reckon.studies._exploration import COUNTED, _share, arm, cell, variance

TINY = {"frames": 3_000, "environments": 16, "steps": 16, "contexts": 3}
BOTH = [counts, learned]


def explored(module):
    return {name: settings for name, settings in module.ARMS.items() if settings["world"] != "values"}


def test_settings_are_the_specifications():
    assert len(explored(counts)) == 5 * 3 + 4
    assert len(explored(learned)) == 3 * 4
    trail = arm("LavaTrail", "rnd", "x")
    assert (trail["entropy"], trail["environments"], trail["steps"], trail["frames"]) == (0.04, 128, 64, 700_000)
    star = arm("Star", "rnd", "x")
    assert (star["entropy"], star["environments"], star["steps"], star["frames"]) == (0.003, 64, 32, 200_000)
    assert {(s["entropy"], s["frames"], s["size"]) for s in learned.ARMS.values()} == {
        (0.08, 600_000, 32),
        (0.003, 200_000, 16),
    }
    assert {s["key"] for name, s in explored(counts).items() if "messages" in name} == {"msg"}
    for module in BOTH:
        assert {s["bonus"] for s in explored(module).values()} <= {*NAMED, "none"}
        assert len(module.STUDY.seeds) == 8


def test_a_share_of_updates():
    won, ended = [1.0, 2.0, 0.0, 3.0], [2.0, 4.0, 0.0, 4.0]
    assert _share(won, ended, 0, 4) == 0.6
    assert _share(won, ended, 1, 3) == 0.5
    assert _share(won, ended, -7, 2) == 0.5  # fewer updates than were asked for
    assert math.isnan(_share(won, ended, 2, 3))


def test_a_cell_depends_on_settings_and_seed_alone():
    settings = {**counts.ARMS["product, 3 maps"], **TINY}
    one, again, other = cell(settings, 0), cell(settings, 0), cell(settings, 1)
    assert one == again
    assert one.metrics["length"] != other.metrics["length"]
    assert one.curves["frames"] == [256.0 * stop for stop in range(1, 13)]
    (panel,) = set(one.curves) - {"frames"}
    assert panel == "3 maps: success"
    assert one.metrics["solved"] == float(one.metrics["success"] > 0.5)
    assert 1 <= one.metrics["length"] <= 36


def test_values_are_those_of_worlds_of_that_size():
    found = cell({"world": "values", "contexts": 10}, 2).metrics
    assert set(found) == {variance(key, count) for key in ("pos", "msg") for count in COUNTED}
    for key, count in (("pos", 3), ("pos", 10), ("msg", 3)):
        table = lava_trail(count, maps_seed=2).table(0.99)
        expected = shared_structure(table.values, table.keys[key], table.contexts).mean
        assert found[variance(key, count)] == pytest.approx(expected, abs=1e-12)
    assert found[variance("pos", 1)] == 0


def pilot(module):
    """What seeds of the pilot found, as the rules read it; the star's solved seeds come first."""
    seeds = []
    for seed in range(8):
        found = {}
        for name in explored(module):
            bonus, where = name.split(", ", 1)
            told = module.PILOT[bonus][where] if module is counts else module.PILOT[where][bonus]
            if " of " in told:
                solved = float(seed < int(told.split(" of ")[0]))
                found[name] = {"success": solved, "solved": solved}
            else:
                found[name] = {"success": float(told.split()[seed % 3])}
        if module is counts:
            found[counts.VALUES] = {
                variance(key, count): float(counts.PILOT_VARIANCE[count]) if key == "pos" else 0.0
                for key in ("pos", "msg")
                for count in COUNTED
            }
        seeds.append(found)
    return seeds


def test_the_pilots_numbers_meet_the_rules():
    told = {claim.says: judge(claim, pilot(counts), 8).verdict for claim in counts.CLAIMS}
    assert set(told.values()) == {"seen", "not testable here"}
    assert list(told.values()).count("not testable here") == 1
    told = {claim.says: judge(claim, pilot(learned), 8).verdict for claim in learned.CLAIMS}
    assert list(told.values()).count("not testable here") == 1
    assert told["The product is ahead of the sum"] == "seen"


@pytest.mark.parametrize("module", BOTH)
def test_rules_fail_where_nothing_differs(module):
    """Every arm at 0.5: not one claim on agents is seen, but for those that a bonus is not behind another."""
    seeds = []
    for _ in range(8):
        found = {name: {"success": 0.5, "solved": 0.5} for name in explored(module)}
        if module is counts:
            found[counts.VALUES] = {variance(key, count): 0.05 for key in ("pos", "msg") for count in COUNTED}
        seeds.append(found)
    told = {claim.says: judge(claim, seeds, 8).verdict for claim in module.CLAIMS}
    seen = {says for says, verdict in told.items() if verdict == "seen"}
    assert all("behind" in says or says == "Nor on the star" for says in seen)


@pytest.mark.slow
@pytest.mark.parametrize("module", BOTH)
def test_a_fast_run_writes_everything(module, tmp_path):
    results = run_study(module.STUDY, tmp_path, fast=True)
    assert results["not run"] == []
    assert len(results["pools"]) == len(module.POOLS)
    assert all(pool["runs"] == 2 * len(pool["arms"]) for pool in results["pools"])
    page = (tmp_path / "README.md").read_text()
    assert "## Interquartile means" in page
    assert json.loads((tmp_path / "results.json").read_text())["pools"] == results["pools"]
