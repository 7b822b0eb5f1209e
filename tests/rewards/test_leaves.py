import math

import pytest
import torch

from reckon.errors import InputError
from reckon.rewards import KLReward, Verifier
from reckon.types import Outputs

NAN = float("nan")


def test_verifier_hands_the_verdict_on_and_keeps_the_unknown_unknown(make_batch, values):
    batch = make_batch(["a"] * 4, outcomes=[1, 0, 0.25, NAN])
    assert values(Verifier(), batch)[:3] == [1, 0, 0.25]
    assert values(Verifier(right=1, wrong=-1), batch)[:3] == [1, -1, -0.5]
    assert math.isnan(values(Verifier(), batch)[3])


@pytest.mark.parametrize(("right", "wrong"), [(0.0, 1.0), (1.0, 1.0)])
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


def test_kl_reward_refuses_a_coefficient_below_nothing():
    with pytest.raises(InputError, match=r"`coef` is -0.1"):
        KLReward(policy=Scores(None), reference=Scores(None), coef=-0.1)
