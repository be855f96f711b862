"""min-SNR, offset noise, masks and buckets: by the formulas written out, in company as alone, killed as undisturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import compute_snr
from PIL import Image
from torch.nn import functional as F

from tests.generators.tiny_flow import write_flux
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny, write_folder
from tests.inversion.one_concept import job_of
from tests.inversion.test_train import Killed, bits
from ti_pipeline import params
from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.manifest import Manifest, read_manifest, write_manifest
from ti_pipeline.concepts.validation import validate_concept
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.generators.source import find_source
from ti_pipeline.inversion.framing import Framing, bucket, buckets
from ti_pipeline.inversion.job import Waiting
from ti_pipeline.inversion.latents import encode_pictures
from ti_pipeline.inversion.leaves import Learning, Leaves
from ti_pipeline.inversion.objective import check_learning
from ti_pipeline.inversion.pack import losses_and_gradient, losses_only
from ti_pipeline.inversion.state import Trained
from ti_pipeline.inversion.train import train_pack
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Workspace

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]
SIZES = {"mug": [(96, 72), (72, 96), (80, 80)], "cup": [(96, 72), (96, 72)], "jug": [(120, 48), (64, 64), (48, 100)]}
ALL = ("train.fit=buckets", "train.min_snr=5", "train.noise_offset=0.1", "train.flip=true", "train.gradient_accumulation=2")
EACH = {"mug": ALL, "cup": ("train.fit=buckets",), "jug": ("train.fit=buckets", "train.masks=none", "train.steps=4")}
pytestmark = pytest.mark.usefixtures("one_thread")


def blob(size: tuple[int, int]) -> Image.Image:
    """White where it is left of the middle and above it."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1] // 2))
    return mask


@pytest.fixture
def shaped(workspace: Workspace, settings: Settings) -> Make:
    """Makes a concept whose pictures have SIZES, the first of them with a mask."""

    def make(slug: str) -> Manifest:
        folder = workspace.concepts / slug
        folder.mkdir(parents=True)
        for i, size in enumerate(SIZES[slug]):
            pixels = np.random.default_rng([i, len(slug), ord(slug[0])]).integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        blob(SIZES[slug][0]).save(folder / "0-mask.png")
        (folder / "concept.yaml").write_text("initializer: mug\n")
        concept, checks = load_concept(folder), settings().validate_
        write_manifest(workspace, concept, validate_concept(concept, checks, None), checks.background, "any")
        return read_manifest(workspace, slug)

    return make


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_loss_and_gradient_of_given_draws_are_those_of_the_formulas(
    prediction: str, tmp_path: Path, shaped: Make, settings: Settings
) -> None:
    """Stock modules, sample by sample: |w(target - said)|² under the mask, times min(SNR, 5) in terms of what the network says."""
    folder = write_folder(tmp_path / "model", prediction_type=prediction)
    generator, manifest, train = load_tiny(folder), shaped("mug"), settings(*ALL).train
    before = weight_digests(generator)
    job = job_of(generator, manifest, train, 3, "mug")
    draws = job.setup.draws(job.learner, 0, 6)
    leaves = Leaves([job.setup], [Learning.begun(job.one)], generator.device)
    losses, gradient = losses_and_gradient(generator, leaves, [draws], 2)
    assert weight_digests(generator) == before

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    words = pipe.text_encoder.get_input_embeddings().num_embeddings
    table = pipe.text_encoder.resize_token_embeddings(words + 1, mean_resizing=False).weight
    with torch.no_grad():
        table[words:] = job.one.leaves[ONLY]
    table.requires_grad_(True)
    streams, flips = job.subject.streams, job.subject.streams.uniform("flip", 0, 2, 6).tolist()
    assert set(flips) == {0, 1}
    plain = streams.normal("noise", 0, tuple(draws.noise.shape))
    torch.testing.assert_close(draws.noise, plain + 0.1 * streams.normal("offset", 0, (6, 4, 1, 1)))
    each = []
    for i, picture in enumerate(streams.rounds("picture", 0, 6, 3)):
        width, height = bucket(SIZES["mug"][picture], 64, 8)
        h, w = height // 8, width // 8
        z0, noise, t = draws.z0[i : i + 1, :, :h, :w], draws.noise[i : i + 1, :, :h, :w], draws.t[i : i + 1]
        said = pipe.unet(scheduler.add_noise(z0, noise, t), t, pipe.text_encoder(draws.ids[ONLY][i : i + 1])[0]).sample
        target = {"epsilon": noise, "sample": z0, "v_prediction": scheduler.get_velocity(z0, noise, t)}[prediction]
        snr = compute_snr(scheduler, t)
        by_time = snr.clamp(max=5) / {"epsilon": snr, "sample": 1, "v_prediction": snr + 1}[prediction]
        error = F.mse_loss(said, target, reduction="none").mean(dim=1)[0]
        if picture == 0:
            mask = Framing("crop", (0, 0, 0)).fitted(blob(SIZES["mug"][0]), (width, height)).resize((w, h), Image.Resampling.BOX)
            counts = torch.tensor(np.asarray(mask).copy()).float()
            counts = counts.flip(-1) if flips[i] else counts
            each.append(by_time * (error * counts).sum() / counts.sum())
        else:
            each.append(by_time * error.mean())
    expected = torch.cat(each).mean()
    torch.testing.assert_close(losses[0], expected.detach(), rtol=1e-4, atol=1e-6)
    (theirs,) = torch.autograd.grad(expected, table)
    torch.testing.assert_close(gradient[ONLY][0], theirs[words:], rtol=1e-3, atol=1e-7)


