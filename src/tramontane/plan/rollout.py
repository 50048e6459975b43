"""Which deployment should have how many instances, and when the new one takes over.

A new deployment has to prove itself with as many instances as demand asks for, at least one,
before the old one goes: one more at a time than wanted, each taking requests as soon as it is
ready. If it cannot start, it fails and the old one stays. Nothing asks for what takes no requests
(a worker): its user alone decides how many run.
"""

from dataclasses import replace

from tramontane.domain.definition import ServiceKind
from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.ids import InstanceId
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.service import Service, ServiceStatus
from tramontane.plan.draft import Draft
from tramontane.plan.model_scaling import SCALED_IN, plan_model_scale
from tramontane.plan.observing import START_ATTEMPTS
from tramontane.plan.placement import Wish, consider, why_nowhere
from tramontane.plan.scaling import Demand, plan_scale

BACKOFF_FIRST_S = 1.0
BACKOFF_LAST_S = 60.0
DRAIN_SETTLE_S = 2.0
"""Two load reports: before that, silence about an endpoint does not mean that it is idle."""
SLOW_START_S = 1.0
"""A start that takes longer than this is worth a look, so that people see it on its way."""
SURGE = 1
"""Instances above the wanted number while a rollout is under way."""

COMING = frozenset({InstanceStatus.ALLOCATED, InstanceStatus.STARTING})
CARRYING = COMING | {InstanceStatus.HEALTHY}
READY = frozenset({InstanceStatus.HEALTHY})


def judge_cells(draft: Draft) -> Draft:
    """Hold the policy of the target and the serving deployment against every cell."""
    context = draft.context
    candidates = {
        each.id: consider(
            Wish(
                definition=each.definition,
                facts=each.facts,
                project_policy=context.snapshot.project_policy,
            ),
            context.snapshot.cells,
            context.memory_used,
            context.now,
        )
        for each in (draft.target, draft.serving)
        if each is not None
    }
    return replace(draft, candidates=candidates)


def evict_forbidden(draft: Draft) -> Draft:
    """Stop every instance in a cell that no longer may run it: unavailable beats non-compliant."""
    for deployment_id, candidates in draft.candidates.items():
        allowed = {each.cell_id for each in candidates if each.allowed}
        for instance in draft.live(draft.deployments[deployment_id]):
            if instance.cell_id in allowed or instance.status is InstanceStatus.STOPPING:
                continue
            draft = draft.with_instance(
                replace(instance, status=InstanceStatus.STOPPING, reason="policy")
            ).saying(
                instance.id, "evicted", f"cell {instance.cell_id} no longer satisfies the policy"
            )
    return draft


def back_off(draft: Draft) -> Draft:
    """After a failure of the serving deployment, set the time of the next attempt."""
    before = draft.context.snapshot.service.wake_failures
    failures = draft.service.wake_failures
    if failures > before and failures > 1:
        delay_s = min(BACKOFF_FIRST_S * 2 ** (failures - 2), BACKOFF_LAST_S)
        return replace(draft, service=replace(draft.service, retry_at=draft.context.now + delay_s))
    if draft.serving is not None and any(
        each.ready_at is not None and draft.context.now - each.ready_at >= BACKOFF_LAST_S
        for each in draft.having(READY, draft.serving)
    ):
        return replace(draft, service=replace(draft.service, wake_failures=0, retry_at=None))
    return draft


def retire_abandoned(draft: Draft) -> Draft:
    """Give up deployments that a newer wish has overtaken before they served."""
    unfinished = {DeploymentStatus.BUILDING, DeploymentStatus.PENDING, DeploymentStatus.STARTING}
    kept = {draft.service.desired_deployment, draft.service.serving_deployment}
    for deployment in draft.deployments.values():
        if deployment.id in kept:
            continue
        if deployment.status in unfinished:
            draft = draft.move_deployment(
                deployment, DeploymentStatus.SUPERSEDED, "superseded", "a newer one took its place"
            )
        for instance in draft.having(CARRYING | {InstanceStatus.UNHEALTHY}, deployment):
            draft = drain(draft, instance, "superseded")
    target = draft.target
    if target is not None and target.status is DeploymentStatus.SUPERSEDED:
        draft = draft.with_deployment(replace(target, start_failures=0))
        draft = draft.move_deployment(
            replace(target, start_failures=0),
            DeploymentStatus.PENDING,
            "rollback",
            f"going back to deployment {target.number}",
        )
    return draft


def roll_out(draft: Draft) -> Draft:
    """Create and drain instances so that the right deployment has the right number."""
    service, target = draft.service, draft.target
    if service.deleted or service.paused:
        return drain_all(draft, "deleted" if service.deleted else "paused")
    draft, wanted = _wanted(draft)
    if target is None or target.id == service.serving_deployment:
        return _hold(draft, draft.serving, wanted) if draft.serving else draft
    if target.status in {DeploymentStatus.BUILDING, DeploymentStatus.FAILED}:
        draft = _drain_others(draft, draft.serving)
        return _hold(draft, draft.serving, wanted) if draft.serving else draft
    draft = _advance(draft, target, _wanted_at_first(draft, target, wanted))
    if draft.serving and not draft.having(CARRYING, draft.target):
        # The new one found no place, or has just failed: the old one goes on as if alone.
        return _hold(draft, draft.serving, wanted)
    return draft


