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
import hashlib
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
from tramontane.base.ids import random_id
from tramontane.domain.ids import InstanceId
from tramontane.runtimes.process import kernel
from tramontane.runtimes.process.cgroups import Group, remove_empty
from tramontane.runtimes.process.examination import Powers, examine
from tramontane.runtimes.process.layout import forget_removed
from tramontane.runtimes.process.preparing import Assignment, Plot, break_ground
from tramontane.runtimes.process.protocol import (
    LINE_BYTES_MAX,
    Options,
    options_from_text,
    spec_from_json,
    to_line,
)
from tramontane.runtimes.process.relay import listen_unix
from tramontane.runtimes.process.standby import TAKEN, stand_by
from tramontane.runtimes.process.supervisor import new_runner, supervise

_READ_BYTES = 256 * 1024
_CLEAR_S = 0.02
_CALM_S = 0.1
"""After this long without requests the next supervisor is made ready."""
_STANDBYS = 2
"""How many: what a start finds ready saves it about 20 ms, and each costs some 6 MB."""


@dataclass
class _Client:
    connection: socket.socket
    received: bytes = b""


@dataclass
class _Standby:
    """A supervisor that waits for an instance."""

    pid: int
    plot: Plot
    channel: socket.socket

    def give(self, request: bytes, control: socket.socket) -> bool:
        """Hand the request over; False if it was not taken, because the supervisor is dead.

        It says that it takes the instance before it starts anything, so an instance that was not
        taken was not started either.
        """
        with self.channel:
            try:
                socket.send_fds(self.channel, [b"!"], [control.fileno()])
                self.channel.sendall(request + b"\n")
                self.channel.shutdown(socket.SHUT_WR)
                return self.channel.recv(1) == TAKEN
            except OSError:
                return False


