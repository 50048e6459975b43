"""The header ``traceparent``, as W3C Trace Context has it."""

import pytest

from tramontane.domain.trace import TraceParent, keep_traceparent, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_good_header() -> None:
    text = f"00-{TRACE}-{SPAN}-01"
    assert parse_traceparent(text) == TraceParent(trace_id=TRACE, span_id=SPAN, sampled=True)
    assert keep_traceparent(text) == text
    unsampled = parse_traceparent(f"00-{TRACE}-{SPAN}-02")
    assert unsampled is not None
    assert not unsampled.sampled


def test_a_later_version_begins_the_same() -> None:
    text = f"01-{TRACE}-{SPAN}-01-more-to-come"
    kept = keep_traceparent(text)
    assert kept == text[:55]
    assert parse_traceparent(kept) == parse_traceparent(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    ],
)
def test_a_bad_header_says_nothing(text: str) -> None:
    assert parse_traceparent(text) is None
    assert keep_traceparent(text) == ""
