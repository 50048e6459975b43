"""All sources of one platform: from any reference to its pinned form, its files, and the way there.

``weights.fetcher`` asks in the control plane, and the process that fetches asks again for each
request, from the same settings.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tramontane.base.clock import Clock
from tramontane.base.errors import SourceFailed, TramontaneError
from tramontane.domain.reference import (
    BucketReference,
    BundledReference,
    FileReference,
    HubReference,
    Reference,
    RegistryReference,
    RemoteReference,
)
from tramontane.domain.weights import RemoteFile
from tramontane.weights.bucket import Bucket
from tramontane.weights.hub import Hub
from tramontane.weights.local import pin_file
from tramontane.weights.registry import Registry
from tramontane.weights.settings import SourceSettings
from tramontane.weights.source import Source
from tramontane.weights.transport import Answer, Interrupted, Request, Transport


class Sources:
    """Asks the right source. Everything blocks; may be shared between threads."""

    def __init__(self, settings: SourceSettings, transport: Transport, clock: Clock) -> None:
        self._hub = Hub(settings.hub, transport)
        self._bucket = Bucket(settings.bucket, transport, clock)
        self._registry = Registry(settings, transport, clock)

    def name(self, reference: RemoteReference) -> str:
        """Return what tells the source's files from those of others; asks nobody."""
        return self._source_of(reference).name(reference)

    def pin(self, reference: Reference) -> Reference:
        """Return what a reference means now; see ``weights.source`` for what is raised."""
        match reference:
            case BundledReference():
                return reference
            case FileReference():
                return pin_file(reference)
            case _:
                with _naming(reference):
                    return self._source_of(reference).pin(reference)

    def list_files(self, reference: RemoteReference) -> tuple[RemoteFile, ...]:
        """Return the files of a pinned reference's model."""
        with _naming(reference):
            return self._source_of(reference).list_files(reference)

    def request(self, reference: RemoteReference, file: RemoteFile) -> Request:
        """Return how to ask for a file."""
        return self._source_of(reference).request(reference, file)

    def refuse(self, reference: RemoteReference, answer: Answer, body: bytes) -> TramontaneError:
        """Return the error that an answer of status 400 or more stands for."""
        return self._source_of(reference).refuse(reference, answer, body)

    def _source_of(self, reference: RemoteReference) -> Source[Any]:
        match reference:
            case HubReference():
                return self._hub
            case BucketReference():
                return self._bucket
            case RegistryReference():
                return self._registry


@contextmanager
def _naming(reference: RemoteReference) -> Generator[None]:
    """Say about what nobody answered: connections know only with whom they failed."""
    try:
        yield
    except Interrupted as error:
        raise SourceFailed(f"{reference}: {error.message}") from error
