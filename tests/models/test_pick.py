"""Choosing a token: the law, its edges, truncation, and sums over blocks against plain cumulative sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reckon.models import Sampling, _pick
from reckon.models._pick import _invert, pick, truncate
from reckon.types import Rng

NEXT_TO_ONE = 1 - 2**-53  # the largest float64 below 1
SIZES = [1, 2, 255, 256, 257, 511, 513, 3000]  # blocks have 256 tokens


def plain(probs: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The first token whose cumulative sum exceeds u times the whole: float64, one by one, row by row."""
    found = []
    for row, number in zip(probs.astype(np.float64), u, strict=True):
        heights = np.cumsum(row)
        found.append(np.searchsorted(heights, number * heights[-1], side="right"))
    return np.array(found)


def test_draws_follow_the_law():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    uniforms = torch.from_numpy(Rng((5,)).numpy().random(20_000))
    tokens, logprobs = pick(logits.repeat(20_000, 1), uniforms, Sampling(temperature=2.0))
    law = (logits[0].double() / 2).softmax(0)
    counts = torch.bincount(tokens, minlength=4)
    assert stats.chisquare(counts.numpy(), law.numpy() * 20_000).pvalue > 1e-3
    torch.testing.assert_close(logprobs[:50], law.log()[tokens[:50]].float())


def test_draws_from_a_large_vocabulary_follow_the_law():
    """The top 50 of 3,001 tokens and the rest, 10,000 draws."""
    logits = torch.randn(3001, generator=torch.Generator().manual_seed(0)) * 2.5
    uniforms = torch.from_numpy(Rng((11,)).numpy().random(10_000))
    tokens = torch.cat([pick(logits.repeat(500, 1), part, Sampling())[0] for part in uniforms.split(500)])
    law, order = logits.double().softmax(0).sort(descending=True)
    rank = torch.empty(3001, dtype=torch.int64)
    rank[order] = torch.arange(3001)
    counts = torch.bincount(rank[tokens].clamp(max=50), minlength=51)
    expected = torch.cat([law[:50], law[50:].sum()[None]]) * 10_000
    assert expected.min() > 5  # as the test wants it
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("vocabulary", SIZES)
def test_inversion_of_sums_that_are_exact(vocabulary):
    """Probabilities in 1/64ths, many of them 0, at each height, just below it, and between: no rounding anywhere."""
    generator = np.random.default_rng(vocabulary)
    row = generator.choice([0, 0, 1, 2, 5], size=vocabulary).astype(np.float32)
    row[generator.integers(vocabulary)] = 3
    whole = 2 ** int(np.ceil(np.log2(row.sum() + 1)))
    row[generator.integers(vocabulary)] += whole - row.sum()  # they add up to a power of 2, which u is a multiple of
    heights = np.cumsum(row.astype(np.float64)) / whole
    u = np.concatenate([[0.0], heights, np.nextafter(heights, 0), heights - 0.5 / whole, [NEXT_TO_ONE]])
    u = np.unique(u[(u >= 0) & (u < 1)])
    probs = np.tile(row / whole, (len(u), 1)).astype(np.float32)
    found = _invert(torch.from_numpy(probs), torch.from_numpy(u)).numpy()
    assert (found == plain(probs, u)).all()
    assert (probs[0, found] > 0).all()


