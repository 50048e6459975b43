"""Brings what instances wrote into their books into the store's ledger.

Takes no input, looks at the books there are, and may be killed anywhere: how far a book was read is
stored with what was read. A book whose writer is dead is closed: what was under way then is taken
over as cut, with the counts that had been reached, and its files go.

Limits of keys stand on the same books: meters hold them by themselves (``metering.allowances``);
here they are told which there are, and where keys stand after somebody was killed.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from tramontane.base.clock import Clock
from tramontane.domain.limits import BudgetPeriod, Limits, period_start
from tramontane.domain.usage import Account, UsageRecord
from tramontane.metering.allowances import Allowances, KeyUse
from tramontane.metering.books import (
    LINES,
    OPEN,
    is_written,
    read_account,
    read_cut,
    read_lines,
    read_open_keys,
)
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

    def list_limits(self) -> Mapping[str, Limits]:
        """Return how much each key may use that is good and has limits."""
        ...

    def sum_costs(self, keys: Collection[str], since: float) -> dict[str, int]:
        """Return what each of these keys has spent, in billionths of a euro."""
        ...


@dataclass(kw_only=True)
class LedgerReconciler:
    """The books of one machine."""

    store: UsageMemory
    directory: Path
    allowances: Allowances
    clock: Clock
    on_spent: Callable[[frozenset[str]], None]
    """Told which keys have no budget left, whenever these change."""
    _sizes: dict[str, int] = field(init=False, default_factory=dict[str, int])
    """Of the books at the last look, to pass over those that nobody wrote in."""
    _unreadable: set[str] = field(init=False, default_factory=set[str])
    """Instances whose books were complained of, once each."""

    async def run(self) -> None:
        """Look again and again until cancelled."""
        await asyncio.to_thread(self.recount)
        told: frozenset[str] = frozenset()
        while True:
            if await asyncio.to_thread(self.look):
                await asyncio.to_thread(self.recount)
            spent = await asyncio.to_thread(self.allowances.spent_keys, self.clock.now())
            if spent != told:
                told = spent
                self.on_spent(spent)
            await asyncio.sleep(PERIOD_S)

    def limit(self) -> None:
        """Hold keys to the limits in the store; what they have used goes on where it was."""
        with self.allowances.held():
            # Read in here: of two at a time, the one that comes last knows of both.
            self.allowances.publish(self.store.list_limits(), self.clock.now())

    def recount(self) -> None:
        """Set where every key with limits stands to what the books say.

        Meters wait meanwhile; it is for starts, and after somebody was killed.
        """
        with self.allowances.held():
            self.look()
            now, limits = self.clock.now(), self.store.list_limits()
            spent: dict[str, int] = {}
            for period in BudgetPeriod:
                keys = [key for key, each in limits.items() if each.budget_period is period]
                spent |= self.store.sum_costs(keys, period_start(period, now)) if keys else {}
            tables = self.directory.glob(f"*{OPEN}")
            running = Counter(key for table in tables for key in read_open_keys(table))
            uses = {key: KeyUse(running=running[key], spent=spent.get(key, 0)) for key in limits}
            self.allowances.publish(limits, now, uses)

    def look(self) -> bool:
        """Take over what is new, and return whether requests were cut by their meter's death."""
        seen: dict[str, int] = {}
        cut = False
        for lines in sorted(self.directory.glob(f"*{LINES}")):
            instance = lines.name.removesuffix(LINES)
            try:
                seen[instance] = lines.stat().st_size
                alive = is_written(lines.with_suffix(OPEN))
                if not alive or seen[instance] != self._sizes.get(instance):
                    cut |= self._take_over(instance, lines, alive=alive)
            except (OSError, ValueError) as error:
                if instance not in self._unreadable:
                    self._unreadable.add(instance)
                    log.warning("cannot read the book of %s: %s", instance, error)
        for instance in self.store.list_closed_books():
            if instance not in seen:
                self.store.forget_book(instance)
        self._sizes = seen
        return cut

    def _take_over(self, instance: str, lines: Path, *, alive: bool) -> bool:
        known = self.store.get_book_position(instance)
        table = lines.with_suffix(OPEN)
        cut: list[UsageRecord] = []
        if not known.closed:
            with lines.open("rb") as file:
                found = read_account(file)
                if found is None and not alive:
                    # Killed before it had begun: without an account there was no request.
                    lines.unlink()
                    table.unlink(missing_ok=True)
                if found is None:
                    return False
                position = self._read_on(file, *found, known.position)
            if alive or position is None:
                return False
            cut = _read_cut(found[0], table, lines)
            closed = BookPosition(position=position, closed=True)
            if not self.store.add_usage(instance, cut, position, closed):
                return False
        lines.unlink(missing_ok=True)
        table.unlink(missing_ok=True)
        # Closed before: whoever did it may have been killed before keys were counted anew.
        return known.closed or bool(cut)

    def _read_on(self, file: BinaryIO, account: Account, start: int, position: int) -> int | None:
        """Return how far the book is read now; None if somebody else reads it."""
        while True:
            records, after = read_lines(file, account, max(position, start), AT_ONCE)
            if not records:
                return position
            moved = BookPosition(position=after)
            if not self.store.add_usage(account.instance, records, position, moved):
                return None
            position = after


def _read_cut(account: Account, table: Path, lines: Path) -> list[UsageRecord]:
    """Return what was under way when the meter died, less what it had written down as ended."""
    with lines.open("rb") as file:
        _, start = read_account(file) or (account, 0)
        written, _ = read_lines(file, account, start, 2**62)
    return list(read_cut(table, account, frozenset(each.sequence for each in written)))
