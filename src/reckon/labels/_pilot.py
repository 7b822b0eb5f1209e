"""A pilot's table, read from a file."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from reckon.errors import InputError, MissingError
from reckon.labels._production import check_pilot
from reckon.labels._sources import LabelSource, Purchase, purchase_cost
from reckon.labels._trials import Trial

_MOST = 2.0**53  # beyond it floats are no counts
_PILOT_WEAK, _PILOT_GOLD = (0, 100, 400, 1600), (0, 32, 128)


def pilot_grid() -> list[Purchase]:
    """Purchases that make a good pilot: 11 cells, parts of one purchase of 1,600 weak and 128 gold labels."""
    return [Purchase(n_weak, n_gold) for n_weak in _PILOT_WEAK for n_gold in _PILOT_GOLD if n_weak + n_gold]


def read_pilot(path: str | Path, weak: LabelSource, gold: LabelSource) -> list[Trial]:
    """Reads trials from CSV with a header: `n_NAME` of both sources, `accuracy`, and `seed` and `auroc` if known.

    Rows of one purchase without a seed are numbered, 0, 1, ... Other columns are left alone.

    Args:
        path: the file, UTF-8.
        weak: the cheap source; its name is in the header.
        gold: the trusted one.

    Raises:
        MissingError: no such file.
        InputError: not a table; a column is missing; a row has a number that is none, or that no plan can use.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingError(f"there is no file {file}. Give the pilot's table, a CSV.")
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text, skipinitialspace=True)
            columns, rows = list(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as CSV ({error}). Save it as UTF-8 with commas.") from error
    wanted = {"weak": f"n_{weak.name}", "gold": f"n_{gold.name}"}
    missing = [name for name in (*wanted.values(), "accuracy") if name not in columns]
    if missing:
        raise InputError(
            f"{file}: column `{missing[0]}` is missing. There are: {', '.join(columns) or 'none'}. Needed are "
            f"`{wanted['weak']}`, `{wanted['gold']}` and `accuracy`; `seed` and `auroc` may be added."
        )
    trials: list[Trial] = []
    repeated: dict[Purchase, int] = {}
    for line, row in rows:
        where = f"{file}, line {line}"
        bought = Purchase(_count(where, wanted["weak"], row), _count(where, wanted["gold"], row))
        seed = repeated.get(bought, 0)
        repeated[bought] = seed + 1
        trials.append(
            Trial(
                n_weak=bought.n_weak,
                n_gold=bought.n_gold,
                seed=_count(where, "seed", row) if row.get("seed") else seed,
                accuracy=_number(where, "accuracy", row),
                auroc=_number(where, "auroc", row) if row.get("auroc") else math.nan,
                cost=purchase_cost(bought, weak, gold),
            )
        )
    try:
        check_pilot(trials)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return trials


def _number(where: str, column: str, row: Mapping[str, str | None]) -> float:
    text = row[column]
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: `{column}` is {text!r}, but must be a number. Mend or drop the row.")
    return value


def _count(where: str, column: str, row: Mapping[str, str | None]) -> int:
    value = _number(where, column, row)
    if not 0 <= value < _MOST or value != int(value):
        raise InputError(f"{where}: `{column}` is {row[column]!r}, but must be a whole number of 0 or more.")
    return int(value)
