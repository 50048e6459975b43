"""Services as they are shown: one with all that belongs to it, or every one in a few queries."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, or_, select

from tramontane.domain.deployment import OVER, Deployment
from tramontane.domain.ids import CellId, DeploymentId, ServiceId
from tramontane.domain.instance import LIVE, Instance
from tramontane.domain.service import Service
from tramontane.plan.needs import needs_of
from tramontane.store.cells import read_capacities
from tramontane.store.part import Part
from tramontane.store.rows import (
    NAMES,
    Row,
    deployment_from_row,
    instance_from_row,
    service_from_row,
)
from tramontane.store.service_rows import missing_service
from tramontane.store.tables import DEPLOYMENTS, INSTANCES, PROJECTS, SERVICES

LIVE_STATUSES = tuple(sorted(status.value for status in LIVE))
OVER_STATUSES = tuple(sorted(status.value for status in OVER))


@dataclass(frozen=True, kw_only=True)
class ServiceRecord:
    """A service with what a view of it shows."""

    service: Service
    project_policy: tuple[str, ...]
    deployments: tuple[Deployment, ...]
    """The desired one, the serving one and those with live instances."""
    instances: tuple[Instance, ...]
    """The live ones, oldest first."""

    def deployment(self, deployment_id: DeploymentId | None) -> Deployment | None:
        """Return the deployment with this id, if it is in the record."""
        return next((each for each in self.deployments if each.id == deployment_id), None)


class Records(Part):
    """Reads for people: nothing here is locked."""

    def list_services(self, project: str | None = None) -> list[ServiceRecord]:
        """Return every service, or those of one project, by project and name."""
        condition = None if project is None else SERVICES.c.project == project
        with self._database.read() as connection:
            return _read_records(connection, condition)

    def read_service(self, project: str, name: str) -> ServiceRecord:
        """Return one service; raises ``NotFound`` with the nearest name."""
        condition = (SERVICES.c.project == project) & (SERVICES.c.name == name)
        with self._database.read() as connection:
            records = _read_records(connection, condition)
            if not records:
                names = select(SERVICES.c.name).where(SERVICES.c.project == project)
                raise missing_service(project, name, list(connection.execute(names).scalars()))
        return records[0]

    def read_service_by_id(self, service_id: ServiceId) -> ServiceRecord | None:
        """Return one service, or None if there is none (any more)."""
        with self._database.read() as connection:
            return next(iter(_read_records(connection, SERVICES.c.id == service_id)), None)

    def list_service_ids(self) -> list[ServiceId]:
        """Return the id of every service, deleted ones that are still ending included."""
        with self._database.read() as connection:
            ids = connection.execute(select(SERVICES.c.id).order_by(SERVICES.c.id)).scalars()
            return [ServiceId(each) for each in ids]

    def list_deployments(self, service_id: ServiceId) -> list[Deployment]:
        """Return every deployment of a service, newest first."""
        statement = (
            select(DEPLOYMENTS)
            .where(DEPLOYMENTS.c.service_id == service_id)
            .order_by(DEPLOYMENTS.c.number.desc())
        )
        with self._database.read() as connection:
            return [deployment_from_row(row) for row in connection.execute(statement).mappings()]

    def list_instances(self, service_id: ServiceId) -> list[Instance]:
        """Return the live instances and those that ended last, oldest first."""
        statement = (
            select(INSTANCES)
            .where(INSTANCES.c.service_id == service_id)
            .order_by(INSTANCES.c.created_at, INSTANCES.c.id)
        )
        with self._database.read() as connection:
            return [instance_from_row(row) for row in connection.execute(statement).mappings()]

    def read_memory_used(self) -> dict[CellId, int]:
        """Return the memory that live instances may use, summed per cell, in bytes."""
        statement = (
            select(INSTANCES.c.cell_id, DEPLOYMENTS)
            .join(DEPLOYMENTS, DEPLOYMENTS.c.id == INSTANCES.c.deployment_id)
            .where(INSTANCES.c.status.in_(LIVE_STATUSES))
        )
        memory: dict[tuple[CellId, DeploymentId], int] = {}
        used: dict[CellId, int] = defaultdict(int)
        with self._database.read() as connection:
            capacities = read_capacities(connection)
            for row in connection.execute(statement).mappings():
                values: dict[str, Any] = dict(row)
                cell_id = CellId(values.pop("cell_id"))
                key = cell_id, DeploymentId(values["id"])
                if key not in memory and cell_id in capacities:
                    deployment = deployment_from_row(values)
                    needs = needs_of(deployment.definition, deployment.facts, capacities[cell_id])
                    memory[key] = needs.resources.memory_bytes
                used[cell_id] += memory.get(key, 0)
        return dict(used)

    def count_instances(self) -> dict[CellId, int]:
        """Return the number of live instances per cell."""
        statement = select(INSTANCES.c.cell_id).where(INSTANCES.c.status.in_(LIVE_STATUSES))
        counts: dict[CellId, int] = defaultdict(int)
        with self._database.read() as connection:
            for cell_id in connection.execute(statement).scalars():
                counts[CellId(cell_id)] += 1
        return dict(counts)


def _read_records(
    connection: Connection, condition: ColumnElement[bool] | None
) -> list[ServiceRecord]:
    services = select(SERVICES, PROJECTS.c.policy.label("project_policy")).join(
        PROJECTS, PROJECTS.c.name == SERVICES.c.project
    )
    chosen = select(SERVICES.c.id)
    if condition is not None:
        services, chosen = services.where(condition), chosen.where(condition)
    service_rows = _read_rows(connection, services.order_by(SERVICES.c.project, SERVICES.c.name))
    instances = select(INSTANCES).where(
        INSTANCES.c.service_id.in_(chosen), INSTANCES.c.status.in_(LIVE_STATUSES)
    )
    deployments = (
        select(DEPLOYMENTS)
        .join(SERVICES, SERVICES.c.id == DEPLOYMENTS.c.service_id)
        .where(
            DEPLOYMENTS.c.service_id.in_(chosen),
            or_(
                DEPLOYMENTS.c.id == SERVICES.c.desired_deployment,
                DEPLOYMENTS.c.id == SERVICES.c.serving_deployment,
                DEPLOYMENTS.c.id.in_(
                    select(INSTANCES.c.deployment_id).where(
                        INSTANCES.c.service_id.in_(chosen), INSTANCES.c.status.in_(LIVE_STATUSES)
                    )
                ),
            ),
        )
    )
    instance_rows = _read_rows(
        connection, instances.order_by(INSTANCES.c.created_at, INSTANCES.c.id)
    )
    deployment_rows = _read_rows(connection, deployments.order_by(DEPLOYMENTS.c.number))
    return _join(service_rows, deployment_rows, instance_rows)


def _read_rows(connection: Connection, statement: Select[Any]) -> list[Row]:
    # For thousands of rows, plain dictionaries take half the time of the library's mappings.
    result = connection.execute(statement)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]


def _join(
    service_rows: Sequence[Row], deployment_rows: Iterable[Row], instance_rows: Iterable[Row]
) -> list[ServiceRecord]:
    deployments: dict[str, list[Deployment]] = defaultdict(list)
    for row in deployment_rows:
        deployments[row["service_id"]].append(deployment_from_row(row))
    instances: dict[str, list[Instance]] = defaultdict(list)
    for row in instance_rows:
        instances[row["service_id"]].append(instance_from_row(row))
    records: list[ServiceRecord] = []
    for row in service_rows:
        values: dict[str, Any] = dict(row)
        policy = NAMES.validate_json(values.pop("project_policy"))
        service = service_from_row(values)
        records.append(
            ServiceRecord(
                service=service,
                project_policy=policy,
                deployments=tuple(deployments[service.id]),
                instances=tuple(instances[service.id]),
            )
        )
    return records
