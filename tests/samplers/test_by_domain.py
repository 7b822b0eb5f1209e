"""Samplers by domain: running means, buffers, fixed shares, balance."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampler_worlds import Domains, assert_resumes, counts, ids, seen_by_domain, seen_of

from reckon.errors import InputError, RunError
from reckon.samplers import Balanced, DomainBuffer, DomainSampler, FixedDomains, Uniform, domain_weights
from reckon.types import Rng, Stateful

NAN = float("nan")
RNG = Rng((0, "test"))


def means(sampler):
    return sampler.state_dict()["means"]


# --- the running mean


def test_the_mean_from_zero_and_from_the_first():
    from_zero, from_first = (DomainSampler(Domains(a=3), start=start) for start in ("zero", "first"))
    found = []
    for _ in range(4):
        told = from_zero.learn(seen_by_domain(a=0.4))
        from_first.learn(seen_by_domain(a=0.4))
        found.append(means(from_zero)[0])
        assert told["sampler/accuracy/a"] == means(from_zero)[0]
        assert means(from_first)[0] == pytest.approx(0.4)
    assert found == pytest.approx([0.2, 0.3, 0.35, 0.375])


def test_alpha_weighs_the_past():
    sampler = DomainSampler(Domains(a=3), alpha=0.75)
    sampler.learn(seen_by_domain(a=0.4))
    sampler.learn(seen_by_domain(a=1.0))
    assert means(sampler)[0] == pytest.approx(0.75 * 0.1 + 0.25 * 1.0)


def test_weights_follow_the_means_of_the_specification():
    sampler = DomainSampler(Domains(a=99, b=99, c=99), alpha=0.0)
    assert sampler.weights == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert counts(sampler.draw(64, RNG), "abc") == [22, 21, 21]
    told = sampler.learn(seen_by_domain(a=0.9, b=0.5, c=0.1))
    assert told["sampler/weight/c"] == pytest.approx(1 / 3)  # that this step was drawn by
    assert sampler.weights == pytest.approx({"a": 0.128425, "b": 0.273903, "c": 0.597672}, abs=5e-7)
    assert counts(sampler.draw(64, RNG), "abc") == [8, 17, 39]
    assert sampler.learn(seen_by_domain(a=0.9))["sampler/weight/c"] == pytest.approx(0.597672, abs=5e-7)


def test_the_mean_is_over_all_rollouts_with_a_known_outcome():
    sampler, task = DomainSampler(Domains(a=3, b=3), alpha=0.0), Domains(a=3, b=3).problems("train")
    sampler.learn(seen_of([task[0], task[0], task[1], task[2]], [1, 0, NAN, 0]))
    assert means(sampler) == pytest.approx([1 / 3, 0])
    sampler.learn(seen_by_domain(a=NAN, b=1.0))  # nothing is known of a, which keeps its mean
    assert means(sampler) == pytest.approx([1 / 3, 1])


def test_a_domain_without_problems_for_100_steps_keeps_its_mean_and_comes_back():
    sampler = DomainSampler(Domains(a=50, b=50), tau=0.1, eps=0.0)
    for _ in range(20):
        sampler.learn(seen_by_domain(a=0.9, b=0.1))
    before, weights = means(sampler)[0], sampler.weights
    for step in range(100):
        assert counts(sampler.draw(4, Rng((0, step))), "ab") == [0, 4]
        sampler.learn(seen_by_domain(b=0.1))
    assert means(sampler)[0] == before
    assert sampler.weights["a"] == pytest.approx(weights["a"], rel=1e-3)
    assert sampler.weights["a"] > 0
    for _ in range(20):
        sampler.learn(seen_by_domain(b=1.0))
    assert counts(sampler.draw(4, RNG), "ab") == [3, 1]  # exp(1) : exp(0) of 4 is 2.9 : 1.1


def test_a_floor_is_kept_where_eps_is_not_enough():
    sampler = DomainSampler(Domains(a=50, b=50, c=50), tau=0.05, floor=0.2)
    for _ in range(9):
        sampler.learn(seen_by_domain(a=1.0, b=1.0, c=0.0))
    assert sampler.weights == pytest.approx({"a": 0.2, "b": 0.2, "c": 0.6}, abs=1e-6)


def test_the_shuffled_control_hands_the_same_weights_to_others():
    sampler = DomainSampler(Domains(a=99, b=99, c=99), alpha=0.0, control="shuffled")
    sampler.learn(seen_by_domain(a=0.9, b=0.5, c=0.1))
    found = [tuple(counts(sampler.draw(64, Rng((step,))), "abc")) for step in range(60)]
    assert {tuple(sorted(one)) for one in found} == {(8, 17, 39)}
    assert len(set(found)) == 6  # every order
    told = sampler.learn(seen_by_domain(a=0.9))
    assert sorted(told[f"sampler/weight/{d}"] for d in "abc") == pytest.approx(sorted(sampler.weights.values()))


def test_the_inverted_control_favors_what_goes_well():
    sampler = DomainSampler(Domains(a=99, b=99, c=99), alpha=0.0, control="inverted")
    sampler.learn(seen_by_domain(a=0.9, b=0.5, c=0.1))
    assert counts(sampler.draw(64, RNG), "abc") == [39, 17, 8]


def test_numbers_for_every_domain():
    sampler, task = DomainSampler(Domains(a=4, b=1), alpha=0.5), Domains(a=4, b=1).problems("train")
    sampler.draw(4, RNG)
    told = sampler.learn(seen_of([task[0], task[1], task[2], task[4]], [1, 1, 0, NAN]))
    assert told == pytest.approx(
        {
            "sampler/share/a": 0.75,
            "sampler/share/b": 0.25,
            "sampler/weight/a": 0.5,
            "sampler/weight/b": 0.5,
            "sampler/accuracy/a": 1 / 3,
            "sampler/accuracy/b": 0.0,
            "sampler/passes/a": 2 / 4,
            "sampler/passes/b": 2 / 1,
        }
    )


# --- draws


@pytest.mark.parametrize("make", [DomainSampler, DomainBuffer, FixedDomains])
def test_no_problem_of_a_domain_comes_twice_in_a_pass_of_it(make):
    sampler = make(Domains(a=10, b=4))
    drawn = [problem.id for step in range(20) for problem in sampler.draw(4, Rng((1, step)))]
    for name, size in (("a", 10), ("b", 4)):
        own = [one for one in drawn if one.startswith(name)]
        passes = [own[i : i + size] for i in range(0, len(own), size)]
        assert all(len(set(one)) == len(one) for one in passes)
        assert len(own) == 40
        assert passes[0] != passes[1]


def test_a_domain_smaller_than_its_share_repeats_so_that_the_batch_is_whole():
    drawn = FixedDomains(Domains(a=50, b=2)).draw(20, RNG)
    assert counts(drawn, "ab") == [10, 10]
    assert sorted(one for one in ids(drawn) if one[0] == "b") == ["b0"] * 5 + ["b1"] * 5


def test_domains_are_mixed_within_a_batch():
    drawn = [problem.domain for problem in FixedDomains(Domains(a=50, b=50)).draw(40, RNG)]
    assert drawn[:20] != ["a"] * 20
    assert sum(one != other for one, other in pairwise(drawn)) > 5


@pytest.mark.parametrize("make", [DomainSampler, DomainBuffer, FixedDomains, Balanced])
def test_the_seed_decides(make):
    def drawn(seed):
        sampler = make(Domains(a=10, b=4))
        return [ids(sampler.draw(6, Rng((seed, step)))) for step in range(4)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@given(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=3, max_size=3), st.permutations("abc"))
def test_permuting_the_domains_of_a_task_permutes_what_they_get(accuracy, order):
    of = dict(zip("abc", accuracy, strict=True))
    one = DomainSampler(Domains(a=5, b=5, c=5))
    other = DomainSampler(Domains(**dict.fromkeys(order, 5)))
    for _ in range(3):
        one.learn(seen_by_domain(**of))
        other.learn(seen_by_domain(**{name: of[name] for name in order}))
    assert one.weights == pytest.approx(other.weights)


RESUMED = {
    "running mean": lambda: DomainSampler(Domains(a=10, b=4, c=2), start="first"),
    "shuffled": lambda: DomainSampler(Domains(a=10, b=4, c=2), control="shuffled", rounding="chance"),
    "buffer": lambda: DomainBuffer(Domains(a=10, b=4, c=2), size=2, every=2),
    "fixed": lambda: FixedDomains(Domains(a=10, b=4, c=2), weights={"a": 1, "b": 2, "c": 3}),
    "balanced": lambda: Balanced(Domains(a=10, b=4, c=2)),
}


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_at_any_step_it_goes_on_as_if_nothing_had_happened(name):
    assert isinstance(RESUMED[name](), Stateful)
    assert_resumes(RESUMED[name], lambda problem, step: {"a": 0.9, "b": 0.5, "c": 0.1}[problem.domain] * (step % 2))


@pytest.mark.parametrize("make", [DomainSampler, DomainBuffer, FixedDomains])
def test_other_domains_cannot_be_resumed(make):
    state = json.loads(json.dumps(make(Domains(a=3, b=3)).state_dict()))
    with pytest.raises(RunError, match="had the domains a, b when the run was saved and has a, c now"):
        make(Domains(a=3, c=3)).load_state_dict(state)
    with pytest.raises(RunError, match="had 3 problems when the run was saved and has 4 now"):
        make(Domains(a=3, b=4)).load_state_dict(state)


# --- the buffer


def test_the_buffer_against_sums_by_hand():
    """Newest first, decays 1, 1/2, 1/3: domain a (1 + .5/2 + 0/3)/3, b (.5 + 1/2 + .5/3)/3, of a target of 11/18."""
    sampler = DomainBuffer(Domains(a=9, b=9), size=3, every=3, tau=0.3)
    for a, b in ((0.7, 0.7), (0.2, 0.1), (0.4, 0.4), (0.0, 0.5), (0.5, 1.0)):
        sampler.learn(seen_by_domain(a=a, b=b))
    told = sampler.learn(seen_by_domain(a=1.0, b=0.5))
    a, b = (1 + 0.25) / 3, (0.5 + 0.5 + 0.5 / 3) / 3
    assert means(sampler) == pytest.approx([a, b])
    assert (told["sampler/accuracy/a"], told["sampler/accuracy/b"]) == pytest.approx((a, b))
    unnormalized = np.exp(np.array([11 / 18 - a, 11 / 18 - b]) / 0.3)
    assert list(sampler.weights.values()) == pytest.approx((unnormalized / unnormalized.sum()).tolist())


@pytest.mark.parametrize(
    ("decay", "target"),
    [("harmonic", (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4), ("geometric", 1.875 / 4), ("none", 1.0)],
)
def test_the_target_is_what_a_domain_that_is_always_right_reaches(decay, target):
    """0.5208 and 0.46875 with four steps held. One that is always wrong is that far from it, in units of tau."""
    sampler = DomainBuffer(Domains(a=9, b=9), size=4, every=4, tau=0.5, decay=decay)
    for _ in range(4):
        sampler.learn(seen_by_domain(a=1.0, b=0.0))
    assert means(sampler) == pytest.approx([target, 0])
    assert sampler.weights["b"] / sampler.weights["a"] == pytest.approx(np.exp(target / 0.5))


def test_the_buffer_changes_its_weights_only_every_so_often():
    sampler = DomainBuffer(Domains(a=9, b=9), every=3, size=2)
    found = []
    for _ in range(7):
        sampler.learn(seen_by_domain(a=1.0, b=0.0))
        found.append(sampler.weights["a"])
    assert found[0] == found[1] == 0.5
    assert found[2] < 0.5
    assert len(set(found)) == 2
    assert found[5] == pytest.approx(found[2])  # of two steps held, the same both times


def test_a_domain_in_none_of_the_steps_held_keeps_its_mean():
    sampler = DomainBuffer(Domains(a=9, b=9), every=1, size=1)
    sampler.learn(seen_by_domain(a=0.75))
    assert means(sampler) == pytest.approx([0.75, 0])
    sampler.learn(seen_by_domain(b=0.25))
    assert means(sampler) == pytest.approx([0.75, 0.25])


# --- fixed and balanced


def test_fixed_shares():
    sampler = FixedDomains(Domains(a=9, b=9, c=9), weights={"c": 6, "a": 3, "b": 0})
    assert counts(sampler.draw(9, RNG), "abc") == [3, 0, 6]
    told = sampler.learn(seen_by_domain(a=1.0, c=1.0))
    assert told["sampler/weight/c"] == pytest.approx(2 / 3)
    assert counts(sampler.draw(9, RNG), "abc") == [3, 0, 6]
    assert counts(FixedDomains(Domains(a=1, b=100)).draw(8, RNG), "ab") == [4, 4]


def test_balanced_brings_every_domain_to_the_mean_size():
    """Sizes 12, 5 and 1 have a mean of 6."""
    sampler = Balanced(Domains(a=12, b=5, c=1))
    first, second = (ids(sampler.draw(18, Rng((0, step)))) for step in range(2))
    assert sorted(first) == sorted(second)
    assert first != second
    assert [sum(one[0] == name for one in first) for name in "abc"] == [6, 6, 6]
    assert len({one for one in first if one[0] == "a"}) == 6  # the others are never posed
    assert {one for one in first if one[0] == "b"} == {f"b{i}" for i in range(5)}
    assert first.count("c0") == 6
    assert sampler.learn(seen_by_domain(a=1.0)) == {"sampler/passes": 2.0}


def test_one_domain_is_as_good_as_none():
    """With a single domain every sampler by domain poses each problem once a pass, as `Uniform` does."""
    for make in (DomainSampler, DomainBuffer, FixedDomains, Balanced, Uniform):
        sampler = make(Domains(a=6))
        assert sorted(ids(sampler.draw(6, RNG))) == [f"a{i}" for i in range(6)]


# --- bad input


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (DomainSampler, {"alpha": 1.0}, "domain_sampler: `alpha` is 1.0; it must be 0 or more and below 1"),
        (DomainSampler, {"tau": 0.0}, "domain_sampler: `tau` is 0.0; it must be above 0"),
        (DomainSampler, {"tau": NAN}, "`tau` is nan"),
        (DomainSampler, {"eps": -0.1}, "`eps` is -0.1; it must be 0 or more"),
        (DomainSampler, {"floor": 0.6}, "`floor` is 0.6; with 2 domains it must lie between 0 and 0.5"),
        (DomainSampler, {"start": "second"}, "`start` is 'second'; it must be zero or first"),
        (DomainSampler, {"rounding": "up"}, "`rounding` is 'up'; it must be heaviest or chance"),
        (DomainSampler, {"control": "random"}, "`control` is 'random'; it must be none, shuffled or inverted"),
        (DomainBuffer, {"size": 0}, "domain_buffer: `size` is 0 and `every` is 8; both must be 1 or more"),
        (DomainBuffer, {"every": 0}, "`size` is 4 and `every` is 0"),
        (DomainBuffer, {"decay": "linear"}, "`decay` is 'linear'; it must be harmonic, geometric or none"),
        (DomainBuffer, {"tau": -1.0}, "domain_buffer: `tau` is -1.0"),
        (FixedDomains, {"weights": {"a": 1}}, "for each of the domains a, b and no other; look at b"),
        (FixedDomains, {"weights": {"a": 1, "b": 1, "c": 1}}, "and no other; look at c"),
        (FixedDomains, {"weights": {"a": 1, "b": -1}}, "each must be 0 or more, and one above 0"),
        (FixedDomains, {"weights": {"a": 0, "b": 0}}, "each must be 0 or more, and one above 0"),
        (FixedDomains, {"weights": {"a": NAN, "b": 1}}, "each must be 0 or more, and one above 0"),
        (FixedDomains, {"rounding": "up"}, "fixed_domains: `rounding` is 'up'"),
    ],
)
def test_refused(make, settings, message):
    with pytest.raises(InputError, match=message):
        make(Domains(a=3, b=3), **settings)


@pytest.mark.parametrize("make", [DomainSampler, DomainBuffer, FixedDomains, Balanced])
def test_an_empty_split_is_refused(make):
    with pytest.raises(InputError, match="'domains' has no problem in its split 'dev'"):
        make(Domains(), split="dev")


def test_weights_are_those_of_the_pure_function():
    sampler = DomainSampler(Domains(a=3, b=3), tau=0.8, eps=0.2, floor=0.1)
    sampler.learn(seen_by_domain(a=0.6, b=0.2))
    wanted = domain_weights([0.3, 0.1], tau=0.8, eps=0.2, floor=0.1)
    assert list(sampler.weights.values()) == pytest.approx(wanted, abs=1e-6)
