"""Brings a database to the present tables, mostly by seeing that it is there already.

A new database gets them at once, as ``store.tables`` has them; a test holds these to be the very
tables that the steps would have made (docs/decisions/0010-new-databases-without-migrations.md).

``open_store`` calls ``migrate``. A process that has to stay small calls ``migrate_apart`` before:
the steps then run in a process of their own (``store.upgrade``) and leave nothing in memory here.
"""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

from sqlalchemy import (
    Column,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    inspect,
    select,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from tramontane.base.errors import Unavailable
from tramontane.store.database import Database, Turn, parse_url, sqlite_url
from tramontane.store.tables import METADATA

HEAD = "0012"
"""The newest step in ``store.migrations.versions``."""
APART_S = 600.0
VERSIONS = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Where Alembic keeps the step that a database is at, as Alembic makes it."""


def migrate(database: Database) -> None:
    """Run every step that the database has not seen yet, in this process."""
    if not _is_present(database):
        # Named as text on purpose: Alembic is loaded only where there is something to do.
        import_module("tramontane.store.upgrade").upgrade(database)


def migrate_apart(database: Path | str) -> None:
    """Run every step in a process of its own; raises ``Unavailable`` with its words if it fails."""
    url = sqlite_url(database) if isinstance(database, Path) else parse_url(database)
    opened = Database(url)
    try:
        if _is_present(opened):
            return
    except DBAPIError as error:
        raise _unreachable(url, error) from error
    finally:
        opened.close()
    ended = subprocess.run(
        [sys.executable, "-m", "tramontane.store.upgrade"],
        input=url.render_as_string(hide_password=False),
        capture_output=True,
        text=True,
        timeout=APART_S,
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise Unavailable(f"the database could not be prepared: {last}")


def _is_present(database: Database) -> bool:
    """Return whether no step is left to run, after making the tables of a new database."""
    if _read_revision(database) is None:
        _make_tables(database)
    return _read_revision(database) == HEAD


def _make_tables(database: Database) -> None:
    with database.write() as connection:
        database.take_turn(connection, Turn.MIGRATION)
        if inspect(connection).has_table(VERSIONS.name):
            return  # another replica was faster
        # Not checked first: tables of somebody else are an error, never taken for ours.
        METADATA.create_all(connection, checkfirst=False)
        VERSIONS.create(connection, checkfirst=False)
        connection.execute(VERSIONS.insert().values(version_num=HEAD))


def _unreachable(url: URL, error: DBAPIError) -> Unavailable:
    place = url.database if url.host is None else f"{url.database} on {url.host}"
    # The driver's first line tells; what follows explains the product that it belongs to.
    words, *_ = str(error.orig).strip().splitlines() or ["no reason given"]
    return Unavailable(
        f"cannot open the database {place}: {words}",
        next_step="see that it runs and that --database names it, then tram up again",
    )


def _read_revision(database: Database) -> str | None:
    """Return the step that the database is at, None if it is new."""
    with database.read() as connection:
        if not inspect(connection).has_table(VERSIONS.name):
            return None
        return connection.execute(select(VERSIONS)).scalar() or "none"
