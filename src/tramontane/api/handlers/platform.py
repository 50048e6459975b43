"""The platform itself: is it there, how do its parts fare, where can it run things."""

from collections import Counter

from fastapi import APIRouter

from tramontane.api.access import Caller, NamePath, Reader
from tramontane.api.views import cell_view, disk_view
from tramontane.wire.schemas import CellView, StatusView

router = APIRouter(tags=["platform"])


@router.get("/status")
def get_status(caller: Reader) -> StatusView:
    """How the parts of the platform fare."""
    facts = caller.parts.platform
    records = caller.parts.store.list_services(caller.project)
    usage = facts.get_disk()
    return StatusView(
        version=facts.version,
        home=facts.home,
        control_plane=facts.get_control_plane(),
        gateway=facts.get_gateway(),
        cells=_list_cells(caller),
        services=dict(Counter(record.service.status.value for record in records)),
        egress_allowed=list(facts.egress_allowed),
        disk=None if usage is None else disk_view(usage),
    )


@router.get("/cells")
def list_cells(caller: Reader) -> list[CellView]:
    """The places where instances can run."""
    return _list_cells(caller)


@router.get("/cells/{name}")
def get_cell(name: NamePath, caller: Reader) -> CellView:
    """One place where instances can run."""
    cell = caller.parts.store.read_cell(name)
    return cell_view(cell, caller.parts.store.count_instances().get(cell.id, 0))


def _list_cells(caller: Caller) -> list[CellView]:
    counts = caller.parts.store.count_instances()
    return [cell_view(cell, counts.get(cell.id, 0)) for cell in caller.parts.store.list_cells()]
