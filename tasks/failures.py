"""What can pass and is worth another attempt, what cannot, and how a stage that broke off is told."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from huggingface_hub.errors import OfflineModeIsEnabled
from prefect import get_run_logger
from prefect.exceptions import PrefectException
from prefect.task_engine import TaskRunTimeoutError

from ti_pipeline.errors import ConceptError, PipelineError, out_of_memory

DELAYS: tuple[float, ...] = (10, 60)  # seconds before each further attempt
_PASSING = {
    errno.EAGAIN, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EIO,
    errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.ESTALE, errno.ETIMEDOUT,
}  # fmt: skip


def can_pass(task: Any, run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: whether what the attempt failed with may be gone in a minute."""
    error = state.data
    return isinstance(error, BaseException) and (out_of_memory(error) or network(error))


def network(error: BaseException) -> bool:
    """Whether the error, or the one behind it, is of a network or a network's file system and not of what was asked for.

    A download that broke off comes as a ParamsError that says where to put the weights; the error behind it decides.
    """
    chain = list(_chain(error))
    if any(isinstance(link, (ConceptError, OfflineModeIsEnabled, TaskRunTimeoutError)) for link in chain):
        return False
    return any(_passing(link) for link in chain)


def _passing(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    if isinstance(error, (httpx.TransportError, ConnectionError, TimeoutError, socket.gaierror)):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def explained(error: Exception, stage: str) -> PipelineError | None:
    """The error as people read it; None for one that nobody foresaw, which keeps its traceback."""
    if isinstance(error, PipelineError):
        return error
    if out_of_memory(error):
        return PipelineError(
            f"{stage}: the memory was full at every one of {len(DELAYS) + 1} attempts. Lower the section's batch_size, or free the device. "
            "What is finished is kept: the next run continues from there."
        )
    if isinstance(error, TimeoutError):
        return PipelineError(f"{stage}: {error or 'it took too long'}. What is finished is kept: the next run continues from there.")
    if isinstance(error, OSError) or network(error):
        return PipelineError(f"{stage}: {error}. What is finished is kept: the next run continues from there.")
    return None


@contextmanager
def shown() -> Iterator[None]:
    """Prefect may be away when artifacts are made in this block: that is a line in the log, for the work that they tell of is done."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("Prefect could not be shown what came of the run: %s", error)


class WithoutTraceback(logging.Filter):
    """Leaves the traceback out of Prefect's log where the error explains itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, Exception) and explained(error, ""):
            record.exc_info = record.exc_text = None
        return True


logging.getLogger("prefect.task_runs").addFilter(WithoutTraceback())
