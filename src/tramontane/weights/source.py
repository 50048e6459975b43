"""What every source of weights promises; ``weights.sources`` has one for each kind of reference."""

from typing import Generic, Protocol, TypeVar

from tramontane.base.errors import TramontaneError
from tramontane.domain.reference import RemoteReference
from tramontane.domain.weights import RemoteFile
from tramontane.weights.transport import Answer, Request

R = TypeVar("R", bound=RemoteReference)


class Source(Protocol, Generic[R]):
    """One kind of source. Everything blocks, may be repeated, and may be called by any thread."""

    def name(self, reference: R) -> str:
        """Return what tells this source's files from those of others; asks nobody."""
        ...

    def pin(self, reference: R) -> R:
        """Return what a reference means now, pinned.

        Raises ``InvalidRequest`` where it means nothing that can be loaded, and ``SourceFailed``
        where the source refuses or does not answer. What is pinned already is returned as it is,
        and nobody is asked.
        """
        ...

    def list_files(self, reference: R) -> tuple[RemoteFile, ...]:
        """Return the files of a pinned reference's model. Raises as ``pin`` does."""
        ...

    def request(self, reference: R, file: RemoteFile) -> Request:
        """Return how to ask for a file; asked anew for each attempt, since permissions expire."""
        ...

    def refuse(self, reference: R, answer: Answer, body: bytes) -> TramontaneError:
        """Return the error that an answer of status 400 or more stands for."""
        ...
