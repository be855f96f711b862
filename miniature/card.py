"""The card: `python -m miniature.card` writes README.md from results.json, so that no figure in it is older than its measurement."""

from __future__ import annotations

import json
from pathlib import Path

from miniature import crowd
from miniature.evaluate import GUIDANCE, STEPS
from miniature.generator import TOGETHER
from miniature.icons import packages
from miniature.make import PACKAGE
from miniature.pictures import ARTISTS, HELD_OUT_ARTIST, HELD_OUT_STYLE, STYLES, things

HERE = Path(__file__).parent


def percent(values: list[float]) -> str:
    mean, low, high = (100 * v for v in values)
    return f"{mean:.3g} % ({low:.0f} to {high:.0f})"  # 99.5 is not all of them


def held(right: dict[str, list[float]]) -> str:
    return f"{percent(right['all'])}; techniques {100 * right['technique'][0]:.3g} %, artists {100 * right['artist'][0]:.3g} %"


def way(inversion: dict) -> str:
    return f"{percent(inversion['coverage'])}, median {100 * inversion['median_coverage']:.0f} %"


def figures(results: dict) -> list[tuple[str, str, str, str]]:
    """What was measured, what was aimed at, what came out, and the part of the evaluation that gives it."""
    rows = []
    if j := results.get("judge"):
        rows += [
            (f"judge: the style of real pictures of {j['things']} unseen things is right", "", percent(j["style"]), "judge"),
            ("judge: the nearest picture in another style shows the same thing", "", percent(j["thing_in_another_style"]), "judge"),
        ]
    if p := results.get("prompts"):
        rows += [
            ("of real pictures of 200 things in the style the nearest is the thing", "at least 60 %", percent(p["thing_first"]), "prompts"),
            ("… it is among the nearest five", "at least 85 %", percent(p["thing_in_five"]), "prompts"),
            ("of the thing's real pictures the nearest is the style", "at least 90 %", held(p["style_nearest"]), "prompts"),
            ("… of the styles' means, whatever the thing, the nearest is the style", "", held(p["style"]), "prompts"),
            ("the background is right", "at least 95 %", percent(p["background"]), "prompts"),
            ("judge's cosine of two different things, same seed", "low", f"{p['likeness_of_two_things_under_one_seed'][0]:.2f}", "prompts"),
        ]
    if v := results.get("vae"):
        mean, low, high = v["psnr"]
        rows.append(("autoencoder, unseen things", "at least 30 dB", f"{mean:.1f} dB ({low:.1f} to {high:.1f})", "vae"))
    if i := results.get("inversion"):
        nearest = i["style_nearest"]
        rows += [
            (f"{i['things']} held-out things, {i['steps']} steps: the way covered", "at least 60 %", way(i), "inversion"),
            ("… by real pictures, had the held-out artist drawn them", "", percent(i["coverage_by_another"]), "inversion"),
            ("better than the initializer", "at least 90 %", percent(i["better_than_initializer"]), "inversion"),
            ("of the thing's real pictures the nearest is the style", "at least 85 %", percent(nearest["technique"]), "inversion"),
            ("… of the styles' means, whatever the thing, the nearest is the style", "", percent(i["style"]["technique"]), "inversion"),
            ("… of the real pictures, where another artist was asked for by name", "", percent(nearest["artist"]), "inversion"),
            ("the background is the one that was asked for", "at least 85 %", percent(i["background"]), "inversion"),
        ]
    if a := results.get("artists"):
        rows += [
            ("the same, shown one drawing by each of four artists: the way covered", "", way(a), "artists"),
            ("… by real pictures, had the held-out artist drawn them", "", percent(a["coverage_by_another"]), "artists"),
            ("… better than the initializer", "", percent(a["better_than_initializer"]), "artists"),
            ("… of the thing's real pictures the nearest is the style", "", percent(a["style_nearest"]["technique"]), "artists"),
            ("… of the styles' means the nearest is the style", "", percent(a["style"]["technique"]), "artists"),
        ]
    if s := results.get("style"):
        rows += [
            ("held-out style: the way covered", "at least 60 %", f"{100 * s['coverage']:.0f} %", "style"),
            ("held-out style: the thing is still right", "at least 85 %", percent(s["thing"]), "style"),
            ("held-out style: the background is still right", "at least 85 %", percent(s["background"]), "style"),
            ("… learnt without captions: the way covered", "", f"{100 * s['coverage_uncaptioned']:.0f} %", "style"),
            ("… learnt without captions: the thing is still right", "", percent(s["thing_uncaptioned"]), "style"),
        ]
    if t := results.get("speed"):
        on = f"{t['threads']} threads"
        rows += [
            (f"loading, {on}", "at most 3 s", f"{t['loading_seconds']:.1f} s", "speed"),
            (f"a picture in 25 steps with guidance, {on}", "at most 0.7 s", f"{t['seconds_a_picture']:.2f} s", "speed"),
            (f"300 inversion steps of batch 4, {on}", "at most 30 s", f"{t['seconds_for_300_steps_of_batch_4']:.0f} s", "speed"),
        ]
    return rows


