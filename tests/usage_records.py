"""Records of the ledger, as several suites need them."""

from dataclasses import replace
from typing import Any

from tramontane.domain.usage import RequestEnd, Usage, UsageRecord
from tramontane.store.store import Store
from tramontane.store.usage import BookPosition

RECORD = UsageRecord(
    instance="ins_1",
    sequence=1,
    request_id="req-1",
    key="tok_1",
    project="shop",
    service="chat",
    model="chat",
    digest="sha256:aa",
    cell="cel_1",
    api="chat.completions",
    at=86_400.0,
    first_token_s=0.25,
    duration_s=1.5,
    status=200,
    end=RequestEnd.FINISHED,
    usage=Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=40),
    cost=123_456,
)


def make_record(sequence: int, **changes: Any) -> UsageRecord:
    return replace(RECORD, sequence=sequence, request_id=f"req-{sequence}", **changes)


def keep(store: Store, *records: UsageRecord) -> None:
    """Write records into the ledger, as if they had stood in the books of their instances."""
    for each in records:
        before = store.get_book_position(each.instance).position
        assert store.add_usage(each.instance, [each], before, BookPosition(position=before + 1))
