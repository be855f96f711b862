"""Pictures of one prompt in their order; in Jupyter they show themselves."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, overload

from PIL import Image

from ti_pipeline.candidates.files import write_picture
from ti_pipeline.candidates.recipe import Recipe
from ti_pipeline.candidates.sheet import Planned
from ti_pipeline.errors import ParamsError
from ti_pipeline.files import atomic, digest_value
from ti_pipeline.studio.contact import contact_sheet


@dataclass(frozen=True)
class Picture:
    """One picture, RGB, with the recipe and the file name that a candidate of the same brief has. `place` counts from 1; `likeness` and
    `faithfulness` are cosines of the models that rank, None where they did not look."""

    image: Image.Image = field(repr=False, compare=False)
    planned: Planned = field(repr=False)
    place: int
    reason: str
    likeness: float | None = None
    faithfulness: float | None = None

    @property
    def recipe(self) -> Recipe:
        return self.planned.recipe

    @property
    def file(self) -> str:
        return self.planned.file

    def save(self, path: Path | str) -> Path:
        """As PNG, with the recipe inside. `path` is a file, or a folder for one of its own name."""
        path = Path(path).expanduser()
        path = path / self.file if path.is_dir() else path
        write_picture(path, self.image, self.recipe, self.planned.parameters)
        return path

    def to_json(self) -> dict[str, Any]:
        same = {"place": self.place, "file": self.file, "reason": self.reason}
        return same | {"likeness": self.likeness, "faithfulness": self.faithfulness, "recipe": self.recipe}

    def _repr_png_(self) -> bytes:
        return _png(self.image)


@dataclass(frozen=True)
class Drawn(Sequence[Picture]):
    """All pictures of one prompt, best first. `rule` says what the order follows; `sheet_file` is the contact sheet's name."""

    prompt: str
    rule: str
    pictures: tuple[Picture, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        return self.pictures[index]

    @property
    def best(self) -> Picture:
        return self.pictures[0]

    @property
    def sheet(self) -> Image.Image:
        """The contact sheet: under each picture its place and the number in its file's name."""
        lines = [f"{picture.place}  #{picture.recipe['candidate']:02d}" for picture in self.pictures]
        return contact_sheet([picture.image for picture in self.pictures], lines)

    @property
    def sheet_file(self) -> str:
        name = self.pictures[0].file.rsplit("-", 2)[0]
        return f"{name}-sheet-{digest_value([picture.file for picture in self.pictures])[:8]}.png"

    def save(self, folder: Path | str) -> Path:
        """Every picture, and the contact sheet last, of which the path is returned; what else is in the folder stays."""
        folder = Path(folder).expanduser()
        if folder.exists() and not folder.is_dir():
            raise ParamsError(f"{folder} is a file. Give a folder for the pictures.")
        for picture in self.pictures:
            picture.save(folder / picture.file)
        return self.save_sheet(folder)

    def save_sheet(self, folder: Path) -> Path:
        path = folder / self.sheet_file
        with atomic(path) as temporary:
            self.sheet.save(temporary, format="PNG")
        return path

    def _repr_png_(self) -> bytes:
        return _png(self.sheet)

    def _repr_html_(self) -> str:
        """The pictures in their order; the reason of each appears when the pointer rests on it."""
        shown = "".join(
            f'<img src="data:image/png;base64,{b64encode(_png(picture.image)).decode()}" alt="{html.escape(picture.reason)}" '
            f'title="{html.escape(picture.reason)}" style="margin:2px;max-width:256px">'
            for picture in self.pictures
        )
        return f"<figure><figcaption>{html.escape(self.prompt)} – {html.escape(self.rule)}</figcaption>{shown}</figure>"


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
