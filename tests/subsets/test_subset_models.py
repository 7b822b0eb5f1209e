"""Greedy choice and scorers by hand and by invariance; what training does, and what it warns of."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from set_functions import draws, modular, table
from torch import nn

from reckon.errors import InputError, RunError
from reckon.subsets import (
    EnergyBased,
    Greedy,
    GreedyModel,
    MeanField,
    Scorer,
    Sets,
    SubsetSelector,
    Training,
    nearest_sets,
)
from reckon.subsets._training import TOGETHER, infer, train


class Table(nn.Module):
    """An energy that is a table, whatever the features."""

    def __init__(self, energy):
        super().__init__()
        self.energy = energy

    def on(self, features, mask):
        return self.energy


def sets_of(chosen, mask=None):
    chosen = torch.tensor(chosen, dtype=torch.bool)
    mask = torch.ones_like(chosen) if mask is None else torch.tensor(mask, dtype=torch.bool)
    return Sets(features=torch.zeros((*chosen.shape, 1)), mask=mask, chosen=chosen)


def test_the_likelihood_of_an_order_by_hand():
    """F(S) = sum of w over S, w = (1, 2, 0): the order 0, 1 has e/(e+e^2+1) * e^2/(e^2+1), w of S cancelling."""
    model = GreedyModel(Table(modular(torch.tensor([[1.0, 2.0, 0.0]]))))
    order = torch.tensor([[0.1, 0.2, 0.3]])  # element 0 comes first
    found = model.loss(sets_of([[1, 1, 0]]), lambda shape: order)
    first = math.e / (math.e + math.exp(2) + 1)
    second = math.exp(2) / (math.exp(2) + 1)
    assert float(found) == pytest.approx(-math.log(first * second), rel=1e-5)
    other = model.loss(sets_of([[1, 1, 0]]), lambda shape: order.flip(1))  # 0.3, 0.2: element 1 comes first
    first, second = math.exp(2) / (math.e + math.exp(2) + 1), math.e / (math.e + 1)
    assert float(other) == pytest.approx(-math.log(first * second), rel=1e-5)
    halved = GreedyModel(Table(modular(torch.tensor([[0.5, 1.0, 0.0]]))), gamma=0.5)  # 0.5 / 0.5 = 1
    torch.testing.assert_close(halved.loss(sets_of([[1, 1, 0]]), lambda shape: order), found)


def test_greedy_takes_what_raises_the_energy_most():
    # 0 is best alone (3), but 1 goes with 2 (pairs 01: 3.1, 02: 3.2, 12: 9), so greedy ends at 0, 2
    values = torch.tensor([[0.0, 3.0, 2.0, 3.1, 1.0, 3.2, 9.0, 9.5]])
    model = GreedyModel(Table(table(values)))
    psi = model.psi(sets_of([[1, 0, 0]]), draws())
    torch.testing.assert_close(psi, torch.tensor([[1.0, 1 / 3, 2 / 3]]))
    padded = model.psi(sets_of([[1, 0, 0]], [[1, 1, 0]]), draws())
    torch.testing.assert_close(padded, torch.tensor([[1.0, 2 / 3, 0.0]]))


MODELS = [
    *(EnergyBased(context=context) for context in ("none", "concat", "complement", "add")),
    EnergyBased(posterior="independent"),
    EnergyBased(posterior="copula", encoder="linear"),
    Greedy(),
    Greedy(context="complement"),
    *(Scorer(context=context) for context in ("none", "mean", "attention")),
]


@pytest.mark.parametrize("make", MODELS, ids=repr)
def test_every_model_learns_and_asks_for_no_order_or_padding(make):
    """The loss falls on sets where the wanted are those with a positive first number; sets may be padded and turned."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((64, 6, 2), generator=generator)
    features[:, 0, 0], features[:, 1, 0] = 1.0, -1.0  # neither none nor all
    known = Sets(features=features, mask=torch.ones((64, 6), dtype=torch.bool), chosen=features[..., 0] > 0)
    torch.manual_seed(0)
    model = make((2,))
    history = train(model, known, Training(epochs=15, lr=5e-3), generator)
    assert history.loss[0] - history.loss[-1] > 0.2 * abs(history.loss[0])  # below 0 where it holds minus an ELBO
    assert len(history.loss) == history.best == 15

    psi = infer(model, known, 1)
    assert ((psi >= 0) & (psi <= 1)).all()
    padded = Sets(
        features=torch.cat([torch.full((64, 2, 2), math.nan), features], dim=1),
        mask=torch.cat([torch.zeros((64, 2), dtype=torch.bool), known.mask], dim=1),
    )
    torch.testing.assert_close(infer(model, padded, 1)[:, 2:], psi, rtol=0, atol=1e-5)
    assert infer(model, padded, 1)[:, :2].abs().sum() == 0
    torch.testing.assert_close(infer(model, known.take(torch.arange(3, 5)), 1), psi[3:5], rtol=0, atol=1e-5)


def test_many_sets_are_inferred_some_at_a_time():
    """Of memory each takes samples times its size squared; what is found is that of every set alone."""

    class Watched(nn.Module):
        marginals = True

        def __init__(self):
            super().__init__()
            self.seen = []

        def psi(self, sets, uniform):
            self.seen.append(len(sets))
            return uniform(tuple(sets.mask.shape)) * sets.features[..., 0]

    known = nearest_sets(2 * TOGETHER + 3, np.random.default_rng(0), n=4, k=1)
    model = Watched()
    psi = infer(model, known, 5)
    assert model.seen == [TOGETHER, TOGETHER, 3]
    for row in (0, TOGETHER, 2 * TOGETHER + 2):
        assert psi[row].equal(infer(model, known.take(torch.tensor([row])), 5)[0])


