from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import write_folder as write_published
from benchmarks.published import configuration_of
from benchmarks.report import RESULTS
from tests.generators.tiny_flow import write_flux, write_stable_diffusion_3
from tests.generators.tiny_language import write_qwen_image, write_sana, write_z_image
from tests.generators.tiny_latent_diffusion import write_folder as write_ldm
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny, write_folder
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from ti_pipeline.generators.configuration import write_parts
from ti_pipeline.generators.latent_model import LatentModel
from ti_pipeline.generators.quantisation import weight_bytes
from ti_pipeline.generators.source import Source, find_source
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.inversion.leaves import Learning, Leaves
from ti_pipeline.inversion.pack import losses_and_gradient
from ti_pipeline.inversion.setups.setup import Learnable
from ti_pipeline.params import load
from ti_pipeline.planning.footprint import Peak, drawing_bytes, hollow, training_bytes
from ti_pipeline.planning.outline import outline
from ti_pipeline.words.word import ONLY

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PARAMS = Path(__file__).parents[2] / "params.yaml"
TRAIN = load(PARAMS).train


def test_the_most_that_was_there_is_counted_and_what_is_gone_is_not() -> None:
    weight = torch.randn(1000, 1000)
    with Peak([weight]) as peak:
        x = torch.ones(10, 1000)  # 40,000 bytes
        for _ in range(5):
            x = x @ weight  # and as many again, of which the one before goes
        weight.view(-1)  # a view of what does not count
    assert (peak.most, peak.now) == (80_000, 40_000)


@pytest.mark.parametrize(
    ("write", "checkpointing"),
    [
        *((write, False) for write in (write_folder, write_xl, write_ldm, write_stable_diffusion_3, write_flux)),
        *((write, False) for write in (write_sana, write_z_image, write_qwen_image)),
        *((write, True) for write in (write_folder, write_flux, write_sana)),
    ],
)
def test_passes_without_content_take_what_those_with_it_do(write: Callable[[Path], Path], checkpointing: bool, tmp_path: Path) -> None:
    """Also where a family asks how many tokens its prompts have, which ids without content do not say."""
    folder = write(tmp_path / "model")
    settings = generator_settings(folder, checkpointing=checkpointing)
    real = load_tiny(folder, checkpointing=checkpointing)
    size = real.latents_of(96, 64)
    expected = training_bytes(real, 2, TRAIN), drawing_bytes(real, size, 2, 1, True)
    assert drawing_bytes(real, real.latent_shape, 2, 1, True) < expected[1]
    with hollow(outline(find_source(settings), settings, CPU), 1) as shapes:
        assert (training_bytes(shapes, 2, TRAIN), drawing_bytes(shapes, size, 2, 1, True)) == expected


