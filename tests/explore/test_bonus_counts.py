"""Counts in episodes and over training, and their keys: the specification's numbers, and naive counting as oracle."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from walks import paid, path, random_walk

from reckon.errors import InputError
from reckon.explore import Combined, EpisodicCount, GlobalCount, Rollout, check_contexts, key_of

START, A, B = 9, 0, 1


def counted(keys, **others):
    """A path whose observations say nothing."""
    return path([[0.0]] * len(keys), keys=keys, **others)


# S -> A -> B -> A, the episode ends there; S -> A. Section 6 of the specification.
ABA_A = {"keys": [START, A, B, START, A], "ends": [2], "final": [[0.0]], "final_keys": [A]}


@pytest.mark.parametrize("truncated", [False, True], ids=["terminated", "truncated"])
def test_a_b_a_in_one_episode_and_a_in_the_next(truncated):
    rollout = counted(**ABA_A, truncated=truncated)
    assert paid(EpisodicCount(), rollout) == [1, 1, 0, 1]
    assert paid(GlobalCount(), rollout) == pytest.approx([1, 1, 0.70711, 0.57735], abs=1e-5)
    both = Combined({"episodic": EpisodicCount(), "global": GlobalCount()})
    assert paid(both, rollout) == pytest.approx([1, 1, 0, 0.57735], abs=1e-5)


def test_other_worths_of_a_count():
    """N_e of A is 1, then 2; of B 1."""
    rollout = counted(**ABA_A)
    assert paid(EpisodicCount(how="sqrt"), rollout) == pytest.approx([1, 1, 0.70711, 1], abs=1e-5)
    assert paid(EpisodicCount(how="inverse"), rollout) == [1, 1, 0.5, 1]
    assert paid(GlobalCount(how="inverse"), rollout) == pytest.approx([1, 1, 1 / 2, 1 / 3])


def test_coming_back_to_the_first_state_is_not_new():
    rollout = counted([START, A, START])
    assert paid(EpisodicCount(), rollout) == [1, 0]
    assert paid(GlobalCount(), rollout) == pytest.approx([1, 0.70711], abs=1e-5)


def test_what_an_episode_ended_with_is_paid_nothing_where_it_is_not_at_hand():
    """And is not counted, nor is the next episode's first state taken for it: S again, then A for the second time."""
    rollout = counted([START, A, START, A, START], ends=[1])
    assert paid(EpisodicCount(), rollout) == [1, 0, 1, 0]
    # S: first of two episodes and entered once: 3. A: entered twice.
    assert paid(GlobalCount(), rollout) == pytest.approx([1, 0, 0.70711, 0.57735], abs=1e-5)


def test_environments_that_enter_a_state_together_count_each_other():
    """Two begin at S, go to A at once, then one goes on to B and the other back to S, which two have begun at."""
    rollout = Rollout(
        obs=torch.zeros(3, 2, 1),
        action=torch.zeros(2, 2, dtype=torch.int64),
        terminated=torch.zeros(2, 2, dtype=torch.bool),
        truncated=torch.zeros(2, 2, dtype=torch.bool),
        keys={"pos": torch.tensor([[START, START], [A, A], [B, START]])},
    )
    bonus = GlobalCount()
    bonus.start(rollout.obs[0], {"pos": rollout.keys["pos"][0]})
    assert bonus.score(rollout).flatten().tolist() == pytest.approx([2**-0.5, 2**-0.5, 1, 3**-0.5])


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_naive_counting_finds_the_same(seed, steps, count, final):
    walk = random_walk(steps, count, seed=seed)
    rollout = walk.rollout(final=final)
    episodic, everywhere = EpisodicCount(how="inverse"), GlobalCount(how="inverse")
    for bonus in (episodic, everywhere):
        walk.start(bonus)
    found = [bonus.score(rollout) for bonus in (episodic, everywhere)]
    every, mine = Counter(walk.keys[0].tolist()), [[key] for key in walk.keys[0].tolist()]
    for t in range(steps):
        over = rollout.done[t].tolist()
        entered = [int(walk.last_keys[t, n] if over[n] else walk.keys[t + 1, n]) for n in range(count)]
        seen = [final or not over[n] for n in range(count)]
        every.update(key for key, known in zip(entered, seen, strict=True) if known)
        for n, key in enumerate(entered):
            mine[n].append(key)
            wanted = (1 / mine[n].count(key), 1 / every[key]) if seen[n] else (0, 0)
            assert (found[0][t, n].item(), found[1][t, n].item()) == pytest.approx(wanted)
            if over[n]:
                mine[n] = [int(walk.keys[t + 1, n])]
        every.update(int(walk.keys[t + 1, n]) for n in range(count) if over[n])


