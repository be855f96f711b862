"""Textual inversion (Gal et al. 2022, arXiv 2208.01618)."""

from __future__ import annotations

from typing import Any

from ti_pipeline.inversion.setups.setup import Setup


class Plain(Setup):
    """v* = argmin_v E ‖ε − ε_θ(z_t, t, c_θ(y))‖² (eq. 2): `train.vectors` rows in the table of each text encoder, and nothing else."""

    def decisive(self) -> dict[str, Any]:
        """Nothing: words that were learnt when there was no other setup stand."""
        return {}
