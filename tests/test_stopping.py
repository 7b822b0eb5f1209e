"""Asking a run to stop: who is told, and what the keyboard still does."""

import signal

import pytest

from reckon.runs import interruptible
from reckon.stopping import stop_after_step, stoppable


def test_whoever_trains_is_told_and_the_first_reason_is_kept():
    with stoppable() as stop:
        assert (stop.requested, stop.reason) == (False, None)
        assert stop_after_step("the first")
        assert stop_after_step("the second")
        assert (stop.requested, stop.reason) == (True, "the first")
    with stoppable() as stop:
        assert not stop.requested


def test_where_nobody_trains_nothing_happens():
    assert not stop_after_step("no one hears it")
    with pytest.raises(ZeroDivisionError), stoppable():
        _ = 1 / 0
    assert not stop_after_step("no longer")


def test_a_loop_inside_another_context_stops_for_both():
    with stoppable() as outer, interruptible() as stop:
        assert stop is outer
        stop_after_step("because")
        assert stop.requested
    assert outer.reason == "because"


def test_ctrl_c_after_a_part_has_asked_is_still_the_first():
    with interruptible() as stop:
        stop_after_step("because")
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "because"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_has_no_reason_of_a_part():
    with interruptible() as stop:
        signal.raise_signal(signal.SIGINT)
        assert (stop.requested, stop.reason) == (True, None)
