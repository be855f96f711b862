"""Who comes next into a training: made ready one ahead, while the others learn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future

import torch

from ti_pipeline.errors import ConceptError, out_of_memory
from ti_pipeline.inversion.job import Job, Waiting
from ti_pipeline.inversion.workers import with_one_thread


class Arrivals:
    """The queue of a training."""

    def __init__(self, waiting: Iterable[Waiting], device: torch.device):
        self.queue, self.device = deque(waiting), device
        self._worker = with_one_thread()
        self._coming: Future[Job] | None = None

    def __bool__(self) -> bool:
        return bool(self.queue)

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def next(self) -> tuple[Waiting, Job | Exception]:
        """The first of the queue with its job, or with the reason why there is none; the one behind it is being made ready then."""
        waiting = self.queue.popleft()
        coming, self._coming = self._coming or self._worker.submit(waiting.prepare), None
        if self.queue:
            self._coming = self._worker.submit(self.queue[0].prepare)
        try:
            return waiting, coming.result()
        except Exception as error:
            refused = error
        return waiting, self._alone(waiting) if out_of_memory(refused) else refused

    def clear(self) -> None:
        """Let go of what is not needed now, and let the concept that is being made ready have been."""
        if self._coming:
            self._coming.exception()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _alone(self, waiting: Waiting) -> Job | Exception:
        """The concept made ready with nothing else at work, after the memory was full; it is its own fault if that fails too."""
        self.clear()
        try:
            return self._worker.submit(waiting.prepare).result()
        except Exception as error:
            if not out_of_memory(error):
                return error
        return ConceptError(
            waiting.concept,
            "it needs more memory than there is to be made ready, even alone. Give it fewer or smaller pictures, or fewer `vectors`.",
        )
