"""Brings what instances wrote into their books into the store's ledger.

Takes no input, looks at the books there are, and may be killed anywhere: how far a book was read is
stored with what was read. A book whose writer is dead is closed: what was under way then is taken
over as cut, with the counts that had been reached, and its files go.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tramontane.domain.usage import Account, UsageRecord
from tramontane.metering.books import LINES, OPEN, is_written, read_account, read_cut, read_lines
from tramontane.store.usage import BookPosition

log = logging.getLogger(__name__)

PERIOD_S = 1.0
AT_ONCE = 1000
"""Records of one transaction."""


class UsageMemory(Protocol):
    """What this reconciler needs of the store."""

    def get_book_position(self, instance: str) -> BookPosition:
        """Return how far an instance's book has been read."""
        ...

    def add_usage(
        self, instance: str, records: Sequence[UsageRecord], before: int, after: BookPosition
    ) -> bool:
        """Take over what stands in a book between two positions, unless somebody else has."""
        ...

    def forget_book(self, instance: str) -> None:
        """Forget how far a book was read: its files are gone."""
        ...

    def list_closed_books(self) -> list[str]:
        """Return the instances whose books are read to their end and not forgotten yet."""
        ...


@dataclass(kw_only=True)
class LedgerReconciler:
    """The books of one machine."""

    store: UsageMemory
    directory: Path

    async def run(self) -> None:
        """Look again and again until cancelled."""
        sizes: dict[str, int] = {}
        while True:
            sizes = await asyncio.to_thread(self.look, sizes)
            await asyncio.sleep(PERIOD_S)

    def look(self, sizes: dict[str, int]) -> dict[str, int]:
        """Take over what is new; ``sizes`` is what the last look returned, to skip what is not."""
        seen: dict[str, int] = {}
        for lines in sorted(self.directory.glob(f"*{LINES}")):
            instance = lines.name.removesuffix(LINES)
            try:
                seen[instance] = lines.stat().st_size
                alive = is_written(lines.with_suffix(OPEN))
                if not alive or seen[instance] != sizes.get(instance):
                    self._take_over(instance, lines, alive=alive)
            except (OSError, ValueError) as error:
                seen.pop(instance, None)
                log.warning("cannot read the book of %s: %s", instance, error)
        for instance in self.store.list_closed_books():
            if instance not in seen:
                self.store.forget_book(instance)
        return seen

    def _take_over(self, instance: str, lines: Path, *, alive: bool) -> None:
        known = self.store.get_book_position(instance)
        table = lines.with_suffix(OPEN)
        if not known.closed:
            with lines.open("rb") as file:
                found = read_account(file)
                if found is None:
                    return
                account, start = found
                position = known.position
                while True:
                    records, after = read_lines(file, account, max(position, start), AT_ONCE)
                    if not records:
                        break
                    moved = BookPosition(position=after)
                    if not self.store.add_usage(instance, records, position, moved):
                        return
                    position = after
            if alive:
                return
            if not self._close(account, table, lines, position):
                return
        lines.unlink(missing_ok=True)
        table.unlink(missing_ok=True)

    def _close(self, account: Account, table: Path, lines: Path, position: int) -> bool:
        with lines.open("rb") as file:
            _, start = read_account(file) or (None, 0)
            written, _ = read_lines(file, account, start, 2**62)
        ended = frozenset(each.sequence for each in written)
        cut = list(read_cut(table, account, ended))
        closed = BookPosition(position=position, closed=True)
        return self.store.add_usage(account.instance, cut, position, closed)
