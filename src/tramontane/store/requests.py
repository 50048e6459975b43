"""Idempotency keys: a request that is sent twice happens once.

The desired side's verbs look up and remember the key in the same transaction as the change, so
that no crash can separate the two. The API makes the key; its token and route are part of it.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from tramontane.base.errors import Conflict
from tramontane.store.part import Part
from tramontane.store.tables import REQUESTS

KEPT_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class RequestKey:
    """``fingerprint`` tells a repeated request from another one under the same key."""

    key: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Guard:
    """When a change may happen: only at this generation, only once under this key."""

    expected_generation: int | None = None
    request: RequestKey | None = None


ALWAYS = Guard()


class Requests(Part):
    """Keys of requests that change nothing in the store, such as running a command."""

    def claim_request(self, request: RequestKey | None, *, now: float) -> None:
        """Take the key before acting; raises ``Conflict`` if it was taken before."""
        with self._database.write() as connection:
            if find_result(connection, request, now) is not None:
                raise Conflict(
                    "this request was already carried out, and its answer is not kept; "
                    "send a fresh Idempotency-Key to do it again",
                    path="Idempotency-Key",
                )
            remember_result(connection, request, "claimed", now)


def find_result(connection: Connection, request: RequestKey | None, now: float) -> str | None:
    """Return what the first request under this key resulted in, if there was one.

    Raises ``Conflict`` if that one was a different request.
    """
    if request is None:
        return None
    row = (
        connection.execute(
            select(REQUESTS).where(
                REQUESTS.c.key == request.key, REQUESTS.c.created_at > now - KEPT_S
            )
        )
        .mappings()
        .first()
    )
    if row is None:
        return None
    if row["fingerprint"] != request.fingerprint:
        raise Conflict(
            "this Idempotency-Key was used for a different request; send a fresh key",
            path="Idempotency-Key",
        )
    return row["result"]


def remember_result(
    connection: Connection, request: RequestKey | None, result: str, now: float
) -> None:
    """Keep what this request resulted in, and forget what is older than a day."""
    if request is None:
        return
    connection.execute(delete(REQUESTS).where(REQUESTS.c.created_at <= now - KEPT_S))
    connection.execute(
        insert(REQUESTS).values(
            key=request.key, fingerprint=request.fingerprint, result=result, created_at=now
        )
    )
