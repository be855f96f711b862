"""What a model sees with, for telling whether two are the same that come from different libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.tensor_file import digest_weights

if TYPE_CHECKING:
    from torch import nn


def eyes_of(network: nn.Module) -> frozenset[str]:
    """Digests of the convolutions through which it sees pixels: the same whatever library, file and precision they come from."""
    return frozenset(digest_weights({"": weight.half()}) for weight in network.parameters() if weight.ndim == 4)
