"""Short directories for sockets, and beds that end everything they started."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conformance.beds import ProcessBed
from tramontane.runtimes.process.protocol import Isolation


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path: pytest's own are too long for Unix sockets."""
    made = Path(tempfile.mkdtemp(prefix="tc"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def bed(directory: Path) -> AsyncIterator[ProcessBed]:
    """The sandboxed process runtime."""
    made = ProcessBed(directory, Isolation.SANDBOX)
    yield made
    await made.close()
