"""What a runtime reports about an instance: the observed side, before anything is decided."""

from dataclasses import dataclass
from enum import StrEnum

from tramontane.domain.ids import InstanceId


class ObservedStatus(StrEnum):
    """What the runtime sees."""

    STARTING = "starting"
    READY = "ready"
    """Its probe succeeds; without one, it has outlived its grace."""
    UNREADY = "unready"
    """It was ready and its probe now fails ``failures_max`` times in a row."""
    EXITED = "exited"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The newest known state of one instance."""

    instance_id: InstanceId
    status: ObservedStatus
    pid: int | None = None
    """The first process of the instance as the host sees it."""
    endpoint: str | None = None
    """Unix socket of the instance, once it is ready; None for good if it takes no connections."""
    started_at: float | None = None
    ready_at: float | None = None
    exit_code: int | None = None
    """Negative: ended by that signal."""
    reason: str = ""
    """Stable code: ``exited``, ``start_deadline``, ``out_of_memory``, ``killed``, ``stopped`` …"""
    message: str = ""
