"""What words draw while they are learnt, in Prefect: on a real server, brought up to date, and in nobody's way."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.logging import disable_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks import previews
from tasks.previews import Previews, as_markdown, newest, previews_of
from tasks.stages import TASKS
from tests.stages.quick import quick
from ti_pipeline.inversion.strip import frame_path, write_frame, write_strip
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Workspace

EXAMPLES = Path(__file__).parents[2] / "examples" / "concepts"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path, "concepts")


def drawn(workspace: Workspace, slug: str, step: int) -> None:
    write_frame(frame_path(workspace.frames(slug), step), Image.new("RGB", (256, 256), (step, 0, 0)), "of this training")


def pictures(text: str) -> list[tuple[int, int, int]]:
    """The colour of each picture in the Markdown."""
    found = []
    for part in text.split("data:image/webp;base64,")[1:]:
        with Image.open(io.BytesIO(base64.b64decode(part.partition(")")[0]))) as picture:
            assert max(picture.size) == previews.EDGE
            found.append(picture.convert("RGB").getpixel((9, 9)))
    return found


def test_the_newest_of_each_concept_in_its_order(workspace: Workspace) -> None:
    drawn(workspace, "frog", 50), drawn(workspace, "frog", 100)
    write_strip(workspace.strip("fox"), {0: Image.new("RGB", (8, 8)), 200: Image.new("RGB", (8, 8), (9, 9, 9))}, "")
    assert [(slug, step) for slug, step, _ in newest(workspace, ["fox", "frog", "hat"])] == [("fox", 200), ("frog", 100)]
    text = as_markdown(newest(workspace, ["frog"]))
    assert "| frog | 100 | ![frog after 100 steps](data:image/webp;base64," in text
    ((red, green, blue),) = pictures(text)
    assert abs(red - 100) < 8 and max(green, blue) < 8
    assert as_markdown([]) == ""
    assert "… and 2 more" in as_markdown(("fox", 1, Image.new("RGB", (4, 4))) for _ in range(previews.MOST + 2))


def test_an_artifact_of_the_flow_run_is_brought_up_to_date(workspace: Workspace, server: dict[str, str]) -> None:
    now = 0.0

    def artifacts() -> list[Any]:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.get_id()]))
        return get_client(sync_client=True).read_artifacts(artifact_filter=of_run)

    @flow
    def watched() -> list[list[Any]]:
        nonlocal now
        said: list[tuple[int, int, str]] = []
        watch, seen = Previews(workspace, ["fox"], clock=lambda: now), []
        report = watch.with_report(lambda *call: said.append(call))
        for step, seconds in ((0, previews.EVERY), (50, 1.0), (100, previews.EVERY)):
            drawn(workspace, "fox", step)
            now += seconds
            report(step, 200, "fox")
            seen.append(artifacts())
        assert said == [(0, 200, "fox"), (50, 200, "fox"), (100, 200, "fox")]
        return seen

    first, soon, later = watched()
    assert [[artifact.key for artifact in each] for each in (first, soon, later)] == [["previews"]] * 3
    assert "| fox | 0 |" in first[0].data and soon[0].data == first[0].data
    assert "| fox | 100 |" in later[0].data and later[0].id == first[0].id


def test_the_task_of_a_training_shows_them(workspace: Workspace, server: dict[str, str]) -> None:
    shutil.copytree(EXAMPLES / "fox", workspace.concepts / "fox")
    params = quick("train.preview_every=1", "train.preview_steps=2")

    @flow(validate_parameters=False)
    def trained() -> list[Any]:
        for stage in ("validate", "train"):
            assert [outcome["state"] for outcome in TASKS[stage](workspace, params, ["fox"], force=False)] == ["done"]
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.get_id()]))
        return get_client(sync_client=True).read_artifacts(artifact_filter=of_run)

    (artifact,) = trained()
    assert (artifact.key, artifact.type) == ("previews", "markdown") and "| fox | 2 | ![fox after 2 steps](data:image" in artifact.data


def test_prefect_away_is_a_line_in_the_log(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    drawn(workspace, "fox", 0)
    watch = Previews(workspace, ["fox"], clock=lambda: now)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), disable_run_logger():
        watch.show()
    asked: list[int] = []
    monkeypatch.setattr(watch, "show", lambda: asked.append(1))
    report = watch.with_report(lambda *_: None)
    now = previews.LATER  # each try takes the training's time
    report(1, 2, "")
    assert asked == []
    now += previews.EVERY
    report(2, 2, "")
    assert asked == [1]


@pytest.mark.parametrize(("stage", "every"), [("train", 0), ("rank", 50)])
def test_a_stage_that_draws_none_is_not_watched(workspace: Workspace, stage: str, every: int) -> None:
    run = Run.over(workspace, quick(f"train.preview_every={every}"), ["fox"])
    with previews_of(STAGES[stage], run) as watched:
        assert watched is run
