"""Where every key with limits stands, in memory that all meters of a machine share.

One file: a header and a row per key. The control plane says which keys have which limits
(``Allowances.publish``); meters ask and settle (``Gate``) under the file's lock, which costs two
system calls and no message to anybody. So a limit is exact over all instances of a machine, and
holds while the control plane is dead. The kernel lets go of the lock of whoever is killed.

What somebody killed had under way is put right by ``publish``, which counts anew from the books:
whoever holds the lock sees books and rows agree, since both change under it. A key keeps its row,
so that a control plane which is killed while it publishes leaves every row as good as it was.
"""

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tramontane.domain.limits import (
    BudgetPeriod,
    Limits,
    OverLimit,
    Standing,
    admit,
    is_spent,
    period_end,
    settle,
)

FILE = "keys.table"
_HEADER = struct.Struct("<QQ")
"""Generation, rows."""
_ROW = struct.Struct("<40sqqqqB7xddqqd")
"""Key; four limits and the period; requests until, tokens until, running, spent, period's end."""
_STANDING = struct.Struct("<ddqqd")
_STANDING_AT = _ROW.size - _STANDING.size
_NONE = -1
_PERIODS = (BudgetPeriod.DAY, BudgetPeriod.MONTH)


@dataclass(frozen=True, kw_only=True)
class KeyUse:
    """What the books say of a key: the truth that a row is set to."""

    running: int = 0
    spent: int = 0
    """In its present period, in billionths of a euro."""


class Table:
    """The file, open and mapped; the mapping grows with the file."""

    def __init__(self, path: Path, *, write: bool) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if write else 0)
        self._file = os.open(path, flags, 0o600)
        if os.fstat(self._file).st_size < _HEADER.size:
            os.ftruncate(self._file, _HEADER.size)
        self._memory = mmap.mmap(self._file, 0)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the lock: nobody else reads or changes a row meanwhile."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    def lock(self) -> None:
        """Wait for the lock and take it."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let go of the lock."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()
        os.close(self._file)

    def header(self) -> tuple[int, int]:
        """Return the generation, which changes with the keys, and the number of rows."""
        generation, rows = _HEADER.unpack_from(self._memory, 0)
        return generation, rows

    def keys(self) -> dict[str, int]:
        """Return the row of each key; rows that nobody has have no name."""
        _, rows = self.header()
        self._fit(rows)
        names = (self._memory[_at(row) : _at(row) + 40] for row in range(rows))
        named = ((name.rstrip(b"\0").decode(), row) for row, name in enumerate(names))
        return {name: row for name, row in named if name}

    def read(self, row: int) -> tuple[Limits, Standing]:
        """Return the limits of a row's key, and where it stands."""
        found: tuple[bytes, int, int, int, int, int, float, float, int, int, float]
        found = _ROW.unpack_from(self._memory, _at(row))
        rpm, tpm, streams, budget, period = found[1:6]
        limits = Limits(
            requests_per_minute=None if rpm == _NONE else rpm,
            tokens_per_minute=None if tpm == _NONE else tpm,
            streams=None if streams == _NONE else streams,
            budget=None if budget == _NONE else budget,
            budget_period=_PERIODS[period],
        )
        return limits, self.read_standing(row)

    def read_standing(self, row: int) -> Standing:
        """Return where a row's key stands."""
        return Standing(*_STANDING.unpack_from(self._memory, _at(row) + _STANDING_AT))

    def write_standing(self, row: int, standing: Standing) -> None:
        """Set where a row's key stands."""
        _STANDING.pack_into(self._memory, _at(row) + _STANDING_AT, *standing)

    def write(self, row: int, key: str, limits: Limits, standing: Standing) -> None:
        """Set a row."""
        numbers = (
            limits.requests_per_minute,
            limits.tokens_per_minute,
            limits.streams,
            limits.budget,
        )
        _ROW.pack_into(
            self._memory,
            _at(row),
            key.encode(),
            *(_NONE if number is None else number for number in numbers),
            _PERIODS.index(limits.budget_period),
            standing.requests_until,
            standing.tokens_until,
            standing.running,
            standing.spent,
            standing.period_ends,
        )

    def replace(self, rows: Mapping[str, tuple[Limits, Standing]]) -> None:
        """Set all rows: who has one keeps it, and the rows of those who go are there for others."""
        generation, count = self.header()
        places = self.keys()
        for gone in places.keys() - rows.keys():
            self.write(places.pop(gone), "", Limits(), Standing())
        free = iter(sorted(set(range(count + len(rows))) - set(places.values())))
        places |= {key: next(free) for key in rows if key not in places}
        count = max([count, *(row + 1 for row in places.values())])
        if os.fstat(self._file).st_size < _at(count):
            os.ftruncate(self._file, _at(count))
        self._fit(count)
        for key, (limits, standing) in rows.items():
            self.write(places[key], key, limits, standing)
        _HEADER.pack_into(self._memory, 0, generation + 1, count)

    def _fit(self, rows: int) -> None:
        if len(self._memory) < _at(rows):
            self._memory.close()
            self._memory = mmap.mmap(self._file, 0)


