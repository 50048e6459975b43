"""A hub, and a cache with everything that fetches into it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.weights.hub import Hub, run_hub
from tramontane.base.clock import SystemClock
from tramontane.domain.reference import HubReference, RemoteReference
from tramontane.weights.cache import Cache
from tramontane.weights.download import Download, DownloadOptions
from tramontane.weights.settings import HubSettings, SourceSettings
from tramontane.weights.sources import Sources
from tramontane.weights.transport import Transport

SMALL_PARTS = DownloadOptions(part_bytes=100_000, connections=4, attempts_max=4)


def make_weights(size: int, seed: int = 0) -> bytes:
    return b"GGUF" + random.Random(seed).randbytes(size - 4)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with run_hub() as running:
        yield running


@dataclass
class Fetching:
    """What the control plane has for fetching, without the control plane."""

    cache: Cache
    settings: SourceSettings
    transport: Transport = field(default_factory=lambda: Transport(lambda _: None))

    @property
    def sources(self) -> Sources:
        return Sources(self.settings, self.transport, SystemClock())

    def pin(self, text: str) -> HubReference:
        pinned = self.sources.pin(HubReference(repository=text))
        assert isinstance(pinned, HubReference)
        return pinned

    def download(self, reference: RemoteReference, **options: object) -> Download:
        return Download(
            reference=reference,
            files=self.sources.list_files(reference),
            cache=self.cache,
            sources=self.sources,
            transport=self.transport,
            **{"options": SMALL_PARTS, **options},  # type: ignore[arg-type]
        )

    def fetch(self, reference: RemoteReference, **options: object) -> dict[str, bytes]:
        """Fetch a model and return what the cache holds of it, by file."""
        found = self.download(reference, **options).run()
        return {name: self.cache.blob(sha256).read_bytes() for name, sha256 in found.items()}


@pytest.fixture
def fetching(hub: Hub, tmp_path: Path) -> Iterator[Fetching]:
    cache = Cache(tmp_path / "weights")
    cache.ensure_folders()
    made = Fetching(cache, SourceSettings(hub=HubSettings(endpoint=hub.endpoint)))
    yield made
    made.transport.close()
