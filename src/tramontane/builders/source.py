"""The parts of an unpacked source that decide how it is built, as a value.

``build`` reads it once; ``detect`` and its parts look at nothing else, which makes them pure.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tramontane.base.errors import InvalidRequest
from tramontane.domain.procfile import PROCFILE

TEXT_BYTES_MAX = 512 * 1024
TEXTS_MAX = 2_000
DEPTH_MAX = 4
NAMES_READ = (PROCFILE, "go.mod", ".npmrc")
SUFFIXES_READ = (".py", ".go", ".toml", ".json", ".xml", ".txt")


@dataclass(frozen=True, kw_only=True)
class SourceTree:
    """The names of all files, with ``/`` and from the top, and the texts of those that matter."""

    names: frozenset[str]
    texts: Mapping[str, str]

    def has(self, *names: str) -> bool:
        """Tell whether any of the files is there."""
        return any(name in self.names for name in names)

    def text(self, name: str) -> str:
        """Return a file's text, or nothing if it is not there, too large or not text."""
        return self.texts.get(name, "")

    def toml(self, name: str) -> dict[str, Any]:
        """Return a TOML file's content; raises ``InvalidRequest`` with the tool's own words."""
        try:
            return tomllib.loads(self.text(name))
        except tomllib.TOMLDecodeError as error:
            raise InvalidRequest(f"{name} is not valid TOML: {error}", path=name) from error


def make_tree(texts: Mapping[str, str]) -> SourceTree:
    """Return the tree of a source that has exactly these files."""
    return SourceTree(names=frozenset(texts), texts=dict(texts))


def read_tree(directory: Path) -> SourceTree:
    """Read a directory; links are names without text, because they may lead anywhere later."""
    names: set[str] = set()
    texts: dict[str, str] = {}
    for folder, folders, files in os.walk(directory):
        folders.sort()
        for file in sorted(files):
            path = Path(folder) / file
            name = path.relative_to(directory).as_posix()
            names.add(name)
            wanted = file in NAMES_READ or path.suffix in SUFFIXES_READ
            near = name.count("/") < DEPTH_MAX and len(texts) < TEXTS_MAX
            if wanted and near and not path.is_symlink():
                _read_text(path, name, texts)
    return SourceTree(names=frozenset(names), texts=texts)


def _read_text(path: Path, name: str, texts: dict[str, str]) -> None:
    if path.stat().st_size > TEXT_BYTES_MAX:
        return
    try:
        texts[name] = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        return
