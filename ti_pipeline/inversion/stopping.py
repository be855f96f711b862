"""When a word has been learnt: DVAR (Voronov et al. 2023, arXiv 2302.04841, section 3.2) and the best vector so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ti_pipeline import params


def has_converged(losses: Sequence[float], train: params.Train) -> bool:
    """Whether var(last window) / var(all) < stop_ratio; `losses` of the fixed batch, one for each `evaluate_every` steps.

    False until there is more than one window's worth of them.
    """
    window = max(2, train.stop_window // train.evaluate_every)
    if len(losses) <= window:
        return False
    whole = np.var(losses)
    return bool(whole == 0 or np.var(losses[-window:]) / whole < train.stop_ratio)
