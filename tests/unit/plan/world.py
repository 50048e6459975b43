"""A world small enough to explore: one service, its rows, and a runtime that obeys.

Plans are made with the real ``plan_service`` and applied here exactly as ``reconcile`` and
``store`` do it, so that properties of many steps can be checked without a platform.
"""

from dataclasses import dataclass, field, replace

from tramontane.base.ids import IdFactory, counting_ids
from tramontane.domain.artifact import Artifact
from tramontane.domain.cell import Capacity, Cell, EvidenceLevel, Fact
from tramontane.domain.definition import Definition, DirectorySource, Scaling, ServiceKind
from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.ids import CellId, DeploymentId, InstanceId, ServiceId
from tramontane.domain.instance import LIVE, Instance
from tramontane.domain.load import EngineLoad
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.domain.route import Refusal, Upstream, WaySockets
from tramontane.domain.service import Service
from tramontane.domain.snapshot import ServiceSnapshot
from tramontane.plan.draft import Circumstances
from tramontane.plan.scaling import Demand, Remembered, Sample, ScalingState
from tramontane.plan.service import ServicePlan, plan_service

START = 1_800_000_000.0
ARTIFACT = Artifact(
    digest="sha256:0", language="python", command=("app",), directory="/app", mounts=()
)
GERMANY = (
    Fact(
        attribute="country",
        value="DE",
        evidence=EvidenceLevel.CLAIM,
        source="test",
        recorded_at=START,
    ),
    Fact(
        attribute="operator_country",
        value="DE",
        evidence=EvidenceLevel.CLAIM,
        source="test",
        recorded_at=START,
    ),
)
SOCKETS = WaySockets(egress="/run/out", models="/run/models")
CELL = Cell(
    id=CellId("cel_1"),
    name="local",
    runtime="fake",
    isolation="sandbox",
    capacity=Capacity(memory_bytes=64 * 1024**3, cpus=8),
    facts=GERMANY,
)


def definition(**changes: object) -> Definition:
    base = Definition(
        kind=ServiceKind.WEB,
        source=DirectorySource(digest="sha256:0"),
        scaling=Scaling(instances_min=0, instances_max=5, concurrency=10, idle_s=60),
    )
    return replace(base, **changes)


