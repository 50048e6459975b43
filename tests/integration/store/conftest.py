"""The store under test, once over SQLite and once over a real PostgreSQL server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tramontane.base.errors import Unsupported
from tramontane.base.ids import random_id
from tramontane.store.store import Store, open_store
from tramontane.testing.postgres import PostgresServer, start_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    try:
        with start_postgres() as server:
            yield server
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """An empty database, as ``open_store`` takes it."""
    if request.param == "sqlite":
        yield tmp_path / "tramontane.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = random_id("test")
    yield server.make_database(name)
    server.remove_database(name)


@pytest.fixture
def store(database: Path | str) -> Iterator[Store]:
    opened = open_store(database)
    yield opened
    opened.close()