def test_a_picture_is_seen_at_its_own_shape(generator: Generator) -> None:
    assert buckets(512, 8) == buckets(512, 16) and {(512, 512), (576, 448), (448, 576), (1024, 256)} <= set(buckets(512, 8))
    for edge, grid in ((512, 8), (1024, 16), (1024, 32), (64, 8), (256, 8)):
        for width, height in buckets(edge, grid):
            assert width % grid == height % grid == 0 and 0.7 * edge**2 < width * height <= edge**2
    assert bucket((4000, 3000), 1024, 16) == (1152, 896) and bucket((100, 100), 512, 8) == (512, 512)
    assert bucket((9000, 100), 512, 8) == (1024, 256)
    wide = Image.new("RGB", (144, 112), (255, 0, 0))
    posteriors = encode_pictures(generator, [wide, wide.resize((64, 64))], Framing("buckets", (0, 0, 0)))
    assert [one.mean.shape[2:] for one in posteriors.sizes] == [(4, 7, 9), (4, 8, 8)] and posteriors.shape == (4, 8, 9)
    alone = generator.posterior(torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1).expand(1, 3, 56, 72))
    z0 = posteriors.sample([1, 0], torch.zeros(2, dtype=torch.int64), torch.zeros(2, 4, 8, 9))
    torch.testing.assert_close(z0[1, :, :7], alone.mean[0])
    assert not z0[1, :, 7:].any() and not z0[0, ..., 8:].any()


def test_masks_are_fitted_with_their_picture_and_count_one_on_average(generator: Generator) -> None:
    picture = Image.new("RGB", (128, 64))
    for fit, left in (("squash", slice(0, 4)), ("crop", slice(0, 4)), ("pad", slice(0, 4))):
        mask = Image.new("L", (128, 64))
        mask.paste(255, (0, 0, 64, 64))
        framing = Framing(fit, (0, 0, 0), flip=True)
        (one,) = encode_pictures(generator, [picture, picture], framing, [mask, None]).sizes
        weight, mirrored = one.weight[0, :, 0]
        torch.testing.assert_close(weight.mean(), torch.tensor(1.0))
        assert weight[3, left].min() > 1.5 and weight[3, 5:].max() < 0.1 and torch.equal(mirrored, weight.flip(-1))
        assert (weight[0] == 0).all() == (fit == "pad")  # beyond the picture nothing counts
        assert torch.equal(one.weight[1], torch.ones(2, 1, 8, 8))
    gone = Image.new("L", (128, 64))
    gone.paste(255, (0, 0, 8, 64))  # cut away with the edge
    assert torch.equal(encode_pictures(generator, [picture], Framing("crop", (0, 0, 0)), [gone]).sizes[0].weight[0, 0, 0], torch.ones(8, 8))


