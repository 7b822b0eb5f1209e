"""Rewards made of rewards as log-probabilities: values by hand, what is watched, what is unknown, what is refused."""

import json
import math

import pytest
import torch

from reckon import combinations
from reckon.errors import InputError, RunError
from reckon.recipe._document import Document
from reckon.recipe._parts import _role
from reckon.recipe._settings import settings
from reckon.rewards import Function, Gate, Sum, Verifier
from reckon.rewards._combine import And, Centered, Not, Or, Probability, and_, not_, or_
from reckon.rewards._combine_groups import Constrained, MinMax, NormalizeThenSum, Standardized
from reckon.rewards._combine_numbers import BaseSamples, Clip, Ensemble, Linear, Min, Product
from reckon.rewards._combine_parts import is_group_level
from reckon.types import LearningReward, Rng, Stream

NAN = float("nan")
NODES = (And, Or, Not, Centered, Probability, Linear, Min, Ensemble, Product, Clip, BaseSamples)
NODES += (NormalizeThenSum, Standardized, MinMax, Constrained)


class Fixed:
    """A reward that says what it is told to."""

    def __init__(self, *values, **more):
        self.streams = {"fixed": Stream(values=torch.tensor(values))} if values else {}
        self.streams |= {
            name: s if isinstance(s, Stream) else Stream(values=torch.tensor(s)) for name, s in more.items()
        }

    def score(self, batch):
        return self.streams


class Learner:
    """Says how often it has assessed; remembers its random number."""

    def __init__(self):
        self.assessed, self.number = 0, None

    def score(self, batch):
        return {"learner": Stream(values=torch.full_like(batch.outcome, float(self.assessed)))}

    def assess(self, batch, rng):
        self.assessed, self.number = self.assessed + 1, rng.integer()
        return self.score(batch)

    def state_dict(self):
        return {"assessed": self.assessed}

    def load_state_dict(self, state):
        self.assessed = state["assessed"]


def z(*values, references=0.0):
    return Centered(reward=Fixed(*values), references=references)


def p(*values, eps=0.01):
    return Probability(reward=Fixed(*values), eps=eps)


def own(streams):
    """The one stream that trains, as a list."""
    (trained,) = [stream for stream in streams.values() if stream.train]
    assert trained.kind == "reward"
    return trained.values.tolist()


def test_and_of_two_centered_scores(make_batch):
    batch = make_batch(["a", "b"])
    streams = And({"x": z(5.0, -2.0, references=1.0), "y": z(-3.0, 0.2)}).score(batch)
    # log sigmoid(4) + log sigmoid(-3) = -3.066737; log sigmoid(-3) + log sigmoid(.2) = -3.048587 - .598139
    assert own(streams) == pytest.approx([-3.066737, -3.646726], abs=1e-5)
    assert list(streams) == ["and", "x", "x.reward", "y", "y.reward"]
    assert streams["x"].values.tolist() == [4.0, -3.0]  # less its reference
    assert streams["x.reward"].values.tolist() == [5.0, -2.0]


def test_a_tree(make_batch):
    """and_(helpful, or_(cites, says_unknown), not_(toxic)), in probabilities."""
    batch = make_batch(["a", "b"])

    def cites(completions):
        return [1.0, 0.0]

    def says_unknown(completions):
        return [0.0, 0.0]

    helpful, toxic = z(0.0, 0.0), Probability(reward=Fixed(0.2, 0.2))
    tree = and_(
        helpful,
        or_(Probability(reward=Function(cites), eps=0.1), Probability(reward=Function(says_unknown), eps=0.1)),
        not_toxic=not_(toxic),
    )
    streams = tree.score(batch)
    # .5 * (1 - .1 * .9) * .8 = .364; .5 * (1 - .9 * .9) * .8 = .076
    assert own(streams) == pytest.approx([math.log(0.364), math.log(0.076)], abs=1e-5)
    assert list(tree.parts) == ["fixed", "or_of_cites_says_unknown", "not_toxic"]
    assert streams["or_of_cites_says_unknown.cites.reward"].values.tolist() == [1.0, 0.0]
    assert streams["not_toxic"].values.tolist() == pytest.approx([math.log(0.8)] * 2)
    assert streams["not_toxic.reward.reward"].values.tolist() == pytest.approx([0.2, 0.2])
    # At the top of everything it is one reward with everything else only watched.
    top = Sum({"good": tree}).score(batch)
    assert own(top) == own(streams)
    assert "good/and" in top


