"""What a running mean may be told beside its rule: when weights change, how they begin, what is valued, bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampler_worlds import Domains, assert_resumes, counts, seen_by_domain, seen_of

from reckon.errors import InputError
from reckon.samplers import DomainSampler, domain_weights
from reckon.samplers._weights import capped_weights, initial_weights
from reckon.types import Rng

NAN = float("nan")
RNG = Rng((0, "test"))


def weights(sampler):
    return list(sampler.weights.values())


def test_left_alone_it_is_the_papers_rule_to_the_last_bit():
    sampler, means = DomainSampler(Domains(a=9, b=3, c=1)), [0.0] * 3
    for step in range(9):
        assert weights(sampler) == domain_weights(means, tau=0.5, eps=0.1)
        accuracy = [0.9 / (step + 1), 0.5, 0.125 * step % 1]
        seen = seen_by_domain(**dict(zip("abc", accuracy, strict=True)))
        sampler.learn(seen)
        means = [0.5 * m + (1 - 0.5) * sum(seen.outcome[2 * d : 2 * d + 2].tolist()) / 2 for d, m in enumerate(means)]


# --- when weights change


def test_weights_change_every_so_often_and_means_at_every_step():
    """Means .5, .25, .625 of a and 0 of b: in the end exp(.375 / .5) : exp(1 / .5) = 1 : exp(1.25) = 1 : 3.490343."""
    sampler = DomainSampler(Domains(a=9, b=9), every=3, eps=0.0)
    means, found = [], []
    for a in (1.0, 0.0, 1.0, 1.0):
        means.append(sampler.learn(seen_by_domain(a=a, b=0.0))["sampler/accuracy/a"])
        found.append(sampler.weights["a"])
    assert means == [0.5, 0.25, 0.625, 0.8125]
    assert found == pytest.approx([0.5, 0.5, 0.222700, 0.222700], abs=5e-7)


# --- how they begin


def test_they_begin_by_the_sizes_of_the_domains():
    """1/10, 1/5, 1/2 of their sum .8, and exp of these: 1.105171, 1.221403, 1.648721 of 3.975295."""
    sizes = [100, 25, 4]
    assert initial_weights(sizes, "inverse") == pytest.approx([0.125, 0.25, 0.625])
    assert initial_weights(sizes, "softmax_inverse") == pytest.approx([0.278010, 0.307248, 0.414742], abs=5e-7)
    assert initial_weights(sizes, "inverse", floor=0.2) == pytest.approx([0.25, 0.3, 0.45])  # .2 + .4 of each
    nearly = initial_weights([200, 400, 800], "softmax_inverse")  # as the specification says
    assert nearly == pytest.approx([1 / 3] * 3, rel=0.03)
    assert nearly != pytest.approx([1 / 3] * 3, rel=0.003)


@pytest.mark.parametrize(("initial", "wanted"), [("average", [6, 5, 5]), ("inverse", [2, 4, 10])])
def test_the_first_problems_are_drawn_by_them_and_later_ones_by_the_rule(initial, wanted):
    sampler, plain = (DomainSampler(Domains(a=100, b=25, c=4), initial=how) for how in (initial, "average"))
    assert counts(sampler.draw(16, RNG), "abc") == wanted
    for each in (sampler, plain):
        each.learn(seen_by_domain(a=0.2, b=0.4, c=0.9))
    assert weights(sampler) == weights(plain)


def test_they_last_until_the_first_change():
    sampler = DomainSampler(Domains(a=100, b=25, c=4), initial="inverse", every=2)
    sampler.learn(seen_by_domain(a=0.2, b=0.4, c=0.9))
    assert weights(sampler) == pytest.approx([0.125, 0.25, 0.625])
    sampler.learn(seen_by_domain(a=0.2, b=0.4, c=0.9))
    assert weights(sampler)[0] > weights(sampler)[2]


# --- what is valued


def test_levels_say_how_far_a_domain_is_from_what_it_can_reach():
    """(1 - .75) / (1 - .5) = .5 and (1 - .5) / (1 - .25) = 2/3: exp(1) : exp(4/3) = 2.718282 : 3.793668."""
    task, levels = Domains(a=9, b=9), {"a": (0.5, 1.0), "b": (0.25, 1.0)}
    sampler = DomainSampler(task, alpha=0.0, eps=0.0, levels=levels)
    sampler.learn(seen_by_domain(a=0.75, b=0.5))
    assert weights(sampler) == pytest.approx([0.417430, 0.582570], abs=5e-7)
    plain = DomainSampler(task, alpha=0.0, eps=0.0)
    plain.learn(seen_by_domain(a=0.75, b=0.5))
    assert plain.weights["b"] > sampler.weights["b"]  # to which a chance of one in two looks like skill


def test_a_domain_at_its_ceiling_gets_what_one_that_is_always_right_gets():
    """(.8 - .8) / .8 = 0 and 1 - 0.5: 1 : e. A domain without levels goes from 0 to 1."""
    sampler = DomainSampler(Domains(a=9, b=9), alpha=0.0, eps=0.0, levels={"a": (0.0, 0.8)})
    sampler.learn(seen_by_domain(a=0.8, b=0.5))
    assert weights(sampler) == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)], abs=1e-6)


def test_with_levels_a_mean_begins_at_chance():
    sampler = DomainSampler(Domains(a=9, b=9), levels={"a": (0.5, 1.0)})
    assert weights(sampler) == [0.5, 0.5]
    told = sampler.learn(seen_by_domain(a=0.75))
    assert told["sampler/accuracy/a"] == 0.625
    assert told["sampler/accuracy/b"] == 0.0


def test_a_variance_is_little_where_all_is_right_and_where_all_is_wrong():
    """.09, .25, .09 and 0: exp(.18) = 1.197217 twice, exp(.5) = 1.648721 and 1, of 5.043156."""
    found = domain_weights([0.9, 0.5, 0.1, 0.0], tau=0.5, value="variance")
    assert found == pytest.approx([0.2373945, 0.3269225, 0.2373945, 0.1982886], abs=5e-7)
    turned = domain_weights([0.9, 0.5, 0.1, 0.0], tau=0.5, value="variance", invert=True)
    wanted = np.exp([0.32, 0.0, 0.32, 0.5])  # 1/4 less each, over tau
    assert turned == pytest.approx((wanted / wanted.sum()).tolist())
    sampler = DomainSampler(Domains(a=9, b=9, c=9, d=9), alpha=0.0, eps=0.0, value="variance")
    sampler.learn(seen_by_domain(a=0.9, b=0.5, c=0.1, d=0.0))
    assert weights(sampler) == pytest.approx(found, abs=1e-6)


def test_a_variance_beyond_chance_or_ceiling_is_none():
    outside, ends = (
        domain_weights(levels, tau=0.1, value="variance") for levels in ([-0.2, 1.3, 0.5], [0.0, 1.0, 0.5])
    )
    assert outside == ends


# --- bounds


@pytest.mark.parametrize(
    ("caps", "wanted"),
    [
        ([1.0, 1.0, 1.0], [0.6, 0.3, 0.1]),
        ([0.5, 0.5, 0.5], [0.5, 0.375, 0.125]),  # the .1 that is too much as 3 : 1
        ([0.4, 0.4, 0.4], [0.4, 0.4, 0.2]),  # .45 would be too much in its turn
        ([0.2, 0.9, 0.15], [0.2, 0.65, 0.15]),  # .8 as 3 : 1 would be .2 of the last
        ([1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_what_is_too_much_goes_to_the_others_by_their_weights(caps, wanted):
    assert capped_weights([0.6, 0.3, 0.1], caps) == pytest.approx(wanted)


def test_others_that_have_nothing_share_alike():
    assert capped_weights([1.0, 0.0, 0.0], [0.5, 0.5, 0.5]) == [0.5, 0.25, 0.25]


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.05, 1)), min_size=2, max_size=8))
def test_capped_weights_obey_their_caps(pairs):
    raw, most = (np.array(one) for one in zip(*pairs, strict=True))
    before, caps = (raw / raw.sum()).tolist(), (most * max(1.0, 1.001 / most.sum())).tolist()
    after = capped_weights(before, caps)
    assert sum(after) == pytest.approx(1)
    assert all(weight <= cap + 1e-12 for weight, cap in zip(after, caps, strict=True))
    free = [(b, a) for b, a, cap in zip(before, after, caps, strict=True) if a < cap - 1e-9]
    assert all(a / b == pytest.approx(free[0][1] / free[0][0]) for b, a in free)  # the others keep their proportions
    assert all(a >= b - 1e-12 for b, a in free)
    assert capped_weights(after, caps) == pytest.approx(after)


def test_a_cap_bounds_what_cannot_be_learned():
    sampler = DomainSampler(Domains(a=50, b=50, c=50), cap=0.4, tau=0.2)
    for _ in range(9):
        sampler.learn(seen_by_domain(a=1.0, b=1.0, c=0.0))
    assert weights(sampler) == pytest.approx([0.3, 0.3, 0.4])
    assert counts(sampler.draw(10, RNG), "abc") == [3, 3, 4]


def test_no_problem_comes_more_often_than_its_repeats():
    """Of 100 problems a domain of 5 that is always wrong has at most 2 x 5 of 100: 2 of 20 at every step."""
    sampler, free = (DomainSampler(Domains(a=80, b=15, c=5), repeats=repeats) for repeats in (2.0, None))
    for step in range(30):
        for each in (sampler, free):
            each.draw(20, Rng((0, step)))
            told = each.learn(seen_by_domain(a=1.0, b=0.5, c=0.0))
            if each is sampler:
                assert told["sampler/passes/c"] == (step + 1) * 2 / 5  # twice the (step + 1) / 5 of all
                assert told["sampler/weight/b"] <= 0.3
    assert told["sampler/passes/c"] > 3 * 30 / 5


def test_repeats_of_1_are_the_shares_of_the_sizes():
    sampler = DomainSampler(Domains(a=80, b=15, c=5), repeats=1.0)
    for _ in range(2):
        assert weights(sampler) == pytest.approx([0.8, 0.15, 0.05])
        sampler.learn(seen_by_domain(a=1.0, b=0.5, c=0.0))


def test_the_shuffled_control_keeps_to_the_bounds():
    sampler = DomainSampler(Domains(a=80, b=15, c=5), alpha=0.0, control="shuffled", repeats=2.0)
    sampler.learn(seen_by_domain(a=0.0, b=1.0, c=1.0))
    found = {tuple(counts(sampler.draw(20, Rng((step,))), "abc")) for step in range(40)}
    assert len(found) > 1
    assert all(b <= 6 and c <= 2 for _, b, c in found)


# --- the mean of few problems


def test_a_mean_waits_for_its_least_number_of_problems():
    """Two steps of 2 problems: (1 + 0 + 1 + 1) / 4 is averaged in at the second, half of it into a mean of 0."""
    sampler, task = DomainSampler(Domains(a=9, b=9), least=3), Domains(a=9, b=9).problems("train")
    assert sampler.learn(seen_of(task[:2], [1.0, 0.0]))["sampler/accuracy/a"] == 0.0
    assert weights(sampler) == [0.5, 0.5]
    assert sampler.learn(seen_of(task[2:4], [1.0, 1.0]))["sampler/accuracy/a"] == 0.375
    assert sampler.learn(seen_of(task[4:6], [1.0, 1.0]))["sampler/accuracy/a"] == 0.375  # begins to wait anew
    assert sampler.learn(seen_of(task[6:8], [1.0, 1.0]))["sampler/accuracy/a"] == 0.6875


def test_many_answers_to_one_problem_are_one_problem_and_unknown_ones_are_none():
    sampler, task = DomainSampler(Domains(a=9), least=2, alpha=0.0), Domains(a=9).problems("train")
    assert sampler.learn(seen_of([task[0]] * 4, [1.0, 0.0, 0.0, 0.0]))["sampler/accuracy/a"] == 0.0
    assert sampler.learn(seen_of([task[1]], [NAN]))["sampler/accuracy/a"] == 0.0
    assert sampler.learn(seen_of([task[2]], [1.0]))["sampler/accuracy/a"] == 2 / 5


# --- resuming, and bad input


def test_it_resumes_exactly_with_all_of_them():
    levels = {"a": (0.25, 1.0), "b": (0.0, 0.75)}
    assert_resumes(
        lambda: DomainSampler(
            Domains(a=10, b=4, c=2),
            least=3,
            every=2,
            initial="inverse",
            value="variance",
            levels=levels,
            tau=0.1,
            cap=0.6,
            repeats=3.0,
        ),
        lambda problem, step: {"a": 0.9, "b": 0.5, "c": 0.1}[problem.domain] * (step % 2),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"least": 0}, "`least` is 0 and `every` 1; both must be 1 or more"),
        ({"every": 0}, "`least` is 1 and `every` 0"),
        ({"initial": "size"}, "`initial` is 'size'; it must be average, inverse or softmax_inverse"),
        ({"value": "worst"}, "`value` is 'worst'; it must be gap or variance"),
        ({"cap": 0.4}, "`cap` is 0.4; with 2 domains it must be from 0.5 to 1"),
        ({"cap": 1.5}, "`cap` is 1.5"),
        ({"cap": NAN}, "`cap` is nan"),
        ({"repeats": 0.9}, "`repeats` is 0.9; it must be 1 or more"),
        ({"repeats": NAN}, "`repeats` is nan"),
        ({"repeats": 1.0, "cap": 0.6}, "with `cap` 0.6 and `repeats` 1.0 the domains could have no more than 0.85 of"),
        ({"repeats": 1.2, "floor": 0.4}, "`floor` is 0.4, but .* the domain 'b' can have no more than 0.3"),
        ({"levels": {"c": (0.0, 1.0)}}, "`levels` has 'c', which is no domain of the split. Domains: a, b"),
        ({"levels": {"a": (0.5, 0.5)}}, "`levels` of 'a' are 0.5 and 0.5; they must be the accuracy of chance"),
        ({"levels": {"a": (-0.1, 0.5)}}, "`levels` of 'a' are -0.1 and 0.5"),
        ({"levels": {"a": (0.0, NAN)}}, "`levels` of 'a' are 0.0 and nan"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(InputError, match=f"domain_sampler: .*{message}"):
        DomainSampler(Domains(a=6, b=2), **settings)
