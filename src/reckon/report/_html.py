"""Text into HTML, so that nothing a model wrote can act as markup or hide from the reader."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Sequence

from reckon.types import Json

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # tab and line feed stay; the JavaScript side does the same
_UNSEEN = re.compile("[\x80-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]")  # bidi overrides too
_SURROGATE = re.compile("[\ud800-\udfff]")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def visible(text: str) -> str:
    """The text with control characters, bidi overrides and lone surrogates replaced by signs one can see."""
    text = _CONTROL.sub(lambda found: chr(0x2421 if found[0] == "\x7f" else 0x2400 + ord(found[0])), text)
    text = _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)
    return _SURROGATE.sub("\ufffd", text)


def inline(value: object) -> Html:
    """Anything as HTML text; `Html` passes unchanged."""
    return value if isinstance(value, Html) else Html(html.escape(visible(str(value)), quote=True))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """One element. A trailing underscore in an attribute's name is dropped (`class_`), other underscores become `-`."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{inline(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{pairs}>{''.join(map(inline, children))}</{name}>")


def join(parts: Iterable[Html]) -> Html:
    """Elements one after another."""
    return Html("".join(parts))


def table(
    caption: object,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    numeric: Sequence[int] = (),
    class_: str | None = None,
) -> Html:
    """A captioned table whose first column names its rows; the columns in `numeric` are set flush right."""

    def cell(name: str, column: int, value: object) -> Html:
        scope = "col" if name == "th" else None
        kind = "number" if column in numeric else None
        return tag("th" if column == 0 else name, value, scope=scope or ("row" if column == 0 else None), class_=kind)

    top = tag("thead", tag("tr", *(cell("th", i, value) for i, value in enumerate(head)))) if head else ""
    body = tag("tbody", *(tag("tr", *(cell("td", i, value) for i, value in enumerate(row))) for row in rows))
    return tag(
        "div",
        tag("table", tag("caption", caption), top, body, class_=class_),
        class_="scroll",
        tabindex=0,
        role="group",
    )


def embed(name: str, value: Json) -> Html:
    """Data for the page's scripts, as JSON in a script element that no text in it can end.

    Raises:
        ValueError: a number in it is not finite, which JSON cannot say.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    text = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return Html(f'<script type="application/json" id="{name}">{text}</script>')


def content_policy(css: str, scripts: list[str]) -> str:
    """A content security policy by which nothing runs on this page but its own scripts, and nothing is loaded."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    allowed = " ".join(map(digest, scripts))
    return f"default-src 'none'; script-src {allowed}; style-src {digest(css)}; base-uri 'none'; form-action 'none'"


def share(value: float) -> str:
    """A share in percent, one decimal; an en dash where there is none."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}%"


def count(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return "–" if math.isnan(value) else f"{round(value):,}".replace(",", "\u202f")


def number(value: float) -> str:
    """Three significant digits, a true minus sign; an en dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds as a person says them: `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def probability(p: float) -> Html:
    """A p value: three decimals, or a power of ten where those would all be 0."""
    if p >= 0.001:
        return inline(f"{p:.3f}")
    mantissa, exponent = f"{p:.1e}".split("e")
    power = tag("sup", str(int(exponent)).replace("-", "−"))
    return Html(f"{mantissa}\u00a0×\u00a010{power}") if p else inline("0")
