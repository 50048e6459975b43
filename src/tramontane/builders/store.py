"""Where builds leave their results, so that a crash at any point leaves nothing half done.

    <root>/artifacts/<digest>/   artifact.json, app/: one built program
    <root>/layers/<key>/         content/: dependencies, shared by artifacts; layer.json
    <root>/toolchains/<name>/    tools the platform installed, one folder per version
    <root>/caches/<scope>/       download and compile caches of tools; may be deleted at any time
    <root>/staging/<key>.…/      work in progress; moved to its place by one rename when complete
    <root>/locks/<key>           held while somebody makes or uses what is named so

An artifact or a layer exists with everything in it, or not at all: it comes by one rename and goes
by one. ``artifact.json`` names the layers, which is how garbage is told from what is in use.

Locks are the kernel's, so those of a killed process are free. A build holds what it makes alone,
and what it uses together with others; ``builders.garbage`` removes only what it can lock alone.
"""

import asyncio
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from tramontane.domain.artifact import Artifact, Listen, Mount

POLL_S = 0.05


def digest_of(*parts: object) -> str:
    """Return the SHA-256 of values that JSON can write; the same for equal values."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """The folders of all builds of one platform."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.layers = root / "layers"
        self.toolchains = root / "toolchains"
        self.caches = root / "caches"
        self.staging = root / "staging"
        self.locks = root / "locks"

    def ensure_folders(self) -> None:
        """Make the folders that are not there yet."""
        self.root.mkdir(parents=True, exist_ok=True)
        for path in (
            *(self.artifacts, self.layers, self.toolchains),
            *(self.caches, self.staging, self.locks),
        ):
            path.mkdir(exist_ok=True)

    @asynccontextmanager
    async def lock(self, key: str, *, shared: bool = False) -> AsyncGenerator[None]:
        """Hold the lock of a key, against other tasks and other processes alike."""
        # The kernel wakes nobody who waits for a file lock without blocking a thread.
        while (lock := self.try_lock(key, shared=shared)) is None:
            await asyncio.sleep(POLL_S)
        try:
            yield
        finally:
            lock.free()

    def hold(self, folder: Path) -> AbstractAsyncContextManager[None]:
        """Use a folder of the store: while the block runs, garbage collection leaves it alone."""
        return self.lock(use_key(folder), shared=True)

    def try_lock(self, key: str, *, shared: bool = False) -> "Lock | None":
        """Return the lock of a key if it is free, for the caller to free again."""
        path = self.locks / key
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock = Lock(path, descriptor)
        if lock.take(shared=shared):
            return lock
        os.close(descriptor)
        return None

    def make_staging(self, key: str) -> Path:
        """Return a new folder for work on ``key``; the caller holds the key's lock.

        What an earlier holder left when it was killed is deleted first.
        """
        for left in self.staging.glob(f"{key}.*"):
            remove_tree(left)
        return Path(tempfile.mkdtemp(prefix=f"{key}.", dir=self.staging))

    def publish(self, staged: Path, final: Path) -> None:
        """Move complete work to its place; what is already there stays, as it is the same."""
        staged.chmod(0o755)
        try:
            staged.rename(final)
        except OSError:
            if not final.is_dir():
                raise
            remove_tree(staged)

    def read_artifact(self, digest: str) -> Artifact | None:
        """Return a built artifact, if it is there."""
        path = self.artifact_folder(digest) / "artifact.json"
        try:
            value: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        return Artifact(
            digest=value["digest"],
            language=value["language"],
            command=tuple(value["command"]),
            directory=value["directory"],
            mounts=tuple(Mount(**mount) for mount in value["mounts"]),
            environment=tuple((name, text) for name, text in value["environment"]),
            listen=Listen(value["listen"]),
        )

    def write_artifact(self, staged: Path, artifact: Artifact, layers: Sequence[str]) -> None:
        """Write ``artifact.json`` into a staged folder."""
        own = {"layers": list(layers), "size_bytes": size_of(staged)}
        value = {**dataclasses.asdict(artifact), **own}
        (staged / "artifact.json").write_text(json.dumps(value, indent=1), "utf-8")

    def write_layer(self, staged: Path) -> None:
        """Write ``layer.json`` into a staged folder."""
        (staged / "layer.json").write_text(json.dumps({"size_bytes": size_of(staged)}), "utf-8")

    def mark_used(self, digest: str) -> None:
        """Note that an artifact was asked for, so that garbage collection leaves it a while."""
        os.utime(self.artifact_folder(digest) / "artifact.json")

    def artifact_folder(self, digest: str) -> Path:
        """Return where an artifact is or would be."""
        return self.artifacts / digest.removeprefix("sha256:")

    def take_away(self, path: Path) -> Path:
        """Move a thing out of its place by one rename and return a folder to delete it with."""
        away = Path(tempfile.mkdtemp(prefix=f"away-{path.name}.", dir=self.staging))
        path.rename(away / path.name)
        return away


class Lock:
    """A lock that is held, or about to be."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def take(self, *, shared: bool) -> bool:
        """Take it if it is free, and return whether it was."""
        return self._try(fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def free(self) -> None:
        """Let go; the last to hold it deletes its file, or there would be one for every build."""
        if self._try(fcntl.LOCK_EX):
            self._path.unlink()
        os.close(self._descriptor)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
            # An earlier holder may have deleted the file since it was opened, and then another
            # one is locked by now. Only who has the file's lock deletes it, so ours stays.
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except (BlockingIOError, FileNotFoundError):
            return False


def use_key(folder: Path) -> str:
    """Return the key of the lock that those who use a folder hold together."""
    return f"use-{folder.parent.name}-{folder.name}"


def size_of(path: Path) -> int:
    """Return the bytes that a folder takes on the disk, links not followed."""
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            total += (Path(folder) / file).lstat().st_blocks * 512
    return total


def remove_tree(path: Path) -> None:
    """Delete a folder, also where a tool made parts of it read-only."""
    if path.is_symlink() or path.is_file():
        path.unlink()
        return
    for folder, _, _ in os.walk(path):
        Path(folder).chmod(0o700)
    shutil.rmtree(path, ignore_errors=False)
