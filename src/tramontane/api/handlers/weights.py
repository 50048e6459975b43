"""Weights on this machine: a cache, of which people see what is there, fetch ahead, and remove."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path

from tramontane.api.access import Administrator, Deployer, Reader
from tramontane.api.views import weights_view
from tramontane.base.errors import Forbidden
from tramontane.wire.schemas import WeightsRequest, WeightsView

router = APIRouter(prefix="/weights", tags=["models"])

Digest = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$")]


@router.get("")
async def list_weights(caller: Reader) -> list[WeightsView]:
    """What is here or on its way; a token for one project sees what that project uses."""
    found = await caller.parts.weights.list_weights()
    views = [weights_view(each, caller.project) for each in found]
    return [each for each in views if caller.project is None or each.used_by]


@router.post("/fetch")
async def fetch_weights(body: WeightsRequest, caller: Deployer) -> WeightsView:
    """Fetch weights ahead of a deployment; answers at once, so ask again until they are here.

    Ask with the pinned reference of the first answer, which asks their source no more.
    """
    weights = caller.parts.weights
    reference = await asyncio.to_thread(weights.pin, body.model)
    return weights_view(await weights.fetch_ahead(reference), caller.project)


@router.delete("/{digest}")
async def delete_weights(digest: Digest, caller: Administrator) -> WeightsView:
    """Remove weights that no service needs."""
    if caller.project is not None:
        raise Forbidden("weights are shared by all projects: this needs a token for all of them")
    return weights_view(await caller.parts.weights.evict(digest), caller.project)
