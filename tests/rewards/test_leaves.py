import math

import pytest
import torch

from reckon.errors import InputError, RunError
from reckon.rewards import AdaptiveKLReward, KLReward, Sum, Verifier
from reckon.types import LearningReward, Outputs, Reporting, Rng

NAN = float("nan")


def test_verifier_hands_the_verdict_on_and_keeps_the_unknown_unknown(make_batch, values):
    batch = make_batch(["a"] * 4, outcomes=[1, 0, 0.25, NAN])
    assert values(Verifier(), batch)[:3] == [1, 0, 0.25]
    assert values(Verifier(right=1, wrong=-1), batch)[:3] == [1, -1, -0.5]
    assert math.isnan(values(Verifier(), batch)[3])


@pytest.mark.parametrize(("right", "wrong"), [(0.0, 1.0), (1.0, 1.0), (math.inf, 0.0), (1.0, -math.inf), (NAN, 0.0)])
def test_verifier_refuses_a_scale_upside_down_or_of_one_value(right, wrong):
    with pytest.raises(InputError, match=rf"`right` \({right}\) must be larger than `wrong` \({wrong}\)"):
        Verifier(right=right, wrong=wrong)


class Scores:
    def __init__(self, logprobs):
        self.logprobs = logprobs

    def outputs(self, seq, want=("logprobs",)):
        assert tuple(want) == ("logprobs",)
        return Outputs(logprobs=self.logprobs)


def test_kl_reward_charges_each_token_for_its_own_distance(make_batch):
    policy = Scores(torch.tensor([[-1.0, -2.0, -math.inf], [-3.0, -9.0, -9.0]]))
    reference = Scores(torch.tensor([[-1.5, -1.0, -7.0], [-3.0, -7.0, -7.0]]))
    batch = make_batch(["ab", "c"], lengths=[2, 1])
    ((name, stream),) = KLReward(policy=policy, reference=reference, coef=0.1).score(batch).items()
    # -0.1 (-1 + 1.5), -0.1 (-2 + 1), nothing on padding whatever stands there; 0
    assert name == "kl_reward"
    assert stream.kind == "reward"
    assert torch.allclose(stream.values, torch.tensor([[-0.05, 0.1, 0.0], [0.0, 0.0, 0.0]]), atol=1e-7)


@pytest.mark.parametrize(("settings", "charged"), [({}, -0.05), ({"coef": 0}, 0.0)])
def test_kl_reward_s_default_and_none_at_all(make_batch, settings, charged):
    batch = make_batch(["a"], lengths=[1])
    policy, reference = Scores(torch.tensor([[-1.0, 0.0]])), Scores(torch.tensor([[-2.0, 0.0]]))
    values = KLReward(policy=policy, reference=reference, **settings).score(batch)["kl_reward"].values
    assert values.flatten().tolist() == pytest.approx([charged, 0])


def test_rounding_of_the_sampler_is_no_distance(make_batch):
    batch = make_batch(["a"], lengths=[1], logprobs=torch.tensor([[-1.02, 0.0]]))
    same = Scores(torch.tensor([[-1.0, 0.0]]))
    assert (KLReward(policy=same, reference=same).score(batch)["kl_reward"].values == 0).all()


@pytest.mark.parametrize("broken", [NAN, math.inf, -math.inf])
def test_log_probs_that_are_not_finite_end_the_run(make_batch, broken):
    """As an unknown reward they would charge nothing, and the coefficient that follows them would be lost for good."""
    batch = make_batch(["a"], lengths=[1])
    policy, reference = Scores(torch.tensor([[broken, 0.0]])), Scores(torch.zeros(1, 2))
    with pytest.raises(RunError, match=r"KLReward: the log-probs .* are not finite"):
        KLReward(policy=policy, reference=reference).score(batch)
    part = AdaptiveKLReward(policy=policy, reference=reference, target=1.0)
    with pytest.raises(RunError, match=r"AdaptiveKLReward: the log-probs .* are not finite"):
        part.assess(batch, Rng((0,)))
    assert part.state_dict() == {"coef": 0.05}


def test_kl_reward_refuses_a_coefficient_below_nothing():
    with pytest.raises(InputError, match=r"`coef` is -0.1"):
        KLReward(policy=Scores(None), reference=Scores(None), coef=-0.1)