@dataclass
class World:
    """Rows, a runtime and a clock, all in memory."""

    now: float = START
    service: Service = field(
        default_factory=lambda: Service(
            id=ServiceId("svc_1"),
            project="default",
            name="hello",
            kind=ServiceKind.WEB,
            generation=1,
            created_at=START,
            desired_deployment=None,
        )
    )
    deployments: dict[DeploymentId, Deployment] = field(default_factory=dict)
    instances: dict[InstanceId, Instance] = field(default_factory=dict)
    observed: dict[InstanceId, Observation] = field(default_factory=dict)
    cells: tuple[Cell, ...] = (CELL,)
    load: dict[str, int] = field(default_factory=dict)
    """Requests in progress by endpoint."""
    waiting: bool = False
    last_active_at: float | None = None
    samples: list[Sample] = field(default_factory=list)
    state: Remembered = field(default_factory=ScalingState)
    arrived: int = 0
    engines: tuple[EngineLoad, ...] = ()
    started: list[InstanceId] = field(default_factory=list)
    plan: ServicePlan | None = None
    ids: IdFactory = field(default_factory=counting_ids)

    # --- what users do ---

    def deploy(self, wanted: Definition | None = None, *, built: bool = True) -> Deployment:
        number = len(self.deployments) + 1
        deployment = Deployment(
            id=DeploymentId(f"dep_{number}"),
            service_id=self.service.id,
            number=number,
            definition=wanted or definition(),
            created_at=self.now,
            artifact=ARTIFACT if built else None,
            status=DeploymentStatus.PENDING if built else DeploymentStatus.BUILDING,
        )
        self.deployments[deployment.id] = deployment
        self._wish(
            desired_deployment=deployment.id,
            kind=deployment.definition.kind,
            paused=False,
            desired_instances=None,
            sleep_requested=False,
        )
        return deployment

    def _wish(self, **changes: object) -> None:
        self.service = replace(self.service, generation=self.service.generation + 1, **changes)

    def pause(self) -> None:
        self._wish(paused=True)

    def resume(self) -> None:
        self._wish(paused=False, desired_instances=None, sleep_requested=False)

    def scale(self, count: int) -> None:
        self._wish(desired_instances=count or None, sleep_requested=count == 0)

    def delete(self) -> None:
        self._wish(deleted=True)

    def request(self) -> None:
        """A request arrives: held if the service sleeps, else carried by a ready instance."""
        self.last_active_at = self.now
        target = self.target
        if isinstance(target, Upstream) and target.endpoints is None:
            self.waiting = True
        elif isinstance(target, Upstream) and target.endpoints:
            endpoint = target.endpoints[0]
            self.load[endpoint] = self.load.get(endpoint, 0) + 1

    def finish_requests(self) -> None:
        self.load.clear()

    # --- what runtimes do ---

    def ready(self, instance_id: InstanceId) -> None:
        deployment = self.deployments[self.instances[instance_id].deployment_id]
        reachable = deployment.definition.kind.takes_requests
        self._observe(
            instance_id,
            ObservedStatus.READY,
            endpoint=f"/run/{instance_id}" if reachable else None,
            ready_at=self.now,
            pid=7,
        )

    def unready(self, instance_id: InstanceId) -> None:
        self._observe(instance_id, ObservedStatus.UNREADY)

    def exited(self, instance_id: InstanceId, reason: str = "exited") -> None:
        self._observe(instance_id, ObservedStatus.EXITED, reason=reason, exit_code=1)
        endpoint = f"/run/{instance_id}"
        self.load.pop(endpoint, None)

    def _observe(self, instance_id: InstanceId, status: ObservedStatus, **facts: object) -> None:
        known = self.observed.get(
            instance_id, Observation(instance_id=instance_id, status=ObservedStatus.STARTING)
        )
        if known.status is not ObservedStatus.EXITED:
            self.observed[instance_id] = replace(known, status=status, **facts)

    # --- what the platform does ---

    @property
    def target(self) -> Upstream | Refusal | None:
        return self.plan.route.target if self.plan and self.plan.route else None

    def live(self) -> list[Instance]:
        return [each for each in self.instances.values() if each.status in LIVE]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.samples.append(Sample(at=self.now, in_progress=sum(self.load.values())))
        if self.load:
            self.last_active_at = self.now

    def look(self) -> ServicePlan:
        """Plan once, apply the rows, carry out the effects."""
        plan = plan_service(self._circumstances(), SOCKETS)
        self.plan = plan
        self.service = plan.changes.service or self.service
        self.deployments.update({each.id: each for each in plan.changes.deployments})
        self.instances.update({each.id: each for each in plan.changes.instances})
        self.state = plan.scaling_state
        for instance in plan.start:
            assert instance.id not in self.started, "an instance is started once"
            self.started.append(instance.id)
            self._observe(instance.id, ObservedStatus.STARTING)
        for instance in plan.stop:
            self._observe(instance.id, ObservedStatus.EXITED, reason="stopped", exit_code=0)
        for instance_id in plan.forget:
            self.observed.pop(instance_id, None)
        if not (isinstance(self.target, Upstream) and self.target.endpoints is None):
            self.waiting = False
        return plan

    def settle(self, looks: int = 12) -> None:
        """Look until nothing changes; every started instance becomes ready at once."""
        for _ in range(looks):
            plan = self.look()
            for instance_id, each in list(self.observed.items()):
                if each.status is ObservedStatus.STARTING:
                    self.ready(instance_id)
            if plan.changes.empty and not plan.start and not plan.stop:
                return
        raise AssertionError("the plan does not come to rest")

    def _circumstances(self) -> Circumstances:
        kept = {self.service.desired_deployment, self.service.serving_deployment}
        kept |= {each.deployment_id for each in self.live()}
        unfinished = {
            DeploymentStatus.BUILDING,
            DeploymentStatus.PENDING,
            DeploymentStatus.STARTING,
        }
        return Circumstances(
            snapshot=ServiceSnapshot(
                service=self.service,
                project_policy=(),
                deployments=tuple(
                    each
                    for each in self.deployments.values()
                    if each.id in kept or each.status in unfinished
                ),
                instances=tuple(self.live()),
                cells=self.cells,
            ),
            observed=self.observed,
            demand=Demand(
                samples=tuple(each for each in self.samples if each.at > self.now - 60),
                waiting=self.waiting,
                last_active_at=self.last_active_at,
                observed_since=START,
                in_progress_by_endpoint=tuple(sorted(self.load.items())),
                arrived=self.arrived,
                engines=self.engines,
                state=self.state,
            ),
            memory_used={},
            now=self.now,
            ids=self.ids,
        )
