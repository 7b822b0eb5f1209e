"""Functions that misbehave, for the worker process of test_killable."""

import os
import sys
import time


def echo(value):
    return value


def sleep(seconds):
    time.sleep(seconds)
    return "awake"


def hold_the_lock(digits):
    return len(str(9 ** (9**digits)))


def die(code):
    os._exit(code)


def fail(message):
    raise ValueError(message)


def noisy(value):
    print("not a reply")
    sys.stdout.flush()
    os.write(1, b"nor this\n")
    return value


def eat(gibibytes):
    return len(bytearray(gibibytes << 30))


def process(_):
    return os.getpid()


def imported(name):
    return name in sys.modules