# Bad input


def test_keys_that_are_missing_or_floats_are_refused():
    rollout = counted([START, A])
    with pytest.raises(InputError, match=r"there are no keys 'msg' .there are: pos.. Count by what there is, or take"):
        paid(GlobalCount(key="msg"), rollout)
    with pytest.raises(InputError, match=r"the keys 'pos' are torch.float32; a key is an int64"):
        counted([0.5, 1.5])
    with pytest.raises(InputError, match=r"global_count: the keys 'pos' are torch.float64"):
        GlobalCount().start(torch.zeros(1, 1), {"pos": torch.zeros(1, dtype=torch.float64)})


def test_a_rollout_that_does_not_go_on_is_refused():
    rollout = counted([START, A])
    for bonus in (EpisodicCount(), GlobalCount()):
        with pytest.raises(InputError, match=r"no episode has begun. Call start"):
            bonus.score(rollout)
        bonus.start(torch.zeros(2, 1), {"pos": torch.tensor([START, START])})
        with pytest.raises(InputError, match="the rollout has 1 environments, and 2 were started"):
            bonus.score(rollout)
    bonus = EpisodicCount()
    bonus.start(torch.zeros(1, 1), {"pos": torch.tensor([B])})
    with pytest.raises(InputError, match=r"environment 0 in a state that its episode has not met. Score every rollout"):
        bonus.score(rollout)


def test_an_unknown_worth_is_refused():
    with pytest.raises(InputError, match="episodic_count: `how` is 'once'; it must be first, sqrt or inverse"):
        EpisodicCount(how="once")


# Keys


def test_integers_are_their_own_keys():
    assert key_of([3, -1, 2**63 - 1]).tolist() == [3, -1, 2**63 - 1]
    assert key_of(np.array([3, 4], dtype=np.uint8)).tolist() == [3, 4]
    assert key_of(torch.tensor([True, False])).tolist() == key_of([np.True_, np.False_]).tolist() == [1, 0]


def test_hashes_are_those_of_b2sum():
    """printf 'sgoal' | b2sum -l 64, and so on: the first byte is the kind, a tuple's parts tell their length."""
    digests = ["e227c376f41c0365", "de7c020707229f70"]
    wanted = [int.from_bytes(bytes.fromhex(digest), "big", signed=True) for digest in digests]
    assert key_of(["goal", (3, "abc")]).tolist() == wanted
    rows = np.array([[1, 2]], dtype=np.uint8)
    assert key_of(rows).tolist() == [int.from_bytes(bytes.fromhex("2d8c377aedfc6330"), "big", signed=True)]


def test_equal_things_have_equal_keys_in_another_process_too():
    things = ["a", b"a", ("a", "b"), ("ab",), (1, 2), (12,), None, 2**70]
    keys = key_of(things)
    assert len(set(keys.tolist())) == 8
    code = f"from reckon.explore import key_of; print(key_of({things!r}).tolist())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(keys.tolist())


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=20))
def test_rows_of_arrays_have_equal_keys_where_they_are_equal(rows):
    keys = key_of(np.array(rows, dtype=np.uint8)).tolist()
    assert [keys.index(key) for key in keys] == [rows.index(row) for row in rows]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 0.5], r"cell: row 1 is 0.5 \(float\), which cannot be a key. Floats are hardly.*int\(x // 0.1\)"),
        ([(1, 0.5)], r"cell: row 0 is 0.5 \(float\)"),
        (np.array([0.5]), "cell: an array of float64 has no keys. Floats are hardly ever equal"),
        (torch.tensor([[0.5]]), "cell: an array of float32 has no keys"),
        ([[1]], r"cell: row 0 is \[1\] \(list\), which cannot be a key"),
    ],
)
def test_a_key_function_that_returns_floats_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        key_of(values, "cell")


# Contexts


def test_contexts_without_seeding_are_refused():
    drawn = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"seed 3 began in two different ways.*Seed whatever makes the level"):
        check_contexts(lambda seed: drawn.normal(size=4), [3, 5])
    check_contexts(lambda seed: np.random.default_rng(seed).normal(size=4), [3, 5])


def test_a_generator_that_only_goes_on_is_found_out():
    """Reset with a seed, it tells one level from the other, but by when it was asked and not by the seed."""
    levels = iter([0, 1, 2, 3])
    with pytest.raises(InputError, match="seed 0 began in two"):
        check_contexts(lambda seed: [next(levels)], [0, 1])
