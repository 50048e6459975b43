"""Models: those that are served, and what the files of any model say of it."""

from typing import Annotated

from fastapi import APIRouter, Query

from tramontane.api.access import Deployer, Reader
from tramontane.api.views import facts_view, model_view
from tramontane.domain.definition import ServiceKind
from tramontane.wire.schemas import MODEL_REFERENCE_MAX, ModelFactsView, ModelView

router = APIRouter(prefix="/models", tags=["models"])

Reference = Annotated[
    str,
    Query(min_length=1, max_length=MODEL_REFERENCE_MAX, pattern=r"^[^\x00]*$", examples=["tiny"]),
]


@router.get("")
def list_models(caller: Reader) -> list[ModelView]:
    """The model services that this token may see."""
    parts = caller.parts
    return [
        model_view(record, parts.service_url(record.service.project, record.service.name))
        for record in parts.store.list_services(caller.project)
        if record.service.kind is ServiceKind.MODEL
    ]


@router.get("/inspect")
def inspect_model(reference: Reference, caller: Deployer) -> ModelFactsView:
    """What the headers of a model's files say of it; no weight is loaded.

    Needs the right to deploy: like a deployment, it opens the files that it is told to.
    """
    return facts_view(caller.parts.inspect_model(reference))
