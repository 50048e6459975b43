"""Frees the disk of what nothing needs any more; rarely, since nobody waits for it.

Takes no input and may be killed anywhere; the next look finds what is left. The order of steps
keeps everything that is needed, whoever deploys meanwhile:

1. Deployments beyond those kept are forgotten: rows before what they stand for.
2. What lies on disk is listed, and only then is asked what the remaining rows refer to.
3. ``plan.garbage`` says what may go.
4. Each thing goes when it is certain that nobody uses it or can begin to: whoever keeps it locks
   it and then asks here (``let_go``) whether rows refer to it by now. Who uses a thing holds it
   until his own row is written, so one of the two sees the other.

This module's ``Storage`` says what a keeper of things promises.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tramontane.base.clock import Clock
from tramontane.domain.ids import CellId, DeploymentId, InstanceId, ServiceId
from tramontane.domain.inventory import DiskUsage, History, Item, ItemKind, References
from tramontane.domain.observation import ObservedStatus
from tramontane.plan.garbage import GarbagePlan, Key, Limits, plan_garbage
from tramontane.plan.retention import plan_retention
from tramontane.runtimes.runtime import Runtime
from tramontane.wire.quantities import format_bytes

log = logging.getLogger(__name__)

PERIOD_S = 600.0
FIRST_S = 30.0
"""After a start there is more urgent work."""
PERIOD_MIN_S = 1.0


class GarbageMemory(Protocol):
    """What this reconciler needs of the store."""

    def list_histories(self, deployments_min: int) -> Sequence[History]:
        """Return the services that have at least so many deployments and are not deleted."""
        ...

    def forget_deployments(
        self,
        service_id: ServiceId,
        deployment_ids: Collection[DeploymentId],
        expected_generation: int,
    ) -> int:
        """Delete deployments that are over and return how many; none if decided too early."""
        ...

    def read_references(self) -> References:
        """Return all that rows refer to."""
        ...

    def is_artifact_named(self, digest: str) -> bool:
        """Return whether a deployment was built to this artifact."""
        ...

    def forget_source(self, digest: str) -> bool:
        """Delete an archive's row unless a deployment names it; return whether there is none."""
        ...


class Storage(Protocol):
    """One keeper of things on disk; every call blocks and may be repeated."""

    def list_items(self) -> Sequence[Item]:
        """Return what is there."""
        ...

    def remove(self, item: Item, let_go: Callable[[], bool]) -> bool:
        """Remove an item unless it is in use, and return whether it went.

        ``let_go`` is asked once nobody uses it or can begin to, and has the last word. Killed at
        any point, the item is there as a whole or gone.
        """
        ...


@dataclass(kw_only=True)
class GarbageReconciler:
    """One platform's disk."""

    store: GarbageMemory
    storages: Mapping[ItemKind, Storage]
    """Who keeps what; one keeper may stand for several kinds."""
    runtimes: Mapping[CellId, Runtime]
    limits: Limits
    clock: Clock
    usage: DiskUsage | None = field(init=False, default=None)
    """As of the last look."""

    _unneeded_since: Mapping[Key, float] = field(init=False, default_factory=dict[Key, float])
    """Not stored: after a restart things go later rather than earlier."""

    async def run(self) -> None:
        """Collect until cancelled."""
        period_s = max(min(self.limits.unneeded_kept_s, PERIOD_S), PERIOD_MIN_S)
        await asyncio.sleep(min(period_s, FIRST_S))
        while True:
            try:
                await self.reconcile()
            except Exception:
                log.exception("collecting garbage failed; it is tried again")
            await asyncio.sleep(period_s)

    async def reconcile(self) -> None:
        """Look once at everything and remove what may go."""
        forgotten = await asyncio.to_thread(self._forget_deployments)
        items = [
            *await self._list_instances(),
            *await asyncio.to_thread(self._list_items),
        ]
        references = await asyncio.to_thread(self.store.read_references)
        plan = plan_garbage(items, references, self._unneeded_since, self.limits, self.clock.now())
        self._unneeded_since = plan.unneeded_since
        removed = await self._remove(plan)
        self.usage = plan.usage
        if forgotten or removed:
            log.info("collected %s", describe(forgotten, removed))

    def _forget_deployments(self) -> int:
        forgotten = 0
        for history in self.store.list_histories(self.limits.deployments_kept + 1):
            old = plan_retention(history, self.limits.deployments_kept)
            if old:
                forgotten += self.store.forget_deployments(
                    history.service_id, old, history.generation
                )
        return forgotten

    async def _list_instances(self) -> list[Item]:
        return [
            Item(
                kind=ItemKind.INSTANCE,
                name=observation.instance_id,
                running=observation.status is not ObservedStatus.EXITED,
            )
            for runtime in self.runtimes.values()
            for observation in await runtime.inspect()
        ]

    def _list_items(self) -> list[Item]:
        storages = {id(each): each for each in self.storages.values()}
        return [item for each in storages.values() for item in each.list_items()]

    async def _remove(self, plan: GarbagePlan) -> list[Item]:
        removed: list[Item] = []
        for item in plan.remove:
            # One at a time, so that a stop of the platform waits for one at most.
            try:
                if item.kind is ItemKind.INSTANCE:
                    for runtime in self.runtimes.values():
                        await runtime.remove(InstanceId(item.name))
                    removed.append(item)
                    continue
                let_go = partial(self._let_go, item)
                if await asyncio.to_thread(self.storages[item.kind].remove, item, let_go):
                    removed.append(item)
            except Exception:
                log.exception("cannot remove %s %s; it is tried again", item.kind, item.name)
        return removed

    def _let_go(self, item: Item) -> bool:
        match item.kind:
            case ItemKind.ARTIFACT:
                return not self.store.is_artifact_named(item.name)
            case ItemKind.ARCHIVE:
                return self.store.forget_source(item.name)
            case _:
                return True


def describe(forgotten: int, removed: Sequence[Item]) -> str:
    """Return one line for the log: how much of what, and the bytes that it was."""
    counts = Counter({"deployment": forgotten}) + Counter(each.kind.value for each in removed)
    parts = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items()]
    size = format_bytes(sum(each.size_bytes for each in removed))
    return f"{', '.join(parts)}: {size}"
