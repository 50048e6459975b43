"""``/metrics``, where Prometheus looks; with a token, like everything else."""

from fastapi import APIRouter
from fastapi.responses import Response

from tramontane.api.access import Reader
from tramontane.api.gate import METRICS
from tramontane.api.metrics import make_families
from tramontane.wire.exposition import MEDIA_TYPE, expose

router = APIRouter(tags=["platform"])


class Page(Response):
    """Prometheus' text format."""

    media_type = MEDIA_TYPE


@router.get(METRICS, response_class=Page)
def get_metrics(caller: Reader) -> Page:
    """Counts for Prometheus, of the projects that this token may see."""
    store, project = caller.parts.store, caller.project
    families = make_families(
        caller.parts.platform.version,
        store.read_usage_totals(project),
        store.count_services(project),
        store.count_live_instances(project),
    )
    return Page(expose(families))
