"""A runtime in memory, whose failures are configuration and whose time is the test's.

Tests of reconcilers use it where a real one would be slow or could not fail on demand; the
conformance suite holds it to the same promises as the real ones.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tramontane.base.clock import Clock
from tramontane.base.errors import NotFound, TimedOut, Unsupported
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.runtimes.readiness import Start, judge_start
from tramontane.runtimes.runtime import Capability, ExecResult, InstanceSpec

_SIGTERM = 15
_SIGKILL = 9


@dataclass(frozen=True, kw_only=True)
class FakeBehaviour:
    """How one instance will behave, on the clock of the host."""

    start_s: float = 0.0
    """Ready this long after its start."""
    never_ready: bool = False
    crash_after_s: float | None = None
    """Exits by itself this long after its start, with ``exit_code``."""
    exit_code: int = 1
    refusal: str = ""
    """``start`` raises ``Unsupported`` with this message."""
    ignores_stop: bool = False
    """SIGTERM does nothing: it is killed after the grace period."""
    execute_s: float = 0.0
    """How long every command run inside takes."""


@dataclass
class _Instance:
    observation: Observation
    behaviour: FakeBehaviour
    spec: InstanceSpec
    kill_at: float | None = None
    sick: bool = False


@dataclass
class FakeHost:
    """The machine on which fake instances run; it outlives every ``FakeRuntime`` over it."""

    clock: Clock
    behaviour_of: Callable[[InstanceSpec], FakeBehaviour] = lambda _: FakeBehaviour()
    instances: dict[InstanceId, _Instance] = field(default_factory=dict[InstanceId, _Instance])
    used: set[InstanceId] = field(default_factory=set[InstanceId])
    """Every id that was ever started: none runs twice."""
    next_pid: int = 1001
    changed: dict[InstanceId, None] = field(default_factory=dict[InstanceId, None])
    event: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self) -> None:
        """Let happen what is due at the clock's present time; call it after moving the clock."""
        now = self.clock.now()
        for instance in self.instances.values():
            if instance.observation.status is not ObservedStatus.EXITED:
                self._advance(instance, now)

    def make_sick(self, instance_id: InstanceId, sick: bool) -> None:
        """Have the instance's probe fail from now on, or succeed again."""
        self.instances[instance_id].sick = sick
        self.step()

    def end(self, instance_id: InstanceId, code: int, reason: str, message: str = "") -> None:
        """End an instance."""
        instance = self.instances[instance_id]
        if instance.observation.status is ObservedStatus.EXITED:
            return
        self._observe(
            instance,
            replace(
                instance.observation,
                status=ObservedStatus.EXITED,
                endpoint=None,
                exit_code=code,
                reason=reason,
                message=message,
            ),
        )

    def add(self, spec: InstanceSpec) -> None:
        """Start an instance."""
        behaviour = self.behaviour_of(spec)
        if behaviour.refusal:
            raise Unsupported(behaviour.refusal)
        self.used.add(spec.id)
        observation = Observation(
            instance_id=spec.id,
            status=ObservedStatus.STARTING,
            pid=self.next_pid,
            started_at=self.clock.now(),
        )
        self.next_pid += 1
        instance = _Instance(observation, behaviour, spec)
        self.instances[spec.id] = instance
        self._observe(instance, observation)
        self.step()

    def _advance(self, instance: _Instance, now: float) -> None:
        seen, behaviour, probe = instance.observation, instance.behaviour, instance.spec.probe
        assert seen.started_at is not None
        age_s = now - seen.started_at
        if instance.kill_at is not None and now >= instance.kill_at:
            self.end(seen.instance_id, -_SIGKILL, "stopped")
        elif behaviour.crash_after_s is not None and age_s >= behaviour.crash_after_s:
            self.end(
                seen.instance_id,
                behaviour.exit_code,
                "exited",
                f"exited with code {behaviour.exit_code}",
            )
        elif seen.status is ObservedStatus.STARTING:
            answers = not behaviour.never_ready and not instance.sick and age_s >= behaviour.start_s
            self._judge_start(instance, judge_start(probe, age_s, answers=answers))
        elif instance.sick and seen.status is ObservedStatus.READY:
            self._observe(
                instance, replace(seen, status=ObservedStatus.UNREADY, reason="probe_failed")
            )
        elif not instance.sick and seen.status is ObservedStatus.UNREADY:
            self._observe(instance, replace(seen, status=ObservedStatus.READY, reason=""))

    def _judge_start(self, instance: _Instance, start: Start) -> None:
        seen, probe = instance.observation, instance.spec.probe
        match start:
            case Start.READY:
                endpoint = f"/fake/{seen.instance_id}/in.sock" if instance.spec.listen else None
                ready = replace(seen, status=ObservedStatus.READY, endpoint=endpoint)
                self._observe(instance, replace(ready, ready_at=self.clock.now()))
            case Start.OVERDUE:
                message = f"was not ready within {probe.grace_s:g} s"
                self.end(seen.instance_id, -_SIGKILL, "start_deadline", message)
            case Start.UNDER_WAY:
                pass

    def _observe(self, instance: _Instance, observation: Observation) -> None:
        instance.observation = observation
        self.changed[observation.instance_id] = None
        self.event.set()


