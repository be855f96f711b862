"""DVC's repository, opened: nothing else than its errors tells what it says."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.dirs import site_cache_dir
from dvc.exceptions import DvcException
from dvc.repo import Repo

from ti_pipeline.errors import PipelineError
from ti_pipeline.versioning.lock import dvc_folder


class Recorded(Repo):
    """DVC's repository as one workspace sees it: that may be a folder of it, beside others that are not ours to push or to restore."""

    workspace: Path
    heard: list[BaseException]  # errors that DVC has passed over

    @property
    def ours(self) -> list[Any]:
        """The outputs below the workspace that DVC keeps and has a digest of."""
        return [out for out in self.index.outs if out.use_cache and out.hash_info and Path(out.fs_path).is_relative_to(self.workspace)]


@contextmanager
def repository(root: Path) -> Iterator[Recorded]:
    """The workspace as DVC's repository; what DVC says goes into its errors only. Raises PipelineError."""
    if not dvc_folder(root):
        raise PipelineError(f"{root} is not a DVC repository. Run `ti-pipeline init {root}`; what is there stays.")
    repo = None
    with _heard() as heard:
        try:
            repo = Recorded(str(root))
            repo.workspace, repo.heard = root, heard.errors
            yield repo
        except sqlite3.Error as error:
            raise OSError(
                errno.EIO, f"DVC's database cannot be written: {error}", repo.site_cache_dir if repo else site_cache_dir()
            ) from None
        except DvcException as error:
            raise PipelineError(f"{root}: DVC cannot read it: {error}") from None
        finally:
            if repo:
                repo.close()


class _Heard(logging.Handler):
    """The errors that DVC logs and does not raise."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.errors.append(record.exc_info[1])


@contextmanager
def _heard() -> Iterator[_Heard]:
    """DVC logs a traceback for each object that fails, with the request in it; here they are kept, and no log has them."""
    heard, loggers = _Heard(), [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects")]
    before = [(log.handlers, log.propagate, log.level) for log in loggers]
    for log in loggers:
        log.handlers, log.propagate = [heard], False
        log.setLevel(logging.ERROR)
    try:
        yield heard
    finally:
        for log, (handlers, propagate, level) in zip(loggers, before, strict=True):
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