def drain_all(draft: Draft, reason: str) -> Draft:
    """Take every instance out of service."""
    for instance in draft.having(CARRYING | {InstanceStatus.UNHEALTHY}):
        draft = drain(draft, instance, reason)
    return draft


def drain(draft: Draft, instance: Instance, reason: str, *, cut: bool = True) -> Draft:
    """Return the draft with the instance taking no new requests.

    One that never served, or takes no requests, ends at once. ``cut`` False lets requests in
    progress run to their end however long they take; otherwise the definition's ``drain_s`` bounds
    them.
    """
    deployment = draft.deployments.get(instance.deployment_id)
    if instance.status in COMING or instance.endpoint is None:
        return draft.with_instance(replace(instance, status=InstanceStatus.STOPPING, reason=reason))
    limit_s = deployment.definition.drain_s if deployment else 0.0
    return draft.with_instance(
        replace(
            instance,
            status=InstanceStatus.DRAINING,
            reason=reason,
            draining_since=draft.context.now,
            drain_until=draft.context.now + limit_s if cut else None,
        )
    )


def end_drained(draft: Draft) -> Draft:
    """Stop drained instances that carry no request any more, or whose time is over."""
    busy = {endpoint for endpoint, count in draft.context.demand.in_progress_by_endpoint if count}
    now = draft.context.now
    for instance in draft.having(frozenset({InstanceStatus.DRAINING})):
        over = instance.drain_until is not None and now >= instance.drain_until
        settled_at = (instance.draining_since or 0.0) + DRAIN_SETTLE_S
        if over or (now >= settled_at and instance.endpoint not in busy):
            draft = draft.with_instance(replace(instance, status=InstanceStatus.STOPPING))
        else:
            draft = draft.looking_again(settled_at if now < settled_at else now + 1.0)
    return draft


def _wanted(draft: Draft) -> tuple[Draft, int]:
    """How many instances the service should have now, by hand or by demand."""
    service, context = draft.service, draft.context
    deployment = draft.serving or draft.target
    if deployment is None:
        return draft, 0
    if not draft.takes_requests:
        return draft, _wanted_unasked(service, deployment)
    demand = _demand_now(draft)
    if deployment.definition.kind is ServiceKind.MODEL:
        decision = plan_model_scale(draft, deployment, demand)
        draft = replace(draft, retire=decision.retire, recall=decision.recall)
    else:
        capacity = len(draft.having(CARRYING))
        decision = plan_scale(deployment.definition.scaling, demand, capacity, context.now)
    draft = replace(draft, scaling_state=decision.state).looking_again(decision.recheck_at)
    if service.desired_instances is not None:
        return draft, service.desired_instances
    # A sleeping service is woken by a request or by its minimum, never by an average.
    asleep = (
        service.status is ServiceStatus.SLEEPING and not deployment.definition.scaling.instances_min
    )
    if (asleep or service.sleep_requested) and not demand.waiting:
        return draft, 0
    return draft, decision.instances


def _wanted_unasked(service: Service, deployment: Deployment) -> int:
    """How many instances there should be of what no request ever asks for: by hand, or always."""
    if service.sleep_requested:
        return 0
    return service.desired_instances or max(deployment.definition.scaling.instances_min, 1)


def _wanted_at_first(draft: Draft, target: Deployment, wanted: int) -> int:
    """With how many instances the target proves itself, if what serves now should have ``wanted``.

    The number of one kind says nothing about how many another needs.
    """
    if draft.takes_requests and target.definition.kind.takes_requests:
        return max(wanted, 1)
    return max(_wanted_unasked(draft.service, target), 1)


def _demand_now(draft: Draft) -> Demand:
    demand, service = draft.context.demand, draft.service
    # Becoming ready counts as activity: a fresh deployment does not fall asleep at once.
    newest = max((each.ready_at or 0.0 for each in draft.live()), default=0.0)
    demand = replace(demand, last_active_at=max(demand.last_active_at or 0.0, newest))
    if service.retry_at is not None and draft.context.now < service.retry_at:
        # Held requests are refused while starts are backing off; they must not wake anything.
        return replace(demand, waiting=False)
    return demand


def _advance(draft: Draft, target: Deployment, wanted: int) -> Draft:
    """One step of a rollout from the serving deployment (perhaps none) to the target."""
    if target.start_failures >= START_ATTEMPTS:
        return _fail(draft, target)
    ready = len(draft.having(READY, target))
    if ready >= wanted:
        return _take_over(draft, target)
    old = draft.serving
    coming = len(draft.having(CARRYING, target))
    total = len(draft.having(CARRYING))
    serving = len(draft.having(READY, old)) if old else 0
    room = max(wanted, serving) + SURGE - total if serving else wanted - coming
    for _ in range(max(min(room, wanted - coming), 0)):
        draft = _place(draft, target)
    if ready and old:
        surplus = len(draft.having(READY, old)) - (wanted - ready)
        for instance in _idlest(draft, draft.having(READY, old))[: max(surplus, 0)]:
            draft = drain(draft, instance, "superseded")
    return draft


