"""One small process per instance, which stays with it from its first to its last moment.

The launcher forks it; it starts the program (``preparing``), carries its traffic and its output,
probes it, holds its limits, ends it when told to, and writes down how it ended. It needs nothing
of the control plane, which may come and go, and when it is killed itself the kernel ends the
sandbox with it: there is never a program without its supervisor.
"""

import asyncio
import json
import os
import signal
import socket
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import uvloop

from tramontane.base.clock import Clock
from tramontane.domain.definition import ProbeKind
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.metering.allowances import Gate
from tramontane.metering.books import Books
from tramontane.metering.engine_link import EngineLink
from tramontane.metering.engine_wire import ENGINES
from tramontane.metering.exchange import Way
from tramontane.metering.meter import Meter
from tramontane.runtimes.process import processes
from tramontane.runtimes.process.control import ControlServer
from tramontane.runtimes.process.doors import probe
from tramontane.runtimes.process.endings import (
    Ending,
    clear_children,
    exit_code,
    judge_exit,
    reap_orphans,
    remove_group,
    wait_for_exit,
)
from tramontane.runtimes.process.executing import Executor
from tramontane.runtimes.process.layout import write_json
from tramontane.runtimes.process.logs import LineProtocol, LogFile
from tramontane.runtimes.process.preparing import Assignment, Ground, Started, start_program
from tramontane.runtimes.process.processes import ProcessId, identify
from tramontane.runtimes.process.protocol import observation_to_json, spec_to_file
from tramontane.runtimes.process.relay import Connect, Relay
from tramontane.runtimes.process.watchdog import Watchdog
from tramontane.runtimes.readiness import Start, judge_start
from tramontane.runtimes.runtime import MeterSpec

_PROBE_FIRST_S = 0.001
_PROBE_SLOWEST_S = 0.1
_PROBE_SHARE = 0.02
_LOOK_S = 0.001
_DRAIN_S = 10.0
_TAIL_LINES = 8


def supervise(
    ground: Ground,
    assignment: Assignment,
    control: socket.socket,
    clock: Clock,
    runner: asyncio.Runner,
) -> None:
    """Run one instance to its end; called in a process that does nothing else."""
    paths = assignment.paths
    observation = Observation(
        instance_id=assignment.spec.id, status=ObservedStatus.STARTING, started_at=clock.now()
    )
    try:
        started = start_program(ground, assignment)
        supervisor = Supervisor(assignment, started, observation, clock)
        runner.run(supervisor.run(control))
    except Exception:  # noqa: BLE001 - whatever it was, the instance's end must be written down
        traceback.print_exc()
        if not paths.state.exists():
            return  # removed by somebody who did not wait
        paths.failure.write_text(traceback.format_exc())
        last = traceback.format_exc().strip().splitlines()[-1]
        failed = replace(
            observation,
            status=ObservedStatus.EXITED,
            reason="start_failed",
            message=f"the instance's supervisor failed: {last}; see {paths.failure}",
        )
        with asyncio.Runner() as last_runner:
            last_runner.run(_clear(ground, clock))
        write_json(paths.status, observation_to_json(failed))


