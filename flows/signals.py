"""Ctrl-C and SIGTERM end a run, wherever they find it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ti_pipeline.terminal import STOPPED, say

PATIENCE = 30.0  # seconds that a flow has to end by itself, which takes it two or three
AGAIN = 0.1  # seconds until a signal that got lost comes once more


@contextmanager
def ends_when_told(patience: float = PATIENCE) -> Iterator[None]:
    """A process that has not left this block so many seconds after SIGINT or SIGTERM ends at once, with 128 + the signal's number.

    Stages keep what they have done however they end, and the next run tells Prefect that this one is dead. What a signal raises in a
    destructor Python prints and forgets (`sys.unraisablehook`), and the run would go on: here it is raised again. Handlers of the signals
    stay whose they are. For the main thread.

    In a C extension that is being loaded it becomes an ImportError, and a failed run: so the signal comes once more at the block's end.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    left, told = threading.Event(), list[int]()
    wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)  # gets every signal's number, whoever handles it
    unraisable, sys.unraisablehook = sys.unraisablehook, _again(sys.unraisablehook)
    threading.Thread(target=_watch, args=(reading, left, told, patience), daemon=True).start()
    try:
        yield
    except Exception:
        _repeat(told)
        raise
    else:
        _repeat(told)
    finally:
        left.set()
        sys.unraisablehook = unraisable
        signal.set_wakeup_fd(wakeup)
        writing.close()


def _again(otherwise: Callable[[Any], object]) -> Callable[[Any], object]:
    def hook(lost: Any) -> None:
        if issubclass(lost.exc_type, (Exception, SystemExit, GeneratorExit)):
            otherwise(lost)
            return
        number = signal.SIGINT if issubclass(lost.exc_type, KeyboardInterrupt) else signal.SIGTERM
        timer = threading.Timer(AGAIN, signal.pthread_kill, (threading.main_thread().ident, number))  # in here it would be lost again
        timer.daemon = True
        timer.start()

    return hook


def _repeat(told: Sequence[int]) -> None:
    if told:
        signal.raise_signal(told[0])


def _watch(reading: socket.socket, left: threading.Event, told: list[int], patience: float) -> None:
    with reading:
        while number := reading.recv(1):
            if number[0] not in (signal.SIGINT, signal.SIGTERM):
                continue
            told.append(number[0])
            if not left.wait(patience):
                say(STOPPED, err=True)
                os._exit(128 + number[0])
