"""How the rewards of a group's responses compare: by hand, and against loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.process import best_of_group_weights, opponent_rewards, ranked_share

NAN = math.nan


def tensors(*rows):
    return (torch.tensor(row) for row in rows)


def test_ranked_share_by_hand():
    """Outcomes 1, 0, 0.5 with scores 2, 3, 1: of the pairs (1, 0), (1, 0.5), (0.5, 0), which weigh 1, 0.5 and 0.5,

    the second alone is in order: 0.5 / 2. In the second group all outcomes are equal; in the third all scores.
    """
    outcome = [1.0, 0, 0.5, 1, 1, 0, 1, NAN]
    scores = [2.0, 3, 1, 5, 6, 4, 4, 9]
    group = [0, 0, 0, 1, 1, 7, 7, 7]
    assert ranked_share(*tensors(scores, outcome, group)).tolist() == [0.25, 0.5, 0.5]


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.25, 1.0, NAN]), st.integers(-2, 2)),
        min_size=1,
        max_size=9,
    )
)
def test_all_three_are_their_loops(rows):
    group, outcome, scores = ([row[i] for row in rows] for i in range(3))
    scores = [float(score) for score in scores]
    n, known = len(rows), [not math.isnan(o) for o in outcome]
    shares = ranked_share(*tensors(scores, outcome, group)).tolist()
    for place, number in enumerate(sorted(set(group))):
        total = right = 0.0
        for i in range(n):
            for j in range(n):
                if group[i] == group[j] == number and known[i] and known[j] and outcome[i] > outcome[j]:
                    total += outcome[i] - outcome[j]
                    order = 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
                    right += order * (outcome[i] - outcome[j])
        assert shares[place] == pytest.approx(right / total if total else 0.5, abs=1e-6)
    opponents = opponent_rewards(*tensors(scores, outcome, group)).tolist()
    weights = best_of_group_weights(*tensors(outcome, group)).tolist()
    for i in range(n):
        mine = [j for j in range(n) if group[j] == group[i] and known[j]]
        if outcome[i] > 0:
            against = [scores[j] for j in mine if outcome[j] < outcome[i]]
        else:
            against = [scores[j] for j in mine if outcome[j] > outcome[i]]
        assert opponents[i] == pytest.approx(sum(against) / len(against) if against and known[i] else 0.0, abs=1e-6)
        size = len(mine)
        below = sum(outcome[j] <= outcome[i] for j in mine)
        wanted = size * (below / size) ** (size - 1) if known[i] else 0.0
        assert weights[i] == pytest.approx(wanted, rel=1e-5)


def test_opponents_and_weights_by_hand():
    """Outcomes 1, 0, 0, 0.5: against the mean of the three worse, of the two better (twice), of the two worse.

    Shares at most as good 1, 1/2, 1/2, 3/4 of 4: weights 4, 4 / 8, 4 / 8, 4 * 27 / 64.
    """
    rewards, outcome, group = torch.tensor([8.0, 1, 3, 2]), torch.tensor([1.0, 0, 0, 0.5]), torch.zeros(4).long()
    assert opponent_rewards(rewards, outcome, group).tolist() == [2, 5, 5, 2]
    assert best_of_group_weights(outcome, group).tolist() == pytest.approx([4, 0.5, 0.5, 1.6875])


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="scores must be of shape"):
        ranked_share(torch.zeros(2, 1), torch.zeros(2), torch.zeros(2).long())
