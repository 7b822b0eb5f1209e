import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import reckon
from reckon.runs import interruptible

LOOP = """
import sys, time
from reckon.runs import Run, interruptible
run = Run.create(sys.argv[1], recipe={})
with run, interruptible() as stop:
    for step in range(1000):
        print(step, flush=True)
        time.sleep(0.2)
        run.log(step + 1, {})
        if run.save_if_due(step + 1, 1000, {}, every=100, stop=stop.requested) and stop.requested:
            break
print("saved", flush=True)
"""


def start(folder):
    environment = {**os.environ, "PYTHONPATH": str(Path(reckon.__file__).parents[1])}
    command = [sys.executable, "-c", LOOP, str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "0\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_the_step_and_saves(tmp_path, number):
    process = start(tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert out == "saved\n"
    assert process.returncode == 0
    assert "Stopping after this step" in err
    assert (tmp_path / "checkpoints/step-000001/checkpoint.json").exists()


def test_the_second_signal_interrupts_at_once(tmp_path):
    process = start(tmp_path)
    process.send_signal(signal.SIGINT)
    while "Stopping" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert "saved" not in out
    assert "KeyboardInterrupt" in err
    assert not (tmp_path / "checkpoints").exists()


def test_handlers_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interruptible() as stop:
        assert signal.getsignal(signal.SIGINT) != before[0]
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(ZeroDivisionError), interruptible():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) == before[0]


def test_off_the_main_thread_it_is_a_flag():
    seen = []

    def body():
        with interruptible() as stop:
            seen.append(stop.requested)
            stop.requested = True
            seen.append(stop.requested)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [False, True]
