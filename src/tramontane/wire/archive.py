"""Pack a directory of source code for the upload, so that equal content has an equal digest.

The command line and the Python client call ``pack``; ``tramontane.builders.unpack`` is the other
half and trusts nothing that is written here.

Left out: what no build needs from the uploader's machine (version control, virtual environments,
installed packages, caches, the outputs of Cargo and Maven), and what the ``.gitignore`` and then
the ``.tramignore`` of the directory name. Patterns are read as Git reads them: ``*`` stays within
a name, ``**`` crosses folders, a ``/`` at the start or in the middle anchors to the top, one at
the end means folders only, ``!`` takes a pattern back; the last match decides.
"""

import gzip
import hashlib
import os
import re
import tarfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tramontane.base.errors import InvalidRequest

ARCHIVE_BYTES_MAX = 256 * 1024**2
"""The default limit of one upload, packed; far above source code, below a data set."""

FOLDERS_SKIPPED = frozenset(
    {
        *(".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".tox"),
        *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".idea", ".vscode"),
    }
)
FILES_SKIPPED = frozenset({".DS_Store", ".tramignore"})
OUTPUT_OF = {"target": ("Cargo.toml", "pom.xml")}
"""A folder that is a build's output, but only beside one of these files."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What ``pack`` wrote."""

    digest: str
    """``sha256:…`` of the archive."""
    size_bytes: int
    files: int


@dataclass(frozen=True)
class IgnoreRule:
    """One line of an ignore file."""

    pattern: re.Pattern[str]
    takes_back: bool
    folders_only: bool


def pack(directory: Path, target: Path, *, bytes_max: int = ARCHIVE_BYTES_MAX) -> Packed:
    """Write the directory as a gzipped tar file to ``target`` and return its digest.

    Names are sorted, and times and owners are dropped, so only content decides the digest.
    Raises ``InvalidRequest`` if there is nothing to pack, if a link leaves the directory, or if
    the archive would exceed ``bytes_max``; ``target`` is removed then.
    """
    if not directory.is_dir():
        raise InvalidRequest(f"cannot deploy {directory}: it is not a directory")
    rules = read_rules(directory)
    try:
        count = _write(directory, target, rules, bytes_max)
        with target.open("rb") as packed:
            digest = hashlib.file_digest(packed, "sha256").hexdigest()
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return Packed(digest=f"sha256:{digest}", size_bytes=target.stat().st_size, files=count)


def read_rules(directory: Path) -> tuple[IgnoreRule, ...]:
    """Read the directory's ``.gitignore`` and ``.tramignore``; the latter comes last and wins."""
    rules: list[IgnoreRule] = []
    for name in (".gitignore", ".tramignore"):
        path = directory / name
        if path.is_file():
            lines = path.read_text("utf-8", errors="replace").splitlines()
            rules.extend(parse_rule(line) for line in lines if line.strip() and line[0] != "#")
    return tuple(rules)


def parse_rule(line: str) -> IgnoreRule:
    """Turn one line of an ignore file into a rule; pure."""
    text = line.strip()
    takes_back = text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    anchored = "/" in text
    expression = _expression(text.lstrip("/"))
    prefix = "" if anchored else "(?:.*/)?"
    return IgnoreRule(re.compile(f"{prefix}{expression}"), takes_back, folders_only)


def is_ignored(name: str, *, folder: bool, rules: Sequence[IgnoreRule]) -> bool:
    """Tell whether the rules leave out ``name``, a path with ``/`` from the top; pure."""
    ignored = False
    for rule in rules:
        if (folder or not rule.folders_only) and rule.pattern.fullmatch(name):
            ignored = not rule.takes_back
    return ignored


def _expression(glob: str) -> str:
    tokens = {
        "/**/": "/(?:.*/)?",
        "**/": "(?:.*/)?",
        "/**": "/.*",
        "**": ".*",
        "*": "[^/]*",
        "?": "[^/]",
    }
    parts = re.split(r"(/\*\*/|\*\*/|/\*\*|\*\*|\*|\?|\[[^\]]+\])", glob)
    out: list[str] = []
    for part in parts:
        if part in tokens:
            out.append(tokens[part])
        elif part.startswith("[") and part.endswith("]"):
            out.append("[" + part[1:-1].replace("\\", "\\\\").replace("!", "^", 1) + "]")
        else:
            out.append(re.escape(part))
    return "".join(out)


def _walk(root: Path, folder: Path, rules: Sequence[IgnoreRule]) -> Iterator[Path]:
    with _naming(folder):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    names = {entry.name for entry in entries}
    for entry in entries:
        path = Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_ignored(path.relative_to(root).as_posix(), folder=is_folder, rules=rules):
            continue
        if is_folder:
            is_output = any(mark in names for mark in OUTPUT_OF.get(entry.name, ()))
            if entry.name not in FOLDERS_SKIPPED and not is_output:
                yield from _walk(root, path, rules)
        elif entry.name not in FILES_SKIPPED and (entry.is_symlink() or entry.is_file()):
            yield path


def _write(directory: Path, target: Path, rules: Sequence[IgnoreRule], bytes_max: int) -> int:
    count = 0
    with target.open("wb") as raw:
        # The inner file name and time of gzip would make equal content differ.
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as gz,
            tarfile.open(fileobj=gz, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in _walk(directory, directory, rules):
                if path.absolute() != target.absolute():
                    _add(archive, directory, path)
                    _require_small(directory, raw.tell(), bytes_max)
                    count += 1
        _require_small(directory, raw.tell(), bytes_max)
    if count == 0:
        raise InvalidRequest(f"cannot deploy {directory}: it has no files")
    return count


def _add(archive: tarfile.TarFile, root: Path, path: Path) -> None:
    name = path.relative_to(root).as_posix()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"cannot pack {name!r}: rename it to valid UTF-8") from error
    member = tarfile.TarInfo(name)
    if path.is_symlink():
        _require_inside(root, path, name)
        member.type = tarfile.SYMTYPE
        member.linkname = path.readlink().as_posix()
        archive.addfile(member)
        return
    with _naming(path), path.open("rb") as content:
        status = os.fstat(content.fileno())
        member.size = status.st_size
        member.mode = 0o755 if status.st_mode & 0o111 else 0o644
        archive.addfile(member, content)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    try:
        yield
    except PermissionError as error:
        raise InvalidRequest(
            f"cannot read {path}: {error.strerror}",
            next_step="make it readable, or name it in .tramignore",
        ) from error


def _require_inside(root: Path, path: Path, name: str) -> None:
    target = path.readlink()
    lexical = Path(os.path.normpath(path.parent.relative_to(root) / target))
    if target.is_absolute() or lexical.parts[:1] == ("..",):
        raise InvalidRequest(
            f"cannot pack the link {name!r}: it leads to {str(target)!r}, outside the directory; "
            "replace it by a copy, or name it in .tramignore"
        )


def _require_small(directory: Path, size_bytes: int, bytes_max: int) -> None:
    if size_bytes > bytes_max:
        raise InvalidRequest(
            f"cannot deploy {directory}: packed it exceeds {bytes_max // 1024**2} MiB; "
            "name data and build outputs in .tramignore"
        )
