"""What takes up the disk, and what refers to it: garbage collection is decided on these.

``reconcile.garbage`` gathers them from the store, the builders, the runtimes and the logs;
``plan.retention`` and ``plan.garbage`` say what may go.
"""

from dataclasses import dataclass
from enum import StrEnum

from tramontane.domain.deployment import DeploymentStatus
from tramontane.domain.ids import DeploymentId, ServiceId


class ItemKind(StrEnum):
    """What a thing on disk is."""

    INSTANCE = "instance"
    """What a runtime keeps of one instance."""
    ARTIFACT = "artifact"
    LAYER = "layer"
    """Dependencies that artifacts mount; a cache as long as none does."""
    CACHE = "cache"
    """A build tool's downloads or a compiler's results; may go whenever no build uses it."""
    TOOLCHAIN = "toolchain"
    ARCHIVE = "archive"
    """The source of a deployment, as it was uploaded."""
    LOG = "log"
    """Named ``<service>/<writer>.…``, the writer being an instance or a deployment; the folder of
    all logs of a service is named ``<service>``."""
    LEFTOVER = "leftover"
    """Half done work; whoever does it holds a lock, so a free one is of a process that died."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that is there or not as a whole."""

    kind: ItemKind
    name: str
    size_bytes: int = 0
    used_at: float = 0.0
    """When somebody last asked for it or wrote to it."""
    layers: tuple[str, ...] = ()
    """Those that an artifact mounts."""
    running: bool = False
    """Whether processes of an instance may live."""

    @property
    def key(self) -> tuple[ItemKind, str]:
        """What tells it from every other item."""
        return self.kind, self.name


@dataclass(frozen=True, kw_only=True)
class References:
    """All that rows refer to, read at one instant."""

    artifacts: frozenset[str]
    archives: frozenset[str]
    services: frozenset[str]
    deployments: frozenset[str]
    instances: frozenset[str]
    """The live ones."""


@dataclass(frozen=True, kw_only=True)
class PastDeployment:
    """As much of a deployment as decides whether it is kept."""

    id: DeploymentId
    number: int
    status: DeploymentStatus
    was_healthy: bool
    live: bool
    """Whether it has a live instance."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The deployments of one service, newest first."""

    service_id: ServiceId
    generation: int
    desired: DeploymentId | None
    serving: DeploymentId | None
    deployments: tuple[PastDeployment, ...]


@dataclass(frozen=True, kw_only=True)
class DiskUsage:
    """What the platform's own things take up, in bytes by kind, at one instant."""

    at: float
    artifacts: int = 0
    """With the layers that they mount."""
    toolchains: int = 0
    caches: int = 0
    """With the layers that nothing mounts at present."""
    archives: int = 0
    logs: int = 0