def test_what_is_left_at_its_default_changes_no_bit(generator: Generator, shaped: Make, settings: Settings) -> None:
    manifest = shaped("cup")

    def drawn(*how: str) -> tuple:
        job = job_of(generator, manifest, settings(*how).train, 0, "mug")
        draws = job.learner.draw(1, 4)
        leaves = Leaves([job.setup], [Learning.begun(job.one)], generator.device)
        return draws, losses_only(generator, leaves, [0], [draws]), job.key

    plain, masked, moved = drawn("train.masks=none"), drawn(), drawn("train.masks=none", "train.noise_offset=0.1")
    assert plain[0].weight is None and plain[0].extents is None
    assert torch.equal(plain[0].noise, masked[0].noise) and torch.equal(plain[0].z0, moved[0].z0)
    full = Image.new("L", (96, 72), 255)
    posteriors = encode_pictures(generator, [manifest.open(p) for p in manifest.pictures], Framing("crop", (0, 0, 0)), [full, full])
    job = job_of(generator, manifest, settings("train.masks=none").train, 0, "mug")
    draws = type(job.learner)(job.learner.streams, 1000, posteriors, job.learner.ids).draw(1, 4)
    leaves = Leaves([job.setup], [Learning.begun(job.one)], generator.device)
    assert draws.weight is not None and torch.equal(losses_only(generator, leaves, [0], [draws]), plain[1])
    assert len({plain[2], masked[2], moved[2]}) == 3 and not torch.equal(masked[1], plain[1])


def learn(
    generator: Generator, manifests: dict[str, Manifest], settings: Settings, checkpoint: Path, stop_at: int = 0, **each: tuple[str, ...]
) -> dict[str, Trained]:
    def waiting(slug: str) -> Waiting:
        train = settings("train.flip=true", "train.early_stopping=dvar", "train.evaluate_every=2", *each[slug]).train
        return Waiting(slug, train.steps, slug, lambda: job_of(generator, manifests[slug], train, 0, "mug"))

    calls = []

    def progress(*call: object) -> None:
        calls.append(call)
        if len(calls) == stop_at:
            raise Killed

    pack = settings("train.pack=2", "train.gradient_accumulation=2").train
    ended = list(train_pack(generator, [waiting(slug) for slug in each], pack, checkpoint, progress=progress))
    assert not [one.error for one in ended if one.error]
    return {one.concept: one.trained for one in ended}


def test_in_company_as_alone_and_killed_as_undisturbed(generator: Generator, shaped: Make, settings: Settings, tmp_path: Path) -> None:
    manifests = {slug: shaped(slug) for slug in EACH}
    together = learn(generator, manifests, settings, tmp_path / "together", **EACH)
    for slug, how in EACH.items():
        alone = learn(generator, manifests, settings, tmp_path / slug, **{slug: how})[slug]
        start = job_of(generator, manifests[slug], settings(*how).train, 0, "mug").one.leaves[ONLY]
        moved, expected = ((each.word.rows[ONLY] - start).flatten() for each in (together[slug], alone))
        assert F.cosine_similarity(moved, expected, dim=0) > 0.9999 and expected.norm() > 0.01
        np.testing.assert_allclose([row["loss"] for row in together[slug].log], [row["loss"] for row in alone.log], rtol=1e-3)
    with pytest.raises(Killed):
        learn(generator, manifests, settings, tmp_path / "killed", 4, **EACH)
    again = learn(generator, manifests, settings, tmp_path / "killed", **EACH)
    assert any(each.resumed_from for each in again.values())
    assert {slug: bits(each) for slug, each in again.items()} == {slug: bits(together[slug]) for slug in again}


def test_what_means_nothing_to_a_flow_is_refused_before_it_is_loaded(folder: Path, settings: Settings, tmp_path: Path) -> None:
    flow = find_source(generator_settings(write_flux(tmp_path / "flux")))
    for key, value in (("min_snr", "5"), ("noise_offset", "0.1")):
        train = settings(f"train.{key}={value}").train
        with pytest.raises(ParamsError, match=f"train.{key} .*, and flux follows a rectified flow"):
            check_learning(train, flow)
        check_learning(train, find_source(generator_settings(folder)))
    check_learning(settings().train, flow)
