"""A store of builds for all tests of a module, so that toolchains and caches are made once."""

from pathlib import Path

import pytest

from tests.integration.builders.running import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("builds"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder
