"""Learns the words of many concepts in one pass: the optimisation loop, who takes part in it, when it is saved."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from ti_pipeline import params
from ti_pipeline.errors import ConceptError, OutOfMemory, out_of_memory
from ti_pipeline.generators.generator import Generator, norms, table_digest
from ti_pipeline.inversion.adamw import Moments, update
from ti_pipeline.inversion.alarms import table_changed
from ti_pipeline.inversion.capacity import largest_pack
from ti_pipeline.inversion.checkpoint import Checkpoint, Saved, read_checkpoint, write_checkpoint
from ti_pipeline.inversion.job import Job, Waiting
from ti_pipeline.inversion.pack import losses_and_gradient, losses_only
from ti_pipeline.inversion.readings import Readings
from ti_pipeline.inversion.schedule import rate_at
from ti_pipeline.inversion.seat import Seat
from ti_pipeline.inversion.state import State, Trained
from ti_pipeline.inversion.workers import with_one_thread
from ti_pipeline.words.word import ONLY

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Ended:
    """A concept that leaves the pack: with what it has learnt, or with the `error` that it failed of. `seconds` are its part of the
    passes that it was in, of a common pass an equal one."""

    concept: str
    seconds: float
    job: Job | None = None
    trained: Trained | None = None
    error: Exception | None = None


def train_pack(
    generator: Generator,
    waiting: Sequence[Waiting],
    train: params.Train,
    checkpoint: Path,
    adopted: Mapping[str, Saved] | None = None,
    progress: Progress | None = None,
) -> Iterator[Ended]:
    """Train every concept of the queue, as many at a time as `train.pack` says or the device takes; yields each when it ends.

    Only the words' vectors move. Each concept has its own samples, streams, loss, clipping, rate and end; when one is done or
    failed, the next in the queue takes its place at the next step. What is yielded has to be on disk before the next is asked for.
    Goes on from `checkpoint`; killed anywhere and started again with the same queue, it ends in the same bits on one thread of a
    CPU. `adopted` are concepts from other checkpoints, which go on from there when their turn comes.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(with_one_thread()) for _ in range(2)]
        trainer = _Trainer(generator, waiting, train, checkpoint, adopted or {}, progress)
        trainer.drawing, trainer.preparing = workers
        try:
            yield from trainer.run()
        finally:
            for worker in workers:
                worker.shutdown(wait=True, cancel_futures=True)


