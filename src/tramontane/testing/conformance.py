"""The promises of ``Runtime`` as checks that every implementation must pass, the fake included.

``tests/conformance`` runs each function of ``CHECKS`` against each ``Bed``. A bed prepares one
kind of runtime and instances that behave in the few ways the checks need.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from typing import Protocol

from tramontane.base.errors import NotFound, TimedOut
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.runtimes.runtime import InstanceSpec, Runtime

PATIENCE_S = 20.0
"""Longest wait for anything that must happen; nothing waits this long unless it is broken."""

FIRST = InstanceId("ins_0000000000000001")
SECOND = InstanceId("ins_0000000000000002")
THIRD = InstanceId("ins_0000000000000003")


class Behaviour(StrEnum):
    """What a program does that is started by a check."""

    SERVES = "serves"
    """Listens, answers ``GET /`` with 200 unless made sick, ends on SIGTERM."""
    NEVER_READY = "never ready"
    """Runs, but does not listen."""
    EXITS = "exits"
    """Ends at once with exit code 3."""
    IGNORES_STOP = "ignores stop"
    """As SERVES, but does not end on SIGTERM."""
    WORKS = "works"
    """Takes no connections and has no probe; runs on until SIGTERM."""
    GIVES_UP = "gives up"
    """As WORKS, but ends before its grace is over, with exit code 3."""


class Bed(Protocol):
    """One kind of runtime, prepared for the checks."""

    @property
    def runtime(self) -> Runtime:
        """The runtime under test."""
        ...

    async def renew(self) -> None:
        """Replace ``runtime`` as a restart of the control plane does; instances run on."""
        ...

    def spec(self, instance_id: InstanceId, behaviour: Behaviour) -> InstanceSpec:
        """Return an instance that behaves so; it is probed over HTTP if at all, grace is short."""
        ...

    async def make_sick(self, instance_id: InstanceId, sick: bool) -> None:
        """Have the probe of a SERVES instance fail from now on, or succeed again."""
        ...

    async def pass_time(self) -> None:
        """Move the clock, where the runtime's clock is the test's."""
        ...


Check = Callable[[Bed], Awaitable[None]]


class Watching:
    """Reads a runtime's ``watch`` until something was seen."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._stream: AsyncIterator[Observation] = bed.runtime.watch()
        self.seen: list[Observation] = []

    async def until(self, instance_id: InstanceId, *statuses: ObservedStatus) -> Observation:
        """Return the newest observation of an instance once it has one of the statuses."""
        for observation in reversed(self.seen):
            if observation.instance_id == instance_id:
                if observation.status in statuses:
                    return observation
                break
        clock = asyncio.ensure_future(self._move_clock())
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._next(instance_id, statuses)
        except TimeoutError as error:
            known = await self._bed.runtime.inspect()
            raise AssertionError(f"{instance_id} is not {statuses} but {known}") from error
        finally:
            clock.cancel()

    async def close(self) -> None:
        """End the watch."""
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()

    async def _next(
        self, instance_id: InstanceId, statuses: tuple[ObservedStatus, ...]
    ) -> Observation:
        while True:
            observation = await anext(self._stream)
            self.seen.append(observation)
            if observation.instance_id != instance_id:
                continue
            if observation.status in statuses:
                return observation
            assert observation.status is not ObservedStatus.EXITED, observation

    async def _move_clock(self) -> None:
        while True:
            await self._bed.pass_time()
            await asyncio.sleep(0.01)


async def check_start_leads_to_ready(bed: Bed) -> None:
    """A started instance becomes ready, with a process, an endpoint and its times."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.SERVES))
    ready = await watching.until(FIRST, ObservedStatus.READY, ObservedStatus.EXITED)
    assert ready.status is ObservedStatus.READY, ready
    assert watching.seen[0].status is ObservedStatus.STARTING
    assert ready.endpoint
    assert ready.pid
    assert ready.started_at is not None
    assert ready.ready_at is not None
    assert ready.ready_at >= ready.started_at
    await watching.close()


async def check_what_cannot_be_asked_is_ready_after_its_grace(bed: Bed) -> None:
    """An instance without a probe is ready when its grace is over, and has no endpoint."""
    watching = Watching(bed)
    spec = bed.spec(FIRST, Behaviour.WORKS)
    await bed.runtime.start(spec)
    ready = await watching.until(FIRST, ObservedStatus.READY, ObservedStatus.EXITED)
    assert ready.status is ObservedStatus.READY, ready
    assert watching.seen[0].status is ObservedStatus.STARTING
    assert ready.endpoint is None
    assert ready.pid
    assert ready.started_at is not None
    assert ready.ready_at is not None
    assert ready.ready_at - ready.started_at >= spec.probe.grace_s
    await bed.runtime.stop(FIRST, PATIENCE_S)
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert (ended.reason, ended.exit_code) == ("stopped", -15)
    await watching.close()


async def check_what_ends_within_its_grace_was_never_ready(bed: Bed) -> None:
    """An instance without a probe that ends during its grace has not been ready."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.GIVES_UP))
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert (ended.exit_code, ended.ready_at) == (3, None)
    assert ObservedStatus.READY not in {each.status for each in watching.seen}
    await watching.close()


