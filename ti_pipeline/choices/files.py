"""Choices as a page exports them, and where those of a workspace are."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ti_pipeline.choices.store import Answer, Choice, Flag, Store, sqlite_url
from ti_pipeline.errors import ParamsError
from ti_pipeline.workspace import Workspace

FORMAT = "ti-pipeline choices"
NAME = 80
_id = Field(pattern=r"^[0-9a-f]{16}$")
_slug = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
_key = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")


class ChoiceIn(BaseModel):
    """A decision as a page sends or exports it."""

    model_config = ConfigDict(extra="ignore")
    concept: str = _slug
    picture: str = _id
    flag: Flag
    stars: int = Field(ge=0, le=5)
    at: str = Field(max_length=32)
    ticket: str = _key
    person: str = _key
    name: str = Field(default="", max_length=NAME)

    def choice(self) -> Choice:
        return Choice(**self.model_dump())


class AnswerIn(BaseModel):
    """An answer to the questionnaire as a page sends or exports it."""

    model_config = ConfigDict(extra="ignore")
    question: str = _id
    places: list[str] = Field(min_length=2, max_length=9)
    at: str = Field(max_length=32)
    ticket: str = _key
    person: str = _key

    def answer(self) -> Answer:
        return Answer(self.question, self.person, tuple(self.places), self.at, self.ticket)


class Exported(BaseModel):
    """A file that a page writes."""

    format: str = Field(pattern=f"^{FORMAT}$")
    choices: list[ChoiceIn] = []
    answers: list[AnswerIn] = []


def default_url(workspace: Workspace) -> str:
    """Beside the artifacts, not in them: no stage made it."""
    return sqlite_url(workspace.root / "choices" / "choices.sqlite")


def read_exported(path: Path) -> Exported:
    """A file that came out of a page. Raises ParamsError."""
    try:
        return Exported.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read ({error}).") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise ParamsError(f"{path}: this is no file of choices that a gallery exported ({where}: {first['msg']}).") from None


def gather(workspace: Workspace, source: str | None) -> tuple[list[Choice], list[Answer]]:
    """What holds now, from a database's URL or an exported file; by default from the workspace's own database."""
    if source and "://" not in source:
        exported = read_exported(Path(source))
        choices = {(c.concept, c.picture, c.person): c.choice() for c in sorted(exported.choices, key=lambda c: c.at)}
        answers = {(a.question, a.person): a.answer() for a in sorted(exported.answers, key=lambda a: a.at)}
        return [c for c in choices.values() if c.flag or c.stars], list(answers.values())
    if not source and not (workspace.root / "choices" / "choices.sqlite").is_file():
        raise ParamsError(
            f"{workspace.root / 'choices'} holds no choices yet. Choose on `ti-pipeline gallery serve`, or give a file with --choices."
        )
    store = Store(source or default_url(workspace))
    try:
        return store.standing(), store.answers()
    finally:
        store.close()
