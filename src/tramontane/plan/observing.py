"""First phases of a plan: take what builds and runtimes report into the rows.

Nothing is decided here but the obvious: what has ended has ended, what is ready is healthy.
"""

from dataclasses import replace

from tramontane.domain.deployment import DeploymentStatus
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.plan.draft import Draft

FAILURES_FORGIVEN_AFTER_S = 60.0
"""An instance that was ready for this long has proved that the service can start."""
START_ATTEMPTS = 2
"""A new deployment whose instances end this often before one is ready has failed."""


def accept_builds(draft: Draft) -> Draft:
    """Return the draft with every deployment that has its artifact now waiting for a place."""
    for deployment in draft.deployments.values():
        if deployment.status is DeploymentStatus.BUILDING and deployment.artifact is not None:
            draft = draft.move_deployment(
                deployment, DeploymentStatus.PENDING, "built", f"built {deployment.artifact.digest}"
            )
    return draft


def fold_observations(draft: Draft) -> Draft:
    """Return the draft with each live instance in the status its runtime reports."""
    for instance in draft.live():
        observation = draft.context.observed.get(instance.id)
        if observation is not None:
            draft = _fold(draft, instance, observation)
        elif instance.status is not InstanceStatus.ALLOCATED:
            draft = _ended(draft, instance, _lost(instance))
    return draft


def _lost(instance: Instance) -> Observation:
    """What to believe of an instance that its runtime does not know: it is gone."""
    return Observation(
        instance_id=instance.id,
        status=ObservedStatus.EXITED,
        reason="lost",
        message="its runtime does not know it any more, as after a restart of the machine",
    )


def _fold(draft: Draft, instance: Instance, observation: Observation) -> Draft:
    known = replace(
        instance,
        pid=observation.pid or instance.pid,
        endpoint=observation.endpoint or instance.endpoint,
        started_at=observation.started_at or instance.started_at,
        ready_at=observation.ready_at or instance.ready_at,
    )
    if observation.status is ObservedStatus.EXITED:
        return _ended(draft, known, observation)
    if known.status in {InstanceStatus.DRAINING, InstanceStatus.STOPPING}:
        return draft.with_instance(known)
    match observation.status:
        case ObservedStatus.STARTING:
            status = InstanceStatus.STARTING
        case ObservedStatus.READY:
            status = InstanceStatus.HEALTHY
        case ObservedStatus.UNREADY:
            status = InstanceStatus.UNHEALTHY
    if status is known.status:
        return draft.with_instance(known)
    if known.status is InstanceStatus.ALLOCATED:
        draft = draft.with_instance(replace(known, status=InstanceStatus.STARTING))
    if status is not InstanceStatus.STARTING:
        if status is InstanceStatus.UNHEALTHY and instance.status is not InstanceStatus.HEALTHY:
            # Ready and unready again between two looks: pass through healthy.
            draft = draft.with_instance(replace(known, status=InstanceStatus.HEALTHY))
        draft = draft.with_instance(
            replace(known, status=status, reason=observation.reason or status.value)
        )
        draft = draft.saying(
            instance.id,
            f"instance_{status.value}",
            observation.message or f"instance {instance.id} is {status.value}",
        )
    return draft


def _ended(draft: Draft, instance: Instance, observation: Observation) -> Draft:
    asked = instance.status in {InstanceStatus.STOPPING, InstanceStatus.DRAINING}
    stopped = instance.status is InstanceStatus.STOPPING
    ended = replace(
        instance,
        status=InstanceStatus.STOPPED if stopped else InstanceStatus.FAILED,
        reason=observation.reason or "exited",
        message=observation.message,
        ended_at=draft.context.now,
    )
    draft = draft.with_instance(ended)
    if asked:
        return draft.saying(instance.id, "instance_stopped", f"instance {instance.id} stopped")
    code = "" if observation.exit_code is None else f" (exit code {observation.exit_code})"
    message = f"instance {instance.id} ended: {observation.message or ended.reason}{code}"
    return _count_failure(draft.saying(instance.id, "instance_failed", message), ended)


def _count_failure(draft: Draft, ended: Instance) -> Draft:
    """Remember a failure nobody asked for, so that the next start waits its turn."""
    proved = (
        ended.ready_at is not None
        and draft.context.now - ended.ready_at >= FAILURES_FORGIVEN_AFTER_S
    )
    deployment = draft.deployments.get(ended.deployment_id)
    if deployment is None:
        return draft
    if deployment.id == draft.service.serving_deployment:
        # The first failure is forgiven a program that did run, never one that did not start.
        earlier = draft.service.wake_failures
        failures = 1 if proved else earlier + 1 if ended.ready_at else max(earlier, 1) + 1
        service = replace(
            draft.service,
            wake_failures=failures,
            message=f"the last start failed: {ended.message or ended.reason}",
        )
        return replace(draft, service=service)
    # Waiting once for the whole start deadline is enough; an early end may be bad luck.
    failures = START_ATTEMPTS if ended.reason == "start_deadline" else 1
    counted = replace(deployment, start_failures=deployment.start_failures + failures)
    return draft.with_deployment(counted)
