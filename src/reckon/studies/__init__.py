"""Papers' experiments as runnable comparisons: arms by seeds, claims, and verdicts by rules written beforehand."""

from reckon.studies._claims import ByArm, Claim, Effect, Found, Judged, judge, less
from reckon.studies._run import STUDIES, load_study, run_study
from reckon.studies._study import Measured, Pool, Row, Settings, Study

__all__ = [
    "STUDIES",
    "ByArm",
    "Claim",
    "Effect",
    "Found",
    "Judged",
    "Measured",
    "Pool",
    "Row",
    "Settings",
    "Study",
    "judge",
    "less",
    "load_study",
    "run_study",
]
