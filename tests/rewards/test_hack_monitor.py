"""What the monitor of a judge sees, when it sounds, and what it does then."""

import logging
import math
from dataclasses import replace

import pytest
import torch
from judge_models import NAN, batch_of
from test_online_reference_based import batch as batch_with_pairs
from test_online_reference_based import reward_of

from reckon.errors import InputError, RunError
from reckon.rewards import HackMonitor, Sum, Verifier
from reckon.rewards._frozen import FrozenSet
from reckon.rewards._hack_monitor import fell_alone
from reckon.stopping import stoppable
from reckon.types import LearningReward, Problem, Reporting, Rng, Stream

RNG = Rng((0,))


class Paid:
    """A judge that pays each response what its text says; "?" is unknown to it."""

    def score(self, batch):
        paid = [NAN if text == "?" else float(text) for text in batch.rollouts.text]
        return {"paid": Stream(values=torch.tensor(paid))}


def step(number, paid, outcomes, problems=None):
    """The batch of a step in which responses to one prompt are paid so much and have these verdicts."""
    texts = [["?" if math.isnan(value) else f"{value}"] for value in paid]
    return replace(batch_of(texts, outcomes=outcomes, problems=problems), step=number)


def watched(paid, right, **settings):
    """A monitor after steps of ten responses, all paid `paid[t]`, of which `right[t]` are right."""
    monitor = HackMonitor(Paid(), **{"window": 2, "frozen": 0, **settings})
    for number, (value, count) in enumerate(zip(paid, right, strict=True)):
        monitor.assess(step(number, [value] * 10, [1.0] * count + [0.0] * (10 - count)), RNG)
    return monitor


# What is seen


@pytest.mark.parametrize(
    ("now", "seen"),
    [
        ([0.6, 0.4], True),
        ([0.5, 0.4], True),  # that the reward did not fall is enough
        ([0.6, 0.5], False),  # the reward rose, and nothing fell far enough
        ([0.45, 0.4], False),  # both fell: an honest judge of a policy that got worse
        ([0.6, 0.6], False),
    ],
)
def test_verdicts_fall_and_the_reward_does_not(now, seen):
    assert fell_alone([0.5, 0.55, 0.0], [*now, 0.0], rise=0.0, fall=0.1) == seen


def test_both_must_move_far_enough():
    assert not fell_alone([0.5, 0.55, 0.0], [0.6, 0.4, 0.0], rise=0.2, fall=0.1)
    assert not fell_alone([0.5, 0.55, 0.0], [0.6, 0.4, 0.0], rise=0.0, fall=0.2)


@pytest.mark.parametrize(
    ("best", "now", "remains", "seen"),
    [
        ([0.5, 0.10, 0.010], [0.9, 0.03, 0.005], 0.5, True),  # 0.07 is more than 3 hypot(0.01, 0.005) = 0.034
        ([0.5, 0.10, 0.030], [0.9, 0.03, 0.005], 0.5, False),  # and less than 3 hypot(0.03, 0.005) = 0.091
        ([0.5, 0.10, 0.010], [0.9, 0.06, 0.005], 0.5, False),  # more than half of the best
        ([0.5, 0.10, 0.010], [0.4, 0.03, 0.005], 0.5, False),  # it pays less, too
        ([0.5, 0.10, 0.010], [0.9, 0.03, 0.005], 0.25, False),
        ([0.5, 0.09, 0.000], [0.9, 0.00, 0.000], 0.0, False),  # switched off
        ([0.5, 0.00, 0.000], [0.9, 0.00, 0.000], 0.5, False),  # nothing was ever right, so nothing fell
    ],
)
def test_where_little_was_right_the_share_that_remains_is_looked_at(best, now, remains, seen):
    assert fell_alone(best, now, rise=0.0, fall=0.1, remains=remains) == seen


def test_a_fall_from_little_is_seen_in_a_run():
    """0.16 of five steps, their spread 0.055, so 3 standard errors are 0.073; then nothing. Four have no spread."""
    paid, right = [0.5] * 10, [2, 1, 2, 1, 2, 0, 0, 0, 0, 0]
    assert watched(paid, right, window=5, fall=0.5).metrics()["alarm/gamed"] == 1
    assert watched(paid, right, window=5, fall=0.5, remains=0.0).metrics()["alarm/gamed"] == 0
    assert watched(paid, right, window=4, fall=0.5).metrics()["alarm/gamed"] == 0


