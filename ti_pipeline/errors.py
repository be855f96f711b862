"""Errors that people read: what is wrong, where, and what to do."""

from __future__ import annotations


class PipelineError(Exception):
    """Something that the caller can mend; its text is shown without a traceback."""

    status = 2  # of the command that it ends; 3 where neither the call nor the params are to blame


class ParamsError(PipelineError):
    """`params.yaml`, an option or a brief is wrong; nothing has been started."""


class ConceptError(PipelineError):
    """One concept cannot go on; all others do."""

    def __init__(self, concept: str, reason: str):
        super().__init__(f"{concept}: {reason}")
        self.concept, self.reason = concept, reason


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left; torch has an exception of its own for CUDA alone, so the text decides."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
