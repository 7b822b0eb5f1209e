"""Tastes of soup (Christensen et al. 2011): answers of 185 people to products, from Debian's r-cran-ordinal."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reckon.errors import MissingError
from reckon.types import Rng

LIBRARIES = (Path("/usr/lib/R/site-library"), Path("/usr/local/lib/R/site-library"), Path("/usr/lib/R/library"))
# The 22 columns are those of the paper's own script: dummies of all that is known of person and product.
SCRIPT = """
utils::data(soup, package = "ordinal")
columns <- model.matrix(~ PROD + DAY + SOUPTYPE + SOUPFREQ + COLD + EASY + GENDER + AGEGROUP + LOCATION, soup)[, -1]
write.csv(cbind(as.integer(soup$RESP), as.integer(soup$SURENESS), columns), stdout(), row.names = FALSE)
"""
SURENESS = 6  # levels; 1 = sure that it was the reference product, the rare one of the paper


@dataclass(frozen=True, kw_only=True, eq=False)
class Soup:
    """One answer a row."""

    x: NDArray[np.float64]  # [n, 22]
    y: NDArray[np.intp]  # [n], 0 to 5; 5 = sure that it was the reference
    person: NDArray[np.intp]  # [n]


def why_not() -> str:
    """Why there is no soup here; empty if there is."""
    if shutil.which("Rscript") is None or not any((place / "ordinal").is_dir() for place in LIBRARIES):
        return "the data come with Debian's r-cran-ordinal, which is not installed (apt-get install r-cran-ordinal)"
    return ""


@lru_cache(maxsize=1)
def read_soup() -> Soup:
    """All rows.

    Raises:
        MissingError: R cannot read them.
    """
    done = subprocess.run(["Rscript", "--vanilla", "-e", SCRIPT], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()[1:]
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise MissingError(f"R could not read the soup data of the package ordinal: it said {said!r}.")
    table = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    return Soup(x=table[:, 2:], y=SURENESS - table[:, 1].astype(np.intp), person=table[:, 0].astype(np.intp))


def split(soup: Soup, rng: Rng, share: float = 0.1) -> NDArray[np.bool_]:
    """[n] True where a row is held back: those of a tenth of the people, for other rows have siblings on both sides."""
    people = np.unique(soup.person)
    held = rng.numpy().permutation(people)[: round(share * len(people))]
    return np.isin(soup.person, held)


def scores(probability: NDArray[np.float64], rare: NDArray[np.bool_], *, bins: int) -> dict[str, float]:
    """How good probabilities [n] of the rare class are by what came out [n]: Brier, log loss, and calibration.

    Calibration is the mean squared distance of a prediction from the share that came out in its bin, of `bins` bins of
    equal size. The released code's measure bins by the prediction and then subtracts predictions that are not sorted,
    which pays for spreading them little.
    """
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    apart = np.concatenate([probability[part] - rare[part].mean() for part in parts if len(part)])
    kept = np.clip(np.where(rare, probability, 1 - probability), 1e-15, None)
    return {
        "brier": float(((probability - rare) ** 2).mean()),
        "log loss": float(-np.log(kept).mean()),
        "calibration": float((apart**2).mean()),
    }
