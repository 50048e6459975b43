"""How many there are of what, without reading any of it: for monitoring, which asks often."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, true

from tramontane.store.part import Part
from tramontane.store.records import LIVE_STATUSES
from tramontane.store.tables import INSTANCES, SERVICES


@dataclass(frozen=True, kw_only=True)
class StatusCount:
    """So many services, or instances of services, are in one status."""

    project: str
    kind: str
    """Of the service."""
    status: str
    number: int


class Counts(Part):
    """Counting rows by status."""

    def count_services(self, project: str | None = None) -> list[StatusCount]:
        """Return the services of one project, or of all, by status."""
        groups = (SERVICES.c.project, SERVICES.c.kind, SERVICES.c.status)
        statement = select(*groups, func.count()).where(_of(project)).group_by(*groups)
        with self._database.read() as connection:
            return [_count(*row) for row in connection.execute(statement.order_by(*groups))]

    def count_live_instances(self, project: str | None = None) -> list[StatusCount]:
        """Return the live instances of the services of one project, or of all, by status."""
        groups = (SERVICES.c.project, SERVICES.c.kind, INSTANCES.c.status)
        statement = (
            select(*groups, func.count())
            .join(SERVICES, SERVICES.c.id == INSTANCES.c.service_id)
            .where(INSTANCES.c.status.in_(LIVE_STATUSES), _of(project))
            .group_by(*groups)
        )
        with self._database.read() as connection:
            return [_count(*row) for row in connection.execute(statement.order_by(*groups))]


def _of(project: str | None) -> ColumnElement[bool]:
    return true() if project is None else SERVICES.c.project == project


def _count(project: str, kind: str, status: str, number: int) -> StatusCount:
    return StatusCount(project=project, kind=kind, status=status, number=number)
