"""What a user is told: one status, one reason code and one sentence for the whole service."""

from dataclasses import replace

from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.service import ServiceStatus
from tramontane.plan.draft import Draft
from tramontane.plan.placement import why_nowhere
from tramontane.plan.rollout import COMING, READY

Verdict = tuple[ServiceStatus, str, str]
"""Status, reason code and a sentence for people."""


def conclude(draft: Draft) -> Draft:
    """Return the draft with the service's status, reason and message."""
    status, reason, message = _verdict(draft)
    service = draft.service
    if (service.status, service.reason, service.message) != (status, reason, message):
        draft = replace(
            draft, service=replace(service, status=status, reason=reason, message=message)
        )
    if status is not draft.context.snapshot.service.status:
        draft = draft.saying(service.id, f"service_{status.value}", message or reason)
    if status is ServiceStatus.SLEEPING and service.sleep_requested and draft.takes_requests:
        # Done: from here on a request wakes it. What gets none stays as its user put it.
        draft = replace(draft, service=replace(draft.service, sleep_requested=False))
    return draft


def _verdict(draft: Draft) -> Verdict:
    return _commanded(draft) or _serving(draft) or _first_deployment(draft) or _resting(draft)


def _commanded(draft: Draft) -> Verdict | None:
    service = draft.service
    if service.deleted:
        return ServiceStatus.DELETING, "deleted", "its instances are being stopped"
    if service.paused:
        return ServiceStatus.PAUSED, "paused", f"resume it with: tram resume {service.name}"
    return None


def _serving(draft: Draft) -> Verdict | None:
    ready, serving = draft.having(READY), draft.serving
    if not ready or serving is None:
        return None
    failed = _failed_target(draft)
    if failed is not None:
        stays = f"deployment {serving.number} goes on serving"
        message = f"deployment {failed.number} failed: {failed.message}; {stays}"
        return ServiceStatus.DEGRADED, "deployment_failed", message
    count = "1 instance" if len(ready) == 1 else f"{len(ready)} instances"
    return ServiceStatus.HEALTHY, "healthy", f"{count} ready"


def _resting(draft: Draft) -> Verdict:
    """The verdict on a service that served before and has no ready instance now."""
    service = draft.service
    if service.retry_at is not None and draft.context.now < service.retry_at:
        return ServiceStatus.ERROR, "start_failed", service.message
    if draft.having(COMING):
        return ServiceStatus.STARTING, "starting", "an instance is starting"
    refused = _refused(draft)
    if refused is not None:
        return refused
    failed = _failed_target(draft)
    if failed is not None:
        message = f"deployment {failed.number} failed: {failed.message}; the one before sleeps"
        return ServiceStatus.SLEEPING, "deployment_failed", message
    if not draft.takes_requests:
        message = f"no request wakes it; start it with: tram scale {service.name} auto"
        return ServiceStatus.SLEEPING, "scaled_to_zero", message
    return ServiceStatus.SLEEPING, "idle", "the next request wakes it"


def _failed_target(draft: Draft) -> Deployment | None:
    target = draft.target
    if target is None or target.id == draft.service.serving_deployment:
        return None
    return target if target.status is DeploymentStatus.FAILED else None


def _first_deployment(draft: Draft) -> Verdict | None:
    if draft.serving is not None:
        return None
    target = draft.target
    if target is None:
        return ServiceStatus.PENDING, "created", "nothing is deployed yet"
    match target.status:
        case DeploymentStatus.FAILED:
            return ServiceStatus.ERROR, target.reason, target.message
        case DeploymentStatus.BUILDING:
            return ServiceStatus.PENDING, "building", "it is being built"
        case DeploymentStatus.PENDING | DeploymentStatus.SUPERSEDED:
            return ServiceStatus.PENDING, target.reason, target.message
        case DeploymentStatus.STARTING | DeploymentStatus.HEALTHY:
            return ServiceStatus.STARTING, "starting", "its first instance is starting"


def _refused(draft: Draft) -> Verdict | None:
    """A sleeping service that no cell may or can take would not wake: say so before it is asked."""
    candidates = draft.candidates.get(draft.serving.id, ()) if draft.serving else ()
    if any(each.allowed and each.fits for each in candidates):
        return None
    reason, why = why_nowhere(candidates)
    return ServiceStatus.PENDING, reason, why
