"""Connections and transactions: the only file that knows which database is underneath.

``store.store.open_store`` makes a ``Database``; the store's parts take a transaction from it. There
are three kinds of transaction, because they promise different things:

- ``read``: one consistent view of everything; cannot write.
- ``write``: for what the API acknowledges to a user. Durable before it returns, even if the power
  fails.
- ``observe``: for what reconcilers saw. Survives ``kill -9`` of every process of ours; the last
  moments may be lost when the whole machine loses power.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import IntEnum
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    func,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from tramontane.base.errors import InvalidRequest, Unsupported

BUSY_TIMEOUT_MS = 10_000
_QUIET: dict[str, Any] = {"hide_parameters": True}
"""A failed statement is logged with its error, which must not quote the rows it was to write."""
Insert = sqlite.Insert | postgresql.Insert


class Turn(IntEnum):
    """What one replica at a time may do. PostgreSQL's advisory locks: numbers that stay."""

    MIGRATION = 7_265_616_770_001
    LEDGER = 7_265_616_770_002


def sqlite_url(path: Path) -> URL:
    """Return the URL of a database file."""
    return URL.create("sqlite", database=str(path))


def parse_url(text: str) -> URL:
    """Return the URL of a PostgreSQL database, as users write it: ``postgresql://…``."""
    # The text may hold a password, so no message repeats it.
    try:
        url = make_url(text)
    except (ValueError, ArgumentError) as error:
        raise InvalidRequest("the database URL cannot be read", path="database") from error
    if url.get_backend_name() in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database:
        return url.set(drivername="sqlite")
    raise InvalidRequest(
        "the database URL must begin with postgresql:// or sqlite:///", path="database"
    )


class Database:
    """One database, shared by all threads of the process."""

    def __init__(self, url: URL) -> None:
        self._sqlite = url.get_backend_name() == "sqlite"
        if self._sqlite:
            self._make_file_private(Path(url.database or ""))
            # SQLite has one writer at a time and makes the others poll; a lock makes them queue.
            self._turn: AbstractContextManager[Any] = threading.Lock()
            # What is acknowledged to a user has to survive power loss: FULL syncs every commit.
            # Observations may use NORMAL: in WAL mode it loses nothing when processes die, and
            # after a power loss the instances that were observed are gone as well.
            self._write = _sqlite_engine(url, "BEGIN IMMEDIATE", "synchronous = FULL", pool=1)
            self._observe = _sqlite_engine(url, "BEGIN IMMEDIATE", "synchronous = NORMAL", pool=1)
            self._read = _sqlite_engine(url, "BEGIN", "query_only = ON", pool=4)
        else:
            self._turn = nullcontext()
            engine = _postgresql_engine(url)
            self._write = self._observe = engine
            # READ COMMITTED would let two statements of one read see different moments.
            self._read = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded database."""
        return self._sqlite

    @contextmanager
    def read(self) -> Generator[Connection]:
        """Give one consistent view of everything."""
        with self._read.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Generator[Connection]:
        """Give a transaction that is durable, power loss included, when the block has ended."""
        with self._turn, self._write.begin() as connection:
            yield connection

    @contextmanager
    def observe(self) -> Generator[Connection]:
        """Give a transaction that survives the death of every process when the block has ended."""
        with self._turn, self._observe.begin() as connection:
            yield connection

    def take_turn(self, connection: Connection, turn: Turn) -> None:
        """Let one replica at a time pass, until its transaction ends."""
        if not self._sqlite:  # whose writers queue by themselves
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": turn.value})

    def day_of(self, moment: Column[float]) -> ColumnElement[str]:
        """Return the day of a moment in seconds since the epoch: ``2026-11-24``, in UTC."""
        # Words of the statement, no parameters: PostgreSQL would not know two for the same.
        if self._sqlite:
            return func.date(moment, text("'unixepoch'"))
        in_utc = func.timezone(text("'UTC'"), func.to_timestamp(moment))
        return func.to_char(in_utc, text("'YYYY-MM-DD'"))

    def insert(self, table: Table) -> Insert:
        """Return this dialect's INSERT, which both spell with the same ``on_conflict_…``."""
        return sqlite.insert(table) if self._sqlite else postgresql.insert(table)

    def close(self) -> None:
        """Close every idle connection."""
        for engine in (self._read, self._observe, self._write):
            engine.dispose()

    @staticmethod
    def _make_file_private(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its -wal and -shm files the mode of the database file.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)


def _sqlite_engine(url: URL, begin: str, pragma: str, *, pool: int) -> Engine:
    # Connections keep their own page cache, so a few are shared by many threads.
    engine = create_engine(url, pool_size=pool, max_overflow=0, pool_timeout=60, **_QUIET)
    event.listen(engine, "connect", _make_prepare(pragma))
    event.listen(engine, "begin", _make_begin(begin))
    return engine


def _make_prepare(pragma: str) -> Callable[[Any, ConnectionPoolEntry], None]:
    def prepare(connection: Any, _: ConnectionPoolEntry) -> None:
        # The driver's own BEGIN comes too late for a consistent read; ``_make_begin`` sends ours.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        _write_ahead(connection)
        for each in ("foreign_keys = ON", pragma):
            connection.execute(f"PRAGMA {each}").fetchall()

    return prepare


def _write_ahead(connection: sqlite3.Connection) -> None:
    # Alone among statements this one, where it changes a new file, fails instead of waiting when
    # another process or thread does the same.
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # noqa: TID251 - there is nothing to wait for but time
        else:
            return


def _make_begin(statement: str) -> Callable[[Connection], None]:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin


def _postgresql_engine(url: URL) -> Engine:
    try:
        return create_engine(
            url, pool_size=4, max_overflow=8, pool_timeout=60, pool_pre_ping=True, **_QUIET
        )
    except ImportError as error:
        raise Unsupported(
            "PostgreSQL needs a driver; install it with: pip install 'tramontane[postgresql]'"
        ) from error
