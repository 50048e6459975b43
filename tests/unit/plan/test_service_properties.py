"""What may never happen to a service, whatever users, requests and programs do."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.plan.world import CELL, World, definition
from tramontane.domain.cell import Fact
from tramontane.domain.definition import Scaling, ServiceKind
from tramontane.domain.deployment import DeploymentStatus
from tramontane.domain.ids import CellId
from tramontane.domain.instance import InstanceStatus
from tramontane.domain.observation import ObservedStatus
from tramontane.domain.route import Upstream
from tramontane.domain.service import ServiceStatus

ABROAD = replace(
    CELL,
    id=CellId("cel_2"),
    name="abroad",
    facts=tuple(replace(fact, value="US") for fact in CELL.facts),
)
INSTANCES_MAX = 4


class ServiceMachine(RuleBasedStateMachine):
    """Random users, requests, crashes and laws over one service and two cells."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(cells=(CELL, ABROAD))
        self.names_spent: set[str] = set()
        self.name_awake: str | None = None

    @rule(
        policy=st.sampled_from([(), ("eu",), ("country-fr",)]),
        low=st.integers(min_value=0, max_value=2),
        kind=st.sampled_from([ServiceKind.WEB, ServiceKind.WEB, ServiceKind.WORKER]),
    )
    def deploy(self, policy: tuple[str, ...], low: int, kind: ServiceKind) -> None:
        scaling = Scaling(instances_min=low, instances_max=INSTANCES_MAX, concurrency=2, idle_s=30)
        self.world.deploy(definition(kind=kind, policy=policy, scaling=scaling))

    @precondition(lambda self: self.world.deployments)
    @rule(count=st.integers(min_value=0, max_value=INSTANCES_MAX))
    def scale(self, count: int) -> None:
        self.world.scale(count)

    @rule()
    def pause(self) -> None:
        self.world.pause()

    @rule()
    def resume(self) -> None:
        self.world.resume()

    @precondition(
        lambda self: any(
            each.status is DeploymentStatus.SUPERSEDED for each in self.world.deployments.values()
        )
    )
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        old = [
            each.id
            for each in self.world.deployments.values()
            if each.status is DeploymentStatus.SUPERSEDED
        ]
        self.world._wish(desired_deployment=data.draw(st.sampled_from(old)))

    @rule(count=st.integers(min_value=1, max_value=12))
    def requests(self, count: int) -> None:
        for _ in range(count):
            self.world.request()

    @rule()
    def finish_requests(self) -> None:
        self.world.finish_requests()

    @precondition(lambda self: self.world.observed)
    @rule(data=st.data(), what=st.sampled_from(["ready", "unready", "exited", "deadline"]))
    def instance_changes(self, data: st.DataObject, what: str) -> None:
        instance_id = data.draw(st.sampled_from(sorted(self.world.observed)))
        status = self.world.observed[instance_id].status
        if what == "ready":
            self.world.ready(instance_id)
        elif what == "unready" and status is ObservedStatus.READY:
            self.world.unready(instance_id)
        elif what == "exited":
            self.world.exited(instance_id)
        elif what == "deadline" and status is ObservedStatus.STARTING:
            self.world.exited(instance_id, "start_deadline")

    @rule()
    def machine_restarts(self) -> None:
        """Nothing runs any more and nobody remembers it."""
        self.world.observed.clear()
        self.world.load.clear()
        self.world.started.clear()

    @rule(country=st.sampled_from(["DE", "FR", "US"]))
    def cell_moves(self, country: str) -> None:
        facts: tuple[Fact, ...] = tuple(replace(fact, value=country) for fact in CELL.facts)
        self.world.cells = (replace(CELL, facts=facts), ABROAD)

    @rule(seconds=st.sampled_from([0.5, 1, 3, 10, 60, 600]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def look(self) -> None:
        self.world.look()

    @rule()
    def settle(self) -> None:
        self.world.settle(looks=40)

    @invariant()
    def only_allowed_cells_run_instances_after_a_look(self) -> None:
        world = self.world
        world.look()
        allowed_by_cell = {each.id: each.facts[0].value for each in world.cells}
        kept = {world.service.desired_deployment, world.service.serving_deployment}
        for instance in world.live():
            policy = world.deployments[instance.deployment_id].definition.policy
            country = allowed_by_cell[instance.cell_id]
            if instance.deployment_id not in kept or instance.status is InstanceStatus.STOPPING:
                continue
            assert "eu" not in policy or country in {"DE", "FR"}
            assert "country-fr" not in policy or country == "FR"

    @invariant()
    def the_gateway_sends_requests_only_to_ready_instances(self) -> None:
        target = self.world.target
        if isinstance(target, Upstream) and target.endpoints is not None:
            ready = {
                each.endpoint for each in self.world.live() if each.status is InstanceStatus.HEALTHY
            }
            assert target.endpoints
            assert set(target.endpoints) <= ready
            assert not set(target.endpoints) & set(target.draining)

    @invariant()
    def an_upstream_name_never_falls_asleep_twice(self) -> None:
        target = self.world.target
        if not isinstance(target, Upstream):
            return
        if target.endpoints is not None:
            self.name_awake = target.name
        else:
            assert target.name != self.name_awake, "Envoy would never ask for it again"

    @invariant()
    def only_what_takes_requests_has_an_address(self) -> None:
        world = self.world
        current = world.service.serving_deployment or world.service.desired_deployment
        if world.plan is not None and current is not None:
            takes_requests = world.deployments[current].definition.kind.takes_requests
            assert (world.target is not None) is takes_requests

    @invariant()
    def what_takes_no_requests_sleeps_only_if_it_was_told_to(self) -> None:
        world = self.world
        serving = world.service.serving_deployment
        if world.service.status is ServiceStatus.SLEEPING and serving is not None:
            told = world.service.sleep_requested
            assert told or world.deployments[serving].definition.kind.takes_requests

    @invariant()
    def there_are_never_too_many_instances(self) -> None:
        carrying = [
            each
            for each in self.world.live()
            if each.status
            in {InstanceStatus.ALLOCATED, InstanceStatus.STARTING, InstanceStatus.HEALTHY}
        ]
        assert len(carrying) <= 2 * INSTANCES_MAX

    @invariant()
    def the_status_is_true(self) -> None:
        world = self.world
        ready = [each for each in world.live() if each.status is InstanceStatus.HEALTHY]
        match world.service.status:
            case ServiceStatus.HEALTHY | ServiceStatus.DEGRADED:
                assert ready
            case ServiceStatus.SLEEPING | ServiceStatus.PAUSED:
                assert not ready
            case ServiceStatus.PENDING | ServiceStatus.ERROR:
                assert not ready
            case _:
                pass

    def teardown(self) -> None:
        """Whatever happened, a deleted service goes away completely."""
        self.world.finish_requests()
        self.world.delete()
        for _ in range(10):
            self.world.advance(60)
            self.world.settle(looks=40)
        assert self.world.look().finished


ServiceMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, derandomize=True
)
TestServiceMachine = ServiceMachine.TestCase
