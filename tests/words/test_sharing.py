from __future__ import annotations

from ti_pipeline.words.sharing import shared


def test_equal_files_lie_there_once_and_others_of_their_name_in_folders() -> None:
    files, places = shared({"a": {"x": b"1", "y": b"2"}, "b": {"x": b"1"}, "c": {"x": b"3"}, "d": {"x": b"3", "z": b"1"}})
    assert files == {"x": b"1", "y": b"2", "c/x": b"3", "z": b"1"}
    assert places == {"a": {"x": "x", "y": "y"}, "b": {"x": "x"}, "c": {"x": "c/x"}, "d": {"x": "c/x", "z": "z"}}
