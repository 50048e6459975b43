"""Fetches files into the cache: in parts, several at a time, resumed where an earlier run ended.

Runs in a process of its own (``processes.fetch``), so that no wake waits behind a gigabyte, and may
be killed at any byte. A file is seen by others only when it is whole and its content is what the
source promised. Where a source knows no checksum, what came is named by its own.
"""

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace

from tramontane.base.errors import SourceFailed, TramontaneError, Unsupported
from tramontane.domain.reference import RemoteReference
from tramontane.domain.weights import RemoteFile
from tramontane.weights.cache import Cache
from tramontane.weights.contents import Check
from tramontane.weights.partial import Part, Partial
from tramontane.weights.sources import Sources
from tramontane.weights.transport import (
    PASSING,
    Answer,
    Interrupted,
    Transport,
    pause_after,
    wait_asked_for,
)

PART_BYTES = 32 * 1024**2
"""Of one request; hubs count those, and answer each with a redirect to sign."""
NOTE_BYTES = 4 * 1024**2
"""After so many it is remembered how far a part is: what a kill costs, per connection."""
CONNECTIONS = 6
"""One seldom fills a line to a delivery network; many look like an attack."""
ATTEMPTS_MAX = 9
"""In a row without a new byte: about two minutes."""
HELD_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """How files are fetched; tests cut them smaller."""

    part_bytes: int = PART_BYTES
    note_bytes: int = NOTE_BYTES
    connections: int = CONNECTIONS
    attempts_max: int = ATTEMPTS_MAX


class Stopped(Exception):
    """Nobody wants the files any more, or another part has failed."""


class _NoRanges(Exception):
    """The source hands out whole files only."""


class _Spoiled(Exception):
    """What came is not what was promised."""


@dataclass(kw_only=True)
class Download:
    """One fetch of the files of one model."""

    reference: RemoteReference
    files: Sequence[RemoteFile]
    cache: Cache
    sources: Sources
    transport: Transport
    options: DownloadOptions = field(default_factory=DownloadOptions)
    on_bytes: Callable[[int], None] = lambda _: None
    """Called with the bytes that are here, from any thread; they may become fewer again."""
    stop: threading.Event = field(default_factory=threading.Event)

    _done: dict[str, int] = field(init=False, default_factory=dict[str, int])
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def run(self) -> dict[str, str]:
        """Fetch what is missing; return the sha256 of each file by its name.

        Raises ``Stopped``, or a ``TramontaneError`` that says what the user should know. What has
        arrived stays for the next run, unless it is wrong.
        """
        try:
            return {file.name: self._ensure(file) for file in self.files}
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise Unsupported(
                f"the disk under {self.cache.root} is full; make room and deploy again: what has "
                "arrived is kept"
            ) from error

    def _ensure(self, file: RemoteFile) -> str:
        source = self.sources.name(self.reference)
        while not self.stop.is_set():
            stored = self.cache.find_file(file, source)
            if stored is not None:
                self._note(file, file.size_bytes)
                return stored.sha256
            folder = self.cache.partial_folder(file, source)
            partial = Partial.hold(folder, file.size_bytes, self.options.part_bytes)
            if partial is None:
                # Somebody else is at it; when he ends, it is here or ours to go on with.
                self.stop.wait(HELD_POLL_S)
                continue
            with closing(partial):
                resumed = partial.bytes_left < file.size_bytes
                try:
                    return self._fetch(file, partial, source)
                except _Spoiled:
                    partial.discard()
                    if not resumed:
                        raise self._mismatch(file) from None
                    # Perhaps it was spoiled since an earlier run; from an empty start it cannot be.
        raise Stopped

    def _fetch(self, file: RemoteFile, partial: Partial, source: str) -> str:
        try:
            self._fetch_parts(file, partial)
        except _NoRanges:
            partial.restart(max(file.size_bytes, 1))
            self._fetch_parts(file, partial)
        check = Check(file)
        partial.feed(check.hashes, self.stop.is_set)
        if self.stop.is_set():
            raise Stopped
        sha256 = check.finish()
        if sha256 is None:
            raise _Spoiled
        partial.publish(self.cache.blob(sha256))
        self.cache.note_content(file, source, sha256)
        return sha256

    def _fetch_parts(self, file: RemoteFile, partial: Partial) -> None:
        waiting = deque(partial.missing)
        failed = threading.Event()
        self._note(file, file.size_bytes - partial.bytes_left)

        def work() -> None:
            while waiting and not failed.is_set():
                try:
                    part = waiting.popleft()
                except IndexError:
                    return
                try:
                    _PartDownload(self, file, partial, part, failed).run()
                    partial.note(part, part.end)
                except BaseException:
                    failed.set()
                    raise

        with ThreadPoolExecutor(max(min(self.options.connections, len(waiting)), 1)) as pool:
            ends = [pool.submit(work) for _ in range(self.options.connections)]
        errors = [error for each in ends if (error := each.exception()) is not None]
        # Those that stopped did so because of another, whose reason is the one to tell.
        for error in sorted(errors, key=lambda each: isinstance(each, Stopped)):
            raise error

    def _mismatch(self, file: RemoteFile) -> TramontaneError:
        return SourceFailed(
            f"{self.reference}: what came for {file.name} has not the checksum "
            f"{file.archive.sha256 if file.archive else file.checksum}; "
            "none of it is kept, and trying again may help"
        )

    def _note(self, file: RemoteFile, done_bytes: int) -> None:
        with self._lock:
            self._done[file.name] = done_bytes
            total = sum(self._done.values())
        self.on_bytes(total)

    def add_bytes(self, file: RemoteFile, count: int) -> None:
        """Note that so many more bytes of a file are here, or fewer if negative."""
        with self._lock:
            self._done[file.name] += count
            total = sum(self._done.values())
        self.on_bytes(total)


