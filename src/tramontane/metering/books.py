"""The books of one instance: what is under way, and what is done, safe from any kill.

Two files below the platform's ``ledger`` directory, named after the instance. ``<id>.open`` is a
table in shared memory with a row per request under way, in which every count stands before the
token that it counts is passed on: when the writer is killed, the kernel keeps it. ``<id>.lines``
says in its first line whose books these are, and then has one JSON line per request that ended,
appended in one write before its row is freed.

The supervisor of an instance writes (``Books``) and holds a lock on the table while it lives;
``reconcile.ledger`` reads (``read_lines``, ``read_cut``). Nothing is synchronised to the disk per
request: a machine that loses power may lose what ended in its last seconds, and says so nowhere.
"""

import fcntl
import json
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tramontane.domain.usage import Account, Price, RequestEnd, Usage, UsageRecord
from tramontane.metering.sharing import Sharing

ROWS_MAX = 4096
"""Requests under way at one instance; more are refused."""
_ROW = struct.Struct("<BxxxIQIIIxxxxddd64s40s32s64s56s")
"""State, status, sequence, three counts, arrival, first token, share of the instance's time,
request id, key, API, model, traceparent."""
_COUNTS = struct.Struct("<III")
_COUNTS_AT = 16
_MOMENT = struct.Struct("<d")
_FIRST_AT = 40
_SHARE_AT = 48
_FREE, _OPEN = 0, 1
_KEY = 10
"""Of the fields of a row."""
OPEN, LINES = ".open", ".lines"
_OWN = (
    *("sequence", "request_id", "key", "model", "api", "at", "first_token_s", "duration_s"),
    *("status", "cost", "traceparent"),
)
"""What a line says; the rest is the account's."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A request when it is taken up."""

    request_id: str
    key: str
    model: str
    api: str
    at: float
    traceparent: str = ""


@dataclass(kw_only=True)
class Entry:
    """A request under way, as its row has it."""

    row: int
    sequence: int
    arrival: Arrival
    usage: Usage = field(default_factory=Usage)
    first_token_at: float = 0.0
    share_begun: float = 0.0
    share_s: float = 0.0
    """Of the instance's time, up to the last count."""


class Books:
    """The writing side, one per instance that runs."""

    def __init__(self, directory: Path, account: Account) -> None:
        self._account = account
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._table_file = _open_private(directory / f"{account.instance}{OPEN}", os.O_RDWR)
        fcntl.flock(self._table_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(self._table_file, ROWS_MAX * _ROW.size)
        self._table = mmap.mmap(self._table_file, ROWS_MAX * _ROW.size)
        self._lines = _open_private(
            directory / f"{account.instance}{LINES}", os.O_WRONLY | os.O_APPEND
        )
        os.write(self._lines, json.dumps(asdict(account)).encode() + b"\n")
        self._free = list(range(ROWS_MAX - 1, -1, -1))
        self._sequence = 0
        self._sharing = Sharing()

    @property
    def open_count(self) -> int:
        """Requests under way."""
        return ROWS_MAX - len(self._free)

    def is_full(self) -> bool:
        """Return whether there are too many requests under way to take up another."""
        return not self._free

    def begin(self, arrival: Arrival) -> Entry:
        """Write down that a request is under way; the books must not be full."""
        self._sequence += 1
        entry = Entry(
            row=self._free.pop(),
            sequence=self._sequence,
            arrival=arrival,
            share_begun=self._sharing.begin(arrival.at),
        )
        _ROW.pack_into(
            self._table,
            entry.row * _ROW.size,
            _OPEN,
            0,
            entry.sequence,
            0,
            0,
            0,
            arrival.at,
            0.0,
            0.0,
            _text(arrival.request_id, 64),
            _text(arrival.key, 40),
            _text(arrival.api, 32),
            _text(arrival.model, 64),
            _text(arrival.traceparent, 56),
        )
        return entry

    def count(self, entry: Entry, usage: Usage, now: float) -> None:
        """Write down the newest counts; call it before what they count is passed on."""
        start = entry.row * _ROW.size
        if not entry.first_token_at and usage.completion_tokens:
            entry.first_token_at = now
            _MOMENT.pack_into(self._table, start + _FIRST_AT, now)
        entry.share_s = self._sharing.share_s(entry.share_begun, now)
        _MOMENT.pack_into(self._table, start + _SHARE_AT, entry.share_s)
        entry.usage = usage
        _COUNTS.pack_into(
            self._table,
            start + _COUNTS_AT,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
        )

    def end(self, entry: Entry, end: RequestEnd, status: int, now: float) -> UsageRecord:
        """Write down the end of a request and return its record."""
        entry.share_s = self._sharing.end(entry.share_begun, now)
        record = _make_record(self._account, entry, end, status, now)
        os.write(self._lines, to_line(record))
        self._table[entry.row * _ROW.size] = _FREE
        self._free.append(entry.row)
        return record

    def close(self) -> None:
        """Let go of the files; what is still open is counted as cut."""
        self._table.close()
        os.close(self._table_file)
        os.close(self._lines)


def to_line(record: UsageRecord) -> bytes:
    """Return the record as one line of JSON, less what the account says."""
    usage = record.usage
    # By hand: the general way to do it takes longer than all else that a request costs here.
    value: dict[str, Any] = {name: getattr(record, name) for name in _OWN}
    value["end"] = record.end.value
    value["usage"] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
    }
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes, account: Account) -> UsageRecord:
    """Read what ``to_line`` wrote."""
    value: dict[str, Any] = json.loads(line)
    usage, end = Usage(**value.pop("usage")), RequestEnd(value.pop("end"))
    return UsageRecord(**_shared(account), **value, usage=usage, end=end)


