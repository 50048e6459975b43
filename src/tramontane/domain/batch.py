"""A batch: many requests to models, in files, that are carried out when there is time for them."""

from dataclasses import dataclass, field
from enum import StrEnum


class BatchStatus(StrEnum):
    """Where a batch is in its life; the words are OpenAI's."""

    VALIDATING = "validating"
    FAILED = "failed"
    """Its requests cannot be read: none was sent."""
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    """Nothing is sent any more; results are put together."""
    COMPLETED = "completed"
    EXPIRED = "expired"
    """As completed, but its time was over before every request was sent."""
    CANCELLING = "cancelling"
    """As finalizing, because somebody asked for it."""
    CANCELLED = "cancelled"


BATCH_TRANSITIONS: dict[BatchStatus, frozenset[BatchStatus]] = {
    BatchStatus.VALIDATING: frozenset(
        {BatchStatus.IN_PROGRESS, BatchStatus.FAILED, BatchStatus.CANCELLING}
    ),
    BatchStatus.IN_PROGRESS: frozenset({BatchStatus.FINALIZING, BatchStatus.CANCELLING}),
    BatchStatus.FINALIZING: frozenset({BatchStatus.COMPLETED, BatchStatus.EXPIRED}),
    BatchStatus.CANCELLING: frozenset({BatchStatus.CANCELLED}),
    BatchStatus.FAILED: frozenset(),
    BatchStatus.COMPLETED: frozenset(),
    BatchStatus.EXPIRED: frozenset(),
    BatchStatus.CANCELLED: frozenset(),
}

BATCH_OVER = frozenset(status for status, after in BATCH_TRANSITIONS.items() if not after)


@dataclass(frozen=True, kw_only=True)
class BatchError:
    """Why a batch failed or was given up, or what is wrong with one line of its requests."""

    code: str
    message: str
    line: int | None = None
    """Counted from one, through all files."""
    param: str | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``expires_at`` is when nothing is sent any more, whatever is left."""

    id: str
    project: str
    key_id: str
    """The key that asked for it: requests are accounted to it and end when it is revoked."""
    endpoint: str
    model: str | None
    """For requests that name none."""
    named: bool
    """Every request names itself, its method and its path; otherwise they need not."""
    input_files: tuple[str, ...]
    output_file: str
    error_file: str
    """Ids that are given out from the beginning: results are written under them."""
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    window_hours: int
    results_kept_s: float
    created_at: float
    expires_at: float
    status: BatchStatus = BatchStatus.VALIDATING
    moments: dict[BatchStatus, float] = field(default_factory=dict[BatchStatus, float])
    """When it entered each status."""
    errors: tuple[BatchError, ...] = ()
    total: int = 0
    succeeded: int = 0
    failed: int = 0
    """Requests whose result stands in the output file, and those in the error file."""
