"""What the headers of words' files say, read without their tensors, and without torch, which takes a second to import."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ti_pipeline.words.word import ADAPTER, ENCODERS


def word_fingerprint(path: Path) -> str:
    """The fingerprint that a word stands under; empty when there is none or the file cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("fingerprint", "")
    except (OSError, SafetensorError):
        return ""


def word_token(path: Path) -> str:
    """The one token in a safetensors file, by its header alone; empty where there is none, or several, or the file cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if not name.endswith("_out") and not name.startswith(ADAPTER)]  # noqa: SIM118
            if names and set(names) <= set(ENCODERS):
                return (file.metadata() or {}).get("token", "")
    except (OSError, SafetensorError):
        return ""
    return names[0] if len(names) == 1 else ""
