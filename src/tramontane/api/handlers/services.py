"""Services: list, read, deploy, delete, and the verbs that change how one runs."""

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter, Response

from tramontane.api.access import Caller, Deployer, NamePath, ProjectQuery, Reader
from tramontane.api.bindings import warn_of_missing
from tramontane.api.candidates import find_candidates, refusal, wish_of
from tramontane.api.definitions import check_definition, pin_source
from tramontane.api.views import deployment_view, service_view
from tramontane.base.errors import Conflict
from tramontane.domain.cell import Cell
from tramontane.domain.deployment import Deployment
from tramontane.domain.ids import CellId
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.service import Service
from tramontane.store.records import ServiceRecord
from tramontane.wire.schemas import (
    DefinitionBody,
    DeploymentView,
    ExecRequest,
    ExecView,
    RollbackRequest,
    ScaleRequest,
    ServiceView,
)

router = APIRouter(tags=["services"])
ONE = "/projects/{project}/services/{name}"


@router.get("/services")
def list_services(caller: Reader, project: ProjectQuery = None) -> list[ServiceView]:
    """The services of one project, or of all that this token may see."""
    caller.check_project(project)
    cells = cells_by_id(caller)
    records = caller.parts.store.list_services(project or caller.project)
    return [view_service(caller, record, cells) for record in records]


@router.get(ONE)
def get_service(
    project: NamePath, name: NamePath, caller: Reader, response: Response
) -> ServiceView:
    """One service with its live instances."""
    return _answer(caller, caller.parts.store.read_service(project, name), response)


@router.put(ONE, status_code=202)
def put_service(
    project: NamePath, name: NamePath, body: DefinitionBody, caller: Deployer, response: Response
) -> DeploymentView:
    """Make a service, or deploy a new version of it; what is deployed already changes nothing."""
    definition = pin_source(caller.parts, check_definition(body))
    service, deployment = caller.parts.store.deploy(
        project, name, definition, now=caller.now, ids=caller.parts.ids, guard=caller.guard
    )
    return _accept(caller, service, deployment, response)


@router.delete(ONE, status_code=202)
def delete_service(
    project: NamePath, name: NamePath, caller: Deployer, response: Response
) -> ServiceView:
    """Stop a service and remove it with all its deployments."""
    caller.parts.store.delete_service(project, name, now=caller.now, guard=caller.guard)
    return _changed(caller, project, name, response)


@router.post(f"{ONE}/scale", status_code=202)
def scale_service(
    project: NamePath, name: NamePath, body: ScaleRequest, caller: Deployer, response: Response
) -> ServiceView:
    """Run this many instances; null is automatic again, and 0 sleeps until the next request.

    A worker gets no requests, so it sleeps until it is scaled, resumed or deployed.
    """
    caller.parts.store.scale(project, name, body.instances, now=caller.now, guard=caller.guard)
    return _changed(caller, project, name, response)


@router.post(f"{ONE}/pause", status_code=202)
def pause_service(
    project: NamePath, name: NamePath, caller: Deployer, response: Response
) -> ServiceView:
    """Stop all instances and answer no request until the service is resumed."""
    caller.parts.store.pause(project, name, now=caller.now, guard=caller.guard)
    return _changed(caller, project, name, response)


@router.post(f"{ONE}/resume", status_code=202)
def resume_service(
    project: NamePath, name: NamePath, caller: Deployer, response: Response
) -> ServiceView:
    """Undo pause and scale: run as demand asks."""
    caller.parts.store.resume(project, name, now=caller.now, guard=caller.guard)
    return _changed(caller, project, name, response)


@router.post(f"{ONE}/rollback", status_code=202)
def rollback_service(
    project: NamePath, name: NamePath, body: RollbackRequest, caller: Deployer, response: Response
) -> DeploymentView:
    """Make an earlier deployment the desired one; null: the last healthy one before this."""
    service, deployment = caller.parts.store.rollback(
        project, name, body.deployment, now=caller.now, guard=caller.guard
    )
    return _accept(caller, service, deployment, response)


@router.post(f"{ONE}/exec")
async def exec_command(
    project: NamePath, name: NamePath, body: ExecRequest, caller: Deployer
) -> ExecView:
    """Run a command inside an instance and wait for its end."""
    instance = await asyncio.to_thread(_choose, caller, project, name, body.instance)
    await asyncio.to_thread(caller.parts.store.claim_request, caller.guard.request, now=caller.now)
    return await caller.parts.execute(instance, body.command, body.timeout_s)


def cells_by_id(caller: Caller) -> dict[CellId, Cell]:
    """Return every cell by its id."""
    return {cell.id: cell for cell in caller.parts.store.list_cells()}


def view_service(
    caller: Caller, record: ServiceRecord, cells: Mapping[CellId, Cell]
) -> ServiceView:
    """Return a service as this platform shows it."""
    service = record.service
    return service_view(record, caller.parts.service_url(service.project, service.name), cells)


def _answer(caller: Caller, record: ServiceRecord, response: Response) -> ServiceView:
    response.headers["ETag"] = f'"{record.service.generation}"'
    return view_service(caller, record, cells_by_id(caller))


def _changed(caller: Caller, project: str, name: str, response: Response) -> ServiceView:
    record = caller.parts.store.read_service(project, name)
    _tell(caller, record.service)
    return _answer(caller, record, response)


def _accept(
    caller: Caller, service: Service, deployment: Deployment, response: Response
) -> DeploymentView:
    _tell(caller, service)
    response.headers["ETag"] = f'"{service.generation}"'
    policy = caller.parts.store.read_project(service.project).project.policy
    candidates = find_candidates(caller.parts.store, wish_of(deployment, policy), caller.now)
    warnings = warn_of_missing(caller.parts.store, service.project, deployment.definition)
    return deployment_view(service, deployment, refusal(candidates), warnings)


def _tell(caller: Caller, service: Service) -> None:
    caller.parts.nudge(service.id)
    caller.parts.feed.announce(service.id)


def _choose(caller: Caller, project: str, name: str, wanted: str | None) -> Instance:
    record = caller.parts.store.read_service(project, name)
    running = [each for each in record.instances if each.status is InstanceStatus.HEALTHY]
    if wanted is None:
        if not running:
            wake = "wake it with a request, or " if record.service.kind.takes_requests else ""
            raise Conflict(
                f"service {name} has no running instance; {wake}start one with: tram scale {name} 1"
            )
        return running[0]
    found = next((each for each in running if each.id == wanted), None)
    if found is None:
        known = ", ".join(each.id for each in running) or "none"
        raise Conflict(f"service {name} has no running instance {wanted}; running are: {known}")
    return found
