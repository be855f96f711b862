"""What is tried again and what is not, on errors that really happened."""

from __future__ import annotations

import errno
import logging
import socket
import sys
from collections.abc import Callable

import httpx
import pytest
import torch
from prefect.states import Failed

from tasks.failures import WithoutTraceback, can_pass, explained
from ti_pipeline.errors import ConceptError, ParamsError, PipelineError


def nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        httpx.get(f"http://127.0.0.1:{taken.getsockname()[1]}", timeout=5)


def download_broke_off() -> None:
    try:
        nobody_listens()
    except httpx.HTTPError:
        raise ParamsError("generator.model: neither in the cache nor could it be downloaded") from None


def answered(status: int) -> None:
    httpx.Response(status, request=httpx.Request("GET", "http://hub")).raise_for_status()


def caught(work: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as raised:
        work()
    return raised.value


def raising(error: Exception) -> Callable[[], object]:
    def work() -> None:
        raise error

    return work


PASSES = [
    nobody_listens,
    download_broke_off,
    lambda: answered(503),
    lambda: torch.empty(2**60),
    raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")),
    raising(OSError(errno.ESTALE, "Stale file handle")),
    raising(ConnectionResetError()),
]
STAYS = [
    raising(ParamsError("train.steps: 0")),
    raising(ConceptError("fox", "no pictures")),
    lambda: answered(404),
    lambda: open("/there/is/nothing"),
    raising(OSError(errno.ENOSPC, "No space left on device")),
    raising(ZeroDivisionError()),
]


@pytest.mark.parametrize("work", PASSES)
def test_memory_and_network_can_pass(work) -> None:
    assert can_pass(None, None, Failed(data=caught(work)))


@pytest.mark.parametrize("work", STAYS)
def test_the_rest_cannot(work) -> None:
    assert not can_pass(None, None, Failed(data=caught(work)))


def test_what_people_can_mend_is_explained_and_a_bug_is_not() -> None:
    wrong = ParamsError("train.steps: 0")
    assert explained(wrong, "train") is wrong
    full = explained(caught(lambda: torch.empty(2**60)), "generate")
    assert isinstance(full, PipelineError) and str(full).startswith("generate: the memory was full") and "batch_size" in str(full)
    assert "No space left" in str(explained(OSError(errno.ENOSPC, "No space left on device"), "train"))
    assert explained(ZeroDivisionError(), "train") is None


@pytest.mark.parametrize(("error", "kept"), [(ParamsError("train.steps: 0"), False), (ZeroDivisionError(), True)])
def test_only_a_bug_keeps_its_traceback_in_the_log(error, kept) -> None:
    try:
        raise error
    except Exception:
        record = logging.LogRecord("prefect.task_runs", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    assert WithoutTraceback().filter(record)
    assert ("Traceback" in logging.Formatter().format(record)) is kept
