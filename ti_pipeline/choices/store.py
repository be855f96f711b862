"""Where choices and answers are kept: one append-only log each, in SQLite or PostgreSQL.

A decision is a row and no row is ever changed, so two people at the same time cannot overwrite each other; what holds is
the last row of each person for each picture. The row's number is the revision that a page asks for news with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from ti_pipeline.errors import ParamsError

Flag = Literal["pick", "reject", ""]
_tables = MetaData()
_number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself only for its own INTEGER
_choice = Table(
    "choice",
    _tables,
    Column("revision", _number, primary_key=True, autoincrement=True),
    Column("ticket", String(64), nullable=False, unique=True),  # made by the page: a decision sent twice is kept once
    Column("concept", String(64), nullable=False, index=True),
    Column("picture", String(64), nullable=False),
    Column("person", String(64), nullable=False),
    Column("name", String(80), nullable=False),
    Column("flag", String(8), nullable=False),
    Column("stars", Integer, nullable=False),
    Column("at", String(32), nullable=False),
)
_answer = Table(
    "answer",
    _tables,
    Column("revision", _number, primary_key=True, autoincrement=True),
    Column("ticket", String(64), nullable=False, unique=True),
    Column("question", String(64), nullable=False),
    Column("person", String(64), nullable=False),
    Column("places", Text, nullable=False),  # identifiers of the pictures, best first, with spaces between
    Column("at", String(32), nullable=False),
)


@dataclass(frozen=True)
class Choice:
    """One person's decision on one picture; `picture` is the start of the file's SHA-256, `stars` 0 to 5."""

    concept: str
    picture: str
    person: str
    name: str
    flag: Flag
    stars: int
    at: str
    ticket: str
    revision: int = 0


@dataclass(frozen=True)
class Answer:
    """One person's order of the pictures of one question, best first."""

    question: str
    person: str
    places: tuple[str, ...]
    at: str
    ticket: str


def sqlite_url(path: Path) -> str:
    """The URL of a database in an absolute path. SQLite's own form, for in SQLAlchemy's a path ends at its first question mark."""
    return f"sqlite:///file:{quote(str(path))}?uri=true"


class Store:
    """A log by its URL: `sqlite:///path`, or `postgresql://user@host/name`. Raises ParamsError when it cannot be opened."""

    def __init__(self, url: str):
        if url.startswith(("postgresql://", "postgres://")):
            url = f"postgresql+pg8000://{url.partition('://')[2]}"
        try:
            if url.startswith("sqlite:///file:"):
                Path(unquote(make_url(url).database.removeprefix("file:"))).parent.mkdir(parents=True, exist_ok=True)
            elif url.startswith("sqlite:///"):
                Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self._engine: Engine = create_engine(url, pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _durable)
            _tables.create_all(self._engine)
        except ModuleNotFoundError as error:
            raise ParamsError(
                f"choices: {error.name} is needed for this database. Install it with `pip install 'ti-pipeline[postgresql]'`."
            ) from None
        except (ArgumentError, NoSuchModuleError):
            raise ParamsError("choices: expected a URL such as sqlite:///choices.sqlite or postgresql://user@host/name.") from None
        except (SQLAlchemyError, OSError) as error:
            reason = str(error.orig if isinstance(error, DBAPIError) else error)
            place = make_url(url).render_as_string(hide_password=True)
            raise ParamsError(f"choices: {place} cannot be opened: {reason}") from None

    def keep(self, choices: Iterable[Choice]) -> int:
        """Write decisions and return the last revision; they are on the disk when this returns."""
        return self._append(_choice, [{k: v for k, v in asdict(choice).items() if k != "revision"} for choice in choices])

    def keep_answers(self, answers: Iterable[Answer]) -> int:
        return self._append(_answer, [asdict(answer) | {"places": " ".join(answer.places)} for answer in answers])

    def news(self, since: int = 0, limit: int = 5000) -> list[Choice]:
        """Decisions after revision `since`, oldest first."""
        query = select(_choice).where(_choice.c.revision > since).order_by(_choice.c.revision).limit(limit)
        with self._engine.connect() as connection:
            return [Choice(**row) for row in connection.execute(query).mappings()]

    def standing(self) -> list[Choice]:
        """The last decision of each person for each picture; those that were taken back are left out."""
        last = select(func.max(_choice.c.revision)).group_by(_choice.c.concept, _choice.c.picture, _choice.c.person)
        query = select(_choice).where(_choice.c.revision.in_(last)).order_by(_choice.c.revision)
        with self._engine.connect() as connection:
            rows = [Choice(**row) for row in connection.execute(query).mappings()]
        return [choice for choice in rows if choice.flag or choice.stars]

    def answers(self) -> list[Answer]:
        """The last answer of each person to each question."""
        last = select(func.max(_answer.c.revision)).group_by(_answer.c.question, _answer.c.person)
        query = select(_answer).where(_answer.c.revision.in_(last)).order_by(_answer.c.revision)
        with self._engine.connect() as connection:
            return [Answer(row.question, row.person, tuple(row.places.split()), row.at, row.ticket) for row in connection.execute(query)]

    def close(self) -> None:
        self._engine.dispose()

    def _append(self, table: Table, rows: list[dict[str, Any]]) -> int:
        with self._engine.begin() as connection:
            # one writer at a time: a page that has seen revision n has seen every row before it
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            tickets = [row["ticket"] for row in rows]
            known = set(connection.scalars(select(table.c.ticket).where(table.c.ticket.in_(tickets))))
            fresh = list({row["ticket"]: row for row in rows if row["ticket"] not in known}.values())
            if fresh:
                connection.execute(insert(table), fresh)
            return connection.scalar(select(func.max(table.c.revision))) or 0


def _durable(connection: Any, record: Any) -> None:
    """A commit is on the disk before it is answered, and readers do not wait for the writer."""
    connection.isolation_level = None  # the driver begins no transaction of its own: BEGIN IMMEDIATE comes from here
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=20000")
