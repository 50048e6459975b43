"""What lies in the store of builds, and how a thing of it is removed; decides nothing.

``reconcile.garbage`` lists and removes; ``plan.garbage`` says what. Before anything goes, it is
locked alone, so no build uses it or can begin to; then it is looked at once more, because what a
build left since the plan was made may need it; then it leaves its place by one rename. A build
that comes a moment later makes it anew.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tramontane.builders.store import Store, remove_tree, size_of, use_key
from tramontane.domain.inventory import Item, ItemKind


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What was found out about a folder, which costs a walk through it."""

    size_bytes: int
    layers: tuple[str, ...] = ()
    written_at: float = 0.0
    measured_for: float = 0.0
    """A cache changes with every use: this is the use that it was measured after."""


class BuildStorage:
    """The folders of all builds, as garbage collection sees them. Every method blocks."""

    def __init__(self, root: Path) -> None:
        self._store = Store(root)
        self._known: dict[Path, _Known] = {}

    def list_items(self) -> list[Item]:
        """Return everything there is."""
        self._store.ensure_folders()
        for path in list(self._store.locks.iterdir()):
            # A killed process leaves the file of a lock; freeing the lock deletes it.
            self._is_free(path.name)
        items = [
            *self._artifacts(),
            *self._layers(),
            *self._toolchains(),
            *self._caches(),
            *self._leftovers(),
        ]
        present = {self._path(each) for each in items}
        self._known = {path: each for path, each in self._known.items() if path in present}
        return items

    def remove(self, item: Item, let_go: Callable[[], bool]) -> bool:
        """Remove an item unless it is in use or needed; return whether it went.

        ``let_go`` is asked when no build can begin to use it, and says no if it is needed after
        all.
        """
        path = self._path(item)
        lock = self._store.try_lock(_lock_key(item, path))
        if lock is None:
            return False
        try:
            if not os.path.lexists(path) or self._is_mounted(item) or not let_go():
                return False
            if item.kind is ItemKind.LEFTOVER:
                # Under the lock to the end: the next who works on this clears its place first.
                remove_tree(path)
                return True
            away = self._store.take_away(path)
        finally:
            lock.free()
        remove_tree(away)
        return True

    def _path(self, item: Item) -> Path:
        store = self._store
        match item.kind:
            case ItemKind.ARTIFACT:
                return store.artifact_folder(item.name)
            case ItemKind.LAYER:
                return store.layers / item.name
            case ItemKind.CACHE:
                return store.caches / item.name
            case ItemKind.TOOLCHAIN:
                return store.toolchains / item.name
            case _:
                return store.staging / item.name

    def _is_mounted(self, item: Item) -> bool:
        if item.kind is not ItemKind.LAYER:
            return False
        return any(item.name in each.layers for each in self._artifacts())

    def _artifacts(self) -> Iterator[Item]:
        for folder in self._store.artifacts.iterdir():
            known = self._know(folder, "artifact.json")
            yield Item(
                kind=ItemKind.ARTIFACT,
                name=f"sha256:{folder.name}",
                size_bytes=known.size_bytes,
                used_at=_modified_at(folder / "artifact.json"),
                layers=known.layers,
            )

    def _layers(self) -> Iterator[Item]:
        for folder in self._store.layers.iterdir():
            yield Item(
                kind=ItemKind.LAYER,
                name=folder.name,
                size_bytes=self._know(folder, "layer.json").size_bytes,
                used_at=_modified_at(folder),
            )

    def _toolchains(self) -> Iterator[Item]:
        for folder in self._store.toolchains.iterdir():
            if folder not in self._known:
                self._known[folder] = _Known(size_bytes=size_of(folder))
            yield Item(
                kind=ItemKind.TOOLCHAIN,
                name=folder.name,
                size_bytes=self._known[folder].size_bytes,
            )

    def _caches(self) -> Iterator[Item]:
        for scope in self._store.caches.iterdir():
            used_at = _modified_at(scope)
            busy = not self._is_free(use_key(scope))
            for entry in scope.iterdir():
                known = self._known.get(entry)
                # While a build writes there, an old number is as good as a new one.
                if known is None or (known.measured_for != used_at and not busy):
                    self._known[entry] = known = _measure(entry, used_at)
                yield Item(
                    kind=ItemKind.CACHE,
                    name=f"{scope.name}/{entry.name}",
                    size_bytes=known.size_bytes,
                    used_at=known.written_at,
                )

    def _leftovers(self) -> Iterator[Item]:
        for path in self._store.staging.iterdir():
            item = Item(kind=ItemKind.LEFTOVER, name=path.name)
            if self._is_free(_lock_key(item, path)):
                yield item

    def _is_free(self, key: str) -> bool:
        lock = self._store.try_lock(key)
        if lock is not None:
            lock.free()
        return lock is not None

    def _know(self, folder: Path, file: str) -> _Known:
        if folder not in self._known:
            found: dict[str, Any] = {}
            with suppress(FileNotFoundError):
                found = json.loads((folder / file).read_text("utf-8"))
            # Versions before this one did not write the size down.
            size_bytes = found["size_bytes"] if "size_bytes" in found else size_of(folder)
            layers = tuple(found.get("layers", ()))
            self._known[folder] = _Known(size_bytes=size_bytes, layers=layers)
        return self._known[folder]


def _measure(cache: Path, used_at: float) -> _Known:
    size_bytes, written_at = 0, cache.lstat().st_mtime
    # Code of users writes here, and may have left a link to anywhere, or be writing now.
    for folder, _, files in os.walk(cache) if not cache.is_symlink() else ():
        for file in files:
            with suppress(FileNotFoundError):
                found = (Path(folder) / file).lstat()
                size_bytes += found.st_blocks * 512
                written_at = max(written_at, found.st_mtime)
    return _Known(size_bytes=size_bytes, written_at=written_at, measured_for=used_at)


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _lock_key(item: Item, path: Path) -> str:
    """Return the key of the lock that those who make or use an item hold."""
    match item.kind:
        case ItemKind.LEFTOVER:
            return path.name.rpartition(".")[0]
        case ItemKind.CACHE:
            return use_key(path.parent)
        case _:
            return use_key(path)
