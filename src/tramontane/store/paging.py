"""One part of a listing, newest or oldest first: the same for all that is listed by parts."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, func, select, tuple_

from tramontane.base.errors import NotFound
from tramontane.store.rows import Row


@dataclass(frozen=True, kw_only=True)
class Page:
    """Which part of a listing is wanted: behind an object, or so many objects further on."""

    limit: int
    after: str | None = None
    offset: int = 0
    newest_first: bool = True


@dataclass(frozen=True, kw_only=True)
class PageRows:
    """A part of a listing, whether more follows, and how long all of it is."""

    rows: tuple[Row, ...]
    more: bool
    total: int


def read_page(
    connection: Connection, table: Table, wanted: ColumnElement[bool], page: Page
) -> PageRows:
    """Return a part of what is wanted of a table with ``id``, ``project`` and ``created_at``.

    Raises ``NotFound`` if there is nothing of the id that it is to go on after.
    """
    statement = select(table).where(wanted)
    place = tuple_(table.c.created_at, table.c.id)
    if page.after is not None:
        last = connection.execute(
            select(table.c.created_at, table.c.id).where(table.c.id == page.after, wanted)
        ).first()
        if last is None:
            raise NotFound(f"there is no {page.after} to go on after")
        mark = tuple_(last.created_at, last.id)
        statement = statement.where(place < mark if page.newest_first else place > mark)
    order = (table.c.created_at, table.c.id)
    if page.newest_first:
        order = tuple(column.desc() for column in order)
    rows = connection.execute(
        statement.order_by(*order).offset(page.offset).limit(page.limit + 1)
    ).mappings()
    found = [dict(row) for row in rows]
    total = connection.execute(select(func.count()).select_from(table).where(wanted)).scalar_one()
    return PageRows(rows=tuple(found[: page.limit]), more=len(found) > page.limit, total=total)
