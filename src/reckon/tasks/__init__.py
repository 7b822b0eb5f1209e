"""Problems and their checkers."""

from __future__ import annotations

from reckon.tasks._answers import answer_block, extract_answer, extract_boxed
from reckon.tasks._checkers import Checker, Choice, Exact, Number, Set, YesNo
from reckon.tasks._counting import DistinctLetters, LetterCount, Substring, WordLength
from reckon.tasks._file import CHECKERS, File, HubDataset
from reckon.tasks._grammar import is_answer
from reckon.tasks._gym import ReasoningGym
from reckon.tasks._killable import CrashedError, Killable, TimedOutError
from reckon.tasks._math import Math
from reckon.tasks._mixture import Mixture
from reckon.tasks._numbers import numbers
from reckon.tasks._rows import Row, id_of, prompt_key, read_rows, to_chat
from reckon.tasks._rules import Rules
from reckon.tasks._splits import split_of
from reckon.tasks._sums import ChainArithmetic, Largest, RunningSums
from reckon.tasks._verdicts import verdict_on

__all__ = [
    "CHECKERS",
    "ChainArithmetic",
    "Checker",
    "Choice",
    "CrashedError",
    "DistinctLetters",
    "Exact",
    "File",
    "HubDataset",
    "Killable",
    "Largest",
    "LetterCount",
    "Math",
    "Mixture",
    "Number",
    "ReasoningGym",
    "Row",
    "Rules",
    "RunningSums",
    "Set",
    "Substring",
    "TimedOutError",
    "WordLength",
    "YesNo",
    "answer_block",
    "extract_answer",
    "extract_boxed",
    "id_of",
    "is_answer",
    "numbers",
    "prompt_key",
    "read_rows",
    "split_of",
    "to_chat",
    "verdict_on",
]