class FakeRuntime:
    """Steers the instances of one ``FakeHost``."""

    kind: Literal["process", "podman", "kubernetes", "fake"] = "fake"

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    async def capabilities(self) -> Sequence[Capability]:
        """Find out what this machine offers: nothing real."""
        return [Capability(name="fake", offered=True, detail="instances in memory")]

    async def start(self, spec: InstanceSpec) -> None:
        """Start the instance as its behaviour says, unless its id was used before."""
        if spec.id not in self._host.used:
            self._host.add(spec)

    async def stop(self, instance_id: InstanceId, grace_s: float) -> None:
        """Ask the instance to end, which it does at once unless it ignores that."""
        instance = self._host.instances.get(instance_id)
        if instance is None or instance.observation.status is ObservedStatus.EXITED:
            return
        if instance.behaviour.ignores_stop and grace_s > 0:
            due = self._host.clock.now() + grace_s
            instance.kill_at = min(due, instance.kill_at or due)
            return
        code = -_SIGKILL if instance.behaviour.ignores_stop else -_SIGTERM
        self._host.end(instance_id, code, "stopped")

    async def remove(self, instance_id: InstanceId) -> None:
        """Forget an instance."""
        if instance_id in self._host.instances:
            self._host.end(instance_id, -_SIGKILL, "killed")
            del self._host.instances[instance_id]
            self._host.changed.pop(instance_id, None)

    async def inspect(self) -> Sequence[Observation]:
        """Return the state of every instance."""
        return [instance.observation for instance in self._host.instances.values()]

    async def watch(self) -> AsyncIterator[Observation]:
        """Yield the state of each instance once, then every change."""
        for instance_id in self._host.instances:
            self._host.changed[instance_id] = None
        while True:
            while self._host.changed:
                instance_id = next(iter(self._host.changed))
                del self._host.changed[instance_id]
                yield self._host.instances[instance_id].observation
            self._host.event.clear()
            await self._host.event.wait()

    async def execute(
        self, instance_id: InstanceId, command: Sequence[str], timeout_s: float
    ) -> ExecResult:
        """Pretend to run a command: ``echo`` prints its arguments, all others nothing."""
        instance = self._host.instances.get(instance_id)
        if instance is None or instance.observation.status is ObservedStatus.EXITED:
            raise NotFound(f"instance {instance_id} does not run")
        slow = command[0] == "sleep" and float(command[1]) > timeout_s
        if slow or instance.behaviour.execute_s > timeout_s:
            raise TimedOut(f"{command[0]} did not end within {timeout_s:g} s and was killed")
        output = " ".join(command[1:]) + "\n" if command[0] == "echo" else ""
        code = 1 if command[0] == "false" else 0
        return ExecResult(exit_code=code, stdout=output.encode(), stderr=b"")

    async def close(self) -> None:
        """Let go; instances run on."""
