"""The sections `ranker` and `judge` of params: the models that look."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ti_pipeline.section import Section


class Ranker(Section):
    """The CLIP that orders candidates, chooses initializers and measures editability."""

    model: str
    """`miniature`, an open_clip name such as `ViT-B-32` (the paper's) or `ViT-B-16-SigLIP`, or a folder with `open_clip_config.json`."""
    pretrained: str | None
    """Weights of an open_clip name: a tag such as `laion2b_s34b_b79k`, or a file. `null` for `miniature` and folders."""
    likeness: Literal["clip", "dino", "both"]
    """What says how alike a candidate and the references are: the CLIP, the DINO, or both, by the mean of their two cosines. People agree
    more with a DINO (DreamBench++). Faithfulness and near-duplicates are the CLIP's in any case."""
    dino: str | None
    """With `dino` or `both`: a folder or hub name that transformers' AutoModel loads, such as `facebook/dinov2-small`; not the judge's."""

    @model_validator(mode="after")
    def _has_what_likeness_asks_for(self) -> Ranker:
        if self.likeness != "clip" and self.dino is None:
            raise ValueError(f"likeness is {self.likeness}, which needs a DINO. Name one in ranker.dino, such as facebook/dinov2-small")
        return self


class Judge(Section):
    """A second vision model. It only evaluates, so that nothing is judged by the model that ranked it."""

    model: str
    """`miniature`, or a folder or hub name that transformers' AutoModel loads, such as `facebook/dino-vits16` (as in DreamBench)."""