@dataclass
class _Launcher:
    """Takes requests, one after the other."""

    options: Options
    powers: Powers
    clock: Clock
    listener: socket.socket
    lock: int
    clients: dict[int, _Client] = field(default_factory=dict[int, _Client])
    supervisors: dict[int, Plot] = field(default_factory=dict[int, Plot])
    wakeup: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    standbys: list[_Standby] = field(default_factory=list[_Standby])
    remains: list[Group] = field(default_factory=list[Group])
    """Groups of supervisors that ended: gone already, unless they were killed."""
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
                if self.clients or self.supervisors or self.remains:
                    busy_at = self.clock.monotonic()
                elif self.clock.monotonic() - busy_at > self.options.idle_s:
                    break
                wanting = len(self.standbys) < _STANDBYS and not self.powers.trouble
                self._clear_remains()
                pause_s = _CALM_S if wanting else self.options.idle_s
                events = selector.select(_CLEAR_S if self.remains else pause_s)
                if not events and wanting and not self.remains:
                    self._make_standby()
                for key, _ in events:
                    if key.fileobj is self.listener:
                        self._accept(selector)
                    elif key.fileobj is woken:
                        self._reap(woken)
                    else:
                        self._receive(self.clients[key.fd], selector)
        self._dismiss_standbys()

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
                self.remains.append(self.supervisors.pop(pid).group)
        for standby in list(self.standbys):
            if os.waitpid(standby.pid, os.WNOHANG)[0]:
                standby.channel.close()
                self.remains.append(standby.plot.group)
                self.standbys.remove(standby)

    def _clear_remains(self) -> None:
        for group in self.remains:
            group.kill()
        self.remains = [group for group in self.remains if not group.remove()]

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
            try:
                answer = self._answer(json.loads(line), line)
            except (KeyError, TypeError, ValueError) as error:
                answer = {"error": "invalid_request", "message": f"not understood: {error!r}"}
            with contextlib.suppress(OSError):
                client.connection.sendall(to_line(answer))

    def _answer(self, request: Mapping[str, Any], line: bytes) -> Mapping[str, Any]:
        match request.get("op"):
            case "hello":
                return {"release": self.options.release, "pid": os.getpid()}
            case "end":
                self.over = True
                return {"ok": True}
            case "start":
                try:
                    return self._start(request, line)
                except TramontaneError as error:
                    return {"error": error.code, "message": error.message}
                except OSError as error:
                    traceback.print_exc()
                    return {"error": "unavailable", "message": f"cannot start: {error}"}
            case other:
                return {"error": "invalid_request", "message": f"unknown request {other!r}"}

    def _start(self, request: Mapping[str, Any], line: bytes) -> Mapping[str, Any]:
        layout = self.options.layout
        instance_id = InstanceId(request["spec"]["id"])
        paths = layout.instance(instance_id)
        if paths.state.exists() or (layout.ended / instance_id).exists():
            return {"ok": True, "new": False}
        if self.powers.trouble:
            return {"error": "unsupported", "message": self.powers.trouble}
        with contextlib.ExitStack() as stack:
            standby = self.standbys.pop(0) if self.standbys else None
            paths.run.mkdir(mode=0o700, exist_ok=True)
            paths.control.unlink(missing_ok=True)
            control = stack.enter_context(listen_unix(str(paths.control)))
            paths.state.mkdir(mode=0o700)
            if standby is not None:
                self.supervisors[standby.pid] = standby.plot
                if standby.give(line, control):
                    return {"ok": True, "new": True}
            spec = spec_from_json(request["spec"])
            plot = self._choose_plot(stack)
            assignment = Assignment(spec=spec, paths=paths, options=self.options)
            pid = os.fork()
            if pid == 0:
                self._become_supervisor(plot, assignment, control)
            self.supervisors[pid] = plot
        return {"ok": True, "new": True}

    def _choose_plot(self, stack: contextlib.ExitStack) -> Plot:
        uid = None
        if self.powers.sandboxed and self.powers.privileged:
            uid, claim = self._claim_uid()
            stack.enter_context(claim)
        return Plot(powers=self.powers, uid=uid, group_name=random_id(_group_prefix(self.options)))

    def _make_standby(self) -> None:
        """Have one more supervisor ready for whatever is started next."""
        with contextlib.ExitStack() as stack:
            plot = self._choose_plot(stack)
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._become_standby(plot, theirs)
            self.standbys.append(_Standby(pid, plot, ours))

    def _dismiss_standbys(self) -> None:
        for standby in self.standbys:
            standby.channel.close()
        for standby in self.standbys:
            os.waitpid(standby.pid, 0)

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

    def _become_supervisor(
        self, plot: Plot, assignment: Assignment, control: socket.socket
    ) -> None:
        code = 1
        try:
            self._leave()
            supervise(break_ground(plot), assignment, control, self.clock, new_runner())
            code = 0
        finally:
            os._exit(code)

    def _become_standby(self, plot: Plot, channel: socket.socket) -> None:
        code = 1
        try:
            self._leave()
            stand_by(plot, self.options, channel, self.clock)
            code = 0
        except BaseException:  # noqa: BLE001 - the child must never run on as its parent
            traceback.print_exc()
        finally:
            os._exit(code)

    def _leave(self) -> None:
        """Become a process of its own: nothing of the launcher's stays open."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self.lock)
        self.listener.close()
        self.selector.close()
        for connection in (*self.wakeup, *(each.connection for each in self.clients.values())):
            connection.close()
        for standby in self.standbys:
            standby.channel.close()
        kernel.set_process_name("tram-supervisor")


def main() -> None:
    """Start in the background; returns to the caller, with status 0, when requests are taken."""
    # Whatever the control plane had open and did not mark: not even an event loop of another make
    # may have its descriptors in supervisors, which would hand them on to programs.
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
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
    remove_empty(powers.places, _group_prefix(options))
    forget_removed(layout, SystemClock().now())
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


def _group_prefix(options: Options) -> str:
    """Return what the names of this platform's groups begin with; others have others."""
    platform = hashlib.sha256(options.state_directory.encode()).hexdigest()[:8]
    return f"tramontane_{platform}"


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
