"""The same platform over PostgreSQL: what was acknowledged outlives a killed control plane."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import write_app
from tests.e2e.platform import Platform
from tramontane.base.errors import Unsupported
from tramontane.testing.postgres import PostgresServer, start_postgres

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    try:
        with start_postgres() as server:
            yield server
    except Unsupported as error:
        pytest.skip(error.message)


def test_a_deployment_survives_in_postgresql(server: PostgresServer, tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="tram-e2e-"))
    url = server.make_database("platform")
    flags = ("--country", "DE", "--operator", "Test operator", "--database", url)
    platform = Platform(home=home, flags=flags)
    platform.up()
    try:
        platform.tram("deploy", write_app(tmp_path / "app", "v1"), "--name", "kept")
        before = platform.service("kept")
        platform.kill_control()
        platform.up()
        after = platform.service("kept")
        assert after["deployment"] == before["deployment"]
        assert [i["pid"] for i in after["instances"]] == [i["pid"] for i in before["instances"]]
        assert platform.request("kept").status == 200
        assert not (home / "tramontane.db").exists()
    finally:
        platform.tram("down", check=None)
        shutil.rmtree(home, ignore_errors=True)
