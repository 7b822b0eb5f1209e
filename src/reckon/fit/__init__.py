"""Offline learning: rows in, a loss, a step. Imitation, preferences, and every judge that is learned from labels."""

from reckon.fit._calibrate import Calibration, read_logits, recalibrate
from reckon.fit._command import JUDGE_FILE, Fitted, fit_command
from reckon.fit._draw import Scored, balanced, by_buckets, by_problem, by_prompt, pairs
from reckon.fit._fitting import fitting, held_back
from reckon.fit._kinds import KINDS, Settings
from reckon.fit._likelihood import KTO, SFT, FitLoss, ImplicitCE, Preference, StepRewards
from reckon.fit._loop import Plan, fit, measure, schedule, shuffled
from reckon.fit._read import Read, read_examples
from reckon.fit._reference import CachedReference
from reckon.fit._rows import Example, Paired, Prefix, Staged, Stepwise, Unpaired
from reckon.fit._scores import BradleyTerry, OutcomeBCE, OutcomeSteps, PrefixValues, StepLabels
from reckon.fit._sft import negative_log_likelihood, sft
from reckon.fit._staged import StagedOutcome

__all__ = [
    "JUDGE_FILE",
    "KINDS",
    "KTO",
    "SFT",
    "BradleyTerry",
    "CachedReference",
    "Calibration",
    "Example",
    "FitLoss",
    "Fitted",
    "ImplicitCE",
    "OutcomeBCE",
    "OutcomeSteps",
    "Paired",
    "Plan",
    "Preference",
    "Prefix",
    "PrefixValues",
    "Read",
    "Scored",
    "Settings",
    "Staged",
    "StagedOutcome",
    "StepLabels",
    "StepRewards",
    "Stepwise",
    "Unpaired",
    "balanced",
    "by_buckets",
    "by_problem",
    "by_prompt",
    "fit",
    "fit_command",
    "fitting",
    "held_back",
    "measure",
    "negative_log_likelihood",
    "pairs",
    "read_examples",
    "read_logits",
    "recalibrate",
    "schedule",
    "sft",
    "shuffled",
]
