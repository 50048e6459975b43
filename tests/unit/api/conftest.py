"""A fresh app over a fresh store for every test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from shutil import copyfile

import httpx
import pytest
from api_world import World, build_world
from inference_world import InferenceWorld, make_inference_world

from tramontane.store.store import open_store


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database; a copy of it is a fresh store."""
    path = tmp_path_factory.mktemp("store") / "template.db"
    open_store(path).close()
    return path


@pytest.fixture
def world(template: Path, tmp_path: Path) -> Iterator[World]:
    path = tmp_path / "tramontane.db"
    path.write_bytes(template.read_bytes())
    store = open_store(path)
    yield build_world(store, tmp_path)
    store.close()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client() as client:
        yield client


@pytest.fixture
async def inference(template: Path, tmp_path: Path) -> AsyncIterator[InferenceWorld]:
    """What answers files and batches, with nothing in it."""
    store = open_store(Path(copyfile(template, tmp_path / "inference.db")))
    async with make_inference_world(store, tmp_path / "files") as inference:
        yield inference
    store.close()
