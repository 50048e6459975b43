"""Moves every service towards what was asked: read, plan, write, act.

Starting an instance and publishing a route go on beside the write, since a waking request waits
for them. Woken by nudges and by time; takes no other input; any step may be repeated after a
crash. The reference piece for reconcilers (STYLE.md).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tramontane.base.clock import Clock
from tramontane.base.errors import InvalidRequest, Unsupported
from tramontane.base.ids import IdFactory
from tramontane.base.nudges import NudgeQueue
from tramontane.domain.cell import Cell
from tramontane.domain.definition import Definition
from tramontane.domain.deployment import Deployment
from tramontane.domain.ids import CellId, DeploymentId, InstanceId, ServiceId
from tramontane.domain.instance import LIVE, Instance
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.domain.route import EgressRoute, Refusal, ServiceRoute
from tramontane.domain.service import Service
from tramontane.domain.snapshot import Changes, ServiceSnapshot
from tramontane.plan.draft import Circumstances
from tramontane.plan.needs import needs_of
from tramontane.plan.service import ServicePlan, plan_service
from tramontane.reconcile.demand import DemandTracker
from tramontane.reconcile.specs import InstancePaths, make_spec, stop_grace_s
from tramontane.runtimes.runtime import Runtime

log = logging.getLogger(__name__)

SWEEP_S = 30.0
"""Services with instances are looked at this often even if nobody nudged."""
SWEEP_ALL_S = 600.0
"""And all others this often: a thousand that sleep should cost next to nothing."""
WORKERS = 8
IDLE_WAYS_MAX = 64
"""Ways out that stay open behind services that sleep: opening one slows the next wake down."""


ModelAccess = Callable[[Service, Definition, Instance], Mapping[str, str]]


class Memory(Protocol):
    """What this reconciler needs of the store."""

    def list_service_ids(self) -> Sequence[ServiceId]:
        """Return the ids of all services, deleted but unfinished ones included."""
        ...

    def list_live_instances(self) -> dict[InstanceId, ServiceId]:
        """Return the owner of every live instance."""
        ...

    def read_snapshot(
        self, service_id: ServiceId, cells: Sequence[Cell] | None = None
    ) -> ServiceSnapshot | None:
        """Return the service and all that decisions about it depend on; None if it is gone."""
        ...

    def apply(self, changes: Changes, service_id: ServiceId, expected_generation: int) -> bool:
        """Write the observed side; False, and nothing written, if the desired side has moved."""
        ...

    def finish_delete(self, service_id: ServiceId) -> bool:
        """Remove a deleted service's rows; False while instances live."""
        ...


class Routes(Protocol):
    """What this reconciler needs of the gateway."""

    def publish_service(self, route: ServiceRoute) -> None:
        """Serve the route from now on, in place of the service's earlier one."""
        ...

    def remove_service(self, project: str, service: str) -> None:
        """Serve the service no longer."""
        ...

    def publish_egress(self, route: EgressRoute) -> None:
        """Open the service's way out."""
        ...

    def remove_egress(self, service_id: str) -> None:
        """Close the service's way out."""
        ...


