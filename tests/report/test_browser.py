"""The page in a real browser: filters are clicked, tokens pointed at, and what is shown is compared with the tables."""

import json
import re
import time

import pyarrow.parquet as pq
import pytest
import webdriver

from conftest import NASTY, make_nasty, rollout_columns, write_rollouts
from reckon.report import write_report
from reckon.runs import Run

pytestmark = pytest.mark.skipif(webdriver.find() is None, reason="no Chromium with its chromedriver on this machine")
TAB, RIGHT, LEFT, END, ESCAPE, RETURN = "\ue004", "\ue014", "\ue012", "\ue010", "\ue00c", "\ue007"


@pytest.fixture(scope="module")
def browser():
    with webdriver.Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def path(small, tmp_path_factory):
    return write_report(small, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def page(browser, path):
    browser.open(path)
    return browser


@pytest.fixture(scope="module")
def rows(small):
    """All training rollouts, then the held-out answers, as the page has them."""
    files = [*sorted((small / "rollouts").glob("*.parquet")), *sorted((small / "evals").glob("*.parquet"))]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def articles(page):
    return page.run("return [...document.querySelectorAll('article')].map((a) => a.className)")


def matches(page):
    told = page.text("#matches").replace("\u202f", "")
    return 0 if told.startswith("None") else int(told.split(" of ")[1].split()[0])


def verdict(kind):
    return f"#verdicts label:has([value={kind}])"


def choose(page, name, value):
    page.click(f"#{name} option[value='{value}']")


def test_a_click_on_wrong_shows_the_wrong_ones(page, rows):
    expected = sum(row["outcome"] == 0 for row in rows)
    page.click(verdict("wrong"))
    assert set(articles(page)) == {"wrong"}
    assert matches(page) == expected
    assert page.text(verdict("wrong")) == f"wrong {expected}"
    page.click(verdict("unknown"))
    assert matches(page) == sum(row["outcome"] is None for row in rows) > 0
    assert set(articles(page)) == {"unknown"}


def test_filters_add_up(page, rows):
    choose(page, "source", 0)
    choose(page, "step", 7)
    choose(page, "domain", "three digits")
    page.click(verdict("right"))
    mine = [row for row in rows if row["step"] == 7 and row.get("train") is not None]
    mine = [row for row in mine if row["domain"] == "three digits"]
    expected = [row for row in mine if row["outcome"] == 1]
    assert page.text(verdict("all")) == f"all {len(mine)}"
    assert page.text(verdict("right")) == f"right {len(expected)}"
    assert len(articles(page)) == len(expected)


def test_a_search_finds_what_the_texts_hold(page, rows):
    page.type("#search", "IS 97")  # the case does not matter
    expected = [row for row in rows if "is 97" in row["text"].lower() + row["prompt"].lower()]
    assert matches(page) == len(expected) > 0
    page.type("#search", " nothing holds this")
    assert page.text("#matches") == f"None of {len(rows)} rollouts match."
    assert articles(page) == []


def test_pages_are_turned(page, rows):
    assert page.text("#pages") == f"of {-(-len(rows) // 10)}"
    first = page.text("#responses")
    page.click("#next")
    assert page.text("#matches") == f"11 to 20 of {len(rows)} that match"
    assert page.text("#responses") != first
    page.click("#previous")
    assert page.text("#responses") == first
    page.run(
        "const field = document.getElementById('page'); field.value = 1e6; field.dispatchEvent(new Event('change'))"
    )
    assert len(articles(page)) == len(rows) % 10


def test_a_response_is_told_whole(page, rows):
    row = rows[0]
    told = page.text("article")
    for fact in (row["prompt"], row["problem"], row["domain"], row["end"], f"reference {row['answer']}"):
        assert fact in told
    shown = page.run("return [...document.querySelectorAll('.tokens')][0].textContent")
    assert shown == row["text"].replace("\n", "↵\n") + "▫"  # the last token has no text, and is there all the same


def test_the_mouse_reads_a_token(page, rows):
    page.hover("article .tokens span:nth-child(3)")
    read = page.text("#readout")
    row = rows[0]
    assert f"“{row['pieces'][2]}”" in read
    assert f"token\n3 of {len(row['pieces'])}" in read
    judged, logprob = row["stream/judge/tokens"][2], row["logprobs"][2]
    for name, value in (("credit", row["advantages"][2]), ("log-probability", logprob), ("judge", judged)):
        assert f"{name}\n{value:.4g}".replace("-", "−").replace("log−", "log-") in read


def test_the_keyboard_reads_every_token(page, rows):
    page.run("document.querySelector('.tokens span').focus()")
    page.press(RIGHT, RIGHT)
    assert "token\n3 of" in page.text("#readout")
    page.press(LEFT)
    assert "token\n2 of" in page.text("#readout")
    page.press(END)
    assert "no text" in page.text("#readout")
    page.press(ESCAPE)
    assert page.run("return document.getElementById('readout').hidden")
    stops = page.run(
        "return [...document.querySelector('.tokens').children].filter((span) => span.tabIndex === 0).length"
    )
    assert stops == 1  # a response is one stop of the Tab key, however long


def test_shading_follows_credit_on_the_pages_own_scale(page, rows):
    shown = page.run(
        "return [...document.querySelectorAll('.tokens')].map((p) => [...p.querySelectorAll('span')].map("
        "(s) => [s.className, Number(s.style.getPropertyValue('--strength'))]))"
    )
    largest = max(abs(value) for row in rows[:10] for value in row["advantages"])
    for row, spans in zip(rows[:10], shown, strict=True):
        for value, (kind, strength) in zip(row["advantages"], spans, strict=True):
            assert kind == ("up" if value > 0 else "down" if value < 0 else "")
            assert strength == pytest.approx(abs(value) / largest, abs=1e-3)
    assert page.text("#scale-high").startswith(f"+{largest:.3g}")
    assert page.text("#scale-low") == f"−{largest:.3g}"
    page.click("#shade option[value='0']")
    assert page.text("#scale-high").endswith("judge")


def test_a_group_is_shown_by_itself_and_left_again(page, rows):
    page.click("article .facts button")
    first = rows[0]
    siblings = [
        row for row in rows if (row["step"], row["group"]) == (1, first["group"]) and row.get("train") is not None
    ]
    assert matches(page) == len(siblings)
    page.click("#all-groups")
    assert matches(page) == len(rows)


def test_curves_are_drawn_and_read(page):
    figures = page.run("return document.querySelectorAll('.chart').length")
    assert figures == page.run("return document.querySelectorAll('.chart .smooth[d^=M]').length") - 3  # two lines more
    page.hover(".chart > svg")  # the middle of 0 to 40
    title = page.run("return document.querySelector('.chart > svg').getAttribute('aria-valuetext')")
    assert re.match("step (19|20|21): training ", title)
    page.click("#axes label:has([value=minutes])")
    assert page.run("return document.querySelector('.chart > svg > text:last-of-type').textContent") == "minutes"
    page.run("document.querySelector('.chart > svg').focus()")
    page.press(LEFT)
    data = json.loads(page.run("return document.getElementById('curves-data').textContent"))
    title = page.run("return document.querySelector('.chart > svg').getAttribute('aria-valuetext')")
    assert title.startswith("step 39: training ")
    page.run("const s = document.getElementById('smoothing'); s.value = 0; s.dispatchEvent(new Event('input'))")
    title = page.run("return document.querySelector('.chart > svg').getAttribute('aria-valuetext')")
    assert f"training {100 * data['columns']['outcome/mean'][39]:.1f}%" in title


def test_smoothing_averages_neighbours(page):
    data = json.loads(page.run("return document.getElementById('curves-data').textContent"))
    page.run("const s = document.getElementById('smoothing'); s.value = 2; s.dispatchEvent(new Event('input'))")
    assert page.text("#window") == "mean of 5 steps"
    page.run("document.querySelector('.chart > svg').focus()")
    page.press(LEFT, LEFT)  # step 38, with two neighbours on either side
    title = page.run("return document.querySelector('.chart > svg').getAttribute('aria-valuetext')")
    mean = sum(data["columns"]["outcome/mean"][36:41]) / 5
    assert title.startswith(f"step 38: training {100 * mean:.1f}%")


def test_the_theme_is_switched(page):
    background = "return getComputedStyle(document.body).backgroundColor"
    before = page.run(background)
    page.click("#theme")
    assert page.run(background) != before
    page.click("#theme")
    assert page.run(background) == before


def test_nothing_moves_and_nothing_is_said_and_nothing_is_asked_for(path):
    with webdriver.Browser() as browser:
        browser.open(path)
        time.sleep(0.3)
        moved = browser.run(
            "return new Promise((done) => {"
            "  const tell = (list) => done(list.getEntries().map((entry) => entry.value));"
            "  new PerformanceObserver(tell).observe({type: 'layout-shift', buffered: true});"
            "  setTimeout(() => done([]), 300); })"
        )
        assert sum(moved) < 0.01
        assert browser.log() == []
        sent = [json.loads(line)["message"] for line in browser.log("performance")]
        asked = [message["params"] for message in sent if message["method"] == "Network.requestWillBeSent"]
        here = path.resolve().as_uri()  # the browser's own empty page asks for things too
        assert [request["request"]["url"] for request in asked if request["documentURL"] == here] == [here]


def test_a_phone_shows_it_without_scrolling_sideways(path):
    with webdriver.Browser(360, 740, mobile=True) as phone:
        phone.open(path)
        assert phone.run("return document.documentElement.scrollWidth <= innerWidth")


def test_text_that_tries_to_break_out_is_only_shown(browser, tmp_path):
    browser.open(write_report(make_nasty(tmp_path / "run")))
    assert browser.run("return window.pwned") is None
    assert browser.log() == []
    shown = browser.run("return [...document.querySelectorAll('.tokens')].map((p) => p.textContent)")
    assert shown[0] == NASTY[0]
    assert shown[1] == NASTY[1]
    assert shown[5] == "␛[31mred␛[0m bell␇ nul␀ back␈"
    assert shown[6] == "safe⟨U+202E⟩gnp.exe⟨U+202C⟩ and ⟨U+2066⟩isolate⟨U+2069⟩"
    assert shown[8] == NASTY[8]
    assert browser.run("return document.querySelectorAll('img, iframe, b, i:not(.scale i)').length") == len(
        browser.run("return [...document.querySelectorAll('article b')].map(() => 1)")
    )


def test_a_long_response_is_shown_in_part_until_asked_for(browser, tmp_path):
    with Run.create(tmp_path / "run", recipe={}):
        pass
    long = {"pieces": [["ab"] * 4000], "tokens": [[1] * 4000], "logprobs": [[-1.0] * 4000], "text": ["ab" * 4000]}
    columns = rollout_columns(1) | long | {"advantages": [[0.5] * 3999 + [-1.0]]}
    write_rollouts(tmp_path / "run" / "rollouts" / "step-000001.parquet", columns)
    browser.open(write_report(tmp_path / "run"))
    tokens = "return document.querySelectorAll('.tokens > span').length"
    assert browser.run(tokens) == 1500
    assert browser.text(".tokens button") == "Show the other 2\u202f500 tokens"
    browser.click(".tokens button")
    assert browser.run(tokens) == 4000
    assert browser.run("return document.querySelector('.tokens > span:last-of-type').className") == "down"


def test_ten_thousand_rollouts_are_filtered_within_a_second(browser, big, tmp_path):
    browser.open(write_report(big, tmp_path / "big.html"))
    seconds = browser.run(
        "const start = performance.now();"
        "document.querySelector('#verdicts [value=wrong]').click();"
        "const field = document.getElementById('search');"
        "field.value = 'is 1'; field.dispatchEvent(new Event('input'));"
        "document.body.getBoundingClientRect();"
        "return (performance.now() - start) / 1000"
    )
    assert seconds < 1
    files = [*(big / "rollouts").glob("*.parquet"), *(big / "evals").glob("*.parquet")]
    found = [row for f in files for row in pq.read_table(f, columns=["prompt", "text", "outcome"]).to_pylist()]
    assert matches(browser) == sum(row["outcome"] == 0 and "is 1" in row["text"] for row in found) > 0
