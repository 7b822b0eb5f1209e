"""Examples in front of every text: what is shown, what is paid, and that nothing is trained on them."""

import numpy as np
import pytest

from reckon.errors import InputError
from reckon.labels import (
    FewShot,
    LabelData,
    LabelSource,
    LinearLearner,
    Offer,
    SequentialTrainer,
    Stage,
    best_within,
    budget_grid,
    regime,
    run_grid,
)

WEAK, GOLD = LabelSource("weak", 0.1), LabelSource("gold", 1.0)
STAGES = [Stage("weak", max_steps=20), Stage("gold", max_steps=20)]


def world(n=60):
    """Texts that are numbers; right are those above 0, and weak labels are soft."""
    rng = np.random.default_rng(0)
    numbers, test = rng.standard_normal(n), rng.standard_normal(40)
    return LabelData(
        x=np.array([f"{number:.6f}" for number in numbers], dtype=object),
        weak=1 / (1 + np.exp(-2 * numbers)),
        gold=(numbers > 0).astype(float),
        test_x=np.array([f"{number:.6f}" for number in test], dtype=object),
        test_y=(test > 0).astype(float),
    )


class Reads(LinearLearner):
    """Reads the number of a text's last block, and remembers the texts."""

    def __init__(self):
        super().__init__(2)
        self.trained, self.asked = [], []

    def log_odds(self, x):
        if isinstance(x[0], str):
            self.asked += list(x)
            x = self._numbers(x)
        return super().log_odds(x)

    def step(self, x, targets, lr):
        self.trained += list(x)
        super().step(self._numbers(x), targets, lr)

    def _numbers(self, x):
        return np.array([[float(text.split("\n\n")[-1]), 1.0] for text in x])


def run(prefix, bought=(20, 10), stages=STAGES):
    learners = []

    def make(_):
        learners.append(Reads())
        return learners[-1]

    trainer = SequentialTrainer(make, stages, early_stop=None)
    (trial,) = run_grid(trainer, world(), [bought], [3], WEAK, GOLD, prefix=prefix)
    return trial, learners[0]


@pytest.mark.parametrize(("kind", "cost"), [("weak", 0.2), ("gold", 2.0)])
def test_every_text_is_read_behind_the_same_examples_which_are_paid_and_not_trained_on(kind, cost):
    data = world()
    trial, learner = run(FewShot(kind=kind, words=("no", "yes")))
    plain, _ = run(None)
    assert (trial.n_weak, trial.n_gold) == (plain.n_weak, plain.n_gold) == (20, 10)
    assert trial.cost == pytest.approx(plain.cost + cost)
    # the first two labels of the kind that the seed would buy, soft ones cut at a half
    own = data.offers(*((22, 10) if kind == "weak" else (20, 12)), 3)[kind]
    first, second = (f"{data.x[i]}\n{'yes' if own.labels[i] >= 0.5 else 'no'}" for i in own.rows[:2])
    heads = {text.rpartition("\n\n")[0] for text in [*learner.trained, *learner.asked]}
    assert heads == {f"{first}\n\n{second}", f"{second}\n\n{first}"}
    trained = {text.rpartition("\n\n")[2].strip() for text in learner.trained}
    assert not trained & {data.x[i] for i in own.rows[:2]}
    assert len(trained) == 20 + 10
    assert {text.rpartition("\n\n")[2].strip() for text in learner.asked[-40:]} == set(data.test_x)
    assert trial.accuracy > 0.8


def test_a_purchase_without_labels_of_the_kind_still_pays_for_its_examples():
    trial, learner = run(FewShot(shots=3), bought=(0, 10))
    assert trial.cost == pytest.approx(10.3)
    assert all(text.count("\n\n") == 3 for text in learner.trained)
    assert len({text.rpartition("\n\n")[2] for text in learner.trained}) == 10


def test_the_specifications_cost():
    """(2050, 819) costs 1024, and two weak examples in front .2 more."""
    assert FewShot().beside((2050, 819)) == (2052, 819)
    assert FewShot(kind="gold", shots=8).beside((2050, 819)) == (2050, 827)


@pytest.mark.parametrize(
    ("prefix", "source", "grid"),
    [
        # two weak examples cost 1: 7 gold; 3 gold and 5 - 1 for 8 weak; 7 / .5 = 14 weak
        (FewShot(), LabelSource("weak", 0.5), [(0, 7), (8, 3), (14, 0)]),
        # two gold ones cost 2: 6 gold; 3 gold and 3 / .5 = 6 weak; 6 / .5 = 12 weak
        (FewShot(kind="gold"), LabelSource("weak", 0.5), [(0, 6), (6, 3), (12, 0)]),
        # with the fixed cost two weak ones are 3, and of 10 weak labels 8 are left: 5 gold; 2 gold and 3 / .5 = 6; 8
        (FewShot(), LabelSource("weak", 0.5, fixed_cost=2.0, pool=10), [(0, 5), (6, 2), (8, 0)]),
        # nine gold ones are more than there is
        (FewShot(kind="gold", shots=9), LabelSource("weak", 0.5), []),
    ],
)
def test_a_grid_leaves_money_for_the_examples(prefix, source, grid):
    assert budget_grid([8], [0.0, 0.5, 1.0], source, GOLD, prefix=prefix) == grid


def test_trials_behind_examples_spend_the_budget_they_were_made_for():
    """Without money set aside gold alone costs 9 of 8, and no regime can be told."""
    source, prefix = LabelSource("weak", 0.5), FewShot()
    trainer = SequentialTrainer(lambda _: Reads(), STAGES, early_stop=None)
    grid = budget_grid([8], [0.0, 0.5, 1.0], source, GOLD, prefix=prefix)
    trials = run_grid(trainer, world(), grid, [0, 1], source, GOLD, prefix=prefix)
    assert [trial.cost for trial in trials] == pytest.approx([8.0] * 6)
    assert best_within(trials, 8).bought in grid
    assert regime(trials, 8).best in grid
    greedy = run_grid(trainer, world(), [(0, 8), (16, 0)], [0, 1], source, GOLD, prefix=prefix)
    with pytest.raises(InputError, match="no trial spends 8 on weak labels alone"):
        regime(greedy, 8)


def test_examples_are_never_chosen_as_uncertain_gold():
    data, stages = world(), [STAGES[0], Stage("gold", choose="uncertain", max_steps=20)]
    own = data.offers(20, 12, 3)["gold"]
    _, learner = run(FewShot(kind="gold"), stages=stages)
    assert not {text.rpartition("\n\n")[2].strip() for text in learner.trained} & {data.x[i] for i in own.rows[:2]}


def test_the_order_is_the_seeds():
    data, prefix = world(), FewShot(shots=4)
    offers = data.offers(4, 2, 0)
    first, again, other = (prefix.shown(offers, data.test_x, seed)[1] for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


def test_bad_input():
    with pytest.raises(InputError, match="kind is 'silver' and shots 2; the first must be 'weak' or 'gold'"):
        FewShot(kind="silver")
    with pytest.raises(InputError, match="shots 0"):
        FewShot(shots=0)
    offer = Offer(x=np.zeros((4, 2)), labels=np.array([0.0, 1.0, 0.0, 1.0]), rows=np.arange(4), n=4)
    with pytest.raises(InputError, match="in front of texts alone"):
        FewShot().shown({"weak": offer}, np.zeros((3, 2)), 0)
