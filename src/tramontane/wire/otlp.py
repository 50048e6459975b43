"""Requests of the ledger as spans, in OTLP's JSON (opentelemetry-proto 1.x). Pure.

Names are those of OpenTelemetry's conventions for generative AI, and ``tramontane.…`` where these
have none. A span of a request is the same each time it is made, so that one that is sent twice is
known as one. Never content. ``reconcile.traces`` sends what is made here.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tramontane.domain.trace import TraceParent, parse_traceparent
from tramontane.domain.usage import NANO, RequestEnd, UsageRecord

OPERATIONS = {
    "chat.completions": "chat",
    "completions": "text_completion",
    "responses": "chat",
    "embeddings": "embeddings",
}
"""``gen_ai.operation.name`` by API; one that the conventions do not know has its own name."""
SERVER = 2
ERROR = 2
ERRORS = {RequestEnd.ABORTED: "client_gone", RequestEnd.CUT: "instance_unreachable"}

Value = str | int | float
Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Who sends the spans, as all of them say."""

    version: str
    resource: Mapping[str, str]
    """Attributes, ``service.name`` among them."""
    address: str | None = None
    """Of the gateway, where clients sent the requests."""
    port: int | None = None


def is_wanted(record: UsageRecord) -> bool:
    """Return whether a request has a span: not if its caller decided not to record the trace."""
    parent = parse_traceparent(record.traceparent or "")
    return parent is None or parent.sampled


def make_export(records: Sequence[UsageRecord], sender: Sender) -> bytes:
    """Return the body of one export of these requests."""
    spans = [_span(each, sender) for each in records]
    scope = {"name": "tramontane", "version": sender.version}
    resource = {"attributes": _attributes(sender.resource)}
    scoped = [{"scope": scope, "spans": spans}]
    document = {"resourceSpans": [{"resource": resource, "scopeSpans": scoped}]}
    return json.dumps(document, separators=(",", ":")).encode()


def _span(record: UsageRecord, sender: Sender) -> Json:
    parent = parse_traceparent(record.traceparent or "")
    span: Json = {
        **_identity(record, parent),
        "name": f"{_operation(record)} {record.model}",
        "kind": SERVER,
        "startTimeUnixNano": str(int(record.at * NANO)),
        "endTimeUnixNano": str(int((record.at + record.duration_s) * NANO)),
        "attributes": _attributes(dict(_facts(record, sender))),
    }
    if record.end is RequestEnd.CUT or record.status >= 500:
        span["status"] = {"code": ERROR}
    return span


def _identity(record: UsageRecord, parent: TraceParent | None) -> Json:
    made = hashlib.sha256(f"{record.instance}/{record.sequence}".encode()).hexdigest()
    own = {"traceId": made[:32], "spanId": made[32:48]}
    if parent is None:
        return {**own}
    # The remote caller's, and it was sampled.
    return {**own, "traceId": parent.trace_id, "parentSpanId": parent.span_id, "flags": 0x301}


def _operation(record: UsageRecord) -> str:
    return OPERATIONS.get(record.api, record.api)


def _facts(record: UsageRecord, sender: Sender) -> Iterator[tuple[str, Value | None]]:
    yield "gen_ai.operation.name", _operation(record)
    yield "gen_ai.provider.name", "tramontane"
    yield "gen_ai.request.model", record.model
    yield "gen_ai.response.model", record.service
    yield "gen_ai.usage.input_tokens", record.usage.prompt_tokens
    yield "gen_ai.usage.output_tokens", record.usage.completion_tokens
    yield "gen_ai.usage.cache_read.input_tokens", record.usage.cached_tokens
    yield "server.address", sender.address
    yield "server.port", sender.port if sender.address is not None else None
    yield "http.response.status_code", record.status or None
    if record.end is not RequestEnd.FINISHED:
        yield "error.type", ERRORS.get(record.end, str(record.status))
    yield "tramontane.project", record.project
    yield "tramontane.service", record.service
    yield "tramontane.cell", record.cell
    yield "tramontane.instance", record.instance
    yield "tramontane.weights.digest", record.digest
    yield "tramontane.api", record.api
    yield "tramontane.key.id", record.key or None
    yield "tramontane.request.id", record.request_id or None
    yield "tramontane.request.end", record.end.value
    yield "tramontane.cost_eur", record.cost / NANO
    yield "tramontane.time_to_first_token_s", record.first_token_s


def _attributes(values: Mapping[str, Value | None]) -> list[Json]:
    return [
        {"key": key, "value": _value(value)} for key, value in values.items() if value is not None
    ]


def _value(value: Value) -> Json:
    match value:
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": value}
