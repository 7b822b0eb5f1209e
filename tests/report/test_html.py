import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reckon.report._html import count, duration, embed, inline, probability, share, tag, visible


class Reader(HTMLParser):
    """The tags and the text of a piece of HTML, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates, control characters and all


@given(ANY_TEXT)
def test_no_text_becomes_markup(text):
    read = Reader(inline(text))
    assert read.tags == []
    assert read.text == visible(text)


@given(ANY_TEXT)
def test_embedded_data_comes_back_whole_and_cannot_end_its_element(text):
    html = embed("name", {"key": text, text: [1.5, None]})
    html.encode("utf-8")  # lone surrogates are escaped, so the page can be written at all
    start, end = '<script type="application/json" id="name">', "</script>"
    assert html.startswith(start)
    assert html.endswith(end)
    payload = html[len(start) : -len(end)]
    assert "<" not in payload
    # A high surrogate followed by a low one is one character to JSON, and two to Python.
    as_json = {key.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for key in ("key", text)}
    assert set(json.loads(payload)) == as_json


@given(ANY_TEXT)
def test_an_attribute_stays_one_attribute(text):
    class Attributes(HTMLParser):
        found: list[tuple[str, str | None]]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found = attrs

    reader = Attributes(convert_charrefs=True)
    reader.feed(tag("p", class_=text))
    assert [name for name, _ in reader.found] == ["class"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\x00b\x7f", "a␀b␡"),
        ("safe\u202edetrevni", "safe⟨U+202E⟩detrevni"),
        ("line\u2028end", "line⟨U+2028⟩end"),
        ("half \ud83d", "half \ufffd"),
        ("tab\tand\nline stay", "tab\tand\nline stay"),
        ("naïve 你好 😀 עברית", "naïve 你好 😀 עברית"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_a_sign(text, shown):
    assert visible(text) == shown


def test_not_a_number_cannot_be_embedded_silently():
    with pytest.raises(ValueError, match="JSON"):
        embed("name", [float("nan")])


def test_numbers_as_a_reader_writes_them():
    assert share(0.34375) == "34.4%"
    assert share(float("nan")) == "–"
    assert count(1234567) == "1\u202f234\u202f567"
    assert [duration(s) for s in (0.25, 59, 200, 7500)] == ["0.25 s", "59 s", "3 min 20 s", "2 h 05 min"]
    assert probability(0.0312) == "0.031"
    assert probability(1.1135e-18) == "1.1\u00a0×\u00a010<sup>−18</sup>"
    assert probability(0.0) == "0"
