"""The one interface to everything that runs instances, and its promises.

``reconcile`` calls it; ``processes`` chooses the implementation; ``tramontane.testing.conformance``
holds every implementation to these promises, the fake included.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tramontane.domain.artifact import Artifact, Listen
from tramontane.domain.definition import Probe, ProbeKind, Resources
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation
from tramontane.domain.usage import Account


@dataclass(frozen=True, kw_only=True)
class MeterSpec:
    """How the requests of an instance are counted (``metering``)."""

    engine: str
    """Which engine answers: a name of ``metering.engine_wire.ENGINES``."""
    directory: str
    """Where the books are kept."""
    account: Account
    requests_max: int
    """Requests that the engine's server takes at a time; others wait before it."""


@dataclass(frozen=True, kw_only=True)
class InstanceSpec:
    """All that a runtime needs to know to run one instance."""

    id: InstanceId
    label: str
    """``project/service#number``: for process lists and logs."""
    artifact: Artifact
    command: tuple[str, ...]
    """The artifact's, or the user's override."""
    environment: tuple[tuple[str, str], ...]
    resources: Resources
    probe: Probe
    log_path: str
    """File that stdout and stderr are appended to (rotated by the runtime)."""
    egress_socket: str | None = None
    """Unix socket of the gateway's egress proxy for this service; None: no way out at all."""
    models_socket: str | None = None
    """Unix socket on which the gateway answers for the models that this service is bound to; None:
    to none. Where an instance cannot reach the machine's network, the runtime leads to it and says
    where in ``URL_VARIABLE``, in place of what ``environment`` says."""
    meter: MeterSpec | None = None
    """None: bytes pass as they are."""

    @property
    def listen(self) -> Listen | None:
        """Where the program accepts connections; None: nowhere, and there is no way in."""
        return None if self.probe.kind is ProbeKind.NONE else self.artifact.listen


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One thing a machine offers or lacks, for ``tram doctor``."""

    name: str
    offered: bool
    detail: str
    """What was found; if not offered, what is missing and how to get it."""
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    """What a command run inside an instance printed, and how it ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Runtime(Protocol):
    """Starts and stops instances in one cell.

    Instances outlive the process that started them: a new ``Runtime`` over the same state
    directory sees and steers them. All calls may be repeated, and may come in any order.
    """

    kind: Literal["process", "podman", "kubernetes", "fake"]

    async def capabilities(self) -> Sequence[Capability]:
        """Find out what this machine offers. Changes nothing."""
        ...

    async def start(self, spec: InstanceSpec) -> None:
        """Start the instance and return without waiting until it is ready.

        A second call with the same id does nothing, also after the instance ended: an id runs at
        most once. What becomes of it is reported by ``watch``: it gets ready as ``readiness`` says,
        with an endpoint unless it takes no connections. Raises ``Unsupported`` if the machine
        cannot run it, in which case nothing was started.
        """
        ...

    async def stop(self, instance_id: InstanceId, grace_s: float) -> None:
        """Ask the instance to end (SIGTERM), and end all of it by force after ``grace_s``.

        Returns at once; ``watch`` reports the end. A repeated call signals no second time, but can
        bring the end by force forward. Stopping what is unknown or gone is silence.
        """
        ...

    async def remove(self, instance_id: InstanceId) -> None:
        """Forget an instance that has ended, and delete its private files; silence if unknown.

        An instance that still runs is ended by force first.
        """
        ...

    async def inspect(self) -> Sequence[Observation]:
        """Return the state of every instance of this cell, known to the caller or not."""
        ...

    def watch(self) -> AsyncIterator[Observation]:
        """Yield the state of each instance once, then every change, without polling delays.

        An observation may be repeated; none is skipped for good: the newest state of an instance
        always arrives. One watcher at a time.
        """
        ...

    async def execute(
        self, instance_id: InstanceId, command: Sequence[str], timeout_s: float
    ) -> ExecResult:
        """Run a command inside the instance's sandbox. Raises ``NotFound`` if it does not run."""
        ...

    async def close(self) -> None:
        """Let go of the runtime's own resources; instances run on."""
        ...
