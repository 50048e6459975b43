"""What is there of us on this machine: processes, namespaces, mounts and control groups.

While a ``Census`` is open every orphan below the tests becomes the tests' own child instead of
init's. So whatever a platform starts can be found afterwards by descent alone, however often it
forked, whatever it calls itself, and whoever else uses this machine meanwhile.
"""

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.platform import alive, command_of, wait_for
from tramontane.runtimes.process.endings import reap_orphans
from tramontane.runtimes.process.processes import descendants

PR_SET_CHILD_SUBREAPER = 36
KINDS = ("net", "user", "mnt", "pid", "ipc", "uts")
SETTLE_S = 15.0


@dataclass
class Census:
    """Taken once before and once after; ``look`` in between notes what was seen."""

    namespaces_seen: set[str] = field(default_factory=set[str])
    groups_seen: set[Path] = field(default_factory=set[Path])
    held: set[int] = field(default_factory=set[int])
    """Children that somebody else waits for."""

    def __enter__(self) -> Self:
        _adopt_orphans(True)
        self._processes = set(self._living())
        self._groups = set(_groups())
        self._mounts = set(_mounts())
        self._namespaces = {each for pid in self._people() for each in _namespaces(pid)}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _adopt_orphans(False)

    def look(self) -> None:
        """Note what exists now, so that the end can tell that there was something to find."""
        reap_orphans(self.held)
        for pid in self._living():
            self.namespaces_seen |= _namespaces(pid) - self._namespaces
        self.groups_seen |= set(_groups()) - self._groups

    def left(self) -> list[str]:
        """Return a line for each thing that was not there before."""
        reap_orphans(self.held)
        new = set(self._living()) - self._processes
        found = [f"process {pid}: {command_of(pid)}" for pid in new]
        for pid in self._people():
            found += [f"{each} of {pid}" for each in _namespaces(pid) - self._namespaces]
        found += [f"mount {line}" for line in set(_mounts()) - self._mounts]
        # Another platform's groups have its processes in them.
        found += [f"group {each}" for each in set(_groups()) - self._groups if _is_empty(each)]
        return found

    def check_nothing_left(self) -> None:
        """Fail with a list of everything that stays; the kernel may take a moment to let go."""
        left: list[str] = []

        def gone() -> bool:
            left[:] = self.left()
            return not left

        try:
            wait_for(gone, "everything to be gone", SETTLE_S)
        except AssertionError as error:
            raise AssertionError("left behind:\n" + "\n".join(left)) from error

    def _living(self) -> Iterator[int]:
        return (pid for pid in descendants(os.getpid()) if alive(pid))

    def _people(self) -> Iterator[int]:
        yield os.getpid()
        yield from self._living()


def _adopt_orphans(yes: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    unused = ctypes.c_ulong(0)
    value = ctypes.c_ulong(int(yes))
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, value, unused, unused, unused) == 0


def _namespaces(pid: int) -> set[str]:
    found: set[str] = set()
    for kind in KINDS:
        try:
            found.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
        except OSError:  # gone meanwhile
            continue
    return found


def _groups() -> Iterator[Path]:
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (Path(directory, name) for name in names if name.startswith("tramontane"))


def _is_empty(group: Path) -> bool:
    try:
        return not (group / "cgroup.procs").read_text().strip()
    except OSError:  # gone meanwhile
        return False


def _mounts() -> Iterator[str]:
    return iter(Path("/proc/self/mountinfo").read_text().splitlines())