def test_names_of_parts():
    fixed = z(1.0)
    assert list(and_(fixed, fixed, not_(fixed), mine=fixed).parts) == ["fixed", "fixed_2", "not_fixed", "mine"]
    assert list(or_(and_(a=fixed, b=fixed), fixed).parts) == ["and_of_a_b", "fixed"]
    assert isinstance(or_(fixed), Or)


def test_or_not_and_weights_by_hand(make_batch):
    batch = make_batch(["a"])
    assert own(Or({"x": z(2.0), "y": z(-1.0)}).score(batch)) == pytest.approx([-0.091177], abs=1e-6)
    assert own(Not(z(2.0)).score(batch)) == pytest.approx([-2.126928], abs=1e-6)
    tempered = And({"x": z(0.0), "y": z(0.0)}, weights={"x": 2.0})
    assert own(tempered.score(batch)) == pytest.approx([3 * math.log(0.5)])
    assert own(Not(tempered).score(batch)) == pytest.approx([math.log(1 - 0.125)])  # nests with its weights


def test_a_failed_rule_costs_at_most_the_log_of_eps(make_batch):
    batch = make_batch(["a", "b", "c"], outcomes=[1, 0, NAN])
    streams = Probability(reward=Verifier(), eps=0.05).score(batch)
    assert streams["probability"].values.tolist()[:2] == pytest.approx([math.log(0.95), math.log(0.05)], abs=1e-6)
    assert streams["probability"].values[2].isnan()


def test_extremes_through_a_tree(make_batch):
    batch = make_batch(["a", "b"])
    tree = and_(a=z(1e4, -1e4), b=or_(c=z(-1e4, 1e4), d=not_(z(1e4, -1e4))))
    assert all(math.isfinite(value) for value in own(tree.score(batch)))


@pytest.mark.parametrize("node", [And, Or])
def test_unknown_where_siblings_are_known(node, make_batch):
    """A verdict that crashed must not make a response better off than one found wrong."""
    batch = make_batch(["a", "b", "c", "d"], group=[0, 0, 1, 1])
    parts = {"x": z(1.0, NAN, NAN, NAN), "y": z(0.0, 0.0, 0.0, 0.0)}
    value = own(node(parts).score(batch))
    assert math.isnan(value[1])
    assert value[2:] == pytest.approx([math.log(0.5)] * 2)  # x applies to none of the group
    left_out = own(node(parts, missing="left_out").score(batch))
    assert left_out[1] == pytest.approx(math.log(0.5))
    nothing = own(node({"x": z(NAN, NAN, NAN, NAN)}).score(batch))
    assert all(map(math.isnan, nothing))
    # One level up an unknown stays unknown.
    assert math.isnan(own(Not(node(parts)).score(batch))[1])


def test_numbers_by_hand(make_batch):
    batch = make_batch(["a", "b"])
    parts = {"x": Fixed(1.0, 0.5), "y": Fixed(3.0, 0.25)}
    assert own(Linear(parts, weights={"y": -0.5}).score(batch)) == pytest.approx([-0.5, 0.375])
    assert own(Min(parts).score(batch)) == [1.0, 0.25]
    # -log((e^-1 + e^-3) / 2) = -log(.208833); -log((e^-.5 + e^-.25) / 2) = -log(.692666)
    assert own(Min(parts, temperature=1.0).score(batch)) == pytest.approx([1.566219, 0.367208], abs=1e-5)
    assert own(Ensemble(parts, how="min").score(batch)) == [1.0, 0.25]
    assert own(Ensemble(parts, coef=2.0).score(batch)) == pytest.approx([0.0, 0.375 - 2 * 0.015625])
    assert own(Product({"x": Fixed(1.0, 0.5), "y": Fixed(0.5, 0.5)}).score(batch)) == [0.5, 0.25]
    assert own(Clip(reward=Fixed(-2.0, 0.5), low=-1, high=1).score(batch)) == [-1.0, 0.5]
    streams = Min(parts).score(batch)
    assert list(streams) == ["min", "x", "y"]
    assert not streams["x"].train


@pytest.mark.parametrize("node", [Linear, Min, Ensemble, Product])
def test_numbers_that_are_missing(node, make_batch):
    batch = make_batch(["a", "b", "c"], group=[0, 0, 1])
    parts = {"x": Fixed(0.5, NAN, NAN), "y": Fixed(0.5, 0.5, 0.5)}
    value = own(node(parts).score(batch))
    assert math.isnan(value[1])
    assert value[2] == 0.5
    assert own(node(parts, missing="left_out").score(batch))[1] == 0.5


