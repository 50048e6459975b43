"""What a user asks for: the definition of a service, as one immutable value.

``wire.manifest`` makes it from ``tramontane.yaml`` and the command line; a deployment carries it
unchanged for its whole life. All defaults of the product are here, in one place.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from tramontane.domain.usage import Price

WORKER_GRACE_S = 5.0
"""Long enough for a program to fail on what it lacks, short enough to wait for."""


KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"
"""What instances of a service with models find in their environment: the names that OpenAI's
clients read by themselves."""


class ServiceKind(StrEnum):
    """What a service is for, which decides how it is routed, probed and scaled."""

    WEB = "web"
    WORKER = "worker"
    """Takes no requests: it has no address, and nothing but its user decides how many run."""
    JOB = "job"
    """Runs once, to its end. Not offered yet, no more than ``FUNCTION``: refused at admission."""
    MODEL = "model"
    FUNCTION = "function"

    @property
    def takes_requests(self) -> bool:
        """Whether the gateway sends it requests, on which it is scaled and woken."""
        return self not in {ServiceKind.WORKER, ServiceKind.JOB}


class ProbeKind(StrEnum):
    """How an instance is asked whether it is ready."""

    TCP = "tcp"
    HTTP = "http"
    NONE = "none"
    """Not at all, since it takes no connections: ready is who is alive when the grace is over."""


@dataclass(frozen=True, kw_only=True)
class DirectorySource:
    """A directory of source code, uploaded as an archive and known by its content."""

    digest: str
    """``sha256:…`` of the archive."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Open weights: ``tiny`` (bundled) or the path of a GGUF file on the platform's machine."""

    reference: str


Source = DirectorySource | ModelSource


@dataclass(frozen=True, kw_only=True)
class Probe:
    """When an instance counts as ready, and when it no longer does."""

    kind: ProbeKind = ProbeKind.TCP
    path: str = "/"
    """HTTP only: any answer of 200–399 is healthy."""
    grace_s: float = 60.0
    """The time of a start, which is judged by its end: who is not ready by then has failed to
    start, and who cannot be asked is ready then if it is still alive."""
    interval_s: float = 10.0
    timeout_s: float = 5.0
    failures_max: int = 3
    """Failed probes in a row after which a ready instance is unhealthy and replaced."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Between how many instances, and on what demand, a service moves."""

    instances_min: int = 0
    instances_max: int = 5
    concurrency: float = 20.0
    """Requests in progress that one instance should carry on average."""
    idle_s: float = 300.0
    """Without a request for this long, a service with ``instances_min`` 0 goes to zero."""
    first_token_s: float | None = None
    """Of a model: within this time nearly all answers should begin. None is the usual time."""
    between_tokens_s: float | None = None
    """Of a model: the pace that answers should keep."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits of one instance; held where the machine offers a way to hold them."""

    memory_bytes: int = 512 * 1024**2
    cpus: float = 1.0
    processes_max: int = 256


@dataclass(frozen=True, kw_only=True)
class ResourceWishes:
    """What a user says of the limits. None is automatic: of a model, what it needs (``plan``); of
    anything else, the usual limits above."""

    memory_bytes: int | None = None
    cpus: float | None = None
    processes_max: int = Resources.processes_max


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What a user says of how a model is served. None is automatic."""

    context_tokens: int | None = None
    """Per request: prompt and answer together."""
    parallel: int | None = None
    """Requests that one instance computes at the same time."""


@dataclass(frozen=True, kw_only=True, order=True)
class EgressRule:
    """One destination that instances may reach: a host name, or ``*.example.com``, and a port."""

    host: str
    port: int = 443

    def covers(self, host: str, port: int) -> bool:
        """Tell whether this destination, or this pattern of some, is among those it names."""
        below = self.host.startswith("*.") and host.endswith(self.host[1:])
        return self.port == port and (below or self.host == host)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What the user says about the build; empty means detected from the source."""

    language: str | None = None
    command: str | None = None
    root: str = "."


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Everything about a service that a new deployment can change."""

    kind: ServiceKind
    source: Source
    build: BuildOptions = field(default_factory=BuildOptions)
    command: str | None = None
    """Overrides the command that the build found; run by ``sh -c`` inside the sandbox."""
    environment: tuple[tuple[str, str], ...] = ()
    policy: tuple[str, ...] = ()
    """Names of residency presets; all must hold (intersection)."""
    probe: Probe = field(default_factory=Probe)
    scaling: Scaling = field(default_factory=Scaling)
    resources: ResourceWishes = field(default_factory=ResourceWishes)
    engine: EngineOptions = field(default_factory=EngineOptions)
    """Of a model only."""
    price: Price | None = None
    """Of a model's tokens. None: requests share what the hour of their instance costs."""
    egress: tuple[EgressRule, ...] = ()
    models: tuple[str, ...] = ()
    """Names of models of the project that instances may call, there yet or not."""
    drain_s: float = 30.0
    """How long requests in progress may run on after an instance is told to stop; of what takes no
    requests, the work that it has begun."""
