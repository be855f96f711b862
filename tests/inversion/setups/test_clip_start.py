"""The first phase against its equation, and what of it reaches a generator with another table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from tests.inversion.setups.conftest import Mixed
from tests.inversion.setups.test_mixed import SEEN, bits, kill
from tests.sight.conftest import write_clip
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.matching import RIDGE, match
from ti_pipeline.params import Ranker as Settings
from ti_pipeline.sight.ranker import Ranker, load_ranker
from ti_pipeline.stages.learnt import training_fingerprint
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Workspace

Mix = Callable[..., Mixed]
CLIP = ("setup=clip_start", "setups.clip_start.steps=12", "setups.clip_start.learning_rate=0.02", "vectors=2", "steps=0")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("ranker") / "narrow")


@pytest.fixture(scope="session")
def rankers(generator: Generator, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ranker]:
    """One whose table is the generator's, one with another of the same vocabulary, one with another vocabulary."""
    folder, table = tmp_path_factory.mktemp("rankers"), generator.encoders[ONLY].table
    models = {"same": write_clip(folder / "same", table), "narrow": clip_folder, "other": "miniature"}
    return {
        name: load_ranker(Settings(model=str(model), pretrained=None, likeness="clip", dino=None), "cpu") for name, model in models.items()
    }


def learn(mix: Mix, ranker: Ranker, *more: str) -> Mixed:
    mixed = mix(mug=(*CLIP, *more))
    mixed.sight = lambda: ranker
    mixed.run()
    return mixed


def test_the_rows_are_those_that_clip_finds_most_like_the_pictures(mix: Mix, rankers: dict[str, Ranker]) -> None:
    """With open_clip's own tokenizer and a table with the rows behind it."""
    ranker, mixed = rankers["same"], learn(mix, rankers["same"])
    subject, model, steps = mixed.job("mug").subject, rankers["same"].model, 12
    pictures = torch.from_numpy(ranker.images([subject.manifest.open(each) for each in subject.manifest.pictures]))
    start, table = subject.rows(2)[ONLY], model.token_embedding.weight.detach()
    words = open_clip.get_tokenizer("ViT-B-32")
    v = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([v], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        places = subject.streams.rounds("match picture", step * 16, 16, 3)
        choice = torch.rand(16, generator=subject.streams.at("match prompt", step)).tolist()
        said = [subject.prompts[p][int(u * 27)].replace("<mug>", "! !") for p, u in zip(places, choice, strict=True)]
        ids = words(said)
        ids[ids == words.encoder["!</w>"]] = torch.tensor([len(table), len(table) + 1]).repeat(16)
        wide = functional_call(torch.nn.Embedding(len(table) + 2, 32), {"weight": torch.cat([table, v])}, (ids,))
        x = model.transformer(wide + model.positional_embedding, attn_mask=model.attn_mask)
        end = (ids == words.encoder["<end_of_text>"]).int().argmax(dim=1)
        texts = model.ln_final(x)[torch.arange(16), end] @ model.text_projection
        optimizer.zero_grad()
        (-F.cosine_similarity(texts, pictures[places]).mean()).backward()
        optimizer.step()
        schedule.step()
    found = mixed.trained["mug"].word.rows[ONLY]
    assert F.cosine_similarity((found - start).flatten(), (v.detach() - start).flatten(), dim=0) > 0.99999
    assert (found - start).norm() > 0.05 * start.norm()
    assert mixed.trained["mug"].log == [] and mixed.trained["mug"].steps == 0
    again = learn(mix, ranker)
    assert torch.equal(again.trained["mug"].word.rows[ONLY], found)


def test_what_moved_in_a_narrower_table_is_mapped_by_least_squares(mix: Mix, rankers: dict[str, Ranker], generator: Generator) -> None:
    mixed = learn(mix, rankers["narrow"], "vectors=1")
    subject, tokenizer = mixed.job("mug").subject, generator.encoders[ONLY].tokenizer
    x, y = (each.detach().double().numpy() for each in (rankers["narrow"].table, generator.encoders[ONLY].table))
    rows = match(subject, 12, 0.02).double().numpy() - x[tokenizer("mug", add_special_tokens=False).input_ids].mean(axis=0)
    assert rows.shape == (1, 16)
    held = np.sqrt(RIDGE * np.square(x).sum(axis=0).mean()) * np.eye(16)
    moved = rows @ np.linalg.lstsq(np.concatenate([x, held]), np.concatenate([y, np.zeros((16, 32))]), rcond=None)[0]
    found, start = mixed.trained["mug"].word.rows[ONLY], subject.rows(1)[ONLY]
    expected = start + torch.from_numpy(moved).float()
    expected = expected * start.norm() / expected.norm()
    assert F.cosine_similarity(found - start, expected - start).min() > 0.9999
    torch.testing.assert_close(found.norm(dim=1), start.norm(dim=1))


def test_another_vocabulary_is_refused(mix: Mix, rankers: dict[str, Ranker]) -> None:
    mixed = learn(mix, rankers["other"])
    assert mixed.trained == {} and "the ranker miniature and the text encoder text of tiny have other vocabularies" in mixed.lost["mug"]


def test_the_second_phase_goes_on_from_there_in_any_company(mix: Mix, rankers: dict[str, Ranker], tmp_path: Path) -> None:
    after = ("setup=clip_start+direction", "steps=4", "learning_rate=0.05")
    alone = learn(mix, rankers["narrow"], *after)
    start = alone.job("mug").one.leaves[ONLY]
    mixed = mix(mug=(*CLIP, *after), jug=("setup=regularised", "steps=6"), cup=(*CLIP, "steps=3"))
    mixed.sight, mixed.checkpoint = lambda: rankers["narrow"], tmp_path / "together"
    found, expected = (each["mug"].word.rows[ONLY] - start for each in (mixed.run(), alone.trained))
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.9999
    assert mixed.trained.keys() == {"mug", "jug", "cup"}


def test_killed_for_real_after_its_first_phase_it_ends_in_the_same_bits(
    mix: Mix, rankers: dict[str, Ranker], clip_folder: Path, folder: Path, workspace: Workspace, tmp_path: Path
) -> None:
    mixed = mix(**{slug: (*own, "checkpoint_every=1") for slug, own in SEEN.items()})
    mixed.sight = lambda: rankers["narrow"]
    whole = bits(mixed.run())
    mixed.checkpoint, mixed.trained = tmp_path / "killed.safetensors", {}
    kill(tmp_path, workspace, folder, mixed, ("4", "seen", str(clip_folder)))
    assert bits(mixed.run()) == whole and mixed.trained["mug"].resumed_from == 1


def test_a_word_depends_on_the_ranker_that_it_starts_from(
    mix: Mix, rankers: dict[str, Ranker], validated: Callable[..., Manifest], settings: Callable[..., params.Params]
) -> None:
    keys = {name: learn(mix, rankers[name]).job("mug").key for name in ("same", "narrow")}
    assert keys["same"] != keys["narrow"]
    assert settings("train.setup=clip_start+direction").train.chosen.looks and not settings("train.setup=direction").train.chosen.looks
    chosen = settings("train.setup=clip_start")
    assert len({training_fingerprint("g", ranker, validated(), chosen) for ranker in ("one", "two")}) == 2