async def check_start_may_be_repeated(bed: Bed) -> None:
    """Starting the same id again, even at the same time, changes nothing."""
    watching = Watching(bed)
    spec = bed.spec(FIRST, Behaviour.SERVES)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(bed.runtime.start(spec))
    ready = await watching.until(FIRST, ObservedStatus.READY)
    await bed.runtime.start(spec)
    (only,) = await bed.runtime.inspect()
    assert only.pid == ready.pid
    await watching.close()


async def check_an_id_runs_once(bed: Bed) -> None:
    """An instance that has ended is not started again, nor after it was removed."""
    watching = Watching(bed)
    spec = bed.spec(FIRST, Behaviour.EXITS)
    await bed.runtime.start(spec)
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    await bed.runtime.start(spec)
    assert [each.status for each in await bed.runtime.inspect()] == [ObservedStatus.EXITED]
    assert (await bed.runtime.inspect())[0].pid == ended.pid
    await bed.runtime.remove(FIRST)
    await bed.runtime.start(spec)
    assert not await bed.runtime.inspect()
    await watching.close()


async def check_an_exit_is_reported(bed: Bed) -> None:
    """A program that ends by itself is reported with its exit code, for good."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.EXITS))
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert (ended.reason, ended.exit_code) == ("exited", 3)
    assert "3" in ended.message
    assert ended.endpoint is None
    assert (await bed.runtime.inspect())[0].status is ObservedStatus.EXITED
    await watching.close()


async def check_the_start_deadline_is_kept(bed: Bed) -> None:
    """A program that does not become ready in time is ended, and the reason says so."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.NEVER_READY))
    ended = await watching.until(FIRST, ObservedStatus.EXITED, ObservedStatus.READY)
    assert ended.reason == "start_deadline"
    assert "not ready" in ended.message
    await watching.close()


async def check_stop_ends_it(bed: Bed) -> None:
    """A stopped instance ends by SIGTERM; stopping it again is silence."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.SERVES))
    await watching.until(FIRST, ObservedStatus.READY)
    await bed.runtime.stop(FIRST, PATIENCE_S)
    await bed.runtime.stop(FIRST, PATIENCE_S)
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert (ended.reason, ended.exit_code) == ("stopped", -15)
    await bed.runtime.stop(FIRST, 0)
    await watching.close()


async def check_stop_is_enforced(bed: Bed) -> None:
    """A program that ignores SIGTERM is ended by force when its time is up."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.IGNORES_STOP))
    await watching.until(FIRST, ObservedStatus.READY)
    await bed.runtime.stop(FIRST, 0.3)
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert (ended.reason, ended.exit_code) == ("stopped", -9)
    await watching.close()


async def check_what_is_unknown_is_silence(bed: Bed) -> None:
    """Stopping and removing what never was, or was removed, does nothing."""
    await bed.runtime.stop(THIRD, 1.0)
    await bed.runtime.remove(THIRD)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.SERVES))
    await bed.runtime.remove(FIRST)
    await bed.runtime.remove(FIRST)
    await bed.runtime.stop(FIRST, 1.0)
    assert not await bed.runtime.inspect()


async def check_remove_ends_what_runs(bed: Bed) -> None:
    """Removing an instance that runs ends it first; others are left alone."""
    watching = Watching(bed)
    for instance_id in (FIRST, SECOND):
        await bed.runtime.start(bed.spec(instance_id, Behaviour.SERVES))
    await watching.until(FIRST, ObservedStatus.READY)
    await bed.runtime.remove(FIRST)
    assert [each.instance_id for each in await bed.runtime.inspect()] == [SECOND]
    await watching.until(SECOND, ObservedStatus.READY)
    await watching.close()