@pytest.mark.parametrize(
    ("write", "overrides"),
    [
        (write_flux, ()),  # whose T5 does not learn, and keeps nothing
        (write_stable_diffusion_3, ()),
        (write_xl, ("train.setup=layered", "train.vectors=2")),  # which reads each prompt once for each layer
        (write_folder, ("train.setup=progressive+layered",)),
    ],
)
def test_a_plan_takes_what_a_training_step_does(write: Callable[[Path], Path], overrides: tuple[str, ...], tmp_path: Path) -> None:
    generator, train, batch = load_tiny(write(tmp_path / "model")), load(PARAMS, overrides).train, 2
    rows = train.chosen.rows(generator, train)
    leaves = {name: 0.02 * torch.randn(rows, each.table.shape[1]) for name, each in generator.learning.items()}
    learning = Leaves([train.chosen], [Learning.begun(Learnable(leaves, {"<word>": train.longest}))], CPU)
    ids = generator.tokenise(["a photo of a <word>"] * batch, {"<word>": train.longest})
    z0, noise = (torch.randn(batch, *generator.latent_shape) for _ in range(2))
    networks = generator.networks.values()
    with Peak(tensor for network in networks for tensor in (*network.parameters(), *network.buffers())) as peak:
        losses_and_gradient(generator, learning, [Draws(ids, torch.tensor([200, 700]), z0, noise)], 1)
    assert training_bytes(generator, batch, train) == pytest.approx(peak.most, rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize("write", [write_sana, write_z_image, write_qwen_image])
def test_a_language_model_without_content_reads_as_many_tokens(write: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    settings, vectors = generator_settings(folder), 40

    def read(generator: LatentModel) -> list[tuple[int, ...]]:
        encoder, width = generator.encoders[ONLY], generator.encoders[ONLY].table.shape[1]
        ids = generator.tokenise(["a photo of a <word>"] * 2, {"<word>": vectors})[ONLY]
        return [tuple(part.shape) for part in encoder.read_masked(ids, torch.zeros(vectors, width))]

    expected = read(load_tiny(folder))
    with hollow(outline(find_source(settings), settings, CPU), vectors) as shapes:
        assert read(shapes) == expected and expected[0][1] >= vectors


PUBLISHED_BYTES: dict[str, tuple[Callable[[Path], Path], dict[str, float]]] = {  # of weights in bfloat16, and of the VAE in float32
    "stable-diffusion-1.5": (write_folder, {"unet": 2 * 859.52e6, "vae": 334_643_276}),
    "latent-diffusion": (write_ldm, {"unet": 2 * 872.30e6, "text": 2 * (1.45e9 - 872.30e6)}),
    "stable-diffusion-xl": (write_xl, {"unet": 2 * 2.6e9, "clip_g": 1_389_382_176, "vae": 334_643_276}),
    "stable-diffusion-3.5-medium": (
        write_stable_diffusion_3, {"clip_l": 247_323_896, "clip_g": 1_389_382_176, "t5": 9_524_621_312, "vae": 335_304_388},
    ),
    "flux.1-dev": (write_flux, {"transformer": 23_802_932_552, "t5": 9_524_621_312, "vae": 335_304_388}),
    "sana-1.6b": (write_sana, {"transformer": 2 * 1604e6, "text": 5_228_683_776}),
    "z-image": (write_z_image, {"transformer": 12_309_817_472, "text": 8_044_936_192, "vae": 335_304_388}),
    "qwen-image": (write_qwen_image, {"transformer": 40_860_802_176, "vae": 2 * 253_806_246}),
}  # fmt: skip


@pytest.mark.parametrize("model", PUBLISHED_BYTES)
def test_at_full_width_a_plan_has_the_bytes_of_the_arithmetic(model: str, tmp_path: Path) -> None:
    """Weights take what the published files do (`test_published.py`), and a pass what autograd keeps of it for the way back and little
    more: counted tensor by tensor as it is kept, not by what was there at a time."""
    write, published = PUBLISHED_BYTES[model]
    folder = write(tmp_path / "model")  # for its small vocabularies
    write_parts(configuration_of(model), folder)
    source = Source(model, folder, "folder")
    settings = generator_settings(folder, precision="bfloat16", device="meta")  # with attention as it is on a GPU
    generator = source.family.load(source, settings)
    assert isinstance(generator, LatentModel)
    for name, size in published.items():
        assert weight_bytes(generator.networks[name], None) == pytest.approx(size, rel=0.02)
    kept: dict[int, int] = {}
    with hollow(generator, 1) as shapes:
        networks = shapes.networks.values()
        weights = {each.untyped_storage()._cdata for network in networks for each in (*network.parameters(), *network.buffers())}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            most = training_bytes(shapes, 1, TRAIN)
    assert sum(kept.values()) <= most < 1.1 * sum(kept.values())


def test_a_sample_takes_what_was_measured_on_a_gpu(tmp_path: Path) -> None:
    """Stable Diffusion 1.5 at full width, 512 pixels, bfloat16: a further sample of a pack within 10 %."""
    rows = {row["pack"]: row["memory MB"] for row in json.loads((RESULTS / "training-sd15.json").read_text())["rows"][2:]}
    measured = (rows[16] - rows[1]) / (15 * 4) * 2**20
    write_published("stable-diffusion-1.5", tmp_path, small=False)
    settings = generator_settings(tmp_path, precision="bfloat16")
    source = Source("sd15", tmp_path, "folder")
    generator = source.family.load(source, settings.model_copy(update={"device": "meta"}))  # with attention as it is on a GPU
    with hollow(generator, 1) as shapes:
        each = training_bytes(shapes, 2, TRAIN) - training_bytes(shapes, 1, TRAIN)
    assert each == pytest.approx(measured, rel=0.1)
