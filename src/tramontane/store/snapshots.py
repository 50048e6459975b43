"""What reconcilers read and write: one consistent snapshot, one guarded set of changes.

Only the observed side is written here, with the observing transaction (``store.database``).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, or_, select, update

from tramontane.domain.artifact import Artifact
from tramontane.domain.cell import Cell
from tramontane.domain.deployment import DEPLOYMENT_TRANSITIONS, Deployment, DeploymentStatus
from tramontane.domain.ids import DeploymentId, InstanceId, ServiceId
from tramontane.domain.instance import INSTANCE_TRANSITIONS, LIVE, Instance, InstanceStatus
from tramontane.domain.service import Service
from tramontane.domain.snapshot import Changes, Event, ServiceSnapshot
from tramontane.domain.transitions import leads_to
from tramontane.store.events import add_events
from tramontane.store.part import Part
from tramontane.store.records import LIVE_STATUSES, OVER_STATUSES
from tramontane.store.rows import (
    NAMES,
    artifact_to_row,
    cell_from_row,
    deployment_from_row,
    instance_from_row,
    service_from_row,
)
from tramontane.store.tables import CELLS, DEPLOYMENTS, INSTANCES, PROJECTS, SERVICES

ENDED_KEPT = 20
"""Ended instances that stay readable per service, for ``tram why``."""

# A waking request waits for these reads, and putting a statement together takes several times as
# long as running it; so they are put together once.
_IS_LIVE = or_(*(INSTANCES.c.status == status for status in LIVE_STATUSES))
_SERVICE = (
    select(SERVICES, PROJECTS.c.policy.label("project_policy"))
    .join(PROJECTS, PROJECTS.c.name == SERVICES.c.project)
    .where(SERVICES.c.id == bindparam("service_id"))
)
_DEPLOYMENTS = (
    select(DEPLOYMENTS)
    .where(
        DEPLOYMENTS.c.service_id == bindparam("service_id"),
        or_(
            DEPLOYMENTS.c.id == bindparam("desired"),
            DEPLOYMENTS.c.id == bindparam("serving"),
            DEPLOYMENTS.c.id.in_(
                select(INSTANCES.c.deployment_id).where(
                    INSTANCES.c.service_id == bindparam("service_id"), _IS_LIVE
                )
            ),
            and_(*(DEPLOYMENTS.c.status != status for status in OVER_STATUSES)),
        ),
    )
    .order_by(DEPLOYMENTS.c.number)
)
_LIVE_INSTANCES = (
    select(INSTANCES)
    .where(INSTANCES.c.service_id == bindparam("service_id"), _IS_LIVE)
    .order_by(INSTANCES.c.created_at, INSTANCES.c.id)
)
_GENERATION = (
    select(SERVICES.c.generation).where(SERVICES.c.id == bindparam("service_id")).with_for_update()
)
_INSTANCE_STATUS = select(INSTANCES.c.status).where(INSTANCES.c.id == bindparam("instance_id"))
_UPDATE_SERVICE = update(SERVICES).where(SERVICES.c.id == bindparam("service_id"))
_INSERT_INSTANCE = insert(INSTANCES)
_UPDATE_INSTANCE = update(INSTANCES).where(INSTANCES.c.id == bindparam("instance_id"))


class Snapshots(Part):
    """Reading what a decision needs, and writing what was decided."""

    def read_snapshot(
        self, service_id: ServiceId, cells: Sequence[Cell] | None = None
    ) -> ServiceSnapshot | None:
        """Return one service as it is now, or None if it is gone.

        ``cells`` replaces the stored ones, for a caller that knows newer facts of them.
        """
        with self._database.read() as connection:
            row = connection.execute(_SERVICE, {"service_id": service_id}).mappings().first()
            if row is None:
                return None
            values: dict[str, Any] = dict(row)
            policy = NAMES.validate_json(values.pop("project_policy"))
            service = service_from_row(values)
            return ServiceSnapshot(
                service=service,
                project_policy=policy,
                deployments=_read_deployments(connection, service),
                instances=_read_live_instances(connection, service_id),
                cells=_read_cells(connection) if cells is None else tuple(cells),
            )

    def list_live_instances(self) -> dict[InstanceId, ServiceId]:
        """Return the owner of every live instance, for adopting what runs after a start."""
        statement = select(INSTANCES.c.id, INSTANCES.c.service_id).where(
            INSTANCES.c.status.in_(LIVE_STATUSES)
        )
        with self._database.read() as connection:
            return {
                InstanceId(row.id): ServiceId(row.service_id)
                for row in connection.execute(statement)
            }

    def apply(self, changes: Changes, service_id: ServiceId, expected_generation: int) -> bool:
        """Write the changes whole, or nothing and return False if they were decided too early.

        That is: the generation has moved on, or meanwhile a build has failed or a deployment that
        was over has been forgotten. A transition that the domain does not allow is a bug and
        fails an assertion.
        """
        with self._database.observe() as connection:
            generation = connection.execute(_GENERATION, {"service_id": service_id}).scalar()
            if generation != expected_generation:
                return False
            if _overtaken(connection, changes.deployments):
                return False
            if changes.service is not None:
                _write_service(connection, changes.service)
            for deployment in changes.deployments:
                _write_deployment(connection, service_id, deployment)
            _write_instances(connection, service_id, changes.instances)
            add_events(connection, service_id, changes.events)
        return True

    def record_artifact(self, deployment_id: DeploymentId, artifact: Artifact) -> bool:
        """Keep what the build of a deployment made; False if the deployment is gone.

        The status is left alone: what a finished build means is for the plan to decide.
        """
        with self._database.observe() as connection:
            result = connection.execute(
                update(DEPLOYMENTS)
                .where(DEPLOYMENTS.c.id == deployment_id)
                .values(artifact_to_row(artifact))
            )
            return result.rowcount == 1

    def record_build_failure(
        self, deployment_id: DeploymentId, reason: str, message: str, now: float
    ) -> bool:
        """Mark a deployment that is still being built as failed; False if it is not any more."""
        with self._database.observe() as connection:
            row = (
                connection.execute(
                    select(DEPLOYMENTS.c.service_id, DEPLOYMENTS.c.status)
                    .where(DEPLOYMENTS.c.id == deployment_id)
                    .with_for_update()
                )
                .mappings()
                .first()
            )
            if row is None or row["status"] != DeploymentStatus.BUILDING.value:
                return False
            connection.execute(
                update(DEPLOYMENTS)
                .where(DEPLOYMENTS.c.id == deployment_id)
                .values(status=DeploymentStatus.FAILED.value, reason=reason, message=message)
            )
            service_id = ServiceId(row["service_id"])
            event = Event(
                at=now,
                service_id=service_id,
                subject=deployment_id,
                reason=reason,
                message=message,
            )
            add_events(connection, service_id, (event,))
        return True

    def read_deployment(self, deployment_id: DeploymentId) -> Deployment | None:
        """Return one deployment, or None if it is gone."""
        with self._database.read() as connection:
            row = (
                connection.execute(select(DEPLOYMENTS).where(DEPLOYMENTS.c.id == deployment_id))
                .mappings()
                .first()
            )
            return None if row is None else deployment_from_row(row)

    def finish_delete(self, service_id: ServiceId) -> bool:
        """Remove a deleted service with all that belongs to it; False while instances live."""
        with self._database.observe() as connection:
            deleted = connection.execute(
                select(SERVICES.c.deleted).where(SERVICES.c.id == service_id).with_for_update()
            ).scalar()
            if deleted is None:
                return True
            assert deleted, f"{service_id} was not deleted by anybody"
            if _read_live_instances(connection, service_id):
                return False
            connection.execute(delete(SERVICES).where(SERVICES.c.id == service_id))
        return True


def _read_deployments(connection: Connection, service: Service) -> tuple[Deployment, ...]:
    values = {
        "service_id": service.id,
        "desired": service.desired_deployment,
        "serving": service.serving_deployment,
    }
    return tuple(
        deployment_from_row(row) for row in connection.execute(_DEPLOYMENTS, values).mappings()
    )


def _read_live_instances(connection: Connection, service_id: ServiceId) -> tuple[Instance, ...]:
    rows = connection.execute(_LIVE_INSTANCES, {"service_id": service_id}).mappings()
    return tuple(instance_from_row(row) for row in rows)


def _read_cells(connection: Connection) -> tuple[Cell, ...]:
    rows = connection.execute(select(CELLS).order_by(CELLS.c.name)).mappings()
    return tuple(cell_from_row(row) for row in rows)


def _write_service(connection: Connection, service: Service) -> None:
    values: dict[str, Any] = {
        "service_id": service.id,
        "serving_deployment": service.serving_deployment,
        "status": service.status.value,
        "reason": service.reason,
        "message": service.message,
        "route_generation": service.route_generation,
        "wake_failures": service.wake_failures,
        "retry_at": service.retry_at,
    }
    # "Sleep now" is a wish that comes true once: whoever decides may use it up, never set it.
    if not service.sleep_requested:
        values["sleep_requested"] = False
    connection.execute(_UPDATE_SERVICE, values)


def _write_deployment(
    connection: Connection, service_id: ServiceId, deployment: Deployment
) -> None:
    assert deployment.service_id == service_id, f"{deployment.id} is not of {service_id}"
    known = connection.execute(
        select(DEPLOYMENTS.c.status).where(DEPLOYMENTS.c.id == deployment.id)
    ).scalar_one()
    before, after = DeploymentStatus(known), deployment.status
    assert leads_to(DEPLOYMENT_TRANSITIONS, before, after), (
        f"deployment {deployment.id} may not go from {before} to {after}"
    )
    values: dict[str, Any] = {
        "status": after.value,
        "reason": deployment.reason,
        "message": deployment.message,
        "start_failures": deployment.start_failures,
    }
    if after is DeploymentStatus.HEALTHY:
        values["was_healthy"] = True
    # A build may have ended after the snapshot was read: its artifact is never taken away.
    if deployment.artifact is not None:
        values |= artifact_to_row(deployment.artifact)
    connection.execute(update(DEPLOYMENTS).where(DEPLOYMENTS.c.id == deployment.id).values(values))


def _overtaken(connection: Connection, deployments: Iterable[Deployment]) -> bool:
    """Whether others wrote since the snapshot: a build has failed, or a deployment is gone."""
    wanted = {each.id: each.status for each in deployments}
    if not wanted:
        return False
    statement = select(DEPLOYMENTS.c.id, DEPLOYMENTS.c.status).where(DEPLOYMENTS.c.id.in_(wanted))
    found = {row.id: row.status for row in connection.execute(statement)}
    return any(
        each not in found
        or (status is DeploymentStatus.BUILDING and found[each] == DeploymentStatus.FAILED.value)
        for each, status in wanted.items()
    )


def _write_instances(
    connection: Connection, service_id: ServiceId, instances: Iterable[Instance]
) -> None:
    ended = False
    for instance in instances:
        assert instance.service_id == service_id, f"{instance.id} is not of {service_id}"
        _write_instance(connection, instance)
        ended = ended or instance.status not in LIVE
    if not ended:
        return
    kept = (
        select(INSTANCES.c.id)
        .where(INSTANCES.c.service_id == service_id, INSTANCES.c.status.not_in(LIVE_STATUSES))
        .order_by(INSTANCES.c.ended_at.desc(), INSTANCES.c.created_at.desc(), INSTANCES.c.id.desc())
        .limit(ENDED_KEPT)
    )
    connection.execute(
        delete(INSTANCES).where(
            INSTANCES.c.service_id == service_id,
            INSTANCES.c.status.not_in(LIVE_STATUSES),
            INSTANCES.c.id.not_in(kept),
        )
    )


def _write_instance(connection: Connection, instance: Instance) -> None:
    values = {
        "status": instance.status.value,
        "reason": instance.reason,
        "message": instance.message,
        "pid": instance.pid,
        "endpoint": instance.endpoint,
        "started_at": instance.started_at,
        "ready_at": instance.ready_at,
        "draining_since": instance.draining_since,
        "drain_until": instance.drain_until,
        "ended_at": instance.ended_at,
    }
    known = connection.execute(_INSTANCE_STATUS, {"instance_id": instance.id}).scalar()
    if known is None:
        fixed = {
            "id": instance.id,
            "service_id": instance.service_id,
            "deployment_id": instance.deployment_id,
            "cell_id": instance.cell_id,
            "created_at": instance.created_at,
        }
        connection.execute(_INSERT_INSTANCE, fixed | values)
        return
    before, after = InstanceStatus(known), instance.status
    assert leads_to(INSTANCE_TRANSITIONS, before, after), (
        f"instance {instance.id} may not go from {before} to {after}"
    )
    connection.execute(_UPDATE_INSTANCE, {"instance_id": instance.id, **values})
