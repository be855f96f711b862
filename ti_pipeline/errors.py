"""Errors that people read: what is wrong, where, and what to do."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path


class PipelineError(Exception):
    """Something that the caller can mend; its text is shown without a traceback."""


class ParamsError(PipelineError):
    """`params.yaml`, an option or a brief is wrong; nothing has been started."""


class BrokenOff(PipelineError):
    """A stage cannot go on, and neither a setting nor a concept is to blame."""


class ConceptError(PipelineError):
    """One concept cannot go on; all others do."""

    def __init__(self, concept: str, reason: str):
        super().__init__(f"{concept}: {reason}")
        self.concept, self.reason = concept, reason


class NotYet(ConceptError):
    """A concept has not come through an earlier stage. That is not this stage's to keep: it says nothing of what it would make."""


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
        **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "See to the permissions there"),
    }.get(error.errno or 0, "")
    if "usable temporary directory" in what:
        advice = "Make room in one of them, or set TMPDIR to a folder that can be written"
    elif advice and not where:
        where = f"one of the workspace, {tempfile.gettempdir()} (TMPDIR) and {Path.home()} (HOME)"
    return f"{where}: {what}. {advice}".removeprefix(": ").rstrip(" .") + "."
