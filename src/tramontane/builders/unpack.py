"""Unpack an uploaded archive that may have been made to harm.

``builders.build`` calls it before anything else looks at the upload. The rules:

- a name is relative, valid UTF-8, without ``..``, and occurs once;
- an entry is a folder, a regular file or a symbolic link; no hard links, devices or pipes;
- a symbolic link is relative and stays inside: some ``..`` that do not climb above the top, then
  only names (a ``..`` after a name could climb out through another link);
- nothing is written through a link;
- the number of entries, the bytes of one header and the bytes in total are limited.

A refusal is an ``InvalidRequest`` that names the entry, and leaves nothing behind.
"""

import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tramontane.base.errors import InvalidRequest

T = TypeVar("T")

COPY_BYTES = 64 * 1024
HEADER_BYTES_MAX = 1024**2
"""``tarfile`` reads an extended header at once, so this bounds the memory one entry can take."""


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """How much an upload may unpack to."""

    files_max: int = 50_000
    bytes_max: int = 2 * 1024**3


def unpack(archive: Path, target: Path, limits: ArchiveLimits | None = None) -> int:
    """Unpack a ``.tar.gz`` file into the new directory ``target``; return the number of entries.

    Files get mode 0644, or 0755 if they were executable, and the present time: build tools such
    as Cargo take an old time for "unchanged". Raises ``InvalidRequest`` for a hostile or broken
    archive, after which ``target`` does not exist.
    """
    target.mkdir(parents=True)
    try:
        with archive.open("rb") as raw:
            reader = _LimitedReader(raw, limits or ArchiveLimits())
            return _unpack(reader, target, limits or ArchiveLimits())
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        shutil.rmtree(target)
        raise InvalidRequest(f"the upload is no readable .tar.gz archive: {error}") from error
    except BaseException:
        shutil.rmtree(target)
        raise


class _LimitedReader(gzip.GzipFile):
    """A decompressor that gives up on an archive which unpacks to more than the limits."""

    def __init__(self, raw: io.BufferedReader, limits: ArchiveLimits) -> None:
        super().__init__(fileobj=raw, mode="rb")
        # Headers and padding take at most three blocks of 512 bytes for each entry.
        self._bytes_max = limits.bytes_max + limits.files_max * 1536 + HEADER_BYTES_MAX

    def read(self, size: int | None = -1) -> bytes:
        """Read at most ``size`` bytes; no single read may be large."""
        if size is None or size < 0 or size > HEADER_BYTES_MAX:
            raise InvalidRequest("the upload was refused: one of its headers is too large")
        data = super().read(size)
        if self.tell() > self._bytes_max:
            raise InvalidRequest("the upload was refused: it unpacks to too many bytes")
        return data


def _unpack(reader: _LimitedReader, target: Path, limits: ArchiveLimits) -> int:
    seen: set[str] = set()
    links: list[tuple[Path, str]] = []
    total = 0
    with tarfile.open(fileobj=reader, mode="r:", encoding="utf-8") as archive:
        for member in archive:
            name = _require_name(member.name)
            total += member.size
            _require(total <= limits.bytes_max, name, f"more than {limits.bytes_max} bytes in all")
            if not name:
                continue
            _require(name not in seen, name, "its name occurs twice")
            seen.add(name)
            _require(len(seen) <= limits.files_max, name, f"more than {limits.files_max} entries")
            if member.issym():
                links.append((target / name, _require_link(name, member.linkname)))
            else:
                _write(archive, member, name, target)
    while reader.read(COPY_BYTES):  # to the end, where the checksum is
        pass
    # Links come last and have nothing below them, so that no entry is written through one.
    link_names = {path.relative_to(target).as_posix() for path, _ in links}
    for name in seen:
        parents = (parent.as_posix() for parent in Path(name).parents)
        _require(link_names.isdisjoint(parents), name, "it lies below a link")
    for path, destination in links:
        name = path.relative_to(target).as_posix()
        _attempt(name, lambda p=path: p.parent.mkdir(parents=True, exist_ok=True))
        _attempt(name, lambda p=path, d=destination: p.symlink_to(d))
    return len(seen)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, target: Path) -> None:
    path = target / name
    if member.isdir():
        _attempt(name, lambda: path.mkdir(parents=True, exist_ok=True))
        return
    _require(member.isreg() and not member.issparse(), name, "it is no file, folder or link")
    content = archive.extractfile(member)
    assert content is not None, "a regular member has content"
    _attempt(name, lambda: path.parent.mkdir(parents=True, exist_ok=True))
    mode = 0o755 if member.mode & 0o111 else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(_attempt(name, lambda: os.open(path, flags, mode)), "wb") as file:
        os.fchmod(file.fileno(), mode)
        while data := content.read(COPY_BYTES):
            file.write(data)


def _require_name(raw: str) -> str:
    """Return the entry's name in its one form, ``""`` for the top itself."""
    try:
        raw.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the upload was refused at entry {raw!r}: its name is not valid UTF-8"
        ) from error
    _require(not raw.startswith("/"), raw, "its name is absolute")
    _require("\0" not in raw, raw, "its name holds a NUL")
    parts = [part for part in raw.split("/") if part not in {"", "."}]
    _require(".." not in parts, raw, "its name climbs with '..'")
    return "/".join(parts)


def _require_link(name: str, destination: str) -> str:
    """Return the link's destination in its one form, without empty parts."""
    try:
        destination.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the upload was refused at entry {name!r}: its link is not valid UTF-8"
        ) from error
    parts = [part for part in destination.split("/") if part not in {"", "."}]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    inside = (
        bool(parts)
        and not destination.startswith("/")
        and "\0" not in destination
        and climbs <= name.count("/")
        and ".." not in parts[climbs:]
    )
    _require(inside, name, f"it links to {destination!r}, which may lead outside")
    return "/".join(parts)


def _require(holds: bool, name: str, reason: str) -> None:
    if not holds:
        raise InvalidRequest(f"the upload was refused at entry {name!r}: {reason}")


def _attempt(name: str, work: Callable[[], T]) -> T:
    """Do file system work for an entry; a name the file system refuses is the upload's fault."""
    try:
        return work()
    except OSError as error:
        raise InvalidRequest(
            f"the upload was refused at entry {name!r}: {error.strerror}"
        ) from error
