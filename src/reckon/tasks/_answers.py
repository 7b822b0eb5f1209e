"""Finding the final answer in a response. Shared by every checker and by the format reward."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

TAIL = 50_000  # characters; an answer stands at the end, and no response may cost more than this to read
MARKS = 20  # only so many of a kind are read, the last ones: text that repeats a mark must not take quadratic time
LONGEST = 2_000  # characters; what is longer than this is not an answer

_OPEN, _CLOSE, _BOX = "<answer>", "</answer>", "\\boxed"
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_INLINE = re.compile(r"\\\(((?:[^\\]|\\[^()])*)\\\)")
_LINE = re.compile(
    r"(?:\b(?:final\s+answer|answer|result|total)\b[*_]{0,3}\s{0,3}(?:[:=]|is\b:?)|####)[*_ \t]{0,9}", re.IGNORECASE
)


def _tail(text: str) -> str:
    return text[-TAIL:]


def _balanced(text: str, start: int) -> str | None:
    """The inside of the braces that open at or after blanks from `start`, or None when they do not close."""
    while start < len(text) and text[start] == " ":
        start += 1
    if start >= len(text) or text[start] != "{":
        return None
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)  # \{ and \} are characters of the answer
        if depth == 0:
            return text[start + 1 : brace.start()]
    return None


def extract_boxed(text: str) -> str | None:
    r"""The inside of the last `\boxed{...}`, braces matched; None if there is none or it never closes.

    An unbalanced last box is not replaced by an earlier one: a response cut off in its answer has not answered.
    """
    start = text.rfind(_BOX)
    return None if start < 0 else _balanced(text, start + len(_BOX))


def _tagged(text: str) -> str | None:
    """The inside of the last `<answer>...</answer>` that is not within the thinking."""
    close = text.rfind(_CLOSE)
    if close < 0 or close < text.rfind("</think>"):
        return None
    start = text.rfind(_OPEN, 0, close)
    return None if start < 0 else text[start + len(_OPEN) : close].rsplit("</think>", 1)[-1]


def _inside_tag(content: str) -> str:
    if _BOX in content:
        return extract_boxed(content) or ""
    inline = _INLINE.findall(content)
    return inline[-1] if inline else content.strip()


def extract_answer(text: str) -> str:
    r"""The marked final answer of a response, or "" where none is marked.

    1. The last `<answer>...</answer>`: in it the last `\boxed{}`, else the last `\( \)`, else all of it, stripped.
    2. Otherwise the last `\boxed{}` after the last `</think>`.

    As Xin et al. 2025 (arXiv:2505.19439) do it in their code, but with several answer tags the last one counts, where
    the code takes everything from the first to the last. Only the last 50,000 characters are read.
    """
    text = _tail(text)
    content = _tagged(text)
    if content is not None:
        return _inside_tag(content)
    return extract_boxed(text.rsplit("</think>", 1)[-1]) or ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answers a response offers, in order, and how they are marked."""

    answers: tuple[str, ...]
    mark: Literal["tag", "box", "line", "none"]  # "none": `answers` is the whole text


def _all_tagged(text: str) -> list[str]:
    pieces = text.split(_OPEN)[1:][-MARKS:]
    return [_inside_tag(piece.split(_CLOSE, 1)[0]) for piece in pieces if _CLOSE in piece]


def _all_boxed(text: str) -> list[str]:
    if extract_boxed(text) is None:
        return []
    boxes = [_balanced(text, match.end()) for match in list(re.finditer(r"\\boxed", text))[-MARKS:]]
    return [box for box in boxes if box is not None]


def _after_label(text: str, start: int) -> str:
    """What follows a label such as `Answer:` on its line, or on the next line that holds anything."""
    line = text[start : start + LONGEST].lstrip().split("\n", 1)[0]
    return line.strip().rstrip("*_ ")


def find_answers(text: str) -> Found:
    r"""Every final answer a response offers, by the strongest mark it uses.

    Answer tags beat boxes, boxes beat labels (`Answer:`, `Final answer is`, `Result:`, `Total:`, `####`), and labels
    beat the bare text. A response that is still thinking when it ends offers only what it has marked.
    """
    text = _tail(text)
    rest = text.rsplit("</think>", 1)[-1]
    if _tagged(text) is not None:
        return Found(answers=tuple(_all_tagged(rest)) or (extract_answer(text),), mark="tag")
    if _BOX in rest:
        return Found(answers=tuple(_all_boxed(rest)), mark="box")
    labels = list(_LINE.finditer(rest))[-MARKS:]
    if labels:
        return Found(answers=tuple(_after_label(rest, label.end()) for label in labels), mark="line")
    if "<think>" in rest:
        return Found(answers=(), mark="none")
    rest = rest.replace(_OPEN, " ").strip()  # an answer tag closed by a stop string
    return Found(answers=(rest,) if rest else (), mark="none")


def answer_block(text: str) -> str:
    """The final answer when it may have several lines: the tag or box, else all after the last label or thought."""
    text = _tail(text)
    found = find_answers(text)
    if found.mark in ("tag", "box"):
        return found.answers[-1].strip() if found.answers else ""
    rest = text.rsplit("</think>", 1)[-1]
    labels = list(_LINE.finditer(rest))
    if labels:
        return rest[labels[-1].end() :].strip()
    return found.answers[0] if found.answers else ""