def test_a_clamped_charge_pays_nothing_for_tokens_that_became_less_likely(make_batch):
    """Distances 0.5, -1 and, in the padding, infinity."""
    batch = make_batch(["ab"], lengths=[2])
    policy = Scores(torch.tensor([[-1.0, -2.0, math.inf]]))
    reference = Scores(torch.tensor([[-1.5, -1.0, 0.0]]))
    for part in (
        KLReward(policy=policy, reference=reference, coef=0.1, clamp=True),
        AdaptiveKLReward(policy=policy, reference=reference, coef=0.1, target=1.0, clamp=True),
    ):
        ((_, stream),) = part.score(batch).items()
        assert stream.values.flatten().tolist() == pytest.approx([-0.05, 0.0, 0.0])


# The coefficient that follows


def adaptive(distances, **settings):
    """A charge for given distances [N, T]."""
    scores = torch.tensor(distances)
    return AdaptiveKLReward(policy=Scores(scores), reference=Scores(torch.zeros_like(scores)), **settings)


@pytest.mark.parametrize(
    ("distances", "kl", "coef"),  # target 2, coefficient 0.1, 2 responses, horizon 4: times 1 + e / 2
    [
        ([[1.0, 1.1], [1.0, 1.1]], 2.1, 0.1 * 1.025),  # e = 0.05
        ([[3.0, 3.0], [1.0, 1.0]], 4.0, 0.11),  # e = 1, held at 0.2
        ([[0.0, 0.0], [0.0, 0.0]], 0.0, 0.09),  # e = -1, held at -0.2
        ([[-1.0, 0.0], [-1.0, 0.0]], -1.0, 0.09),
    ],
)
@pytest.mark.parametrize("clamp", [False, True])
def test_the_coefficient_follows_the_divergence_of_the_batch(make_batch, distances, kl, coef, clamp):
    batch = make_batch(["ab", "ab"], lengths=[2, 2])
    part = adaptive([[*row, math.inf] for row in distances], target=2.0, coef=0.1, horizon=4, clamp=clamp)
    assert isinstance(part, LearningReward)
    assert isinstance(part, Reporting)
    before = part.score(batch)["adaptive_kl_reward"].values
    charged = part.assess(batch, Rng((0,)))["adaptive_kl_reward"].values
    assert torch.equal(charged, before)  # this batch at the coefficient that was there
    wanted = torch.tensor([[*row, 0.0] for row in distances])
    torch.testing.assert_close(charged, -0.1 * (wanted.clamp(min=0) if clamp else wanted))
    assert part.metrics() == pytest.approx({"coef": 0.1, "kl": kl})
    part.assess(batch, Rng((1,)))
    assert part.metrics() == pytest.approx({"coef": coef, "kl": kl})


def test_the_paper_s_constant_is_a_batch_in_ten_horizons(make_batch):
    """K = 0.1: ten batches' worth of responses as the horizon; an error of 0.2 changes the coefficient by 2%."""
    batch = make_batch(["a"] * 8, lengths=[1] * 8)
    part = adaptive([[9.0, 0.0]] * 8, target=1.0, coef=0.05, horizon=80)
    part.assess(batch, Rng((0,)))
    assert part.state_dict() == {"coef": pytest.approx(0.05 * 1.02)}


def test_the_coefficient_is_saved_and_scoring_leaves_it_alone(make_batch):
    batch = make_batch(["ab"], lengths=[2])
    part, fresh = (Sum({"kl": adaptive([[3.0, 3.0, 0.0]], target=1.0, horizon=2)}) for _ in range(2))
    part.assess(batch, Rng((0,)))
    assert part.metrics() == pytest.approx({"reward/kl/coef": 0.05, "reward/kl/kl": 6.0})
    fresh.load_state_dict(part.state_dict())
    fresh.score(batch)
    one, other = (tree.assess(batch, Rng((1,)))["kl"].values for tree in (part, fresh))
    assert torch.equal(one, other)
    assert one[0, 0] == pytest.approx(-3 * 0.05 * 1.1)
    with pytest.raises(InputError, match="adaptive_kl_reward: the saved state must hold the coefficient"):
        fresh.parts["kl"].load_state_dict({"coef": "0.1"})
    whole = adaptive([[3.0]], target=1.0, coef=1)  # a whole number, saved before the first step
    whole.load_state_dict(whole.state_dict())
    assert whole.state_dict() == {"coef": 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 0.0}, "`target` is 0.0; it must be above 0"),
        ({"target": NAN}, "`target` is nan"),
        ({"target": 1.0, "coef": 0.0}, "`coef` is 0.0; it must be above 0"),
        ({"target": 1.0, "horizon": 0}, "`horizon` is 0; it must be 1 or more"),
    ],
)
def test_an_adaptive_charge_refuses_what_it_cannot_follow(settings, message):
    with pytest.raises(InputError, match=f"adaptive_kl_reward: {message}"):
        AdaptiveKLReward(policy=Scores(None), reference=Scores(None), **settings)
