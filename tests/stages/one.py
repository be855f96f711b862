"""One concept of one stage, with the models that a test has in hand; what it falls out of is raised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ti_pipeline.concepts.concept import Concept
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.generators.families.stable_diffusion import FAMILY
from ti_pipeline.params import Params
from ti_pipeline.sight.likeness import Sight, not_another
from ti_pipeline.stages.evaluate import EVALUATE
from ti_pipeline.stages.gallery import GALLERY
from ti_pipeline.stages.generate import GENERATE
from ti_pipeline.stages.rank import RANK
from ti_pipeline.stages.reasons import read_all
from ti_pipeline.stages.stage import Lost, Progress, Run, Stage, silent
from ti_pipeline.stages.table import STAGES
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.stages.validate import VALIDATE, discovered
from ti_pipeline.workspace import Outcome, Workspace


@dataclass(frozen=True)
class Given:
    """As `Models`: those that are loaded already, and what a test has in the place of others."""

    generator: Any = None
    ranker: Any = None
    judge: Any = None
    embed: Any = None
    reader_if_there: Any = None
    choose_initializer: Any = None
    dino: Any = None
    likeness_by_clip: bool = True

    @property
    def source(self) -> Any:
        """What is asked of it: these models have one text encoder, which learns."""
        given = self.generator
        asked = {key: getattr(given, key, plain) for key, plain in (("name", ""), ("layers", 0), ("diffuses", True), ("file_digest", ""))}
        return SimpleNamespace(digest=given.digest, family=FAMILY, **asked)

    @property
    def ranker_digest(self) -> str:
        return self.ranker.digest

    @property
    def judge_digest(self) -> str:
        return self.judge.digest

    @property
    def sight_digest(self) -> str:
        return self.sight.digest

    @property
    def ranker_if_there(self) -> Any:
        return self.ranker

    @property
    def sight(self) -> Any:
        return Sight(self.ranker, self.dino, self.likeness_by_clip)

    @property
    def judge_ranks(self) -> str | None:
        return not_another(self.judge, self.sight) if self.dino else None


@dataclass(frozen=True)
class Digest:
    """All that is asked of a model by what has nothing for it to do."""

    digest: str


def one(stage: Stage, run: Run, slug: str) -> Outcome:
    plan = stage.plan(run, slug)
    if plan.stands and not run.force:
        return plan.stands
    (done,) = stage.work(run, [plan])
    if isinstance(done, Lost):
        raise done.error
    return done


def many(stage: Stage, run: Run, *slugs: str) -> tuple[dict[str, Outcome], dict[str, Exception]]:
    """Those that are done, and what the others fell out of; none of them stands."""
    made = list(stage.work(run, [stage.plan(run, slug) for slug in slugs]))
    return {o.concept: o for o in made if isinstance(o, Outcome)}, {o.concept: o.error for o in made if isinstance(o, Lost)}


def validate_one(workspace: Workspace, concept: Concept, params: Params, ranker: str = "", *, force: bool = False) -> Outcome:
    """Without looking for pictures that may not belong, and without a word of what later stages will say."""
    found = {discovered: {concept.slug: concept}}
    return one(VALIDATE, Run(workspace, params, Given(ranker=Digest(ranker)), force=force, known=found), concept.slug)


def train_one(
    workspace: Workspace, generator: Any, manifest: Manifest, params: Params, report: Progress = silent, *, force: bool = False
) -> Outcome:
    return one(TRAIN, Run(workspace, params, Given(generator), [manifest.slug], force, report), manifest.slug)


def generate_one(
    workspace: Workspace,
    generator: Any,
    manifest: Manifest,
    params: Params,
    report: Progress = silent,
    *,
    force: bool = False,
    clip: Any = None,
) -> Outcome:
    return one(GENERATE, Run(workspace, params, Given(generator, clip), [manifest.slug], force, report), manifest.slug)


def rank_one(
    workspace: Workspace, ranker: Any, manifest: Manifest, params: Params, report: Progress = silent, *, force: bool = False
) -> Outcome:
    return one(RANK, Run(workspace, params, Given(ranker=ranker), [manifest.slug], force, report), manifest.slug)


def evaluate_one(
    workspace: Workspace, models: tuple, manifest: Manifest, params: Params, report: Progress = silent, *, force: bool = False
) -> Outcome:
    """`models` are generator, ranker and judge."""
    return one(EVALUATE, Run(workspace, params, Given(*models), [manifest.slug], force, report), manifest.slug)


def build_page(workspace: Workspace, manifest: Manifest, params: Params, *, force: bool = False) -> Outcome:
    run = Run(workspace, params, Given(), [manifest.slug], force)
    GALLERY.begin(run)
    return one(GALLERY, run, manifest.slug)


def build_index(workspace: Workspace, params: Params, concepts: list[str]) -> Path:
    from ti_pipeline.gallery import overview

    GALLERY.begin(Run(workspace, params, Given()))
    return overview.build_index(workspace, params, concepts, read_all(workspace, STAGES.values()))
