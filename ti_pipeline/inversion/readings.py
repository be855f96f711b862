"""Numbers on their way from the device: kept there until they are read in bulk, because every reading waits for the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from ti_pipeline.errors import ConceptError
from ti_pipeline.inversion.alarms import check_step
from ti_pipeline.inversion.seat import Seat
from ti_pipeline.inversion.stopping import has_converged

Tensors = Mapping[str, torch.Tensor]
At = tuple[int, int]  # a seat's id and a step
LOOK_EVERY = 25  # steps between readings on an accelerator


class Readings:
    """Collects losses, norms and evaluations of a pack; a reading moves them to the seats' states, raises alarms and ends trainings.

    `bounds` are the largest norms that rows may have, by text encoder. When the numbers are read changes no result: each concept's are
    gone through in their order, and what came after its end is dropped.
    """

    def __init__(self, bounds: Mapping[str, float], device: torch.device):
        self.bounds, self.said = bounds, ""
        self.every = 1 if device.type == "cpu" else LOOK_EVERY
        self._steps: list[_Step] = []
        self._evaluations: list[_Evaluation] = []
        self._kept: list[_Kept] = []

    @property
    def due(self) -> bool:
        return len(self._steps) >= self.every

    def step(self, seats: Sequence[Seat], losses: torch.Tensor, gradients: torch.Tensor, rates: Sequence[float], leaves: Tensors) -> None:
        """What came of a step: mean losses and norms of the gradients, [concepts] on the device, and rates; and the leaves after it."""
        norms = [_longest(leaves[name]) if name in leaves else torch.zeros_like(losses) for name in self.bounds]
        self._steps.append(_Step(list(seats), [seat.step for seat in seats], list(rates), torch.stack([losses, gradients, *norms])))

    def evaluation(self, seats: Sequence[Seat], losses: torch.Tensor, leaves: Sequence[Tensors]) -> None:
        """Losses [concepts] of the evaluation batches, and copies of the leaves that they are of."""
        self._evaluations.append(_Evaluation(list(seats), [seat.step for seat in seats], losses, list(leaves)))

    def keep(self, seats: Sequence[Seat], leaves: Sequence[Tensors]) -> None:
        """Copies of leaves that are to be kept as they are after the step just made."""
        self._kept += [_Kept(seat, seat.step, each) for seat, each in zip(seats, leaves, strict=True)]

    def read(self) -> dict[str, ConceptError]:
        """Bring every seat's state up to its step; returns what went wrong, by concept."""
        steps, evaluated, kept = self._take()
        faults: dict[str, ConceptError] = {}
        for each, values in steps:
            for seat, step, rate, numbers in zip(each.seats, each.steps, each.rates, values.double().T.tolist(), strict=True):
                concept, (loss, gradient, *norms) = seat.job.concept, numbers
                if seat.stopped or concept in faults:
                    continue
                try:
                    for norm, bound in zip(norms, self.bounds.values(), strict=True):
                        check_step(concept, step, loss, gradient, norm, bound)
                except ConceptError as error:
                    faults[concept] = error
                else:
                    if (id(seat), step) in kept:
                        seat.state.kept[step] = kept[id(seat), step]
                    _note(seat, [step, loss, max(norms), gradient, rate], evaluated.get((id(seat), step)))
        if steps:
            each, (losses, _, *norms) = steps[-1]
            who = f"{len(losses)} concepts" if len(losses) > 1 else each.seats[0].job.concept
            self.said = f"{who}: loss {losses.mean():.4f}, norm {torch.stack(norms).max():.3g}"
        return faults

    def _take(self) -> tuple[list[tuple[_Step, torch.Tensor]], dict[At, tuple[float, Tensors]], dict[At, Tensors]]:
        """All that was collected, on the CPU: the device is waited for once. Evaluations and what is kept by seat and step."""
        flat = [each.values.flatten() for each in self._steps]
        for evaluation in self._evaluations:
            flat += [evaluation.losses, *(leaf.flatten() for leaves in evaluation.leaves for leaf in leaves.values())]
        flat += [leaf.flatten() for each in self._kept for leaf in each.leaves.values()]
        numbers = iter(torch.cat(flat).cpu().split([len(part) for part in flat]) if flat else ())
        steps = [(each, next(numbers).view_as(each.values)) for each in self._steps]
        evaluated: dict[At, tuple[float, Tensors]] = {}
        for each in self._evaluations:
            losses = next(numbers).tolist()
            for seat, step, loss, leaves in zip(each.seats, each.steps, losses, each.leaves, strict=True):
                evaluated[id(seat), step] = loss, _like(leaves, numbers)
        kept = {(id(each.seat), each.step): _like(each.leaves, numbers) for each in self._kept}
        self._steps, self._evaluations, self._kept = [], [], []
        return steps, evaluated, kept


@dataclass(frozen=True)
class _Step:
    seats: list[Seat]
    steps: list[int]
    rates: list[float]
    values: torch.Tensor


@dataclass(frozen=True)
class _Evaluation:
    seats: list[Seat]
    steps: list[int]
    losses: torch.Tensor
    leaves: list[Tensors]


@dataclass(frozen=True)
class _Kept:
    seat: Seat
    step: int
    leaves: Tensors


def _like(leaves: Tensors, numbers: Iterator[torch.Tensor]) -> Tensors:
    return {name: next(numbers).view_as(leaf).clone() for name, leaf in leaves.items()}


def _longest(rows: torch.Tensor) -> torch.Tensor:
    """The norm of each concept's longest row, [concepts]."""
    return rows.norm(dim=-1).flatten(1).amax(dim=1)


def _note(seat: Seat, row: list[float], evaluated: tuple[float, Tensors] | None) -> None:
    """Put a step's COLUMNS, and what the evaluation after it found, into the seat's state."""
    state, train = seat.state, seat.job.train
    state.step = step = int(row[0])
    if evaluated:
        loss, leaves = evaluated
        if not state.losses or loss < min(state.losses):
            state.best = leaves
        state.losses.append(loss)
        if has_converged(state.losses, train):
            seat.stopped = f"{train.early_stopping}: the evaluation loss has settled"
            state.kept[step] = leaves
    if step % train.log_every == 0 or step == train.steps or seat.stopped:
        state.log.append(row)
