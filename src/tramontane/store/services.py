"""The desired side of services: every change that a user asks for, and nothing else.

Called by the API. Each verb is one durable transaction, guarded by the generation the caller saw
and by the idempotency key it sent, and raises the service's generation if it changed anything, so
that decisions made from older reads are refused (``store.snapshots``).
"""

from dataclasses import replace

from sqlalchemy import Connection, func, insert, select, update

from tramontane.base.errors import Conflict, InvalidRequest
from tramontane.base.ids import IdFactory
from tramontane.domain.definition import Definition, ModelSource
from tramontane.domain.deployment import OVER, Deployment, DeploymentStatus
from tramontane.domain.ids import DeploymentId
from tramontane.domain.service import Service, ServiceStatus
from tramontane.domain.snapshot import Event
from tramontane.store.aliases import check_no_alias
from tramontane.store.events import add_events
from tramontane.store.part import Part
from tramontane.store.projects import insert_project, lock_project
from tramontane.store.requests import ALWAYS, Guard, find_result, remember_result
from tramontane.store.rows import artifact_to_row, deployment_to_row, source_digest_of
from tramontane.store.service_rows import (
    AUTOMATIC,
    change_service,
    find_rollback,
    find_service,
    insert_service,
    lock_service,
    read_deployment,
)
from tramontane.store.sources import hold_source
from tramontane.store.tables import DEPLOYMENTS


class Services(Part):
    """What a user can ask of a service."""

    def deploy(
        self,
        project: str,
        name: str,
        definition: Definition,
        *,
        now: float,
        ids: IdFactory,
        guard: Guard = ALWAYS,
    ) -> tuple[Service, Deployment]:
        """Make ``definition`` the desired deployment; project and service are made on first use.

        Deploying what is already desired changes nothing and returns it, unless it has failed:
        then it is tried again as a new deployment. A paused service is resumed either way. Raises
        ``InvalidRequest`` if the definition names an archive that was not uploaded.
        """
        with self._database.write() as connection:
            insert_project(self._database, connection, project, now)
            lock_project(connection, project)
            service = find_service(connection, project, name)
            repeated = find_result(connection, guard.request, now)
            if repeated is not None:
                service = lock_service(connection, project, name)
                return service, read_deployment(connection, service, DeploymentId(repeated))
            if service is None:
                service = insert_service(connection, project, name, definition, now=now, ids=ids)
            else:
                _check_changeable(service)
            _check_generation(service, guard)
            check_no_alias(connection, project, name, definition)
            service, deployment = self._deploy(connection, service, definition, now=now, ids=ids)
            remember_result(connection, guard.request, deployment.id, now)
            return service, deployment

    def _deploy(
        self,
        connection: Connection,
        service: Service,
        definition: Definition,
        *,
        now: float,
        ids: IdFactory,
    ) -> tuple[Service, Deployment]:
        if service.desired_deployment is not None:
            current = read_deployment(connection, service, service.desired_deployment)
            if current.definition == definition and current.status is not DeploymentStatus.FAILED:
                if service.paused:
                    service = change_service(connection, service, {"paused": False})
                return service, current
        _hold_archive(connection, definition)
        last = connection.execute(
            select(func.max(DEPLOYMENTS.c.number)).where(DEPLOYMENTS.c.service_id == service.id)
        ).scalar()
        deployment = Deployment(
            id=DeploymentId(ids("dep")),
            service_id=service.id,
            number=(last or 0) + 1,
            definition=definition,
            created_at=now,
        )
        connection.execute(insert(DEPLOYMENTS).values(deployment_to_row(deployment)))
        values = {"desired_deployment": deployment.id, "kind": definition.kind.value, **AUTOMATIC}
        service = change_service(connection, service, values)
        message = f"deployment {deployment.number} was asked for"
        _tell(connection, service, now, deployment.id, ("deployed", message))
        return service, deployment

    def scale(
        self,
        project: str,
        name: str,
        instances: int | None,
        *,
        now: float,
        guard: Guard = ALWAYS,
    ) -> Service:
        """Run this many instances; 0: sleep now, wake on a request; None: as demand asks."""
        with self._database.write() as connection:
            service = lock_service(connection, project, name)
            if find_result(connection, guard.request, now) is not None:
                return service
            _check_changeable(service)
            _check_generation(service, guard)
            _check_instances(connection, service, instances)
            values = {
                "desired_instances": instances or None,
                "sleep_requested": instances == 0,
                "wake_failures": 0,
                "retry_at": None,
            }
            service = change_service(connection, service, values)
            wanted = "as many instances as demand asks" if instances is None else f"{instances}"
            _tell(connection, service, now, service.id, ("scaled", f"scaled to {wanted}"))
            remember_result(connection, guard.request, service.id, now)
            return service

    def pause(self, project: str, name: str, *, now: float, guard: Guard = ALWAYS) -> Service:
        """Stop every instance and refuse requests until ``resume``."""
        with self._database.write() as connection:
            service = lock_service(connection, project, name)
            if find_result(connection, guard.request, now) is not None:
                return service
            _check_changeable(service)
            _check_generation(service, guard)
            if not service.paused:
                service = change_service(connection, service, {"paused": True})
                _tell(connection, service, now, service.id, ("paused", "paused on request"))
            remember_result(connection, guard.request, service.id, now)
            return service

    def resume(self, project: str, name: str, *, now: float, guard: Guard = ALWAYS) -> Service:
        """Undo ``pause``, and ``scale`` as well: run as demand asks."""
        with self._database.write() as connection:
            service = lock_service(connection, project, name)
            if find_result(connection, guard.request, now) is not None:
                return service
            _check_changeable(service)
            _check_generation(service, guard)
            overridden = service.desired_instances is not None or service.sleep_requested
            if service.paused or overridden or service.retry_at is not None:
                service = change_service(connection, service, AUTOMATIC)
                _tell(connection, service, now, service.id, ("resumed", "resumed on request"))
            remember_result(connection, guard.request, service.id, now)
            return service

    def rollback(
        self,
        project: str,
        name: str,
        number: int | None,
        *,
        now: float,
        guard: Guard = ALWAYS,
    ) -> tuple[Service, Deployment]:
        """Make an earlier deployment the desired one again; None: the last one that was healthy."""
        with self._database.write() as connection:
            service = lock_service(connection, project, name)
            repeated = find_result(connection, guard.request, now)
            if repeated is not None:
                return service, read_deployment(connection, service, DeploymentId(repeated))
            _check_changeable(service)
            _check_generation(service, guard)
            target = find_rollback(connection, service, number)
            check_no_alias(connection, project, name, target.definition)
            if target.id != service.desired_deployment or service.paused:
                values = {"desired_deployment": target.id, "kind": target.definition.kind.value}
                service = change_service(connection, service, values | AUTOMATIC)
                target = _revive(connection, target)
                message = f"rolled back to deployment {target.number}"
                _tell(connection, service, now, target.id, ("rolled_back", message))
            remember_result(connection, guard.request, target.id, now)
            return service, target

    def delete_service(
        self, project: str, name: str, *, now: float, guard: Guard = ALWAYS
    ) -> Service:
        """Ask for the end of a service; it is gone after ``finish_delete``. Repeating is fine."""
        with self._database.write() as connection:
            service = lock_service(connection, project, name)
            if service.deleted:
                return service
            _check_generation(service, guard)
            values = {
                "deleted": True,
                "status": ServiceStatus.DELETING.value,
                "reason": "delete_requested",
                "message": "its instances are being stopped",
            }
            service = change_service(connection, service, values)
            _tell(connection, service, now, service.id, ("deleted", "deleted on request"))
            return service