def test_streams_of_a_part_are_added_and_watched(make_batch):
    batch = make_batch(["a", "b"])
    watched = Stream(values=torch.zeros(2), train=False)
    both = Sum({"a": Fixed(1.0, 2.0), "b": Fixed(10.0, 20.0)})
    inner = Linear({"deep": Sum({"sum": both})}).score(batch)
    assert list(inner) == ["linear", "deep", "deep.sum.a", "deep.sum.b"]  # no slash: the top of the tree adds one
    streams = Linear({"x": both, "y": Fixed(0.0, 0.0, seen=watched)}).score(batch)
    assert own(streams) == [11.0, 22.0]
    assert list(streams) == ["linear", "x", "x.a", "x.b", "y", "y.seen"]


def test_groups_by_hand(make_batch):
    batch = make_batch(list("abcd"), group=[0, 0, 1, 1])
    parts = {"x": Fixed(0.0, 1.0, 0.0, 1.0), "y": Fixed(0.0, 0.0, 0.0, 1.0)}
    apart = NormalizeThenSum(parts, whiten=False, eps=1e-9)
    assert own(apart.assess(batch, Rng((0,)))) == pytest.approx([-0.70711, 0.70711, -1.41421, 1.41421], abs=1e-5)
    white = NormalizeThenSum(parts, eps=1e-9)
    assert own(white.score(batch)) == pytest.approx([-0.547723, 0.547723, -1.095445, 1.095445], abs=1e-5)
    grouped = Standardized(reward=parts["x"], over="group", eps=1e-9)
    assert own(grouped.score(batch)) == pytest.approx([-0.70711, 0.70711] * 2, abs=1e-5)


@pytest.mark.parametrize(
    "node", [NormalizeThenSum({"x": Fixed(1.0, 2.0, 3.0)}), Standardized(reward=Fixed(1.0, 2.0, 3.0), over="group")]
)
def test_group_level_nodes_refuse_to_run_without_groups(node, make_batch):
    alone = make_batch(list("abc"), group=[0, 1, 2])
    with pytest.raises(RunError, match=r"no prompt has two\. Raise `answers`"):
        node.assess(alone, Rng((0,)))
    assert all(map(math.isnan, own(node.score(alone))))  # a report on lone responses goes on: unknown
    mixed = make_batch(list("abc"), group=[0, 0, 1])
    assert math.isnan(own(node.assess(mixed, Rng((0,))))[2])


def test_which_rewards_compare_responses():
    grouped = Standardized(reward=Fixed(1.0), over="group")
    inside = and_(a=Centered(reward=grouped), b=z(1.0))
    for reward in (grouped, inside, Not(inside), Or({"x": inside}), Clip(reward=grouped, low=0, high=1)):
        assert reward.group_level
    for reward in (
        Linear({"x": grouped}),
        Min({"x": grouped}),
        Constrained(reward=Fixed(1.0), costs={"c": grouped}, limits={"c": 1.0}),
    ):
        assert reward.group_level
    for reward in (Sum({"x": grouped}), Gate(condition=Verifier(), then=inside), Sum({"x": Sum({"y": inside})})):
        assert is_group_level(reward)  # also where a node of another kind stands above
    plain = [
        z(1.0),
        p(1.0),
        and_(z(1.0)),
        Linear({"x": z(1.0)}),
        Standardized(reward=Fixed(1.0)),
        MinMax(reward=p(1.0)),
    ]
    assert not any(reward.group_level for reward in plain)
    assert not any(map(is_group_level, [*plain, Sum({"x": z(1.0)}), Verifier()]))


def test_running_statistics(make_batch):
    batch = make_batch(["a", "b"])
    running = Standardized(reward=Fixed(0.0, 2.0), eps=1e-9)
    assert all(map(math.isnan, own(running.score(batch))))
    assert own(running.assess(batch, Rng((0,)))) == pytest.approx([-1.0, 1.0])
    running.reward = Fixed(5.0, NAN)
    # 0, 2, 5: mean 7/3, variance (49 + 1 + 64) / 9 / 3 = 38/9, deviation 2.054805; (5 - 7/3) / 2.054805
    value = own(running.assess(batch, Rng((1,))))
    assert value[0] == pytest.approx(1.297771, abs=1e-6)
    assert math.isnan(value[1])
    before = running.state_dict()
    assert own(running.score(batch))[0] == pytest.approx(value[0])
    assert running.state_dict() == before  # score is pure


