"""What `import ti_pipeline as ti` offers: a workspace in the hands of a program or a notebook, over the same functions as the stages.

studio = ti.open("toys", {"train.steps": 500})
word = studio.learn("pictures/our mascot", initializer="toy")
studio.draw("a <our-mascot> on a blue background", 8)
studio.score(word)
ti.save(word, "our-mascot.safetensors")
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.concepts.settings import TOKEN
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.evaluation.report import concept_path, read_report
from ti_pipeline.params import Params
from ti_pipeline.params import load as load_params
from ti_pipeline.stages.evaluate import EVALUATE
from ti_pipeline.stages.gallery import GALLERY
from ti_pipeline.stages.generate import GENERATE
from ti_pipeline.stages.rank import RANK
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run, Stage
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.stages.validate import VALIDATE
from ti_pipeline.starter import starter
from ti_pipeline.studio.drawing import draw
from ti_pipeline.studio.drawn import Drawn
from ti_pipeline.studio.pictures import Says, Source, put
from ti_pipeline.studio.prompt import Known
from ti_pipeline.studio.score import Score
from ti_pipeline.studio.travel import show_at, take_away, take_in
from ti_pipeline.terminal import progress
from ti_pipeline.words.files import read_word, write_word
from ti_pipeline.words.learnt import load_own
from ti_pipeline.words.word import Word
from ti_pipeline.workspace import Outcome, Workspace

CONCEPTS = "data/concepts"
log = logging.getLogger(__name__)


class Sampling(TypedDict, total=False):
    """Keys of `generate` for one drawing; docs/params.md describes them."""

    solver: str
    steps: int
    guidance_scale: float
    negative_prompt: str
    batch_size: int | str


class Studio:
    """A workspace, its settings, and words that were loaded from elsewhere. Everything that it learns stands in the workspace, where the
    commands find it; a second call of the same does nothing again.

    Errors are those of the commands: ParamsError for a wrong call or setting, ConceptError for a concept that cannot go on.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        own = folder / "params.yaml"
        self._file = own if own.is_file() else starter() / "params.yaml"
        self._settings = dict(settings)
        if not own.is_file():
            self._settings.setdefault("concepts.folder", CONCEPTS)
        self.workspace = Workspace.at(folder, self.params.concepts.folder)
        self._loaded: dict[str, Word] = {}

    @property
    def params(self) -> Params:
        """The settings as they are now."""
        return self._changed({})

    def set(self, settings: Mapping[str, Any]) -> None:
        """Change settings for all that follows: `{"train.steps": 500}`."""
        self._changed(settings)
        self._settings |= settings

    def learn(self, source: Source, name: str | None = None, *, replace: bool = False, **says: Unpack[Says]) -> Word:
        """The word of a folder of pictures, or of a list of pictures and files under a `name`; `says` is what a `concept.yaml` says.

        They are copied into the workspace. Where other pictures stand under that name, `replace` says to put these in their place.
        """
        slug = put(self.workspace, source, name, says, replace)
        return self._learnt([slug], all_or_none=True)[slug]

    def learn_all(self, names: Iterable[str] | None = None) -> dict[str, Word]:
        """The words of all concepts of the workspace, or of those, in one pass; a warning names each that fell out."""
        return self._learnt(None if names is None else list(names), all_or_none=False)

    def draw(self, prompt: str, count: int | None = None, *, seed: int | None = None, **sampling: Unpack[Sampling]) -> Drawn:
        """`count` pictures of a prompt with any known words, the best first; what is not said is as in the settings."""
        more: dict[str, Any] = {f"generate.{key}": value for key, value in sampling.items()}
        more |= {"generate.candidates": count} if count is not None else {}
        more |= {"seed": seed} if seed is not None else {}
        with progress("draw") as step:
            return draw(Run.over(self.workspace, self._changed(more), report=step), prompt, self._known)

    __call__ = draw

    def score(self, word: Word | str) -> Score:
        """Likeness and editability of a word of this workspace: the word, its token, or the concept's name."""
        slug = self._concept(word)
        self._each(EVALUATE, [slug], all_or_none=True)
        report = read_report(concept_path(self.workspace, slug))
        assert report is not None
        return Score.of_report(read_manifest(self.workspace, slug).token, report)

    def export(self, word: Word | str, folder: Path | str, tool: str | None = None) -> dict[str, str]:
        """Write a word of this workspace for a tool, or for each that can use it, into `folder/TOOL`, as `ti-pipeline export` does.

        Returns by tool the lines that load it, or what is typed there.
        """
        return take_away(self.workspace, self._concept(word), Path(folder).expanduser(), tool)

    def bring_in(self, source: Path | str, name: str, *, replace: bool = False) -> Word:
        """The word in a file of another tool, a folder, or a repository on the hub, as a concept of this workspace, as `ti-pipeline
        import` makes one. Where there is a word of that name, `replace` says to put this one in its place."""
        take_in(self.workspace, self.params, str(source), name, replace)
        return self._learnt([name], all_or_none=True)[name]

    def publish(self, folder: Path | str, *words: Word | str) -> Path:
        """Draw and rank the briefs of words, or of all, build the gallery, and copy it to a folder that opens in a browser and that any
        web server can show. Returns its overview."""
        names = [self._concept(word) for word in words] or None
        for stage in (GENERATE, RANK, EVALUATE, GALLERY):
            names = [outcome.concept for outcome in self._each(stage, names, all_or_none=False)]
            if not names:
                raise ParamsError(f"{stage.name}: there is nothing to show. The warnings say why.")
        return show_at(self.workspace, Path(folder).expanduser())

    @property
    def words(self) -> dict[str, Word]:
        """Every word that a prompt may name, by its token."""
        found = (self._known.word(token) for token in self._known.tokens())
        return {word.token: word for word in found}

    def add(self, word: Word) -> Word:
        """Make a word known to prompts, in the place of one of the same token, for as long as this studio lives."""
        if not re.fullmatch(TOKEN, word.token):
            raise ParamsError(f"{word.token!r}: a prompt names a word as <our-mascot>. Load it with such a token.")
        self._loaded[word.token.lower()] = word
        return word

    def _concept(self, word: Word | str) -> str:
        """Whose word it is: the word, its token, or the concept's name."""
        name = word.token if isinstance(word, Word) else word
        if not name.startswith("<"):
            return name
        self._known.word(name.lower())
        if not (slug := self._known.concept(name.lower())):
            raise ParamsError(f"{name} was added by hand, and is no concept of this workspace. Learn it here, or bring it in.")
        return slug

    @property
    def _known(self) -> Known:
        return Known(self.workspace, self._loaded)

    def _changed(self, more: Mapping[str, Any]) -> Params:
        given = {**self._settings, **more}
        return load_params(self._file, [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()])

    def _learnt(self, names: list[str] | None, *, all_or_none: bool) -> dict[str, Word]:
        for stage in (VALIDATE, TRAIN):
            if names != []:
                names = [outcome.concept for outcome in self._each(stage, names, all_or_none=all_or_none)]
        manifests = [read_manifest(self.workspace, slug) for slug in names or ()]
        return {each.slug: load_own(self.workspace, each.slug, each.token, each.initializer) for each in manifests}

    def _each(self, stage: Stage, names: list[str] | None, *, all_or_none: bool) -> list[Outcome]:
        """Those that are done; what fell out is raised, or warned of."""
        with progress(stage.name) as step:
            outcomes = run_stage(stage, Run.over(self.workspace, self.params, names, report=step))
        for outcome in outcomes:
            if all_or_none and not outcome.ok:
                raise ConceptError(outcome.concept, outcome.reason)
            if outcome.reason:
                log.warning("%s: %s: %s", stage.name, outcome.concept, outcome.reason)
        return [outcome for outcome in outcomes if outcome.ok]