def _check_changeable(service: Service) -> None:
    if service.deleted:
        raise Conflict(
            f"service {service.name} is being deleted; try again when it is gone",
            retry_after_s=5.0,
        )


def _hold_archive(connection: Connection, definition: Definition) -> None:
    digest = source_digest_of(definition)
    if digest is not None and not hold_source(connection, digest):
        raise InvalidRequest(
            f"definition.source.digest: there is no archive {digest}; "
            f"upload it first: PUT /api/v1/sources/{digest}",
            path="definition.source.digest",
        )


def _check_generation(service: Service, guard: Guard) -> None:
    expected = guard.expected_generation
    if expected is not None and expected != service.generation:
        raise Conflict(
            f"service {service.name} is at generation {service.generation}, not {expected}; "
            "read it again and repeat the change",
            path="If-Match",
        )


def _check_instances(connection: Connection, service: Service, instances: int | None) -> None:
    if instances is None or service.desired_deployment is None:
        return
    definition = read_deployment(connection, service, service.desired_deployment).definition
    least = definition.scaling.instances_min
    if instances == 0 and least and definition.kind.takes_requests:
        raise InvalidRequest(
            f"service {service.name} has at least {least} running (scale.min), so it would start "
            "again at once; stop it with pause, or deploy it with a minimum of 0",
            path="instances",
        )
    most = max(definition.scaling.instances_max, definition.scaling.instances_min)
    if instances > most:
        raise InvalidRequest(
            f"service {service.name} may have at most {most} instances; "
            "raise scale.max and deploy it first",
            path="instances",
        )


def _tell(
    connection: Connection, service: Service, now: float, subject: str, event: tuple[str, str]
) -> None:
    reason, message = event
    happened = Event(at=now, service_id=service.id, subject=subject, reason=reason, message=message)
    add_events(connection, service.id, [happened])


def _revive(connection: Connection, deployment: Deployment) -> Deployment:
    if deployment.status not in OVER:
        return deployment
    is_model = isinstance(deployment.definition.source, ModelSource)
    # Superseded before its build ended: it still has to be built, which no transition allows.
    if deployment.artifact is None and not is_model:
        raise Conflict(f"deployment {deployment.number} was never built; deploy it again")
    revived = replace(
        deployment,
        # Its weights may have made room for others meanwhile; if not, preparing takes no time.
        status=DeploymentStatus.BUILDING if is_model else DeploymentStatus.PENDING,
        artifact=None if is_model else deployment.artifact,
        reason="rolled_back",
        message="",
        start_failures=0,
    )
    connection.execute(
        update(DEPLOYMENTS)
        .where(DEPLOYMENTS.c.id == deployment.id)
        .values(
            **artifact_to_row(revived.artifact),
            status=revived.status.value,
            reason=revived.reason,
            message=revived.message,
            start_failures=revived.start_failures,
        )
    )
    return revived