def test_running_bounds(make_batch):
    batch = make_batch(["a", "b"])
    bounds = MinMax(reward=Fixed(1.0, 3.0))
    assert all(map(math.isnan, own(bounds.score(batch))))
    assert own(bounds.assess(batch, Rng((0,)))) == [0.0, 1.0]
    bounds.reward = Fixed(2.0, 5.0)
    assert own(bounds.score(batch)) == [0.5, 2.0]  # pure: bounds are still 1 and 3
    assert own(bounds.assess(batch, Rng((1,)))) == [0.25, 1.0]


def test_prices_rise_where_limits_are_exceeded(make_batch):
    batch = make_batch(["a", "b"])
    node = Constrained(
        reward=Fixed(1.0, 0.0),
        costs={"long": Fixed(0.4, 0.2), "odd": Fixed(0.0, 0.0)},
        limits={"long": 0.1, "odd": 0.5},
        lr=2.0,
        start=1.0,
    )
    # 1 - (.4 - .1) - (0 - .5) = 1.2; 0 - .1 + .5 = .4
    assert own(node.assess(batch, Rng((0,)))) == pytest.approx([1.2, 0.4])
    streams = node.score(batch)
    assert streams["long.price"].values.tolist() == pytest.approx([1.4] * 2)  # 1 + 2 (.3 - .1)
    assert streams["odd.price"].values.tolist() == pytest.approx([0.0] * 2)  # max(0, 1 + 2 (0 - .5))
    assert own(streams) == pytest.approx([1 - 1.4 * 0.3, -1.4 * 0.1])
    again = Constrained(reward=Fixed(1.0, 0.0), costs=node.costs, limits=node.limits)
    again.load_state_dict(json.loads(json.dumps(node.state_dict())))
    assert own(again.score(batch)) == own(streams)


def deep(learner):
    """Every node around one that learns."""
    linear = Linear({"a": Clip(reward=Min({"b": learner}), low=-9, high=9)})
    ensemble = Ensemble({"c": Standardized(reward=MinMax(reward=linear))})
    priced = Constrained(reward=ensemble, costs={"d": Product({"e": Fixed(0.5, 0.5)})}, limits={"d": 0.1})
    return and_(f=or_(g=not_(Centered(reward=priced))), h=Probability(reward=Fixed(0.5, 1.0)))


def test_state_goes_down_the_tree_and_back(make_batch):
    batch = make_batch(["a", "b"])
    first = Learner()
    tree = deep(first)
    for step in range(3):
        tree.assess(batch, Rng((step,)))
    assert first.assessed == 3
    state = json.loads(json.dumps(tree.state_dict()))  # JSON all through
    second = Learner()
    again = deep(second)
    again.load_state_dict(state)
    assert second.assessed == 3
    assert own(again.score(batch)) == own(tree.score(batch))
    one, other = tree.assess(batch, Rng((9,))), again.assess(batch, Rng((9,)))
    assert own(one) == own(other)
    assert first.number == second.number
    assert isinstance(tree, LearningReward)


def test_what_a_part_deep_down_reports_comes_up_under_its_path():
    class Reporter(Fixed):
        def metrics(self):
            return {"loss": 0.5}

    tree = deep(Reporter(1.0, 2.0))
    assert Sum({"good": tree}).metrics() == {
        "reward/good/f/g/reward/reward/reward/c/reward/reward/a/reward/b/loss": 0.5
    }
    assert and_(z(1.0)).metrics() == {}


def test_random_numbers_depend_on_the_path_alone(make_batch):
    batch = make_batch(["a"])
    lone, crowded = Learner(), Learner()
    And({"x": Centered(reward=lone)}).assess(batch, Rng((1,)))
    And({"y": Centered(reward=Learner()), "x": Centered(reward=crowded)}).assess(batch, Rng((1,)))
    assert lone.number == crowded.number
    one, other = Learner(), Learner()
    And({"x": Centered(reward=one), "y": Centered(reward=other)}).assess(batch, Rng((1,)))
    assert one.number != other.number


def test_a_changed_tree_is_not_resumed():
    saved = and_(x=Centered(reward=Learner())).state_dict()
    with pytest.raises(RunError, match="Resume with the recipe the run was begun with"):
        and_(y=Centered(reward=Learner())).load_state_dict(saved)
    with pytest.raises(RunError, match="holds no statistics"):
        MinMax(reward=Fixed(1.0)).load_state_dict({})
    node = Constrained(reward=Fixed(1.0), costs={"c": Fixed(1.0)}, limits={"c": 0.0})
    with pytest.raises(RunError, match="prices of \\['d'\\]"):
        node.load_state_dict({"parts": {}, "statistics": {"d": 1.0}})


