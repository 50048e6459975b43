"""What deploying would change, and where it might run; nothing is changed."""

from collections.abc import Iterator, Mapping
from typing import cast

from fastapi import APIRouter

from tramontane.api.access import Caller, Deployer, NamePath
from tramontane.api.bindings import warn_of_missing
from tramontane.api.candidates import candidate_view, find_candidates
from tramontane.api.definitions import check_definition, pin_source
from tramontane.base.errors import NotFound, TramontaneError
from tramontane.domain.definition import Definition, ModelSource, ServiceKind
from tramontane.domain.model import ModelFacts
from tramontane.plan.placement import Wish
from tramontane.store.records import ServiceRecord
from tramontane.wire.definitions import body_from_definition
from tramontane.wire.schemas import PlannedService, PlanRequest, PlanView

router = APIRouter(tags=["services"])


@router.post("/projects/{project}/plan")
def plan_services(project: NamePath, body: PlanRequest, caller: Deployer) -> PlanView:
    """What deploying these definitions would change, and where they may run."""
    definitions = {
        name: pin_source(caller.parts, check_definition(each, path=f"services.{name}"))
        for name, each in body.services.items()
    }
    known = {each.service.name: each for each in caller.parts.store.list_services(project)}
    policy = _read_policy(caller, project)
    models = {name for name, each in definitions.items() if each.kind is ServiceKind.MODEL}
    planned = [
        _plan(caller, policy, (name, definition), known.get(name)).model_copy(
            update={
                "models": list(definition.models),
                "warnings": warn_of_missing(caller.parts.store, project, definition, models),
            }
        )
        for name, definition in definitions.items()
    ]
    return PlanView(project=project, services=planned)


def _read_policy(caller: Caller, project: str) -> tuple[str, ...]:
    try:
        return caller.parts.store.read_project(project).project.policy
    except NotFound:
        # Projects come into being with their first service.
        return ()


def _plan(
    caller: Caller,
    policy: tuple[str, ...],
    wanted: tuple[str, Definition],
    record: ServiceRecord | None,
) -> PlannedService:
    name, definition = wanted
    facts, problem, note = _look_at_model(caller, definition)
    wish = Wish(definition=definition, facts=facts, project_policy=policy)
    candidates = find_candidates(caller.parts.store, wish, caller.now)
    desired = None if record is None else record.deployment(record.service.desired_deployment)
    changes = [] if desired is None else list(_differences(desired.definition, definition))
    action = "create" if desired is None else "update" if changes else "unchanged"
    return PlannedService(
        name=name,
        action=action,
        changes=changes,
        candidates=[candidate_view(each) for each in candidates],
        placeable=problem is None and any(each.allowed and each.fits for each in candidates),
        problem=problem,
        note=note,
    )


def _look_at_model(
    caller: Caller, definition: Definition
) -> tuple[ModelFacts | None, str | None, str | None]:
    """Return what a model's files say, or why they cannot be read, or why not yet."""
    if not isinstance(definition.source, ModelSource):
        return None, None, None
    try:
        return caller.parts.inspect_model(definition.source.reference), None, None
    except NotFound:
        note = (
            "what an instance needs is known once the weights are on the platform's machine; "
            f"fetch them ahead: tram models fetch {definition.source.reference}"
        )
        return None, None, note
    except TramontaneError as error:
        return None, error.message, None


def _differences(before: Definition, after: Definition) -> Iterator[str]:
    old = _flatten(body_from_definition(before).model_dump(mode="json"))
    new = _flatten(body_from_definition(after).model_dump(mode="json"))
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            yield f"{path}: removed"
        elif path not in old:
            yield f"{path}: added"
        elif old[path] != new[path]:
            # Values of variables are often secrets; that they differ is enough to know.
            hidden = path.startswith("environment.")
            yield f"{path}: changed" if hidden else f"{path}: {old[path]!r} → {new[path]!r}"


def _flatten(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, each in value.items():
        if isinstance(each, dict):
            flat |= _flatten(cast("dict[str, object]", each), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = each
    return flat