def read_account(file: BinaryIO) -> tuple[Account, int] | None:
    """Return whose books these are, and where their records begin; None while they are made."""
    file.seek(0)
    line = file.readline()
    if not line.endswith(b"\n"):
        return None
    value: dict[str, Any] = json.loads(line)
    price = Price(**value.pop("price"))
    return Account(**value, price=price), len(line)


def read_lines(
    file: BinaryIO, account: Account, offset: int, most: int
) -> tuple[list[UsageRecord], int]:
    """Return at most ``most`` records from ``offset`` on, and the offset behind the last.

    A line without its end is still being written. Raises ``ValueError`` for one that is no record,
    as a loss of power may leave behind.
    """
    file.seek(offset)
    records: list[UsageRecord] = []
    while len(records) < most:
        line = file.readline()
        if not line.endswith(b"\n"):
            break
        offset += len(line)
        records.append(from_line(line, account))
    return records, offset


def read_cut(table: Path, account: Account, ended: frozenset[int]) -> Iterator[UsageRecord]:
    """Yield the requests that were under way when the writer died.

    ``ended`` are the sequences whose lines were written: one killed between writing a line and
    freeing its row has both. Duration is unknown then, and said as that to the first token.
    """
    raw = table.read_bytes()
    for row in range(len(raw) // _ROW.size):
        found = _ROW.unpack_from(raw, row * _ROW.size)
        state, _, sequence, *counts, at, first, share_s, request, key, api, model, trace = found
        if state != _OPEN or sequence in ended:
            continue
        arrival = Arrival(
            request_id=_plain(request),
            key=_plain(key),
            api=_plain(api),
            model=_plain(model),
            at=at,
            traceparent=_plain(trace),
        )
        prompt, completion, cached = counts
        entry = Entry(
            row=row,
            sequence=sequence,
            arrival=arrival,
            usage=Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached),
            first_token_at=first,
            share_s=share_s,
        )
        yield _make_record(account, entry, RequestEnd.CUT, 0, first or at)


def read_open_keys(table: Path) -> list[str]:
    """Return the key of each request that is under way."""
    raw = table.read_bytes()
    rows = (row for row in range(len(raw) // _ROW.size) if raw[row * _ROW.size] == _OPEN)
    return [_plain(_ROW.unpack_from(raw, row * _ROW.size)[_KEY]) for row in rows]


def is_written(table: Path) -> bool:
    """Return whether the writer of this table is alive."""
    with table.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _make_record(
    account: Account, entry: Entry, end: RequestEnd, status: int, now: float
) -> UsageRecord:
    arrival, first = entry.arrival, entry.first_token_at
    return UsageRecord(
        **_shared(account),
        sequence=entry.sequence,
        request_id=arrival.request_id,
        key=arrival.key,
        model=arrival.model or account.service,
        api=arrival.api,
        at=arrival.at,
        traceparent=arrival.traceparent or None,
        first_token_s=first - arrival.at if first else None,
        duration_s=max(now - arrival.at, 0.0),
        status=status,
        end=end,
        usage=entry.usage,
        cost=account.price.cost(entry.usage, entry.share_s),
    )


def _shared(account: Account) -> dict[str, Any]:
    return {
        "instance": account.instance,
        "project": account.project,
        "service": account.service,
        "digest": account.digest,
        "cell": account.cell,
    }


def _open_private(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _text(value: str, size: int) -> bytes:
    """Return the start of a text, cut between characters."""
    return value.encode()[:size].decode(errors="ignore").encode()


def _plain(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
