"""A workspace with everything that a page shows, made without a model: drawn pictures, and tables by the stages' own schemas."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import save_file

from tests.stages.one import build_index, build_page, validate_one
from ti_pipeline.candidates.files import PARAMETERS_KEY
from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT, concept_path, pictures_folder
from ti_pipeline.files import digest_file, write_json, write_table
from ti_pipeline.inversion.curve import SCHEMA as CURVE
from ti_pipeline.inversion.strip import write_strip
from ti_pipeline.params import Params, load
from ti_pipeline.ranking.select import rank_candidates
from ti_pipeline.stages import reasons
from ti_pipeline.words.export import read_rows
from ti_pipeline.workspace import MANIFESTS, Workspace

ROOT = Path(__file__).parents[2]
COUNT = 10
CLIP = "digest of a CLIP"
PROMPTS = ("a photo of a <toy>", "a sketch picture of a <toy> on a yellow background")


def small_params(**rank: Any) -> Params:
    params = load(ROOT / "params.yaml")
    return params.model_copy(update={"rank": params.rank.model_copy(update={"best": 4, **rank})})


def draw(number: int, size: int = 64) -> Image.Image:
    rng = np.random.default_rng(number)
    picture = Image.new("RGB", (size, size), tuple(rng.integers(120, 255, 3).tolist()))
    x, y = rng.integers(2, size // 2, 2).tolist()
    ImageDraw.Draw(picture).ellipse((x, y, x + size // 2, y + size // 2), fill=tuple(rng.integers(0, 160, 3).tolist()))
    return picture


def make_workspace(
    root: Path, slug: str = "toy", names: tuple[str, ...] = ("a.png", "b.png", "c.png"), settings: str = "token: <toy>\n", width: int = 32
) -> Workspace:
    """A validated concept of drawn pictures, with a word of two vectors."""
    workspace = Workspace.at(root, "concepts")
    folder = workspace.concepts / slug
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        draw(number, 200).save(folder / name)
    (folder / "concept.yaml").write_text(settings, encoding="utf-8")
    assert validate_one(workspace, load_concept(folder), small_params()).ok
    workspace.embedding(slug).parent.mkdir(parents=True)
    about = {"initializer": "ball", "steps": "300", "generator": "tiny"}
    save_file({"<toy>": np.ones((2, width), np.float32)}, workspace.embedding(slug), about)
    return workspace


def add_candidates(
    workspace: Workspace,
    slug: str = "toy",
    prompts: tuple[str, ...] = PROMPTS,
    size: int = 64,
    first: int = 10,
    count: int = COUNT,
    **texts: str,
) -> None:
    """Candidates and their ranking, drawn from number `first` on; `texts` replaces columns of either table."""
    rng = np.random.default_rng(7)
    recipes, ranked = [], []
    for index, prompt in enumerate(prompts):
        rows = []
        for candidate in range(count):
            path = workspace.candidates(slug) / f"{index:02d}-{candidate:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            recipe = {"seed": 1000 + candidate, "solver": "ddim", "steps": 25, "guidance_scale": 5.0, "negative_prompt": ""}
            said = f"Steps: 25, Sampler: ddim, CFG scale: 5, Seed: {recipe['seed']}, Size: {size}x{size}"
            (parameters := PngInfo()).add_text(PARAMETERS_KEY, f"{texts.get('prompt', prompt)}\n{said}")
            draw(100 * index + candidate + first, size).save(path, pnginfo=parameters)
            same = {"concept": slug, "brief_index": index, "brief": prompt, "prompt": prompt, "candidate": candidate, "file": path.name}
            rows.append({**same, "digest": digest_file(path)})
            recipes.append({**rows[-1], **recipe, "scoring_text": prompt, "width": size, "height": size, **texts})
        likeness, faithfulness = rng.normal(0.7, 0.05, count), rng.normal(0.28, 0.02, count)
        embeddings = rng.normal(size=(count, 32))
        embeddings[count // 2] = embeddings[count // 5]
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        for place in rank_candidates(likeness, faithfulness, embeddings, 0.5, 0.98):
            ranked.append(
                {
                    **rows[place.candidate],
                    "place": place.place,
                    "place_before": place.place_before,
                    "likeness": float(likeness[place.candidate]),
                    "faithfulness": float(faithfulness[place.candidate]),
                    "score": place.score,
                    "duplicate_of": place.duplicate_of,
                    "reason": place.reason,
                    "candidates": count,
                    **texts,
                }
            )
    for path, rows in ((workspace.candidate_table(slug), recipes), (workspace.ranking(slug), ranked)):
        write_table(path, rows, pa.Table.from_pylist(rows).schema, {"ranker_digest": CLIP})


def add_evaluation(workspace: Workspace, slug: str = "toy") -> None:
    def around(value: float) -> dict[str, float | int]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 64}

    values = {LEARNT: (0.71, 0.27), PICTURES: (0.87, 0.23), PROMPT: (0.56, 0.3)}
    report = {
        "embedding": digest_file(workspace.embedding(slug)),
        "setups": {name: {"reconstruction": around(like), "editability": around(edit)} for name, (like, edit) in values.items()},
        "gain_percent": {"value": 48.2, "low": 43.0, "high": 53.4, "n": 64},
        "clip_likeness": {PROMPT: 0.6, PICTURES: 0.8},
        "measured_by": {"reconstruction": {"judge": "a judge"}, "editability": {"clip": "a CLIP", "digest": CLIP}},
        "kept": [],
    }
    folder = pictures_folder(workspace, slug)
    folder.mkdir(parents=True, exist_ok=True)
    for number, (setup, text) in enumerate((s, t) for s in (LEARNT, PROMPT) for t in (None, "on a yellow background")):
        path = folder / f"{number:03d}.png"
        draw(int(digest_file(workspace.embedding(slug))[:6], 16) + number).save(path)
        report["kept"].append({"setup": setup, "text": text, "file": path.name, "digest": digest_file(path)})
    write_json(concept_path(workspace, slug), report)


def add_learning(workspace: Workspace, slug: str = "toy", chosen: int = 100) -> None:
    """A choice of a step and previews, under the word's own digest."""
    shares = {20: (0.1, 1.02), 100: (0.7, 0.8), 200: (0.95, 0.35), 300: (1.04, None)}
    rows = [
        {"step": step, "likeness": 0.6, "faithfulness": 0.3, "alike": alike, "faithful": faithful, "score": 0.0, "chosen": step == chosen}
        for step, (alike, faithful) in shares.items()
    ]
    word = workspace.embedding(slug)
    save_file(
        {"<toy>": np.ones((2, 32), np.float32)},
        word,
        {**read_rows(word, slug)[1], "fingerprint": "of the toy", "chosen_step": "100"},
    )
    write_table(workspace.curve(slug), rows, CURVE, {"fingerprint": "of the toy", "compromise": "0.6"})
    write_strip(workspace.strip(slug), {step: draw(step + 1) for step in (0, 100, 200, 300)}, "of the film")


