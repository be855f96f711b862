"""Numbers on their way from the device: kept there until they are read in bulk, because every reading waits for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ti_pipeline import params
from ti_pipeline.errors import ConceptError
from ti_pipeline.inversion.alarms import check_step
from ti_pipeline.inversion.seat import Seat
from ti_pipeline.inversion.stopping import has_converged

LOOK_EVERY = 25  # steps between readings on an accelerator


class Readings:
    """Collects losses, norms and evaluations of a pack; a reading moves them to the seats' states, raises alarms and ends trainings.

    When they are read changes no result: each concept's numbers are gone through in their order, and what came after its end
    is dropped.
    """

    def __init__(self, train: params.Train, bound: float, device: torch.device):
        self.train, self.bound, self.said = train, bound, ""
        self.every = 1 if device.type == "cpu" else LOOK_EVERY
        self._steps: list[tuple[list[Seat], list[int], list[float], torch.Tensor]] = []
        self._evaluations: list[tuple[list[Seat], list[int], torch.Tensor, torch.Tensor]] = []

    @property
    def due(self) -> bool:
        return len(self._steps) >= self.every

    def step(
        self, seats: Sequence[Seat], losses: torch.Tensor, norms: torch.Tensor, gradients: torch.Tensor, rates: Sequence[float]
    ) -> None:
        """What came of a step, [concepts] each: mean loss, norm of the longest vector, norm of the gradient, rate."""
        self._steps.append((list(seats), [seat.step for seat in seats], list(rates), torch.stack([losses, norms, gradients])))

    def evaluation(self, seats: Sequence[Seat], losses: torch.Tensor, rows: torch.Tensor) -> None:
        """Losses [concepts] of the evaluation batches, and the rows [concepts, n, d] that they are of."""
        self._evaluations.append((list(seats), [seat.step for seat in seats], losses, rows))

    def read(self) -> dict[str, ConceptError]:
        """Bring every seat's state up to its step; returns what went wrong, by concept."""
        flat = [values.flatten() for *_, values in self._steps]
        flat += [part.flatten() for *_, losses, rows in self._evaluations for part in (losses, rows)]
        numbers = iter(torch.cat(flat).cpu().split([len(part) for part in flat]) if flat else ())
        steps = [(seats, at, rates, next(numbers).view(3, -1)) for seats, at, rates, _ in self._steps]
        evaluated: dict[tuple[int, int], tuple[float, torch.Tensor]] = {}
        for seats, at, _, rows in self._evaluations:
            losses, words = next(numbers).tolist(), next(numbers).view_as(rows)
            for seat, step, loss, word in zip(seats, at, losses, words, strict=True):
                evaluated[id(seat), step] = loss, word
        self._steps.clear()
        self._evaluations.clear()
        faults: dict[str, ConceptError] = {}
        for seats, at, rates, values in steps:
            for seat, step, rate, (loss, norm, gradient) in zip(seats, at, rates, values.double().T.tolist(), strict=True):
                if seat.stopped or seat.job.concept in faults:
                    continue
                try:
                    check_step(seat.job.concept, step, loss, gradient, norm, self.bound)
                except ConceptError as error:
                    faults[seat.job.concept] = error
                else:
                    self._note(seat, step, [step, loss, norm, gradient, rate], evaluated.get((id(seat), step)))
        if steps:
            losses, norms, _ = steps[-1][3]
            who = f"{len(losses)} concepts" if len(losses) > 1 else steps[-1][0][0].job.concept
            self.said = f"{who}: loss {losses.mean():.4f}, norm {norms.max():.3g}"
        return faults

    def _note(self, seat: Seat, step: int, row: list[float], evaluated: tuple[float, torch.Tensor] | None) -> None:
        state, train = seat.state, seat.job.train
        state.step = step
        if evaluated:
            loss, word = evaluated
            if not state.losses or loss < min(state.losses):
                state.best = word[: len(state.rows)].clone()
            state.losses.append(loss)
            if has_converged(state.losses, train):
                seat.stopped = f"{train.early_stopping}: the evaluation loss has settled"
        if step % train.log_every == 0 or step == train.steps or seat.stopped:
            state.log.append(row)
