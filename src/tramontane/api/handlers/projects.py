"""Projects: workspaces of services, and the policy that all of them share."""

from fastapi import APIRouter, Response

from tramontane.api.access import Administrator, NamePath, Reader
from tramontane.api.views import project_view
from tramontane.policy.presets import find_presets
from tramontane.wire.schemas import ProjectRequest, ProjectView

router = APIRouter(prefix="/projects", tags=["projects"])


@router.get("")
def list_projects(caller: Reader) -> list[ProjectView]:
    """The projects that this token may see."""
    records = caller.parts.store.list_projects()
    return [project_view(each) for each in records if caller.project in (None, each.project.name)]


@router.get("/{project}")
def get_project(project: NamePath, caller: Reader) -> ProjectView:
    """One project."""
    return project_view(caller.parts.store.read_project(project))


@router.put("/{project}")
def put_project(project: NamePath, body: ProjectRequest, caller: Administrator) -> ProjectView:
    """Make a project, or replace the presets that all its services must satisfy."""
    presets = find_presets(body.policy)
    names = tuple(preset.name for preset in presets)
    caller.parts.store.set_project_policy(project, names, now=caller.now)
    for record in caller.parts.store.list_services(project):
        caller.parts.nudge(record.service.id)
    return project_view(caller.parts.store.read_project(project))


@router.delete("/{project}", status_code=204)
def delete_project(project: NamePath, caller: Administrator) -> Response:
    """Remove a project that has no services."""
    caller.parts.store.delete_project(project)
    return Response(status_code=204)
