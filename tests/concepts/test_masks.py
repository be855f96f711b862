"""Masks are no pictures; one that cannot be used is named and breaks nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ti_pipeline import params
from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.folder import list_folder
from ti_pipeline.concepts.manifest import Manifest, read_manifest, write_manifest
from ti_pipeline.concepts.validation import Validation, validate_concept
from ti_pipeline.errors import ConceptError
from ti_pipeline.stages.learnt import training_fingerprint
from ti_pipeline.stages.validate import validate_fingerprint
from ti_pipeline.workspace import Workspace

PARAMS = params.load(Path(__file__).parents[2] / "params.yaml")
SIZE = (96, 72)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "concepts" / "mug"
    folder.mkdir(parents=True)
    for name in "abc":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


def half(size: tuple[int, int] = SIZE) -> Image.Image:
    """White on the left."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def validated(folder: Path) -> tuple[Validation, Manifest]:
    workspace, concept = Workspace.at(folder.parents[1], "concepts"), load_concept(folder)
    validation = validate_concept(concept, PARAMS.validate_, None)
    write_manifest(workspace, concept, validation, PARAMS.validate_.background, "any")
    return validation, read_manifest(workspace, "mug")


def test_a_mask_is_no_picture_and_goes_with_its_own(folder: Path) -> None:
    _, plain = validated(folder)
    half().save(folder / "b-mask.png")
    validation, manifest = validated(folder)
    assert [row.file for row in validation.rows] == ["a.png", "b.png", "c.png"] and not validation.left_out
    assert [entry.name for entry in list_folder(folder).masks] == ["b-mask.png"]
    assert [manifest.open_mask(picture) and manifest.open_mask(picture).tobytes() for picture in manifest.pictures] == [
        None, half().tobytes(), None,
    ]  # fmt: skip
    assert manifest.masked and not plain.masked
    assert manifest.training_digest != plain.training_digest
    (folder / "b-mask.png").write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(ConceptError, match="b-mask.png has changed since it was validated"):
        manifest.open_mask(manifest.pictures[1])


def test_a_mask_that_cannot_be_used_is_named(folder: Path) -> None:
    half((48, 36)).save(folder / "a-mask.png")
    half((72, 96)).save(folder / "b-mask.png")
    Image.new("L", SIZE).save(folder / "c-mask.png")
    half().save(folder / "d-mask.png")
    validation, manifest = validated(folder)
    assert [row.file for row in validation.accepted] == ["a.png", "b.png", "c.png"] and not validation.quarantine
    reasons = {row.file: row.reasons[0] for row in validation.rows if row.decision == "refused"}
    assert "48 × 36 pixels, and a.png has 96 × 72" in reasons["a-mask.png"]
    assert "72 × 96 pixels, and b.png has 96 × 72; turn it" in reasons["b-mask.png"]
    assert "black" in reasons["c-mask.png"] and "no usable picture d beside it" in reasons["d-mask.png"]
    assert validation.left_out.startswith("4 of its 7 files left out: a-mask.png: a mask of 48 × 36")
    assert not manifest.masked
    (folder / "a-mask.png").write_bytes(b"nothing")
    assert "a-mask.png: not a picture" in validated(folder)[0].left_out


def test_an_alpha_channel_is_a_mask_and_a_file_goes_before_it(folder: Path) -> None:
    for name in "ab":
        picture = Image.open(folder / f"{name}.png")
        picture.putalpha(half() if name == "a" else Image.new("L", SIZE, 255))
        picture.save(folder / f"{name}.png")
    manifest = validated(folder)[1]
    assert [picture.mask and picture.mask.file for picture in manifest.pictures] == ["a.png", "b.png", None]
    assert manifest.open_mask(manifest.pictures[0]).tobytes() == half().tobytes()
    assert manifest.open_mask(manifest.pictures[1]) is None  # all of it counts
    Image.new("L", SIZE, 200).save(folder / "a-mask.png")
    manifest = validated(folder)[1]
    assert manifest.open_mask(manifest.pictures[0]).getextrema() == (200, 200)


def test_a_mask_is_upright_as_its_picture(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(folder / "a.png").convert("RGBA")
    picture.putalpha(half())
    picture.save(folder / "a.webp", exif=exif, lossless=True)
    (folder / "a.png").unlink()
    manifest = validated(folder)[1]
    mask = manifest.open_mask(manifest.pictures[0])
    assert mask.size == (72, 96) == manifest.open(manifest.pictures[0]).size
    assert mask.tobytes() == half().transpose(Image.Transpose.ROTATE_270).tobytes()


def test_where_there_is_none_no_digest_knows_of_them(folder: Path) -> None:
    def digests(masks: str) -> tuple[str, str]:
        chosen = params.load(Path(__file__).parents[2] / "params.yaml", [f"train.masks={masks}"])
        manifest = validated(folder)[1]
        assert chosen.train.for_concept(manifest).masks == (masks if manifest.masked else "auto")
        return training_fingerprint("g", "", manifest, chosen), validate_fingerprint(load_concept(folder), chosen, "r")

    without = digests("auto")
    assert digests("none") == without
    half().save(folder / "a-mask.png")
    one, other = digests("auto"), digests("none")
    assert len({without[0], one[0], other[0]}) == 3 and without[1] != one[1] == other[1]
