"""Files and batches of a project, for who runs the platform; users have ``/v1`` at the gateway."""

from typing import Annotated

from fastapi import APIRouter, Path

from tramontane.api.access import Deployer, NamePath, Reader
from tramontane.api.views import batch_view, file_view
from tramontane.store.paging import Page
from tramontane.wire.inference_schemas import BatchView, FileView
from tramontane.wire.schemas import BATCH_ID_PATTERN

router = APIRouter(prefix="/projects/{project}", tags=["batches"])

BatchId = Annotated[str, Path(pattern=BATCH_ID_PATTERN)]
NEWEST = Page(limit=1000)


@router.get("/files")
def list_files(project: NamePath, caller: Reader) -> list[FileView]:
    """The newest files of a project, a thousand at most."""
    found = caller.parts.store.list_files(project, NEWEST, now=caller.now)
    return [file_view(each) for each in found.files]


@router.get("/batches")
def list_batches(project: NamePath, caller: Reader) -> list[BatchView]:
    """The newest batches of a project, a thousand at most."""
    found = caller.parts.store.list_batches(project, NEWEST)
    return [batch_view(each) for each in found.batches]


@router.get("/batches/{batch_id}")
def get_batch(project: NamePath, batch_id: BatchId, caller: Reader) -> BatchView:
    """One batch."""
    return batch_view(caller.parts.store.read_batch(project, batch_id))


@router.post("/batches/{batch_id}/cancel")
def cancel_batch(project: NamePath, batch_id: BatchId, caller: Deployer) -> BatchView:
    """Send nothing more of a batch; it keeps the results that it has."""
    batch = caller.parts.store.cancel_batch(project, batch_id, now=caller.now)
    caller.parts.nudge_batch(batch.id)
    return batch_view(batch)
