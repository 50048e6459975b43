"""Everything a supervisor does before its event loop runs: surroundings, then the program.

In two steps. ``break_ground`` is the same for every instance, so the launcher has it done in
advance by a supervisor that waits; ``start_program`` is what is left when the instance is known.
"""

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from tramontane.domain.artifact import Listen
from tramontane.runtimes.process import examination, kernel, launching
from tramontane.runtimes.process.cgroups import Group, group_of, make_group, write_limits
from tramontane.runtimes.process.doors import Door, PortDoor, SocketDoor
from tramontane.runtimes.process.examination import Powers
from tramontane.runtimes.process.launching import Orders, Stem, resource_limits
from tramontane.runtimes.process.layout import InstancePaths
from tramontane.runtimes.process.protocol import Options
from tramontane.runtimes.process.relay import listen_loopback, listen_unix
from tramontane.runtimes.process.sandbox import (
    APP_PORT,
    APP_SOCKET,
    EGRESS_PORT,
    FD_ARGUMENTS,
    FD_FILES,
    FD_FILTER,
    FD_STATUS,
    FILES_COUNT,
    HOME,
    MODELS_PORT,
    make_environment,
    make_sandbox,
    without_sandbox,
)
from tramontane.runtimes.runtime import InstanceSpec

MARK = "TRAM_INSTANCE_RUN"
"""Environment variable by which processes without a sandbox are found again after a crash."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Where an instance will be: all that is decided before it is known which."""

    powers: Powers
    uid: int | None
    """Host user id of the instance; None: the platform's own user."""
    group_name: str

    @property
    def group(self) -> Group:
        """The control group, which need not exist yet."""
        return group_of(self.powers.places, self.group_name)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Surroundings without a program."""

    plot: Plot
    stem: Stem
    stdout: int
    stderr: int
    status: int
    """bubblewrap reports here."""
    files: dict[int, int]
    """Number in bubblewrap → an empty file here, to be filled with what bubblewrap is to read."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a supervisor is given to do."""

    spec: InstanceSpec
    paths: InstancePaths
    options: Options


@dataclass(frozen=True, kw_only=True)
class Started:
    """A program on its way."""

    plot: Plot
    pid: int
    """bubblewrap, or without a sandbox the program itself."""
    stdout: int
    stderr: int
    status: int | None
    """bubblewrap reports here; None without a sandbox."""
    door: Door
    inbound: socket.socket | None
    """Listens on the endpoint; None if the program makes the socket itself or takes no
    connections."""
    egress: socket.socket | None
    models: socket.socket | None
    environment: dict[str, str]
    directory: str
    limits: tuple[tuple[int, int], ...]

    @property
    def group(self) -> Group:
        """The control group of the instance."""
        return self.plot.group


def break_ground(plot: Plot) -> Ground:
    """Make namespaces, control group, pipes and the child that will become the program."""
    kernel.adopt_orphans()
    group = plot.group
    make_group(group)
    if plot.powers.sandboxed:
        launching.enter_namespaces(privileged=plot.powers.privileged)
    stdout, stdout_write = os.pipe()
    stderr, stderr_write = os.pipe()
    status, status_write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    descriptors = {0: null, 1: stdout_write, 2: stderr_write}
    files: dict[int, int] = {}
    if plot.powers.sandboxed:
        numbers = (FD_ARGUMENTS, FD_FILTER, *range(FD_FILES, FD_FILES + FILES_COUNT))
        files = {number: os.memfd_create("sandbox") for number in numbers}
        descriptors |= {FD_STATUS: status_write, **files}
    stem = launching.make_stem(descriptors, group=group, uid=plot.uid)
    for fd in (null, stdout_write, stderr_write, status_write):
        os.close(fd)
    return Ground(plot=plot, stem=stem, stdout=stdout, stderr=stderr, status=status, files=files)


def start_program(ground: Ground, assignment: Assignment) -> Started:
    """Start the program on prepared ground."""
    spec, paths, plot = assignment.spec, assignment.paths, ground.plot
    group = plot.group
    write_limits(plot.powers.places, group, spec.resources)
    if spec.listen is Listen.UNIX:
        paths.app_directory.mkdir(mode=0o700, exist_ok=True)
        if plot.uid is not None:
            os.chown(paths.app_directory, plot.uid, plot.uid)
    started = Started(
        plot=plot,
        pid=ground.stem.pid,
        stdout=ground.stdout,
        stderr=ground.stderr,
        status=None,
        door=SocketDoor(paths.app_socket, paths.engine if spec.meter else paths.endpoint),
        inbound=listen_unix(str(paths.endpoint)) if has_relay(spec) else None,
        egress=None,
        models=None,
        environment={},
        directory=spec.artifact.directory,
        limits=resource_limits(spec.resources, group.controllers, sandboxed=plot.powers.sandboxed),
    )
    if plot.powers.sandboxed:
        return _start_sandboxed(ground, assignment, started)
    os.close(ground.status)
    return _start_plain(ground, assignment, started)


def _start_sandboxed(ground: Ground, assignment: Assignment, started: Started) -> Started:
    spec, paths, powers = assignment.spec, assignment.paths, ground.plot.powers
    # They listen before the program runs, so that not even its first connection is refused.
    egress = listen_loopback(EGRESS_PORT) if spec.egress_socket is not None else None
    models = listen_loopback(MODELS_PORT) if spec.models_socket is not None else None
    app_directory = str(paths.app_directory) if spec.listen is Listen.UNIX else None
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
    contents = {
        FD_ARGUMENTS: launching.encode_arguments(sandbox),
        FD_FILTER: powers.seccomp,
        **{FD_FILES + number: content for number, content in enumerate(sandbox.files)},
    }
    for number, fd in ground.files.items():
        launching.fill(fd, contents[number])
        os.close(fd)
    ground.stem.become(
        Orders(
            program=program,
            arguments=launching.sandbox_arguments(sandbox, f"bwrap:{spec.label}"),
            environment={},
            limits=started.limits,
        )
    )
    return replace(
        started,
        status=ground.status,
        door=PortDoor(APP_PORT) if spec.listen is Listen.TCP else started.door,
        egress=egress,
        models=models,
        environment=dict(make_environment(spec, port=APP_PORT, socket=APP_SOCKET)),
    )


def _start_plain(ground: Ground, assignment: Assignment, started: Started) -> Started:
    spec, paths = assignment.spec, assignment.paths
    port = _free_port()
    home = paths.state / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    # The program is in the host's network and needs no way out of it.
    values = make_environment(
        replace(spec, egress_socket=None, models_socket=None),
        port=port,
        socket=str(paths.app_socket),
    )
    environment = {name: without_sandbox(value, spec.artifact) for name, value in values}
    if environment["HOME"] == HOME:
        environment["HOME"] = str(home)
    environment[MARK] = str(paths.run)
    command = tuple(without_sandbox(part, spec.artifact) for part in spec.command)
    directory = without_sandbox(spec.artifact.directory, spec.artifact)
    ground.stem.become(
        Orders(
            program=_find_program(command[0], environment["PATH"]),
            arguments=command,
            environment=environment,
            limits=started.limits,
            directory=directory,
        )
    )
    return replace(
        started,
        door=PortDoor(port) if spec.listen is Listen.TCP else started.door,
        environment=environment,
        directory=directory,
    )


def has_relay(spec: InstanceSpec) -> bool:
    """Tell whether connections pass the supervisor: from a port, or since it has to count."""
    return spec.listen is Listen.TCP or (spec.listen is not None and spec.meter is not None)


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
