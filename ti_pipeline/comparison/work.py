"""Makes the cells that are missing: first words, all in common packs; then pictures and numbers, in batches over all cells."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ti_pipeline.comparison.cells import FAILED, Cell, Files, Lesson, Wanted
from ti_pipeline.comparison.course import PICTURE, Course
from ti_pipeline.comparison.learn import School, learn, unfinished
from ti_pipeline.comparison.measure import Sitting, Subject, measure, write_strip
from ti_pipeline.comparison.state import outcome
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import BrokenOff, ConceptError, ParamsError, out_of_memory
from ti_pipeline.evaluation.draw import Studio
from ti_pipeline.evaluation.report import PICTURES
from ti_pipeline.sampling.sample import Settings
from ti_pipeline.stages.stage import Lost, Run
from ti_pipeline.workspace import Outcome


class Work:
    """What one call of the stage has to do for the concepts of `orders`."""

    def __init__(self, run: Run, orders: Sequence[Wanted]):
        self.run, self.files = run, Files(run.workspace)
        self.orders = {order.manifest.slug: order for order in orders}
        self.lost: dict[str, Exception] = {}  # concepts, of errors that no arm is to blame for
        self.failed: dict[str, str] = {}  # words that came to nothing, and why
        self.seconds: defaultdict[str, float] = defaultdict(float)  # of each concept
        self._initializers: dict[str, str] = {}
        todo: dict[str, Cell] = {}  # cells that are the same are made once
        for cell in (cell for order in orders for cell in order.cells):
            if run.force or not self.files.bring_back(cell):
                todo.setdefault(cell.digest, cell)
        self.todo = list(todo.values())

    def outcomes(self) -> Iterator[Outcome | Lost]:
        """Do it; yields each concept when all of its cells are there."""
        subjects = self._subjects()
        todo = [cell for cell in self.todo if cell.concept in subjects]
        lessons = self._missing(todo)
        section = self.run.params.compare
        sittings = [
            Sitting(cell, subjects[cell.concept], section, partial(self._word, cell)) for cell in todo if cell.arm != PICTURES
        ]  # fmt: skip
        samples = sum(each.train.steps * each.train.batch_size * each.train.gradient_accumulation for each in lessons)
        course = Course(self.run.report, samples, sum(len(each.pictures) for each in sittings), len(lessons), len(sittings))
        self._learn(lessons, course)
        for cell in todo:
            if cell.arm == PICTURES:
                write_strip(self.files.strip(cell), subjects[cell.concept].strip)
                self.files.write(cell, subjects[cell.concept].of_pictures())
        left = Counter(sitting.cell.concept for sitting in sittings if sitting.cell.concept not in self.lost)
        yield from (self._ended(slug) for slug in self.orders if not left[slug])
        for concept in self._measure([each for each in sittings if each.cell.concept in left], course):
            left[concept] -= 1
            if not left[concept]:
                yield self._ended(concept)

    def _ended(self, slug: str) -> Outcome | Lost:
        if slug in self.lost:
            return Lost(slug, self.lost[slug], self.seconds[slug])
        return outcome(self.files, self.orders[slug], "done", self.seconds[slug])

    def _subjects(self) -> dict[str, Subject]:
        """Of the concepts that have something to do; one of which a picture cannot be opened falls out."""
        found, prompts = {}, self.run.params.evaluate.prompts
        for slug in dict.fromkeys(cell.concept for cell in self.todo):
            manifest = self.orders[slug].manifest
            try:
                found[slug] = Subject(self._studio(1.0), manifest, prompts.get(manifest.kind), self._initializer(manifest))
            except ConceptError as error:
                self.lost[slug] = error
        return found

    def _studio(self, guidance: float) -> Studio:
        models, section = self.run.models, self.run.params.compare
        settings = Settings(section.solver, section.solver_steps, guidance, "", section.batch_size)
        return Studio(models.generator, models.ranker, models.judge, settings)

    def _initializer(self, manifest: Manifest) -> str:
        """What a concept says, or CLIP's choice for these very pictures."""
        known, key = self._initializers, manifest.training_digest
        if key not in known:
            opened = [manifest.open(picture) for picture in manifest.pictures] if manifest.initializer is None else []
            known[key] = manifest.initializer or self.run.models.choose_initializer(opened)
        return known[key]

    def _missing(self, todo: Sequence[Cell]) -> list[Lesson]:
        """The words that are to be learnt for these cells, each once."""
        lessons = {cell.lesson.word: cell for cell in todo if cell.lesson}
        half_done = unfinished(self.files, [cell.lesson for cell in lessons.values() if cell.lesson])
        return [
            cell.lesson
            for cell in lessons.values()
            if cell.lesson and (self.run.force or cell.lesson.name in half_done or not self._is_learnt(cell))
        ]  # fmt: skip

    def _is_learnt(self, cell: Cell) -> bool:
        return all(self._word(cell, step).is_file() for step in (None, *cell.steps))

    def _word(self, cell: Cell, step: int | None) -> Path:
        assert cell.lesson
        return self.files.word(cell.lesson, step)

    def _learn(self, lessons: Sequence[Lesson], course: Course) -> None:
        if not lessons:
            return
        school = School(self.run.models.generator, self._initializer, lambda: self.run.models.ranker)
        for learnt in learn(school, self.files, lessons, course, force=self.run.force):
            slug, error = learnt.lesson.manifest.slug, learnt.error
            self.seconds[slug] += learnt.seconds
            if isinstance(error, ConceptError):
                self.failed[learnt.lesson.word] = error.reason
            elif isinstance(error, (ParamsError, BrokenOff, OSError)) or (error and out_of_memory(error)):
                raise error
            elif error:
                self.lost.setdefault(slug, error)

    def _measure(self, sittings: Sequence[Sitting], course: Course) -> Iterator[str]:
        """Yields the concept of each cell that is done."""
        ready: dict[float, list[Sitting]] = {}
        for sitting in sittings:
            if (reason := self._refused(sitting)) is None:
                ready.setdefault(sitting.cell.guidance_scale, []).append(sitting)
                continue
            self.files.write(sitting.cell, {FAILED: reason})
            yield sitting.cell.concept

        def drawn() -> None:
            course.work(PICTURE)

        for guidance, together in ready.items():
            for sitting, numbers, shown in measure(self._studio(guidance), together, drawn):
                cell = sitting.cell
                write_strip(self.files.strip(cell), shown)
                self.files.write(cell, numbers)
                course.measured += 1
                yield cell.concept

    def _refused(self, sitting: Sitting) -> str | None:
        """Why there is nothing to draw with, or of."""
        if (lesson := sitting.cell.lesson) and lesson.word in self.failed:
            return self.failed[lesson.word]
        try:
            sitting.check(self._studio(1.0))
        except ConceptError as error:
            return error.reason
        return None
