"""Two learnt words in one prompt: a thing that the model has never seen in a style that it has never seen.

python -m examples.two_words
"""

from __future__ import annotations

from examples.lab import ROOT, Lab, told

THINGS = ("fox", "frog", "ladybug", "strawberry")
EACH = 4


def main() -> None:
    lab = Lab.open("two_words", ROOT / "examples" / "concepts")
    *things, style = lab.learn(*THINGS, "cyanotype")
    rows = []
    for thing, name in zip(things, THINGS, strict=True):
        plain = lab.draw(f"a picture of a {thing.token} on a white background", [thing], EACH)
        both = lab.draw(f"a {style.token} picture of a {thing.token} on a white background", [thing, style], EACH)
        other = lab.draw(f"a {style.token} picture of a {thing.class_words} on a white background", [style], EACH)
        rows.append([*plain, *both, *other])
        print(
            f"{thing.token} with {style.token}: likeness to the style's prints {told(lab.likeness(both, 'cyanotype'))}, without it "
            f"{told(lab.likeness(plain, 'cyanotype'))}; to the thing's pictures {told(lab.likeness(both, name))}, with "
            f"{thing.class_words!r} in its place {told(lab.likeness(other, name))}"
        )
    print(f"Columns: the thing's word; both words; the style's with the class word. {lab.save('two_words', rows)}")


if __name__ == "__main__":
    main()
