"""How well a word was learnt, in two numbers with their intervals; in Jupyter a table."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ti_pipeline.evaluation.metrics import Estimate
from ti_pipeline.evaluation.report import LEARNT, PROMPT


@dataclass(frozen=True)
class Score:
    """`reconstruction` is the judge's mean cosine between fresh pictures and those that were learnt from, `editability` CLIP's between
    pictures of other prompts and what these say. `class_words` are the same two of the plain words that the word starts from."""

    token: str
    reconstruction: Estimate | None
    editability: Estimate | None
    class_words: tuple[Estimate | None, Estimate | None]

    @classmethod
    def of_report(cls, token: str, report: Mapping[str, Any]) -> Score:
        """From what the stage `evaluate` has written."""

        def read(setup: str, measure: str) -> Estimate | None:
            said = report["setups"][setup][measure]
            return Estimate(**said) if said else None

        own = (read(LEARNT, "reconstruction"), read(LEARNT, "editability"))
        return cls(token, *own, (read(PROMPT, "reconstruction"), read(PROMPT, "editability")))

    def __str__(self) -> str:
        return f"{self.token}: reconstruction {_told(self.reconstruction)}, editability {_told(self.editability)}"

    def _repr_html_(self) -> str:
        rows = [(self.token, self.reconstruction, self.editability), ("its class words", *self.class_words)]
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{_told(first)}</td><td>{_told(second)}</td></tr>" for name, first, second in rows
        )
        return f"<table><tr><th></th><th>reconstruction</th><th>editability</th></tr>{cells}</table>"


def _told(estimate: Estimate | None) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})" if estimate else "–"
