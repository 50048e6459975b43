"""A file that a user gave to a project, or that a batch wrote for it: what is known of it.

Its content lies beside the database (``store.contents``), under its id.
"""

from dataclasses import dataclass

BATCH = "batch"
"""The purpose of files that hold requests."""
BATCH_OUTPUT = "batch_output"
"""The purpose of files that a batch wrote."""


@dataclass(frozen=True, kw_only=True)
class ProjectFile:
    """``id`` is what the content is kept under; ``name`` is only what the user called it."""

    id: str
    project: str
    name: str
    purpose: str
    size_bytes: int
    lines: int
    digest: str
    """SHA-256 of the content, as ``sha256:…``."""
    created_at: float
    expires_at: float | None = None
    """From then on it is not there any more; None: until somebody deletes it."""
