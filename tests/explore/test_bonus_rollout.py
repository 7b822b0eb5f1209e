"""What every named bonus keeps: chunks, permutations, resuming. And rollouts that cannot be."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from walks import path, random_walk

from reckon.errors import InputError
from reckon.explore import (
    BONUSES,
    BonusSettings,
    Combined,
    Normalized,
    RandomDistillation,
    Rollout,
    flat_encoder,
    mlp,
    named_bonus,
)
from reckon.types import Rng


def named(name, **others):
    return named_bonus(name, BonusSettings(encoder=flat_encoder(3, width=8), actions=2, size=4, **others))


def close(found, wanted):
    """Up to rounding in float32: a network reads 2 T states at once or T, and an elliptical bonus enlarges that."""
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@settings(max_examples=60)
@given(st.sampled_from(BONUSES), st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 3), st.booleans(), st.data())
def test_two_rollouts_are_paid_as_one(name, seed, steps, count, final, data):
    """Catches what is counted twice at a rollout's end, and memories that begin anew with it."""
    walk, cut = random_walk(steps, count, seed=seed), data.draw(st.integers(1, steps - 1))
    once, twice = named(name), named(name)
    for bonus in (once, twice):
        walk.start(bonus)
    whole = once.score(walk.rollout(final=final))
    parts = [twice.score(walk.rollout(0, cut, final=final)), twice.score(walk.rollout(cut, final=final))]
    close(torch.cat(parts), whole)
    assert whole.shape == (steps, count)
    assert whole.dtype == torch.float32
    assert (whole >= 0).all()


@settings(max_examples=60)
@given(st.sampled_from(BONUSES), st.integers(0, 10_000), st.permutations(range(4)))
def test_environments_have_no_order(name, seed, order):
    walk, rows = random_walk(6, 4, seed=seed), torch.tensor(order)
    one, other = named(name), named(name)
    walk.start(one)
    walk.start(other, rows)
    close(other.score(walk.rollout(order=rows)), one.score(walk.rollout())[:, rows])


@pytest.mark.parametrize("name", BONUSES)
def test_step_by_step_is_at_once(name):
    """A rollout with T = 1 is a step."""
    walk = random_walk(7, 2, seed=3)
    once, stepped = named(name), named(name)
    for bonus in (once, stepped):
        walk.start(bonus)
    found, whole = torch.cat([stepped.score(walk.rollout(t, t + 1)) for t in range(7)]), once.score(walk.rollout())
    close(found, whole)
    assert whole.max() > 1e-3  # of which `close` would see nothing


def tensors_and_json(state):
    if isinstance(state, dict):
        return all(isinstance(name, str) and tensors_and_json(value) for name, value in state.items())
    if isinstance(state, list):
        return all(map(tensors_and_json, state))
    return state is None or isinstance(state, (torch.Tensor, bool, int, float, str))


@pytest.mark.parametrize("name", BONUSES)
def test_a_run_that_was_interrupted_goes_on_exactly(name):
    """In the middle of episodes, with networks that have learned."""
    walk, rng = random_walk(9, 3, seed=5), Rng(("run",))
    through, before, after = (Normalized(named(name, seed=seed)) for seed in (0, 0, 1))
    for bonus in (through, before):
        walk.start(bonus)
        bonus.score(walk.rollout(0, 5))
        bonus.learn(walk.rollout(0, 5), rng.child(0))
    state = before.state_dict()
    assert tensors_and_json(state)
    before.score(walk.rollout(5))  # what is saved does not change any more
    before.learn(walk.rollout(5), rng.child(1))
    after.load_state_dict(state)
    for start in (5, 7):
        part = walk.rollout(start, start + 2)
        assert torch.equal(after.score(part), through.score(part))
        assert after.learn(part, rng.child(start)) == through.learn(part, rng.child(start))


@pytest.mark.parametrize("name", BONUSES)
def test_two_seeds_are_two_bonuses_and_one_is_one(name):
    walk = random_walk(4, 2)
    found = []
    for seed in (0, 0, 1):
        bonus = named(name, seed=seed)
        walk.start(bonus)
        found.append(bonus.score(walk.rollout()))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2]) == ("count" in name)


