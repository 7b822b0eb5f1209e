"""Label budgets: how many cheap and how many trusted labels to buy, and how to train on both."""

from reckon.labels._choosing import choose_by_entropy, few_shot_text
from reckon.labels._few_shot import FewShot
from reckon.labels._frontier import Cell, Regime, RegimeName, best_within, cells, pareto_frontier, regime
from reckon.labels._learner import Learner, LinearLearner, Predictor
from reckon.labels._losses import LogConfidence, Loss, cross_entropy, soft_cross_entropy
from reckon.labels._measures import (
    accuracy,
    auroc,
    auroc_interval,
    calibrated_accuracy,
    entropy_bits,
    wilson_interval,
)
from reckon.labels._pilot import pilot_grid, read_pilot
from reckon.labels._plan import Interval, Margin, Option, Plan
from reckon.labels._planner import BudgetPlanner
from reckon.labels._production import (
    Law,
    Production,
    best_purchase,
    fit_production,
    indifference_curves,
)
from reckon.labels._sources import LabelSource, Purchase, budget_grid, purchase_cost
from reckon.labels._surface import Surface, fit_surface
from reckon.labels._trainer import EarlyStop, Kind, Offer, SequentialTrainer, Stage
from reckon.labels._trials import LabelData, Trainer, Trial, run_grid, shuffled_errors

__all__ = [
    "BudgetPlanner",
    "Cell",
    "EarlyStop",
    "FewShot",
    "Interval",
    "Kind",
    "LabelData",
    "LabelSource",
    "Law",
    "Learner",
    "LinearLearner",
    "LogConfidence",
    "Loss",
    "Margin",
    "Offer",
    "Option",
    "Plan",
    "Predictor",
    "Production",
    "Purchase",
    "Regime",
    "RegimeName",
    "SequentialTrainer",
    "Stage",
    "Surface",
    "Trainer",
    "Trial",
    "accuracy",
    "auroc",
    "auroc_interval",
    "best_purchase",
    "best_within",
    "budget_grid",
    "calibrated_accuracy",
    "cells",
    "choose_by_entropy",
    "cross_entropy",
    "entropy_bits",
    "few_shot_text",
    "fit_production",
    "fit_surface",
    "indifference_curves",
    "pareto_frontier",
    "pilot_grid",
    "purchase_cost",
    "read_pilot",
    "regime",
    "run_grid",
    "shuffled_errors",
    "soft_cross_entropy",
    "wilson_interval",
]