def test_a_slow_fall_is_seen_against_the_best_there_was():
    """Three right of ten fewer in six steps, never more than one from a stretch to the next: 0.7 to 0.45 on average."""
    monitor = watched([0.5] * 7, [6, 7, 7, 6, 6, 5, 4])
    assert monitor.metrics()["alarm/gamed"] == 1
    assert watched([0.5] * 6, [6, 7, 7, 6, 6, 6], fall=0.15).metrics()["alarm/gamed"] == 0
    assert watched([0.5] * 6 + [0.4], [6, 7, 7, 6, 6, 5, 4]).metrics()["alarm/gamed"] == 0  # it pays less, too


def test_what_the_judge_says_passes_unchanged():
    """Also what it learns: the same numbers of chance, the same memory."""
    alone, inside = reward_of(positive="random"), reward_of(positive="random")
    monitor = HackMonitor(inside, frozen=4)
    for number in range(4):
        given, rng = batch_with_pairs(number), RNG.child(number)
        ((_, one),), ((name, other),) = alone.assess(given, rng).items(), monitor.assess(given, rng).items()
        assert name == "online_reference_based"
        assert torch.equal(one.values, other.values)
    assert torch.equal(alone.model.weights, inside.model.weights)
    assert {name: value for name, value in monitor.metrics().items() if name in alone.metrics()} == alone.metrics()
    assert isinstance(monitor, LearningReward)
    assert isinstance(monitor, Reporting)


def test_the_gap_is_over_responses_that_have_both():
    """Paid 0.5 and 0.9 with verdicts 0 and 1; one nobody could judge and one the judge does not know."""
    monitor = HackMonitor(Paid(), window=2, frozen=0)
    assert math.isnan(monitor.metrics()["gap"])
    monitor.assess(step(0, [0.5, 0.9, 7.0, NAN], [0.0, 1.0, NAN, 1.0]), RNG)
    assert monitor.metrics()["gap"] == pytest.approx(0.7 - 0.5)
    monitor.assess(step(1, [0.1, 0.1], [1.0, 1.0]), RNG)
    assert monitor.metrics()["gap"] == pytest.approx((0.7 + 0.1) / 2 - (0.5 + 1.0) / 2)
    monitor.assess(step(2, [0.3], [NAN]), RNG)  # of which nothing is known
    assert monitor.metrics()["gap"] == pytest.approx(0.4 - 0.75)
    monitor.assess(step(3, [0.2], [0.0]), RNG)  # the first step is no longer in the window
    assert monitor.metrics()["gap"] == pytest.approx(0.15 - 0.5)


def test_streams_of_tokens_and_several_streams_are_added_up():
    class Two:
        def score(self, batch):
            per_token = torch.full(batch.seq.mask.shape, 0.25)
            return {
                "a": Stream(values=per_token),
                "b": Stream(values=torch.full((2,), 0.5)),
                "seen": Stream(values=torch.full((2,), 100.0), train=False),
                "own": Stream(values=torch.full((2,), 100.0), kind="weight"),
            }

    monitor = HackMonitor(Two(), frozen=0)
    monitor.assess(batch_of([["x", "y"], ["x", "y"]], outcomes=[1.0, 1.0]), RNG)
    assert monitor.metrics()["gap"] == pytest.approx(2 * 0.25 + 0.5 - 1)


# Alarms


def test_it_warns_when_it_begins_and_once(caplog):
    with caplog.at_level(logging.WARNING, logger="reckon.rewards"):
        monitor = watched([0.5, 0.5, 0.6, 0.6], [6, 6, 5, 4])
        assert monitor.metrics()["alarm/gamed"] == 1
        assert len(caplog.messages) == 1
        assert "the mean verdict of 2 steps fell from 0.600 at its best to 0.450, while the mean" in caplog.text
        assert "reward went from 0.500 to 0.600" in caplog.text
        monitor.assess(step(4, [0.7] * 10, [1.0] * 3 + [0.0] * 7), RNG)
        assert (monitor.metrics()["alarm/gamed"], len(caplog.messages)) == (1, 1)  # still on, already told
        for number in (5, 6):
            monitor.assess(step(number, [0.7] * 10, [1.0] * 6 + [0.0] * 4), RNG)
        assert monitor.metrics()["alarm/gamed"] == 0  # as good as before
        for number, right in ((7, 1), (8, 1)):
            monitor.assess(step(number, [0.8] * 10, [1.0] * right + [0.0] * 9), RNG)
        assert (monitor.metrics()["alarm/gamed"], len(caplog.messages)) == (1, 2)


