"""Sequential training: what is trained on what, in which order, and with whose optimizer."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from reckon.errors import InputError
from reckon.labels import (
    EarlyStop,
    LabelData,
    LabelSource,
    LinearLearner,
    LogConfidence,
    Offer,
    SequentialTrainer,
    Stage,
    run_grid,
    shuffled_errors,
)

WEAK, GOLD = LabelSource("weak", 0.1), LabelSource("gold", 1.0)
RULE = np.array([1.0, -2.0, 0.5])


def world(n=400, seed=0):
    """Three features; gold by a rule, weak labels by its first two features."""
    rng = np.random.default_rng(seed)
    x, test = rng.standard_normal((n, 3)), rng.standard_normal((300, 3))
    return LabelData(
        x=x,
        weak=1 / (1 + np.exp(-2 * x[:, :2] @ RULE[:2])),
        gold=(x @ RULE > 0).astype(float),
        test_x=test,
        test_y=(test @ RULE > 0).astype(float),
    )


class Recorder(LinearLearner):
    """Remembers what it was asked to do."""

    def __init__(self):
        super().__init__(3)
        self.calls, self.seen = [], []

    def new_optimizer(self):
        super().new_optimizer()
        if hasattr(self, "calls"):
            self.calls.append("new")

    def step(self, x, targets, lr):
        super().step(x, targets, lr)
        self.calls.append(lr)
        self.seen.append((x, targets))


def trained(stages, offers, seed=0, **settings):
    made = []

    def make(_):
        made.append(Recorder())
        return made[-1]

    SequentialTrainer(make, stages, **settings).fit(offers, seed)
    return made[0]


def test_adamw_is_torchs():
    """Three steps on a batch, against torch.optim.AdamW on the same loss."""
    import torch

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 3)), rng.random(8)
    learner = LinearLearner(3)
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=0.1, betas=(0.9, 0.95), weight_decay=0.01)
    for _ in range(3):
        learner.step(x, y, 0.1)
        optimizer.zero_grad()
        logits = torch.tensor(x) @ w
        torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(y)).backward()
        optimizer.step()
    assert learner.weights() == pytest.approx(w.detach().numpy(), abs=1e-10)


@pytest.mark.parametrize(("bought", "stage"), [((200, 0), Stage("weak")), ((0, 60), Stage("gold"))])
def test_one_kind_alone_is_plain_fine_tuning_bit_for_bit(bought, stage):
    offers = world().offers(*bought, seed=3)
    both = trained([Stage("weak"), Stage("gold", lr_after=0.001)], offers, seed=3)
    alone = trained([stage], {stage.kind: offers[stage.kind]}, seed=3)
    assert both.weights().tolist() == alone.weights().tolist()
    assert len(both.seen) == len(alone.seen) >= 10


def test_each_stage_begins_with_a_new_optimizer_and_a_new_schedule():
    stages = [Stage("weak", max_steps=30), Stage("gold", max_steps=20, lr_after=0.01)]
    learner = trained(stages, world().offers(100, 40, seed=0), early_stop=None)
    second = learner.calls.index("new", 1)
    assert learner.calls[0] == "new"
    first, after = learner.calls[1:second], learner.calls[second + 1 :]
    assert (len(first), len(after)) == (30, 20)
    # 100 labels are 4 batches of 32, so 4 steps of warm-up to .05; 40 labels are 2 batches.
    assert first[:5] == pytest.approx([0.0125, 0.025, 0.0375, 0.05, 0.05])
    assert after[:3] == pytest.approx([0.005, 0.01, 0.01])
    assert first[-1] < 0.001
    kept = trained(
        [stages[0], Stage("gold", max_steps=20, keep_optimizer=True)], world().offers(100, 40, seed=0), early_stop=None
    )
    assert kept.calls.count("new") == 1


def test_the_weak_stage_comes_first_and_labels_stay_soft():
    data = world()
    learner = trained([Stage("weak"), Stage("gold")], data.offers(100, 40, seed=0))
    weak = {float(value) for value in data.weak}
    kinds = [set(targets.tolist()) <= {0.0, 1.0} for _, targets in learner.seen]
    assert kinds == sorted(kinds)
    assert any(kinds)
    first = next(targets for _, targets in learner.seen)
    assert set(first.tolist()) <= weak


def test_validation_labels_are_bought_and_never_trained_on():
    data = world()
    learner = trained([Stage("gold")], data.offers(0, 50, seed=0))
    rows = {tuple(row) for x, _ in learner.seen for row in x}
    assert len(rows) == 40  # int(.2 * 50) = 10 are held out
    everything = trained([Stage("gold")], data.offers(0, 50, seed=0), early_stop=None)
    assert len({tuple(row) for x, _ in everything.seen for row in x}) == 50


def test_early_stopping_keeps_the_best_weights():
    """A learner whose ranking turns round halfway is given back as it was before."""

    class Turning(LinearLearner):
        def __init__(self):
            super().__init__(3)
            self.count = 0

        def step(self, x, targets, lr):
            self.count += 1
            self.restore(RULE if self.count <= 8 else -RULE)

    x = world().x
    offer = Offer(x=x, labels=(x @ RULE > 0).astype(float), n=400, rows=np.arange(400))
    turning = Turning()
    SequentialTrainer(lambda _: turning, [Stage("gold")], early_stop=EarlyStop(every=4)).fit({"gold": offer}, 0)
    assert turning.weights().tolist() == RULE.tolist()
    # A gain at step 4, none at 8, 12, 16, 20: four evaluations without one.
    assert turning.count == 20


@pytest.mark.parametrize("n", [1, 2])
def test_stages_too_small_to_validate_take_a_fixed_number_of_steps(n):
    learner = trained([Stage("gold")], world().offers(0, n, seed=0), blind_steps=7)
    assert len(learner.seen) == 7


def test_validation_labels_of_one_class_cannot_stop_anything():
    x = world().x
    offer = Offer(x=x[:20], labels=np.ones(20), n=20, rows=np.arange(20))
    learner = trained([Stage("gold")], {"gold": offer}, blind_steps=7)
    assert len(learner.seen) == 7
    assert len({tuple(row) for rows, _ in learner.seen for row in rows}) == 20


def test_log_confidence_goes_through_training():
    plain = trained([Stage("weak", batch=8, max_steps=300)], world().offers(200, 0, seed=0))
    bent = trained([Stage("weak", batch=8, max_steps=300, loss=LogConfidence())], world().offers(200, 0, seed=0))
    assert plain.seen[0][1].tolist() == bent.seen[0][1].tolist()  # step 0 is plain cross-entropy
    assert plain.seen[-1][1].tolist() != bent.seen[-1][1].tolist()


def test_uncertain_gold_is_bought_where_the_weak_stage_is_unsure():
    """Distance from the model's border: the chosen are nearer to it than those that are left."""
    data = world(n=600)
    uncertain = [Stage("weak", max_steps=200), Stage("gold", choose="uncertain", temperature=0.0)]
    after_weak = trained(uncertain[:1], {"weak": data.offers(200, 0, 0)["weak"]}).weights()
    offers = data.offers(200, 40, 0)
    learner = trained(uncertain, offers, early_stop=EarlyStop())
    hard = [x for x, targets in learner.seen if set(targets.tolist()) <= {0.0, 1.0}]
    chosen = {tuple(row) for x in hard for row in x}
    margins = np.sort(np.abs(data.x[offers["gold"].rows] @ after_weak))
    assert len(chosen) == 32  # 8 of 40 validate
    assert max(abs(np.array(row) @ after_weak) for row in chosen) <= margins[39] + 1e-12


