"""Aliases: names under which several models are asked for."""

from fastapi import APIRouter, Response

from tramontane.api.access import Caller, Deployer, NamePath, ProjectQuery, Reader
from tramontane.api.views import alias_view
from tramontane.domain.alias import Alias, AliasDefinition, Canary, Share
from tramontane.wire.schemas import AliasBody, AliasView

router = APIRouter(tags=["aliases"])
ONE = "/projects/{project}/aliases/{name}"


@router.get("/aliases")
def list_aliases(caller: Reader, project: ProjectQuery = None) -> list[AliasView]:
    """The aliases of one project, or of all that this token may see."""
    caller.check_project(project)
    store = caller.parts.store
    found = store.list_aliases(project or caller.project)
    models = {each: store.list_model_services(each) for each in {one.project for one in found}}
    return [alias_view(each, models[each.project]) for each in found]


@router.get(ONE)
def get_alias(project: NamePath, name: NamePath, caller: Reader, response: Response) -> AliasView:
    """One alias."""
    return _answer(caller, caller.parts.store.read_alias(project, name), response)


@router.put(ONE)
def put_alias(
    project: NamePath, name: NamePath, body: AliasBody, caller: Deployer, response: Response
) -> AliasView:
    """Make an alias, or change what it means; it serves at once, without a deployment."""
    alias = caller.parts.store.put_alias(
        project, name, _definition(body), now=caller.now, guard=caller.guard
    )
    caller.parts.aliases_changed(project)
    return _answer(caller, alias, response)


@router.delete(ONE, status_code=204)
def delete_alias(project: NamePath, name: NamePath, caller: Deployer) -> Response:
    """Forget an alias; its services stay."""
    caller.parts.store.delete_alias(project, name, now=caller.now, guard=caller.guard)
    caller.parts.aliases_changed(project)
    return Response(status_code=204)


def _answer(caller: Caller, alias: Alias, response: Response) -> AliasView:
    response.headers["ETag"] = f'"{alias.generation}"'
    return alias_view(alias, caller.parts.store.list_model_services(alias.project))


def _definition(body: AliasBody) -> AliasDefinition:
    return AliasDefinition(
        targets=tuple(Share(service=each.service, percent=each.percent) for each in body.targets),
        canaries=tuple(
            Canary(header=each.header, value=each.value, service=each.service)
            for each in body.canaries
        ),
        fallbacks=tuple(body.fallbacks),
        first_token_s=body.first_token_s,
        between_tokens_s=body.between_tokens_s,
    )
