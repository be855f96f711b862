"""The stages in their order. Commands, `status`, tasks, flows, `reproduce` and the check of `dvc.yaml` read them here."""

from __future__ import annotations

from ti_pipeline.params import Params
from ti_pipeline.stages.compare import COMPARE
from ti_pipeline.stages.evaluate import EVALUATE
from ti_pipeline.stages.gallery import GALLERY
from ti_pipeline.stages.generate import GENERATE
from ti_pipeline.stages.rank import RANK
from ti_pipeline.stages.stage import Stage
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.stages.validate import VALIDATE

STAGES: dict[str, Stage] = {stage.name: stage for stage in (VALIDATE, TRAIN, GENERATE, RANK, EVALUATE, GALLERY, COMPARE)}


def always() -> list[str]:
    """The stages of every run, whatever the params ask."""
    return [name for name, stage in STAGES.items() if stage.asked is None]


def of_a_run(params: Params) -> list[str]:
    """The stages of a run of the whole chain: not those that take hours and are done when they are asked for."""
    return [name for name, stage in STAGES.items() if stage.asked is None or not stage.asked(params)]


def with_something_to_do(params: Params) -> list[str]:
    """All stages but those of which the params ask nothing."""
    return [name for name, stage in STAGES.items() if stage.asked is None or stage.asked(params)]