def test_weak_and_gold_are_different_examples_and_purchases_are_nested():
    data = world()
    small, large = data.offers(50, 20, seed=1), data.offers(150, 60, seed=1)
    for kind in ("weak", "gold"):
        few, many = small[kind], large[kind]
        assert set(few.rows[: few.n].tolist()) < set(many.rows[: many.n].tolist())
    assert not set(large["weak"].rows.tolist()) & set(large["gold"].rows.tolist())
    assert data.offers(50, 20, seed=2)["weak"].rows.tolist() != small["weak"].rows.tolist()


def test_rows_without_a_label_are_not_offered():
    data = world()
    data.weak[:300], data.gold[300:] = np.nan, np.nan
    offers = data.offers(100, 300, seed=0)
    assert set(offers["weak"].rows.tolist()) == set(range(300, 400))
    assert set(offers["gold"].rows.tolist()) == set(range(300))


def test_the_test_set_is_read_after_training_alone():
    data, read = world(), []

    class Watching(LinearLearner):
        def log_odds(self, x):
            read.append(x is data.test_x)
            return super().log_odds(x)

    trainer = SequentialTrainer(lambda _: Watching(3), [Stage("weak"), Stage("gold")])
    (trial,) = run_grid(trainer, data, [(100, 40)], [0], WEAK, GOLD)
    assert read.index(True) == len(read) - 1
    assert trial.cost == pytest.approx(50)
    assert 0.8 < trial.accuracy <= 1


def test_a_grid_is_run_by_seed_and_told():
    told = []
    trainer = SequentialTrainer(lambda _: LinearLearner(3), [Stage("weak", max_steps=5), Stage("gold", max_steps=5)])
    grid = [(50, 0), (50, 20)]
    trials = run_grid(trainer, world(), grid, [0, 1], WEAK, GOLD, progress=lambda done, _: told.append(done))
    assert [(one.n_weak, one.n_gold, one.seed) for one in trials] == [
        (*bought, seed) for seed, bought in itertools.product([0, 1], grid)
    ]
    assert told == [1, 2, 3, 4]
    assert trials == run_grid(trainer, world(), grid, [0, 1], WEAK, GOLD)