@dataclass
class _PartDownload:
    """One part, fetched by one request or, where the connection breaks, by several."""

    download: Download
    file: RemoteFile
    partial: Partial
    part: Part
    failed: threading.Event

    def run(self) -> None:
        options, stop = self.download.options, self.download.stop
        at = furthest = noted = self.part.start
        failures = 0
        while at < self.part.end:
            try:
                for chunk in self._read(at):
                    self.partial.write(chunk, at)
                    at += len(chunk)
                    self.download.add_bytes(self.file, len(chunk))
                    if at - noted >= options.note_bytes and at < self.part.end:
                        self.partial.note(self.part, at)
                        noted = at
                    if stop.is_set() or self.failed.is_set():
                        raise Stopped
            except _NoRanges:
                if not self._is_whole:
                    raise
                self.download.add_bytes(self.file, self.part.start - at)
                at = noted = self.part.start
            except Interrupted as error:
                failures = 0 if at > furthest else failures + 1
                furthest = max(at, furthest)
                if failures >= options.attempts_max:
                    raise
                self.download.transport.pause(error.retry_after_s or pause_after(failures))

    @property
    def _is_whole(self) -> bool:
        everything = self.part.start == 0 and self.part.end == self.file.size_bytes
        return everything and self.file.archive is None

    def _read(self, at: int) -> Iterator[bytes]:
        download = self.download
        request = download.sources.request(download.reference, self.file)
        if at or not self._is_whole:
            wanted = f"bytes={self._range(at)}"
            request = replace(request, headers={**request.headers, "Range": wanted})
        with download.transport.open(request) as answer:
            if request.tag and answer.headers.get("etag", request.tag) != request.tag:
                raise self._replaced()
            self._check(answer, at)
            left = self.part.end - at
            for chunk in answer.chunks():
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return
        raise Interrupted(f"{self.file.name}: {answer.host} ended before the end of the file")

    def _range(self, at: int) -> str:
        """Return what is asked for: in an archive, the content begins after its head."""
        before = len(self.file.archive.head) // 2 if self.file.archive else 0
        return f"{before + at}-{before + self.part.end - 1}"

    def _check(self, answer: Answer, at: int) -> None:
        """Return if the body is the range from ``at``; raise what it means otherwise."""
        archive = self.file.archive
        around = len(archive.head) // 2 + archive.tail_bytes if archive else 0
        expected = f"bytes {self._range(at)}/{self.file.size_bytes + around}"
        match answer.status:
            case 206 if answer.headers.get("content-range", "") == expected:
                return
            case 200 if at == 0 and self._is_whole:
                return
            case 200 if archive is not None:
                raise SourceFailed(f"{answer.host} hands out whole archives only")
            case 200:
                raise _NoRanges
            case 206:
                raise self._replaced()
            case status if status in PASSING or (answer.redirected and status in {401, 403}):
                # A permission that a redirect carried has run out; asking anew gives another.
                said = f"{self.file.name}: {answer.host} answers with status {status}"
                raise Interrupted(said, retry_after_s=wait_asked_for(answer))
            case _:
                download = self.download
                raise download.sources.refuse(download.reference, answer, answer.read())

    def _replaced(self) -> SourceFailed:
        return SourceFailed(
            f"{self.download.reference}: {self.file.name} was replaced while it was being fetched; "
            "deploy it again"
        )
