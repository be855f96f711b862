"""Between two words: the way along the sphere, and the straight one.

python -m examples.interpolation
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from examples.lab import ROOT, Lab
from ti_pipeline.words.blend import between
from ti_pipeline.words.word import Word

PAIRS = (("fox", "frog"), ("ladybug", "strawberry"))
SHARES = tuple(np.linspace(0, 1, 9))
EACH = 4
# Words of one length, of which only the direction was learnt: the way between them stays among such words.
DIRECTIONS = ("train.setup=direction", "train.learning_rate=0.3", "train.schedule=cosine", "train.steps=100")


def straight(first: Word, second: Word, share: float) -> Word:
    rows = {name: (1 - share) * first.rows[name] + share * second.rows[name] for name in first.rows}
    return replace(first, token="<between>", rows=rows)


def main() -> None:
    lab = Lab.open("interpolation", ROOT / "examples" / "concepts", DIRECTIONS)
    rows = []
    for pair in PAIRS:
        ends = lab.learn(*pair)
        for name, way in (("sphere", between), ("straight", straight)):
            drawn = [lab.draw("a picture of a <between> on a white background", [way(*ends, share)], EACH) for share in SHARES]
            rows.append([each[0] for each in drawn])
            for end in pair:
                print(f"{' to '.join(pair)}, {name}: likeness to {end}", *(f"{lab.likeness(each, end).value:.2f}" for each in drawn))
    print(f"Rows: each pair along the sphere, then straight; from left to right. {lab.save('interpolation', rows)}")


if __name__ == "__main__":
    main()
