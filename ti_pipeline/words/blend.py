"""Words between two words."""

from __future__ import annotations

import torch

from ti_pipeline.errors import ParamsError
from ti_pipeline.words.word import Word


def between(first: Word, second: Word, share: float, token: str = "<between>") -> Word:
    """The word that is `share` [0, 1] of the way from one to the other, row by row along the arc between their directions (slerp, Shoemake
    1985); its norm goes from the one's to the other's in equal ratios. A straight line would pass through shorter vectors, which mean less.

    Raises ParamsError for words of other text encoders, or of other numbers of rows.
    """
    shapes = [{name: rows.shape for name, rows in word.rows.items()} for word in (first, second)]
    if shapes[0] != shapes[1]:
        raise ParamsError(f"{first.token} and {second.token} have different numbers of vectors, or were learnt for different models.")
    rows = {name: _between(first.rows[name], second.rows[name], share) for name in first.rows}
    return Word(token, rows, class_words=(first if share < 0.5 else second).class_words)


def _between(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    a, b = a.double(), b.double()
    norms = [rows.norm(dim=-1, keepdim=True) for rows in (a, b)]
    u, v = a / norms[0], b / norms[1]
    angle = torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True)) * 2  # exact for small angles too
    weights = torch.sin((1 - share) * angle), torch.sin(share * angle)
    straight = angle.sin().abs() < 1e-6  # the same direction, or opposite ones, between which no arc is the shortest
    on_arc = (weights[0] * u + weights[1] * v) / torch.where(straight, 1.0, angle.sin())
    direction = torch.where(straight, (1 - share) * u + share * v, on_arc)
    return (direction * norms[0] ** (1 - share) * norms[1] ** share).float()