def test_shuffled_errors_keep_their_sizes():
    data = world()
    shuffled = shuffled_errors(data.weak, data.gold, np.random.default_rng(0))
    assert np.sort(np.abs(shuffled - data.gold)) == pytest.approx(np.sort(np.abs(data.weak - data.gold)))
    assert not np.allclose(shuffled, data.weak)


def data_with(**changes):
    given = {name: getattr(world(), name) for name in ("x", "weak", "gold", "test_x", "test_y")}
    return LabelData(**{**given, **changes})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: data_with(weak=np.zeros(3)), "columns of different lengths"),
        (lambda: data_with(weak=np.full(400, 1.2)), r"weak label lies outside \[0, 1\]"),
        (lambda: data_with(gold=np.full(400, 0.3)), "gold label is neither 0 nor 1"),
        (lambda: data_with(test_y=np.ones(300)), "both of them"),
        (lambda: world().offers(300, 200, 0), "300 weak and 200 gold labels are wanted of different examples"),
        (lambda: trained([Stage("weak")], world().offers(10, 10, 0)), "labels of kind 'gold' are bought, but no stage"),
        (lambda: trained([Stage("weak")], {}), "no label is bought"),
        (lambda: SequentialTrainer(lambda _: LinearLearner(3), []), "give at least one"),
        (lambda: SequentialTrainer(lambda _: LinearLearner(3), [Stage("gold")] * 2), "each kind once"),
        (lambda: Stage("silver"), "'silver', but must be 'weak' or 'gold'"),
        (lambda: Stage("gold", batch=0), "must be above 0"),
        (lambda: Stage("gold", lr=float("nan")), "lr nan"),
        (lambda: Stage("gold", lr_after=-0.01), r"lr_after -0\.01"),
        (lambda: Stage("gold", max_steps=0), "max_steps 0 must be above 0"),
        (lambda: Stage("gold", choose="uncertian"), "choose is 'uncertian'"),
        (lambda: Stage("gold", choose="uncertain", temperature=-1.0), "temperature -1"),
        (lambda: EarlyStop(gain=float("nan")), "gain nan"),
        (lambda: data_with(x=world().x.tolist()), "`x` is a list, which cannot be cut by rows"),
        (lambda: data_with(weak=world().weak.tolist()), "`weak` is a list"),
        (lambda: data_with(x=SimpleNamespace(iloc=None)), "`x` is a SimpleNamespace, which is cut by index labels"),
        (lambda: data_with(test_y=SimpleNamespace(iloc=None)), "`test_y` is a SimpleNamespace, which is cut by index"),
        (lambda: data_with(gold=world().gold.astype(object)), r"`gold` has dtype object and shape \(400,\)"),
        (lambda: data_with(weak=np.full(400, "0.5")), "`weak` has dtype <U3 and .* Make it a flat NumPy array"),
        (lambda: data_with(gold=world().gold[:, None]), r"shape \(400, 1\), but labels are one number for each row"),
        (lambda: data_with(test_y=memoryview(world().test_y)), "`test_y` is a memoryview, but labels"),
        (lambda: data_with(x=np.where(np.arange(400)[:, None] == 7, np.nan, world().x)), "`x` is NaN .* in row 7"),
        (lambda: data_with(test_x=np.full((300, 3), np.inf)), "`test_x` is NaN or infinite in row 0"),
        (lambda: EarlyStop(share=1.0), "share 1 must lie between 0 and 1"),
        (lambda: LinearLearner(0), "needs at least 1"),
        (lambda: run_grid(SequentialTrainer(lambda _: LinearLearner(3), [Stage("gold")]), world(), [], [0], WEAK, GOLD),
         "0 purchases"),
    ],
)  # fmt: skip
def test_bad_input(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_what_pandas_holds_is_refused_and_its_arrays_are_taken():
    """With an index that is not 0, 1, 2, ... rows of x would be found by index label, and labels by place."""
    pandas = pytest.importorskip("pandas")
    data, order = world(), np.arange(400)[::-1]
    for name, values in (
        ("x", pandas.DataFrame(data.x, index=order)),
        ("x", pandas.Series(data.x[:, 0], index=order)),
        ("gold", pandas.Series(data.gold, index=order)),
    ):
        with pytest.raises(InputError, match=rf"`{name}` is a (DataFrame|Series), .* Give its `\.to_numpy\(\)`"):
            data_with(**{name: values})
        taken = data_with(**{name: values.to_numpy()})
        assert np.array_equal(getattr(taken, name), values.to_numpy())


def test_labels_may_be_whole_numbers_or_truth_values():
    for kind in (int, bool):
        data = data_with(gold=world().gold.astype(kind), test_y=world().test_y.astype(kind))
        assert len(data.offers(10, 10, 0)["gold"].rows) >= 10


def test_labels_outside_0_and_1_are_refused():
    x = world().x[:20]
    with pytest.raises(InputError, match="a gold label is not a number between 0 and 1"):
        trained([Stage("gold")], {"gold": Offer(x=x, labels=np.full(20, np.nan), n=20, rows=np.arange(20))})
