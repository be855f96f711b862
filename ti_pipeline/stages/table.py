"""The stages in their order. Commands, `status`, tasks, flows, `reproduce` and the check of `dvc.yaml` read them here."""

from __future__ import annotations

from ti_pipeline.stages.compare import COMPARE
from ti_pipeline.stages.evaluate import EVALUATE
from ti_pipeline.stages.gallery import GALLERY
from ti_pipeline.stages.generate import GENERATE
from ti_pipeline.stages.rank import RANK
from ti_pipeline.stages.stage import Stage
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.stages.validate import VALIDATE

STAGES: dict[str, Stage] = {stage.name: stage for stage in (VALIDATE, TRAIN, GENERATE, RANK, EVALUATE, GALLERY, COMPARE)}
