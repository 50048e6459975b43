"""When a client sends a call again: one pure decision for all clients.

Only calls whose repetition is harmless are repeated, and only a few times: a platform that is
down should be reported in a second, not in a minute.
"""

from tramontane.wire.calls import Call

RETRIES_MAX = 3
WAIT_MAX_S = 5.0
_TRANSIENT = frozenset({429, 502, 503, 504})


def retry_delay_s(
    call: Call, attempt: int, *, status: int | None, retry_after_s: float | None = None
) -> float | None:
    """Return the pause before the next attempt, or None to give up.

    ``attempt`` counts from 0; ``status`` None means that the connection broke before an answer.
    """
    if attempt >= RETRIES_MAX or not call.repeatable:
        return None
    if status is not None and status not in _TRANSIENT:
        return None
    delay_s = 0.2 * 2.0**attempt
    if retry_after_s is not None:
        # A server that asks for a long pause is better reported than waited for.
        return max(delay_s, retry_after_s) if retry_after_s <= WAIT_MAX_S else None
    return delay_s
