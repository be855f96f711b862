from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.generators.tiny_flow import write_flux
from tests.generators.tiny_stable_diffusion import load_tiny
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators import quantisation
from ti_pipeline.generators.quantisation import is_quantised, weight_bytes

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao: pip install 'ti-pipeline[quantise]'")


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flux(tmp_path_factory.mktemp("quantisation") / "flux")


def test_what_does_not_work_here_is_refused_before_anything_is_loaded(flux_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ti_pipeline.generators.loading._read", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ParamsError, match="nf4 does not work on cpu. Set it to int8 or fp8, or to null"):
        load_tiny(flux_folder, quantise="nf4")
    monkeypatch.setattr(quantisation, "find_spec", lambda name: None)
    with pytest.raises(ParamsError, match=r"int8 needs torchao. Install it: pip install 'ti-pipeline\[quantise\]'"):
        load_tiny(flux_folder, quantise="int8")


@needs_torchao
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_fewer_bytes_and_nearly_the_same_gradient(kind: str, flux_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "LARGE", 1)  # every text encoder
    both = {"encoders": ("clip_l", "t5")}
    whole, few = load_tiny(flux_folder, **both), load_tiny(flux_folder, quantise=kind, **both)
    assert few.arithmetic["quantised"] == kind and "quantised" not in whole.arithmetic
    assert {name: is_quantised(each) for name, each in few.networks.items()} == {
        "clip_l": True, "t5": True, "vae": False, "transformer": True,
    }  # fmt: skip
    assert {each.table.dtype for each in few.encoders.values()} == {torch.float32}
    for name in ("t5", "transformer"):
        network = few.networks[name]
        stored = 0
        for weight in (*network.parameters(), *network.buffers()):
            inner = [getattr(weight, each) for each in getattr(weight, "tensor_data_names", ())]
            stored += sum(each.nbytes for each in inner) if inner else weight.nbytes
        assert weight_bytes(whole.networks[name], kind) == pytest.approx(stored, rel=0.1)
    losses, gradients = zip(*(_learn(each) for each in (whole, few)), strict=True)
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    assert torch.nn.functional.cosine_similarity(*(each.flatten() for each in gradients), dim=0) > 0.98


def _learn(generator) -> tuple[torch.Tensor, torch.Tensor]:
    streams = torch.Generator().manual_seed(3)
    rows = {
        name: 0.1 * torch.randn(1, each.table.shape[1], generator=streams).requires_grad_() for name, each in generator.encoders.items()
    }
    rows = {name: row.detach().requires_grad_() for name, row in rows.items()}
    ids = generator.tokenise(["a photo of a <word>"], {"<word>": 1})
    z0, noise = (torch.randn(1, *generator.latent_shape, generator=streams) for _ in range(2))
    loss = generator.losses(z0, noise, torch.tensor([500]), generator.condition(ids, rows)).sum()
    return loss, torch.autograd.grad(loss, rows["t5"])[0]
