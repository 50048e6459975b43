"""Brings a database to the present tables, mostly by seeing that it is there already.

``open_store`` calls ``migrate``. A process that has to stay small calls ``migrate_apart`` before:
the steps then run in a process of their own (``store.upgrade``) and leave nothing in memory here.
"""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

from sqlalchemy import inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from tramontane.base.errors import Unavailable
from tramontane.store.database import Database, parse_url, sqlite_url

HEAD = "0001"
"""The newest step in ``store.migrations.versions``."""
APART_S = 600.0


def migrate(database: Database) -> None:
    """Run every step that the database has not seen yet, in this process."""
    if _read_revision(database) != HEAD:
        # Named as text on purpose: Alembic is loaded only where there is something to do.
        import_module("tramontane.store.upgrade").upgrade(database)


def migrate_apart(database: Path | str) -> None:
    """Run every step in a process of its own; raises ``Unavailable`` with its words if it fails."""
    url = sqlite_url(database) if isinstance(database, Path) else parse_url(database)
    opened = Database(url)
    try:
        if _read_revision(opened) == HEAD:
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


def _unreachable(url: URL, error: DBAPIError) -> Unavailable:
    place = url.database if url.host is None else f"{url.database} on {url.host}"
    # The driver's first line tells; what follows explains the product that it belongs to.
    words, *_ = str(error.orig).strip().splitlines() or ["no reason given"]
    return Unavailable(
        f"cannot open the database {place}: {words}",
        next_step="see that it runs and that --database names it, then tram up again",
    )


def _read_revision(database: Database) -> str | None:
    with database.read() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
