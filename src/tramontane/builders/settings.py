"""What a build is told about the machine it runs on; ``processes`` fills it in once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tramontane.builders.unpack import ArchiveLimits
from tramontane.domain.definition import Resources
from tramontane.domain.route import EgressBounds

Log = Callable[[str], None]
"""Takes one line of progress or of a tool's output, without its line break."""


class Isolation(StrEnum):
    """What keeps a build's code from the rest of the machine."""

    BUBBLEWRAP = "bubblewrap"
    """Namespaces of its own; sees tools, the source and its caches only."""
    NONE = "none"
    """A clean environment and a private home, but the user's own rights."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """The surroundings of all builds of one platform."""

    root: Path
    """Folder of artifacts, layers, toolchains and caches: see ``store``."""
    environment: Mapping[str, str]
    """The operator's environment; ``environment.build_environment`` lets through what is needed."""
    isolation: Isolation
    confinement: tuple[str, ...]
    """Command line of what holds steps to their limits and, where they have a sandbox, in a
    network of their own: ``runtimes.process.confining``."""
    resources: Resources
    """What all steps of one build may use together, held as far as the machine can."""
    bwrap: str = "bwrap"
    scope: str = "default"
    """Who shares download and compile caches and layers; the project's id. Code of one scope can
    spoil what another build of the same scope finds there, never that of another scope."""
    step_timeout_s: float = 900.0
    bounds: Callable[[], EgressBounds] = EgressBounds
    """How far the way out of that network may lead."""
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)

    @property
    def enclosed(self) -> bool:
        """Whether steps have a network of their own, with a proxy as the only way out."""
        return self.isolation is Isolation.BUBBLEWRAP
