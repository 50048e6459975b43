"""Everything a supervisor does before its event loop runs: surroundings, then the program.

Kept apart from ``supervisor`` because it is one straight line of steps without any waiting. The
program is started as early as possible; the loop is set up while it loads.
"""

import hashlib
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from tramontane.domain.artifact import Listen
from tramontane.runtimes.process import examination, kernel, launching
from tramontane.runtimes.process.cgroups import Group, make_group
from tramontane.runtimes.process.doors import Door, PortDoor, SocketDoor
from tramontane.runtimes.process.examination import Powers
from tramontane.runtimes.process.launching import Start, resource_limits
from tramontane.runtimes.process.layout import InstancePaths
from tramontane.runtimes.process.protocol import Options
from tramontane.runtimes.process.relay import listen_loopback, listen_unix
from tramontane.runtimes.process.sandbox import (
    APP_PORT,
    APP_SOCKET,
    EGRESS_PORT,
    FD_STATUS,
    HOME,
    make_environment,
    make_sandbox,
    without_sandbox,
)
from tramontane.runtimes.runtime import InstanceSpec


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What the launcher gives a supervisor to do."""

    spec: InstanceSpec
    paths: InstancePaths
    options: Options
    powers: Powers
    uid: int | None
    """Host user id of the instance; None: the platform's own user."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A program on its way."""

    pid: int
    """bubblewrap, or without a sandbox the program itself."""
    stdout: int
    stderr: int
    status: int | None
    """bubblewrap reports here; None without a sandbox."""
    door: Door
    inbound: socket.socket | None
    """Listens on the endpoint; None if the program makes the socket itself."""
    egress: socket.socket | None
    environment: dict[str, str]
    directory: str
    limits: tuple[tuple[int, int], ...]
    group: Group


def start_program(assignment: Assignment) -> Started:
    """Build the surroundings and start the program in them."""
    spec, paths, powers = assignment.spec, assignment.paths, assignment.powers
    kernel.adopt_orphans()
    own_socket = spec.artifact.listen is Listen.UNIX
    if own_socket:
        paths.app_directory.mkdir(mode=0o700, exist_ok=True)
        if assignment.uid is not None:
            os.chown(paths.app_directory, assignment.uid, assignment.uid)
    # Two platforms on one machine have different state directories.
    platform = hashlib.sha256(assignment.options.state_directory.encode()).hexdigest()[:8]
    group = make_group(powers.places, f"{spec.id}-{platform}", spec.resources)
    limits = resource_limits(spec.resources, group.controllers, sandboxed=powers.sandboxed)
    inbound = None if own_socket else listen_unix(str(paths.endpoint))
    if powers.sandboxed:
        return _start_sandboxed(assignment, group, limits, inbound)
    return _start_plain(assignment, group, limits, inbound)


def _start_sandboxed(
    assignment: Assignment,
    group: Group,
    limits: tuple[tuple[int, int], ...],
    inbound: socket.socket | None,
) -> Started:
    spec, paths, powers = assignment.spec, assignment.paths, assignment.powers
    launching.enter_namespaces(privileged=powers.privileged)
    egress = listen_loopback(EGRESS_PORT) if spec.egress_socket is not None else None
    app_directory = str(paths.app_directory) if inbound is None else None
    visible: dict[str, str] = {}
    program = powers.bubblewrap
    if powers.privileged:
        sources = [mount.source for mount in spec.artifact.mounts]
        sources += [app_directory] if app_directory is not None else []
        sources += examination.bubblewrap_directories(program)
        visible = launching.stage_sources(
            sources, apart_from=(paths.state, paths.run, Path(spec.log_path))
        )
        program = examination.staged_program(program, visible)
    sandbox = make_sandbox(spec, powers.tree, visible=visible, app_directory=app_directory)
    stdout, stdout_write = os.pipe()
    stderr, stderr_write = os.pipe()
    status, status_write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    start = Start(
        program=program,
        arguments=(f"bwrap:{spec.label}",),
        environment={},
        descriptors={0: null, 1: stdout_write, 2: stderr_write, FD_STATUS: status_write},
        limits=limits,
        group=group,
        uid=assignment.uid,
    )
    pid = launching.start_sandbox(program, sandbox, start, powers.seccomp)
    for fd in (null, stdout_write, stderr_write, status_write):
        os.close(fd)
    made = SocketDoor(paths.app_socket, paths.endpoint)
    return Started(
        pid=pid,
        stdout=stdout,
        stderr=stderr,
        status=status,
        door=PortDoor(APP_PORT) if inbound is not None else made,
        inbound=inbound,
        egress=egress,
        environment=dict(make_environment(spec, port=APP_PORT, socket=APP_SOCKET)),
        directory=spec.artifact.directory,
        limits=limits,
        group=group,
    )


def _start_plain(
    assignment: Assignment,
    group: Group,
    limits: tuple[tuple[int, int], ...],
    inbound: socket.socket | None,
) -> Started:
    spec, paths = assignment.spec, assignment.paths
    port = _free_port()
    home = paths.state / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    # The program is in the host's network and needs no way out of it.
    values = make_environment(
        replace(spec, egress_socket=None), port=port, socket=str(paths.app_socket)
    )
    environment = {name: without_sandbox(value, spec.artifact) for name, value in values}
    if environment["HOME"] == HOME:
        environment["HOME"] = str(home)
    command = tuple(without_sandbox(part, spec.artifact) for part in spec.command)
    directory = without_sandbox(spec.artifact.directory, spec.artifact)
    stdout, stdout_write = os.pipe()
    stderr, stderr_write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    pid = launching.spawn(
        Start(
            program=_find_program(command[0], environment["PATH"]),
            arguments=command,
            environment=environment,
            descriptors={0: null, 1: stdout_write, 2: stderr_write},
            limits=limits,
            group=group,
            directory=directory,
        )
    )
    for fd in (null, stdout_write, stderr_write):
        os.close(fd)
    made = SocketDoor(paths.app_socket, paths.endpoint)
    return Started(
        pid=pid,
        stdout=stdout,
        stderr=stderr,
        status=None,
        door=PortDoor(port) if inbound is not None else made,
        inbound=inbound,
        egress=None,
        environment=environment,
        directory=directory,
        limits=limits,
        group=group,
    )


def _free_port() -> int:
    """Return a port that nobody listens on now; without a sandbox there is no way to hold it."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def _find_program(name: str, path: str) -> str:
    """Look the program up in the instance's own PATH, as bubblewrap does for a sandbox."""
    if "/" in name:
        return name
    for directory in path.split(":"):
        candidate = Path(directory) / name
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    return name