def test_networks_of_another_shape_are_not_restored():
    saved = named("e3b_times_rnd").state_dict()
    with pytest.raises(InputError, match=r"random_distillation: the saved network is another one than this.*Build it"):
        named("e3b_times_rnd", error_size=5).load_state_dict(saved)
    with pytest.raises(InputError, match="combined: episodic, global were saved, and the parts are a, b"):
        Combined({"a": named("rnd"), "b": named("rnd")}).load_state_dict(saved)
    scaled = RandomDistillation(mlp([3, 2], seed=0), mlp([3, 2], seed=1), scale_obs=True)
    with pytest.raises(InputError, match="it was saved with another `scale_obs`"):
        scaled.load_state_dict(named("rnd").state_dict())


def test_an_unknown_name_is_told_what_there_is():
    with pytest.raises(InputError, match=r"no bonus .e3b_time_rnd.. Did you mean .e3b_times_rnd.*bonuses: global"):
        named("e3b_time_rnd")


def test_settings_of_names_matter():
    """Each setting, read by some bonus, changes what it pays, before or after it has learned."""
    walk = random_walk(6, 3, seed=1)
    walk.keys, walk.last_keys = walk.keys % 2, walk.last_keys % 2

    def lived(name, **others):
        bonus = named(name, **others)
        walk.start(bonus)
        first = bonus.score(walk.rollout(0, 3))
        bonus.learn(walk.rollout(0, 3), Rng(()))
        return torch.cat([first, bonus.score(walk.rollout(3))])

    for name, others in [
        ("e3b", {"ridge": 0.5}),
        ("noveld", {"c": 0.9}),
        ("episodic_plus_global_count", {"weight": 0.5}),
        ("agac", {"weight": 0.5}),
        ("e3b_plus_rnd", {"weight": 0.5}),
        ("rnd", {"lr": 0.1}),
        ("rnd", {"epochs": 3}),
        ("rnd", {"parts": 1}),
        ("rnd", {"error_size": 5}),
        ("e3b", {"lr": 0.1}),
        ("ride", {"epochs": 3}),
    ]:
        assert not torch.equal(lived(name, **others), lived(name)), (name, others)


# Bad input


def rollout(**others):
    fields = {
        "obs": torch.zeros(3, 2, 1),
        "action": torch.zeros(2, 2, dtype=torch.int64),
        "terminated": torch.tensor([[True, False], [False, False]]),
        "truncated": torch.zeros(2, 2, dtype=torch.bool),
    }
    return Rollout(**{**fields, **others})


NAN = torch.zeros(3, 2, 1)
NAN[2, 1, 0] = torch.nan


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"obs": NAN}, r"`obs`\[2, 1, 0\] is nan. Novelty of what is not a number cannot be told; mend"),
        ({"final_obs": torch.full((1, 1), torch.inf)}, r"`final_obs`\[0, 0\] is inf"),
        ({"obs": torch.zeros(2, 2, 1)}, r"`obs` is float32 \[2, 2, 1\]; it must begin with \[3, 2\]: one more"),
        ({"action": torch.zeros(2, 2)}, r"`action` is float32 \[2, 2\]; it must be int64 .*discrete actions"),
        ({"truncated": torch.zeros(2, 2)}, r"`truncated` is float32 \[2, 2\]; it must be bool \[2, 2\]"),
        ({"final_obs": torch.zeros(2, 1)}, r"`final_obs` is float32 \[2, 1\]; 1 episodes ended, so it must be"),
        ({"keys": {"pos": torch.zeros(3, 2)}}, "the keys 'pos' are torch.float32; a key is an int64.*round what"),
        ({"keys": {"pos": torch.zeros(2, 2).long()}}, r"the keys 'pos' are int64 \[2, 2\]; they must be \[3, 2\]"),
        ({"final_keys": {"pos": torch.zeros(2).long()}}, r"the keys 'pos' are int64 \[2\]; they must be \[1\]"),
        ({"logits": torch.zeros(2, 2)}, r"`logits` is float32 \[2, 2\]; it must be \[2, 2, A\]"),
    ],
)
def test_rollouts_that_cannot_be(others, message):
    with pytest.raises(InputError, match=message):
        rollout(**others)


def test_a_state_that_was_entered_is_the_last_of_its_own_episode():
    steps = path([[1.0], [2.0], [3.0]], ends=[0], final=[[9.0]])
    assert steps.entered(steps.obs, steps.final_obs).flatten().tolist() == [9, 3]
    assert steps.known(steps.final_obs).flatten().tolist() == [True, True]
    assert steps.known(None).flatten().tolist() == [False, True]
    assert steps.obs.flatten().tolist() == [1, 2, 3]  # untouched


def test_the_room_loads_no_language_model_code():
    code = "import sys, reckon.explore; assert not {'transformers', 'peft', 'reckon.models'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
