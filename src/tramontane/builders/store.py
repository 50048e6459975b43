"""Where builds leave their results, so that a crash at any point leaves nothing half done.

    <root>/artifacts/<digest>/   artifact.json, app/: one built program
    <root>/layers/<key>/         content/: dependencies, shared by artifacts; layer.json
    <root>/toolchains/<name>/    tools the platform installed, one folder per version
    <root>/caches/<scope>/       download and compile caches of tools; may be deleted at any time
    <root>/staging/<key>.<pid>…/ work in progress; moved to its place by one rename when complete
    <root>/locks/<key>           held while its holder builds that key; freed by the kernel

An artifact or a layer exists with everything in it, or not at all. ``artifact.json`` names the
layers, which is how garbage is told from what is in use.
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
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tramontane.domain.artifact import Artifact, Listen, Mount

POLL_S = 0.05
STORE_LOCK = "store"
"""Builds hold it together, garbage collection alone."""


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
        descriptor = os.open(self.locks / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The kernel wakes nobody who waits for a file lock without blocking a thread.
            while not _try_lock(descriptor, shared=shared):
                await asyncio.sleep(POLL_S)
            yield
        finally:
            os.close(descriptor)

    def try_lock(self, key: str) -> int | None:
        """Take a lock alone if it is free, and return its descriptor, which frees it if closed."""
        descriptor = os.open(self.locks / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _try_lock(descriptor, shared=False):
            return descriptor
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
        value = {**dataclasses.asdict(artifact), "layers": list(layers)}
        (staged / "artifact.json").write_text(json.dumps(value, indent=1), "utf-8")

    def mark_used(self, digest: str) -> None:
        """Note that an artifact was asked for, so that garbage collection takes others first."""
        os.utime(self.artifact_folder(digest) / "artifact.json")

    def artifact_folder(self, digest: str) -> Path:
        """Return where an artifact is or would be."""
        return self.artifacts / digest.removeprefix("sha256:")


def remove_tree(path: Path) -> None:
    """Delete a folder, also where a tool made parts of it read-only."""
    if path.is_symlink() or path.is_file():
        path.unlink()
        return
    for folder, _, _ in os.walk(path):
        Path(folder).chmod(0o700)
    shutil.rmtree(path, ignore_errors=False)


def _try_lock(descriptor: int, *, shared: bool) -> bool:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
