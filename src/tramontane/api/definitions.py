"""Checks of a definition that its schema cannot express: what the platform must know of."""

from dataclasses import replace

from tramontane.api.parts import ApiParts
from tramontane.base.errors import InvalidRequest
from tramontane.domain.definition import Definition, ModelSource, ServiceKind
from tramontane.policy.presets import find_presets
from tramontane.wire.definitions import definition_from_body
from tramontane.wire.kinds import find_unfit
from tramontane.wire.schemas import DefinitionBody


def check_definition(body: DefinitionBody, *, path: str = "definition") -> Definition:
    """Return the domain's value; raises ``InvalidRequest`` with the path of the wrong field."""
    unfit = [(".".join((path, *where)), text) for where, text in find_unfit(body)]
    if unfit:
        raise InvalidRequest("; ".join(f"{at}: {text}" for at, text in unfit), path=unfit[0][0])
    definition = definition_from_body(body)
    scaling = definition.scaling
    if scaling.instances_min > scaling.instances_max:
        raise InvalidRequest(
            f"{path}.scaling.max: is {scaling.instances_max}, "
            f"less than scaling.min, which is {scaling.instances_min}",
            path=f"{path}.scaling.max",
        )
    is_model = isinstance(definition.source, ModelSource)
    if (definition.kind is ServiceKind.MODEL) is not is_model:
        wanted = "source code" if is_model else "a model"
        raise InvalidRequest(
            f"{path}.source: a service of kind {definition.kind.value} needs {wanted}",
            path=f"{path}.source",
        )
    find_presets(definition.policy, path=f"{path}.policy")
    return definition


def pin_source(parts: ApiParts, definition: Definition) -> Definition:
    """Return the definition as a deployment keeps it: with a model that cannot change any more.

    Deployed again, a reference that has moved meanwhile makes another deployment. Raises
    ``TramontaneError`` if there is no such model, or its source does not answer.
    """
    if not isinstance(definition.source, ModelSource):
        return definition
    pinned = parts.weights.pin(definition.source.reference)
    return replace(definition, source=ModelSource(reference=pinned))
