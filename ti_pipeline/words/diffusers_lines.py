"""The lines that put an exported word into diffusers' stock pipeline, for people who use it there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ti_pipeline.words.tools import KEYS
from ti_pipeline.words.word import ENCODERS, ONLY

_TEACH = """
def teach(rows, tokenizer, text_encoder):
    tokens = [token if i == 0 else f"{token}_{i}" for i in range(len(rows))]
    tokenizer.add_tokens([AddedToken(each, lstrip=True, normalized=False) for each in tokens])
    ids = tokenizer.convert_tokens_to_ids(tokens)
    if max(ids) >= len(text_encoder.get_input_embeddings().weight):
        text_encoder.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    text_encoder.get_input_embeddings().weight.data[ids] = rows.to(text_encoder.device, text_encoder.dtype)
    for part in text_encoder.modules():
        if getattr(part, "eos_token_id", None) == 2:  # a CLIP that would take the new token for the end of a prompt
            part.eos_token_id = tokenizer.eos_token_id
"""


def by_loader(token: str, encoders: Sequence[str], file: str) -> str:
    """For a pipeline that loads words. A part of the word is for the text encoder that the library has under the same number."""
    said = json.dumps(token, ensure_ascii=False)
    if list(encoders) == [ONLY]:
        return f'pipe.load_textual_inversion("{file}", token={said})'
    lines = ["from safetensors.torch import load_file", f'word = load_file("{file}")']
    for number, encoder in zip(("", "_2", "_3"), sorted(encoders, key=ENCODERS.index), strict=False):
        part = f'word["{encoder}"], token={said}'
        lines.append(f"pipe.load_textual_inversion({part}, text_encoder=pipe.text_encoder{number}, tokenizer=pipe.tokenizer{number})")
    return "\n".join(lines)


def by_hand(token: str, lengths: Mapping[str, int], tables: Mapping[str, str | None], initializer: str, file: str) -> str:
    """For a pipeline that loads no words: their rows are put behind the tables.

    `lengths` are the word's rows by text encoder, `tables` the pipeline's text encoders by name, None where this model has none. One for
    which the word has no rows is given a prompt of its own, with the `initializer` in the word's place.
    """
    lines = ["from safetensors.torch import load_file", "from transformers import AddedToken"]
    lines += [f'word, token = load_file("{file}"), {json.dumps(token, ensure_ascii=False)}', _TEACH]
    prompts = []
    for name, part in tables.items():
        if part is None:
            continue
        if name in lengths:
            tokenizer = part.replace("text_encoder", "tokenizer") if part.startswith("text_encoder") else "tokenizer"
            lines.append(f'teach(word["{KEYS[name]}"], pipe.{tokenizer}, pipe.{part})')
        else:
            prompts.append(f", prompt{part.removeprefix('text_encoder')}={json.dumps(f'a photo of a {initializer}', ensure_ascii=False)}")
    said = json.dumps(f"a photo of a {numbered(token, max(lengths.values()))}", ensure_ascii=False)
    lines.append(f"# pipe({said}{''.join(prompts)})")
    return "\n".join(lines)


def numbered(token: str, count: int) -> str:
    """What stands in a prompt for a word of so many rows, where the pipeline does not put in all of its tokens by itself."""
    return " ".join([token, *(f"{token}_{i}" for i in range(1, count))])
