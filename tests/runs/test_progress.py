import re

import pytest

from reckon.runs import Progress


def lines(capsys, **settings):
    with Progress(10, 4, **settings) as bar:
        for step in range(5, 11):
            bar.update(step, "reward 0.5")
    captured = capsys.readouterr()
    assert captured.out == ""  # stdout is for results
    return captured.err.splitlines()


def test_away_from_a_terminal_the_last_line_is_told(capsys):
    (line,) = lines(capsys)
    assert re.fullmatch(r"step 10/10, \d+\.\d step/s, 0:00 left, reward 0\.5", line)


def test_lines_come_now_and_then(capsys):
    assert [line.split(",")[0] for line in lines(capsys, show="lines", every=0)] == [
        f"step {s}/10" for s in range(5, 11)
    ]


def test_nothing_is_nothing(capsys):
    assert lines(capsys, show="nothing") == []


def test_a_bar_shows_the_text_as_it_is(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress(2, show="bar") as bar:
        bar.update(1, "[red]not markup[/red]")
    assert "[red]not markup[/red]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ago", "done", "line"),
    [
        # Started at 4 of 10: 2 steps in 60 s are 30 s each, and 4 are left.
        (60, 6, "step 6/10, 30.0 s/step, 2:00 left, x"),
        (4 * 3600, 6, "step 6/10, 7200.0 s/step, 8:00:00 left, x"),
        (0.5, 6, "step 6/10, 4.0 step/s, 0:01 left, x"),
        (60, 4, "step 4/10, x"),  # nothing done yet, so no rate
    ],
)
def test_rate_and_time_left_count_from_where_it_started(monkeypatch, ago, done, line):
    now = [1000.0]
    monkeypatch.setattr("reckon.runs._progress.time.monotonic", lambda: now[0])
    with Progress(10, 4, show="nothing") as bar:
        now[0] += ago
        assert bar.line(done, "x") == line
