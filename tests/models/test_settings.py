"""Settings, schedules and what is refused."""

from __future__ import annotations

import pytest
import torch

from reckon.errors import InputError
from reckon.models import Lora, Optimization, Sampling
from reckon.models._load import compute_dtype


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "constant", "warmup": 3}, [0.25, 0.5, 0.75, 1, 1]),
        ({"schedule": "linear", "total": 4}, [1, 0.75, 0.5, 0.25, 0]),
        ({"schedule": "cosine", "total": 4}, [1, 0.8535534, 0.5, 0.1464466, 0]),  # (1 + cos(pi i / 4)) / 2
        ({"schedule": "linear", "total": 4, "warmup": 2}, [1 / 3, 2 / 3, 1, 0.5, 0]),
    ],
)
def test_learning_rates(settings, rates):
    optimizer = Optimization(lr=1.0, **settings)
    assert [optimizer.rate(step) for step in range(5)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("settings", "rates"),  # of the steps made before and left out before: (0, 0), (0, 2), (1, 2), (1, 3)
    [
        ({"schedule": "constant", "warmup": 1}, [0.5, 0.5, 1, 1]),
        ({"schedule": "linear", "total": 4}, [1, 0.5, 0.25, 0]),
        ({"schedule": "cosine", "total": 4}, [1, 0.5, 0.1464466, 0]),  # (1 + cos(pi i / 4)) / 2 for i = 0, 2, 3, 4
        # 1/3, 1/3 and 2/3 of the way up, times 1, 1, 1/2 and 0 of the way left: two of four steps are the warm-up's
        ({"schedule": "linear", "total": 4, "warmup": 2}, [1 / 3, 1 / 3, 1 / 3, 0]),
    ],
)
def test_steps_that_are_left_out_bring_the_end_nearer_and_warm_nothing_up(settings, rates):
    optimizer = Optimization(lr=1.0, **settings)
    assert [optimizer.rate(*at) for at in ((0, 0), (0, 2), (1, 2), (1, 3))] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Sampling(temperature=0), r"`sampling.temperature` is 0, but must be above 0"),
        (lambda: Sampling(max_new_tokens=0), "max_new_tokens"),
        (lambda: Sampling(top_k=0), "top_k"),
        (lambda: Sampling(top_p=1.5), "top_p"),
        (lambda: Sampling(min_p=-0.1), "min_p"),
        (lambda: Sampling(stop="END"), "`sampling.stop` is END, but must be a list of texts"),  # no E, no N, no D
        (lambda: Sampling(stop=("END", "")), "sampling.stop"),  # "" is in every text
        (lambda: Optimization(lr=-1), "optimizer.lr"),
        (lambda: Optimization(lr=float("inf")), "optimizer.lr"),
        (lambda: Optimization(beta1=1.0), "optimizer.beta1"),
        (lambda: Optimization(beta2=-0.1), "optimizer.beta2"),
        (lambda: Optimization(weight_decay=-0.1), "optimizer.weight_decay"),
        (lambda: Optimization(epochs=0), "optimizer.epochs"),
        (lambda: Optimization(minibatches=0), "optimizer.minibatches"),
        (lambda: Optimization(clip=0.0), "optimizer.clip"),
        (
            lambda: Optimization(schedule="cosine"),
            r"`optimizer.total` is None, but must be given for schedule 'cosine'",
        ),
        (
            lambda: Optimization(schedule="cosin", total=9),
            r"`optimizer.schedule` is cosin, but must be one of constant",
        ),
        (lambda: compute_dtype("bf16", torch.device("cpu")), r"`model.dtype` is 'bf16'; it must be one of auto"),
        (lambda: Lora(rank=0), "lora.rank"),
        (lambda: Lora(alpha=0), "lora.alpha"),
    ],
)
def test_settings_that_cannot_be(build, match):
    with pytest.raises(InputError, match=match):
        build()


def test_truncated_sampling_is_told():
    assert not Sampling().truncated
    assert not Sampling(top_p=1.0, min_p=0.0).truncated
    assert Sampling(top_k=5).truncated
    assert Sampling(top_p=0.9).truncated
    assert Sampling(min_p=0.1).truncated
