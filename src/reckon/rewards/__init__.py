"""Rewards: rollouts in, streams out. Each stays a stream of its own until credit is given."""

from reckon.rewards._advantage_monitor import AdvantageMonitor
from reckon.rewards._checked_advantage import CheckedAdvantage
from reckon.rewards._classifier import SequenceClassifier
from reckon.rewards._combine import And, Centered, Not, Or, Probability, and_, not_, or_
from reckon.rewards._combine_groups import Constrained, MinMax, NormalizeThenSum, Standardized
from reckon.rewards._combine_numbers import BaseSamples, Clip, Ensemble, Linear, Min, Product
from reckon.rewards._combine_parts import is_group_level
from reckon.rewards._confidence_rows import ConfidenceRows
from reckon.rewards._fitted import Fitted, is_fitted
from reckon.rewards._function import Function, RewardFunction, load_function
from reckon.rewards._hack_monitor import HackMonitor
from reckon.rewards._http import Http
from reckon.rewards._implicit import ImplicitReward
from reckon.rewards._implicit_online import HasTwin, OnlineImplicitReward
from reckon.rewards._judges import Judge, load_judge
from reckon.rewards._judges_reading import Calibrated, sequences_of
from reckon.rewards._leaves import AdaptiveKLReward, KLReward, Verifier
from reckon.rewards._length import CosineLength, FormatLength, Length, OverlongPenalty
from reckon.rewards._metrics import reward_metrics
from reckon.rewards._novelty import Elliptical, EpisodicCount, GlobalCount, Novelty
from reckon.rewards._novelty_distillation import RandomDistillation
from reckon.rewards._online_reference_based import OnlineReferenceBased
from reckon.rewards._outcome import OutcomeModel
from reckon.rewards._process_models import StepAdvantage, StepModel
from reckon.rewards._provers import CanProve, ExactAdvantage, MonteCarloAdvantage
from reckon.rewards._reference_based import COOPER_CUT, ReferenceBased, format_reference_based, question_of
from reckon.rewards._references import ReferenceStore
from reckon.rewards._staged import (
    StagedReward,
    StagedRewardHead,
    last_states,
    stage_of_verdict,
    staged_log_probabilities,
)
from reckon.rewards._text import Containment, Format, KeywordReward, RepetitionPenalty, StrictLayout, ThinkFormat
from reckon.rewards._token_outcome import HasHeadedTwin, TokenOutcomeModel
from reckon.rewards._tree import Gate, Sum, as_reward

__all__ = [
    "COOPER_CUT",
    "AdaptiveKLReward",
    "AdvantageMonitor",
    "And",
    "BaseSamples",
    "Calibrated",
    "CanProve",
    "Centered",
    "CheckedAdvantage",
    "Clip",
    "ConfidenceRows",
    "Constrained",
    "Containment",
    "CosineLength",
    "Elliptical",
    "Ensemble",
    "EpisodicCount",
    "ExactAdvantage",
    "Fitted",
    "Format",
    "FormatLength",
    "Function",
    "Gate",
    "GlobalCount",
    "HackMonitor",
    "HasHeadedTwin",
    "HasTwin",
    "Http",
    "ImplicitReward",
    "Judge",
    "KLReward",
    "KeywordReward",
    "Length",
    "Linear",
    "Min",
    "MinMax",
    "MonteCarloAdvantage",
    "NormalizeThenSum",
    "Not",
    "Novelty",
    "OnlineImplicitReward",
    "OnlineReferenceBased",
    "Or",
    "OutcomeModel",
    "OverlongPenalty",
    "Probability",
    "Product",
    "RandomDistillation",
    "ReferenceBased",
    "ReferenceStore",
    "RepetitionPenalty",
    "RewardFunction",
    "SequenceClassifier",
    "StagedReward",
    "StagedRewardHead",
    "Standardized",
    "StepAdvantage",
    "StepModel",
    "StrictLayout",
    "Sum",
    "ThinkFormat",
    "TokenOutcomeModel",
    "Verifier",
    "and_",
    "as_reward",
    "format_reference_based",
    "is_fitted",
    "is_group_level",
    "last_states",
    "load_function",
    "load_judge",
    "not_",
    "or_",
    "question_of",
    "reward_metrics",
    "sequences_of",
    "stage_of_verdict",
    "staged_log_probabilities",
]
