"""What the process that fetches is told, and how that is written down: one line of JSON.

``processes.fetching`` writes it to the process's standard input, so that the secrets in it are in
no argument vector and no environment; ``processes.fetch`` reads it.
"""

from dataclasses import dataclass, field

from pydantic import TypeAdapter

from tramontane.domain.weights import RemoteFile
from tramontane.weights.download import DownloadOptions
from tramontane.weights.settings import SourceSettings


@dataclass(frozen=True, kw_only=True)
class FetchJob:
    """One fetch of what is missing of a model."""

    root: str
    """Folder of the cache."""
    reference: str
    files: tuple[RemoteFile, ...]
    settings: SourceSettings
    options: DownloadOptions = field(default_factory=DownloadOptions)


_JOB: TypeAdapter[FetchJob] = TypeAdapter(FetchJob)


def write_job(job: FetchJob) -> bytes:
    """Return the job as one line."""
    return _JOB.dump_json(job) + b"\n"


def read_job(line: bytes) -> FetchJob:
    """Return the job that ``write_job`` wrote."""
    return _JOB.validate_json(line)
