"""Spans of requests, by the conventions for generative AI."""

import json
from typing import Any

from tests.usage_records import make_record
from tramontane.domain.usage import RequestEnd, UsageRecord
from tramontane.wire.otlp import Sender, is_wanted, make_export

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENDER = Sender(
    version="1.2.3", resource={"service.name": "tramontane"}, address="127.0.0.1", port=8080
)


def span_of(record: UsageRecord, sender: Sender = SENDER) -> dict[str, Any]:
    document = json.loads(make_export([record], sender))
    (resource,) = document["resourceSpans"]
    assert resource["resource"]["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "tramontane"}}
    ]
    (scope,) = resource["scopeSpans"]
    assert scope["scope"] == {"name": "tramontane", "version": "1.2.3"}
    (span,) = scope["spans"]
    return span


def facts_of(span: dict[str, Any]) -> dict[str, dict[str, object]]:
    return {each["key"]: each["value"] for each in span["attributes"]}


def test_a_span_is_what_the_conventions_say() -> None:
    span = span_of(make_record(1, model="assistant"))
    assert span["name"] == "chat assistant"
    assert span["kind"] == 2
    assert (span["startTimeUnixNano"], span["endTimeUnixNano"]) == (
        "86400000000000",
        "86401500000000",
    )
    assert "status" not in span
    assert facts_of(span) == {
        "gen_ai.operation.name": {"stringValue": "chat"},
        "gen_ai.provider.name": {"stringValue": "tramontane"},
        "gen_ai.request.model": {"stringValue": "assistant"},
        "gen_ai.response.model": {"stringValue": "chat"},
        "gen_ai.usage.input_tokens": {"intValue": "100"},
        "gen_ai.usage.output_tokens": {"intValue": "20"},
        "gen_ai.usage.cache_read.input_tokens": {"intValue": "40"},
        "server.address": {"stringValue": "127.0.0.1"},
        "server.port": {"intValue": "8080"},
        "http.response.status_code": {"intValue": "200"},
        "tramontane.project": {"stringValue": "shop"},
        "tramontane.service": {"stringValue": "chat"},
        "tramontane.cell": {"stringValue": "cel_1"},
        "tramontane.instance": {"stringValue": "ins_1"},
        "tramontane.weights.digest": {"stringValue": "sha256:aa"},
        "tramontane.api": {"stringValue": "chat.completions"},
        "tramontane.key.id": {"stringValue": "tok_1"},
        "tramontane.request.id": {"stringValue": "req-1"},
        "tramontane.request.end": {"stringValue": "finished"},
        "tramontane.cost_eur": {"doubleValue": 0.000123456},
        "tramontane.time_to_first_token_s": {"doubleValue": 0.25},
    }


def test_a_span_is_the_same_whenever_it_is_made() -> None:
    span = span_of(make_record(1))
    assert span == span_of(make_record(1))
    assert (len(span["traceId"]), len(span["spanId"])) == (32, 16)
    assert "parentSpanId" not in span
    others = {span_of(make_record(i, instance=each))["traceId"] for i in (1, 2) for each in "ab"}
    assert len(others) == 4


def test_a_span_joins_its_caller_s_trace() -> None:
    alone = span_of(make_record(1))
    joined = span_of(make_record(1, traceparent=f"00-{TRACE}-{SPAN}-01"))
    assert (joined["traceId"], joined["parentSpanId"]) == (TRACE, SPAN)
    assert joined["spanId"] == alone["spanId"]


def test_who_does_not_record_a_trace_gets_no_span() -> None:
    assert is_wanted(make_record(1))
    assert is_wanted(make_record(1, traceparent=f"00-{TRACE}-{SPAN}-01"))
    assert not is_wanted(make_record(1, traceparent=f"00-{TRACE}-{SPAN}-00"))


def test_what_went_wrong() -> None:
    refused = span_of(make_record(1, end=RequestEnd.REFUSED, status=400))
    assert facts_of(refused)["error.type"] == {"stringValue": "400"}
    assert "status" not in refused, "the client's mistake is none of the server"
    gone = span_of(make_record(1, end=RequestEnd.ABORTED))
    assert facts_of(gone)["error.type"] == {"stringValue": "client_gone"}
    cut = span_of(make_record(1, end=RequestEnd.CUT, status=0, first_token_s=None, key=""))
    assert cut["status"] == {"code": 2}
    left_out = {
        "http.response.status_code",
        "tramontane.time_to_first_token_s",
        "tramontane.key.id",
    }
    assert not left_out & facts_of(cut).keys()


def test_other_operations() -> None:
    names = {
        each: span_of(make_record(1, api=each))["name"]
        for each in ("completions", "responses", "embeddings", "rerank")
    }
    assert names == {
        "completions": "text_completion chat",
        "responses": "chat chat",
        "embeddings": "embeddings chat",
        "rerank": "rerank chat",
    }


def test_an_address_that_is_none_is_left_out() -> None:
    facts = facts_of(span_of(make_record(1), Sender(version="1.2.3", resource=SENDER.resource)))
    assert not {"server.address", "server.port"} & facts.keys()
