"""The lines that put a learnt word into diffusers' stock pipeline, for people who use it there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

ENCODERS = ("clip_l", "clip_g", "t5")  # tensors of a word for several text encoders, in the order in which the library numbers those
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


def by_loader(token: str, encoders: Sequence[str], whole: bool, file: str) -> str:
    """For a pipeline that loads words. `encoders` are empty for a word of one text encoder; `whole` is whether its file has nothing else.

    A part is for the text encoder that the library has under the same number.
    """
    if not encoders and whole:
        return f'pipe.load_textual_inversion("{file}")'
    said = json.dumps(token, ensure_ascii=False)
    lines = ["from safetensors.torch import load_file", f'word = load_file("{file}")']
    if not encoders:
        lines.append(f"pipe.load_textual_inversion({{{said}: word[{said}]}})")
    for number, encoder in zip(("", "_2", "_3"), sorted(encoders, key=ENCODERS.index), strict=False):
        part = f'word["{encoder}"], token={said}'
        lines.append(f"pipe.load_textual_inversion({part}, text_encoder=pipe.text_encoder{number}, tokenizer=pipe.tokenizer{number})")
    return "\n".join(lines)


def by_hand(token: str, lengths: Mapping[str, int], tables: Mapping[str, str], initializer: str, file: str) -> str:
    """For a pipeline that loads no words: their rows are put behind the tables.

    `lengths` are the word's rows by the names of its tensors, `tables` the pipeline's text encoders by name. One for which the word has no
    rows is given a prompt of its own, with the `initializer` in the word's place.
    """
    said = json.dumps(token, ensure_ascii=False)
    lines = ["from safetensors.torch import load_file", "from transformers import AddedToken"]
    lines += [f'word, token = load_file("{file}"), {said}', _TEACH]
    prompts = []
    for name, part in tables.items():
        key = name if name in lengths else token
        if key in lengths:
            tokenizer = part.replace("text_encoder", "tokenizer") if part.startswith("text_encoder") else "tokenizer"
            lines.append(f"teach(word[{json.dumps(key, ensure_ascii=False)}], pipe.{tokenizer}, pipe.{part})")
        else:
            prompts.append(f", prompt{part.removeprefix('text_encoder')}={json.dumps(f'a photo of a {initializer}', ensure_ascii=False)}")
    whole = " ".join([token, *(f"{token}_{i}" for i in range(1, max(lengths.values())))])
    lines.append(f"# pipe({json.dumps(f'a photo of a {whole}', ensure_ascii=False)}{''.join(prompts)})")
    return "\n".join(lines)
