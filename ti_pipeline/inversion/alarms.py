"""What must not happen in silence while a word is learnt."""

from __future__ import annotations

import math

from ti_pipeline.errors import ConceptError


def table_changed(concept: str, generator: str) -> ConceptError:
    """The vocabulary's digest is another than before: what has been learnt since cannot be relied on."""
    return ConceptError(concept, f"the vocabulary of {generator} was changed during training. Start again with a fresh one.")


def check_step(concept: str, step: int, loss: float, gradient: float, norm: float, bound: float) -> None:
    """Raise ConceptError on a loss or gradient that is no number, on no gradient at all, and on a norm beyond `bound`."""
    if not (math.isfinite(loss) and math.isfinite(gradient) and math.isfinite(norm)):
        raise ConceptError(
            concept,
            f"training broke down at step {step}: loss {loss}, gradient {gradient}, norm {norm}. "
            "Lower train.learning_rate, or set generator.precision to float32.",
        )
    if gradient == 0:
        raise ConceptError(
            concept,
            f"no gradient reached the learnt word at step {step}, so nothing can be learnt. "
            "Set generator.precision to float32; if it already is, the generator ignores its prompts.",
        )
    if norm > bound:
        raise ConceptError(
            concept,
            f"the learnt vector's norm is {norm:.3g} at step {step}, beyond {bound:.3g} (train.max_norm times that of the "
            "vocabulary's words): it has drifted away from them. Lower train.learning_rate or raise train.weight_decay.",
        )
