"""The page as a file: whole, closed to the outside, and true to the run."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest

from conftest import NASTY, make_nasty
from reckon.report import write_report
from reckon.runs import Run

VOID = {"meta", "input", "link", "br", "hr", "img"}


class Page(HTMLParser):
    """A page's elements; complains where they are not nested properly."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.style = ""
        self.text = ""
        self.ids: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        elif self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data

    def data(self, name):
        return next(json.loads(text) for attributes, text in self.scripts if attributes.get("id") == name)


@pytest.fixture(scope="module")
def html(small, tmp_path_factory):
    return write_report(small, tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_elements_are_nested_and_ids_are_unique(page):
    assert len(page.ids) == len(set(page.ids)) > 20
    targets = [value[1:] for _, name, value in page.attributes if name == "href"]
    assert targets
    assert set(targets) <= set(page.ids)


def test_nothing_is_loaded_from_anywhere(html, page):
    loading = {"src", "href", "srcset", "action", "formaction", "poster", "data", "background", "xlink:href"}
    assert [(tag, value) for tag, name, value in page.attributes if name in loading and not value.startswith("#")] == []
    assert not re.search(r"url\(|@import", page.style)
    scripts = "".join(text for attributes, text in page.scripts if attributes.get("type") != "application/json")
    assert set(re.findall(r"https?://[^\"']+", scripts)) == {"http://www.w3.org/2000/svg"}  # a name, not a place
    assert not re.search(
        r"\b(fetch|XMLHttpRequest|WebSocket|import\s*\(|eval|innerHTML|outerHTML|insertAdjacentHTML|document\.write)\b",
        scripts,
    )


def test_only_the_pages_own_scripts_may_run(html, page):
    (policy,) = (
        value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "default-src" in value
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    run = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    assert len(run) == 2
    for text in [*run, page.style]:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_sections_stand_in_their_order(html):
    places = [html.index(f'<section id="{name}">') for name in ("result", "budget", "curves", "streams", "rollouts")]
    assert places == sorted(places)


def test_the_headline_says_what_the_tables_say(page):
    words = " ".join(page.text.split())
    assert "Training raised the share of right answers on 128 held-out problems from 34.4% to 87.5%." in words
    # 68 / 128 = 53.1 points; exact McNemar of 70 against 2 is 2 (1 + 72 + 2556) / 2^72 = 1.1e-18
    assert "That is +53.1 percentage points" in words
    assert "70 became right and 2 became wrong" in words
    assert "p = 1.1 × 10−18" in words
    assert "26.7% to 43.0%" in words


def test_the_constant_answer_stands_beside_it(small, page):
    answers = pq.read_table(small / "evals" / "test-step-000040.parquet")["answer"].to_pylist()
    best = max(set(answers), key=answers.count)
    assert f"{100 * answers.count(best) / 128:.1f}%" in page.text
    assert f"always “{best}”" in page.text


def test_the_rollouts_are_all_there(small, page):
    data = page.data("rollouts-data")
    tables = [pq.read_table(path) for path in sorted((small / "rollouts").glob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    training = [row for row in data["rows"] if row[0] == 0]
    assert [row[9] for row in training] == [row["text"] for row in rows]
    assert [row[4] for row in training] == [row["outcome"] for row in rows]
    assert "In this page: 200 of 200 from training, 128 of 128 from test, first evaluation" in page.text


def test_recipe_environment_and_command_are_told(page):
    assert "kind: grpo" in page.text
    assert "reckon train recipe.yaml --out again" in page.text
    assert "numpy" in page.text
    for name, use in (("correct", "trained on"), ("judge", "watched")):
        assert re.search(rf"{name}\s*(response|each token)\s*{use}", page.text)


@pytest.mark.parametrize(
    ("evals", "sentence"),
    [
        (0, "This run has no evaluation on held-out problems"),
        (1, "There is only one evaluation: at step 0, 34.4% of the answers to 128 held-out problems were right."),
    ],
)
def test_a_run_without_two_evaluations_says_so(make_run, tmp_path, evals, sentence):
    folder = make_run(tmp_path / "run", steps=2, per_step=4, evals=evals)
    words = " ".join(Page(write_report(folder).read_text(encoding="utf-8")).text.split())
    assert sentence in words
    assert "McNemar" not in words


@pytest.mark.parametrize(
    ("right_after", "sentence"),
    [
        (range(44), "Training made no difference that 128 held-out problems could show"),
        (range(10), "Training lowered the share of right answers on 128 held-out problems from 34.4% to 7.8%."),
        (range(1), "This is no better than always answering"),
    ],
)
def test_the_sentence_follows_the_test(make_run, tmp_path, right_after, sentence):
    folder = make_run(tmp_path / "run", steps=2, per_step=4, right_after=right_after)
    assert sentence in " ".join(Page(write_report(folder).read_text(encoding="utf-8")).text.split())


def test_a_run_that_has_only_begun(tmp_path):
    with Run.create(tmp_path / "run", recipe={"model": "m"}):
        pass
    page = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    assert "The run has logged no rollouts." in page.text
    assert "The run logged no metrics to draw." in page.text


def test_nothing_a_model_writes_becomes_markup(tmp_path):
    path = write_report(make_nasty(tmp_path / "run"))
    page = Page(path.read_text(encoding="utf-8"))
    assert [attributes.get("type") for attributes, _ in page.scripts] == [
        *(None, "application/json", "application/json", "module")
    ]
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    shown = [row[9] for row in page.data("rollouts-data")["rows"]]
    assert shown == [text.encode("utf-8", "replace").decode() for text in NASTY]  # the table's writer did that much
    assert "\u202e" not in page.text


def test_a_sample_says_how_many_of_how_many(small, tmp_path):
    page = Page(write_report(small, tmp_path / "r.html", budget_bytes=50_000).read_text(encoding="utf-8"))
    shown = len(page.data("rollouts-data")["rows"])
    assert 0 < shown < 456
    found = re.findall(r"(\d+) of (\d+) from", page.text)
    assert sum(int(n) for n, _ in found) == shown
    assert [int(total) for _, total in found] == [200, 128, 128]
    assert "drawn at random with a fixed seed" in page.text


def test_the_same_run_gives_the_same_page(small, tmp_path):
    assert (
        write_report(small, tmp_path / "a.html").read_bytes() == write_report(small, tmp_path / "b.html").read_bytes()
    )


def test_the_report_goes_into_the_run_unless_told_otherwise(make_run, tmp_path):
    folder = make_run(tmp_path / "run", steps=1, per_step=4, evals=0)
    assert write_report(str(folder)) == folder / "report.html"
    assert write_report(folder, tmp_path / "new" / "x.html").is_file()
    assert not [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]


def test_ten_thousand_rollouts_take_less_than_twenty_seconds(big):
    start = time.perf_counter()
    path = write_report(big)
    assert time.perf_counter() - start < 20
    assert len(Page(path.read_text(encoding="utf-8")).data("rollouts-data")["rows"]) == 10_256
    assert path.stat().st_size < 15_000_000


def test_a_report_needs_no_torch():
    subprocess.run([sys.executable, "-c", "import sys, reckon.report; assert 'torch' not in sys.modules"], check=True)
