"""Learns which subset of a set is wanted, from examples of optimal ones (EquiVSet and INSET)."""

from reckon.subsets._energy import Context, Pool, SetEnergy, SetFunction, mlp
from reckon.subsets._losses import balanced_weights, marginal_loss
from reckon.subsets._mean_field import (
    MOST,
    MeanField,
    Uniform,
    elbo,
    entropy,
    every_subset,
    exact_gradient,
    fixed_point,
    log_partition,
    marginals,
    multilinear,
    sampled_gradient,
)
from reckon.subsets._metrics import jaccard, largest, random_jaccard
from reckon.subsets._models import EnergyBased, EnergyModel, Greedy, GreedyModel, Makes, SubsetModel
from reckon.subsets._oracles import (
    digit_pair_sets,
    gaussian_mixture_sets,
    nearest_sets,
    top_then_centers,
    two_moons_sets,
)
from reckon.subsets._posterior import AmortizedPosterior, Guess, relaxed_samples
from reckon.subsets._responses import Candidates, Choice, candidates, choose_responses, compare_choices
from reckon.subsets._scorers import Scorer, ScorerModel
from reckon.subsets._selector import SubsetSelector
from reckon.subsets._sets import Sets
from reckon.subsets._training import History, Training

__all__ = [
    "MOST",
    "AmortizedPosterior",
    "Candidates",
    "Choice",
    "Context",
    "EnergyBased",
    "EnergyModel",
    "Greedy",
    "GreedyModel",
    "Guess",
    "History",
    "Makes",
    "MeanField",
    "Pool",
    "Scorer",
    "ScorerModel",
    "SetEnergy",
    "SetFunction",
    "Sets",
    "SubsetModel",
    "SubsetSelector",
    "Training",
    "Uniform",
    "balanced_weights",
    "candidates",
    "choose_responses",
    "compare_choices",
    "digit_pair_sets",
    "elbo",
    "entropy",
    "every_subset",
    "exact_gradient",
    "fixed_point",
    "gaussian_mixture_sets",
    "jaccard",
    "largest",
    "log_partition",
    "marginal_loss",
    "marginals",
    "mlp",
    "multilinear",
    "nearest_sets",
    "random_jaccard",
    "relaxed_samples",
    "sampled_gradient",
    "top_then_centers",
    "two_moons_sets",
]
