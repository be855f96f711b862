"""What a diffusion model was trained to say, where a setting says it because the model's own files do not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.errors import ParamsError
from ti_pipeline.foreign import read_json

if TYPE_CHECKING:
    from ti_pipeline.generators.source import Source

SETTING = "generator.prediction"


def predicting(source: Source, prediction: str) -> Source:
    """A source whose model says `prediction`. Raises ParamsError where that cannot be."""
    if not source.diffuses:
        raise ParamsError(f"{SETTING}: {source.name} follows a rectified flow and says its velocity. Set it to null.")
    beside = source.path if source.layout == "folder" else source.path.with_suffix("")
    path = (source.given.get("scheduler") or beside / "scheduler") / "scheduler_config.json"
    config = read_json(path, SETTING) if path.is_file() else {}
    said = config.get("prediction_type") if isinstance(config, dict) else None
    if said not in (None, prediction):
        raise ParamsError(f"{SETTING} is {prediction}, and {path} says {said}. Set it to null, or correct that file.")
    return source if said else replace(source, prediction=prediction)


def saying(scheduler_config: dict[str, Any], prediction: str) -> dict[str, Any]:
    """A schedule's configuration with what its model says in it, where diffusers does not take it for a default of no account."""
    unsaid = [key for key in scheduler_config.get("_use_default_values", ()) if key != "prediction_type"]
    return {**scheduler_config, "_use_default_values": unsaid, "prediction_type": prediction}
