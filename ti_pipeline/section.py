"""A section of `params.yaml`: typed, described, complete."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ti_pipeline.concepts.texts import LONGEST

Positive = Annotated[int, Field(ge=1, le=1_000_000)]  # more is a slip of the finger, and would fill the memory
Solver = Literal["ddim", "dpmsolver++", "euler", "unipc"]
Guidance = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Briefs = dict[Literal["object", "style"], list[Annotated[str, Field(max_length=LONGEST)]]]


class Section(BaseModel):
    """The text under a field is its description in docs/params.md; a number's begins with its unit in brackets, [1] being none."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
