"""Sends a span for each request of the ledger to a collector of OpenTelemetry.

Off the way of requests, in batches, and from the ledger alone: how far it has come stands in the
store, so that nothing is left out while the collector is down or the control plane is killed. What
was sent just before a kill is sent again, as the same spans.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tramontane.base.clock import Clock
from tramontane.base.errors import InvalidRequest, Unavailable
from tramontane.domain.usage import UsageRecord
from tramontane.store.usage import UsageQuery
from tramontane.wire.otlp import Sender, is_wanted, make_export

log = logging.getLogger(__name__)

POSITION = "traces_position"
"""The setting that says up to which line of the ledger everything was sent."""
BATCH = 512
PERIOD_S = 2.0
PAUSE_MAX_S = 60.0
AGE_MAX_S = 86400.0
"""Older requests are left out: after so long, nobody looks at them, and most refuse them."""


class TraceMemory(Protocol):
    """What this reconciler needs of the store."""

    def read_setting(self, name: str) -> str | None:
        """Return the value, or None if it was never written."""
        ...

    def write_setting(self, name: str, value: str) -> None:
        """Keep the value, durably."""
        ...

    def read_newest_position(self) -> int:
        """Return the position of the ledger's last line, 0 if there is none."""
        ...

    def list_usage(self, query: UsageQuery, *, limit: int, after: int = 0) -> Sequence[UsageRecord]:
        """Return records in the order of their coming, from behind the position ``after``."""
        ...


class Receiver(Protocol):
    """What takes the spans: ``wire.collector.Collector``."""

    async def send(self, document: bytes) -> str:
        """Send one export; see there."""
        ...


@dataclass(kw_only=True)
class TraceReconciler:
    """One collector."""

    store: TraceMemory
    receiver: Receiver
    sender: Sender
    clock: Clock

    _failures: int = field(init=False, default=0)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(await self.look())

    async def look(self) -> float:
        """Send the next batch, if there is one; return in how many seconds to look again."""
        position = await asyncio.to_thread(self._position)
        query = UsageQuery(since=self.clock.now() - AGE_MAX_S)
        records = await asyncio.to_thread(self.store.list_usage, query, limit=BATCH, after=position)
        if not records:
            return PERIOD_S
        wanted = [each for each in records if is_wanted(each)]
        try:
            complaint = await self.receiver.send(make_export(wanted, self.sender)) if wanted else ""
        except Unavailable as error:
            return self._wait(error)
        except InvalidRequest as error:
            complaint = f"{error.message}; they are left out"
        if complaint:
            log.warning("spans of %d requests: %s", len(wanted), complaint)
        if self._failures:
            log.info("the collector of spans takes them again")
            self._failures = 0
        await asyncio.to_thread(self.store.write_setting, POSITION, str(records[-1].position))
        return 0.0 if len(records) == BATCH else PERIOD_S

    def _position(self) -> int:
        known = self.store.read_setting(POSITION)
        if known is None:
            # What was there before somebody wanted spans is not sent.
            known = str(self.store.read_newest_position())
            self.store.write_setting(POSITION, known)
        return int(known)

    def _wait(self, error: Unavailable) -> float:
        if not self._failures:
            log.warning("the collector of spans takes none, they are kept: %s", error.message)
        self._failures += 1
        pause_s = min(PERIOD_S * 2.0 ** min(self._failures - 1, 10), PAUSE_MAX_S)
        return max(pause_s, error.retry_after_s or 0.0)