@pytest.mark.parametrize("make", [Scorer(context="mean"), Scorer(context="attention"), Greedy(context="concat")])
def test_models_without_draws_turn_with_the_elements(make):
    torch.manual_seed(3)
    model, order = make((2,)), torch.tensor([3, 0, 2, 1])
    known = nearest_sets(5, np.random.default_rng(0), n=4, k=1)
    turned = Sets(features=known.features[:, order], mask=known.mask)
    torch.testing.assert_close(infer(model, turned), infer(model, known)[:, order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("context", ["mean", "attention"])
def test_scorers_do_not_see_padding_in_training_either(context):
    """`infer` cuts it off, a step of training does not."""
    torch.manual_seed(0)
    model, known = Scorer(context=context)((2,)), nearest_sets(3, np.random.default_rng(0), n=4, k=1)
    padded = Sets(
        features=torch.cat([known.features, torch.full((3, 2, 2), 5.0)], dim=1),
        mask=torch.cat([known.mask, torch.zeros((3, 2), dtype=torch.bool)], dim=1),
    )
    model.train()
    torch.testing.assert_close(model.psi(padded, draws())[:, :4], model.psi(known, draws()))


def test_the_exact_fixed_point_can_be_trained_through():
    known = nearest_sets(24, np.random.default_rng(1), n=5, k=2)
    make = EnergyBased(inference=MeanField(steps=None, samples=None, damping=0.5))
    torch.manual_seed(0)
    history = train(make((2,)), known, Training(epochs=25, lr=5e-3), torch.Generator().manual_seed(0))
    assert sum(history.loss[-3:]) < 0.95 * sum(history.loss[:3])


@pytest.mark.parametrize(("samples", "drawn"), [(8, 8), (3, 3), (None, 5)])
def test_the_elbo_takes_as_many_samples_as_inference(samples, drawn):
    """The last numbers drawn are those of the posterior's subsets: [B, M, n]. Exact inference draws none."""
    shapes, uniform = [], draws()

    def watched(shape):
        shapes.append(shape)
        return uniform(shape)

    known = nearest_sets(3, np.random.default_rng(0), n=4, k=1)
    for posterior in ("independent", "copula"):
        EnergyBased(posterior=posterior, inference=MeanField(samples=samples))((2,)).loss(known, watched)
        assert shapes[-1] == (3, drawn, 4)


def test_the_epoch_with_the_best_validation_is_kept_and_patience_ends_it():
    known = nearest_sets(32, np.random.default_rng(0), n=6, k=2)
    chooser = SubsetSelector(training=Training(epochs=40, patience=2)).fit(known, known)
    history = chooser.history_
    assert len(history.jaccard) == len(history.loss) <= 40
    assert history.jaccard[history.best - 1] == max(history.jaccard)
    assert len(history.loss) in (40, history.best + 2)
    assert chooser.score(known) == pytest.approx(max(history.jaccard))


@pytest.mark.filterwarnings("ignore:SubsetSelector. psi is")  # nothing is learned
def test_patience_ends_what_gets_no_better():
    """A step of next to nothing changes no choice, so the first epoch is the best and the third the last."""
    known = nearest_sets(16, np.random.default_rng(0), n=6, k=2)
    still = Training(epochs=40, patience=2, lr=1e-12, weight_decay=0.0)
    history = SubsetSelector(training=still).fit(known, known).history_
    assert (history.best, len(history.loss), len(set(history.jaccard))) == (1, 3, 1)


def test_a_plateau_is_told():
    known = nearest_sets(16, np.random.default_rng(0), n=6, k=2)
    with pytest.warns(UserWarning, match=r"psi is 0\.5 for every element"):
        SubsetSelector(EnergyBased(scale=1e-9, context="none"), training=Training(epochs=1, lr=1e-9)).fit(known)


def test_a_loss_that_is_no_number_stops_training():
    known = nearest_sets(16, np.random.default_rng(0), n=6, k=2)
    broken = EnergyBased()((2,))
    with torch.no_grad():
        next(broken.parameters()).fill_(math.inf)
    with pytest.raises(RunError, match="in epoch 1 the loss is nan"):
        train(broken, known, Training(epochs=2), torch.Generator())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(EnergyBased, posterior="both"), "'none', 'independent' or 'copula'"),
        (partial(EnergyBased, negatives=0.0), "must be above 0"),
        (partial(EnergyBased, tau=0.0), "must be above 0"),
        (partial(EnergyBased, encoder="cnn"), "'linear', 'mlp' or a torch module"),
        (partial(EnergyBased, context="some"), "context is 'some'"),
        (partial(Greedy, gamma=0.0), "a temperature is above 0"),
        (partial(Scorer, context="max"), "'none', 'mean' or 'attention'"),
        (partial(Scorer, context="attention", width=30), "multiple of 4"),
        (partial(Scorer, negatives=-1.0), "negatives is -1.0"),
        (partial(Training, epochs=0), "at least 1"),
        (partial(Training, lr=math.nan), "lr nan"),
        (partial(Training, clip=0.0), "must be above 0"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(InputError, match=message):
        make()((2,))