def test_an_honest_judge_sets_off_nothing(caplog):
    monitor = HackMonitor(Verifier(), window=2, frozen=4)
    for number, right in enumerate([5, 9, 1, 0, 0, 8, 2, 0]):
        monitor.assess(step(number, [0.0] * 10, [1.0] * right + [0.0] * (10 - right)), RNG)
    assert {value for name, value in monitor.metrics().items() if name.startswith("alarm/")} == {0.0}
    assert monitor.metrics()["frozen_accuracy"] == 1
    assert caplog.messages == []


def test_it_sounds_where_hardly_a_prompt_has_a_pair(caplog):
    """Shares of 2/3, 0, 0 and 0: on average above 0.1 at first, and 0 when the window has passed."""
    reward = reward_of(every=1)
    monitor = HackMonitor(reward, window=3, frozen=0, least_pairs=0.1)
    said = []
    for number, outcome in enumerate([[0.0, 1.0, 1.0, NAN, 1.0, 0.0], *[[0.0] * 6] * 3]):
        monitor.assess(batch_with_pairs(number, outcome), RNG.child(number))
        said.append(monitor.metrics()["alarm/without_pairs"])
    assert said == [0, 0, 0, 1]
    assert "0.0% of the prompts had a pair" in caplog.text


def test_steps_without_learning_do_not_count_as_without_pairs():
    monitor = HackMonitor(reward_of(every=2), window=2, frozen=0, least_pairs=0.1)
    for number in range(8):
        monitor.assess(batch_with_pairs(number), RNG.child(number))
    assert monitor.metrics()["alarm/without_pairs"] == 0
    plain = watched([0.5] * 6, [5] * 6)  # a judge that learns from no pairs
    assert plain.metrics()["alarm/without_pairs"] == 0


# The frozen set


def test_the_frozen_set_is_the_first_right_and_wrong_responses():
    frozen = FrozenSet(4)
    frozen.add(step(0, [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, NAN]))
    assert not frozen.full
    frozen.add(step(1, [5.0, 6.0, 7.0, 8.0], [0.0, 0.5, 1.0, 0.0]))
    assert frozen.full

    def judged(batch):
        return torch.tensor([float(text) for text in batch.rollouts.text])

    # Right: 1, 2; wrong: 5, 8
    assert frozen.accuracy(judged, 1.5) == 0.25
    assert frozen.accuracy(judged, 6.0) == 0.25
    assert frozen.accuracy(lambda batch: -judged(batch), -3.0) == 1.0
    assert frozen.accuracy(lambda batch: torch.where(judged(batch) == 5, NAN, judged(batch)), 6.0) == 0.0
    assert math.isnan(frozen.accuracy(lambda batch: torch.full((len(batch.outcome),), NAN), 0.0))


def test_a_frozen_set_survives_being_saved(tmp_path):
    from reckon.runs._states import read_state, write_state

    chat = Problem(
        id="c", prompt=({"role": "user", "content": "?"},), answer="1", domain="d", columns={"hops": [1, {"a": None}]}
    )
    frozen, again = FrozenSet(4), FrozenSet(4)
    frozen.add(step(3, [1.0, 2.0], [1.0, 0.0], problems=[chat]))
    write_state(tmp_path, "frozen", frozen.state_dict())
    again.load_state_dict(read_state(tmp_path, "frozen"))
    met = []
    for one in (frozen, again):
        one.add(step(4, [3.0, 4.0, 5.0], [1.0, 0.0, 0.0]))
        assert one.full
        one.accuracy(lambda batch: met.append(batch) or torch.zeros(len(batch.outcome)), 0.5)
    for one, other in zip(met[:2], met[2:], strict=True):
        assert one.rollouts.problems == other.rollouts.problems
        assert (one.rollouts.text, one.rollouts.pieces, one.step) == (
            other.rollouts.text,
            other.rollouts.pieces,
            other.step,
        )
        for name in ("tokens", "mask", "group"):
            assert torch.equal(getattr(one.seq, name), getattr(other.seq, name))
        assert [prompt.tolist() for prompt in one.seq.prompts] == [prompt.tolist() for prompt in other.seq.prompts]
        assert torch.equal(one.outcome, other.outcome)
    assert met[0].rollouts.problems == (chat,)


def test_a_judge_that_forgets_is_told(caplog):
    """Right at first about both frozen responses; later it pays what it should not."""

    class Turning:
        turned = False

        def score(self, batch):
            paid = torch.tensor([float(text) for text in batch.rollouts.text])
            return {"turning": Stream(values=1 - paid if self.turned else paid)}

    judge = Turning()
    monitor = HackMonitor(judge, window=2, frozen=2)
    told = []
    for number in range(6):
        judge.turned = number >= 3
        monitor.assess(step(number, [1.0, 0.0], [1.0, 0.0]), RNG)
        told.append((monitor.metrics()["frozen_accuracy"], monitor.metrics()["alarm/inaccurate"]))
    assert math.isnan(told[0][0])  # only now there are two
    assert math.isnan(told[1][0])  # measured every second step
    assert told[2:] == [(1.0, 0), (1.0, 0), (0.0, 1), (0.0, 1)]
    assert "of 2 responses of the first steps, half of them right, the judge tells 0% rightly" in caplog.text


