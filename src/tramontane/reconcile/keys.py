"""Tells the gateway which API keys are good, and soon after one is revoked, that it is not.

The gateway checks keys by signature, so only revocations travel. The API nudges when one happens;
a look by the clock finds those of another replica.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tramontane.base.nudges import NudgeQueue
from tramontane.domain.route import KeyTrust

PERIOD_S = 10.0
ALL = "keys"
"""The one key of the queue: there is one list of revocations."""


class KeyMemory(Protocol):
    """What this reconciler needs of the store."""

    def list_revoked_ids(self) -> frozenset[str]:
        """Return the ids of revoked tokens that have not expired anyway."""
        ...


@dataclass(kw_only=True)
class KeyReconciler:
    """One issuer's keys."""

    store: KeyMemory
    public_jwk: str
    issuer: str
    publish: Callable[[KeyTrust], None]
    queue: NudgeQueue[str]
    _spent: frozenset[str] = field(init=False, default=frozenset())
    _published: KeyTrust | None = field(init=False, default=None)

    async def read_trust(self) -> KeyTrust:
        """Return what the gateway should trust now, for the first publication of everything."""
        revoked = await asyncio.to_thread(self.store.list_revoked_ids)
        self._published = KeyTrust(
            public_jwk=self.public_jwk, issuer=self.issuer, revoked=revoked, spent=self._spent
        )
        return self._published

    def put_spent(self, keys: frozenset[str]) -> None:
        """Refuse these keys until others are named: their budget is spent."""
        self._spent = keys
        self.queue.nudge(ALL)

    async def run(self) -> None:
        """Publish changes until cancelled."""
        while True:
            self.queue.nudge_in(ALL, PERIOD_S)
            await self.queue.take()
            self.queue.done(ALL)
            before = self._published
            if (trust := await self.read_trust()) != before:
                self.publish(trust)
