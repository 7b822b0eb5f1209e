"""Is this a well-formed answer? A grammar checked by hand: nothing is evaluated, so no answer can run or hang.

The reference code of Xin et al. 2025 (arXiv:2505.19439) asks sympy's parse_expr, which runs Python and takes any words
for a product of symbols. This reader accepts what they reject of intervals, matrices and inequalities, and rejects
sentences. `reference=True` keeps their verdicts, without their parser.
"""

from __future__ import annotations

import re

LONGEST_ANSWER = 500  # characters
DEPTH = 40  # nested brackets; more is refused, and keeps the recursion shallow

_TOKEN = re.compile(
    r"(?P<number>\d+(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+\.?\d*|\.\d+)"
    r"|(?P<command>\\[A-Za-z]+|\\[{}|])"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)"
    r"|(?P<symbol>\*\*|<=|>=|!=|==|&&?|\\\\|[-+*/^_=<>!%°|()\[\]{},;:'′≤≥≠±×·÷√∞π∪∩∈∅])"
)


def _words(names: str) -> set[str]:
    return set(names.split())


def _commands(names: str) -> set[str]:
    return {"\\" + name for name in names.split()}


_RELATIONS = _words("= == < > <= >= != ≤ ≥ ≠ ∈")
_RELATIONS |= _commands("le leq leqslant ge geq geqslant lt gt ne neq in notin approx equiv cong subset subseteq sim")
_SUMS = _words("+ - ± ∪ ∩") | _commands("pm mp cup cap setminus oplus lor land vee wedge")
_PRODUCTS = _words("* / × · ÷ :") | _commands("cdot times div bmod ast")
_SEPARATORS = _words(", ; or and")
_FUNCTIONS = _words(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt det gcd lcm max min"
)
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta lambda mu nu xi rho sigma tau phi varphi chi psi omega"
)
_NAMES = _words("∞ π ∅") | _commands(_GREEK) | _commands(_GREEK.title())
_NAMES |= _commands("infty pi emptyset varnothing ldots dots cdots degree circ triangle dollar")
_SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:! $%]|quad|qquad|left(?![a-z])|right(?![a-z])|displaystyle|limits)|~|\$|(?<=\d)\{,\}(?=\d{3})"
)
_FONTS = re.compile(r"\\(?:mathbb|mathrm|mathbf|mathcal|operatorname|overline|bar|vec|hat|boldsymbol|mathit)\b")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mbox|textrm)\s*\{([^{}]*)\}")


class _NotAnAnswerError(Exception):
    pass


