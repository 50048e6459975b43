"""Where a request stands in its caller's trace: W3C Trace Context, the header ``traceparent``.

The meter keeps it with a request, and ``wire.otlp`` makes the request's span a part of that trace.
"""

import re
from dataclasses import dataclass

LENGTH = 55
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, kw_only=True)
class TraceParent:
    """The span that a request belongs to."""

    trace_id: str
    span_id: str
    sampled: bool
    """Whether its caller records the trace."""


def keep_traceparent(text: str) -> str:
    """Return the header as it is kept: nothing of one that says nothing."""
    return text[:LENGTH] if text and parse_traceparent(text) else ""


def parse_traceparent(text: str) -> TraceParent | None:
    """Return what the header says; None if it is no such header, which the standard ignores."""
    found = _FORM.fullmatch(text)
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None
    # A later version may have more behind these 55 characters, but begins the same.
    if found[4] is not None and text.startswith("00"):
        return None
    return TraceParent(trace_id=found[1], span_id=found[2], sampled=bool(int(found[3], 16) & 1))
