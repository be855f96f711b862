"""The section `validate` of params."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ti_pipeline.section import Positive, Section

Channel = Annotated[int, Field(ge=0, le=255)]


class Validate(Section):
    """What a picture must be to be used, and what is worth a warning. Warnings leave nothing out."""

    min_edge: Positive
    """[pixels] Pictures with a shorter edge below this are left out. For Stable Diffusion, 512 avoids enlarged pictures."""
    max_megapixels: Annotated[float, Field(gt=0)]
    """[10⁶ pixels] Larger pictures are left out before they are decoded, which bounds the memory that one picture can take."""
    background: tuple[Channel, Channel, Channel]
    """[levels] Red, green and blue of what is put under transparent pictures, and around pictures with `train.fit: pad`."""
    min_pictures: Positive
    """[pictures] Fewer usable ones than this are a warning. The paper uses 3 to 5."""
    max_pictures: Positive
    """[pictures] More than this are a warning. The paper tried up to 25 and found about 5 best."""
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)]
    """[bits of 64] Pictures whose perceptual hashes differ in no more bits are reported as nearly the same. Raised, it reports more."""
    max_aspect_ratio: Annotated[float, Field(ge=1)]
    """[1] Longer edge over shorter edge; beyond it a warning, because training sees a square of it unless `train.fit` is buckets."""
    min_sharpness: Annotated[float, Field(ge=0)]
    """[luminance²] Variance of the Laplacian at 256 pixels, on a scale of 0 to 255. Pictures below it are reported as blurred."""
    min_contrast: Annotated[float, Field(ge=0)]
    """[luminance] Standard deviation of the luminance, on a scale of 0 to 255. Pictures below it are reported as blank."""
    outlier_z: Annotated[float, Field(gt=0)]
    """[1] Robust z-score of how unlike the rest of its set CLIP finds a picture; above it, the picture is reported as one that may not
    belong. Lowered, it finds more that do not belong and names more that do: the embedded ranker is not sure of photographs."""
