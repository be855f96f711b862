"""Choices as a page exports them, and where those of a workspace are."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ti_pipeline.choices.store import Answer, Choice, Flag, Store, sqlite_url
from ti_pipeline.errors import ParamsError
from ti_pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FORMAT = "ti-pipeline choices"
MOST = 200  # decisions or answers in one request
NAME = 80


def _writable(text: Any) -> Any:
    """A name without what a database or JSON cannot hold: half of an emoji that was cut off, a control character."""
    if not isinstance(text, str):
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text)


Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Time = Annotated[str, Field(pattern=r"^[A-Za-z0-9:.+ -]{0,32}$")]
Name = Annotated[str, Field(max_length=NAME), BeforeValidator(_writable)]


class ChoiceIn(BaseModel):
    """A decision as a page sends or exports it."""

    model_config = ConfigDict(extra="ignore")
    concept: Slug
    picture: Id
    flag: Flag
    stars: int = Field(ge=0, le=5, strict=True)
    at: Time
    ticket: Key
    person: Key
    name: Name = ""
    undoes: Key | None = None

    def choice(self) -> Choice:
        return Choice(**self.model_dump())


class AnswerIn(BaseModel):
    """An answer to the questionnaire as a page sends or exports it."""

    model_config = ConfigDict(extra="ignore")
    question: Id
    places: list[Id] = Field(min_length=2, max_length=9)
    at: Time
    ticket: Key
    person: Key

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
        raise ParamsError(f"{path}: this is not a file of choices that a gallery exported ({first_fault(error.errors())}).") from None


def first_fault(errors: Sequence[ErrorDetails]) -> str:
    """What pydantic found first, and where: `choices.3.stars: Input should be less than or equal to 5`. It repeats nothing of the input."""
    where = ".".join(str(part) for part in errors[0]["loc"] if part not in ("body", "query")) or "file"
    return f"{where}: {errors[0]['msg']}"


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
