"""Reads what builds, instances and the gateway's egress wrote, for ``tram logs``.

All of it is lines of JSON in files, so it survives every restart and is followed by looking for
more. The control plane hands a ``LogFiles`` to the API, and a ``LogStorage`` to garbage collection.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tramontane.domain.ids import ServiceId
from tramontane.domain.inventory import Item, ItemKind
from tramontane.wire.schemas import LogLine

LogSource = Literal["build", "runtime", "egress", "platform"]
BUILD = ".build.log"
FOLLOW_S = 0.25
READ_MAX = 256 * 1024


Parse = Callable[[bytes], LogLine | None]


@dataclass
class _Cursor:
    """How far one file has been read, whatever it is called now: rotation only renames."""

    path: Path
    parse: Parse
    offset: int = 0
    rest: bytes = b""

    def read(self) -> Iterator[LogLine]:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                while chunk := file.read(READ_MAX):
                    self.offset += len(chunk)
                    *lines, self.rest = (self.rest + chunk).split(b"\n")
                    for line in lines:
                        parsed = self.parse(line)
                        if parsed is not None:
                            yield parsed
        except FileNotFoundError:
            return


def _parse_output(line: bytes, source: LogSource, instance: str | None) -> LogLine | None:
    try:
        value = json.loads(line)
        return LogLine(
            at=float(value["at"]),
            source=source,
            instance=instance,
            stream=str(value.get("stream", "stdout")),
            text=str(value["text"]),
        )
    except (ValueError, KeyError, TypeError):
        # The last line of a process that was killed may be half a line.
        return None


def _parse_egress(line: bytes, service_id: ServiceId) -> LogLine | None:
    # All services share the file; looking for the id first spares parsing the others' lines.
    if service_id.encode() not in line:
        return None
    try:
        value = json.loads(line)
        if value["service_id"] != service_id:
            return None
        outcome, why = _judge_egress(value)
        asked = " ".join(filter(None, (outcome, value.get("method"), value.get("host"))))
        return LogLine(
            at=datetime.fromisoformat(value["at"]).timestamp(),
            source="egress",
            stream="stdout" if outcome == "allowed" else "stderr",
            text=f"{asked}: {why}" if why else asked,
        )
    except (ValueError, KeyError, TypeError):
        return None


def _judge_egress(value: Mapping[str, Any]) -> tuple[str, str]:
    """Return what became of a request to the outside, and why if it came to nothing."""
    verdict, reason = value.get("verdict"), str(value.get("reason") or "")
    if verdict == "denied":
        return "denied", str(value.get("why") or "")
    # A rule allowed the name; what it led to is another question.
    if "address_denied" in reason:
        return "denied", "it leads to an address of this machine or of a private network"
    if "dns_resolution_failure" in reason:
        return "failed", "the name has no address"
    # A tunnel that was opened ends in many ways, none of which is a failure.
    answered = 0 < int(value.get("code") or 0) < 400 or reason.startswith("via_upstream")
    if verdict == "allowed" and answered:
        return "allowed", ""
    return "failed", reason or "it was no request"


@dataclass(kw_only=True)
class LogFiles:
    """The log files of services (``<logs>/<service id>/…``) and the gateway's egress log."""

    logs: Path
    egress: Path
    """One JSON line per request of any instance to the outside (``gateway.egress``)."""
    follow_s: float = FOLLOW_S

    async def read(
        self,
        service_id: ServiceId,
        sources: Sequence[LogSource],
        *,
        since: float | None = None,
        instance: str | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> AsyncIterator[LogLine]:
        """Yield lines in the order of their time, then, with ``follow``, new ones as they come."""
        cursors: dict[int, _Cursor] = {}
        lines = await asyncio.to_thread(self._poll, service_id, cursors)
        lines = [each for each in lines if _wanted(each, sources, since, instance)]
        for line in lines[-tail:] if tail is not None else lines:
            yield line
        while follow:
            await asyncio.sleep(self.follow_s)
            for line in await asyncio.to_thread(self._poll, service_id, cursors):
                if _wanted(line, sources, since, instance):
                    yield line

    def _poll(self, service_id: ServiceId, cursors: dict[int, _Cursor]) -> list[LogLine]:
        for inode, path, parse in self._files(service_id):
            if inode in cursors:
                cursors[inode].path = path
            else:
                cursors[inode] = _Cursor(path, parse)
        found = [line for cursor in cursors.values() for line in cursor.read()]
        return sorted(found, key=lambda line: line.at)

    def _files(self, service_id: ServiceId) -> list[tuple[int, Path, Parse]]:
        own = [(path, _parser_of(path)) for path in (self.logs / service_id).glob("*.log*")]
        shared = [
            (path, partial(_parse_egress, service_id=service_id))
            for path in self.egress.parent.glob(f"{self.egress.name}*")
        ]
        found: list[tuple[int, Path, Parse]] = []
        for path, parse in (*own, *shared):
            # Rotated or removed between listing and looking: the next poll sees it right.
            with suppress(OSError):
                found.append((path.stat().st_ino, path, parse))
        return found


def _parser_of(path: Path) -> Parse:
    if BUILD in path.name:
        return partial(_parse_output, source="build", instance=None)
    return partial(_parse_output, source="runtime", instance=path.name.partition(".")[0])


def _wanted(
    line: LogLine, sources: Sequence[LogSource], since: float | None, instance: str | None
) -> bool:
    return (
        (not sources or line.source in sources)
        and (since is None or line.at >= since)
        and (instance is None or line.instance == instance)
    )


class LogWriter:
    """Appends lines in the same form: for what the control plane runs itself, such as builds."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._path = path

    def write(self, text: str, at: float, stream: str = "stdout") -> None:
        """Append one line, whole; ``at`` is in seconds since the epoch."""
        line = json.dumps({"at": at, "stream": stream, "text": text}, ensure_ascii=False)
        # A build may outlive its service, whose logs were removed: nobody can ask for this line.
        with suppress(FileNotFoundError), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class LogStorage:
    """The log files of services, as garbage collection sees them. Every method blocks."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs

    def list_items(self) -> list[Item]:
        """Return the folder of each service and every file in it."""
        items: list[Item] = []
        for folder in filter(Path.is_dir, self._logs.iterdir()):
            items.append(Item(kind=ItemKind.LOG, name=folder.name))
            for path in folder.iterdir():
                # Rotated since it was listed: the next look sees it under its new name.
                with suppress(FileNotFoundError):
                    found = path.stat()
                    items.append(
                        Item(
                            kind=ItemKind.LOG,
                            name=f"{folder.name}/{path.name}",
                            size_bytes=found.st_blocks * 512,
                            used_at=found.st_mtime,
                        )
                    )
        return items

    def remove(self, item: Item, let_go: Callable[[], bool]) -> bool:
        """Remove a file, or an empty folder; ids are never used again, so nobody can need it."""
        path = self._logs / item.name
        if not let_go():
            return False
        try:
            path.rmdir() if path.is_dir() else path.unlink()
        except OSError:
            # Somebody wrote to it just now.
            return False
        return True
