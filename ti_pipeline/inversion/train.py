"""Learns the words of many concepts in one pass: the optimisation loop, who takes part in it, when it is saved."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from ti_pipeline import params
from ti_pipeline.errors import ConceptError, OutOfMemory, out_of_memory
from ti_pipeline.generators.generator import Generator, norms, table_digest
from ti_pipeline.inversion.alarms import table_changed
from ti_pipeline.inversion.arrivals import Arrivals
from ti_pipeline.inversion.capacity import largest_pack
from ti_pipeline.inversion.checkpoint import Checkpoint, Saved, read_checkpoint, write_checkpoint
from ti_pipeline.inversion.job import Job, Waiting
from ti_pipeline.inversion.leaves import Learning, Leaves, clipped, gradient_norms
from ti_pipeline.inversion.pack import losses_and_gradient, losses_only
from ti_pipeline.inversion.readings import Readings
from ti_pipeline.inversion.schedule import rate_at
from ti_pipeline.inversion.seat import Seat
from ti_pipeline.inversion.setups.setup import Learnable, Step
from ti_pipeline.inversion.state import Trained
from ti_pipeline.inversion.workers import with_one_thread
from ti_pipeline.words.word import Word

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


@dataclass(frozen=True)
class Reached:
    """A word as it was after a step of `train.kept_at`."""

    job: Job
    step: int
    word: Word


def train_pack(
    generator: Generator,
    waiting: Sequence[Waiting],
    train: params.Train,
    checkpoint: Path,
    progress: Progress | None = None,
    watch: Callable[[Sequence[Reached]], None] | None = None,
) -> Iterator[Ended]:
    """Train every concept of the queue, as many at a time as `train.pack` says or the device takes; yields each when it ends.

    Only the leaves of their setups move. Each concept has its own samples, streams, loss, clipping, rate, decay and end; batch size and
    accumulation are those of `train`, and its own the same. When one is done or failed, the next in the queue takes its place at the next
    step. What is yielded has to be on disk before the next is asked for. Goes on from `checkpoint`; killed anywhere and started again
    with the same queue, it ends in the same bits on one thread of a CPU. `watch` is told of kept words while they are learnt, of one that
    went on from a checkpoint once more.
    """
    with closing(_Trainer(generator, waiting, train, checkpoint, progress)) as trainer:
        trainer.watch = watch
        yield from trainer.run()


class _Trainer:
    def __init__(self, generator: Generator, waiting: Sequence[Waiting], train: params.Train, checkpoint: Path, progress: Progress | None):
        self.generator, self.train, self.path, self.progress = generator, train, checkpoint, progress
        self.ended: deque[Ended] = deque()
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.samples = train.batch_size * train.gradient_accumulation
        self.table = table_digest(generator)
        self.readings = Readings(dict(norms(generator)), generator.device)
        self.total, self.behind = sum(each.steps for each in waiting), 0
        self.wanted = {each.concept: each for each in waiting}
        saved = read_checkpoint(checkpoint) or Checkpoint()
        self.step, self.capacity = saved.step, saved.capacity
        self.refused: dict[str, list[str]] = {}
        if train.pack != "auto":
            self.capacity = min(train.pack, saved.capacity or train.pack)
        self.saved = {each.concept: each.saved for each in waiting if each.saved}
        self.saved |= {each.concept: each for each in (*saved.seats, *saved.parked)}
        for concept, (wanted, reason) in saved.failed.items():
            if concept in self.wanted and self.wanted[concept].wanted == wanted:
                self._refuse(concept, ConceptError(concept, reason))
        first = [each.concept for each in saved.seats if each.concept in self.wanted]
        then = [each.concept for each in saved.parked if each.concept in self.wanted]
        rest = [concept for concept in self.wanted if concept not in {*first, *then, *self.refused}]
        self.arrivals = Arrivals((self.wanted[concept] for concept in (*first, *then, *rest)), generator.device)
        self.drawing = with_one_thread()
        self.parked: deque[Seat] = deque()
        self.seats: list[Seat] = []
        self.leaves = Leaves([], [], generator.device)  # of `seats`, in their order
        self.gone: set[int] = set()  # places whose concept has ended since the last pass
        self.cramped = False  # whether the last pass had no memory for a single concept
        self.watch: Callable[[Sequence[Reached]], None] | None = None
        self.saved_at = self.parted_at = time.monotonic()

    def close(self) -> None:
        self.arrivals.close()
        self.drawing.shutdown(wait=True, cancel_futures=True)

    def run(self) -> Iterator[Ended]:
        while self._fill():
            yield from self._left()
            draws = [seat.draws.result() for seat in self.seats]
            came = None
            try:
                came = losses_and_gradient(self.generator, self.leaves, draws, self.train.gradient_accumulation)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            if came is None:  # outside of the except clause, whose error holds the tensors of the pass
                self._make_room()
                continue
            self.cramped = False
            self._update(*came)
            self._evaluate()
            self._keep()
            self._go_on()
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
        staying = [seat for place, seat in enumerate(self.seats) if place not in self.gone]
        if not self.gone and (len(staying) >= self.capacity or not (self.parked or self.arrivals)):
            return bool(self.seats)
        self._unstack()
        while len(staying) < self.capacity:
            if self.parked:
                staying.append(self.parked.popleft())
            elif job := self._next():
                staying.append(self._seat(job))
            else:
                break
        self.seats, self.gone = staying, set()
        if self.seats:
            self._stack()
            self._save()  # nobody may be done before a checkpoint says that he was here: a new start would leave him out
        return bool(self.seats)

    def _next(self) -> Job | None:
        """The next concept of the queue that can be made ready."""
        while self.arrivals:
            waiting, job = self.arrivals.next()
            if not isinstance(job, Job):
                self._refuse(waiting.concept, job)
            elif job.train.steps:
                return job
            else:  # its word is where it starts
                self._end(Seat.at(job, None), job.one)
        return None

    def _seat(self, job: Job) -> Seat:
        seat = Seat.at(job, self.saved.pop(job.concept, None))
        self._draw(seat)
        return seat

    def _draw(self, seat: Seat) -> None:
        """Have the next step's draws made while this one is computed."""
        if seat.step < seat.job.train.steps:
            seat.draws = self.drawing.submit(seat.job.setup.draws, seat.learner, seat.step, self.samples)

    def _measure(self, seat: Seat) -> int:
        draws, learning, device = seat.draws.result(), seat.learning, self.generator.device
        assert learning is not None

        def run(concepts: int) -> object:
            leaves = Leaves([seat.job.setup] * concepts, [learning] * concepts, device)
            return losses_and_gradient(self.generator, leaves, [draws] * concepts, self.train.gradient_accumulation)

        try:
            return largest_pack(device, self.train.batch_size, len(self.wanted), run)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        return 1

    def _make_room(self) -> None:
        """After a pass for which there was no memory: fewer in the next; a single concept once more with nothing beside it.

        Everybody of the second half steps back and goes on later from where it is. Raises OutOfMemory when one is too many.
        """
        self.arrivals.clear()
        if len(self.seats) == 1:
            if self.cramped:
                raise OutOfMemory(
                    f"train: the memory of {self.generator.device} is full with a single concept in a pass. Lower train.batch_size "
                    f"({self.train.batch_size}), or free the device. What is finished is kept: the next run continues from there."
                )
            self.cramped = True
            return
        self._unstack()
        self.capacity = len(self.seats) // 2
        self.parked.extendleft(reversed(self.seats[self.capacity :]))
        self.seats = self.seats[: self.capacity]
        self._stack()

    def _stack(self) -> None:
        self.leaves = Leaves([seat.job.setup for seat in self.seats], [seat.give() for seat in self.seats], self.generator.device)

    def _unstack(self) -> None:
        for seat, learning in zip(self.seats, self.leaves.apart(), strict=True):
            seat.learning = learning
        self.leaves = Leaves([], [], self.generator.device)

    def _update(self, losses: torch.Tensor, gradient: Mapping[str, torch.Tensor]) -> None:
        """One step on all leaves, each concept with its own count, rate, decay and clipping."""
        of_each, trains = gradient_norms(gradient), [seat.job.train for seat in self.seats]
        if any(train.clip_gradient is not None for train in trains):
            gradient = clipped(gradient, of_each, [train.clip_gradient for train in trains])
        rates = [rate_at(train, seat.step) for train, seat in zip(trains, self.seats, strict=True)]
        counts, decays = [seat.step + 1 for seat in self.seats], [train.weight_decay for train in trains]
        rounded = torch.tensor(rates).double()  # to float32, as they were for the words that stand
        step = Step(torch.tensor(counts).double(), rounded, torch.tensor(decays, dtype=torch.float64))
        self.leaves.update(gradient, step)
        for seat in self.seats:
            seat.step += 1
        self.step += 1
        self.readings.step(self.seats, losses, of_each, rates, self.leaves.values)

    def _evaluate(self) -> None:
        due: defaultdict[int, list[int]] = defaultdict(list)  # by samples, of which all in a pass have as many
        for place, seat in enumerate(self.seats):
            if seat.due:
                due[seat.job.train.evaluate_samples].append(place)
        for samples, places in due.items():
            at_once = max(1, len(self.seats) * self.train.batch_size // samples)
            for start in range(0, len(places), at_once):
                self._evaluate_at(places[start : start + at_once])

    def _evaluate_at(self, places: Sequence[int]) -> None:
        seats = [self.seats[place] for place in places]
        losses = losses_only(self.generator, self.leaves, places, [seat.batch for seat in seats if seat.batch])
        self.readings.evaluation(seats, losses, [self.leaves.copy(place) for place in places])

    def _keep(self) -> None:
        due = [place for place, seat in enumerate(self.seats) if seat.step in seat.keep]
        self.readings.keep([self.seats[place] for place in due], [self.leaves.copy(place) for place in due])

    def _go_on(self) -> None:
        """Let the setups say what is learnt from now on, and have the draws for it made."""
        changed: dict[int, tuple[Learnable, Learnable]] = {}
        for place, seat in enumerate(self.seats):
            if seat.step < seat.job.train.steps:
                before = self.leaves.one(place)
                one = seat.job.setup.after(seat.job.subject, before, seat.step)
                if one is not before:
                    changed[place] = before, one
        if changed:
            self._unstack()
            for place, (before, one) in changed.items():
                seat = self.seats[place]
                seat.learning = seat.give().going_on(one)
                seat.go_on(before, one)
            self._stack()
        for seat in self.seats:
            self._draw(seat)

    def _part_time(self) -> None:
        """Those who were in the pass share what has passed since the last one: none of them took all of it."""
        now = time.monotonic()
        for seat in self.seats:
            self.spent[seat.job.concept] += (now - self.parted_at) / len(self.seats)
        self.parted_at = now

    def _look(self) -> None:
        """Read the numbers when it is time to, let go of who is done or failed, and save."""
        last = any(seat.step == seat.job.train.steps for seat in self.seats)
        saving = self.step % self.train.checkpoint_every == 0 or time.monotonic() - self.saved_at >= self.train.checkpoint_seconds
        reading = last or saving or self.readings.due
        faults = self.readings.read() if reading else {}
        if self.progress:
            self.progress(self.behind + sum(seat.step for seat in self.seats), self.total, self.readings.said)
        if reading:
            if self.watch and (reached := [Reached(seat.job, *new) for seat in self.seats for new in seat.news()]):
                self.watch(reached)
            self._let_go(faults)
        if saving and not self.gone:
            self._save()

    def _let_go(self, faults: Mapping[str, ConceptError]) -> None:
        if not any(seat.job.concept in faults or seat.ended for seat in self.seats):
            return
        learning = self.leaves.apart()
        changed = table_digest(self.generator) != self.table
        for place, seat in enumerate(self.seats):
            concept = seat.job.concept
            if changed:
                self._refuse(concept, table_changed(concept, self.generator.name))
            elif concept in faults:
                self._refuse(concept, faults[concept])
            elif seat.ended:
                self._end(seat, learning[place].one)
            else:
                continue
            self.gone.add(place)
        while changed and self.arrivals:
            concept = self.arrivals.queue.popleft().concept
            self._refuse(concept, table_changed(concept, self.generator.name))

    def _end(self, seat: Seat, one: Learnable) -> None:
        concept = seat.job.concept
        self.behind += self.wanted[concept].steps
        self.ended.append(Ended(concept, self.spent[concept], seat.job, seat.result(one.leaves)))

    def _refuse(self, concept: str, error: Exception) -> None:
        self.behind += self.wanted[concept].steps
        if isinstance(error, ConceptError):
            self.refused[concept] = [self.wanted[concept].wanted, error.reason]
        self.ended.append(Ended(concept, self.spent[concept], error=error))

    def _save(self) -> None:
        def saved(seats: Sequence[Seat], learning: Sequence[Learning | None]) -> list[Saved]:
            both = zip(seats, learning, strict=True)
            return [Saved(seat.job.concept, seat.job.key, seat.state, each) for seat, each in both if each]

        seated, parked = saved(self.seats, self.leaves.apart()), saved(self.parked, [seat.learning for seat in self.parked])
        write_checkpoint(self.path, Checkpoint(self.step, self.capacity, seated, parked, self.refused))
        self.saved_at = time.monotonic()
