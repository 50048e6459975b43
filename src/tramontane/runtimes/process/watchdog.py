"""Measures what the kernel does not limit here, and says when an instance must end for it.

A supervisor asks it again and again, and ``confining`` asks its meter. Memory is measured only
where no control group holds it; what a program writes into its temporary directories counts, since
they are memory too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tramontane.runtimes.process import processes
from tramontane.runtimes.process.cgroups import Controller, Group
from tramontane.runtimes.process.sandbox import TMPFS_DIRECTORIES

_CALM_S = 0.5
_ALERT_S = 0.05
_ALERT_FRACTION = 0.5
_APP_DIRECTORY_BYTES_MAX = 1024**2
_APP_DIRECTORY_ENTRIES_MAX = 64


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An instance must end: why, in a stable code and in a sentence."""

    reason: str
    message: str


class MemoryMeter:
    """Tells when processes hold more memory than they may."""

    def __init__(
        self, *, memory_bytes: int, group: Group, processes_of: Callable[[], list[int]]
    ) -> None:
        self._memory_bytes = memory_bytes
        self._group = group
        self._processes_of = processes_of
        self._measures = Controller.MEMORY not in group.controllers
        self.interval_s = _CALM_S
        """How soon to look again: sooner when the limit is near."""

    def is_over(self, files_bytes: int = 0) -> bool:
        """Look now; ``files_bytes`` lie in memory as files and count as well."""
        if self._group.out_of_memory_kills() > 0:
            return True
        if not self._measures:
            return False
        pids = self._processes_of()
        used = processes.resident_bytes(pids) + files_bytes
        if used > self._memory_bytes:
            # Pages shared after a fork were counted for each process; now count them once.
            used = processes.proportional_bytes(pids) + files_bytes
        near = used > self._memory_bytes * _ALERT_FRACTION
        self.interval_s = _ALERT_S if near else _CALM_S
        return used > self._memory_bytes


class Watchdog:
    """Watches over one instance."""

    def __init__(
        self,
        *,
        memory_bytes: int,
        group: Group,
        processes_of: Callable[[], list[int]],
        app_directory: Path,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._app_directory = app_directory
        self._meter = MemoryMeter(memory_bytes=memory_bytes, group=group, processes_of=processes_of)

    @property
    def interval_s(self) -> float:
        """How soon to look again."""
        return self._meter.interval_s

    def look(self, sandbox_root: Path | None) -> Finding | None:
        """Return why the instance must end, or None. ``sandbox_root`` leads to its ``/``."""
        files_bytes = _temporary_bytes(sandbox_root) if sandbox_root is not None else 0
        if self._meter.is_over(files_bytes):
            return self.out_of_memory()
        if _is_overfull(self._app_directory):
            return Finding(
                reason="disk_limit",
                message="wrote more than sockets into the directory of TRAM_SOCKET",
            )
        return None

    def out_of_memory(self) -> Finding:
        """Return the finding for a broken memory limit."""
        mebibytes = self._memory_bytes // 1024**2
        return Finding(
            reason="out_of_memory",
            message=f"used more than its {mebibytes} MiB of memory; raise resources.memory",
        )


def _temporary_bytes(sandbox_root: Path) -> int:
    total = 0
    for directory in TMPFS_DIRECTORIES:
        try:
            found = os.statvfs(f"{sandbox_root}{directory}")
        except OSError:  # still being set up, or gone
            continue
        total += (found.f_blocks - found.f_bfree) * found.f_frsize
    return total


def _is_overfull(directory: Path) -> bool:
    """Tell whether a directory that should hold one socket holds more; stops counting early."""
    waiting, entries, size = [directory], 0, 0
    while waiting:
        try:
            for entry in os.scandir(waiting.pop()):
                entries += 1
                size += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                if entries > _APP_DIRECTORY_ENTRIES_MAX or size > _APP_DIRECTORY_BYTES_MAX:
                    return True
        except OSError:
            continue
    return False
