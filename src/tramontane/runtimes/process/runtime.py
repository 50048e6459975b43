"""The process runtime: instances as processes of this machine, each in a bubblewrap sandbox.

``processes`` builds it and ``reconcile`` uses it through ``tramontane.runtimes.runtime.Runtime``.
It holds no state that matters: instances, their supervisors and their files outlive it, and
another ``ProcessRuntime`` over the same directories sees and steers them as this one does.

    ProcessRuntime ── zygote ──> launcher ── fork ──> supervisor ── bwrap ──> program
          └────────── followers, control socket ───────────┘
"""

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tramontane.base.clock import Clock
from tramontane.base.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    TimedOut,
    TramontaneError,
    Unavailable,
    Unsupported,
)
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.runtimes.process.cgroups import Group
from tramontane.runtimes.process.endings import clear_remains
from tramontane.runtimes.process.followers import Followers
from tramontane.runtimes.process.layout import (
    Layout,
    check_run_directory,
    read_json,
    remove_instance,
    write_json,
)
from tramontane.runtimes.process.preparing import MARK
from tramontane.runtimes.process.processes import ProcessId, marked_processes
from tramontane.runtimes.process.protocol import (
    LINE_BYTES_MAX,
    Isolation,
    Options,
    observation_from_json,
    observation_to_json,
    spec_to_json,
    to_line,
)
from tramontane.runtimes.process.sandbox import check_artifact
from tramontane.runtimes.process.zygote import Zygote, launcher_environment
from tramontane.runtimes.runtime import Capability, ExecResult, InstanceSpec

_ANSWER_S = 10.0
_REMOVE_S = 5.0
_ERRORS: Mapping[str, type[TramontaneError]] = {
    kind.code: kind for kind in (Unsupported, Unavailable, NotFound, TimedOut, InvalidRequest)
}


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """What an operator may want to change."""

    uid_base: int = 200_000
    """First of the host user ids that instances get when the platform runs as root."""
    uid_count: int = 10_000
    log_bytes_max: int = 10 * 1024**2
    """Size at which a log file is rotated."""
    log_files_max: int = 3
    """How many rotated files are kept."""


DEFAULT_SETTINGS = ProcessSettings()


