"""What a file or folder is instead of a model that can be loaded, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ti_pipeline.errors import ParamsError
from ti_pipeline.foreign import read_json

SETTING = "generator.model"
PARTS = "generator.parts"


def refusal(path: Path, what: str, advice: str) -> ParamsError:
    """The error that says what lies at `path`, and what to do."""
    return ParamsError(f"{SETTING}: {path} is {what}. {advice}")


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


def part_config(folder: Path, part: str) -> dict[str, Any]:
    """The configuration of a part of a diffusers folder, empty where there is none. Raises ParamsError."""
    path = folder / part / "config.json"
    content = read_json(path, SETTING) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ParamsError(f"{SETTING}: {path} holds no table of settings. Download that file again.")
    return content
