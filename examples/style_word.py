"""A word for a style: learnt from four toned prints whose captions say what is on them, it tones other things.

python -m examples.style_word
"""

from __future__ import annotations

from examples.lab import ROOT, Lab, told

THINGS = ("ship", "house", "cat", "hat", "tree", "bird", "bus", "mushroom")
EACH = 2


def main() -> None:
    lab = Lab.open("style_word", ROOT / "examples" / "concepts")
    (style,) = lab.learn("cyanotype")
    rows = [lab.shown("cyanotype")]
    for name, words in ((style.class_words, ()), (style.token, (style,))):
        drawn = [picture for thing in THINGS for picture in lab.draw(f"a {name} picture of a {thing} on a white background", words, EACH)]
        rows.append(drawn)
        print(f"likeness to the prints, drawn as {name}: {told(lab.likeness(drawn, 'cyanotype'))}")
    print(f"Rows: the prints; other things as {style.class_words}; the same as {style.token}. {lab.save('style_word', rows)}")


if __name__ == "__main__":
    main()
