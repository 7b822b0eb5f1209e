import math

import pytest
import torch

from reckon.rewards import reward_metrics
from reckon.types import Stream

NAN = float("nan")


def test_mean_deviation_and_share_of_unknown(make_batch):
    batch = make_batch(["x"] * 4)
    metrics = reward_metrics({"a": Stream(values=torch.tensor([1.0, 3.0, NAN, NAN]), train=False)}, batch)
    # (1 + 3) / 2; sqrt((1 + 1) / 2); 2 of 4
    assert metrics == {"reward/a/mean": 2.0, "reward/a/std": 1.0, "reward/a/unknown": 0.5}


def test_nothing_known_is_nan_and_not_nought(make_batch):
    metrics = reward_metrics({"a": Stream(values=torch.tensor([NAN]))}, make_batch(["x"]))
    assert metrics["reward/a/unknown"] == 1
    assert math.isnan(metrics["reward/a/mean"])
    assert math.isnan(metrics["reward/a/std"])


@pytest.mark.parametrize(("kind", "mean"), [("reward", (3 + 4) / 2), ("advantage", (1.5 + 4) / 2), ("weight", 2.75)])
def test_tokens_are_added_up_or_averaged_without_padding_and_nan(make_batch, kind, mean):
    batch = make_batch(["x"] * 3, lengths=[2, 2, 1])
    values = torch.tensor([[1.0, 2.0, 99.0], [4.0, NAN, 99.0], [NAN, 99.0, 99.0]])
    metrics = reward_metrics({"a": Stream(values=values, kind=kind)}, batch)
    assert metrics["reward/a/mean"] == pytest.approx(mean)
    assert metrics["reward/a/unknown"] == pytest.approx(1 / 3)
