import json
import math

import pytest
import torch

from reckon.errors import InputError, RunError
from reckon.rewards import Function, Gate, Length, Sum, Verifier, as_reward
from reckon.types import LearningReward, Problem, Rng, Stream

NAN = float("nan")


class Fixed:
    """A reward that says what it is told to."""

    def __init__(self, **streams):
        self.streams = {
            name: s if isinstance(s, Stream) else Stream(values=torch.tensor(s)) for name, s in streams.items()
        }

    def score(self, batch):
        return self.streams


class Learner:
    """Counts the batches it has assessed, and keeps the random number it was given."""

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


def as_lists(streams):
    return {name: stream.values.tolist() for name, stream in streams.items()}


def test_parts_keep_their_own_streams_under_their_names(make_batch):
    batch = make_batch(["a", "b"], outcomes=[1, 0])
    tokens = Stream(values=torch.ones(2, 2), kind="advantage")
    tree = Sum({"correct": Verifier(), "steps": Fixed(raw=[1.0, 2.0], dense=tokens)})
    streams = tree.score(batch)
    assert list(streams) == ["correct", "steps/raw", "steps/dense"]
    assert streams["correct"].values.tolist() == [1, 0]
    assert streams["steps/dense"].kind == "advantage"
    assert all(stream.train for stream in streams.values())


def test_weights_multiply_and_leave_the_rest_alone(make_batch):
    batch = make_batch(["a", "b"], outcomes=[1, NAN])
    streams = Sum({"x": Verifier(), "y": Fixed(y=[2.0, 3.0])}, weights={"y": -0.5}).score(batch)
    assert streams["y"].values.tolist() == [-1.0, -1.5]
    assert streams["x"].values[0] == 1
    assert streams["x"].values[1].isnan()


def test_weight_zero_and_watching_are_the_same_and_train_nothing(make_batch):
    batch = make_batch(["a", "b"], outcomes=[1, 0])
    parts = {"correct": Verifier(), "other": Fixed(other=[5.0, NAN])}
    zero, watched = Sum(parts, weights={"other": 0}), Sum(parts, watch=["other"])
    both = Sum(parts, weights={"other": 0}, watch=["other"])
    for streams in (zero.score(batch), watched.score(batch), both.score(batch)):
        assert not streams["other"].train
        assert streams["other"].values[0] == 5  # as it is, so that there is something to watch
    absent = Sum({"correct": Verifier()}).score(batch)
    trained = {name: stream for name, stream in zero.score(batch).items() if stream.train}
    assert as_lists(trained) == as_lists(absent)


def test_a_stream_that_its_part_only_watches_stays_watched(make_batch):
    watched = Stream(values=torch.zeros(1), train=False)
    assert not Sum({"x": Fixed(x=watched)}, weights={"x": 2}).score(make_batch(["a"]))["x"].train


def test_weight_zero_leaves_the_random_numbers_of_other_parts_alone(make_batch):
    alone, beside = Learner(), Learner()
    rng = Rng((7, "reward"))
    Sum({"judge": alone}).assess(make_batch(["a"]), rng)
    Sum({"other": Learner(), "judge": beside}, weights={"other": 0}).assess(make_batch(["a"]), rng)
    assert alone.number == beside.number == rng.child("judge").integer()


def test_assess_lets_learners_learn_and_score_does_not(make_batch):
    batch, learner = make_batch(["a"], outcomes=[1]), Learner()
    tree = Sum({"judge": learner, "correct": Verifier()})
    assert isinstance(tree, LearningReward)
    assert as_lists(tree.score(batch)) == {"judge": [0], "correct": [1]}
    assert as_lists(tree.assess(batch, Rng((1,)))) == {"judge": [1], "correct": [1]}
    nested = Sum({"inner": Sum({"judge": learner})})
    assert as_lists(nested.assess(batch, Rng((1,)))) == {"inner": [2]}


def test_state_goes_to_the_parts_that_have_one(make_batch):
    def tree():
        return Sum({"judge": Learner(), "correct": Verifier(), "gate": Gate(condition=Verifier(), then=Learner())})

    batch, old, new = make_batch(["a"], outcomes=[1]), tree(), tree()
    old.assess(batch, Rng((1,)))
    old.assess(batch, Rng((2,)))
    state = old.state_dict()
    assert state == {"judge": {"assessed": 2}, "gate": {"then": {"assessed": 2}}}
    new.load_state_dict(json.loads(json.dumps(state)))
    assert as_lists(new.assess(batch, Rng((3,)))) == as_lists(old.assess(batch, Rng((3,))))


