"""Errors that people read: what is wrong, where, and what to do."""

from __future__ import annotations

import errno
import re
import tempfile
from pathlib import Path
from typing import Literal

# `user:password@`, however the rest of the address is misspelt, and what a signed address carries in its query
_PASSWORD = re.compile(r"""((?:^|[\s/:'"(])[^\s/:@'"()]+):(?!/)[^\s'"]+@""", re.MULTILINE)
_PARAMETER = re.compile(r"""([?&][\w-]*(?:password|secret|token|signature|credential)=)[^\s&'"]+""", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """A text for people or a log, with `***` for the passwords of addresses in it."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


class PipelineError(Exception):
    """Something that the caller can fix; its text is shown without a traceback, and never with a password."""

    status = 2  # exit status of the command; 3 where neither the call nor the params are at fault

    def __init__(self, text: str = ""):
        super().__init__(without_passwords(text))


class ParamsError(PipelineError):
    """`params.yaml`, an option or a brief is wrong; nothing has been started."""


class BrokenOff(PipelineError):
    """A stage cannot continue, and neither a setting nor a concept is at fault."""

    status = 3


class ConceptError(PipelineError):
    """One concept cannot continue; all others do. `state` is what it is then: failed, or in quarantine until its pictures are mended."""

    def __init__(self, concept: str, reason: str, state: Literal["failed", "quarantined"] = "failed"):
        super().__init__(f"{concept}: {reason}")
        self.concept, self.reason, self.state = concept, without_passwords(reason), state


class NotYet(ConceptError):
    """A concept has not finished an earlier stage. This stage does not keep that as a reason: it says nothing about its own output."""


class OutOfMemory(PipelineError, MemoryError):
    """A device cannot hold what the params ask for, even of a single concept."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left; torch has an exception of its own for CUDA alone, so the text decides."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))


def in_words(error: OSError) -> str:
    """What the operating system refused, where, and what to do about it."""
    where, what = error.filename or "", error.strerror or str(error)
    advice = {
        **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room there"),
        **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Check the permissions there"),
    }.get(error.errno or 0, "")
    if "usable temporary directory" in what:
        advice = "Make room in one of them, or set TMPDIR to a folder that can be written"
    elif advice and not where:
        where = f"one of the workspace, {tempfile.gettempdir()} (TMPDIR) and {Path.home()} (HOME)"
    return f"{where}: {what}. {advice}".removeprefix(": ").rstrip(" .") + "."
