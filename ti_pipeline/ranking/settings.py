"""The section `rank` of params."""

from __future__ import annotations

from ti_pipeline.section import Positive, Section, Share


class Rank(Section):
    """The order of a brief's candidates."""

    likeness_weight: Share
    """[1] Weight of the likeness to the references; the rest is faithfulness to the brief. Both are standardised within a brief first."""
    best: Positive
    """[pictures] How many the gallery shows first for each brief. Changes no place."""
    near_duplicate: Share
    """[cosine] Two candidates that CLIP finds at least this alike are stacked as one picture. Lowered, stacks get larger."""
