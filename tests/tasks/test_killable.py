import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reckon.errors import RunError
from reckon.tasks import CrashedError, Killable, TimedOutError


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def make():
    made = []

    def build(name, **settings):
        made.append(Killable(f"helpers_for_workers:{name}", **settings))
        return made[-1]

    yield build
    for one in made:
        one.close()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_result_comes_back_and_the_process_is_kept(make):
    call = make("process")
    assert call(0) == call(0) != os.getpid()


def test_json_goes_there_and_back(make):
    value = {"a": [1, 2.5, None, True], "ü": "\ud83d\n"}
    assert make("echo")(value) == value


@pytest.mark.parametrize("name", ["sleep", "hold_the_lock"])  # the second never lets another thread run
def test_a_call_that_takes_too_long_is_killed(make, name):
    call = make(name, seconds=0.4)
    if name == "sleep":
        assert call(0) == "awake"  # started before the clock
    start = time.perf_counter()
    with pytest.raises(TimedOutError, match=r"no result within 0.4 s"):
        call(9)
    assert name == "hold_the_lock" or time.perf_counter() - start < 2
    if name == "sleep":
        assert call(0) == "awake"  # the next one works again


def test_a_dead_process_is_replaced(make):
    call = make("die")
    for _ in range(2):
        with pytest.raises(CrashedError, match="ended with code 3"):
            call(3)


def test_a_process_killed_between_calls_is_replaced(make):
    call = make("process")
    first = call(0)
    os.kill(first, signal.SIGKILL)
    while alive(first) and Path(f"/proc/{first}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    assert call(0) != first
    assert not alive(first)  # waited for: no zombie


def test_an_exception_is_a_crash_of_the_call_only(make):
    call = make("fail")
    with pytest.raises(CrashedError, match="ValueError: no good"):
        call("no good")


def test_prints_are_not_replies(make):
    assert make("noisy")(7) == 7


def test_memory_is_limited(make):
    call = make("eat")
    with pytest.raises(CrashedError, match="MemoryError"):
        call(64)
    assert call(0) == 0


def test_a_memory_limit_of_the_machine_below_ours_is_kept():
    script = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "from reckon.tasks import Killable\n"
        "print(Killable('helpers_for_workers:echo')('here'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "here\n", done.stderr


def test_a_process_that_cannot_start_is_no_verdict_but_an_error(make):
    for call in (Killable("no_such_module:f"), make("echo", ahead=["no_such_module"])):
        with pytest.raises(RunError, match=r"did not start: the process ended.* -c 'import .*no_such_module'"):
            call(0)


def test_modules_are_imported_ahead_of_the_first_call(make):
    assert not make("imported")("wave")
    assert make("imported", ahead=["wave"])("wave")


def test_threads_share_a_pool(make):
    call = make("echo", workers=2)
    results = {}

    def work(i):
        results[i] = [call([i, j]) for j in range(10)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [[i, j] for j in range(10)] for i in range(6)}


def test_forgotten_pools_leave_no_process():
    call = Killable("helpers_for_workers:process")
    pid = call(0)
    assert alive(pid)
    del call
    gc.collect()
    assert not alive(pid)


def test_nothing_is_left_at_exit():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from reckon.tasks import Killable\n"
        "call = Killable('helpers_for_workers:process')\n"
        "print(call(0))\n"
    )  # and no `if __name__ == '__main__'`: the script is not run again in the child
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not alive(int(done.stdout))


def test_a_worker_whose_parent_was_killed_ends_by_itself():
    script = (
        "import sys, threading, time; sys.path.insert(0, sys.argv[1])\n"
        "from reckon.tasks import Killable\n"
        "call = Killable('helpers_for_workers:sleep', seconds=0.5)\n"
        "call(0)\n"
        "print(call._all[0].process.pid, flush=True)\n"
        "call(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    gone = not alive(pid) or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    assert gone
