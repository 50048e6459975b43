"""What the API is made of: everything it needs, as arguments of ``make_app``.

The control plane's process wires the real ones; tests pass small ones of their own.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tramontane.api.feed import ServiceFeed
from tramontane.api.tokens import TokenIssuer
from tramontane.base.clock import Clock
from tramontane.base.ids import IdFactory
from tramontane.domain.ids import ServiceId
from tramontane.domain.instance import Instance
from tramontane.domain.inventory import DiskUsage
from tramontane.domain.model import ModelFacts
from tramontane.domain.weights import Weights
from tramontane.store.sources import SourceFiles
from tramontane.store.store import Store
from tramontane.wire.schemas import ExecView, LogLine, PartView

LogSource = Literal["build", "runtime", "egress", "platform"]


class PlatformFacts(Protocol):
    """What the platform knows of its own parts; every call is cheap."""

    @property
    def version(self) -> str:
        """The product's version."""
        ...

    @property
    def home(self) -> str:
        """Where the platform keeps its state."""
        ...

    @property
    def egress_allowed(self) -> Sequence[str]:
        """What the operator opened of this machine and its private networks."""
        ...

    def get_control_plane(self) -> PartView:
        """Return how the process that answers fares."""
        ...

    def get_gateway(self) -> PartView:
        """Return how the gateway fares."""
        ...

    def get_disk(self) -> DiskUsage | None:
        """Return what the platform's things take up, or None until somebody has looked."""
        ...


class LogReader(Protocol):
    """Where builds, instances and the gateway's egress leave their lines."""

    def read(
        self,
        service_id: ServiceId,
        sources: Sequence[LogSource],
        *,
        since: float | None = None,
        instance: str | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> AsyncIterator[LogLine]:
        """Yield lines, oldest first; with ``follow`` it goes on until it is closed."""
        ...


Execute = Callable[[Instance, Sequence[str], float], Awaitable[ExecView]]
"""Runs a command inside an instance, for so many seconds at most; raises ``TramontaneError``."""

InspectModel = Callable[[str], ModelFacts]
"""Takes a model's reference and reads the headers of its files; raises ``TramontaneError``."""


class WeightsDesk(Protocol):
    """The weights of models on this machine, and how they get here."""

    def pin(self, text: str) -> str:
        """Return what a reference means now, for ever; blocks, and asks its source.

        Raises ``TramontaneError`` if it means nothing that can be served, or nobody answers.
        """
        ...

    async def fetch_ahead(self, reference: str) -> Weights:
        """Begin to fetch a pinned reference, or go on, and return how far it is.

        Raises once what went wrong since the last call.
        """
        ...

    async def list_weights(self) -> list[Weights]:
        """Return what is here or on its way, the most recently used first."""
        ...

    async def evict(self, digest: str) -> Weights:
        """Remove weights; raises ``Conflict`` if they are in use, ``NotFound`` if not there."""
        ...


@dataclass(frozen=True, kw_only=True)
class ApiParts:
    """Everything the handlers use."""

    store: Store
    tokens: TokenIssuer
    sources: SourceFiles
    feed: ServiceFeed
    """Says which services changed; the process tells it after each write of a reconciler."""
    clock: Clock
    ids: IdFactory
    nudge: Callable[[ServiceId], None]
    """Called after each change of the desired side, from any thread."""
    nudge_batch: Callable[[str], None]
    """The same for batches, with their id."""
    aliases_changed: Callable[[str], None]
    """Called after a change of a project's aliases, with its name, from any thread."""
    revoked: Callable[[str], None]
    """Called after a token was revoked, with its id, so that the gateway refuses it too."""
    limited: Callable[[], None]
    """Called after the limits of a token changed; they hold once it returns."""
    platform: PlatformFacts
    logs: LogReader
    execute: Execute
    inspect_model: InspectModel
    weights: WeightsDesk
    service_url: Callable[[str, str], str]
    """Takes project and service, returns where the service answers."""
    heartbeat_s: float = 15.0
    """A watch that has nothing to say says so this often, which finds dead connections."""