@settings(max_examples=80)
@given(
    vocabulary=st.sampled_from(SIZES),
    spread=st.sampled_from([0.0, 1.0, 6.0, 30.0]),
    banned=st.sampled_from([0.0, 0.5, 0.99]),
    u=st.lists(st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, NEXT_TO_ONE, 5e-324]), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_inversion_of_any_law(vocabulary, spread, banned, u, seed):
    """The plain sum's token, or a neighbor where u lies within float32 rounding of the height between them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(u), vocabulary, generator=generator) * spread
    logits[torch.rand(logits.shape, generator=generator) < banned] = -torch.inf
    logits[:, seed % vocabulary] = 0
    probs = logits.softmax(1)
    found = _invert(probs, torch.tensor(u, dtype=torch.float64))
    assert (probs.gather(1, found[:, None]) > 0).all()  # what cannot be drawn is never drawn
    heights = probs.double().numpy().cumsum(axis=1)
    for row, token in enumerate(found.tolist()):
        target = u[row] * heights[row, -1]
        below = heights[row, token - 1] if token else 0.0
        assert below - 3e-7 <= target <= heights[row, token] + 3e-7


def test_draws_at_the_edges_of_the_unit_interval():
    """u = 0 takes the first token that can be drawn, the largest u below 1 the last: never one of probability 0."""
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).repeat(2, 1)
    tokens, _ = pick(logits, torch.tensor([0.0, NEXT_TO_ONE], dtype=torch.float64), Sampling())
    assert tokens.tolist() == [1, 2]


@pytest.mark.parametrize(("first", "last"), [(0, 0), (300, 300), (300, 301), (255, 256), (512, 999), (999, 999)])
def test_edges_where_whole_blocks_are_impossible(first, last):
    logits = torch.full((2, 1000), -torch.inf)
    logits[:, [first, last]] = 1.0
    tokens, logprobs = pick(logits, torch.tensor([0.0, NEXT_TO_ONE], dtype=torch.float64), Sampling())
    assert tokens.tolist() == [first, last]
    assert logprobs.exp().tolist() == pytest.approx([1 / len({first, last})] * 2)


@pytest.mark.parametrize(("vocabulary", "rare", "give"), [(3001, 1e-7, 3), (50_001, 9.87e-9, 20)])
def test_tokens_too_rare_for_float32_sums_are_still_reached(vocabulary, rare, give):
    """Rare tokens behind one that has the rest; near 1 the next float32 is 6e-8 away, up to six of them."""
    law = torch.full((1, vocabulary), rare, dtype=torch.float64)
    law[0, 0] = 1 - (vocabulary - 1) * rare
    before_the_end = torch.tensor([0.8, 0.4, 0.0]) * (vocabulary - 1)
    tokens, _ = pick(law.log().float().repeat(3, 1), 1 - rare * (before_the_end.double() + 0.5), Sampling())
    assert (tokens - (vocabulary - 1 - before_the_end.round().long())).abs().max() <= give


def test_greedy_takes_the_first_of_the_likeliest():
    tokens, logprobs = pick(torch.tensor([[0.0, 2.0, 2.0], [5.0, 0.0, 4.0]]), None, Sampling(temperature=0.5))
    assert tokens.tolist() == [1, 0]
    # 4 - ln(1 + 2 e^4); 10 - ln(e^10 + 1 + e^8)
    assert logprobs.tolist() == pytest.approx([-0.7022633, -0.1269680], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, [True, True, False, False]),
        ({"top_p": 0.6}, [True, False, False, False]),  # probabilities .6439 .2369 .0871 .0321: the first reaches .6
        ({"top_p": 0.7}, [True, True, False, False]),
        ({"min_p": 0.3}, [True, True, False, False]),  # .2369 / .6439 = .368, .0871 / .6439 = .135
        ({"top_k": 3, "min_p": 0.1}, [True, True, True, False]),
        ({"top_k": 9}, [True, True, True, True]),
        ({"top_p": 1e-9}, [True, False, False, False]),  # the likeliest always stays
        ({"top_k": 2, "top_p": 0.75}, [True, True, False, False]),  # of the two left .731 .269
        ({"top_k": 2, "top_p": 0.73}, [True, False, False, False]),
    ],
)
def test_truncation_keeps_the_likeliest(settings, kept):
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]]) + 5
    found = truncate(logits, Sampling(**settings))
    assert torch.isfinite(found)[0].tolist() == kept
    assert found[0][kept].tolist() == logits[0][kept].tolist()


@pytest.mark.parametrize("spread", [0.01, 0.5, 3.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_a_nucleus_of_any_size(spread, top_p):
    """Of 5,000 tokens; the flattest law keeps about 4,500 at .9: more than are looked at before all are sorted."""
    logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(1)) * spread
    logits[1] *= 4  # rows need not have nuclei of one size
    kept = torch.isfinite(truncate(logits, Sampling(top_p=top_p)))
    for row in range(3):
        law = logits[row].double().softmax(0).numpy()
        order = np.argsort(-law, kind="stable")
        heights = np.cumsum(law[order])
        size = int(np.searchsorted(heights, top_p)) + 1  # the fewest that reach top_p
        give = 2 if size > 100 else 0  # float32 sums of thousands of terms
        assert set(order[: size - give]) <= set(kept[row].nonzero()[:, 0].tolist()) <= set(order[: size + give])
    assert _pick._CANDIDATES == 1024  # what makes the sizes above fall on both sides of it


def test_truncated_draws_tell_the_logprobs_before_truncation():
    """And follow the law after it: of .5 .3 .2 under top-k 2, shares of 5/8 and 3/8."""
    law = torch.tensor([[0.2, 0.5, 0.3]])
    uniforms = torch.tensor([0.0, 0.624, 0.626, NEXT_TO_ONE], dtype=torch.float64)
    tokens, logprobs = pick(law.log().repeat(4, 1), uniforms, Sampling(top_k=2))
    assert tokens.tolist() == [1, 1, 2, 2]
    assert logprobs.exp().tolist() == pytest.approx([0.5, 0.5, 0.3, 0.3])
