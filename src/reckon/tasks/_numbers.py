"""Numbers as people and models write them, read exactly and without evaluating anything."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

DIGITS = 400  # a longer number is not an answer, and converting it would take long

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: i for i, word in enumerate(_ONES + _TEENS)}
_VALUES |= {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_VALUES |= {"once": 1, "twice": 2, "thrice": 3}

_SMALL = rf"(?:(?:{'|'.join(_TENS)})(?:[-\s](?:{'|'.join(_ONES[1:])})\b)?|{'|'.join(_TEENS)}|{'|'.join(_ONES)})\b"
_HUNDREDS = rf"(?:{_SMALL}\s+hundred\b(?:\s+(?:and\s+)?{_SMALL})?|{_SMALL})"
_WORDS = re.compile(
    rf"\b(?:{_HUNDREDS}\s+thousand\b(?:,?\s+(?:and\s+)?{_HUNDREDS})?|{_HUNDREDS}|once\b|twice\b|thrice\b)",
    re.IGNORECASE,
)
_NUMERAL = re.compile(
    r"(?<![^\W_])(?<!\d\.)"  # not inside a word or another number
    r"(?P<sign>(?<![\d)\]}])[-+])?"
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?!,?\d)|\d+|(?=\.\d))"
    r"(?P<decimals>\.\d+)?"
    r"(?P<power>[eE][-+]?\d{1,2}\b)?"
    r"(?:\s?/\s?(?P<below>\d+))?"
    r"(?!\d|[¹²³⁰⁴-⁹]|(?:st|nd|rd|th)\b)"  # ordinals and powers are no amounts
)
_FRACTION = re.compile(r"(-?)\\[dt]?frac\s?\{(-?\d+)\}\s?\{(\d+)\}")
# "one" is mostly not a number in English ("no one", "the first one"): it counts after these words or alone.
_ONE_BEFORE = re.compile(r"(?:\b(?:is|are|has|have|contains|only|just|exactly|appears|equals|total of)|[:=])\s*$", re.I)
_ONE_AFTER = re.compile(r"\s+(?:of|that|who|which|another)\b", re.I)


def ascii_digits(text: str) -> str:
    """The text with every decimal digit of any script, full-width ones too, as 0 to 9, and with a plain minus sign.

    Superscripts and circled digits are left alone: they are not places of a number.
    """
    if text.isascii():
        return text
    swaps = {"−": "-", "－": "-", "，": ",", "．": "."}
    return "".join(
        swaps.get(char) or (str(unicodedata.decimal(char)) if unicodedata.category(char) == "Nd" else char)
        for char in text
    )


def _word_value(words: str) -> int:
    total = current = 0
    for word in re.findall(r"[a-z]+", words.lower()):
        if word == "hundred":
            current *= 100
        elif word == "thousand":
            total, current = current * 1000, 0
        elif word != "and":
            current += _VALUES[word]
    return total + current


def _numeral_value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > DIGITS or (match["below"] and not int(match["below"])):
        return None
    literal = (match["whole"] or "0").replace(",", "") + (match["decimals"] or "") + (match["power"] or "")
    value = Fraction(literal) / int(match["below"] or 1)
    return -value if match["sign"] == "-" else value


def _counts_as_one(text: str, match: re.Match[str]) -> bool:
    if text.strip(" .!*\n\t").lower() == "one":
        return True
    return bool(_ONE_BEFORE.search(text[max(0, match.start() - 30) : match.start()])) and not _ONE_AFTER.match(
        text, match.end()
    )


def numbers(text: str) -> list[Fraction | None]:
    """Every number in the text in order: numerals, fractions, number words. None = one that cannot be read.

    `1,024` is 1024, `１２` is 12, `twenty-one` is 21, `twice` is 2, `1/2` and LaTeX fractions are fractions; ordinals
    are no numbers, and `one` counts only where it states an amount and nothing else in the text is a number.
    """
    text = ascii_digits(text).replace("{,}", ",").replace("\\,", "").replace("\\!", "")
    text = _FRACTION.sub(r" \1\2/\3", text)
    found: list[tuple[int, Fraction | None]] = [(m.start(), _numeral_value(m)) for m in _NUMERAL.finditer(text)]
    words = list(_WORDS.finditer(text))
    found += [(m.start(), Fraction(_word_value(m[0]))) for m in words if m[0].lower() != "one"]
    if not found:
        found = [(m.start(), Fraction(1)) for m in words if _counts_as_one(text, m)]
    return [value for _, value in sorted(found, key=lambda pair: pair[0])]


def show(value: Fraction) -> str:
    """A number as text: an integer or a finite decimal where it is one, else a/b."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return str(value)
    places = 0
    scaled = abs(value)
    while scaled.denominator != 1:
        scaled *= 10
        places += 1
    digits = str(scaled.numerator).rjust(places + 1, "0")
    return ("-" if value < 0 else "") + digits[:-places] + "." + digits[-places:]
