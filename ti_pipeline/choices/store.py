"""Where choices and answers are kept: one append-only log each, in SQLite or PostgreSQL.

A decision is a row and no row is ever changed, so two people at the same time cannot overwrite each other; what holds is
the last row of each person for each picture. The row's number is the revision that a page asks for news with.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote, unquote

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
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
    inspect,
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
_setting = Table("setting", _tables, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False))
Row = TypeVar("Row", "Choice", "Answer")
PATIENCE = 20  # seconds for another writer
_ALONE = 0x7469_6368  # the number of PostgreSQL's lock under which tables are made


@dataclass(frozen=True)
class Choice:
    """One person's decision on one picture; `picture` is the start of the file's SHA-256, `stars` 0 to 5.

    `undoes` is the ticket of the decision that this one takes back, and is not kept.
    """

    concept: str
    picture: str
    person: str
    name: str
    flag: Flag
    stars: int
    at: str
    ticket: str
    revision: int = 0
    undoes: str | None = None

    @property
    def subject(self) -> tuple[str, str, str]:
        """Whose decision on what this is."""
        return self.concept, self.picture, self.person


@dataclass(frozen=True)
class Kept:
    """What became of decisions: the log's last revision, and which were refused because a newer one than they undo stands."""

    revision: int
    refused: tuple[str, ...] = ()  # tickets
    newer: tuple[Choice, ...] = ()


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
            if not url.startswith(("postgresql+", "sqlite:///")):
                raise ArgumentError
            if url.startswith("sqlite:///file:"):
                Path(unquote((make_url(url).database or "").removeprefix("file:"))).parent.mkdir(parents=True, exist_ok=True)
            elif url.startswith("sqlite:///"):
                Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self._engine: Engine = create_engine(url, pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _durable)
            there = inspect(self._engine).get_table_names()
            if not {_choice.name, _answer.name} <= set(there):
                self._make_tables()
        except ModuleNotFoundError as error:
            raise ParamsError(
                f"choices: {error.name} is needed for this database. Install it with `pip install 'ti-pipeline[postgresql]'`."
            ) from None
        except (ArgumentError, NoSuchModuleError, ValueError):
            raise ParamsError("choices: expected a URL such as sqlite:///choices.sqlite or postgresql://user@host/name.") from None
        except (SQLAlchemyError, OSError, TypeError) as error:
            reason = str(error.orig if isinstance(error, DBAPIError) else error)
            place = make_url(url).render_as_string(hide_password=True)
            raise ParamsError(f"choices: {place} cannot be opened: {reason}") from None

    def keep(self, choices: Iterable[Choice]) -> Kept:
        """Write decisions; they are on the disk when this returns. A ticket that is known is passed over.

        A decision that undoes one that is not its person's last on that picture is refused, and all others are kept.
        """
        choices = list(choices)
        with self._writing(_choice) as connection:
            fresh = _fresh(connection, _choice, choices)
            last = _last(connection, [choice for choice in choices if choice.undoes])
            kept, refused, newer = [], [], {}
            for choice in fresh:
                before = last.get(choice.subject)
                if choice.undoes and before and before != choice.undoes:
                    refused.append(choice.ticket)
                    newer[choice.subject] = before
                    continue
                last[choice.subject] = choice.ticket
                kept.append({name: value for name, value in asdict(choice).items() if name not in ("revision", "undoes")})
            if kept:
                connection.execute(insert(_choice), kept)
            standing = select(_choice).where(_choice.c.ticket.in_(newer.values())).order_by(_choice.c.revision)
            rows = [Choice(**row) for row in connection.execute(standing).mappings()] if newer else []
            return Kept(_revision(connection, _choice), tuple(refused), tuple(rows))

    def keep_answers(self, answers: Iterable[Answer]) -> int:
        """Write answers and return the last revision; they are on the disk when this returns."""
        with self._writing(_answer) as connection:
            rows = [asdict(answer) | {"places": " ".join(answer.places)} for answer in _fresh(connection, _answer, list(answers))]
            if rows:
                connection.execute(insert(_answer), rows)
            return _revision(connection, _answer)

    def key(self) -> bytes:
        """A random secret of this log, made when it is first asked for: 32 bytes."""
        wanted = select(_setting.c.value).where(_setting.c.name == "key")
        if not inspect(self._engine).has_table(_setting.name):
            self._make_tables()
        with self._writing(_setting) as connection:
            known = connection.scalar(wanted)
            if known is None:
                known = secrets.token_hex(32)
                connection.execute(insert(_setting), [{"name": "key", "value": known}])
            return bytes.fromhex(known)

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

    @contextmanager
    def _writing(self, table: Table) -> Iterator[Connection]:
        """A transaction of the only writer: a page that has seen revision n has seen every row before it."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _make_tables(self) -> None:
        """One at a time: of two servers that start together the second finds what the first has made."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_ALONE)))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            _tables.create_all(connection)


def _fresh(connection: Connection, table: Table, rows: list[Row]) -> list[Row]:
    """Those whose ticket is not known, each once."""
    known = set(connection.scalars(select(table.c.ticket).where(table.c.ticket.in_([row.ticket for row in rows]))))
    return list({row.ticket: row for row in rows if row.ticket not in known}.values())


def _last(connection: Connection, choices: list[Choice]) -> dict[tuple[str, str, str], str]:
    """The tickets that stand where these choices would."""
    if not choices:
        return {}
    columns = (_choice.c.concept, _choice.c.picture, _choice.c.person)
    among = [column.in_({getattr(choice, column.name) for choice in choices}) for column in columns]
    query = select(*columns, _choice.c.ticket).where(*among).order_by(_choice.c.revision)
    return {tuple(row[:3]): row.ticket for row in connection.execute(query)}


def _revision(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.max(table.c.revision))) or 0


def _durable(connection: Any, record: Any) -> None:
    """A commit is on the disk before it is answered, and readers do not wait for the writer."""
    connection.isolation_level = None  # the driver begins no transaction of its own: BEGIN IMMEDIATE comes from here
    connection.execute(f"PRAGMA busy_timeout={PATIENCE * 1000}")
    until = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:  # two at once on a fresh file: SQLite does not wait here, whatever busy_timeout says
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous=FULL")