@dataclass(kw_only=True)
class ServiceReconciler:
    """One platform's services, with what its runtimes and its gateway report about them."""

    store: Memory
    runtimes: Mapping[CellId, Runtime]
    cells: Sequence[Cell]
    routes: Routes
    demand: DemandTracker
    queue: NudgeQueue[ServiceId]
    builds: NudgeQueue[DeploymentId]
    paths: InstancePaths
    clock: Clock
    ids: IdFactory
    on_change: Callable[[ServiceId], None]
    """Called after something about the service was written, for those who watch it."""
    on_models_change: Callable[[str], None] = lambda _: None
    """Called when a model of this project has got or lost its route."""
    check_start: Callable[[Deployment], None] = lambda _: None
    """Raises what speaks against starting instances of a deployment now."""

    model_access: ModelAccess = lambda _service, _definition, _instance: {}
    """Makes the variables with which an instance reaches the models that it is bound to."""

    _observed: dict[InstanceId, Observation] = field(
        init=False, default_factory=dict[InstanceId, Observation]
    )
    _owners: dict[InstanceId, ServiceId] = field(
        init=False, default_factory=dict[InstanceId, ServiceId]
    )
    _promised: dict[ServiceId, dict[CellId, int]] = field(
        init=False, default_factory=dict[ServiceId, dict[CellId, int]]
    )
    """Memory limits of live instances, in bytes."""
    _published: dict[ServiceId, ServiceRoute] = field(
        init=False, default_factory=dict[ServiceId, ServiceRoute]
    )
    _egress: dict[ServiceId, EgressRoute] = field(
        init=False, default_factory=dict[ServiceId, EgressRoute]
    )

    _idle_ways: dict[ServiceId, None] = field(init=False, default_factory=dict[ServiceId, None])
    """Ways out that nothing runs behind, longest idle first."""

    def routes_now(self) -> list[ServiceRoute]:
        """Return every route that is or should be served."""
        return list(self._published.values())

    def models_now(self, project: str) -> frozenset[str]:
        """Return the services of a project that have a route as a model."""
        routes = self._published.values()
        return frozenset(each.service for each in routes if each.model and each.project == project)

    def egress_now(self) -> list[EgressRoute]:
        """Return every way out that is or should be open."""
        return list(self._egress.values())

    async def adopt(self) -> None:
        """Take over what runs, before anything is decided: call once, before ``run``.

        Instances that no service owns (their rows never became durable, or are long gone) are
        ended.
        """
        for cell_id, runtime in self.runtimes.items():
            for observation in await runtime.inspect():
                self._observed[observation.instance_id] = observation
            known = await asyncio.to_thread(self.store.list_live_instances)
            for instance_id in [each for each in self._observed if each not in known]:
                log.info("removing instance %s in cell %s: nobody owns it", instance_id, cell_id)
                await runtime.remove(instance_id)
                del self._observed[instance_id]
            self._owners.update(known)
        for service_id in await asyncio.to_thread(self.store.list_service_ids):
            await self.reconcile(service_id)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            for runtime in self.runtimes.values():
                group.create_task(self._watch(runtime))
            for _ in range(WORKERS):
                group.create_task(self._work())
            group.create_task(self._sweep())

    async def reconcile(self, service_id: ServiceId) -> None:
        """Look at one service once."""
        snapshot = await asyncio.to_thread(self.store.read_snapshot, service_id, self.cells)
        if snapshot is None:
            self._forget(service_id)
            return
        now = self.clock.now()
        context = Circumstances(
            snapshot=snapshot,
            observed=self._observed,
            demand=self.demand.demand(service_id, now),
            memory_used=self._memory_used(),
            now=now,
            ids=self.ids,
        )
        plan = plan_service(context, self.paths.ways(service_id))
        # Routes follow from what is observed, so they need no write. An instance that was started
        # and whose row never becomes durable is removed: below, or by ``adopt`` after a crash.
        starts = asyncio.gather(*(self._start(snapshot, plan, each) for each in plan.start))
        writing = asyncio.ensure_future(self._write(snapshot, plan))
        await asyncio.sleep(0)  # both are on their way before routes are encoded
        self._publish(service_id, plan)
        try:
            written = await writing
        except Exception:
            await self._take_back(plan.start, starts)
            raise
        if not written:
            await self._take_back(plan.start, starts)
            self.queue.nudge(service_id)
            return
        if not plan.changes.empty:
            self.on_change(service_id)
        self._promise(snapshot, plan)
        self.demand.keep_state(service_id, plan.scaling_state)
        await starts
        await self._carry_out(snapshot, plan)
        if plan.look_again_at is not None:
            self.queue.nudge_in(service_id, plan.look_again_at - self.clock.now())

    async def _write(self, snapshot: ServiceSnapshot, plan: ServicePlan) -> bool:
        """Write what was decided; False if the wish behind it has changed meanwhile."""
        service = snapshot.service
        return plan.changes.empty or await asyncio.to_thread(
            self.store.apply, plan.changes, service.id, service.generation
        )

    async def _take_back(
        self, instances: Sequence[Instance], starts: asyncio.Future[list[None]]
    ) -> None:
        """Remove instances that were started before it turned out that they may not be."""
        await asyncio.wait([starts])
        for instance in instances:
            await self.runtimes[instance.cell_id].remove(instance.id)
            self._observed.pop(instance.id, None)
            self._owners.pop(instance.id, None)

    async def _carry_out(self, snapshot: ServiceSnapshot, plan: ServicePlan) -> None:
        service = plan.changes.service or snapshot.service
        for deployment_id in plan.build:
            self.builds.nudge(deployment_id)
        definitions = {each.id: each.definition for each in snapshot.deployments}
        for instance in plan.stop:
            grace_s = stop_grace_s(definitions[instance.deployment_id])
            await self.runtimes[instance.cell_id].stop(instance.id, grace_s)
        for instance_id in plan.forget:
            cell_id = self._cell_of(snapshot, plan, instance_id)
            await self.runtimes[cell_id].remove(instance_id)
            self._observed.pop(instance_id, None)
            self._owners.pop(instance_id, None)
        if plan.finished:
            await asyncio.to_thread(self.store.finish_delete, service.id)
            self._forget(service.id)

    async def _start(
        self, snapshot: ServiceSnapshot, plan: ServicePlan, instance: Instance
    ) -> None:
        deployments = {each.id: each for each in (*snapshot.deployments, *plan.changes.deployments)}
        deployment = deployments[instance.deployment_id]
        cell = next(each for each in snapshot.cells if each.id == instance.cell_id)
        access = self.model_access(snapshot.service, deployment.definition, instance)
        self._owners[instance.id] = instance.service_id
        try:
            self.check_start(deployment)
            spec = make_spec(snapshot.service, deployment, instance, cell, self.paths, access)
            await self.runtimes[instance.cell_id].start(spec)
        except (Unsupported, InvalidRequest) as error:
            # Neither goes away by trying again: the instance has failed, with the reason.
            self._observed[instance.id] = Observation(
                instance_id=instance.id,
                status=ObservedStatus.EXITED,
                reason=error.code,
                message=error.message,
            )
            self.queue.nudge(instance.service_id)
        else:
            self._observed.setdefault(
                instance.id, Observation(instance_id=instance.id, status=ObservedStatus.STARTING)
            )

    def _publish(self, service_id: ServiceId, plan: ServicePlan) -> None:
        if plan.egress is not None:
            self._idle_ways.pop(service_id, None)
            if plan.egress != self._egress.get(service_id):
                self.routes.publish_egress(plan.egress)
                self._egress[service_id] = plan.egress
        elif service_id in self._egress and service_id not in self._idle_ways:
            self._idle_ways[service_id] = None
            if len(self._idle_ways) > IDLE_WAYS_MAX:
                self._close_egress(next(iter(self._idle_ways)))
        route, published = plan.route, self._published.get(service_id)
        if route != published:
            if route is not None:
                self.routes.publish_service(route)
                self._published[service_id] = route
            elif published is not None:
                self.routes.remove_service(published.project, published.service)
                del self._published[service_id]
            with_model = [each for each in (route, published) if each is not None and each.model]
            if len(with_model) == 1:
                self.on_models_change(with_model[0].project)
        target = route.target if route else None
        if target is None or isinstance(target, Refusal) or target.endpoints is not None:
            self.demand.settle(service_id)

    async def _watch(self, runtime: Runtime) -> None:
        async for observation in runtime.watch():
            self.observe(observation)

    def observe(self, observation: Observation) -> None:
        """Take in what a runtime tells of an instance, and look at its service if that matters."""
        owner = self._owners.get(observation.instance_id)
        if owner is None:
            return
        before = self._observed.get(observation.instance_id)
        self._observed[observation.instance_id] = observation
        # A process id alone decides nothing; it is written with what does. On the way to
        # ready this saves two looks, which a waking request would wait for.
        if before is None or _decisive(before) != _decisive(observation):
            self.queue.nudge(owner)

    async def _work(self) -> None:
        while True:
            service_id = await self.queue.take()
            try:
                await self.reconcile(service_id)
            except Exception:
                # A fault in one service must not end the loop for all; time is the retry.
                log.exception("reconciling service %s failed; it is tried again", service_id)
                self.queue.nudge_in(service_id, 1.0)
            finally:
                self.queue.done(service_id)

    async def _sweep(self) -> None:
        swept_at = self.clock.monotonic()
        while True:
            await asyncio.sleep(SWEEP_S)
            service_ids: Sequence[ServiceId] = list(self._promised)
            if self.clock.monotonic() - swept_at >= SWEEP_ALL_S:
                swept_at = self.clock.monotonic()
                service_ids = await asyncio.to_thread(self.store.list_service_ids)
            for service_id in service_ids:
                self.queue.nudge_when_idle(service_id)

    def _memory_used(self) -> dict[CellId, int]:
        used: Counter[CellId] = Counter()
        for promised in self._promised.values():
            used.update(promised)
        return dict(used)

    def _promise(self, snapshot: ServiceSnapshot, plan: ServicePlan) -> None:
        instances = {each.id: each for each in (*snapshot.instances, *plan.changes.instances)}
        deployments = {each.id: each for each in snapshot.deployments}
        capacities = {cell.id: cell.capacity for cell in snapshot.cells}
        promised: Counter[CellId] = Counter()
        for each in instances.values():
            deployment = deployments.get(each.deployment_id)
            capacity = capacities.get(each.cell_id)
            if each.status in LIVE and deployment is not None and capacity is not None:
                needs = needs_of(deployment.definition, deployment.facts, capacity)
                promised[each.cell_id] += needs.resources.memory_bytes
        if promised:
            self._promised[snapshot.service.id] = dict(promised)
        else:
            self._promised.pop(snapshot.service.id, None)

    @staticmethod
    def _cell_of(snapshot: ServiceSnapshot, plan: ServicePlan, instance_id: InstanceId) -> CellId:
        known = (*plan.changes.instances, *snapshot.instances)
        return next(each.cell_id for each in known if each.id == instance_id)

    def _forget(self, service_id: ServiceId) -> None:
        published = self._published.pop(service_id, None)
        if published is not None:
            self.routes.remove_service(published.project, published.service)
        self._close_egress(service_id)
        self._promised.pop(service_id, None)
        self.demand.forget(service_id)

    def _close_egress(self, service_id: ServiceId) -> None:
        self._idle_ways.pop(service_id, None)
        if self._egress.pop(service_id, None) is not None:
            self.routes.remove_egress(service_id)


def _decisive(observation: Observation) -> tuple[ObservedStatus, str | None]:
    """Return the part of an observation that plans depend on."""
    return observation.status, observation.endpoint
