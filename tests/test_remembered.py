from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ti_pipeline.remembered import place, remember, remembered


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_kept_is_found_by_what_it_depends_on() -> None:
    assert remembered("speed", ["a", 1]) is None
    remember("speed", ["a", 1], {"samples": 2.5})
    assert remembered("speed", ["a", 1]) == {"samples": 2.5}
    assert remembered("speed", ["a", 2]) is None and remembered("cpu", ["a", 1]) is None


def test_a_damaged_file_is_none() -> None:
    remember("speed", "a", 1.0)
    place("speed", "a").write_text("{")
    assert remembered("speed", "a") is None


def test_without_a_cache_a_line_is_all_that_it_costs(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        remember("speed", "a", 1.0)
    assert remembered("speed", "a") is None and "what was found out cannot be kept (speed)" in caplog.text
