"""Rows of services and deployments, as the verbs of ``store.services`` find and change them.

Every function works inside the caller's transaction.
"""

from typing import Any

from sqlalchemy import Connection, insert, select, update

from tramontane.base.errors import Conflict, NotFound
from tramontane.base.ids import IdFactory
from tramontane.domain.definition import Definition
from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.ids import DeploymentId, ServiceId
from tramontane.domain.service import Service
from tramontane.store.part import suggest
from tramontane.store.rows import deployment_from_row, service_from_row
from tramontane.store.tables import DEPLOYMENTS, SERVICES

AUTOMATIC: dict[str, Any] = {
    "desired_instances": None,
    "sleep_requested": False,
    "paused": False,
    "wake_failures": 0,
    "retry_at": None,
}
"""What a deployment, a rollback and a resume set back: run as demand asks, starting now."""


def missing_service(project: str, name: str, known: list[str]) -> NotFound:
    """Return the error for a service that does not exist, with the nearest one that does."""
    return NotFound(f"no service is named {name} in project {project}{suggest(name, known)}")


def find_service(connection: Connection, project: str, name: str) -> Service | None:
    """Return the service, locked until the transaction ends, if there is one."""
    row = (
        connection.execute(
            select(SERVICES)
            .where(SERVICES.c.project == project, SERVICES.c.name == name)
            .with_for_update()
        )
        .mappings()
        .first()
    )
    return None if row is None else service_from_row(row)


def lock_service(connection: Connection, project: str, name: str) -> Service:
    """Return the service, locked until the transaction ends; raises ``NotFound``."""
    service = find_service(connection, project, name)
    if service is None:
        names = select(SERVICES.c.name).where(SERVICES.c.project == project)
        raise missing_service(project, name, list(connection.execute(names).scalars()))
    return service


def insert_service(
    connection: Connection,
    project: str,
    name: str,
    definition: Definition,
    *,
    now: float,
    ids: IdFactory,
) -> Service:
    """Make a service that has no deployment yet."""
    service = Service(
        id=ServiceId(ids("svc")),
        project=project,
        name=name,
        kind=definition.kind,
        generation=0,
        created_at=now,
        desired_deployment=None,
    )
    row = {
        "id": service.id,
        "project": project,
        "name": name,
        "kind": service.kind.value,
        "generation": service.generation,
        "created_at": now,
        "deleted": False,
        "status": service.status.value,
        "reason": service.reason,
        "message": service.message,
        "route_generation": service.route_generation,
    }
    connection.execute(insert(SERVICES).values(row | AUTOMATIC))
    return service


def change_service(connection: Connection, service: Service, values: dict[str, Any]) -> Service:
    """Write columns of the desired side and raise the generation."""
    statement = (
        update(SERVICES)
        .where(SERVICES.c.id == service.id)
        .values(generation=service.generation + 1, **values)
        .returning(SERVICES)
    )
    return service_from_row(connection.execute(statement).mappings().one())


def read_deployment(
    connection: Connection, service: Service, deployment_id: DeploymentId
) -> Deployment:
    """Return one deployment of this service; raises ``NotFound``."""
    row = (
        connection.execute(
            select(DEPLOYMENTS).where(
                DEPLOYMENTS.c.id == deployment_id, DEPLOYMENTS.c.service_id == service.id
            )
        )
        .mappings()
        .first()
    )
    if row is None:
        raise NotFound(f"deployment {deployment_id} of service {service.name} is gone")
    return deployment_from_row(row)


def find_rollback(connection: Connection, service: Service, number: int | None) -> Deployment:
    """Return what a rollback goes back to; None: the last one before that was healthy."""
    rows = (
        connection.execute(
            select(DEPLOYMENTS)
            .where(DEPLOYMENTS.c.service_id == service.id)
            .order_by(DEPLOYMENTS.c.number.desc())
        )
        .mappings()
        .all()
    )
    if number is None:
        current = next((r["number"] for r in rows if r["id"] == service.desired_deployment), 0)
        earlier = [row for row in rows if row["was_healthy"] and row["number"] < current]
        if not earlier:
            raise NotFound(f"service {service.name} has no earlier deployment that was healthy")
        return deployment_from_row(earlier[0])
    found = [deployment_from_row(row) for row in rows if row["number"] == number]
    if not found:
        known = ", ".join(str(row["number"]) for row in rows[:5])
        raise NotFound(
            f"service {service.name} has no deployment {number}; the newest are: {known}"
        )
    if found[0].status is DeploymentStatus.FAILED and found[0].artifact is None:
        raise Conflict(f"deployment {number} of service {service.name} was never built; deploy it")
    return found[0]
