"""Events: what happened to a service, for ``tram why``. The newest ``EVENTS_KEPT`` are kept."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, delete, insert, select

from tramontane.domain.ids import ServiceId
from tramontane.domain.snapshot import Event
from tramontane.store.part import Part
from tramontane.store.rows import event_from_row
from tramontane.store.tables import EVENTS

EVENTS_KEPT = 200

# Put together once, since a waking request waits for them: see ``store.snapshots``.
_INSERT = insert(EVENTS)
_OLDEST_DROPPED = (
    select(EVENTS.c.id)
    .where(EVENTS.c.service_id == bindparam("of"))
    .order_by(EVENTS.c.id.desc())
    .offset(EVENTS_KEPT)
    .limit(1)
    .scalar_subquery()
)
_DROP_OLDEST = delete(EVENTS).where(
    EVENTS.c.service_id == bindparam("of"), EVENTS.c.id <= _OLDEST_DROPPED
)


class Events(Part):
    """Reading events; they are written with the change that they tell of."""

    def list_events(self, service_id: ServiceId, *, limit: int = EVENTS_KEPT) -> list[Event]:
        """Return the newest ``limit`` events of a service, oldest first."""
        newest = (
            select(EVENTS)
            .where(EVENTS.c.service_id == service_id)
            .order_by(EVENTS.c.id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execute(newest).mappings().all()
        return [event_from_row(row) for row in reversed(rows)]


def add_events(connection: Connection, service_id: ServiceId, events: Iterable[Event]) -> None:
    """Append events of one service and drop its oldest beyond ``EVENTS_KEPT``."""
    rows = [
        {
            "service_id": event.service_id,
            "at": event.at,
            "subject": event.subject,
            "reason": event.reason,
            "message": event.message,
        }
        for event in events
    ]
    if not rows:
        return
    connection.execute(_INSERT, rows)
    connection.execute(_DROP_OLDEST, {"of": service_id})
