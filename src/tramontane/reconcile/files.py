"""Frees the disk of files that have expired or that nobody knows; rarely, since nobody waits.

Takes no input and may be killed anywhere. Rows go first, then what lies on disk without a row: left
by an upload that was killed, or a deletion, or of a project that is gone.
"""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from tramontane.base.clock import Clock

log = logging.getLogger(__name__)

PERIOD_S = 600.0
PLACED_S = 3600.0
"""A content is in its place before its row is written: so young, it may still get one."""


class FileMemory(Protocol):
    """What this reconciler needs of the store."""

    def forget_expired_files(self, now: float) -> int:
        """Forget every file that has expired, and return how many those were."""
        ...

    def list_known_files(self, file_ids: Collection[str]) -> frozenset[str]:
        """Return those of these ids that rows name."""
        ...


class Contents(Protocol):
    """What this reconciler needs of the disk."""

    def list_written_before(self, moment: float) -> list[str]:
        """Return the ids of contents that nobody has written to since."""
        ...

    def remove(self, file_id: str) -> None:
        """Remove a content; silence if there is none."""
        ...


@dataclass(kw_only=True)
class FileReconciler:
    """One platform's files."""

    store: FileMemory
    contents: Contents
    clock: Clock

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.reconcile)
            except Exception:
                log.exception("collecting files failed; it is tried again")
            await asyncio.sleep(PERIOD_S)

    def reconcile(self) -> None:
        """Look once at everything and remove what nobody can ask for."""
        now = self.clock.now()
        # Listed first: what gets its row meanwhile is then known.
        found = self.contents.list_written_before(now - PLACED_S)
        self.store.forget_expired_files(now)
        unknown = set(found) - self.store.list_known_files(found)
        for file_id in sorted(unknown):
            self.contents.remove(file_id)
        if unknown:
            log.info("collected %d files", len(unknown))