def parameters(folder: Path) -> list[tuple[str, float, float]]:
    """Name, millions of parameters and megabytes of every weight file."""
    out = []
    for file in sorted(folder.rglob("*.safetensors")):
        header = json.loads(file.read_bytes()[8 : 8 + int.from_bytes(file.read_bytes()[:8], "little")])
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        count = sum(_product(shape) for shape in shapes)
        out.append((file.stem if file.parent == folder else str(file.parent.relative_to(folder)), count / 1e6, file.stat().st_size / 1e6))
    return out


def _product(shape: list[int]) -> int:
    total = 1
    for edge in shape:
        total *= edge
    return total


def table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def main() -> None:
    results = json.loads((HERE / "results.json").read_text())
    lists = things()
    measured = [(what, aim, got, f"`python -m miniature.evaluate {part}`") for what, aim, got, part in figures(results)]
    weights = [(name, f"{count:.2f} M", f"{size:.1f} MB") for name, count, size in parameters(PACKAGE)]
    by_thing = results.get("inversion", {}).get("by_thing", {})
    worst = sorted(by_thing, key=lambda name: by_thing[name]["learnt"] - by_thing[name]["real"])
    learnt = [
        (
            name,
            row["initializer"],
            row["start"],
            row["learnt"],
            row["real"],
            f"{100 * row['coverage']:.0f} %" if row["real"] > row["start"] else "–",
        )
        for name, row in by_thing.items()
    ]
    text = (
        (HERE / "card.md")
        .read_text()
        .format(
            styles=", ".join(f"`{style}`" for style in STYLES),
            hands=", ".join(f"`{artist}`" for artist in ARTISTS if artist not in STYLES),
            held_out_style=HELD_OUT_STYLE,
            held_out_artist=HELD_OUT_ARTIST,
            together=TOGETHER,
            steps=STEPS,
            guidance=GUIDANCE,
            core=len(lists["core"]),
            more=len(lists["more"]),
            held_out=len(lists["held_out"]),
            names=", ".join(lists["held_out"]),
            sources=table(
                ("Style", "Package", "Licence", "Authors"),
                [(s, f"`{p.name}` {p.version}", p.licence, p.author) for s, p in (packages() | crowd.packages()).items()],
            ),
            weights=table(("Part", "Parameters", "Size"), weights),
            total=f"{sum(p[2] for p in parameters(PACKAGE)):.1f}",
            figures=table(("What", "Aim", "Measured", "Command"), measured),
            inversions=table(("Thing", "Initializer", "start", "learnt", "real", "way"), learnt),
            with_artists=percent(results["inversion"]["style_nearest"]["all"]) if "inversion" in results else "not measured",
            worst=", ".join(worst[:8]) or "not measured",
            wrong="; ".join(results.get("prompts", {}).get("wrong", [])) or "none",
            training=results.get("training", "not recorded"),
        )
    )
    (HERE / "README.md").write_text(text)


if __name__ == "__main__":
    main()