def new_runner() -> asyncio.Runner:
    """Return what runs a supervisor's event loop."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _clear(ground: Ground, clock: Clock) -> None:
    await clear_children(ground.plot.group, clock)
    await remove_group(ground.plot.group, clock)


def probe_pause_s(elapsed_s: float) -> float:
    """Return how long to wait for the next probe of a starting program: a share of its age."""
    return min(_PROBE_SLOWEST_S, max(_PROBE_FIRST_S, elapsed_s * _PROBE_SHARE))


class _Over(Exception):
    """The instance has ended and everybody was told: ends all tasks that still run."""


class Supervisor:
    """The life of one instance."""

    def __init__(
        self, assignment: Assignment, started: Started, observation: Observation, clock: Clock
    ) -> None:
        spec, options = assignment.spec, assignment.options
        self._spec = spec
        self._paths = assignment.paths
        self._started = started
        self._observation = observation
        self._clock = clock
        self._log = LogFile(
            Path(spec.log_path),
            bytes_max=options.log_bytes_max,
            files_max=options.log_files_max,
            clock=clock,
        )
        self._sandboxed = started.plot.powers.sandboxed
        self._own = identify(os.getpid())
        self._outer = identify(started.pid)
        self._first: ProcessId | None = None
        """The first process of the sandbox, bubblewrap's, with which the kernel ends the rest."""
        self._app: int | None = None if self._sandboxed else started.pid
        self._ending: Ending | None = None
        self._ended = False
        self._relays: list[Relay] = []
        self._executor = Executor(started)
        self._watchdog = Watchdog(
            memory_bytes=spec.resources.memory_bytes,
            group=started.group,
            processes_of=lambda: processes.descendants(os.getpid()),
            app_directory=assignment.paths.app_directory,
        )

    async def run(self, control: socket.socket) -> None:
        """Return when the instance has ended and everybody who watches knows."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._run(control, tasks)
        except* _Over:
            pass

    async def _run(self, control: socket.socket, tasks: asyncio.TaskGroup) -> None:
        self._server = ControlServer(self._answer, tasks)
        self._publish()
        self._write_spec()
        background = [
            tasks.create_task(self._meet_program()),
            tasks.create_task(self._follow_readiness()),
            tasks.create_task(self._hold_limits()),
        ]
        outputs = [
            await self._read_output("stdout", self._started.stdout),
            await self._read_output("stderr", self._started.stderr),
        ]
        await self._server.start(control)
        await self._start_relays(tasks)
        status = await wait_for_exit(self._started.pid)
        self._ended = True
        for task in background:
            task.cancel()
        await clear_children(self._started.group, self._clock)
        await _drain(outputs)
        await self._conclude(exit_code(status))
        await self._server.finish()
        raise _Over

    async def _start_relays(self, tasks: asyncio.TaskGroup) -> None:
        started, spec = self._started, self._spec
        if started.inbound is not None and spec.meter is not None:
            await self._start_meter(started.inbound, spec.meter)
        elif started.inbound is not None:
            self._relays.append(Relay(started.inbound, started.door.connect, tasks))
        for listener, leads_to in (
            (started.egress, spec.egress_socket),
            (started.models, spec.models_socket),
        ):
            if listener is not None and leads_to is not None:
                self._relays.append(Relay(listener, _way_to(leads_to), tasks))
        for relay in self._relays:
            await relay.start()

    async def _start_meter(self, inbound: socket.socket, how: MeterSpec) -> None:
        way = Way(
            engine=ENGINES[how.engine],
            link=EngineLink(self._started.door.connect, how.requests_max),
            books=Books(Path(how.directory), how.account),
            gate=Gate(Path(how.directory)),
            clock=self._clock,
        )
        self._meter = Meter(inbound, way)
        await self._meter.start()

    async def _read_output(self, stream: str, fd: int) -> LineProtocol:
        protocol = LineProtocol(stream, self._log)
        pipe = os.fdopen(fd, "rb", buffering=0)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
        return protocol

    async def _meet_program(self) -> None:
        """Find out the process ids that bubblewrap's report leads to."""
        if self._started.status is not None:
            reader = asyncio.StreamReader()
            pipe = os.fdopen(self._started.status, "rb", buffering=0)
            await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), pipe
            )
            line = await reader.readline()
            if not line:
                return  # it failed; its exit says so
            self._first = identify(json.loads(line)["child-pid"])
            while self._first is not None and self._app is None:
                self._app = next(iter(processes.children(self._first.pid)), None)
                if self._app is None:
                    await asyncio.sleep(_LOOK_S)
        self._observe(pid=self._app)

    async def _follow_readiness(self) -> None:
        await self._wait_until_ready()
        how, failures = self._spec.probe, 0
        if how.kind is ProbeKind.NONE:
            return  # nothing else can be known of it but that it runs
        while True:
            await asyncio.sleep(how.interval_s)
            trouble = await probe(self._started.door, how, how.timeout_s)
            failures = failures + 1 if trouble else 0
            ready = self._observation.status is ObservedStatus.READY
            if ready and failures >= how.failures_max:
                message = f"{failures} probes failed in a row, the last: {trouble}"
                self._observe(status=ObservedStatus.UNREADY, reason="probe_failed", message=message)
            elif not ready and not trouble:
                self._observe(status=ObservedStatus.READY, reason="", message="")

    async def _wait_until_ready(self) -> None:
        how, began, trouble = self._spec.probe, self._clock.monotonic(), "not probed yet"
        while True:
            age_s = self._clock.monotonic() - began
            left_s, pause_s = how.grace_s - age_s, probe_pause_s(age_s)
            if how.kind is ProbeKind.NONE:
                pause_s = left_s
            elif left_s > 0:
                trouble = await probe(self._started.door, how, min(how.timeout_s, left_s))
            match judge_start(how, age_s, answers=not trouble):
                case Start.READY:
                    endpoint = None if self._spec.listen is None else str(self._paths.endpoint)
                    now = self._clock.now()
                    self._observe(status=ObservedStatus.READY, endpoint=endpoint, ready_at=now)
                    return
                case Start.OVERDUE:
                    break
                case Start.UNDER_WAY:
                    await asyncio.sleep(min(pause_s, left_s))
        message = f"was not ready within {how.grace_s:g} s ({trouble}){self._quoted_tail()}"
        self._end(Ending(reason="start_deadline", message=message))
        self._kill()
        await asyncio.Event().wait()  # until this task is cancelled with the others

    async def _hold_limits(self) -> None:
        while True:
            await asyncio.sleep(self._watchdog.interval_s)
            reap_orphans({self._started.pid, *self._executor.pids})
            root = Path(f"/proc/{self._first.pid}/root") if self._first is not None else None
            finding = self._watchdog.look(root)
            if finding is not None:
                self._end(Ending(reason=finding.reason, message=finding.message))
                self._kill()

    async def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        match request.get("op"):
            case "stop":
                self._stop(float(request["grace_s"]))
                return {"ok": True}
            case "kill":
                self._end(Ending(reason="killed", message="was removed while it ran"))
                self._kill()
                return {"ok": True}
            case "execute":
                if self._app is None or self._ended:
                    return {"error": "not_found", "message": "the instance does not run"}
                return await self._executor.execute(
                    self._app, tuple(request["command"]), float(request["timeout_s"])
                )
            case other:
                return {"error": "unsupported", "message": f"unknown request {other!r}"}

    def _stop(self, grace_s: float) -> None:
        asked_before = self._ending is not None
        self._end(Ending(reason="stopped", message=""))
        if self._app is None:
            self._kill()
            return
        if not asked_before:
            self._terminate(self._app)
        asyncio.get_running_loop().call_later(grace_s, self._kill)

    def _terminate(self, app: int) -> None:
        """Ask the program to end, once: many take a second SIGTERM for impatience."""
        pids = [app, *processes.descendants(app)]
        deaf = {pid for pid in pids if processes.is_deaf_shell(pid)}
        below = {pid: processes.children(pid) for pid in pids}
        for pid in processes.stop_targets(app, deaf, below):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue

    def _kill(self) -> None:
        """End everything by force; what escapes here is cleared after the main process ended."""
        if self._ended:
            return
        if self._first is not None:
            self._first.kill()
        else:
            try:
                os.kill(self._started.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def _end(self, ending: Ending) -> None:
        """Remember why the instance is about to end; the first reason stays."""
        self._ending = self._ending or ending

    async def _conclude(self, code: int) -> None:
        was_ready = self._observation.ready_at is not None
        if self._ending is None and self._started.group.out_of_memory_kills() > 0:
            finding = self._watchdog.out_of_memory()
            self._ending = Ending(reason=finding.reason, message=finding.message)
        ending = self._ending or judge_exit(
            code, was_ready=was_ready, tail=self._log.tail(_TAIL_LINES)
        )
        await remove_group(self._started.group, self._clock)
        self._paths.endpoint.unlink(missing_ok=True)
        self._log.write("runtime", [f"ended: {ending.reason} {ending.message}".strip().encode()])
        self._observe(
            status=ObservedStatus.EXITED,
            endpoint=None,
            exit_code=code,
            reason=ending.reason,
            message=ending.message,
        )

    def _quoted_tail(self) -> str:
        tail = self._log.tail(_TAIL_LINES)
        return "; last output: " + " | ".join(tail) if tail else "; it printed nothing"

    def _observe(self, **changes: Any) -> None:
        self._observation = replace(self._observation, **changes)
        self._publish()

    def _write_spec(self) -> None:
        plot = self._started.plot
        asked = {"uid": plot.uid, "isolation": plot.powers.isolation, **spec_to_file(self._spec)}
        write_json(self._paths.spec, asked)

    def _publish(self) -> None:
        """Tell the newest state and write it down for whoever comes when this process is gone.

        An end is written first: who is told of it may remove the files at once. Anything else is
        told first: a waking request waits for it.
        """
        observed = observation_to_json(self._observation)
        over = self._observation.status is ObservedStatus.EXITED
        if not over:
            self._server.publish(observed)
        known = [process for process in (self._outer, self._first) if process]
        write_json(
            self._paths.status,
            {
                **observed,
                "supervisor": asdict(self._own) if self._own is not None else None,
                "processes": [asdict(process) for process in known],
                "groups": [
                    [version, str(path)] for version, path in self._started.group.directories
                ],
            },
        )
        if over:
            self._server.publish(observed)


def _way_to(path: str) -> Connect:
    """Return how to connect to a Unix socket outside of the sandbox."""

    def connect(factory: Callable[[], asyncio.BaseProtocol]) -> Awaitable[object]:
        return asyncio.get_running_loop().create_unix_connection(factory, path)

    return connect


async def _drain(outputs: list[LineProtocol]) -> None:
    """Wait for the last words: everything that could write more has ended."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            for output in outputs:
                await output.ended.wait()
    except TimeoutError:
        return
