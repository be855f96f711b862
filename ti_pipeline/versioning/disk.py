"""What the operating system refuses, told with its place: a full disk is the same error for every file and often names none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Give an operating system's error that names no file the name of `place`."""
    try:
        yield
    except OSError as error:
        if error.filename or not error.errno:
            raise
        raise OSError(error.errno, error.strerror, str(place)) from None


def refusal(error: BaseException | None) -> OSError | None:
    """The operating system's error in a chain of errors; None when there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error
        error = error.__cause__ or error.__context__
    return None
