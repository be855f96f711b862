"""Pictures while it trains: the same in any company, drawn once, and nothing to the words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.inversion.one_concept import job_of
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.job import Waiting
from ti_pipeline.inversion.previews import BATCH, Film, Frame, draw
from ti_pipeline.inversion.strip import frame_path, newest_frame, read_frame, read_strip, strip_fingerprint, write_strip
from ti_pipeline.inversion.train import Reached, train_pack
from ti_pipeline.sampling import sample as sampling
from ti_pipeline.words.word import ONLY, Word

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]
DRAW = ("train.preview_every=2", "train.preview_steps=2")


def film(folder: Path, slug: str, seed: int = 1) -> Film:
    return Film(folder / slug, f"<{slug}>", "a photo of {token}", seed, f"of {slug}")


def word(slug: str, value: float) -> Word:
    return Word(f"<{slug}>", {ONLY: torch.full((1, 32), value)}, "mug")


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


def test_a_picture_does_not_depend_on_its_company(generator: Generator, settings: Settings, tmp_path: Path, one_thread: None) -> None:
    train = settings(*DRAW).train
    alone, crowd = film(tmp_path / "alone", "mug"), film(tmp_path / "crowd", "mug")
    draw(generator, [Frame(alone, 4, word("mug", 0.5))], train)
    others = [Frame(film(tmp_path / "crowd", name, seed), 4, word(name, 0.1 * seed)) for seed, name in enumerate("abcde")]
    draw(generator, [*others, Frame(crowd, 4, word("mug", 0.5))], train)
    assert pixels(frame_path(alone.folder, 4)) == pixels(frame_path(crowd.folder, 4))
    assert len({pixels(path) for path in (tmp_path / "crowd").rglob("*.png")}) == 6


def test_every_batch_has_one_shape(generator: Generator, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[int] = []
    honest = sampling.denoise
    monkeypatch.setattr(sampling, "denoise", lambda model, noise, *others: shapes.append(len(noise)) or honest(model, noise, *others))
    for count in (1, BATCH + 1):
        draw(
            generator, [Frame(film(tmp_path / f"{count}", name), 4, word(name, 0.5)) for name in "abcdefgh"[:count]], settings(*DRAW).train
        )
    assert shapes == [BATCH] * 3


def test_what_is_there_is_not_drawn_again(generator: Generator, settings: Settings, tmp_path: Path, one_thread: None) -> None:
    train, own = settings(*DRAW).train, film(tmp_path, "mug")
    words = {step: word("mug", step / 10) for step in (0, 2, 4)}
    drawn = own.pictures(generator, words, train)
    assert newest_frame(own.folder) == (4, frame_path(own.folder, 4))
    frame_path(own.folder, 2).write_bytes(frame_path(own.folder, 4).read_bytes()[:99])
    assert [frame.step for frame in own.missing(words)] == [2]
    again = own.pictures(generator, words, train)
    assert {step: picture.tobytes() for step, picture in again.items()} == {step: picture.tobytes() for step, picture in drawn.items()}
    assert read_frame(frame_path(own.folder, 2), "of another training") is None


def test_a_strip_comes_apart_into_its_pictures(tmp_path: Path) -> None:
    frames = {step: Image.new("RGB", (8, 8), (step, 0, 0)) for step in (100, 0, 50)}
    write_strip(tmp_path / "a.png", frames, "of mug")
    found = read_strip(tmp_path / "a.png")
    assert {step: picture.getpixel((3, 3)) for step, picture in found.items()} == {0: (0, 0, 0), 50: (50, 0, 0), 100: (100, 0, 0)}
    assert list(found) == [0, 50, 100] and strip_fingerprint(tmp_path / "a.png") == "of mug"
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert read_strip(tmp_path / "a.png") == {} and strip_fingerprint(tmp_path / "a.png") == ""


def test_they_are_told_while_it_trains_and_change_no_word(
    generator: Generator, validated: Make, settings: Settings, tmp_path: Path, one_thread: None
) -> None:
    seen: list[tuple[str, int, bytes]] = []
    manifests = {slug: validated(slug, hue=hue) for hue, slug in enumerate(("mug", "cup"))}

    def learn(watch: Callable[[Sequence[Reached]], None] | None, *overrides: str) -> dict[str, bytes]:
        train = settings("train.pack=2", *overrides).train

        def waiting(manifest: Manifest) -> Waiting:
            return Waiting(manifest.slug, 6, "", lambda: job_of(generator, manifest, train, 0, "mug"))

        everyone = [waiting(manifest) for manifest in manifests.values()]
        ended = list(train_pack(generator, everyone, train, tmp_path / "checkpoint", None, watch))
        return {each.concept: each.trained.word.rows[ONLY].numpy().tobytes() for each in ended}

    def watch(reached: Sequence[Reached]) -> None:
        seen.extend((each.job.concept, each.step, each.word.rows[ONLY].numpy().tobytes()) for each in reached)
        draw(generator, [Frame(film(tmp_path, each.job.concept), each.step, each.word) for each in reached], settings(*DRAW).train)

    with_pictures = learn(watch, *DRAW)
    assert with_pictures == learn(None)
    assert [(slug, step) for slug, step, _ in seen if slug == "mug"] == [("mug", step) for step in (0, 2, 4, 6)]
    assert {slug: rows for slug, step, rows in seen if step == 6} == with_pictures


def test_more_than_a_hundred_are_thinned_out(settings: Settings) -> None:
    assert list(settings("train.steps=6", "train.preview_every=4").train.drawn_at) == [0, 4]
    many = settings("train.steps=1000", "train.preview_every=3").train.drawn_at
    assert len(many) <= 101 and many.step == 12
    assert settings("train.steps=10", "train.preview_every=4", "train.keep_steps=[5, 99]").train.kept_at == [0, 4, 5, 8]


def test_none_are_drawn_unless_they_are_asked_for(settings: Settings) -> None:
    assert settings().train.kept_at == []
    with pytest.raises(ParamsError, match=r"train.preview_prompt.object: .* has no place for the \{token\}"):
        settings("train.preview_prompt.object=a photo")
