"""What a build leaves behind and a runtime can start: builders make it, runtimes mount it."""

from dataclasses import dataclass
from enum import StrEnum

from tramontane.domain.model import ModelFacts


class Listen(StrEnum):
    """Where the started program accepts connections."""

    TCP = "tcp"
    """On ``0.0.0.0:$PORT`` or ``127.0.0.1:$PORT`` inside its own network namespace."""
    UNIX = "unix"
    """On the Unix socket ``$TRAM_SOCKET``: saves the relay's copy on every byte."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A directory or file of the host, shown read-only inside the sandbox."""

    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A started instance is this plus the definition's environment and limits."""

    digest: str
    """``sha256:…`` over everything that decides the content: source, build options, toolchain."""
    language: str
    command: tuple[str, ...]
    """argv inside the sandbox; ``$PORT`` and ``$TRAM_SOCKET`` are environment variables there."""
    directory: str
    """Working directory inside the sandbox."""
    mounts: tuple[Mount, ...]
    environment: tuple[tuple[str, str], ...] = ()
    listen: Listen = Listen.TCP
    health_path: str | None = None
    """Where the program says over HTTP that it is ready; None: accepting connections is enough."""
    facts: ModelFacts | None = None
    """What the weights say of themselves, if it serves a model."""
