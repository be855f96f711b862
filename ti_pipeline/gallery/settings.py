"""The section `gallery` of params."""

from __future__ import annotations

from ti_pipeline.section import Positive, Section


class Gallery(Section):
    """The pages."""

    title: str
    """Heading of the overview."""
    thumbnail: Positive
    """[pixels] Longer edge of a picture on the page; the files have twice as many pixels, for sharp screens."""
    against: dict[str, str]
    """Other workspaces to show beside this one, by the name readers see: `{"last week": ../last-week}`. Paired by brief and seed."""
