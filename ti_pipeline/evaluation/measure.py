"""What the stage `evaluate` measures: reconstruction and editability of one concept, with the two references that bracket them.

Setups, as in the paper's figure 10:
- textual inversion: samples of the learnt word.
- image only: the accepted pictures themselves are the samples; no picture is held against itself.
- prompt only: no learnt word. For editability the placeholder is left out of the prompt; for reconstruction, where
  nothing would be left, the initializer word stands in its place – what the generator could do before training.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.concepts.texts import PLACE, left_out
from ti_pipeline.errors import ConceptError
from ti_pipeline.evaluation.draw import Progress, Seen, Studio, draw_shared, sample_seed
from ti_pipeline.evaluation.metrics import DECIMALS, Estimate, alike, alike_among, editability, gain, mean_estimate
from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT, RULES, SETUPS
from ti_pipeline.files import atomic, digest_file, digest_value
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.placeholder import check_prompt, check_width
from ti_pipeline.params import Params
from ti_pipeline.sight.ranker import Ranker
from ti_pipeline.words.word import Word

Kept = tuple[str, str | None, Image.Image]  # its setup, the text that it is held against, None for likeness
RECONSTRUCTION = {"object": f"a photo of {PLACE}", "style": f"a picture in the style of {PLACE}"}


def measure(studio: Studio, manifest: Manifest, word: Word, params: Params, progress: Progress) -> tuple[dict[str, Any], list[Kept]]:
    """The report of one concept but for its fingerprint, and the pictures that are kept for the questionnaire.

    Raises ConceptError for a prompt or a word that the generator cannot take.
    """
    generator, ranker, judge, section = studio.generator, studio.ranker, studio.judge, params.evaluate
    _check(generator, manifest, word, params)
    seen = _look(studio, manifest, word, params, progress)
    report = {
        "concept": manifest.slug,
        "kind": manifest.kind,
        "token": manifest.token,
        "initializer": word.class_words,
        "measured_by": {
            "reconstruction": {"judge": judge.name, "digest": judge.digest},
            "editability": {"clip": ranker.name, "digest": ranker.digest, "why": RULES["why_clip"]},
        },
        "generator": {"name": generator.name, "digest": generator.digest},
        "embedding": word.digest,
        "rules": RULES,
        "reconstruction_prompt": RECONSTRUCTION[manifest.kind],
        "solver": section.solver,
        "steps": section.steps,
        "guidance_scale": section.guidance_scale,
        "seed": params.seed,
        **_measure(ranker, manifest, params, seen),
    }
    return report, seen["kept"]


def write_kept(folder: Path, kept: list[Kept]) -> list[dict[str, Any]]:
    """The pictures for the questionnaire, each with its setup and the text that it is held against, or None for likeness."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = []
    for number, (setup, text, picture) in enumerate(kept):
        path = folder / f"{number:03d}.png"
        with atomic(path) as temporary:
            picture.save(temporary, format="PNG")
        rows.append({"setup": setup, "text": text, "file": path.name, "digest": digest_file(path)})
    return rows


def _check(generator: Generator, manifest: Manifest, word: Word, params: Params) -> None:
    check_width(generator, manifest.slug, word)
    prompts = params.evaluate.prompts.get(manifest.kind)
    if not prompts:
        reason = f"there is no prompt to evaluate a {manifest.kind} with. Add some under evaluate.prompts.{manifest.kind}."
        raise ConceptError(manifest.slug, reason)
    for prompt in (RECONSTRUCTION[manifest.kind], *prompts):
        check_prompt(generator, manifest.slug, prompt.replace(PLACE, manifest.token), {manifest.token: len(word)})


