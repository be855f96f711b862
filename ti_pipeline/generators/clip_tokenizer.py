"""OpenAI CLIP's tokenizer, which ships with open_clip: Stable Diffusion's, and that of most tools that take words."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib import resources
from typing import Any

from transformers import CLIPTokenizer

CONTEXT = 77
START, END = "<|startoftext|>", "<|endoftext|>"
_MERGES = 48894  # of those in the file, the ones that CLIP took


def clip_tokenizer() -> CLIPTokenizer:
    """OpenAI CLIP's tokenizer of 49,408 words, from the merges in open_clip's package."""
    packed = resources.files("open_clip") / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1]
    merges: Any = [tuple(line.split()) for line in lines]  # its type says text, and text with a space is not taken
    alphabet = _byte_letters()
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(merge) for merge in merges), START, END]
    return of_pieces(pieces, merges, CONTEXT)


def of_pieces(pieces: Sequence[str], merges: Any, context: int) -> CLIPTokenizer:
    """A tokenizer of CLIP's kind for prompts of `context` tokens: `pieces` by their ids, `merges` as pairs, first ones first."""
    return CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
    )


def _byte_letters() -> list[str]:
    """A visible letter for each byte, in GPT-2's order (byte-level BPE; Radford et al. 2019)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + i) for i in range(len(hidden))]
