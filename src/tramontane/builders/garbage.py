"""Keep the store below a size; ``reconcile`` calls ``collect_garbage`` now and then."""

import json
import os
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tramontane.base.clock import Clock
from tramontane.builders.store import STORE_LOCK, Store, remove_tree

KEEP_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a collection did."""

    ran: bool
    """False if a build was going on; nothing was looked at then."""
    removed: tuple[str, ...] = ()
    """Digests of artifacts and keys of layers."""
    bytes_kept: int = 0


def collect_garbage(
    root: Path, in_use: Set[str], *, bytes_max: int, clock: Clock, keep_s: float = KEEP_S
) -> Collected:
    """Delete what is least recently used until the store is at most ``bytes_max``.

    Never deletes an artifact whose digest is in ``in_use``, one asked for in the last ``keep_s``
    seconds (its deployment may not be recorded yet), or a layer that a kept artifact mounts. Work
    that a killed build left is always deleted. Toolchains stay. Blocks; call it in a thread.
    """
    store = Store(root)
    store.ensure_folders()
    lock = store.try_lock(STORE_LOCK)
    if lock is None:
        return Collected(ran=False)
    try:
        for left in store.staging.iterdir():
            remove_tree(left)
        return _collect(store, in_use, bytes_max, clock.now() - keep_s)
    finally:
        os.close(lock)


def _collect(store: Store, in_use: Set[str], bytes_max: int, newest: float) -> Collected:
    sizes = {path: size_of(path) for path in _everything(store)}
    total = sum(sizes.values())
    removed: list[str] = []
    artifacts = sorted(store.artifacts.iterdir(), key=_used_at)
    for folder in artifacts:
        if (
            total > bytes_max
            and f"sha256:{folder.name}" not in in_use
            and _used_at(folder) < newest
        ):
            remove_tree(folder)
            total -= sizes.pop(folder)
            removed.append(f"sha256:{folder.name}")
    mounted = {key for folder in store.artifacts.iterdir() for key in _layers_of(folder)}
    for folder in sorted(store.layers.iterdir(), key=_modified_at):
        if total > bytes_max and folder.name not in mounted and _modified_at(folder) < newest:
            remove_tree(folder)
            total -= sizes.pop(folder)
            removed.append(folder.name)
    for folder in store.caches.iterdir():
        if total > bytes_max:
            remove_tree(folder)
            total -= sizes.pop(folder)
    return Collected(ran=True, removed=tuple(removed), bytes_kept=total)


def size_of(path: Path) -> int:
    """Return the bytes that a folder takes on the disk, links not followed."""
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            total += (Path(folder) / file).lstat().st_blocks * 512
    return total


def _everything(store: Store) -> Iterator[Path]:
    for parent in (store.artifacts, store.layers, store.caches, store.toolchains):
        yield from parent.iterdir()


def _used_at(folder: Path) -> float:
    return (folder / "artifact.json").stat().st_mtime


def _modified_at(folder: Path) -> float:
    return folder.stat().st_mtime


def _layers_of(folder: Path) -> list[str]:
    value: dict[str, Any] = json.loads((folder / "artifact.json").read_text("utf-8"))
    return cast("list[str]", value["layers"])
