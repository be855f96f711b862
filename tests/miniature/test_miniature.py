"""The embedded model: held out is held out, it loads with stock loaders, and what it draws follows the prompt."""

from __future__ import annotations

import copy
import random
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.embeddings import TextTimeEmbedding
from PIL import Image
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoModel

from miniature import captions, crowd, inventions, judge
from miniature.decoder import decode, silence
from miniature.generator import Size, build_unet
from miniature.latents import COMPONENTS, OWN, Batch, Draws, encode, whitening
from miniature.make import export_generator
from miniature.measure import background_of, interval
from miniature.pictures import BACKGROUNDS, HELD_OUT_STYLE, NAMED, TECHNIQUES, compose, stylise, things
from miniature.store import Checkpoint
from miniature.words import SIZE, Words, look_at_names, soften

PACKAGE = Path(str(resources.files("ti_pipeline.miniature")))

# Group, word, style, background, drawing: a thing by three artists, and one of every other group.
ROWS = [
    (0, 0, 0, 0, 0),
    (0, 0, 1, 0, 1),
    (0, 0, 2, 0, 2),
    (1, 1, 0, 0, 3),
    (2, 9000, 0, 0, 4),
    (3, 9001, OWN, 0, 5),
    (4, 0, len(NAMED), 0, 0),
]


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    """As a reader of the card loads it: nothing is said but the folder."""
    pipe = StableDiffusionPipeline.from_pretrained(PACKAGE / "generator")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_held_out_things_are_in_no_list_and_no_caption():
    lists = things()
    trained = {*lists["core"], *lists["more"]}
    assert len(lists["held_out"]) >= 48
    assert not trained & set(lists["held_out"])
    words = {word for line in captions.corpus() for word in line.split()}
    shared = {"bear", "engine", "fire", "leaf", "ball", "clock", "alarm", "soccer", "maple"}  # parts of trained names
    assert not {word for name in lists["held_out"] for word in name.split()} - shared & words
    assert set(lists["held_out"].values()) <= trained


