"""What words draw while they are learnt, in the run's artifacts."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from PIL import Image
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from tasks.failures import shown
from ti_pipeline.inversion.strip import newest_frame, read_strip
from ti_pipeline.stages.stage import Progress, Run, Stage
from ti_pipeline.workspace import PREVIEWS, Workspace

EVERY = 20.0  # seconds
LATER = 600.0  # seconds until the next try after one that failed: each costs the training the time that Prefect's client tries for
EDGE = 192  # pixels of a picture in the artifact
MOST = 24  # pictures in it: it is sent whole each time


class Previews:
    """One artifact of a task that shows the newest picture of each concept, and is brought up to date while it trains.

    Prefect may be away at any time: that is a line in the log.
    """

    def __init__(self, workspace: Workspace, names: Sequence[str], clock: Callable[[], float] = time.monotonic):
        self.workspace, self.names, self.clock = workspace, names, clock
        self._artifact: UUID | None = None
        self._text, self._looked = "", clock()

    def with_report(self, report: Progress) -> Progress:
        """A stage's `report` that also looks for new pictures from time to time."""

        def progress(done: int, total: int, text: str) -> None:
            report(done, total, text)
            if self.clock() - self._looked >= EVERY:
                self.show()

        return progress

    def show(self) -> None:
        """Publish what there is now, where it is another than before."""
        self._looked = self.clock()
        text = as_markdown(newest(self.workspace, self.names))
        if text in ("", self._text):
            return
        with shown():
            if self._artifact:
                get_client(sync_client=True).update_artifact(self._artifact, ArtifactUpdate(data=text))
            else:
                made = create_markdown_artifact(text, key="previews", description="What the words draw while they are learnt")
                self._artifact = made if isinstance(made, UUID) else None  # a coroutine only where it was called in one
            self._text = text
        if self._text != text:
            self._looked = self.clock() + LATER


@contextmanager
def previews_of(stage: Stage, run: Run) -> Iterator[Run]:
    """The run of a task with its previews shown, where the stage draws some."""
    if PREVIEWS not in stage.scratch or not run.params.train.preview_every:
        yield run
        return
    previews = Previews(run.workspace, run.chosen)
    yield replace(run, report=previews.with_report(run.report))
    previews.show()


def newest(workspace: Workspace, names: Iterable[str]) -> Iterator[tuple[str, int, Image.Image]]:
    """Concept, step and picture of those that have any: the last that was drawn while it trains, or of its strip when it is done."""
    for slug in names:
        picture = None
        if found := newest_frame(workspace.frames(slug)):
            step, path = found
            picture = _open(path)
        elif strip := read_strip(workspace.strip(slug)):
            step, picture = max(strip.items())
        if picture:
            yield slug, step, picture


def as_markdown(pictures: Iterable[tuple[str, int, Image.Image]]) -> str:
    """A table with the pictures inside; empty where there are none. Of more than MOST the rest is counted."""
    every = list(pictures)
    rows = [f"| {slug} | {step} | ![{slug} after {step} steps]({_data(picture)}) |" for slug, step, picture in every[:MOST]]
    more = [f"\n… and {len(every) - MOST} more"] if len(every) > MOST else []
    return "\n".join(["| concept | after steps | |", "|---|---|---|", *rows, *more]) if rows else ""


def _open(path: Path) -> Image.Image | None:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.convert("RGB")
    except OSError:  # its concept has ended meanwhile
        return None


def _data(picture: Image.Image) -> str:
    small, file = picture.copy(), io.BytesIO()
    small.thumbnail((EDGE, EDGE))
    small.save(file, format="WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
