"""Ctrl-C and SIGTERM end a run, also where its engine does not."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ti_pipeline.terminal import STOPPED, say

PATIENCE = 30.0  # seconds that a flow has to end by itself, which takes it two or three


@contextmanager
def ends_when_told(patience: float = PATIENCE) -> Iterator[None]:
    """A process that has not left this block so many seconds after SIGINT or SIGTERM ends at once, with 128 + the signal's number.

    Prefect's engine has been seen to wait for ever after a Ctrl-C between two tasks. Stages keep what they have done however they end, and
    the next run tells Prefect that this one is dead. Handlers of the signals stay whose they are. For the main thread.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    left = threading.Event()
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)  # gets every signal's number, whoever handles it
    threading.Thread(target=_watch, args=(reading, left, patience), daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        writing.close()


def _watch(reading: socket.socket, left: threading.Event, patience: float) -> None:
    with reading:
        while number := reading.recv(1):
            if number[0] in (signal.SIGINT, signal.SIGTERM) and not left.wait(patience):
                say(STOPPED, err=True)
                os._exit(128 + number[0])