class Gate:
    """A meter's side: may this key make a request now?"""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._table: Table | None = None
        self._generation = -1
        self._rows: dict[str, int] = {}
        self._limits: dict[int, Limits] = {}
        """By row, as far as they were asked for: they change with the generation alone."""

    def turn(self, key: str) -> "Turn":
        """Return the one look at a key's row during which nobody else has one; use as ``with``."""
        return Turn(self, self._open(), key)

    def find(self, table: Table, key: str) -> tuple[int, Limits] | None:
        """Return the row of a key and its limits; call it while the table is locked."""
        generation, _ = table.header()
        if generation != self._generation:
            self._rows, self._generation, self._limits = table.keys(), generation, {}
        row = self._rows.get(key)
        if row is None:
            return None
        limits = self._limits.get(row)
        if limits is None:
            limits = self._limits[row] = table.read(row)[0]
        return row, limits

    def close(self) -> None:
        """Let go of the file."""
        if self._table is not None:
            self._table.close()
            self._table = None

    def _open(self) -> Table | None:
        """Return the table; None before any key had a limit."""
        if self._table is None:
            try:
                self._table = Table(self._path, write=False)
            except FileNotFoundError:
                return None
        return self._table


class Turn:
    """One key's row, held; a key without limits has none.

    A class of its own and not a generator: a request has two of these, where every token passes.
    """

    __slots__ = ("_found", "_gate", "_key", "_table")

    def __init__(self, gate: Gate, table: Table | None, key: str) -> None:
        self._gate, self._table, self._key = gate, table, key
        self._found: tuple[int, Limits] | None = None

    def __enter__(self) -> "Turn":
        if self._table is not None:
            self._table.lock()
            try:
                self._found = self._gate.find(self._table, self._key)
            except BaseException:
                self._table.unlock()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._table is not None:
            self._table.unlock()

    def admit(self, now: float) -> OverLimit | None:
        """Take one request more into account, or say why it may not be."""
        if self._table is None or self._found is None:
            return None
        row, limits = self._found
        decided = admit(limits, self._table.read_standing(row), now)
        if isinstance(decided, OverLimit):
            return decided
        self._table.write_standing(row, decided)
        return None

    def settle(self, *, tokens: int, cost: int, now: float) -> None:
        """Take the end of a request into account."""
        if self._table is None or self._found is None:
            return
        row, limits = self._found
        before = self._table.read_standing(row)
        settled = settle(limits, before, tokens=tokens, cost=cost, now=now)
        self._table.write_standing(row, settled)


class Allowances:
    """The control plane's side."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._table = Table(directory / FILE, write=True)
        self._turn = threading.Lock()
        """The file's lock keeps processes apart, not the threads of one."""

    @contextmanager
    def held(self) -> Generator[None]:
        """Let no request begin or end meanwhile, and no other thread in here."""
        with self._turn, self._table.locked():
            yield

    def publish(
        self, limits: Mapping[str, Limits], now: float, uses: Mapping[str, KeyUse] | None = None
    ) -> None:
        """Set which keys have limits; call it while they are held.

        With ``uses`` also what is under way and spent is set to what the books say; without, and
        for rates, of which the books know nothing, all goes on where it was.
        """
        known = {key: self._table.read(row)[1] for key, row in self._table.keys().items()}
        rows: dict[str, tuple[Limits, Standing]] = {}
        for key, wanted in sorted(limits.items()):
            standing = known.get(key, Standing())
            if uses is not None:
                use = uses.get(key, KeyUse())
                ends = period_end(wanted.budget_period, now)
                standing = standing._replace(running=use.running, spent=use.spent, period_ends=ends)
            rows[key] = (wanted, standing)
        self._table.replace(rows)

    def spent_keys(self, now: float) -> frozenset[str]:
        """Return the keys whose budget is spent."""
        with self.held():
            found = {key: self._table.read(row) for key, row in self._table.keys().items()}
        return frozenset(key for key, (limits, at) in found.items() if is_spent(limits, at, now))

    def standing(self, key: str) -> Standing | None:
        """Return where a key stands; None if it has no limits."""
        with self.held():
            row = self._table.keys().get(key)
            return None if row is None else self._table.read(row)[1]

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()


def _at(row: int) -> int:
    return _HEADER.size + row * _ROW.size