class _Reader:
    """Recursive descent over the tokens of one answer."""

    def __init__(self, text: str) -> None:
        self.kinds: list[str] = []
        self.tokens: list[str] = []
        self.spaced: list[bool] = []  # whether blanks stand before the token
        self.at = 0
        self.depth = 0
        self.in_bars = 0  # > 0 where a bar closes, or divides a set's elements from their condition
        position = 0
        while position < len(text):
            start = position + len(text[position:]) - len(text[position:].lstrip())
            if start == len(text):
                break
            match = _TOKEN.match(text, start)
            if match is None:
                raise _NotAnAnswerError
            self.kinds.append(str(match.lastgroup))
            self.tokens.append(match[0])
            self.spaced.append(start > position)
            position = match.end()

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def kind(self) -> str:
        return self.kinds[self.at] if self.at < len(self.tokens) else "end"

    def take(self, *wanted: str) -> str:
        token = self.peek()
        if not token or (wanted and token not in wanted):
            raise _NotAnAnswerError
        self.at += 1
        return token

    def answer(self) -> None:
        self.items()
        if self.peek():
            raise _NotAnAnswerError

    def items(self) -> int:
        """One or more relations between separators; how many."""
        self.relation()
        count = 1
        while self.peek() in _SEPARATORS:
            if self.take() == "," and self.peek() in ("or", "and"):  # "1, 2, and 3"
                self.take()
            self.relation()
            count += 1
        return count

    def relation(self) -> None:
        self.sum()
        while self.peek() in _RELATIONS:
            self.take()
            self.sum()

    def sum(self) -> None:
        self.product()
        while self.peek() in _SUMS:
            self.take()
            self.product()

    def product(self) -> None:
        while self.peek() in ("+", "-", "±", "\\pm"):  # signs, as many as one likes
            self.take()
        self.power()
        while True:
            if self.peek() in _PRODUCTS or self.peek() == "**":
                power = self.take() == "**"
                if self.peek() == "-" or (self.peek() == "+" and power):
                    self.take()
                self.power()
            elif self.starts_factor():
                self.no_sentence()
                self.power()
            else:
                return

    def starts_factor(self) -> bool:
        token, kind = self.peek(), self.kind()
        if kind in ("number", "word"):
            return token not in _SEPARATORS
        if token == "|":
            return not self.in_bars
        if kind == "command":
            return token not in _RELATIONS | _SUMS | _PRODUCTS | {"\\}", "\\end", "\\|", "\\mid"}
        return token in ("(", "[", "{", "√") or token in _NAMES

    def no_sentence(self) -> None:
        """Factors side by side are a product, but words apart are a sentence; a unit may follow a number."""
        before, kind = self.tokens[self.at - 1], self.kinds[self.at - 1]
        long_here = self.kind() == "word" and len(self.peek()) > 1 and self.peek() not in _FUNCTIONS
        long_before = kind == "word" and len(before) > 1 and before not in _FUNCTIONS
        if not self.spaced[self.at] and self.peek() != "(":
            return
        if long_before and self.kind() in ("word", "number"):
            raise _NotAnAnswerError
        if long_here and kind == "word":
            raise _NotAnAnswerError

    def power(self) -> None:
        self.atom()
        while True:
            if self.peek() in ("^", "_"):
                self.take()
                if self.peek() in ("-", "+"):
                    self.take()
                self.atom()
            elif self.peek() in ("!", "%", "°", "'", "′"):
                self.take()
            else:
                return

    def atom(self) -> None:
        self.depth += 1
        if self.depth > DEPTH:
            raise _NotAnAnswerError
        token, kind = self.peek(), self.kind()
        if kind == "number":
            self.take()
        elif kind == "word":
            self.take()
            if token in _FUNCTIONS:
                self.argument()
        elif token in _NAMES:
            self.take()
        elif token in ("(", "["):
            self.bracket()
        elif token in ("{", "\\{"):
            self.braces()
        elif token in ("|", "\\|"):
            self.bars(token)
        elif token == "√":
            self.take()
            self.atom()
        elif kind == "command":
            self.command()
        else:
            raise _NotAnAnswerError
        self.depth -= 1

    def argument(self) -> None:
        if self.peek() in ("^", "_"):
            self.take()
            self.atom()
        self.power()

    def bracket(self) -> None:
        opened = self.take()
        count = self.items()
        closed = self.take(")", "]")
        if (opened, closed) in (("(", "]"), ("[", ")")) and count != 2:  # half-open means an interval
            raise _NotAnAnswerError

    def braces(self) -> None:
        close = "}" if self.take() == "{" else "\\}"
        if self.peek() == close and close == "\\}":
            self.take()
            return
        self.in_bars += 1
        self.items()
        if self.peek() in ("|", "\\mid"):  # {x | x > 0}
            self.take()
            self.items()
        self.in_bars -= 1
        self.take(close)

    def bars(self, bar: str) -> None:
        self.take()
        self.in_bars += 1
        self.items()
        self.in_bars -= 1
        self.take(bar)

    def command(self) -> None:
        name = self.take()
        if name in ("\\frac", "\\dfrac", "\\tfrac", "\\cfrac", "\\binom", "\\dbinom"):
            self.short_argument()
            self.short_argument()
        elif name == "\\sqrt":
            if self.peek() == "[":
                self.take()
                self.sum()
                self.take("]")
            self.short_argument()
        elif name[1:] in _FUNCTIONS:
            self.argument()
        elif name == "\\begin":
            self.matrix()
        else:
            raise _NotAnAnswerError

    def short_argument(self) -> None:
        r"""A group in braces, or one token as in `\frac12`."""
        if self.peek() == "{":
            self.braces()
        elif self.kind() == "number" and len(self.peek()) > 1 and self.peek().isdigit():
            self.tokens[self.at] = self.peek()[1:]
            self.spaced[self.at] = False
        else:
            self.atom()

    def matrix(self) -> None:
        self.take("{")
        kind = self.take()
        if kind not in (
            "pmatrix",
            "bmatrix",
            "vmatrix",
            "Bmatrix",
            "Vmatrix",
            "matrix",
            "cases",
            "array",
            "smallmatrix",
        ):
            raise _NotAnAnswerError
        self.take("}")
        if kind == "array":
            self.take("{")
            while self.peek() != "}":
                self.take()
            self.take("}")
        while self.peek() != "\\end":
            self.items()
            while self.peek() in ("&", "&&", "\\\\"):
                self.take()
        self.take("\\end")
        self.take("{")
        self.take(kind)
        self.take("}")


def _plain_text(match: re.Match[str]) -> str:
    words = match[1].strip("() .").split()
    if len(words) > 3:
        raise _NotAnAnswerError
    if any(word in ("or", "and") for word in words) and len(words) == 1:
        return f" {words[0]} "
    if not all(re.fullmatch(r"[\w'’.,/-]+", word) for word in words):
        raise _NotAnAnswerError
    # One token that may stand after a number: a name or a unit, whatever number of words it has.
    return " " + "".join(re.sub(r"[\W\d_]", "", word) or word for word in words) + " "


def is_answer(text: str, *, reference: bool = False) -> bool:
    r"""Whether an extracted answer is well formed: one mathematical object or one word, and not a sentence.

    Well formed are numbers, fractions, expressions, equations, inequalities, intervals, tuples, sets, lists, matrices,
    a number with its unit, and a single word or letter, also within `\text{}`.

    Args:
        text: the answer alone, as `extract_answer` gives it; over 500 characters it is not one.
        reference: judge as the released code of arXiv:2505.19439 does, which takes sentences for products and rejects
            half-open intervals, matrices and LaTeX relations.
    """
    if not text.strip() or len(text) > LONGEST_ANSWER:
        return False
    try:
        if reference:
            _Reader(_as_reference(text)).answer()
            return True
        text = _FONTS.sub(" ", _SPACES.sub(" ", _TEXT.sub(_plain_text, text.strip()))).strip()
        _Reader(re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "°", text).removesuffix(".")).answer()
    except _NotAnAnswerError:
        return False
    return True


def _as_reference(text: str) -> str:
    """The answer after a normalizer like theirs: blanks and braces gone, so that words run together into one symbol."""
    if re.search(r"\\(?:begin|leq?|geq?|neq?|lt|gt|in|cup|cap)\b", text) or not _brackets_match(text):
        raise _NotAnAnswerError
    text = _TEXT.sub(lambda match: match[1], text)
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
    text = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)", text)
    text = _SPACES.sub("", text).replace("\\{", "").replace("\\}", "")
    return re.sub(r"[\s{}%°]", "", text).lower()


def _brackets_match(text: str) -> bool:
    stack: list[str] = []
    for char in text:
        if char in "([":
            stack.append(char)
        elif char in ")]" and (not stack or stack.pop() != {")": "(", "]": "["}[char]):
            return False
    return not stack
