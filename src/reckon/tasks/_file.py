"""Your own problems, from a file or from the Hugging Face hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from reckon.errors import InputError, MissingError
from reckon.tasks._checkers import Checker, Choice, Exact, Number, Set, YesNo
from reckon.tasks._math import Math
from reckon.tasks._rows import ALIASES, Names, Row, assign, check_disjoint, id_of, read_rows
from reckon.tasks._splits import SHARES, SPLITS, check_split
from reckon.types import Problem, Split, Verdict

BuiltIn: TypeAlias = type[Exact] | type[Number] | type[Choice] | type[YesNo] | type[Set] | type[Math]
CHECKERS: dict[str, BuiltIn] = {
    "exact": Exact,
    "number": Number,
    "choice": Choice,
    "yes_no": YesNo,
    "set": Set,
    "math": Math,
}


def _resolve(owner: object, checker: str | Checker) -> Checker:
    if not isinstance(checker, str):
        return checker
    if checker not in CHECKERS:
        near = get_close_matches(checker, CHECKERS, 1)
        raise InputError(
            f"{type(owner).__name__}: {checker!r} is not a checker."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + f" (checkers: {', '.join(CHECKERS)})"
        )
    return CHECKERS[checker]()


def _judged(checker: Checker, text: str, answer: str | None) -> Verdict:
    verdict: object = checker(text, answer)
    if not isinstance(verdict, Verdict):
        name = getattr(checker, "__name__", type(checker).__name__)
        raise InputError(
            f"the checker {name!r} returned {str(verdict)[:80]!r} ({type(verdict).__name__}). It must return a "
            "reckon.types.Verdict(outcome=..., answer=..., reason=...)."
        )
    return verdict


def _check_shares(owner: object, shares: Sequence[float]) -> None:
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise InputError(
            f"{type(owner).__name__}: `shares` must be three numbers of 0 or more that sum to 1 (train, dev, test), "
            f"not {list(shares)!r}."
        )


def _check_answers(rows: Sequence[Row], splits: Mapping[Split, Sequence[Problem]], checker: Checker) -> None:
    """Raises InputError if a built-in checker cannot read a reference: its problem could never be judged."""
    if not isinstance(checker, tuple(CHECKERS.values())):
        return
    unreadable = {
        problem.id: problem.answer
        for problems in splits.values()
        for problem in problems
        if problem.answer is not None and checker("", problem.answer).reason == "no reference"
    }
    for row in rows:
        key = id_of(row)
        if key in unreadable:
            kind = type(checker).__name__
            raise InputError(
                f"{row.place}: the checker {kind} cannot read the answer {str(unreadable[key])[:80]!r}. Mend the "
                "answer, leave it empty, or choose another checker."
            )


@dataclass(frozen=True, kw_only=True)
class File:
    """Problems from your own JSONL, Parquet or CSV file.

    A row has a `prompt` (text, or a list of messages with `role` and `content`) and, if you have them, an `answer`, a
    `domain`, an `id` and a `split`; other columns are carried along. Without an answer a verdict is unknown. Without a
    `split` column, a hash of the prompt decides, so the same prompt is in the same split in every file; a small file
    may then leave a split empty.

    Args:
        path: one file, or one for each split: {"train": ..., "test": ...}.
        checker: exact, number, choice, yes_no, set or math, or a checker with settings, or your own
            `(text, answer) -> Verdict`.
        prompt: the column that holds the prompt.
        answer: the column that holds the answer.
        shares: parts of train, dev and test, where neither files nor a column say.
    """

    path: str | Mapping[str, str] = field(kw_only=False)
    checker: str | Checker = "exact"
    prompt: str = "prompt"
    answer: str = "answer"
    shares: tuple[float, float, float] = SHARES

    def __post_init__(self) -> None:
        _check_shares(self, self.shares)
        _ = self._checker
        for split in self.path if not isinstance(self.path, str) else ():
            check_split(split)
        for path in [self.path] if isinstance(self.path, str) else self.path.values():
            if not Path(path).expanduser().is_file():
                read_rows(path)  # says what is wrong

    @property
    def name(self) -> str:
        """The file's name without its ending, or `file` for several."""
        return Path(self.path).stem if isinstance(self.path, str) else "file"

    @cached_property
    def _checker(self) -> Checker:
        return _resolve(self, self.checker)

    @cached_property
    def _splits(self) -> dict[Split, list[Problem]]:
        names = Names(prompt=self.prompt, answer=self.answer)
        if isinstance(self.path, str):
            rows = read_rows(self.path)
            splits = assign(rows, names, self.shares)
            source = rows[0].source
        else:
            splits = {split: [] for split in SPLITS}
            rows, source = [], "the files"
            for split in SPLITS:
                if split in self.path:
                    here = read_rows(self.path[split])
                    splits[split] = assign(here, names, self.shares, fixed=split)[split]
                    _check_answers(here, {split: splits[split]}, self._checker)
            check_disjoint(splits, source)
            return splits
        check_disjoint(splits, source)
        _check_answers(rows, splits, self._checker)
        return splits

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, in the file's order; read at the first call."""
        check_split(split)
        return self._splits[split]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response with the chosen checker."""
        return _judged(self._checker, text, problem.answer)


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """Problems from a dataset on the Hugging Face hub, downloaded once. Needs the extra `datasets`.

    Splits of the dataset named train, validation (or dev) and test are taken as they are. One that has only a train
    split is divided by a hash of the prompt. Columns as in `File`; no code of the dataset is run.

    Args:
        path: the dataset's id, such as `openai/gsm8k`.
        config: its configuration, if it has several.
        checker: as in `File`.
        prompt: the column that holds the prompt.
        answer: the column that holds the answer.
        shares: parts of train, dev and test for a dataset with one split.
    """

    path: str = field(kw_only=False)
    config: str | None = None
    checker: str | Checker = "exact"
    prompt: str = "prompt"
    answer: str = "answer"
    shares: tuple[float, float, float] = SHARES

    def __post_init__(self) -> None:
        _check_shares(self, self.shares)
        _ = self._checker
        if importlib.util.find_spec("datasets") is None:
            raise MissingError(
                "Datasets from the hub need the package datasets. Install it with: pip install 'reckon-rl[datasets]'"
            )

    @property
    def name(self) -> str:
        """The dataset's id without its owner."""
        return self.path.rsplit("/", 1)[-1]

    @cached_property
    def _checker(self) -> Checker:
        return _resolve(self, self.checker)

    @cached_property
    def _splits(self) -> dict[Split, list[Problem]]:
        tables = _load(self.path, self.config)
        names = Names(prompt=self.prompt, answer=self.answer)
        if len(tables) == 1:
            rows = next(iter(tables.values()))
            splits = assign(rows, names, self.shares)
        else:
            rows = [row for table in tables.values() for row in table]
            splits = {split: [] for split in SPLITS}
            for split, table in tables.items():
                splits[split] = assign(table, names, self.shares, fixed=split)[split]
        if not rows:
            raise InputError(f"{self.path}: there are no rows in its train, validation or test split.")
        check_disjoint(splits, self.path)
        for split, table in tables.items():
            _check_answers(table, splits if len(tables) == 1 else {split: splits[split]}, self._checker)
        return splits

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, in the dataset's order; downloaded at the first call."""
        check_split(split)
        return self._splits[split]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response with the chosen checker."""
        return _judged(self._checker, text, problem.answer)


def _load(path: str, config: str | None) -> dict[Split, list[Row]]:
    import datasets

    try:
        loaded = datasets.load_dataset(path, config)
    except Exception as error:  # no network, no such dataset or configuration, and whatever its many readers raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(
            f"The dataset {path!r} could not be loaded: {first[:200]}. Check its id and configuration and the network, "
            "or download it and use `File`."
        ) from error
    tables: dict[Split, list[Row]] = {}
    for name, table in loaded.items():
        split = next((s for s in SPLITS if s == name), ALIASES.get(name))
        if split is not None:
            tables[split] = [Row(f"{path} ({name})", i, dict(values)) for i, values in enumerate(table, start=1)]
    return tables
