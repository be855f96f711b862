"""What a file or folder is instead of a model that can be loaded, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.errors import ParamsError
from ti_pipeline.foreign import read_json

if TYPE_CHECKING:
    from ti_pipeline.generators.family import Family

SETTING = "generator.model"
PARTS = "generator.parts"
_OTHER_SCHEDULE = "Give one that says epsilon, v or the picture at the timesteps of its schedule, as most do."


def refusal(path: Path, what: str, advice: str) -> ParamsError:
    """The error that says what lies at `path`, and what to do."""
    return ParamsError(f"{SETTING}: {path} is {what}. {advice}")


def a(family: Family) -> str:
    return f"{'an' if family.name[0] in 'aeioAEIO' else 'a'} {family.name}"


@contextmanager
def whole(path: Path, family: Family) -> Iterator[None]:
    """While it is open, a tensor that is looked for in a single file of a family and is not there is a ParamsError that names it."""
    try:
        yield
    except KeyError as error:
        raise refusal(path, f"{a(family)} without {error.args[0]}", "It is not whole, or of a kind that this does not load.") from None


def check_channels(path: Path, channels: int, latent: int) -> None:
    """Raises ParamsError for a denoiser that sees more than latents."""
    if channels == 2 * latent + 1:
        raise refusal(
            path, "an inpainting model (its denoiser sees a mask and a masked picture too)", "Give the model that draws from text."
        )
    if channels != latent:
        more = f"its denoiser takes {channels} channels, of which latents are {latent}"
        raise refusal(path, f"a model that draws from more than text ({more})", "Give the model that draws from text.")


def check_text_width(folder: Path, heard: object, said: object) -> None:
    """Raises ParamsError for a transformer that hears texts of another width than its text encoder's."""
    if heard != said:
        what = f"put together from two models: its transformer hears texts of width {heard}, and its text encoder's are {said} wide"
        raise refusal(folder, what, "Download the whole model again.")


def check_schedule(folder: Path) -> None:
    """Raises ParamsError for the folder of a model that undoes noise, which was not trained to undo that of a schedule of timesteps."""
    config = part_config(folder, "scheduler", "scheduler_config.json")
    kind = str(config.get("_class_name", ""))
    if kind.startswith("EDM"):
        raise refusal(folder, f"a model that was trained by noise levels of its own ({kind}), which this does not load", _OTHER_SCHEDULE)
    if kind.startswith("FlowMatch") or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise refusal(folder, f"a U-Net that was trained along a rectified flow ({kind}), which this does not load", _OTHER_SCHEDULE)


def part_config(folder: Path, part: str, file: str = "config.json") -> dict[str, Any]:
    """The configuration of a part of a diffusers folder, or another `file` of it, empty where there is none. Raises ParamsError."""
    path = folder / part / file
    content = read_json(path, SETTING) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ParamsError(f"{SETTING}: {path} holds no table of settings. Download that file again.")
    return content
