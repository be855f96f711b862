"""Openly licensed emoji artwork: fetched by pinned version, matched by code point, rasterised.

`python -m miniature.icons` writes `icons.npz` into the work folder: for every style one array of
straight-alpha RGBA pictures, uint8 `[things, 64, 64, 4]`, and a mask of the things that the style has.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from miniature.store import work_folder
from ti_pipeline.files import atomic

HERE = Path(__file__).parent
SIZE = 64
ICON = 56  # the artwork's box inside the picture: the background stays visible on every side


@dataclass(frozen=True)
class Package:
    """One npm package, pinned by version and by the digest of its archive."""

    name: str
    version: str
    sha256: str
    licence: str
    author: str


def packages() -> dict[str, Package]:
    """The pinned packages by the name of their style (`labels` is the table of names)."""
    return {style: Package(**row) for style, row in json.loads((HERE / "packages.json").read_text()).items()}


def fetch(package: Package, folder: Path) -> Path:
    """The unpacked package; fetched with npm unless its digest already stands in `folder`."""
    slug = package.name.replace("@", "").replace("/", "-")
    target = folder / f"{slug}-{package.version}"
    if (target / "package.json").exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{slug}-{package.version}.tgz"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=folder) as fresh:  # so that a kill leaves no half of an archive
            call = ["npm", "pack", f"{package.name}@{package.version}", "--silent", "--pack-destination", fresh]
            subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
            (Path(fresh) / archive.name).replace(archive)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        archive.unlink()
        raise ValueError(f"{package.name}@{package.version}: the archive's digest is {found}, pinned is {package.sha256}")
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.isfile()]
        for member in members:
            member.name = member.name.partition("/")[2]
        tar.extractall(target, members=sorted(members, key=lambda m: m.name == "package.json"), filter="data")
    return target


def labels(folder: Path) -> list[dict]:
    """Every emoji of Unicode with its label and code points, in Unicode's order."""
    return json.loads((folder / "en" / "data.json").read_text())


class Iconify:
    """A style as iconify packs it: one JSON file with the body of each SVG."""

    def __init__(self, folder: Path):
        data = json.loads((folder / "icons.json").read_text())
        self.icons = data["icons"]
        self.aliases = {name: alias["parent"] for name, alias in data.get("aliases", {}).items()}
        self.box = (data.get("width", 16), data.get("height", 16))
        codes = folder / "chars.json"
        self.by_code = json.loads(codes.read_text()) if codes.exists() else {}

    def name_of(self, label: str, code: str) -> str | None:
        """The icon of an emoji: by code point where the package lists them, else by its name."""
        slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
        for name in (self.by_code.get(code.lower()), self.by_code.get(code.lower().replace("-fe0f", "")), slug, slug.replace("-", "")):
            name = self.aliases.get(name, name)
            if name in self.icons:
                return name
        return None

    def draw(self, label: str, code: str, edge: int = 4 * ICON) -> Image.Image | None:
        name = self.name_of(label, code)
        return None if name is None else self.render(name, edge)

    def render(self, name: str, edge: int, colour: str = "#000000") -> Image.Image:
        """The icon, `edge` pixels wide; `colour` is that of icons which bring none."""
        icon = self.icons[name]
        width, height = icon.get("width", self.box[0]), icon.get("height", self.box[1])
        left, top = icon.get("left", 0), icon.get("top", 0)
        body = icon["body"].replace("currentColor", colour)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg, width=edge, height=edge)
        return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def fit(picture: Image.Image, edge: int = SIZE) -> np.ndarray:
    """The drawn part of a picture, centred in its box: straight-alpha RGBA uint8 `[edge, edge, 4]`."""
    picture = picture.crop(picture.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox())
    scale = ICON * edge / SIZE / max(picture.size)
    size = tuple(max(1, round(edge * scale)) for edge in picture.size)
    premultiplied = np.asarray(picture, np.float32) / 255
    premultiplied[..., :3] *= premultiplied[..., 3:]
    planes = [Image.fromarray(premultiplied[..., c], "F").resize(size, Image.Resampling.LANCZOS) for c in range(4)]
    out = np.zeros((edge, edge, 4), np.float32)
    left, top = (edge - size[0]) // 2, (edge - size[1]) // 2
    out[top : top + size[1], left : left + size[0]] = np.clip(np.stack([np.asarray(p) for p in planes], -1), 0, 1)
    alpha = out[..., 3:]
    out[..., :3] = np.where(alpha > 0, np.minimum(out[..., :3] / np.maximum(alpha, 1e-6), 1), 0)
    return np.round(out * 255).astype(np.uint8)


class Sources:
    """Every artists' team by the name of its style, with things called as `things.json` calls them."""

    def __init__(self, folder: Path):
        fetched = {style: fetch(package, folder / "packages") for style, package in packages().items()}
        self.labels = json.loads((HERE / "things.json").read_text())["labels"]
        self.codes = {entry["label"]: entry["hexcode"] for entry in labels(fetched.pop("labels"))}
        self.styles = {style: Iconify(source) for style, source in fetched.items()}

    def draw(self, thing: str, style: str, edge: int = 4 * ICON) -> Image.Image | None:
        """The artwork, `edge` pixels wide, or None when the style lacks the thing."""
        label = self.labels.get(thing, thing)
        return self.styles[style].draw(label, self.codes[label], edge)


def rasterise(folder: Path) -> Path:
    """Draw every thing in every style that has it."""
    target = folder / "icons.npz"
    if target.exists():
        return target
    sources = Sources(folder)
    things = json.loads((HERE / "things.json").read_text())
    names = things["core"] + things["more"] + list(things["held_out"])
    arrays: dict[str, np.ndarray] = {"things": np.array(names)}
    for style in sources.styles:
        drawn = [sources.draw(name, style) for name in names]
        arrays[f"has_{style}"] = np.array([d is not None for d in drawn])
        arrays[f"rgba_{style}"] = np.stack([np.zeros((SIZE, SIZE, 4), np.uint8) if d is None else fit(d) for d in drawn])
    with atomic(target) as temporary:
        np.savez_compressed(temporary, **arrays)
    return target


if __name__ == "__main__":
    print(rasterise(work_folder()))
