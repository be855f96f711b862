"""What a killed process leaves goes at the next run, and nothing that is alive does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.versioning.small import bring, write
from tests.versioning.test_record import dvc, step
from ti_pipeline.stages.reasons import FOLDER
from ti_pipeline.versioning import leftovers
from ti_pipeline.versioning.leftovers import held_folder, sweep
from ti_pipeline.versioning.repository import repository as opened

DVCS, OURS = ".Kt21fWdidKS8pyPovYroGg.tmp", ".abcdefgh.pulled"


def leave(cache: Path) -> list[Path]:
    left = [cache / "files" / "md5" / "1c" / DVCS, cache / "files" / "md5" / "1c" / OURS, cache / "runs" / "ab" / f"x{DVCS}"]
    for path in left:
        write(path, b"half")
    return left


def test_temporaries_of_a_cache_of_ones_own_go_at_once(repository, params) -> None:
    left = leave(repository / ".dvc" / "cache")
    step(repository, params)
    assert not any(path.exists() for path in left)
    assert len(list((repository / ".dvc" / "cache" / "files" / "md5").rglob("*.*"))) == 7  # the listings of folders


@pytest.mark.parametrize("why", ["shared", "experiments"])
def test_where_others_may_write_only_what_is_old_goes(repository, tmp_path, monkeypatch, why) -> None:
    cache = tmp_path / "cache" if why == "shared" else repository / ".dvc" / "cache"
    if why == "shared":
        dvc(repository, "cache", "dir", str(cache))
    else:
        (repository / ".dvc" / "tmp" / "exps").mkdir(parents=True)
    left = leave(cache)
    with opened(repository) as repo:
        sweep(repo)
        assert all(path.exists() for path in left)
        monkeypatch.setattr(leftovers, "UNTOUCHED", 0.0)
        sweep(repo)
    assert not any(path.exists() for path in left)


def test_while_another_dvc_is_at_work_nothing_goes(repository) -> None:
    left = leave(repository / ".dvc" / "cache")
    with opened(repository) as other, other.lock, opened(repository) as repo:
        sweep(repo)
    assert all(path.exists() for path in left)


def test_a_folder_whose_process_was_killed_goes_and_that_of_a_living_one_stays(repository) -> None:
    parent = repository / ".dvc" / "tmp"
    code = (
        "import sys, time; from pathlib import Path; from ti_pipeline.versioning.leftovers import held_folder\n"
        "with held_folder(Path(sys.argv[1]), 'reproduce-') as folder: print(folder, flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(parent)], stdout=subprocess.PIPE, text=True)
    folder = Path(other.stdout.readline().strip())
    try:
        with opened(repository) as repo:
            sweep(repo)
            assert folder.is_dir()
            other.kill()
            other.wait()
            sweep(repo)
            assert not folder.exists()
    finally:
        other.kill()
        other.wait()
    with held_folder(parent, "reproduce-") as folder:
        assert folder.is_dir()
    assert not folder.exists()


def test_a_record_holds_nothing_that_is_half_written(repository, params) -> None:
    """What a killed stage or pull has left in an output or in a set is neither recorded nor counted as a change."""
    step(repository, params)
    for name in (
        "artifacts/manifests/.fern-a1b2c3d4.parquet", "artifacts/candidates/fern/.0001-x_y0z9ab.png", "artifacts/embeddings/.x.tmp",
        "artifacts/galleries/_site/.gallery-a1b2c3d4.css", f"artifacts/galleries/fern/{DVCS}",
        "artifacts/galleries/fern/.page.html.pulled", f"data/concepts/fern/{DVCS}", "data/concepts/fern/.0.png.pulled",
        "data/concepts/.inbox/fern/files/0.png",
    ):  # fmt: skip
        write(repository / name, b"half")
    assert "up to date" in dvc(repository, "status")
    assert step(repository, params).recorded == []
    write(repository / "data" / "concepts" / "fern" / ".taken.json", b"{}")  # the record of the inbox is part of a set
    assert step(repository, params).recorded[0] == "data/concepts"
    write(repository / "artifacts" / "embeddings" / FOLDER / "fern.json", b"{}")  # a reason that was kept is part of an output
    assert "modified" in dvc(repository, "status")
    assert "train" in step(repository, params).recorded
    bring(repository, params)
    assert not (repository / "data" / "concepts" / "fern" / ".0.png.pulled").exists()
    assert not (repository / "artifacts" / "galleries" / "fern" / ".page.html.pulled").exists()
