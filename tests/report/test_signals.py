"""The signal bench's page: closed, escaped, and true to the numbers."""

import base64
import hashlib
import html as html_text
import json
import re

import numpy as np
import pytest
import webdriver
from test_page import Page

from conftest import NASTY
from reckon.evaluate import WORDS, bench_json, probe, signal_bench
from reckon.report import write_signals
from reckon.rewards import Function
from reckon.runs import Responses, Signal, read_responses
from reckon.types import Problem, Rng, Step

RNG = Rng(("test",))


def made(prompts=30, k=6, texts=("right", "wrong"), name="judge", ids="p#"):
    rng = np.random.default_rng(0)
    n = prompts * k
    right = rng.integers(0, 2, n).astype(float)
    text = tuple(f"{texts[0] if one else texts[1]} {i}" for i, one in enumerate(right))
    pieces = tuple((one[:2], one[2:]) for one in text)
    values = [np.array([r + rng.normal(), rng.normal()]) for r in right]
    return Responses(
        source="answers.jsonl",
        problems=tuple(
            Problem(id=ids.replace("#", str(g)), prompt=f"Question {g}?", answer="7") for g in range(prompts)
        ),
        group=np.repeat(np.arange(prompts), k),
        text=text,
        outcome=right,
        parsed=tuple("7" if one else str(i) for i, one in enumerate(right)),
        end=("eos",) * n,
        row=np.arange(n),
        pieces=pieces,
        steps=tuple(
            (Step(start=0, end=2, valid=bool(r)), Step(start=2, end=len(t), valid=True))
            for r, t in zip(right, text, strict=True)
        ),
        streams={
            name: Signal(values=right + rng.normal(size=n), seconds=0.18, read=2.0 * n),
            "tokens": Signal.of_tokens(values),
            "chance": Signal(values=rng.normal(size=n)),
            "sure": Signal(values=np.where(right == 1, 0.9, np.where(rng.random(n) < 0.5, 0.8, 0.1))),
        },
    )


def length(completions, **_):
    return [float(len(text)) for text in completions]


@pytest.fixture(scope="module")
def bench():
    responses = made()
    probes = probe(responses, {"judge": Function(length)}, rng=RNG, problems=10)
    return signal_bench(responses, rng=RNG, probes=probes)


@pytest.fixture(scope="module")
def path(bench, tmp_path_factory):
    return write_signals(bench, tmp_path_factory.mktemp("signals") / "page.html")


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text(encoding="utf-8"))


def test_elements_are_nested_and_contents_lead_somewhere(page):
    assert len(page.ids) == len(set(page.ids)) > 5
    targets = [value[1:] for _, name, value in page.attributes if name == "href"]
    assert len(targets) == 9
    assert set(targets) <= set(page.ids)


def test_nothing_is_loaded_and_only_its_own_script_may_run(path, page):
    loading = {"src", "href", "srcset", "action", "formaction", "poster", "data", "background", "xlink:href", "style"}
    assert [(t, v) for t, name, v in page.attributes if name in loading and not v.startswith("#")] == []
    assert not re.search(r"url\(|@import", page.style)
    (policy,) = [v for t, name, v in page.attributes if t == "meta" and name == "content" and "default-src" in v]
    ((_, script),) = page.scripts
    for text in (script, page.style):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert path.stat().st_size < 300_000


def test_the_first_picture_has_a_row_a_signal_with_the_benchs_numbers(path, bench):
    text = path.read_text(encoding="utf-8")
    table = text[text.index('class="overview"') : text.index('id="remarks"')]
    rows = re.findall(r'<tr class="trust-(\w+)">(.*?)</tr>', table)
    assert [trust for trust, _ in rows] == [one.trust for one in bench.signals]
    for (_, row), one in zip(rows, bench.signals, strict=True):
        assert f'<span class="name">{one.name}</span>' in row
        assert f"<b>{100 * one.within.value:.1f}%</b>" in row
        assert f"{100 * one.gain.value:+.1f}".replace("-", "−") in row
        assert f"{100 * one.unknown:.1f}%" in row
        dot = float(re.search(r'class="dot \w+" d="M([\d.]+) 5h0"', row)[1])
        assert dot == pytest.approx(100 * one.within.value, abs=0.01)
    judge = next(row for _, row in rows if ">judge<" in row)
    assert "1 ms" in judge  # 0.18 s for 180 responses
    assert "2 tokens" in judge
    assert "hacks</span>" in judge
    assert text.index('class="overview"') < text.index("<h2>What to know")


