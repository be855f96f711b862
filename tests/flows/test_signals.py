"""A run that was told to end and does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.processes import ROOT, started, wait_for
from ti_pipeline.terminal import STOPPED

DEAF = """
import signal, time
from flows.signals import ends_when_told
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: print("heard", flush=True))
with ends_when_told(0.5):
    print("here", flush=True)
    while True:
        time.sleep(60)
"""
DYING = """
import signal, time
from flows.signals import ends_when_told
class Told(BaseException):
    pass
def raises(number, frame):
    raise KeyboardInterrupt if number == signal.SIGINT else Told
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, raises)
class Slow:
    def __del__(self):
        print("here", flush=True)
        time.sleep(60)
try:
    with ends_when_told():
        Slow()
        time.sleep(60)
except BaseException as error:
    print(type(error).__name__)
"""
TURNED = """
import os, signal, sys, time
from flows.signals import ends_when_told
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with ends_when_told():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(0.5)
            if sys.argv[1] == "raised":
                raise ImportError("initialization failed")
except BaseException as error:
    print(type(error).__name__)
"""
IN_TIME = """
import os, signal, time
from flows.signals import ends_when_told
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
before = signal.set_wakeup_fd(-1)
try:
    with ends_when_told(0.5):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
except KeyboardInterrupt:
    pass
assert signal.set_wakeup_fd(-1) == before
time.sleep(1)
print("went on")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_what_does_not_end_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started([sys.executable, "-c", DEAF], log, dict(os.environ)) as process:
        wait_for(lambda: "here" in log.read_text(), process, log)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert log.read_text() == f"here\nheard\n{STOPPED}\n"


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Told")], ids=str)
def test_a_signal_that_finds_a_destructor_is_not_lost(number: signal.Signals, raised: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started([sys.executable, "-c", DYING], log, dict(os.environ)) as process:
        wait_for(lambda: "here" in log.read_text(), process, log)
        process.send_signal(number)
        assert process.wait(25) == 0
        assert log.read_text() == f"here\n{raised}\n"


@pytest.mark.parametrize("how", ["raised", "kept"])
def test_a_signal_that_became_something_else_is_heeded_at_the_end(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", TURNED, how], cwd=ROOT, capture_output=True, text=True, timeout=25)
    assert (done.returncode, done.stdout, done.stderr) == (0, "KeyboardInterrupt\n", "")


def test_what_ends_by_itself_is_left_alone() -> None:
    done = subprocess.run([sys.executable, "-c", IN_TIME], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
