"""What requests of models used: sums of it, and the requests one by one."""

from typing import Annotated

from fastapi import APIRouter, Query

from tramontane.api.access import Caller, MomentQuery, ProjectQuery, Reader, ServiceQuery
from tramontane.api.usage import Names, add_up, record_view, sum_view
from tramontane.store.usage import UsageQuery
from tramontane.wire.inference_schemas import UsageGroup, UsagePageView, UsageView
from tramontane.wire.schemas import TOKEN_ID_PATTERN

router = APIRouter(prefix="/usage", tags=["usage"])

PAGE_MAX = 1000

Key = Annotated[str | None, Query(pattern=TOKEN_ID_PATTERN)]
Groups = Annotated[list[UsageGroup] | None, Query(max_length=8)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next` of a page")]


@router.get("")
def get_usage(  # noqa: PLR0913 - one argument per query parameter
    caller: Reader,
    *,
    project: ProjectQuery = None,
    service: ServiceQuery = None,
    key: Key = None,
    since: MomentQuery = None,
    until: MomentQuery = None,
    by: Groups = None,
) -> UsageView:
    """What requests used, added up by what is named; by day in order, else the dearest first."""
    caller.check_project(project)
    groups = list(dict.fromkeys(by or ()))
    query = UsageQuery(
        project=project or caller.project, service=service, key=key, since=since, until=until
    )
    names = _names(caller)
    sums = caller.parts.store.sum_usage(query, groups)
    return UsageView(
        since=since,
        until=until,
        by=groups,
        sums=[sum_view(each, names) for each in sums],
        total=sum_view(add_up(sums), names),
    )


@router.get("/requests")
def list_usage_requests(  # noqa: PLR0913 - one argument per query parameter
    caller: Reader,
    *,
    project: ProjectQuery = None,
    service: ServiceQuery = None,
    key: Key = None,
    since: MomentQuery = None,
    until: MomentQuery = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> UsagePageView:
    """Requests one by one, in the order of their end."""
    caller.check_project(project)
    query = UsageQuery(
        project=project or caller.project, service=service, key=key, since=since, until=until
    )
    found = caller.parts.store.list_usage(query, limit=limit + 1, after=int(cursor or 0))
    page, more = found[:limit], found[limit:]
    names = _names(caller)
    return UsagePageView(
        requests=[record_view(each, names) for each in page],
        next=str(page[-1].position) if more else None,
    )


def _names(caller: Caller) -> Names:
    """Return what ids stand for, as far as this caller may know."""
    store = caller.parts.store
    return Names(
        cells={each.id: each.name for each in store.list_cells()},
        keys={each.token.id: each.token.name for each in store.list_tokens(caller.project)},
    )
