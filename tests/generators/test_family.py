"""Which text encoders learn words, and from which noise levels: the family's own choice, or the settings'."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.generators.tiny_flow import write_flux, write_stable_diffusion_3
from tests.generators.tiny_language import write_z_image
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny
from tests.inversion.test_families import FAMILIES
from ti_pipeline import params
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.generators.family import families, learning, other_density, some_of
from ti_pipeline.generators.placeholder import check_prompt, encode, spell
from ti_pipeline.generators.reader import TokenizersAlone
from ti_pipeline.generators.source import Source, find_source
from ti_pipeline.models import Models
from ti_pipeline.words.word import ONLY, Word

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flux(tmp_path_factory.mktemp("generators") / "flux")


def test_each_family_has_a_choice_of_its_own(flux: Path, tmp_path: Path) -> None:
    with_t5, without = (find_source(generator_settings(write_stable_diffusion_3(tmp_path / f"{t5}", t5))) for t5 in (True, False))
    assert learning(with_t5, None) == some_of(with_t5, None) == ("clip_l", "clip_g")
    assert learning(with_t5, ["t5", "clip_l"]) == ("clip_l", "t5")
    assert learning(without, None) == ("clip_l", "clip_g") and some_of(without, None) == ()
    assert learning(find_source(generator_settings(flux)), None) == ("clip_l",)
    one = [family.name for family in families() if list(family.encoders(with_t5)) == [ONLY]]
    assert {"SANA", "Z-Image", "Qwen-Image", "latent diffusion"} < set(one)
    with pytest.raises(
        ParamsError, match=r"Stable Diffusion 3 model and has no text encoder 't5' to learn words\. Name some of clip_l, clip_g"
    ):
        learning(without, ["t5"])


def test_each_flow_has_a_density_of_its_own(flux: Path, folder: Path, tmp_path: Path) -> None:
    uniform, other = find_source(generator_settings(flux)), find_source(generator_settings(write_stable_diffusion_3(tmp_path / "sd3")))
    asked = (None, "uniform", "logit-normal")
    assert [other_density(uniform, density) for density in asked] == [None, None, "logit-normal"]
    assert [other_density(other, density) for density in asked] == [None, "uniform", None]
    assert load_tiny(flux, density="logit-normal").density == "logit-normal" and load_tiny(flux, density="uniform").density is None
    with pytest.raises(ParamsError, match="generator.density: .* learns from the timesteps of its schedule, all alike. Set it to null"):
        load_tiny(folder, density="uniform")
    assert load_tiny(folder).density is None


def test_a_wrong_name_is_refused_before_anything_is_loaded(flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = params.load(ROOT / "params.yaml", (f"generator.model={flux}", "generator.encoders=[clip_g]"))
    monkeypatch.setattr("ti_pipeline.generators.load.load_generator", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(ParamsError, match=r"generator\.encoders: flux is a FLUX\.1 .*'clip_g'.*some of clip_l, t5; null takes clip_l"):
        _ = Models(chosen, ROOT).source
    with pytest.raises(ParamsError, match="encoders"):
        params.load(ROOT / "params.yaml", ("generator.encoders=[]",))


def test_only_an_encoder_that_learns_refuses_a_long_prompt(flux: Path) -> None:
    source, prompt = find_source(generator_settings(flux)), f"a <x> {'red ' * 100}"
    check_prompt(TokenizersAlone(source, ("t5",)), "x", prompt, {"<x>": 1})
    for names in (("clip_l",), ("clip_l", "t5")):
        with pytest.raises(ConceptError, match="x: .*takes 104 tokens and flux reads 77"):
            check_prompt(TokenizersAlone(source, names), "x", prompt, {"<x>": 1})


def test_a_language_model_refuses_what_does_not_fit_into_its_template(tmp_path: Path) -> None:
    source: Source = find_source(generator_settings(write_z_image(tmp_path / "z")))
    reader = TokenizersAlone(source, (ONLY,))
    around = len("<|im_start|> user \n <|im_end|> \n <|im_start|> assistant \n".split(" "))
    check_prompt(reader, "x", "<x>" + " red" * (511 - around), {"<x>": 1})
    with pytest.raises(ConceptError, match="x: .*takes 513 tokens and z reads 512"):
        check_prompt(reader, "x", "<x>" + " red" * (512 - around), {"<x>": 1})


@pytest.mark.parametrize("name", ["xl", "sd3", "flux", "ldm", "sana", "z-image", "qwen-image"])
def test_how_wide_vectors_are_is_known_from_the_configuration(name: str, tmp_path: Path) -> None:
    folder = FAMILIES[name][0](tmp_path / name)
    source = find_source(generator_settings(folder))
    reader = TokenizersAlone(source, tuple(source.family.encoders(source)))
    loaded = load_tiny(folder).encoders
    assert {name: each.width for name, each in reader.learning.items()} == {name: each.table.shape[1] for name, each in loaded.items()}


@torch.no_grad()
def test_an_encoder_without_rows_reads_the_class_words(flux: Path) -> None:
    generator = load_tiny(flux)
    word = Word("<X>", {"clip_l": generator.encoders["clip_l"].table[[500]]}, class_words="red mug")
    heard, usual = encode(generator, ["my <x>, <x> on a moon"], {"<X>": word}), encode(generator, ["my red mug, red mug on a moon"], {})
    assert torch.equal(heard.parts["hidden"], usual.parts["hidden"]) and not torch.equal(heard.parts["pooled"], usual.parts["pooled"])
    ids, plain = generator.tokenise(["my <x>"], {"<x>": 1}, "mug"), generator.tokenise(["my mug"], {})
    assert torch.equal(ids["t5"], plain["t5"]) and ids["clip_l"].max() == len(generator.encoders["clip_l"].table)
    assert spell("a <b> and <B>", {"<B>": "c"}) == "a c and c" and spell("a", {}) == "a"
