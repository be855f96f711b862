"""The tools that take a learnt word: how each wants its file, and what a person types there. One noun a tool.

What each does was read from its own source, and tried with it: A1111 c8a5322, Forge dfdcbab, ComfyUI a125cd8, InvokeAI 8e71a8a,
kohya's sd-scripts 48d368f, OneTrainer 23df383, diffusers 0.42; SwarmUI's was read only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ti_pipeline.words.word import ONLY

_ONE = frozenset({ONLY})
_TWO = frozenset({"clip_l", "clip_g"})
_THREE = frozenset({"clip_l", "clip_g", "t5"})
_WITH_T5 = frozenset({"clip_l", "t5"})
_WIDTHS = {ONLY: (768, 1024), "clip_l": (768,), "clip_g": (1280,), "t5": (4096,)}
KEYS = {ONLY: "emb_params", "clip_l": "clip_l", "clip_g": "clip_g", "t5": "t5"}  # that most tools read
DIFFUSERS = "diffusers"
_UNLOADED = {ONLY: 1280}  # the paper's own model: its pipeline in diffusers takes no words


@dataclass(frozen=True)
class Tool:
    """`name` as the command takes it, `title` as people say it. `typed` is what stands for the word in a prompt, with `{name}` for the
    file's name without its ending and `{token}` for the placeholder token; `note` says where the file goes.

    `encoders` are the sets of text encoders of the models that it can use with words, `keys` the names of the tensors that it reads, by
    text encoder. `any_width`: it takes models of every size, not only the published ones. `repository`: it is a folder for each word.
    """

    name: str
    title: str
    typed: str
    note: str
    encoders: tuple[frozenset[str], ...]
    keys: Mapping[str, str]
    any_width: bool = False
    repository: bool = False

    def takes(self, widths: Mapping[str, int]) -> bool:
        """Whether it can use a word with vectors of these widths, by text encoder."""
        if frozenset(widths) not in self.encoders:
            return False
        return dict(widths) != _UNLOADED if self.any_width else all(width in _WIDTHS[name] for name, width in widths.items())


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(DIFFUSERS, "diffusers", "{token}", "in the prompt", (_ONE, _TWO, _WITH_T5), KEYS, any_width=True),
        Tool("a1111", "A1111", "{name}", "in the prompt, with the file in embeddings/", (_ONE, _TWO), KEYS),
        Tool("forge", "Forge", "{name}", "in the prompt, with the file in embeddings/", (_ONE, _TWO), KEYS),
        Tool(
            "comfyui", "ComfyUI", "embedding:{name}", "in the prompt, with the file in models/embeddings/",
            (_ONE, _TWO, _THREE, _WITH_T5), {**KEYS, "t5": "t5xxl"},
        ),
        Tool("invoke", "InvokeAI", "<{name}>", "in the prompt, with the file added in the model manager", (_ONE, _TWO), KEYS),
        Tool("kohya", "kohya’s sd-scripts", "{name}", "in the prompt, with --textual_inversion_embeddings", (_ONE, _TWO), KEYS),
        Tool(
            "onetrainer", "OneTrainer", "{token}", "with the file as one more embedding of this placeholder",
            (_ONE, _TWO, _THREE, _WITH_T5), {**KEYS, ONLY: "emp_params"},
        ),
        Tool("swarmui", "SwarmUI", "<embed:{name}>", "in the prompt, with the file in Models/Embeddings/", (_ONE, _TWO), KEYS),
        Tool(
            "sd-concepts", "sd-concepts-library", "{token}", "in the prompt; the folder is for the hub, or for diffusers", (_ONE,), KEYS,
            any_width=True, repository=True,
        ),
    )
}  # fmt: skip


def tools_for(widths: Mapping[str, int], tables: Mapping[str, str | None]) -> list[Tool]:
    """Those that can use a word with vectors of these widths, by text encoder.

    `tables` are where diffusers' pipeline of the model has its vocabularies, None for a text encoder that others of its kind have; they are
    empty for a word that it loads by itself. Other tools know the model by its text encoders, so the word must have rows for each.
    """
    known = not tables or (ONLY not in tables and widths.keys() == tables.keys())
    return [tool for tool in TOOLS.values() if (tables and tool.name == DIFFUSERS) or (known and tool.takes(widths))]