class _Trainer:
    drawing: ThreadPoolExecutor
    preparing: ThreadPoolExecutor

    def __init__(
        self,
        generator: Generator,
        waiting: Sequence[Waiting],
        train: params.Train,
        checkpoint: Path,
        adopted: Mapping[str, Saved],
        progress: Progress | None,
    ):
        self.generator, self.train, self.path, self.progress = generator, train, checkpoint, progress
        self.ended: deque[Ended] = deque()
        self.spent: Counter[str] = Counter()
        self.samples = train.batch_size * train.gradient_accumulation
        self.table = table_digest(generator)
        bound = train.max_norm * dict(norms(generator))[ONLY]
        self.readings = Readings(train, bound, generator.device)
        self.total, self.behind = sum(each.steps for each in waiting), 0
        self.wanted = {each.concept: each for each in waiting}
        saved = read_checkpoint(checkpoint) or Checkpoint()
        self.step, self.capacity, self.refused = saved.step, saved.capacity, {}
        if train.pack != "auto":
            self.capacity = min(train.pack, saved.capacity or train.pack)
        self.saved = dict(adopted) | {each.concept: each for each in (*saved.seats, *saved.parked)}
        for concept, (wanted, reason) in saved.failed.items():
            if concept in self.wanted and self.wanted[concept].wanted == wanted:
                self._refuse(concept, ConceptError(concept, reason))
        first = [each.concept for each in saved.seats if each.concept in self.wanted]
        then = [each.concept for each in saved.parked if each.concept in self.wanted]
        rest = [concept for concept in self.wanted if concept not in {*first, *then, *self.refused}]
        self.queue = deque(self.wanted[concept] for concept in (*first, *then, *rest))
        self.coming: Future[Job] | None = None
        self.parked: deque[Seat] = deque()
        self.seats: list[Seat | None] = []
        self.cramped = False  # whether the last pass had no memory for a single concept
        self.saved_at = self.parted_at = time.monotonic()

    def run(self) -> Iterator[Ended]:
        while self._fill():
            yield from self._left()
            draws = [seat.draws.result() for seat in self.seats]
            try:
                losses, gradient = losses_and_gradient(self.generator, self.rows, draws, self.train.gradient_accumulation)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                losses = None
            if losses is None:  # outside of the except clause, whose error holds the tensors of the pass
                self._make_room()
                continue
            self.cramped = False
            self._update(losses, gradient)
            self._part_time()
            self._look()
            yield from self._left()
        yield from self._left()

    def _left(self) -> Iterator[Ended]:
        """Who has ended since the last time that this was asked."""
        while self.ended:
            yield self.ended.popleft()

    def _fill(self) -> bool:
        """Close the ranks and let the next of the queue in behind; whether anybody is there then."""
        if not self.capacity and (job := self._next()):
            self.parked.append(self._seat(job))
            self.capacity = self._measure(self.parked[0])
        staying = [seat for seat in self.seats if seat is not None]
        if len(staying) == len(self.seats) and (len(staying) >= self.capacity or not (self.parked or self.queue)):
            return bool(self.seats)
        self._unstack()
        while len(staying) < self.capacity:
            if self.parked:
                staying.append(self.parked.popleft())
            elif job := self._next():
                staying.append(self._seat(job))
            else:
                break
        self.seats = staying
        if self.seats:
            self._stack()
            self._save()  # nobody may be done before a checkpoint says that he was here: a new start would leave him out
        return bool(self.seats)

    def _next(self) -> Job | None:
        """The next concept of the queue that can be made ready; the one behind it is being made ready meanwhile."""
        while self.queue:
            waiting = self.queue.popleft()
            coming, self.coming = self.coming or self.preparing.submit(waiting.prepare), None
            if self.queue:
                self.coming = self.preparing.submit(self.queue[0].prepare)
            try:
                return coming.result()
            except Exception as error:
                refused = error
            if out_of_memory(refused):
                refused = self._alone(waiting)
            if isinstance(refused, Job):
                return refused
            self._refuse(waiting.concept, refused)
        return None

    def _alone(self, waiting: Waiting) -> Job | Exception:
        """The concept made ready with nothing else at work, after the memory was full; it is its own fault if that fails too."""
        self._clear()
        try:
            return self.preparing.submit(waiting.prepare).result()
        except Exception as error:
            if not out_of_memory(error):
                return error
        return ConceptError(
            waiting.concept,
            "it needs more memory than there is to be made ready, even alone. Give it fewer or smaller pictures, or fewer `vectors`.",
        )

    def _clear(self) -> None:
        """Let go of what is not needed now, and let the concept that is being made ready have been."""
        if self.coming:
            self.coming.exception()
        if self.generator.device.type == "cuda":
            torch.cuda.empty_cache()

    def _seat(self, job: Job) -> Seat:
        saved = self.saved.pop(job.concept, None)
        state = saved.state if saved and saved.key == job.key else State.at(job.start)
        batch = None
        if self.train.early_stopping != "none":
            batch = job.learner.evaluation(self.train.evaluate_samples, self.generator.timesteps)
        seat = Seat(job, state, state.step, batch)
        self._draw(seat)
        return seat

    def _draw(self, seat: Seat) -> None:
        """Have the next step's draws made while this one is computed."""
        if seat.step < seat.job.train.steps:
            seat.draws = self.drawing.submit(seat.job.learner.draw, seat.step, self.samples, self.generator.timesteps)

    def _measure(self, seat: Seat) -> int:
        draws, rows = seat.draws.result(), seat.state.rows.to(self.generator.device)

        def run(concepts: int) -> object:
            parts = self.train.gradient_accumulation
            return losses_and_gradient(self.generator, rows.expand(concepts, -1, -1), [draws] * concepts, parts)

        try:
            return largest_pack(self.generator.device, self.train.batch_size, len(self.wanted), run)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        return 1

    def _make_room(self) -> None:
        """After a pass for which there was no memory: fewer in the next; a single concept once more with nothing beside it.

        Everybody of the second half steps back and goes on later from where it is. Raises OutOfMemory when one is too many.
        """
        self._clear()
        if len(self.seats) == 1:
            if self.cramped:
                raise OutOfMemory(
                    f"train: the memory of {self.generator.device} is full with a single concept in a pass. Lower train.batch_size "
                    f"({self.train.batch_size}), or free the device. What is finished is kept: the next run goes on from there."
                )
            self.cramped = True
            return
        self._unstack()
        self.capacity = len(self.seats) // 2
        self.parked.extendleft(reversed(self.seats[self.capacity :]))
        self.seats = self.seats[: self.capacity]
        self._stack()

    def _stack(self) -> None:
        """One tensor of everybody's rows, [concepts, n, d], and of their moments; a shorter word has zeros behind it."""
        longest = max(len(seat.state.rows) for seat in self.seats)

        def together(name: str) -> torch.Tensor:
            each = (getattr(seat.state, name) for seat in self.seats)
            padded = [torch.nn.functional.pad(rows, (0, 0, 0, longest - len(rows))) for rows in each]
            return torch.stack(padded).to(self.generator.device)

        self.rows, self.moments = together("rows"), Moments(together("first"), together("second"))

    def _unstack(self) -> None:
        if not self.seats:
            return
        rows, first, second = (each.cpu() for each in (self.rows, self.moments.first, self.moments.second))
        for place, seat in enumerate(self.seats):
            if seat is not None:
                n = len(seat.state.rows)
                seat.state.rows, seat.state.first, seat.state.second = (each[place, :n].clone() for each in (rows, first, second))

    def _update(self, losses: torch.Tensor, gradient: torch.Tensor) -> None:
        """One step of AdamW on all rows, each concept with its own count, rate and clipping."""
        norms = gradient.flatten(1).norm(dim=1)
        if self.train.clip_gradient is not None:
            gradient = gradient * (self.train.clip_gradient / norms).clamp(max=1)[:, None, None]
        steps = [seat.step for seat in self.seats]
        rates = [rate_at(seat.job.train, step) for seat, step in zip(self.seats, steps, strict=True)]
        counts = torch.tensor(steps).double() + 1
        update(self.rows, gradient, self.moments, counts, torch.tensor(rates).double(), self.train.weight_decay)
        for seat in self.seats:
            seat.step += 1
            self._draw(seat)
        self.step += 1
        self.readings.step(self.seats, losses, self.rows.norm(dim=-1).amax(dim=1), norms, rates)

    def _part_time(self) -> None:
        """Those who were in the pass share what has passed since the last one: none of them took all of it."""
        now = time.monotonic()
        for seat in self.seats:
            self.spent[seat.job.concept] += (now - self.parted_at) / len(self.seats)
        self.parted_at = now

    def _look(self) -> None:
        """Evaluate who is due, read the numbers when it is time to, and let go of who is done or failed."""
        self._evaluate()
        last = any(seat.step == seat.job.train.steps for seat in self.seats)
        saving = self.step % self.train.checkpoint_every == 0 or time.monotonic() - self.saved_at >= self.train.checkpoint_seconds
        reading = last or saving or self.readings.due
        faults = self.readings.read() if reading else {}
        if self.progress:
            self.progress(self.behind + sum(seat.step for seat in self.seats), self.total, self.readings.said)
        if reading:
            self._let_go(faults)
        if saving and all(self.seats):
            self._save()

    def _evaluate(self) -> None:
        due = [place for place, seat in enumerate(self.seats) if seat.due]
        at_once = max(1, len(self.seats) * self.train.batch_size // self.train.evaluate_samples)
        for start in range(0, len(due), at_once):
            places = due[start : start + at_once]
            rows = self.rows[places]
            losses = losses_only(self.generator, rows, [self.seats[place].batch for place in places])
            self.readings.evaluation([self.seats[place] for place in places], losses, rows)

    def _let_go(self, faults: Mapping[str, ConceptError]) -> None:
        if not any(seat.job.concept in faults or seat.ended for seat in self.seats):
            return
        self._unstack()
        changed = table_digest(self.generator) != self.table
        for place, seat in enumerate(self.seats):
            concept = seat.job.concept
            if changed:
                self._refuse(concept, table_changed(concept, self.generator.name))
            elif concept in faults:
                self._refuse(concept, faults[concept])
            elif seat.ended:
                self.behind += self.wanted[concept].steps
                self.ended.append(Ended(concept, self.spent[concept], seat.job, seat.result()))
            else:
                continue
            self.seats[place] = None
        while changed and self.queue:
            concept = self.queue.popleft().concept
            self._refuse(concept, table_changed(concept, self.generator.name))

    def _refuse(self, concept: str, error: Exception) -> None:
        self.behind += self.wanted[concept].steps
        if isinstance(error, ConceptError):
            self.refused[concept] = [self.wanted[concept].wanted, error.reason]
        self.ended.append(Ended(concept, self.spent[concept], error=error))

    def _save(self) -> None:
        self._unstack()

        def saved(seats: Sequence[Seat | None]) -> list[Saved]:
            return [Saved(seat.job.concept, seat.job.key, seat.state) for seat in seats if seat is not None]

        write_checkpoint(self.path, Checkpoint(self.step, self.capacity, saved(self.seats), saved(self.parked), self.refused))
        self.saved_at = time.monotonic()