def _fail(draft: Draft, target: Deployment) -> Draft:
    failed = [
        each
        for each in draft.instances.values()
        if each.deployment_id == target.id and each.status is InstanceStatus.FAILED
    ]
    reason = failed[-1].reason if failed else target.reason
    message = failed[-1].message if failed else target.message
    draft = draft.move_deployment(
        target, DeploymentStatus.FAILED, reason or "start_failed", message or "it did not start"
    )
    for instance in draft.having(CARRYING | {InstanceStatus.UNHEALTHY}, target):
        draft = drain(draft, instance, "deployment_failed")
    return draft


def _take_over(draft: Draft, target: Deployment) -> Draft:
    """The target has proved itself: it serves from now on, and the old one goes."""
    old = draft.serving
    draft = draft.move_deployment(
        target, DeploymentStatus.HEALTHY, "healthy", f"deployment {target.number} serves"
    )
    service = replace(draft.service, serving_deployment=target.id, wake_failures=0, retry_at=None)
    draft = replace(draft, service=service)
    if old is not None:
        draft = draft.move_deployment(
            old, DeploymentStatus.SUPERSEDED, "superseded", f"deployment {target.number} serves"
        )
    return _drain_others(draft, target)


def _drain_others(draft: Draft, keep: Deployment | None) -> Draft:
    for instance in draft.having(CARRYING | {InstanceStatus.UNHEALTHY}):
        if keep is None or instance.deployment_id != keep.id:
            draft = drain(draft, instance, "superseded")
    return draft


def _hold(draft: Draft, deployment: Deployment, wanted: int) -> Draft:
    """Keep the serving deployment at its number."""
    for instance in draft.having(frozenset({InstanceStatus.UNHEALTHY}), deployment):
        draft = drain(draft, instance, "unhealthy")
    draft = _recall(draft, deployment, wanted - len(draft.having(CARRYING, deployment)))
    carrying = draft.having(CARRYING, deployment)
    service, now = draft.service, draft.context.now
    if len(carrying) < wanted:
        if service.retry_at is not None and now < service.retry_at:
            return draft.looking_again(service.retry_at)
        for _ in range(wanted - len(carrying)):
            draft = _place(draft, deployment)
        return draft
    starting = [each for each in carrying if each.status in COMING]
    ready = _idlest(draft, draft.having(READY, deployment))
    # Those that serve nobody yet go first, youngest first; then the idlest.
    ranked = sorted([*reversed(starting), *ready], key=lambda each: each.id not in draft.retire)
    surplus = ranked[: len(carrying) - wanted]
    for instance in surplus:
        draft = drain(draft, instance, SCALED_IN, cut=False)
    return draft


def _recall(draft: Draft, deployment: Deployment, missing: int) -> Draft:
    """Let instances take requests again that were on their way out: no start is quicker."""
    draining = draft.having(frozenset({InstanceStatus.DRAINING}), deployment)
    by_id = {str(each.id): each for each in draining}
    found = [by_id[each] for each in draft.recall if each in by_id]
    for instance in found[: max(missing, 0)]:
        draft = draft.with_instance(
            replace(
                instance,
                status=InstanceStatus.HEALTHY,
                reason="recalled",
                draining_since=None,
                drain_until=None,
            )
        ).saying(instance.id, "recalled", "it takes requests again instead of a new instance")
    return draft


def _idlest(draft: Draft, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
    load = dict(draft.context.demand.in_progress_by_endpoint)
    return tuple(sorted(instances, key=lambda each: (load.get(each.endpoint or "", 0), each.id)))


def _place(draft: Draft, deployment: Deployment) -> Draft:
    """Allocate one instance in the best cell, or say why there is none."""
    candidates = draft.candidates[deployment.id]
    best = next((each for each in candidates if each.allowed and each.fits), None)
    if best is None:
        if deployment.status in {DeploymentStatus.PENDING, DeploymentStatus.STARTING}:
            reason, why = why_nowhere(candidates)
            status = DeploymentStatus.PENDING
            return draft.move_deployment(deployment, status, reason, why).looking_again(
                draft.context.now + 30.0
            )
        return draft.looking_again(draft.context.now + 30.0)
    instance = Instance(
        id=InstanceId(draft.context.ids("ins")),
        service_id=draft.service.id,
        deployment_id=deployment.id,
        cell_id=best.cell_id,
        created_at=draft.context.now,
        reason="placed",
        message=best.reason,
    )
    draft = draft.with_instance(instance).saying(
        instance.id, "placed", f"in cell {best.cell_name}: {best.reason}"
    )
    if deployment.status is DeploymentStatus.PENDING:
        message = f"starting in cell {best.cell_name}"
        draft = draft.move_deployment(deployment, DeploymentStatus.STARTING, "starting", message)
    return draft.looking_again(draft.context.now + SLOW_START_S)