def test_state_of_other_parts_is_refused():
    with pytest.raises(RunError, match=r"holds rewards \['judge'\], and this run has \[\]"):
        Sum({"correct": Verifier()}).load_state_dict({"judge": {}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "no reward in it"),
        (({"a/b": Verifier()},), "'a/b' cannot name a reward"),
        (({"": Verifier()},), "'' cannot name a reward"),
        (({"f": len},), "no `score`. Wrap a function"),
        (({"correct": Verifier()}, {"corect": 2.0}), "`weights` names 'corect'.*Did you mean 'correct'"),
        (({"correct": Verifier()}, {}, ["zzz"]), r"`watch` names 'zzz'.*The rewards are \['correct'\]"),
        (({"correct": Verifier()}, {}, "correct"), "must be a list of names"),
        (({"correct": Verifier()}, {"correct": NAN}), "weight of 'correct' is nan"),
        (({"correct": Verifier()}, {"correct": 2.0}, ["correct"]), "its weight 2.0 is never used"),
    ],
)
def test_sum_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        Sum(*arguments)


@pytest.mark.parametrize("shape", [(3,), (2, 9), (1,)])
def test_a_stream_of_the_wrong_shape_names_its_part(make_batch, shape):
    tree = Sum({"mine": Fixed(mine=Stream(values=torch.zeros(shape)))})
    with pytest.raises(RunError, match=r"'mine' gave a stream of shape .* \[2\], or one for each token, \[2, 2\]"):
        tree.score(make_batch(["a", "b"]))


def test_gate_caps_what_fails_its_condition(make_batch, values):
    batch = make_batch(["x"] * 5)
    gate = Gate(condition=Fixed(c=[1.0, 0.0, -1.0, 0.5, NAN]), then=Fixed(r=[2.0, 2.0, -3.0, -3.0, 1.0]))
    got = values(gate, batch)
    assert got[:4] == [2, 0, -3, -3]
    assert math.isnan(got[4])


def test_gate_with_a_constant(make_batch, values):
    gate = Gate(condition=Fixed(c=[1.0, 0.0, 0.0]), then=Fixed(r=[2.0, 2.0, NAN]), otherwise=-1.0)
    assert values(gate, make_batch(["x"] * 3, group=[0, 0, 0])) == [2, -1, -1]


def test_gate_adds_up_what_trains_and_leaves_out_what_does_not_apply(make_batch):
    problems = [Problem(id=i, prompt="?") for i in "abc"]
    batch = make_batch(["x"] * 6, group=[0, 0, 1, 1, 2, 2], problems=problems)
    then = Sum(
        {
            "a": Fixed(a=[1.0, 2.0, 3.0, 4.0, NAN, NAN]),
            "b": Fixed(b=[10.0, NAN, NAN, NAN, NAN, NAN]),  # unknown in row 1, absent from the groups b and c
            "c": Fixed(c=[100.0] * 6),
        },
        weights={"c": 0},
    )
    got = Gate(condition=Fixed(c=[1.0] * 6), then=then).score(batch)["gate"].values.tolist()
    assert got[0] == 11
    assert math.isnan(got[1])
    assert got[2:4] == [3, 4]
    assert all(math.isnan(value) for value in got[4:])


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (Fixed(r=Stream(values=torch.zeros(1, 2))), "'r' of its 'then' is a reward of 2 dimension"),
        (Fixed(r=Stream(values=torch.zeros(1), kind="advantage")), "is a advantage of 1 dimension"),
        (Fixed(r=Stream(values=torch.zeros(1), train=False)), "'then' gives no stream that trains"),
    ],
)
def test_gate_refuses_what_is_not_one_reward_a_response(make_batch, then, message):
    with pytest.raises(RunError, match=message):
        Gate(condition=Fixed(c=[1.0]), then=then).score(make_batch(["x"]))


@pytest.mark.parametrize("otherwise", ["zero", NAN, float("inf")])
def test_gate_refuses_another_word_and_what_is_not_finite(otherwise):
    with pytest.raises(InputError, match=f"`otherwise` is {otherwise!r}; it must be a finite number or capped"):
        Gate(condition=Verifier(), then=Verifier(), otherwise=otherwise)


def test_as_reward_takes_whatever_a_user_has(make_batch):
    def shortness(completions):
        return [-len(text) for text in completions]

    batch = make_batch(["abc", "d"], outcomes=[1, 0])
    tree = Sum({"correct": Verifier()})
    assert as_reward(tree) is tree
    assert as_lists(as_reward(shortness).score(batch)) == {"shortness": [-3, -1]}
    assert as_lists(as_reward(Verifier()).score(batch)) == {"verifier": [1, 0]}
    assert list(as_reward(Length(l_max=8)).parts) == ["length"]
    assert list(as_reward(lambda completions: completions).parts) == ["function"]
    both = as_reward({"right": Verifier(), "short": shortness, "wrapped": Function(shortness)})
    assert as_lists(both.score(batch)) == {"right": [1, 0], "short": [-3, -1], "wrapped": [-3, -1]}


def test_as_reward_refuses_what_cannot_judge():
    with pytest.raises(InputError, match="a reward is of type int"):
        as_reward(3)
    with pytest.raises(InputError, match="the reward 'x' is of type str"):
        as_reward({"x": "verifier"})