async def check_watch_begins_with_everything(bed: Bed) -> None:
    """A watch first yields the state of each instance, ended ones too."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.SERVES))
    await bed.runtime.start(bed.spec(SECOND, Behaviour.EXITS))
    await watching.until(SECOND, ObservedStatus.EXITED)
    await watching.close()
    again = Watching(bed)
    await again.until(FIRST, ObservedStatus.READY)
    await again.close()
    last = Watching(bed)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(last.until(SECOND, ObservedStatus.EXITED))
    await last.close()


async def check_instances_outlive_the_runtime(bed: Bed) -> None:
    """A new runtime sees the same processes and steers them."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.SERVES))
    await bed.runtime.start(bed.spec(SECOND, Behaviour.EXITS))
    before = await watching.until(FIRST, ObservedStatus.READY)
    await watching.close()
    await bed.renew()
    adopted = Watching(bed)
    after = await adopted.until(FIRST, ObservedStatus.READY)
    assert (after.pid, after.endpoint, after.ready_at) == (
        before.pid,
        before.endpoint,
        before.ready_at,
    )
    await bed.runtime.start(bed.spec(FIRST, Behaviour.SERVES))
    await bed.runtime.stop(FIRST, PATIENCE_S)
    ended = await adopted.until(FIRST, ObservedStatus.EXITED)
    assert (ended.reason, ended.pid) == ("stopped", before.pid)
    await adopted.close()


async def check_ends_are_seen_after_a_restart(bed: Bed) -> None:
    """An end that nobody watched is reported by the next runtime."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.EXITS))
    await watching.until(FIRST, ObservedStatus.EXITED)
    await watching.close()
    await bed.renew()
    (ended,) = await bed.runtime.inspect()
    assert (ended.status, ended.exit_code) == (ObservedStatus.EXITED, 3)


async def check_sickness_is_reported_both_ways(bed: Bed) -> None:
    """An instance whose probe fails is unready, and ready again when it recovers."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.SERVES))
    ready = await watching.until(FIRST, ObservedStatus.READY)
    await bed.make_sick(FIRST, True)
    unready = await watching.until(FIRST, ObservedStatus.UNREADY)
    assert unready.reason == "probe_failed"
    await bed.make_sick(FIRST, False)
    recovered = await watching.until(FIRST, ObservedStatus.READY)
    assert (recovered.pid, recovered.reason) == (ready.pid, "")
    await watching.close()


async def check_commands_run_inside(bed: Bed) -> None:
    """``execute`` returns output and exit code, keeps to its time, and knows what runs."""
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.SERVES))
    await watching.until(FIRST, ObservedStatus.READY)
    result = await bed.runtime.execute(FIRST, ["echo", "hello", "there"], PATIENCE_S)
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"hello there\n", b"")
    assert (await bed.runtime.execute(FIRST, ["false"], PATIENCE_S)).exit_code == 1
    await _must_raise(TimedOut, bed.runtime.execute(FIRST, ["sleep", "60"], 0.2))
    await _must_raise(NotFound, bed.runtime.execute(THIRD, ["true"], 1.0))
    await bed.runtime.stop(FIRST, PATIENCE_S)
    await watching.until(FIRST, ObservedStatus.EXITED)
    await _must_raise(NotFound, bed.runtime.execute(FIRST, ["true"], 1.0))
    await watching.close()


async def check_capabilities_change_nothing(bed: Bed) -> None:
    """Capabilities are named once each, explained, and finding out starts nothing."""
    found = await bed.runtime.capabilities()
    names = [capability.name for capability in found]
    assert names
    assert len(set(names)) == len(names)
    assert all(capability.detail for capability in found)
    assert not await bed.runtime.inspect()


async def _must_raise(kind: type[Exception], work: Awaitable[object]) -> None:
    try:
        await work
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


CHECKS: tuple[Check, ...] = (
    check_start_leads_to_ready,
    check_what_cannot_be_asked_is_ready_after_its_grace,
    check_what_ends_within_its_grace_was_never_ready,
    check_start_may_be_repeated,
    check_an_id_runs_once,
    check_an_exit_is_reported,
    check_the_start_deadline_is_kept,
    check_stop_ends_it,
    check_stop_is_enforced,
    check_what_is_unknown_is_silence,
    check_remove_ends_what_runs,
    check_watch_begins_with_everything,
    check_instances_outlive_the_runtime,
    check_ends_are_seen_after_a_restart,
    check_sickness_is_reported_both_ways,
    check_commands_run_inside,
    check_capabilities_change_nothing,
)