def test_everything_that_ships_is_safetensors_in_half_precision_and_small():
    files = [f for f in PACKAGE.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert sum(f.stat().st_size for f in files) <= 60e6
    weights = [f for f in files if f.suffix == ".safetensors"]
    assert len(weights) == 6 and not [f for f in files if f.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    for file in weights:
        with safe_open(file, "pt") as opened:
            kinds = {opened.get_tensor(key).dtype for key in opened.keys()}
        assert kinds <= {torch.float16, torch.int64}


def test_the_ranker_loads_with_stock_open_clip_and_tells_prompts_apart(pipe):
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{PACKAGE / 'ranker'}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{PACKAGE / 'ranker'}")
    picture = Image.new("RGB", (80, 60), BACKGROUNDS["blue"])
    with torch.no_grad():
        image = model.eval().encode_image(prepare(picture)[None], normalize=True)
        text = model.encode_text(tokenize([captions.full("dog", "noto", c) for c in ("blue", "red")]), normalize=True)
    assert (image @ text.T)[0].argmax() == 0


def test_the_generator_draws_in_stock_diffusers(pipe):
    assert {part.dtype for part in (pipe.text_encoder, pipe.unet, pipe.vae)} == {torch.float32}
    picture = pipe("a comic picture of an apple on a yellow background", num_inference_steps=4).images[0]
    assert picture.size == (64, 64) and np.asarray(picture).std() > 10


def test_the_judge_loads_with_stock_transformers():
    model, prepare = AutoModel.from_pretrained(PACKAGE / "judge"), AutoImageProcessor.from_pretrained(PACKAGE / "judge")
    with torch.no_grad():
        assert torch.isfinite(model(**prepare(Image.new("RGB", (80, 60)), return_tensors="pt")).pooler_output).all()


def test_the_recipe_writes_the_configurations_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(PACKAGE / "generator" / "tokenizer", tmp_path / "work" / "tokenizer")
    monkeypatch.setenv("MINIATURE_WORK", str(tmp_path / "work"))
    export_generator(StableDiffusionPipeline.from_pretrained(PACKAGE / "generator"), tmp_path)
    judge.export(AutoModel.from_pretrained(PACKAGE / "judge"), tmp_path / "judge")
    for name in ("generator/text_encoder/config.json", "judge/config.json"):
        assert (tmp_path / name).read_bytes() == (PACKAGE / name).read_bytes()
    assert {
        part.dtype for part in StableDiffusionPipeline.from_pretrained(tmp_path / "generator").components.values() if hasattr(part, "dtype")
    } == {torch.float32}


@pytest.mark.slow
def test_background_and_style_follow_the_prompt(pipe):
    asked = [("dog", "noto", "red"), ("dog", "mono", "yellow"), ("car", "twemoji", "blue"), ("house", "noto", "green")]
    made = pipe(
        [captions.full(*a) for a in asked],
        num_inference_steps=12,
        guidance_scale=2.0,
        output_type="np",
        generator=[torch.Generator().manual_seed(i) for i in range(4)],
    ).images
    pictures = [np.round(p * 255).astype(np.uint8) for p in made]
    assert [background_of(p) for p in pictures] == [a[2] for a in asked]
    inside = [p[16:48, 16:48].astype(float) for p in pictures]
    colourfulness = [np.abs(p - p.mean(-1, keepdims=True)).mean() for p in inside]
    assert colourfulness[1] < colourfulness[3]  # a print in one ink is greyer than a noto house


def test_techniques_keep_the_outline_of_the_artwork():
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[16:48, 16:48] = (200, 40, 40, 255)
    for style in TECHNIQUES:
        out = stylise(rgba, style)
        grown = 34 * 34 - 12 if style == "comic" else 32 * 32  # by its outline, which has round corners
        assert (out[..., 3] > 127).sum() == grown
        assert compose(out, "white")[0, 0].tolist() == list(BACKGROUNDS["white"])


def test_an_invented_thing_is_the_same_change_in_every_hand_and_another_for_every_seed():
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[20:44, 12:40] = (200, 120, 40, 255)
    made = [inventions.thing(seed)(rgba) for seed in range(12)]
    assert len({m.tobytes() for m in made}) == 12
    assert (inventions.thing(3)(rgba) == made[3]).all()
    for picture in made:
        assert 0.5 < (picture[..., 3] > 127).sum() / (24 * 28) < 1.2
        middle = np.argwhere(picture[..., 3] > 127).mean(0)
        inside = picture[int(middle[0]), int(middle[1]), :3].astype(int)
        assert sorted(inside.tolist()) == pytest.approx([40, 120, 200], abs=3)  # colours change places, nothing else


def test_no_invented_style_is_a_print_in_blue_as_the_held_out_one():
    rgba = np.full((64, 64, 4), 255, np.uint8)
    rgba[..., :3] = np.linspace(0, 255, 64).astype(np.uint8)[None, :, None]
    held_out = stylise(rgba, HELD_OUT_STYLE)[..., :3].astype(float)
    prints = [inventions.style(seed)(rgba)[..., :3].astype(float) for seed in range(200)]
    assert min(np.abs(p - held_out).mean() for p in prints) > 25
    blue = [p for p in prints if (p[..., 2] - p[..., :2].max(-1)).mean() > 15 and (p[..., 1] - p[..., 0]).mean() > 10]
    assert not blue


def test_nothing_that_hints_at_a_held_out_thing_is_in_the_crowd():
    assert not [name for name in things()["held_out"] if crowd.allowed(name)]
    assert not [name for name in ("fireengine", "Fox-Head", "present-box", "person playing guitar") if crowd.allowed(name)]
    assert crowd.allowed("streamline-color:umbrella") and crowd.allowed("grinning face")
    assert all(package.licence in ("MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-3.0") for package in crowd.packages().values())


def test_components_of_drawings_have_variance_one_and_the_largest_comes_first():
    latents = torch.randn(3000, 384, generator=torch.Generator().manual_seed(0))
    latents[:, 128:192] += 9 * torch.randn(3000, 1, generator=torch.Generator().manual_seed(1))
    matrix, offset = whitening(latents)
    found = latents @ matrix.T + offset
    assert found.shape == (3000, COMPONENTS)
    assert torch.allclose(found.T @ found / 3000, torch.eye(COMPONENTS), atol=1e-3)
    assert np.corrcoef(found[:, 0], latents[:, 128:192].mean(1))[0, 1] ** 2 > 0.99


def test_a_picture_word_means_one_drawing_of_its_thing_or_several_on_average(monkeypatch):
    monkeypatch.setattr("miniature.latents.CHIMERAS", 0)
    drawn = torch.eye(24)[:6].view(6, 6, 2, 2)
    draws = Draws({"key": torch.tensor(ROWS), "latent": torch.zeros(len(ROWS), 6, 2, 2), "drawn": drawn}, seed=0)
    batch = draws.batch(400)
    assert (~batch.of_style).sum() == len(batch.drawn) and len(batch.of_style) == sum("@" in text for text in batch.texts)
    means = {tuple(np.flatnonzero(word)) for word in batch.drawn.flatten(1).numpy()}
    assert torch.allclose(batch.drawn.sum((1, 2, 3)), torch.ones(len(batch.drawn)))
    assert {(0,), (0, 1), (0, 1, 2), (3,), (4,), (5,)} <= means
    assert all(len(of) == 1 or set(of) <= {0, 1, 2} for of in means)


def test_a_chimera_is_cut_where_its_picture_word_is_from_a_picture_in_the_same_style_on_the_same_background(monkeypatch):
    monkeypatch.setattr("miniature.latents.CHIMERAS", 1)
    monkeypatch.setattr("miniature.latents.OWN_DRAWING", 1)
    rows = [*ROWS, (0, 0, 0, 1, 0)]  # the first once more, on another background
    latent = torch.arange(len(rows)).view(-1, 1, 1, 1).expand(-1, 6, 16, 16).float()  # which picture, and which drawing
    drawn = torch.arange(6).view(-1, 1, 1, 1).expand(-1, 6, 16, 16).float()
    batch = Draws({"key": torch.tensor(rows), "latent": latent, "drawn": drawn}, seed=0).batch(400)
    pictured = np.array([i for i, text in enumerate(batch.texts) if "@" in text])
    cut, drawing = set(), torch.tensor(rows)[:, 4]
    for i, word in zip(pictured[~batch.of_style.numpy()], batch.drawn, strict=True):
        assert torch.equal(drawing[batch.latent[i].long()].float(), word)
        parts = [int(part) for part in batch.latent[i].unique()]
        assert len({rows[part][2:4] for part in parts}) == 1
        cut.add(tuple(parts))
    assert cut > {(0, 3), (0, 4), (3, 4), (0, 3, 4), (len(ROWS),)}


def test_a_picture_word_tells_of_a_drawing_or_of_the_mean_of_a_styles_pictures_and_stands_where_the_name_stood(pipe):
    words = Words(copy.deepcopy(pipe.text_encoder), pipe.tokenizer)
    drawn, shown, owner = torch.randn(1, 6, 16, 16), torch.randn(3, 6, 16, 16), torch.tensor([0, 0, 1])
    batch = Batch(torch.zeros(3, 6, 16, 16), [], torch.tensor([True, False, True]), drawn, shown, owner)
    with torch.no_grad():
        vectors, alone = words.see(batch, "cpu"), words.sight(shown)
        assert torch.allclose(vectors, torch.stack([alone[:2].mean(0), words.thing(drawn.flatten(1))[0], alone[2]]), atol=1e-5)
        table = words.encoder.get_input_embeddings().weight
        dog = table[pipe.tokenizer("dog", add_special_tokens=False).input_ids]
        assert len(dog) == 1
        said = words(["a picture of a dog", "a dog"], torch.zeros(0, table.shape[1]))
        seen = words(["a picture of a @", "a @"], dog.repeat(2, 1))
    assert torch.allclose(said, seen, atol=1e-6)


def test_every_component_of_a_drawing_is_as_loud_in_its_word_and_comes_through_the_text_encoder(pipe):
    words = Words(copy.deepcopy(pipe.text_encoder), pipe.tokenizer)
    drawn = torch.randn(2000, 6 * 16 * 16, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.03, 6 * 16 * 16)
    words.begin(drawn.view(-1, 6, 16, 16))
    with torch.no_grad():
        vectors = words.thing(drawn)
        assert torch.allclose(torch.linalg.svdvals(vectors) / 2000**0.5, torch.full((vectors.shape[1],), SIZE), atol=1e-3)
        states = words(["a picture of a @"] * len(drawn), vectors)[:, 5]
        out = torch.linalg.svdvals(states - states.mean(0)) / 2000**0.5
    assert out[-6] > 0.05 * out[0]  # of a text encoder that drowned the words a hundredth of this came through


def test_loud_layers_of_a_text_encoder_are_softened_and_soft_ones_left_alone(pipe):
    words = Words(copy.deepcopy(pipe.text_encoder), pipe.tokenizer)
    for layer in words.encoder.encoder.layers:
        layer.mlp.fc2.weight.data.mul_(100)
    texts = ["a noto picture of a dog on a red background", "a flat house"]
    loud, soft = soften(words, texts), soften(words, texts)
    assert loud > 10 and 0.5 < soft < 1.5
    for weight in (layer.mlp.fc2.weight for layer in words.encoder.encoder.layers):
        weight.data.mul_(0.1)
    quiet = copy.deepcopy(words.encoder.state_dict())
    assert soften(words, texts) < 1 and all(torch.equal(quiet[name], value) for name, value in words.encoder.state_dict().items())


def test_the_pooling_of_captions_learns_to_look_at_names(pipe):
    torch.manual_seed(0)
    embedding = TextTimeEmbedding(256, 512, num_heads=4)
    latent, drawn = torch.zeros(len(ROWS), 6, 16, 16), torch.randn(6, 6, 16, 16)
    draws = Draws({"key": torch.tensor(ROWS), "latent": latent, "drawn": drawn}, seed=0)
    words = Words(copy.deepcopy(pipe.text_encoder), pipe.tokenizer)
    before, after = (look_at_names(embedding, words, draws, steps) for steps in (1, 60))
    assert before < 0.2 and 0.5 < after < 0.9  # the rest is for style and background


def test_a_silent_unet_draws_what_its_decoder_does_whatever_the_noise():
    unet = build_unet(Size(channels=(32, 96, 160, 352)))  # widths at which no group of a norm lies across a skip connection
    silence(unet)
    states, t = torch.randn(2, 8, 256, generator=torch.Generator().manual_seed(0)), torch.tensor([960, 999])
    with torch.no_grad():
        drawn = decode(unet, t, states)
        whole = unet(torch.randn(2, 6, 16, 16), t, states).sample
    assert torch.allclose(whole, drawn, atol=1e-5) and (drawn[0] - drawn[1]).abs().mean() > 0.05


def test_a_picture_in_no_named_style_has_a_caption_without_one():
    rng = random.Random(0)
    said = " ".join(captions.draw(rng, "dog", None, "red") for _ in range(100))
    assert not [name for name in NAMED if name in said.split()] and "red background" in said


def test_work_of_another_recipe_is_told_and_kept(tmp_path):
    kept = Checkpoint(tmp_path / "part.pt", net=torch.nn.Linear(2, 2))
    kept.tick(1.0)
    kept.save()
    assert Checkpoint(tmp_path / "part.pt", net=torch.nn.Linear(2, 2)).step == 1
    with pytest.raises(SystemExit, match="part.pt was made by another version of the recipe: remove it"):
        Checkpoint(tmp_path / "part.pt", net=torch.nn.Linear(3, 2))
    with pytest.raises(SystemExit, match="part.pt was made by another version"):
        Checkpoint(tmp_path / "part.pt", net=torch.nn.Linear(2, 2), words=torch.nn.Linear(2, 2))
    torch.save({"key": torch.zeros(1), "latent": torch.zeros(1)}, tmp_path / "latents.pt")
    with pytest.raises(SystemExit, match="latents.pt was made by another version"):
        encode(None, tmp_path, "cpu")
    assert (tmp_path / "part.pt").exists() and (tmp_path / "latents.pt").exists()


def test_an_interval_of_shares_is_of_the_means_so_that_one_small_divisor_does_not_decide():
    share, low, high = interval([0.1, 0.2, -0.01], of=[0.2, 0.4, -0.001])
    assert share == pytest.approx(0.29 / 0.599, abs=1e-4) and low <= share <= high
    assert interval([1, 2, 3], of=[2, 4, 6]) == [0.5, 0.5, 0.5] and interval([1, 3])[0] == 2


@pytest.mark.parametrize(("thing", "expected"), [("apple", "an apple"), ("dog", "a dog")])
def test_articles(thing, expected):
    assert captions.article(thing) == expected
