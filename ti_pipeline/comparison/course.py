"""How far a comparison is, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

Report = Callable[[int, int, str], None]
PICTURE = 14  # samples of a training that take as long as a picture in ten solver steps (two cores, 64 pixels)


@dataclass
class Course:
    """Work in samples of a training; `learnt` and `measured` are numbers of cells, done of all."""

    report: Report
    samples: int
    pictures: int
    lessons: int
    cells: int
    done: float = 0.0
    learnt: int = 0
    measured: int = 0
    began: float = field(default_factory=time.monotonic)

    def work(self, samples: float, text: str = "") -> None:
        """So much has been done since the last time."""
        self.done += samples
        total = max(self.samples + self.pictures * PICTURE, 1)
        said = [f"{self.learnt} of {self.lessons} words learnt, {self.measured} of {self.cells} measured"]
        if self.done and (left := (total / min(self.done, total) - 1) * (time.monotonic() - self.began)) >= 1:
            said.append(f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left")
        self.report(int(self.done), total, "; ".join(filter(None, (*said, text))))