def test_every_remark_probe_and_step_is_on_the_page(page, bench):
    for one in bench.signals:
        for remark in one.remarks:
            assert remark.text in page.text
    assert "each step alone" in page.text
    assert "very long, no answer" in page.text
    assert "Share of right answers among the best of 1 to 6 samples" in [
        v.split(",")[0] for t, n, v in page.attributes if n == "aria-label"
    ]


def test_every_word_stands_beside_its_reasons(bench, page):
    for one in bench.signals:
        assert f"{WORDS[one.trust]}: {'; '.join(one.reasons)}." in page.text


def test_the_lead_names_the_most_trusted(bench, page):
    best = bench.signals[0]
    assert best.trust == "trust"
    assert f"Trust {best.name}: it ranks {100 * best.within.value:.1f}% of right answers" in page.text


def test_what_a_model_wrote_cannot_act_as_markup(tmp_path):
    for nasty in NASTY:
        safe = nasty.encode("utf-8", "replace").decode() or "?"
        responses = made(4, 4, texts=(safe, safe + "!"), name=safe.replace("/", "|"), ids=safe + " #")
        responses = responses.with_streams({"bad": Signal(values=-responses.outcome)})
        text = write_signals(signal_bench(responses, rng=RNG), tmp_path / "page.html").read_text(encoding="utf-8")
        page = Page(text)
        assert len(page.scripts) == 1
        assert not any(name.startswith("on") for _, name, _ in page.attributes)
        assert not {"img", "iframe", "b/"} & {t for t, _, _ in page.attributes}
        if "<" in nasty:
            assert html_text.escape(nasty) in text
        for sign in ("\x1b", "\u202e", "\u2028", "\x00"):
            assert sign not in text


def test_bad_files_from_the_command_to_the_page(tmp_path):
    """A file of the kind anybody has: no ids, no tokens, one signal, some verdicts missing."""
    rows = [
        {"prompt": f"Q{i // 4}", "completion": f"a{i}", "label": None if i % 7 == 0 else i % 2 == 0, "score": i % 5}
        for i in range(40)
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench = signal_bench(read_responses(file), rng=RNG)
    text = write_signals(bench, tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "No signal of steps or tokens was found" in page.text
    assert "columns of a file cannot be asked" in page.text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text).replace("nance", "")
    json.dumps(bench_json(bench), allow_nan=False)


@pytest.mark.parametrize("k", [1, 2])
def test_too_little_to_say_anything_still_makes_a_page(tmp_path, k):
    responses = made(2, k)
    text = write_signals(signal_bench(responses, rng=RNG), tmp_path / "page.html").read_text(encoding="utf-8")
    Page(text)
    if k == 1:
        assert "Nobody can tell which signal to trust" in text


@pytest.mark.skipif(webdriver.find() is None, reason="no Chromium with its chromedriver on this machine")
@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True), (820, False)])
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser_it_fits_and_no_text_is_too_faint(path, width, mobile, dark):
    with webdriver.Browser(width, 844, dark=dark, mobile=mobile) as browser:
        browser.open(path)
        assert browser.log() == []
        wide, inner = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide <= inner
        faint = browser.run(
            """
            const lightness = (color) => {
              const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
              return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const under = (element) => {
              for (let e = element; e; e = e.parentElement) {
                const color = getComputedStyle(e).backgroundColor;
                if (color.startsWith("rgb(")) return color;
              }
              return getComputedStyle(document.body).backgroundColor;
            };
            return [...document.querySelectorAll(".overview *, .remarks *, .legend *")]
              .filter((e) => [...e.childNodes].some((c) => c.nodeType === 3 && c.data.trim()))
              .map((e) => {
                const [a, b] = [lightness(getComputedStyle(e).color), lightness(under(e))];
                return [e.textContent, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
              })
              .filter(([, contrast]) => contrast < 4.5);
            """
        )
        assert faint == []
        if not mobile:
            browser.click("#theme")
            assert browser.text("#theme") == ("Dark" if dark else "Light")