class ProcessRuntime:
    """Runs instances as processes of this machine. One per pair of directories at a time."""

    kind: Literal["process", "podman", "kubernetes", "fake"] = "process"

    def __init__(
        self,
        state_directory: Path,
        run_directory: Path,
        *,
        clock: Clock,
        isolation: Isolation = Isolation.SANDBOX,
        settings: ProcessSettings = DEFAULT_SETTINGS,
        launcher_idle_s: float = 30.0,
    ) -> None:
        """Make nothing yet: directories and the launcher come with the first ``start``.

        ``run_directory`` holds sockets and must have a short path. The launcher ends when it had
        nothing to do, and nobody was connected, for ``launcher_idle_s``.
        """
        check_run_directory(run_directory)
        self._options = Options(
            state_directory=str(state_directory.absolute()),
            run_directory=str(run_directory.absolute()),
            isolation=isolation,
            uid_base=settings.uid_base,
            uid_count=settings.uid_count,
            log_bytes_max=settings.log_bytes_max,
            log_files_max=settings.log_files_max,
            idle_s=launcher_idle_s,
            release=_release(),
        )
        self._clock = clock
        self._zygote = Zygote(self._options)
        self._followers = Followers()
        self._watched = False

    async def capabilities(self) -> Sequence[Capability]:
        """Find out what this machine offers, by trying it in a separate process."""
        options = self._options
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tramontane.runtimes.process.examination"),
            *(options.isolation, str(options.uid_base + options.uid_count)),
            env=launcher_environment(sys.path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        if process.returncode != 0:
            detail = errors.decode(errors="replace")
            raise Unavailable("the machine could not be examined", detail=detail)
        return [Capability(**found) for found in json.loads(output)]

    async def start(self, spec: InstanceSpec) -> None:
        """Start the instance; see ``Runtime.start``."""
        paths = self._layout.instance(spec.id)
        check_artifact(spec.artifact)
        if not spec.command:
            raise InvalidRequest("an instance needs a command", path="command")
        answer = await self._zygote.ask({"op": "start", "spec": spec_to_json(spec)})
        _raise_error(answer)
        if answer.get("new"):
            self._followers.tell(
                Observation(
                    instance_id=spec.id,
                    status=ObservedStatus.STARTING,
                    started_at=self._clock.now(),
                )
            )
        # Of an instance that is not new we may know nothing yet: the launcher that took the request
        # may have been killed half way, and nobody else would ever tell.
        if not self._followers.has_ended(spec.id) and not self._followers.follow(
            spec.id, paths.control
        ):
            self._followers.lose(spec.id)

    async def stop(self, instance_id: InstanceId, grace_s: float) -> None:
        """Ask the instance to end; see ``Runtime.stop``."""
        await self._ask(instance_id, {"op": "stop", "grace_s": grace_s}, _ANSWER_S)

    async def remove(self, instance_id: InstanceId) -> None:
        """Forget an instance and its private files; see ``Runtime.remove``."""
        paths = self._layout.instance(instance_id)
        if paths.state.exists():
            try:
                await self._ask(instance_id, {"op": "kill"}, _REMOVE_S)
                await self._wait_for_end(instance_id)
            except Unavailable:
                self._kill_supervisor(instance_id)
                await self._wait_for_end(instance_id)
            await self._settle(instance_id, certain=True)
        remove_instance(self._layout, paths)
        self._followers.forget(instance_id)

    async def inspect(self) -> Sequence[Observation]:
        """Return the state of every instance; see ``Runtime.inspect``."""
        await self._adopt()
        found = (self._followers.newest(instance_id) for instance_id in self._layout.ids())
        return [observation for observation in found if observation is not None]

    async def watch(self) -> AsyncIterator[Observation]:
        """Yield the state of each instance once, then every change; see ``Runtime.watch``."""
        if self._watched:
            raise Conflict("this runtime has a watcher already; end that one first")
        self._watched = True
        try:
            await self._adopt()
            self._followers.repeat_all()
            while True:
                await self._followers.wait()
                for instance_id in self._followers.take_lost():
                    await self._settle(instance_id)
                async for observation in self._followers.take_changes():
                    yield observation
        finally:
            self._watched = False

    async def execute(
        self, instance_id: InstanceId, command: Sequence[str], timeout_s: float
    ) -> ExecResult:
        """Run a command inside the instance; see ``Runtime.execute``."""
        if not command:
            raise InvalidRequest("a command is needed", path="command")
        request = {"op": "execute", "command": list(command), "timeout_s": timeout_s}
        answer = await self._ask(instance_id, request, timeout_s + _ANSWER_S)
        if answer is None:
            raise NotFound(f"instance {instance_id} does not run")
        _raise_error(answer)
        return ExecResult(
            exit_code=answer["exit_code"],
            stdout=base64.b64decode(answer["stdout"]),
            stderr=base64.b64decode(answer["stderr"]),
        )

    async def close(self) -> None:
        """Let go of connections; instances run on, and the launcher as long as they do."""
        self._followers.close()
        self._zygote.close()

    async def end_launcher(self) -> None:
        """End the launcher as well, as ``tram down`` does after stopping the instances."""
        await self._zygote.end()

    @property
    def _layout(self) -> Layout:
        return self._options.layout

    async def _adopt(self) -> None:
        """Connect to every supervisor there is, and conclude for those that are gone."""
        for instance_id in self._layout.ids():
            if self._followers.has_ended(instance_id):
                continue
            paths = self._layout.instance(instance_id)
            if not self._followers.follow(instance_id, paths.control):
                await self._settle(instance_id)
            elif self._followers.newest(instance_id) is None:
                starting = {"instance_id": instance_id, "status": ObservedStatus.STARTING}
                known = read_json(paths.status) or starting
                self._followers.tell(observation_from_json(known))

    async def _settle(self, instance_id: InstanceId, *, certain: bool = False) -> None:
        """Find out how an instance whose supervisor is gone has ended, and clean up behind it.

        ``certain``: it is known to be gone, and not just our connection to it.
        """
        paths = self._layout.instance(instance_id)
        if not paths.state.exists():  # removed meanwhile
            return
        known = read_json(paths.status) or {
            "instance_id": instance_id,
            "status": ObservedStatus.STARTING,
        }
        observation = observation_from_json(known)
        if observation.status is not ObservedStatus.EXITED:
            if not certain and self._followers.follow(instance_id, paths.control):
                return  # only the connection was lost
            remains = [ProcessId(**process) for process in known.get("processes", [])]
            asked = read_json(paths.spec) or {}
            if asked.get("isolation") == Isolation.NONE:
                remains += marked_processes(f"{MARK}={paths.run}")
            supervisor = known.get("supervisor")
            if supervisor is not None:
                remains.append(ProcessId(**supervisor))
            groups = tuple((version, Path(path)) for version, path in known.get("groups", []))
            await clear_remains(remains, Group(directories=groups), self._clock)
            observation = Observation(
                instance_id=instance_id,
                status=ObservedStatus.EXITED,
                pid=observation.pid,
                started_at=observation.started_at,
                ready_at=observation.ready_at,
                reason="killed",
                message="its supervisor was killed, and the kernel ended the instance with it",
            )
            write_json(paths.status, observation_to_json(observation))
            paths.endpoint.unlink(missing_ok=True)
        self._followers.tell(observation)

    async def _wait_for_end(self, instance_id: InstanceId) -> None:
        """Return when the supervisor is gone."""
        paths = self._layout.instance(instance_id)
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(str(paths.control))
                with contextlib.closing(writer):
                    writer.write(to_line({"op": "watch"}))
                    await reader.read()
        except TimeoutError as error:
            raise Unavailable(f"instance {instance_id} does not end", retry_after_s=1.0) from error
        except OSError:
            return

    def _kill_supervisor(self, instance_id: InstanceId) -> None:
        """End a supervisor that does not answer; the kernel ends the instance with it."""
        known = read_json(self._layout.instance(instance_id).status) or {}
        supervisor = known.get("supervisor")
        if supervisor is not None:
            ProcessId(**supervisor).kill()

    async def _ask(
        self, instance_id: InstanceId, request: Mapping[str, Any], timeout_s: float
    ) -> Mapping[str, Any] | None:
        """Send one request to a supervisor; None if there is none."""
        paths = self._layout.instance(instance_id)
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(
                    str(paths.control), limit=LINE_BYTES_MAX
                )
                with contextlib.closing(writer):
                    writer.write(to_line(request))
                    line = await reader.readline()
        except TimeoutError as error:
            raise Unavailable(
                f"the supervisor of instance {instance_id} does not answer", retry_after_s=1.0
            ) from error
        except OSError:
            return None
        return json.loads(line) if line else None


def _raise_error(answer: Mapping[str, Any]) -> None:
    code = answer.get("error")
    if code is not None:
        raise _ERRORS.get(code, TramontaneError)(answer.get("message", code))


def _release() -> str:
    """Return a mark of the code that a launcher would run, which changes with every upgrade."""
    newest = max(path.stat().st_mtime_ns for path in Path(__file__).parent.glob("*.py"))
    return str(newest)
