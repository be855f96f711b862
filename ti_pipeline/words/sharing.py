"""What several tools are given, in one folder."""

from __future__ import annotations

from collections.abc import Mapping


def shared(given: Mapping[str, Mapping[str, bytes]]) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
    """`given` are each tool's files by their names. The files by where they lie, and for each tool where each of its files does.

    Equal files of one name lie there once; other content under the same name lies in a folder of the tool that is the first to have it.
    """
    files: dict[str, bytes] = {}
    places: dict[str, dict[str, str]] = {}
    for tool, own in given.items():
        places[tool] = {}
        for name, content in own.items():
            known = [name, *(f"{other}/{name}" for other in given)]
            place = next((place for place in known if files.get(place) == content), name if name not in files else f"{tool}/{name}")
            files[place] = content
            places[tool][name] = place
    return files, places
