"""Forks one supervisor per instance from a process that has everything imported already.

Starting an interpreter takes longer than starting most programs; a fork of this one takes two
milliseconds and shares its memory. The control plane starts the launcher when it first needs one
(``python -m tramontane.runtimes.process.launcher OPTIONS``) and again should it be gone. It ends
by itself when nobody is connected and no instance of its own runs. Supervisors do not depend on it.

One thread, no event loop: a process that forks should have neither locks nor loops to inherit.
"""

import contextlib
import fcntl
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from tramontane.base.clock import Clock, SystemClock
from tramontane.base.errors import TramontaneError
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.runtimes.process import kernel
from tramontane.runtimes.process.examination import Powers, examine
from tramontane.runtimes.process.layout import InstancePaths, write_json
from tramontane.runtimes.process.preparing import Assignment
from tramontane.runtimes.process.protocol import (
    LINE_BYTES_MAX,
    Options,
    observation_to_json,
    options_from_text,
    spec_from_json,
    spec_to_file,
    to_line,
)
from tramontane.runtimes.process.relay import listen_unix
from tramontane.runtimes.process.supervisor import supervise
from tramontane.runtimes.runtime import InstanceSpec

_READ_BYTES = 256 * 1024


@dataclass
class _Client:
    connection: socket.socket
    received: bytes = b""


@dataclass
class _Launcher:
    """Takes requests, one after the other."""

    options: Options
    powers: Powers
    clock: Clock
    listener: socket.socket
    lock: int
    clients: dict[int, _Client] = field(default_factory=dict[int, _Client])
    supervisors: set[int] = field(default_factory=set[int])
    wakeup: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    uids_given: int = 0
    over: bool = False

    def run(self) -> None:
        """Serve until told to end, or idle for long enough."""
        woken, wakes = self.wakeup
        wakes.setblocking(False)
        woken.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note)
        with self.selector as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            busy_at = self.clock.monotonic()
            while not self.over:
                if self.clients or self.supervisors:
                    busy_at = self.clock.monotonic()
                elif self.clock.monotonic() - busy_at > self.options.idle_s:
                    return
                for key, _ in selector.select(self.options.idle_s):
                    if key.fileobj is self.listener:
                        self._accept(selector)
                    elif key.fileobj is woken:
                        self._reap(woken)
                    else:
                        self._receive(self.clients[key.fd], selector)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        connection, _ = self.listener.accept()
        connection.setblocking(True)
        self.clients[connection.fileno()] = _Client(connection)
        selector.register(connection, selectors.EVENT_READ)

    def _reap(self, woken: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            woken.recv(4096)
        for pid in list(self.supervisors):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.supervisors.discard(pid)

    def _receive(self, client: _Client, selector: selectors.BaseSelector) -> None:
        try:
            data = client.connection.recv(_READ_BYTES)
        except OSError:
            data = b""
        client.received += data
        if not data or len(client.received) > LINE_BYTES_MAX:
            selector.unregister(client.connection)
            del self.clients[client.connection.fileno()]
            client.connection.close()
            return
        *lines, client.received = client.received.split(b"\n")
        for line in lines:
            answer = self._answer(json.loads(line))
            with contextlib.suppress(OSError):
                client.connection.sendall(to_line(answer))

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        match request.get("op"):
            case "hello":
                return {"release": self.options.release, "pid": os.getpid()}
            case "end":
                self.over = True
                return {"ok": True}
            case "start":
                try:
                    return self._start(spec_from_json(request["spec"]))
                except TramontaneError as error:
                    return {"error": error.code, "message": error.message}
                except OSError as error:
                    traceback.print_exc()
                    return {"error": "unavailable", "message": f"cannot start: {error}"}
            case other:
                return {"error": "invalid_request", "message": f"unknown request {other!r}"}

    def _start(self, spec: InstanceSpec) -> Mapping[str, Any]:
        layout = self.options.layout
        paths = layout.instance(spec.id)
        if paths.state.exists() or (layout.ended / spec.id).exists():
            return {"ok": True, "new": False}
        if self.powers.trouble:
            return {"error": "unsupported", "message": self.powers.trouble}
        uid, claim = self._claim_uid() if self._needs_uid() else (None, None)
        paths.run.mkdir(mode=0o700, exist_ok=True)
        paths.control.unlink(missing_ok=True)
        control = listen_unix(str(paths.control))
        self._write_down(paths, spec, uid)
        pid = os.fork()
        if pid == 0:
            self._become_supervisor(
                Assignment(
                    spec=spec, paths=paths, options=self.options, powers=self.powers, uid=uid
                ),
                control,
            )
        self.supervisors.add(pid)
        control.close()
        if claim is not None:
            claim.close()
        return {"ok": True, "new": True}

    def _write_down(self, paths: InstancePaths, spec: InstanceSpec, uid: int | None) -> None:
        """Make the instance's directory appear, complete, in one step."""
        temporary = paths.state.with_name(f".{paths.state.name}")
        temporary.mkdir(mode=0o700, exist_ok=True)
        written = {**spec_to_file(spec), "uid": uid, "isolation": self.options.isolation}
        write_json(temporary / "spec.json", written)
        starting = Observation(
            instance_id=InstanceId(spec.id),
            status=ObservedStatus.STARTING,
            started_at=self.clock.now(),
        )
        write_json(temporary / "status.json", observation_to_json(starting))
        temporary.rename(paths.state)

    def _needs_uid(self) -> bool:
        return self.powers.sandboxed and self.powers.privileged

    def _claim_uid(self) -> tuple[int, socket.socket]:
        """Take a host user id that no instance on this machine has.

        The claim is the name of an abstract socket, which the kernel gives to one process only and
        takes back when that one ends, however it does; the supervisor inherits it.
        """
        for _ in range(self.options.uid_count):
            uid = self.options.uid_base + self.uids_given % self.options.uid_count
            self.uids_given += 1
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind(f"\0tramontane-uid-{uid}")
            except OSError:
                claim.close()
                continue
            return uid, claim
        raise TramontaneError("all user ids for instances are taken; widen the range")

    def _become_supervisor(self, assignment: Assignment, control: socket.socket) -> None:
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self.lock)
            self.listener.close()
            self.selector.close()
            for connection in (*self.wakeup, *(each.connection for each in self.clients.values())):
                connection.close()
            kernel.set_process_name("tram-supervisor")
            supervise(assignment, control, self.clock)
            code = 0
        finally:
            os._exit(code)


def main() -> None:
    """Start in the background; returns to the caller, with status 0, when requests are taken."""
    options = options_from_text(sys.argv[1])
    os.umask(0o077)
    layout = options.layout
    layout.ensure()
    lock = os.open(layout.launcher_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another one was faster, and is there already
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    powers = examine(options.isolation, options.uid_base + options.uid_count)
    layout.launcher_socket.unlink(missing_ok=True)
    listener = listen_unix(str(layout.launcher_socket))
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    _redirect_output(options)
    kernel.set_process_name("tram-launcher")
    launcher = _Launcher(options, powers, SystemClock(), listener, lock)
    # Objects made so far are never looked at by the collector again, so that its marks do not
    # make private copies of the pages that all supervisors share.
    gc.collect()
    gc.freeze()
    launcher.run()


def _note(number: int, frame: FrameType | None) -> None:
    """Let the signal through to the wakeup socket, where its default action would not get it."""


def _redirect_output(options: Options) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = os.open(options.layout.launcher_log, flags, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    for number, fd in ((0, null), (1, log), (2, log)):
        os.dup2(fd, number)
    os.close(log)
    os.close(null)


if __name__ == "__main__":
    main()