def open(folder: Path | str = ".", settings: Mapping[str, Any] | None = None) -> Studio:
    """The workspace in a folder, which is made where there is none. `settings` change single values, as `--set` does.

    Without a params.yaml there, the package's own counts, and concepts lie in `data/concepts`. Raises ParamsError.
    """
    root = Path(folder).expanduser()
    if root.exists() and not root.is_dir():
        raise ParamsError(f"{root} is a file. Give a folder.")
    if not root.absolute().parent.is_dir():
        raise ParamsError(f"{root.absolute().parent}: there is no such folder.")
    root.mkdir(exist_ok=True)
    return Studio(root, settings or {})


def load(path: Path | str, token: str | None = None) -> Word:
    """A word from a file of any layout that is read (docs/coming-from.md), under another token if one is given. Raises ParamsError."""
    path = Path(path).expanduser()
    word = read_word(path)
    name = token or (word.token if word.token.startswith("<") else f"<{word.token}>")
    return replace(word, token=name, class_words=word.class_words or path.stem.replace("-", " ").replace("_", " "))


def save(word: Word, path: Path | str) -> Path:
    """Write a word, with its provenance, as diffusers' `load_textual_inversion` reads it. A folder gets `learned_embeds.safetensors`."""
    path = Path(path).expanduser()
    path = path / "learned_embeds.safetensors" if path.is_dir() else path
    if path.suffix != ".safetensors":
        raise ParamsError(f"{path}: words are written as .safetensors.")
    write_word(path, word)
    return path
