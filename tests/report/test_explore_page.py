"""The page of an exploration: what it says of a run made up by hand, and that nothing in it can act."""

import base64
import hashlib
import json
import re

import pytest
from test_page import Page

from reckon.errors import RunError
from reckon.report import write_report
from reckon.report._explore_pictures import Box, box, moments
from reckon.runs import Run

NASTY = "</pre><script>alert(1)</script>"
EPISODE = {
    "step": 3,
    "whole": True,
    "context": 1,
    "drawing": ["~~~~", "~.G~", "~~~~"],
    "path": [[1, 1], [2, 1]],
    "bonus": [0.5],
    "rewards": [1.0],
}
ALBUM = {
    "visits": [[[0, 0, 0, 0], [0, 9, 0, 0], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 36, 0], [0, 0, 0, 0]]],
    "episodes": [EPISODE, {**EPISODE, "step": 9, "whole": False, "bonus": [1.0], "rewards": [0.0]}],
}


def make(folder, album=ALBUM, updates=12):
    with Run.create(folder, recipe={"explore": NASTY, "bonus": "e3b", "seed": 4}) as run:
        for step in range(1, updates + 1):
            ended = (
                {"episode/count": 10.0 * step, "episode/success": step / 100} if step > 1 else {"episode/count": 0.0}
            )
            run.log(step, ended | {"frames": 8192.0, "bonus/paid": 0.1, "bonus/global/mean": 0.2, "time/sample": 1.5})
    if album is not None:
        (folder / "explore").mkdir()
        (folder / "explore" / "album.json").write_text(json.dumps(album))
    return folder


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return write_report(make(tmp_path_factory.mktemp("explore") / "run")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.mark.parametrize(("key", "told"), [("msg", True), (None, False)])
def test_what_is_counted_is_told_where_something_is(tmp_path, key, told):
    with Run.create(tmp_path / "run", recipe={"explore": "x", "bonus": "b", "key": key, "contexts": None}) as run:
        run.log(1, {"frames": 1.0, "episode/count": 0.0})
    html = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert ("Counted" in html) == told
    assert "as the environment has it" in html  # of contexts, which are told in any case


def test_elements_are_nested_and_links_lead_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    targets = [value[1:] for _, name, value in page.attributes if name == "href"]
    assert set(targets) <= set(page.ids)
    assert {"result", "curves", "maps", "episodes", "recipe", "map-0", "map-1"} <= set(page.ids)


def test_the_headline_is_of_the_last_ten_updates_weighted_by_episodes(page):
    # Updates 3 to 12: the sum of 10 s * s / 100 over the sum of 10 s, 64.5 / 750.
    assert "8.6% of 750 episodes earned something" in page.text
    assert "98\u202f304" in page.text  # frames: 12 times 8,192


def test_nothing_in_a_run_can_act(html, page):
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(1)") >= 2  # in the byline, the table and the recipe
    policy = next(
        value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "src" in value
    )
    assert "default-src 'none'" in policy
    scripts = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    assert len(scripts) == 2
    for text in [*scripts, page.style]:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not re.search(
        r"\son\w+=|style=", re.sub(r"<style>.*?</style>|<script.*?</script>", "", html, flags=re.DOTALL)
    )


def test_the_curves_have_success_first_and_every_number_of_the_bonus(page):
    data = page.data("curves-data")
    titles = [figure["title"] for figure in data["figures"]]
    assert titles[0] == "Episodes that earned something"
    assert "Bonus global mean" in titles
    assert [axis["name"] for axis in data["axes"]] == ["steps", "frames", "minutes"]
    assert data["axes"][1]["values"][-1] == 98304
    assert data["columns"]["episode/success"][:3] == [None, 0.02, 0.03]


def test_maps_are_in_one_scale_of_the_root(html):
    found = re.findall(r'<rect class="visit" x="(\d)" y="(\d)" width="1" height="1" fill-opacity="([\d.]+)"/>', html)
    assert found == [("1", "1", "0.500"), ("2", "1", "1.000")]
    assert "first fifth: 9 visits" in html


def test_episodes_are_drawn_with_their_bonus(html):
    strips = html.split('<figure class="episode">')[1:]
    assert len(strips) == 2
    assert "cut off" in strips[1]
    assert "cut off" not in strips[0]
    assert 'class="goal" d="M2 1h1v1h-1z"' in strips[0]
    # Half of the largest bonus on the page, then all of it: 0.08 + 0.34 / 2 and 0.08 + 0.34.
    assert re.findall(r'class="paid" cx="2.5" cy="1.5" r="([\d.]+)"', html) == ["0.250", "0.420"]
    assert re.findall(r'class="bar-bonus".*?height="([\d.]+)"', html) == ["5.000", "10.000"]
    assert html.count('class="bar-reward"') == 1


def test_a_map_shows_where_something_is():
    assert box([(5, 2), (7, 3)], 79, 21) == Box(4, 1, 5, 4)  # with a cell more on each side
    assert box([(0, 20), (-1, -1)], 79, 21) == Box(0, 19, 2, 2)  # of the screen; who is nowhere is not drawn
    assert box([(-1, -1)], 79, 21) == Box(0, 0, 79, 21)


def test_moments_are_spread_evenly():
    assert moments(3) == [0, 1, 2, 3]
    assert moments(7) == list(range(8))
    assert moments(14) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert moments(36)[0] == 0
    assert moments(36)[-1] == 36


def test_a_run_that_has_saved_nothing_has_a_page(tmp_path):
    text = write_report(make(tmp_path / "run", album=None, updates=0)).read_text()
    for words in ("No episode has ended yet", "There is no map", "No episode has been kept", "no metrics to draw"):
        assert words in text


def test_an_environment_without_a_drawing_shows_bars_alone(tmp_path):
    episode = {**EPISODE, "drawing": None, "path": None, "context": None}
    text = write_report(make(tmp_path / "run", {"visits": [[], []], "episodes": [episode]})).read_text()
    assert "There is no map" in text
    assert 'class="strip"' not in text
    assert text.count('class="bar-bonus"') == 1


@pytest.mark.parametrize(
    "album",
    [
        {"visits": []},
        {"visits": [], "episodes": [{**EPISODE, "bonus": [1.0, 2.0]}]},
        {"visits": [["x"]], "episodes": []},
    ],
)
def test_a_damaged_album_is_named(album, tmp_path):
    with pytest.raises(RunError, match=r"explore/album.json cannot be read .*Delete it, and write the report again"):
        write_report(make(tmp_path / "run", album))
