"""The runtimes that the conformance suite is run against."""

from pathlib import Path

from tests.conformance.programs import SERVER, Programs, find_interpreter
from tramontane.base.clock import SystemClock
from tramontane.domain.artifact import Artifact
from tramontane.domain.definition import Probe, ProbeKind, Resources
from tramontane.domain.ids import InstanceId
from tramontane.runtimes.process.protocol import Isolation
from tramontane.runtimes.process.runtime import ProcessRuntime, ProcessSettings
from tramontane.runtimes.runtime import InstanceSpec, Runtime
from tramontane.testing.clocks import FakeClock
from tramontane.testing.conformance import Behaviour
from tramontane.testing.fake_runtime import FakeBehaviour, FakeHost, FakeRuntime

_FAKE = {
    Behaviour.SERVES: FakeBehaviour(start_s=1.0),
    Behaviour.NEVER_READY: FakeBehaviour(never_ready=True),
    Behaviour.EXITS: FakeBehaviour(crash_after_s=0.5, exit_code=3, never_ready=True),
    Behaviour.IGNORES_STOP: FakeBehaviour(ignores_stop=True),
    Behaviour.WORKS: FakeBehaviour(never_ready=True),
    Behaviour.GIVES_UP: FakeBehaviour(never_ready=True, crash_after_s=2, exit_code=3),
}
_UNASKED = (Behaviour.WORKS, Behaviour.GIVES_UP)


class FakeBed:
    """The fake, whose clock moves with every step."""

    def __init__(self) -> None:
        self._clock = FakeClock()
        self._host = FakeHost(self._clock, lambda spec: _FAKE[Behaviour(spec.label)])
        self._runtime = FakeRuntime(self._host)

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    async def renew(self) -> None:
        await self._runtime.close()
        self._runtime = FakeRuntime(self._host)

    def spec(self, instance_id: InstanceId, behaviour: Behaviour) -> InstanceSpec:
        return InstanceSpec(
            id=instance_id,
            label=behaviour.value,
            artifact=Artifact(
                digest="sha256:0", language="fake", command=("fake",), directory="/", mounts=()
            ),
            command=("fake",),
            environment=(),
            resources=Resources(),
            probe=Probe(kind=ProbeKind.NONE if behaviour in _UNASKED else ProbeKind.TCP, grace_s=5),
            log_path="/fake/log",
        )

    async def make_sick(self, instance_id: InstanceId, sick: bool) -> None:
        self._host.make_sick(instance_id, sick)

    async def pass_time(self) -> None:
        self._clock.advance(0.2)
        self._host.step()

    async def close(self) -> None:
        await self._runtime.close()


class ProcessBed:
    """Real processes of this machine."""

    def __init__(self, directory: Path, isolation: Isolation) -> None:
        self.directory = directory
        self.isolation = isolation
        self.programs = Programs(directory, find_interpreter())
        self.process_runtime = self.make()

    @property
    def runtime(self) -> Runtime:
        return self.process_runtime

    async def renew(self) -> None:
        await self.process_runtime.close()
        self.process_runtime = self.make()

    def spec(self, instance_id: InstanceId, behaviour: Behaviour) -> InstanceSpec:
        match behaviour:
            case Behaviour.SERVES:
                return self.programs.python(instance_id, SERVER)
            case Behaviour.IGNORES_STOP:
                return self.programs.python(instance_id, SERVER, "ignore")
            case Behaviour.NEVER_READY:
                probe = Probe(kind=ProbeKind.HTTP, grace_s=0.5)
                return self.programs.command(instance_id, "/bin/sleep", "600", probe=probe)
            case Behaviour.EXITS:
                return self.programs.command(instance_id, "/bin/sh", "-c", "exit 3")
            case Behaviour.WORKS:
                probe = Probe(kind=ProbeKind.NONE, grace_s=0.5)
                return self.programs.command(instance_id, "/bin/sleep", "600", probe=probe)
            case Behaviour.GIVES_UP:
                probe = Probe(kind=ProbeKind.NONE, grace_s=60)
                return self.programs.command(instance_id, "/bin/sh", "-c", "exit 3", probe=probe)

    async def make_sick(self, instance_id: InstanceId, sick: bool) -> None:
        action = 'touch "$HOME/sick"' if sick else 'rm "$HOME/sick"'
        result = await self.runtime.execute(instance_id, ["/bin/sh", "-c", action], 10)
        assert result.exit_code == 0, result

    async def pass_time(self) -> None:
        return

    async def close(self) -> None:
        """End every instance and the launcher: a test leaves no process behind."""
        runtime = self.process_runtime
        for observation in await runtime.inspect():
            await runtime.remove(observation.instance_id)
        await runtime.end_launcher()
        await runtime.close()

    def make(self, **settings: int) -> ProcessRuntime:
        """Return another runtime over the same directories."""
        return ProcessRuntime(
            self.directory / "state",
            self.directory / "run",
            clock=SystemClock(),
            isolation=self.isolation,
            settings=ProcessSettings(**settings),
            launcher_idle_s=5,
        )