X, N = {"x": z(1.0)}, {"x": Fixed(1.0)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: And({}), "and: there is no reward in it"),
        (lambda: And({"v": Verifier()}), "'v' is a Verifier, which does not say how likely a response is good"),
        (lambda: Or({"v": Linear(N)}), "Wrap it: Probability"),
        (lambda: Not(Verifier()), "not: 'reward' is a Verifier"),
        (lambda: And({"a/b": z(1.0)}), "'a/b' cannot name a part"),
        (lambda: And({"a.b": z(1.0)}), "'a.b' cannot name a part"),
        (lambda: And({"and": z(1.0)}), "is not 'and'"),
        (lambda: And({"f": len}), "has no `score`. Wrap a function in `Function`"),
        (lambda: And(X, weights={"y": 1.0}), "`weights` names 'y'"),
        (lambda: And(X, weights={"x": 0.0}), "the weight of 'x' is 0.0"),
        (lambda: And(X, missing="zero"), "`missing` is 'zero'"),
        (lambda: Linear(N, weights={"x": NAN}), "the weight of 'x' is nan"),
        (lambda: Min(N, temperature=-1), "`temperature` is -1"),
        (lambda: Ensemble(N, how="mean"), "`how` is 'mean'"),
        (lambda: Ensemble(N, coef=-1), "`coef` is -1"),
        (lambda: Clip(reward=Fixed(1.0), low=1, high=0), "`low` \\(1\\) must be below"),
        (lambda: Probability(reward=Fixed(1.0), eps=0.5), "`eps` is 0.5"),
        (lambda: Centered(reward=Fixed(1.0), references=NAN), "`references` is nan"),
        (lambda: Centered(reward=Fixed(1.0), key="x"), "one level for all, which has no keys"),
        (lambda: Standardized(reward=Fixed(1.0), over="batch"), "`over` is 'batch'"),
        (lambda: Standardized(reward=Fixed(1.0), eps=0), "`eps` is 0"),
        (lambda: Constrained(reward=Fixed(1.0), costs=N, limits={}), "`limits` is {}"),
        (lambda: Constrained(reward=Fixed(1.0), costs=N, limits={"x": 0.0}, lr=0), "`lr` is 0; it must be above 0"),
        (lambda: Constrained(reward=Fixed(1.0), costs={"reward": Fixed(1.0)}, limits={}), "cannot be named 'reward'"),
    ],
)
def test_what_is_refused_when_it_is_made(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (p(0.5, 1.5), "probability: the reward gave 1.5 for row 1 \\(problem 'p0'\\).*Wrap a score in `Centered`"),
        (Product({"x": Fixed(0.5, -0.5)}), "product: 'x' gave -0.5 for row 1"),
        (Linear({"x": Fixed(x=Stream(values=torch.zeros(2, 2)))}), "is a reward of 2 dimension"),
        (Linear({"x": Fixed(x=Stream(values=torch.zeros(2), kind="weight"))}), "is a weight of 1 dimension"),
        (Linear({"x": Fixed(x=Stream(values=torch.zeros(2), train=False))}), "linear: 'x' gives no stream that trains"),
        (Linear({"x": Fixed(1.0, 2.0, 3.0)}), "gave a stream of shape \\[3\\]"),
    ],
)
def test_what_is_refused_when_it_is_scored(node, message, make_batch):
    with pytest.raises(RunError, match=message):
        node.score(make_batch(["a", "b"]))


def test_a_recipe_can_name_the_parts():
    """Settings that are rewards are known as such by their types, and every other one can be written in YAML."""
    from reckon.recipe._settings import typed

    nested = {"reward": None, "parts": "mapping", "costs": "mapping"}
    for node in NODES:
        for name, setting in settings(node).items():
            role, shape = _role(setting.annotation)
            assert (role == "reward") == (name in nested), (node, name)
            if name in nested:
                assert (shape is None) == (nested[name] is None)
    document = Document.__new__(Document)
    object.__setattr__(document, "folder", __import__("pathlib").Path("."))
    annotation = settings(Centered)["references"].annotation
    assert typed(document, ("reward", "references"), 0.5, annotation) == 0.5
    assert typed(document, ("reward", "references"), "references.json", annotation) == "references.json"


def test_the_node_is_the_pure_function(make_batch):
    batch = make_batch(list("abc"))
    values = torch.tensor([[1.0, -2.0, 0.3], [0.1, 0.2, -5.0]])
    parts = {name: z(*row) for name, row in zip("xy", values.tolist(), strict=True)}
    assert own(And(parts).score(batch)) == combinations.and_(values).tolist()
    assert own(Or(parts).score(batch)) == combinations.or_(values).tolist()