def _look(studio: Studio, manifest: Manifest, word: Word, params: Params, progress: Progress) -> dict[str, Any]:
    """Everything that is measured, as embeddings: the set, and for both ways of sampling the neutral prompt and the others."""
    section, slug = params.evaluate, manifest.slug
    neutral, prompts = RECONSTRUCTION[manifest.kind], section.prompts[manifest.kind]
    n, each = section.samples, section.samples_per_prompt
    neutral_seeds = [sample_seed(params.seed, slug, neutral, i) for i in range(n)]
    prompt_seeds = [sample_seed(params.seed, slug, prompt, i) for prompt in prompts for i in range(each)]
    shared_seeds = tuple(sample_seed(params.seed, "", prompt, i) for prompt in prompts for i in range(each))
    total, done = 2 * n + 2 * each * len(prompts), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total, "drawing fresh samples")

    texts = [neutral.replace(PLACE, manifest.token)] * n + [neutral.replace(PLACE, word.class_words)] * n
    texts += [prompt.replace(PLACE, manifest.token) for prompt in prompts for _ in range(each)]
    left = [left_out(prompt) for prompt in prompts]
    starts = {0: (LEARNT, None), n: (PROMPT, None)} | {2 * n + k * each: (LEARNT, text) for k, text in enumerate(left)}
    named = {i + j: whose for i, whose in starts.items() for j in range(min(section.keep, n if whose[1] is None else each))}
    kept: list[Kept] = []

    def keep(index: int, picture: Image.Image) -> None:
        if index in named:
            kept.append((*named[index], picture))

    made = studio.draw(texts, {manifest.token: word}, neutral_seeds * 2 + prompt_seeds, step, keep)
    first = {k * each + j: text for k, text in enumerate(left) for j in range(min(section.keep, each))}
    without, drawn = draw_shared(studio, tuple(text for text in left for _ in range(each)), shared_seeds, step, frozenset(first))
    kept += [(PROMPT, first[i], drawn[i]) for i in sorted(first)]
    pictures = studio.look([manifest.open(picture) for picture in manifest.pictures]) if manifest.pictures else None
    by_prompt = [slice(k * each, (k + 1) * each) for k in range(len(prompts))]
    return {
        "kept": kept,
        "neutral": {LEARNT: made.part(slice(0, n)), PROMPT: made.part(slice(n, 2 * n)), PICTURES: pictures},
        "prompts": {
            LEARNT: [made.part(slice(2 * n + rows.start, 2 * n + rows.stop)) for rows in by_prompt],
            PROMPT: [without.part(rows) for rows in by_prompt],
            PICTURES: [pictures] * len(prompts),
        },
    }


def _measure(ranker: Ranker, manifest: Manifest, params: Params, seen: dict[str, Any]) -> dict[str, Any]:
    section, prompts = params.evaluate, params.evaluate.prompts[manifest.kind]
    left = [left_out(prompt) for prompt in prompts]
    texts = ranker.texts(left)
    pictures: Seen | None = seen["neutral"][PICTURES]  # None of a word that came without any
    among = alike_among(pictures.judged) if pictures and len(pictures.judged) > 1 else None
    rng = np.random.default_rng(int(digest_value(["bootstrap", params.seed, manifest.slug])[:16], 16))

    def likeness(name: str, samples: Seen | None) -> np.ndarray | None:
        return among if name == PICTURES else alike(samples.judged, pictures.judged) if samples and pictures else None

    def row(values: np.ndarray | None, parts: list[Seen | None], of: list[np.ndarray]) -> dict[str, Any]:
        if not all(parts):
            return {"reconstruction": None, "editability": None, "editability_per_sample": None}
        paper, code = editability([part.clip for part in parts if part], of, section.bootstrap, rng)
        mean = None if values is None else mean_estimate(values, section.bootstrap, rng)
        return {"reconstruction": _json(mean), "editability": _json(paper), "editability_per_sample": _json(code)}

    neutral = {name: likeness(name, seen["neutral"][name]) for name in SETUPS}
    setups = {name: row(neutral[name], seen["prompts"][name], list(texts)) for name in SETUPS}
    briefs = []
    for k, prompt in enumerate(prompts):
        parts = {name: seen["prompts"][name][k] for name in SETUPS}
        of_brief = {name: row(likeness(name, part), [part], [texts[k]]) for name, part in parts.items()}
        briefs.append({"prompt": prompt, "text": left[k], "setups": of_brief})
    low, learnt, rise = neutral[PROMPT], neutral[LEARNT], None
    if among is not None and low is not None and learnt is not None:
        rise = gain(low, learnt, float(among.mean()), section.bootstrap, rng)
    ends = {PROMPT: alike(seen["neutral"][PROMPT].clip, pictures.clip).mean() if pictures else None}
    ends[PICTURES] = None if among is None or pictures is None else alike_among(pictures.clip).mean()
    clip = {name: None if value is None else round(float(value), DECIMALS) for name, value in ends.items()}
    return {"setups": setups, "gain_percent": _json(rise), "clip_likeness": clip, "briefs": briefs, "pictures": len(manifest.pictures)}


def _json(estimate: Estimate | None) -> dict[str, float | int] | None:
    return estimate.to_json() if estimate else None
