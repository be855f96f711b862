"""What a stage says about itself, what it is given, and what it plans for a concept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ti_pipeline.params import Params
from ti_pipeline.stages.collection import validated
from ti_pipeline.workspace import SLUG, Outcome, Workspace

if TYPE_CHECKING:
    from ti_pipeline.models import Models

T = TypeVar("T")
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, text: str) -> None:
    """The report of a run that nobody watches."""


@dataclass(frozen=True)
class Run:
    """One call of a stage: where, with what, over which concepts, and whom to tell how far it is.

    `names` None is the whole collection. `standing` are the plans of this call that are passed over, where concepts are worked on
    together. `report` takes what is done, of how much, and a text.
    """

    workspace: Workspace
    params: Params
    models: Models
    names: Sequence[str] | None = None
    force: bool = False
    report: Progress = silent
    standing: tuple[Plan, ...] = ()
    known: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def over(
        cls, workspace: Workspace, params: Params, names: Sequence[str] | None = None, *, force: bool = False, report: Progress = silent
    ) -> Run:
        """A run with the models of `params`, none of which is loaded before a stage asks for it."""
        from ti_pipeline.models import Models

        return cls(workspace, params, Models(params, workspace.root), names, force, report)

    @property
    def chosen(self) -> list[str]:
        """The concepts of the call, sorted: those that it names, or every one that has a manifest."""
        return sorted(set(self.names)) if self.names is not None else validated(self.workspace)

    def once(self, read: Callable[[Run], T]) -> T:
        """What `read` makes of this run, read when first asked for: for what every concept's plan looks into."""
        if read not in self.known:
            self.known[read] = read(self)
        return self.known[read]


@dataclass(frozen=True)
class Plan:
    """One concept of a stage: the digest that its output is to stand under, and what stands under it already.

    `order` is what the stage has read to plan it and need not read again. `unfinished`: it stands, and a killed run was about to do
    it again; it goes on, so that others have the company that they had.
    """

    concept: str
    fingerprint: str
    stands: Outcome | None
    order: Any = None
    unfinished: bool = False


@dataclass(frozen=True)
class Lost:
    """A concept that fell out of work on several, of `error`; `seconds` as those of an outcome."""

    concept: str
    error: Exception
    seconds: float = 0.0


@dataclass(frozen=True)
class Stage:
    """A step from files to files, over any number of concepts. All that others know about a stage stands here.

    `output` is its folder under `artifacts/`, which nothing else writes; `places` what of it is of one concept, with `{}` for the
    slug: a name with a suffix is a file, one without a folder. `last` is the one of a concept's files that is written last.

    `reads` are the outputs of other stages that it reads, `concepts` for the pictures, `choices` for what people chose; `needs`
    those of them that a concept must have come through. `sections` are the keys of `params.yaml` and `models` the models (`generator`,
    `reader`, `ranker`, `judge`) that it reads: `dvc.yaml` says the same, and a test holds it to that.

    `plan(run, concept)` says what is to be done for a concept; a ConceptError is its reason for falling out. `work(run, plans)` does
    it and yields each concept when it is done: one plan a call, or all of a call at once if `together`, whose outcomes have for their
    seconds each one's part in any unit. `hours` a concept are those after which a device hangs, on the slowest that makes sense.
    """

    name: str
    about: str
    output: str
    places: tuple[str, ...]
    last: Callable[[Workspace, str], Path]
    reads: tuple[str, ...]
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    models: tuple[str, ...]
    hours: float
    plan: Callable[[Run, str], Plan]
    work: Callable[[Run, Sequence[Plan]], Iterator[Outcome | Lost]]
    together: bool = False
    check: Callable[[Run], None] | None = None
    """Before the first of a run's stages, and before this one: raises ParamsError for what it could not do, or what could not be done with
    what it makes."""
    asked: Callable[[Params], bool] | None = None
    """Of a stage that a run of the whole chain does not do, because it takes hours and not everybody wants it: whether the params ask
    anything of it. Where they do not, it has nothing to do but to note that down; a run does that, so that the record is whole."""
    concepts: Callable[[Run], list[str]] | None = None
    """Which concepts a run is over; those that are validated, where a stage does not say."""
    begin: Callable[[Run], None] | None = None
    """Before all concepts; what it writes is of none of them."""
    remark: Callable[[Run, Outcome], Outcome] | None = None
    """What is to be said of a concept that is all right, and is in no output."""
    finish: Callable[[Run], object] | None = None
    """After all concepts; over the whole collection, whatever the run names."""
    scratch: tuple[str, ...] = ()
    """Folders under `artifacts/` for what saves time and changes no result. They are in no record, and may be gone."""
    holds: Callable[[Run], list[str]] | None = None
    """Names in `scratch` that nobody else may write meanwhile, beside those of the concepts."""
    withdraw: Callable[[Workspace, Collection[str]], None] | None = None
    """Remove from `scratch` what is of no concept of those."""

    def folder(self, workspace: Workspace) -> Path:
        return workspace.artifacts / self.output

    def own(self, workspace: Workspace, concept: str) -> list[Path]:
        """Everything that the stage writes for one concept, but for its reason."""
        return [self.folder(workspace) / place.format(concept) for place in self.places]

    def made(self, workspace: Workspace) -> set[str]:
        """Concepts of which the stage has written something, current or not."""
        found = set()
        for place in self.places:
            suffix = Path(place).suffix
            for path in self.folder(workspace).glob(place.format("*")):
                slug = path.name.removesuffix(suffix)
                if SLUG.fullmatch(slug) and path.is_dir() == (not suffix):
                    found.add(slug)
        return found