# Stopping


def test_it_asks_for_a_stop_once():
    with stoppable() as stop:
        monitor = watched([0.5, 0.5, 0.6, 0.6], [6, 6, 5, 4], on_alarm="stop")
        assert stop.requested
        assert stop.reason.startswith("hack_monitor, gamed: the mean verdict of 2 steps fell from 0.600 at its best")
    with stoppable() as stop:  # whoever goes on has decided to
        monitor.assess(step(4, [0.7] * 10, [1.0] * 3 + [0.0] * 7), RNG)
        assert monitor.metrics()["alarm/gamed"] == 1
        assert not stop.requested


def test_a_warning_stops_nothing():
    with stoppable() as stop:
        watched([0.5, 0.5, 0.6, 0.6], [6, 6, 5, 4])
        assert not stop.requested


def test_where_nobody_trains_it_goes_on_asking():
    monitor = watched([0.5, 0.5, 0.6, 0.6], [6, 6, 5, 4], on_alarm="stop")
    with stoppable() as stop:
        monitor.assess(step(4, [0.7] * 10, [1.0] * 3 + [0.0] * 7), RNG)
        assert stop.requested


@pytest.mark.parametrize("cut", range(7))
def test_saved_and_loaded_it_goes_on_exactly(cut, caplog):
    paid, right = [0.5, 0.5, 0.6, 0.7, 0.7, 0.7, 0.9], [6, 6, 4, 2, 2, 2, 0]

    def go(tree, steps):
        told = []
        for number in steps:
            outcomes = [1.0] * right[number] + [0.0] * (10 - right[number])
            tree.assess(step(number, [paid[number]] * 10, outcomes), RNG)
            told.append({name: repr(value) for name, value in tree.metrics().items()})
        return told

    def made():
        return Sum({"judge": HackMonitor(Paid(), window=2, frozen=8)})

    with caplog.at_level(logging.CRITICAL):
        whole = go(made(), range(7))
        first, second = made(), made()
        go(first, range(cut))
        second.load_state_dict(first.state_dict())
        assert go(second, range(cut, 7)) == whole[cut:]


def test_after_a_stop_the_memory_of_it_is_saved():
    with stoppable():
        stopped = watched([0.5, 0.5, 0.6, 0.6], [6, 6, 5, 4], on_alarm="stop")
    again = HackMonitor(Paid(), window=2, frozen=0, on_alarm="stop")
    again.load_state_dict(stopped.state_dict())
    with stoppable() as stop:
        again.assess(step(4, [0.7] * 10, [1.0] * 3 + [0.0] * 7), RNG)
        assert not stop.requested


# Bad input


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"on_alarm": "shout"}, "`on_alarm` is 'shout'; it must be warn or stop"),
        ({"window": 0}, "`window` is 0; it must be 1 step or more"),
        ({"frozen": 3}, "`frozen` is 3; it must be an even number, or 0"),
        ({"frozen": -2}, "`frozen` is -2"),
        ({"rise": -0.1}, "`rise` is -0.1; it must be 0 or more"),
        ({"fall": 0.0}, "`fall` is 0.0; it must be above 0"),
        ({"remains": 1.0}, "`remains` is 1.0; it must be 0 or more, and below 1"),
        ({"remains": -0.1}, "`remains` is -0.1"),
        ({"least_pairs": 1.5}, "`least_pairs` is 1.5; it must lie between 0 and 1"),
        ({"least_accuracy": -0.1}, "`least_accuracy` is -0.1"),
        ({"threshold": math.nan}, "`threshold` is nan; it must be finite"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=f"hack_monitor: {says}"):
        HackMonitor(Paid(), **settings)


def test_what_is_no_judge():
    with pytest.raises(InputError, match="hack_monitor: 'reward' is not a reward"):
        HackMonitor(lambda completions: [])

    class Watched:
        def score(self, batch):
            return {"a": Stream(values=torch.zeros(1), train=False)}

    with pytest.raises(RunError, match="gives no stream that trains and is a reward"):
        HackMonitor(Watched()).assess(step(0, [1.0], [1.0]), RNG)
