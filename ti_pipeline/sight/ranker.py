"""The CLIP that orders candidates: pictures and texts to unit vectors."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.nn import functional as F

from ti_pipeline import params
from ti_pipeline.errors import ParamsError
from ti_pipeline.files import digest_file, digest_value
from ti_pipeline.foreign import nothing_asked, refuse_code, refuse_pickled_code
from ti_pipeline.model_files import check_whole, is_path
from ti_pipeline.sight.eyes import eyes_of
from ti_pipeline.sight.ranker_digest import keep_digest, loaded_from, ranker_folder
from ti_pipeline.tensor_file import digest_weights

BATCH = 64
CONFIG = "open_clip_config.json"
_WEIGHTS = (".safetensors", ".bin", ".pth")


@dataclass(frozen=True, eq=False)
class Ranker:
    """A frozen open_clip model in float32. `digest` covers weights, picture preparation and tokenizer files."""

    name: str
    digest: str
    device: torch.device
    model: open_clip.CLIP
    prepare: Callable[[Image.Image], torch.Tensor]
    tokenize: HFTokenizer | SimpleTokenizer

    def images(self, pictures: list[Image.Image]) -> np.ndarray:
        """L2-normalised embeddings of RGB pictures, float32 `[n, d]`."""
        return self._embed(pictures, lambda part: torch.stack([self.prepare(p) for p in part]), self.model.encode_image)

    def texts(self, texts: list[str]) -> np.ndarray:
        """L2-normalised embeddings of texts, float32 `[n, d]`; what is longer than the context is cut off."""
        return self._embed(texts, self.tokenize, self.model.encode_text)

    @cached_property
    def eyes(self) -> frozenset[str]:
        """As `eyes_of` says."""
        return eyes_of(self.model.visual)

    @property
    def context(self) -> int:
        """Tokens of a text that it reads, start and end included."""
        return self.model.context_length

    @property
    def pieces(self) -> Mapping[str, int]:
        """Its vocabulary: the id of each piece."""
        return self.tokenize.encoder if isinstance(self.tokenize, SimpleTokenizer) else self.tokenize.tokenizer.get_vocab()

    @property
    def table(self) -> torch.Tensor | None:
        """Vectors of these pieces [V, d], read and never written; None where the text encoder is not open_clip's own."""
        lookup = self._lookup
        return lookup.weight if lookup else None

    def read(self, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """L2-normalised embeddings [b, e] of ids [b, context]; `rows` [r, d] are the vectors behind the table, and gradients flow to
        them."""
        lookup = self._lookup
        assert lookup is not None
        words = len(lookup.weight)

        def replace(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
            return torch.where((ids >= words)[..., None], F.embedding((ids - words).clamp(min=0), rows), output)

        hook = lookup.register_forward_hook(replace)
        try:
            return F.normalize(self.model.encode_text(ids.masked_fill(ids >= words, 0)), dim=-1)
        finally:
            hook.remove()

    @property
    def _lookup(self) -> torch.nn.Embedding | None:
        return getattr(getattr(self.model, "text", self.model), "token_embedding", None)

    @torch.inference_mode()
    def _embed(self, items: list, prepare: Callable[[list], torch.Tensor], encode: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        if not items:
            raise ValueError("nothing to embed")
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            parts = [
                F.normalize(encode(prepare(items[i : i + BATCH]).to(self.device)).float(), dim=-1) for i in range(0, len(items), BATCH)
            ]
        return torch.cat(parts).cpu().numpy()


def load_ranker(settings: params.Ranker, device: torch.device | str) -> Ranker:
    """`miniature`, a folder with open_clip_config.json, or an open_clip name together with `pretrained`.

    Raises ParamsError that says what is wrong, what to download and where to put it.
    """
    files = loaded_from(settings)
    if folder := ranker_folder(settings):
        name = "miniature" if settings.model == "miniature" else folder.name
        ranker = _load(name, f"local-dir:{folder}", None, folder, device)
    else:
        _check_name(settings)
        ranker = _load(f"{settings.model}/{settings.pretrained}", settings.model, settings.pretrained, None, device)
    keep_digest(files, ranker.digest)
    return ranker


def _check_name(settings: params.Ranker) -> None:
    name, tag = settings.model, settings.pretrained
    known = open_clip.list_models()
    if name not in known and is_path(name):
        raise ParamsError(f"ranker.model: there is no folder at {name}. Put one with {CONFIG} and weights there, or give `miniature`.")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or ["ViT-B-32"]
        raise ParamsError(
            f"ranker.model: {name} is neither a folder nor a model that open_clip knows. Give `miniature`, "
            f"a folder with {CONFIG} and weights, or an open_clip name such as {', '.join(near)}."
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag is None:
        raise ParamsError(f"ranker.pretrained: {name} needs weights. Give a file with them, or one of {', '.join(tags) or 'nothing else'}.")
    if Path(tag).expanduser().is_file():
        _check_weights(Path(tag).expanduser(), "ranker.pretrained")
    elif not get_pretrained_cfg(name, tag):
        raise ParamsError(
            f"ranker.pretrained: {tag} is neither a file nor weights of {name} that open_clip knows. "
            f"Give a file, or one of {', '.join(tags) or 'nothing else'}."
        )


def _load(name: str, model_name: str, pretrained: str | None, folder: Path | None, device: torch.device | str) -> Ranker:
    if folder is not None:
        _check_folder(folder, name)
    if pretrained is not None and Path(pretrained).expanduser().is_file():
        pretrained = str(Path(pretrained).expanduser())
        name = f"{model_name}/{Path(pretrained).name}"
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)  # open_clip logs on the root logger what becomes an error's text here
    how = {"precision": "fp32", "device": device, "require_pretrained": True, "weights_only": True}
    try:
        with nothing_asked():
            model = open_clip.create_model(model_name, pretrained, **how)
            text = (open_clip.get_model_config(model_name) or {}).get("text_cfg", {})
            trust = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}  # other tokenizers know no such thing
            tokenize = open_clip.get_tokenizer(model_name, **trust)
    except Exception as error:
        raise ParamsError(_why_not(name, model_name, pretrained, error)) from None
    finally:
        root.setLevel(level)
    model = model.eval().requires_grad_(False)
    preparation = PreprocessCfg(**model.visual.preprocess_cfg)
    files = sorted(f for f in folder.iterdir() if f.suffix in (".json", ".txt")) if folder else []
    digest = digest_value(
        {
            "weights": digest_weights(model.state_dict()),
            "preparation": vars(preparation),
            "files": {f.name: digest_file(f) for f in files},
            "name": None if folder else model_name,
        }
    )
    return Ranker(name, digest, torch.device(device), model, image_transform_v2(preparation, is_train=False), tokenize)


def _check_folder(folder: Path, name: str) -> None:
    if name != "miniature":
        refuse_code(folder, "ranker.model")
    lacks = [] if (folder / CONFIG).is_file() else [CONFIG]
    lacks += [] if any(f.suffix in _WEIGHTS for f in folder.iterdir()) else ["open_clip_model.safetensors"]
    lacking = " and ".join(lacks)
    if lacks and name == "miniature":
        raise ParamsError(f"ranker.model: {folder} lacks {lacking}. The package is incomplete: install it again.")
    if lacks:
        raise ParamsError(
            f"ranker.model: {folder} lacks {lacking}. Put a folder there that open_clip's `push_to_hf_hub` or `hf download` wrote."
        )
    for file in folder.iterdir():
        if file.suffix in _WEIGHTS:
            _check_weights(file, "ranker.model")


def _check_weights(file: Path, setting: str) -> None:
    check_whole(file, setting)
    if file.suffix != ".safetensors":
        refuse_pickled_code(file, setting)


def _why_not(name: str, model_name: str, pretrained: str | None, error: Exception) -> str:
    cause = " ".join(str(error).split())[:300]
    source = get_pretrained_cfg(model_name, pretrained) if pretrained else None
    if not source:
        return f"ranker.model: {name} does not load: {type(error).__name__}: {cause}"
    repository = source.get("hf_hub", "").rstrip("/")
    where = f"https://huggingface.co/{repository}" if repository else source.get("url", "")
    return (
        f"ranker.pretrained: the weights {pretrained} of {model_name} are neither in the cache nor could they be downloaded ({cause}). "
        f"Where there is a network, download them from {where}, copy the file here and set ranker.pretrained to its path."
    )
