"""What belongs to one service: its deployments, its instances, its events, and why it is so."""

from typing import Annotated

from fastapi import APIRouter, Path

from tramontane.api.access import NamePath, Reader
from tramontane.api.candidates import candidate_view, find_candidates, wish_of
from tramontane.api.handlers.services import cells_by_id
from tramontane.api.views import deployment_view, event_view, instance_view
from tramontane.base.errors import NotFound
from tramontane.wire.schemas import DeploymentView, EventView, InstanceView, WhyView

router = APIRouter(prefix="/projects/{project}/services/{name}", tags=["services"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
EVENTS_IN_WHY = 50


@router.get("/deployments")
def list_deployments(project: NamePath, name: NamePath, caller: Reader) -> list[DeploymentView]:
    """Every version of a service, newest first."""
    service = caller.parts.store.read_service(project, name).service
    deployments = caller.parts.store.list_deployments(service.id)
    return [deployment_view(service, each) for each in deployments]


@router.get("/deployments/{number}")
def get_deployment(
    project: NamePath, name: NamePath, number: Number, caller: Reader
) -> DeploymentView:
    """One version of a service."""
    service = caller.parts.store.read_service(project, name).service
    deployments = caller.parts.store.list_deployments(service.id)
    for each in deployments:
        if each.number == number:
            return deployment_view(service, each)
    newest = ", ".join(str(each.number) for each in deployments[:5])
    raise NotFound(f"service {name} has no deployment {number}; the newest are: {newest}")


@router.get("/instances")
def list_instances(project: NamePath, name: NamePath, caller: Reader) -> list[InstanceView]:
    """The live instances and those that ended lately, oldest first."""
    store = caller.parts.store
    service = store.read_service(project, name).service
    numbers = {each.id: each.number for each in store.list_deployments(service.id)}
    cells = cells_by_id(caller)
    return [instance_view(each, numbers, cells) for each in store.list_instances(service.id)]


@router.get("/events")
def list_events(project: NamePath, name: NamePath, caller: Reader) -> list[EventView]:
    """What happened to a service, newest last."""
    service = caller.parts.store.read_service(project, name).service
    return [event_view(each) for each in caller.parts.store.list_events(service.id)]


@router.get("/why")
def explain_service(project: NamePath, name: NamePath, caller: Reader) -> WhyView:
    """Why a service is where it is, or why it is nowhere."""
    store = caller.parts.store
    record = store.read_service(project, name)
    service, desired = record.service, record.deployment(record.service.desired_deployment)
    own = () if desired is None else desired.definition.policy
    candidates = (
        ()
        if desired is None
        else find_candidates(store, wish_of(desired, record.project_policy), caller.now)
    )
    return WhyView(
        project=project,
        service=name,
        status=service.status.value,
        reason=service.reason,
        message=service.message,
        policy=list(dict.fromkeys((*record.project_policy, *own))),
        candidates=[candidate_view(each) for each in candidates],
        events=[event_view(each) for each in store.list_events(service.id, limit=EVENTS_IN_WHY)],
    )
