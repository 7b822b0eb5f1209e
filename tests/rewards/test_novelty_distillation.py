"""Novelty by distillation: errors by NumPy, learning that makes the old old, and a memory that goes on exactly."""

import numpy as np
import pytest
import torch
from judge_models import answered, language_model

from reckon.errors import InputError
from reckon.rewards import RandomDistillation, is_group_level
from reckon.runs import Run
from reckon.types import LearningReward, Outputs, Problem, Reporting, Rng

RNG = Rng((0, "reward"))
MODEL = language_model()
PROBLEM = [Problem(id="a", prompt="1+1=", answer="2")]


def batch(*texts):
    return answered(MODEL, PROBLEM, texts, group=[0] * len(texts))


def made(**settings):
    return RandomDistillation(reference=MODEL, **settings)


def read(streams):
    ((name, stream),) = streams.items()
    assert (name, stream.kind) == ("random_distillation", "reward")
    return stream.values


OLD = batch("12", "21", "11", "22")
NEW = batch("12", "zyx")


def says(weights, features):
    """One network, by NumPy."""
    inner, bias, outer, last = (weights[name].numpy() for name in ("inner", "inner_bias", "outer", "outer_bias"))
    return np.maximum(features @ inner.T + bias, 0) @ outer.T + last


def test_at_first_it_is_the_squared_error_of_two_random_networks():
    part = made()
    assert isinstance(part, LearningReward)
    assert isinstance(part, Reporting)
    assert not is_group_level(part)
    found = read(part.score(OLD))
    assert part.metrics() == {}
    state = part.state_dict()
    hidden = MODEL.outputs(OLD.seq, ("hidden",)).hidden.double()
    mean = torch.stack([row[mask].mean(dim=0) for row, mask in zip(hidden, OLD.seq.mask, strict=True)])
    features = ((mean - mean.mean(dim=1, keepdim=True)) / mean.std(dim=1, keepdim=True, correction=0)).numpy()
    wanted = ((says(state["predictor"], features) - says(state["target"], features)) ** 2).sum(axis=1)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-4)
    # the first batch is measured by its own deviation, and only then learned from
    paid = read(part.assess(OLD, RNG))
    assert paid.tolist() == pytest.approx((wanted / wanted.std()).tolist(), rel=1e-4)
    assert part.metrics() == pytest.approx({"error": wanted.mean(), "deviation": wanted.std()}, rel=1e-4)
    assert read(part.score(OLD)).tolist() != paid.tolist()


def test_what_comes_again_and_again_is_less_and_less_new():
    part = made(lr=1e-2)
    errors = []
    for _ in range(60):
        part.assess(OLD, RNG)
        errors.append(part.metrics()["error"])
    assert errors[-1] < 0.05 * errors[0]
    old, new = read(part.score(NEW)).tolist()
    assert new > 5 * old


@pytest.mark.parametrize("settings", [{"lr": 1e-2}, {"steps": 10}])
def test_a_predictor_that_learns_faster_is_surprised_less(settings):
    usual, faster = made(), made(**settings)
    for _ in range(5):
        for part in (usual, faster):
            part.assess(OLD, RNG)
    assert faster.metrics()["error"] < 0.7 * usual.metrics()["error"]


def test_old_errors_are_forgotten_in_what_a_bonus_is_measured_by():
    usual, forgetful = made(steps=20), made(steps=20, decay=0.5)
    for _ in range(8):
        for part in (usual, forgetful):
            part.assess(OLD, RNG)
    assert usual.metrics()["error"] == forgetful.metrics()["error"]
    assert forgetful.metrics()["deviation"] < 0.7 * usual.metrics()["deviation"]


def test_saved_and_restored_it_goes_on_to_the_last_bit(tmp_path):
    whole, broken, resumed = made(), made(), made()
    for _ in range(3):
        whole.assess(OLD, RNG)
        broken.assess(OLD, RNG)
    with Run.create(tmp_path / "run", recipe={"by": "hand"}) as run:
        run.save(1, {"reward": broken})
        run.load({"reward": resumed}, 1)
    for _ in range(3):
        assert torch.equal(read(whole.assess(NEW, RNG)), read(resumed.assess(NEW, RNG)))
    assert torch.equal(read(whole.score(OLD)), read(resumed.score(OLD)))
    assert whole.metrics() == resumed.metrics()
    before = {name: weight.clone() for name, weight in broken.state_dict()["predictor"].items()}
    resumed.assess(OLD, RNG)
    assert all(torch.equal(before[name], weight) for name, weight in broken.state_dict()["predictor"].items())


def test_saved_before_anything_was_seen_there_is_nothing_to_save():
    part = made()
    assert part.state_dict() == {}
    part.load_state_dict({})
    assert torch.equal(read(part.score(OLD)), read(made().score(OLD)))


def test_a_row_in_which_nothing_was_sampled_is_unknown_and_teaches_nothing():
    class Table:
        def outputs(self, seq, want=("logprobs",)):
            return Outputs(hidden=torch.randn(*seq.mask.shape, 4, generator=torch.Generator().manual_seed(0)))

    part = RandomDistillation(reference=Table())
    empty = batch("12", "21")
    empty.seq.mask[1] = False
    paid = read(part.assess(empty, RNG))
    assert paid.isnan().tolist() == [False, True]
    assert all(weight.isfinite().all() for weight in part.state_dict()["predictor"].values())
    assert paid[0] > 0


def test_the_seed_decides_what_the_networks_begin_as():
    one, same, other = (read(made(seed=seed).score(OLD)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "`width` is 0; it must be 1 or more"),
        ({"size": 0}, "`size` is 0"),
        ({"steps": 0}, "`steps` is 0"),
        ({"lr": 0.0}, "`lr` is 0.0; it must be above 0"),
        ({"decay": 1.5}, "`decay` is 1.5; it must be above 0 and at most 1"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=f"random_distillation: {message}"):
        made(**settings)


def test_networks_of_another_size_are_refused():
    part = made()
    part.score(OLD)
    with pytest.raises(InputError, match=r"random_distillation: the saved networks are of sizes .* and not of width 8"):
        made(width=8).load_state_dict(part.state_dict())