def whole(root: Path) -> tuple[Workspace, Manifest]:
    workspace = make_workspace(root)
    add_candidates(workspace)
    add_evaluation(workspace)
    return workspace, read_manifest(workspace, "toy")


def collection(root: Path) -> tuple[Workspace, Params]:
    """Two concepts with pages, one of them with an earlier version and a questionnaire, and one in quarantine."""
    before = make_workspace(root / "before")
    save_file({"<toy>": np.zeros((2, 32), np.float32)}, before.embedding("toy"), {"initializer": "ball"})
    add_candidates(before, first=5000)
    add_evaluation(before)
    workspace, _ = whole(root / "now")
    add_learning(workspace)
    add_evaluation(workspace)
    make_workspace(root / "now", "ink", settings="token: <ink>\nkind: style\nowner: Studio Ö\n", width=768)
    add_candidates(workspace, "ink", ("a cat as <ink>",), first=900)
    (workspace.concepts / "broken").mkdir()
    (workspace.concepts / "broken" / "a.png").write_bytes(b"no picture")
    params = small_params()
    outcome = validate_one(workspace, load_concept(workspace.concepts / "broken"), params)
    assert not outcome.ok
    reasons.keep(workspace, MANIFESTS, outcome)
    against = {"last week": str(before.root)}
    params = params.model_copy(update={"gallery": params.gallery.model_copy(update={"against": against})})
    for slug in ("toy", "ink"):
        assert build_page(workspace, read_manifest(workspace, slug), params).ok
    build_index(workspace, params, ["toy", "ink", "broken"])
    return workspace, params


def copied(workspace: Workspace, to: Path) -> Path:
    """The galleries alone, somewhere else: what they need must have come along."""
    return Path(shutil.copytree(workspace.galleries, to / "elsewhere" / "galleries"))
