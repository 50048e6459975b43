"""Where the gateway should send a service's requests, given what runs.

Called at the end of ``plan.service``; the gateway makes Envoy's messages from the result.
"""

from dataclasses import replace

from tramontane.domain.definition import ServiceKind
from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.instance import InstanceStatus
from tramontane.domain.route import (
    EgressRoute,
    Refusal,
    ServiceRoute,
    Upstream,
    WaySockets,
)
from tramontane.domain.service import ServiceStatus
from tramontane.plan.draft import Draft
from tramontane.plan.rollout import READY


def renew_name(draft: Draft) -> Draft:
    """Give the upstream a fresh name when the service stops being reachable.

    Envoy asks for an unknown upstream once per name, so a name that was answered is spent.
    """
    before = any(each.status is InstanceStatus.HEALTHY for each in draft.context.snapshot.instances)
    failed_again = draft.service.wake_failures > draft.context.snapshot.service.wake_failures
    if (before or failed_again) and not draft.having(READY):
        generation = draft.service.route_generation + 1
        return replace(draft, service=replace(draft.service, route_generation=generation))
    return draft


def route_of(draft: Draft) -> ServiceRoute | None:
    """Return the service's route, or None if it has no address."""
    service = draft.service
    deployment = draft.serving or draft.target
    if service.deleted or deployment is None or not draft.takes_requests:
        return None
    kind = deployment.definition.kind
    return ServiceRoute(
        project=service.project,
        service=service.name,
        target=_target(draft, deployment),
        start_deadline_s=deployment.definition.probe.grace_s,
        model=service.name if kind is ServiceKind.MODEL else None,
        key_required=kind is ServiceKind.MODEL,
    )


def egress_of(draft: Draft, sockets: WaySockets) -> EgressRoute | None:
    """Return the ways out of the service's instances; None while none runs.

    During a rollout old and new instances share them, with what either declares.
    """
    running = {each.deployment_id for each in draft.live()}
    definitions = [each.definition for each in draft.deployments.values() if each.id in running]
    if not definitions:
        return None
    models = tuple(sorted({name for each in definitions for name in each.models}))
    return EgressRoute(
        service_id=draft.service.id,
        project=draft.service.project,
        service=draft.service.name,
        socket=sockets.egress,
        rules=tuple(sorted({rule for each in definitions for rule in each.egress})),
        models=models,
        models_socket=sockets.models if models else "",
    )


def _target(draft: Draft, deployment: Deployment) -> Upstream | Refusal:
    service, now = draft.service, draft.context.now
    if service.status is ServiceStatus.PAUSED:
        return Refusal(status=503, code="paused", message=f"service {service.name} is paused")
    name = f"{service.id}@{service.route_generation}"
    ready = tuple(sorted(each.endpoint for each in draft.having(READY) if each.endpoint))
    if ready:
        draining = draft.having(frozenset({InstanceStatus.DRAINING}))
        return Upstream(
            name=name,
            endpoints=ready,
            draining=tuple(sorted(each.endpoint for each in draining if each.endpoint)),
        )
    if service.status is ServiceStatus.ERROR or _unplaceable(draft, deployment):
        wait_s = max(service.retry_at - now, 0.0) if service.retry_at is not None else None
        return Refusal(
            status=503,
            code=service.reason,
            message=f"service {service.name} cannot serve: {service.message}",
            retry_after_s=None if wait_s is None else int(wait_s) + 1,
        )
    if deployment.status is DeploymentStatus.BUILDING:
        return Refusal(
            status=503,
            code="building",
            message=f"service {service.name} is being built for the first time",
            retry_after_s=5,
        )
    return Upstream(name=name, endpoints=None)


def _unplaceable(draft: Draft, deployment: Deployment) -> bool:
    candidates = draft.candidates.get(deployment.id, ())
    return not any(each.allowed and each.fits for each in candidates) and not draft.live(deployment)
