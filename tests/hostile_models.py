"""Model folders and files that write a file when any of their code runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import ViTConfig, ViTModel

TRAP = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import CLIPTokenizer, ViTImageProcessor, ViTModel, ViTConfig
class EvilModel(ViTModel): ...
class EvilConfig(ViTConfig): ...
class EvilProcessor(ViTImageProcessor): ...
class EvilTokenizer(CLIPTokenizer): ...
"""
VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32, "patch_size": 16}


class Pickled:
    """Runs when a pickle of it is read without care."""

    def __init__(self, mark: Path):
        self.code = f"open({str(mark)!r}, 'w').write('ran')"

    def __reduce__(self) -> tuple:
        return exec, (self.code,)


def change(path: Path, **entries: object) -> None:
    """Set entries of a JSON file, which is made where there is none."""
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | entries))


def trap(folder: Path, mark: Path) -> None:
    """A module `evil` in the folder."""
    (folder / "evil.py").write_text(TRAP.format(mark=str(mark)))


def judge(folder: Path) -> Path:
    """A harmless one."""
    torch.manual_seed(0)
    ViTModel(ViTConfig(**VIT)).save_pretrained(folder)
    change(folder / "preprocessor_config.json", image_processor_type="ViTImageProcessor", size={"height": 32, "width": 32})
    return folder


def pickled(safe: Path, path: Path, mark: Path) -> None:
    """A pickle with code in it in the place of the safetensors file."""
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "more": Pickled(mark)}, path)
    if safe != path:
        safe.unlink()


def ranker(package: Path, folder: Path) -> Path:
    """A harmless one, with a tokenizer of transformers'."""
    return Path(shutil.copytree(package / "ranker", folder))
