"""Control groups, versions 1 and 2: where this process may make some, and one per instance.

Nothing is assumed about where cgroups are mounted or which group this process is in; both are
read from ``/proc``. A place counts only after a process has been moved there as a trial.
``examination`` looks for places, ``launching`` joins a group, ``supervisor`` removes it.
"""

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tramontane.domain.definition import Resources

_CPU_PERIOD_US = 100_000
_TRIAL_NAME = "tramontane-trial"


class Controller(StrEnum):
    """What a control group can limit."""

    MEMORY = "memory"
    PIDS = "pids"
    CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """One mounted tree of control groups and where in it this process is."""

    version: int
    controllers: frozenset[str]
    """Version 1 only: version 2 says it in files."""
    top: Path
    own: Path


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory in which groups can be made, and what they can limit there."""

    version: int
    directory: Path
    controllers: frozenset[Controller]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The control groups of one instance: one directory per hierarchy in use."""

    directories: tuple[tuple[int, Path], ...] = ()
    """(version, directory)"""
    controllers: frozenset[Controller] = frozenset()

    def join(self) -> None:
        """Move the calling process into the group."""
        for _, directory in self.directories:
            _write(directory / "cgroup.procs", "0")

    def pids(self) -> set[int]:
        """Return the processes in the group, as this process sees them."""
        found: set[int] = set()
        for _, directory in self.directories:
            try:
                lines = (directory / "cgroup.procs").read_text().split()
            except OSError:
                continue
            found.update(int(line) for line in lines)
        return found - {0}

    def out_of_memory_kills(self) -> int:
        """Return how many processes the kernel has ended because of the memory limit."""
        for version, directory in self.directories:
            name = "memory.events" if version == 2 else "memory.oom_control"
            try:
                lines = (directory / name).read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def kill(self) -> None:
        """Send SIGKILL to everything in the group."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def remove(self) -> bool:
        """Delete the empty group; False if something in it has not ended yet."""
        gone = True
        for _, directory in self.directories:
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


NO_GROUP = Group()


def parse_hierarchies(cgroup: str, mountinfo: str) -> list[Hierarchy]:
    """Return the hierarchies that ``/proc/self/cgroup`` and ``/proc/self/mountinfo`` tell of."""
    mounts = list(_cgroup_mounts(mountinfo))
    hierarchies: list[Hierarchy] = []
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        controllers = frozenset(names.split(",")) if names else frozenset[str]()
        version = 1 if names else 2
        for mount_version, options, root, point in mounts:
            if mount_version != version or not controllers <= options:
                continue
            inside = path.removeprefix(root.rstrip("/")).lstrip("/")
            hierarchies.append(
                Hierarchy(version=version, controllers=controllers, top=point, own=point / inside)
            )
            break
    return hierarchies


def find_places() -> list[Place]:
    """Try, for each hierarchy, the own group and those above it until one works."""
    hierarchies = parse_hierarchies(
        Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    )
    places: list[Place] = []
    wanted = set(Controller)
    for hierarchy in sorted(hierarchies, key=lambda hierarchy: -hierarchy.version):
        place = _find_place(hierarchy, frozenset(wanted))
        if place is not None:
            places.append(place)
            wanted -= place.controllers
    return places


def group_of(places: Iterable[Place], name: str) -> Group:
    """Return the group of one instance, which need not exist yet."""
    known = list(places)
    return Group(
        directories=tuple((place.version, place.directory / name) for place in known),
        controllers=frozenset(each for place in known for each in place.controllers),
    )


def make_group(group: Group) -> None:
    """Create the directories of a group, without limits."""
    for _, directory in group.directories:
        directory.mkdir(exist_ok=True)


def remove_empty(places: Iterable[Place], prefix: str) -> None:
    """Delete groups that were left behind, which the kernel allows only where nothing runs."""
    for place in places:
        for directory in place.directory.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):
                directory.rmdir()


def write_limits(places: Iterable[Place], group: Group, resources: Resources) -> None:
    """Have the kernel hold an instance to its resources."""
    for place, (version, directory) in zip(places, group.directories, strict=True):
        for file, value in limits(version, place.controllers, resources).items():
            _write(directory / file, value)
        for file, value in extras(version, place.controllers, resources).items():
            try:
                _write(directory / file, value)
            except OSError:  # swap accounting and group-wide kills are not built into all kernels
                continue


def limits(
    version: int, controllers: frozenset[Controller], resources: Resources
) -> Mapping[str, str]:
    """Return the files to write, and what into them, so that ``resources`` hold."""
    quota = max(1000, round(resources.cpus * _CPU_PERIOD_US))
    files: dict[str, str] = {}
    if Controller.MEMORY in controllers:
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        files[name] = str(resources.memory_bytes)
    if Controller.PIDS in controllers:
        files["pids.max"] = str(resources.processes_max)
    if Controller.CPU in controllers:
        if version == 2:
            files["cpu.max"] = f"{quota} {_CPU_PERIOD_US}"
        else:
            files["cpu.cfs_period_us"] = str(_CPU_PERIOD_US)
            files["cpu.cfs_quota_us"] = str(quota)
    return files


def extras(
    version: int, controllers: frozenset[Controller], resources: Resources
) -> Mapping[str, str]:
    """Return what makes the limits sharper where the kernel offers it."""
    if Controller.MEMORY not in controllers:
        return {}
    if version == 2:
        return {"memory.swap.max": "0", "memory.oom.group": "1"}
    return {"memory.memsw.limit_in_bytes": str(resources.memory_bytes)}


def _cgroup_mounts(mountinfo: str) -> Iterable[tuple[int, frozenset[str], str, Path]]:
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        fields = left.split(" ")
        if kind in {"cgroup", "cgroup2"}:
            version = 2 if kind == "cgroup2" else 1
            yield version, frozenset(options.split(",")), fields[3], Path(fields[4])


def _find_place(hierarchy: Hierarchy, wanted: frozenset[Controller]) -> Place | None:
    directory = hierarchy.own
    while directory.is_relative_to(hierarchy.top):
        controllers = _controllers(hierarchy, directory) & wanted
        if controllers and _trial(directory):
            return Place(
                version=hierarchy.version, directory=directory, controllers=frozenset(controllers)
            )
        directory = directory.parent
    return None


def _controllers(hierarchy: Hierarchy, directory: Path) -> set[Controller]:
    if hierarchy.version == 1:
        return {controller for controller in Controller if controller in hierarchy.controllers}
    for controller in Controller:
        try:  # refused for a group that has processes of its own, and where it is not delegated
            _write(directory / "cgroup.subtree_control", f"+{controller}")
        except OSError:
            continue
    try:
        enabled = (directory / "cgroup.subtree_control").read_text().split()
    except OSError:
        return set()
    return {controller for controller in Controller if controller in enabled}


def _trial(parent: Path) -> bool:
    """Find out whether a process of ours can be moved into a new group below ``parent``."""
    directory = parent / f"{_TRIAL_NAME}-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError:
        return False
    try:
        child = os.fork()
        if child == 0:
            try:
                _write(directory / "cgroup.procs", "0")
            except OSError:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        return status == 0
    finally:
        directory.rmdir()


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
