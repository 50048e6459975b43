"""What the API answers about inference: what requests used, files and batches.

Beside ``wire.schemas``, from which it takes what all answers have in common.
"""

from typing import Literal

from tramontane.wire.schemas import View


class FileView(View):
    """A file that a key of the project uploaded, or that a batch wrote."""

    id: str
    name: str
    purpose: str
    size_bytes: int
    lines: int
    created_at: float
    expires_at: float | None


class BatchErrorView(View):
    """Why a batch failed or was given up, or what is wrong with a line of its requests."""

    code: str
    message: str
    line: int | None


class BatchView(View):
    """A batch of requests and how far it is."""

    id: str
    status: str
    endpoint: str
    key_id: str
    """The key that asked for it."""
    total: int
    succeeded: int
    failed: int
    errors: list[BatchErrorView]
    input_files: list[str]
    output_file: str
    error_file: str
    created_at: float
    expires_at: float


UsageGroup = Literal["project", "model", "key", "service", "cell", "api", "digest", "day"]


class UsageSumView(View):
    """What requests used, added up."""

    group: dict[str, str]
    """What they have in common; a cell by its name, a key by its id, a day in UTC."""
    key_name: str | None = None
    """Of the key in ``group``, if this token may know of it."""
    requests: int
    not_finished: int
    """Those that were refused by the engine, given up by their client, or cut off."""
    prompt_tokens: int
    """All of the prompts, those in the cache included."""
    cached_tokens: int
    """Of the prompts: taken from the engine's cache instead of being computed."""
    completion_tokens: int
    cost_eur: str
    """Exact, as a decimal number with nine digits behind the point."""
    first_token_s: float | None
    """Mean time to the first token; null if there was none."""


class UsageView(View):
    """Sums over a time, by what was asked for."""

    since: float | None
    until: float | None
    """Up to here, and not including it."""
    by: list[UsageGroup]
    sums: list[UsageSumView]
    total: UsageSumView


class UsageRecordView(View):
    """One request as it stands in the ledger. Never content."""

    at: float
    """When it arrived at the instance."""
    request_id: str
    project: str
    service: str
    model: str
    """As the client asked for it."""
    digest: str
    """Of the weights."""
    key: str
    """Id of the API key; empty if the request needed none."""
    key_name: str | None
    api: str
    cell: str
    instance: str
    status: int
    """Of the HTTP answer; 0 if none was sent."""
    end: Literal["finished", "refused", "aborted", "cut"]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    first_token_s: float | None
    duration_s: float
    cost_eur: str


class UsagePageView(View):
    """Requests in the order in which they came into the ledger, which is that of their end."""

    requests: list[UsageRecordView]
    next: str | None
    """The ``cursor`` of the next page; null if this is the last for now."""
