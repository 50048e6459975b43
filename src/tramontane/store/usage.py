"""The ledger of inference requests: every one that reached an engine, once.

``reconcile.ledger`` copies instances' books into it; the API reads it. How far a book has been
read moves in the same transaction as what was read, so that no kill makes a record be lost or be
there twice.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select

from tramontane.domain.usage import RequestEnd, Usage, UsageRecord
from tramontane.domain.usage_totals import UsageTotals
from tramontane.store.database import Turn
from tramontane.store.part import Part
from tramontane.store.rows import to_json
from tramontane.store.tables import BOOKS, USAGE, USAGE_TOTALS

GROUPS = ("project", "model", "key", "service", "cell", "api", "digest", "day")
"""What sums can be made by: columns, and the day of arrival in UTC."""
TOTALS: TypeAdapter[UsageTotals] = TypeAdapter(UsageTotals)


@dataclass(frozen=True, kw_only=True)
class BookPosition:
    """How far an instance's book has been read."""

    position: int = 0
    """Bytes of its lines."""
    closed: bool = False
    """All of it is in the ledger, and nobody will write more."""


@dataclass(frozen=True, kw_only=True)
class UsageQuery:
    """Which records are meant; None: any."""

    project: str | None = None
    service: str | None = None
    key: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, kw_only=True)
class UsageSum:
    """The records of one group, added up."""

    group: dict[str, str]
    requests: int
    usage: Usage
    cost: int
    """In billionths of a euro."""
    first_tokens: int
    """Requests that had a first token."""
    first_token_s: float | None
    """Mean over these."""
    not_finished: int
    """Requests that were aborted, cut or refused."""


class UsageLedger(Part):
    """Writing and adding up what requests used."""

    def get_book_position(self, instance: str) -> BookPosition:
        """Return how far an instance's book has been read."""
        with self._database.read() as connection:
            row = connection.execute(select(BOOKS).where(BOOKS.c.instance == instance)).first()
        return BookPosition(position=row.position, closed=row.closed) if row else BookPosition()

    def add_usage(
        self, instance: str, records: Sequence[UsageRecord], before: int, after: BookPosition
    ) -> bool:
        """Take over what stands in a book between ``before`` and ``after``.

        Returns False, and changes nothing, if it was read from ``before`` on by somebody else.
        """
        with self._database.write() as connection:
            known = connection.execute(
                select(BOOKS.c.position).where(BOOKS.c.instance == instance).with_for_update()
            ).scalar()
            if (known or 0) != before:
                return False
            moved = {"position": after.position, "closed": after.closed}
            connection.execute(
                self._database.insert(BOOKS)
                .values(instance=instance, **moved)
                .on_conflict_do_update(index_elements=["instance"], set_=moved)
            )
            if records:
                # Positions become visible in their order only if one writer has them at a time.
                self._database.take_turn(connection, Turn.LEDGER)
                newest = connection.execute(select(func.max(USAGE.c.position))).scalar() or 0
                rows = [_to_row(each, newest + i) for i, each in enumerate(records, 1)]
                connection.execute(insert(USAGE), rows)
                self._add_to_totals(connection, records)
        return True

    def _add_to_totals(self, connection: Connection, records: Sequence[UsageRecord]) -> None:
        """Count what has come; the turn of the ledger has to be ours."""
        # A book is of one instance, so there is one service as a rule.
        for project, service in {(each.project, each.service) for each in records}:
            key = {"project": project, "service": service}
            text = connection.execute(select(USAGE_TOTALS.c.totals).filter_by(**key)).scalar()
            totals = TOTALS.validate_json(text) if text else UsageTotals()
            totals.add(r for r in records if (r.project, r.service) == (project, service))
            changed = {"totals": to_json(TOTALS, totals)}
            connection.execute(
                self._database.insert(USAGE_TOTALS)
                .values(**key, **changed)
                .on_conflict_do_update(index_elements=["project", "service"], set_=changed)
            )

    def read_usage_totals(self, project: str | None = None) -> dict[tuple[str, str], UsageTotals]:
        """Return what the services of one project, or of all, have used since there is a ledger.

        Never less than before, whatever was restarted; by project and service.
        """
        statement = select(USAGE_TOTALS).order_by(USAGE_TOTALS.c.project, USAGE_TOTALS.c.service)
        if project is not None:
            statement = statement.where(USAGE_TOTALS.c.project == project)
        with self._database.read() as connection:
            return {
                (row.project, row.service): TOTALS.validate_json(row.totals)
                for row in connection.execute(statement)
            }

    def forget_book(self, instance: str) -> None:
        """Forget how far a book was read: its files are gone."""
        with self._database.observe() as connection:
            connection.execute(delete(BOOKS).where(BOOKS.c.instance == instance))

    def list_closed_books(self) -> list[str]:
        """Return the instances whose books are read to their end and not forgotten yet."""
        with self._database.read() as connection:
            return list(
                connection.execute(select(BOOKS.c.instance).where(BOOKS.c.closed)).scalars()
            )

    def list_usage(self, query: UsageQuery, *, limit: int, after: int = 0) -> list[UsageRecord]:
        """Return records in the order of their coming, from behind the position ``after``."""
        statement = _where(select(USAGE), query).where(USAGE.c.position > after)
        statement = statement.order_by(USAGE.c.position)
        with self._database.read() as connection:
            rows = connection.execute(statement.limit(limit)).mappings().all()
        return [_from_row(row) for row in rows]

    def read_newest_position(self) -> int:
        """Return the position of the ledger's last line, 0 if there is none."""
        with self._database.read() as connection:
            return connection.execute(select(func.max(USAGE.c.position))).scalar() or 0

    def sum_costs(self, keys: Collection[str], since: float) -> dict[str, int]:
        """Return what each of these keys has spent, in billionths of a euro."""
        statement = (
            select(USAGE.c.key, func.sum(USAGE.c.cost))
            .where(USAGE.c.key.in_(keys), USAGE.c.at >= since)
            .group_by(USAGE.c.key)
        )
        with self._database.read() as connection:
            return {key: int(cost) for key, cost in connection.execute(statement)}

    def sum_usage(self, query: UsageQuery, by: Sequence[str]) -> list[UsageSum]:
        """Return sums by ``by``, of ``GROUPS``: days in order, then the dearest and largest."""
        columns = {name: USAGE.c[name] for name in by if name != "day"}
        day = self._database.day_of(USAGE.c.at).label("day")
        groups = [columns.get(name, day) for name in by]
        completion = func.coalesce(func.sum(USAGE.c.completion_tokens), 0).label("completion")
        cost = func.coalesce(func.sum(USAGE.c.cost), 0).label("cost")
        statement = select(
            *groups,
            func.count().label("requests"),
            func.coalesce(func.sum(USAGE.c.prompt_tokens), 0).label("prompt"),
            completion,
            func.coalesce(func.sum(USAGE.c.cached_tokens), 0).label("cached"),
            cost,
            func.count(USAGE.c.first_token_s).label("first_tokens"),
            func.avg(USAGE.c.first_token_s).label("first"),
            func.count().filter(USAGE.c.end != RequestEnd.FINISHED.value).label("not_finished"),
        )
        statement = _where(statement, query).group_by(*groups)
        days = [day] if "day" in by else []
        statement = statement.order_by(*days, cost.desc(), completion.desc(), *groups)
        with self._database.read() as connection:
            rows = connection.execute(statement).mappings().all()
        return [_to_sum(row, by) for row in rows if row["requests"]]


def _where(statement: Select[Any], query: UsageQuery) -> Select[Any]:
    for name in ("project", "service", "key"):
        value: str | None = getattr(query, name)
        if value is not None:
            statement = statement.where(USAGE.c[name] == value)
    if query.since is not None:
        statement = statement.where(USAGE.c.at >= query.since)
    if query.until is not None:
        statement = statement.where(USAGE.c.at < query.until)
    return statement


def _to_row(record: UsageRecord, position: int) -> dict[str, Any]:
    values = asdict(record)
    return {**values, **values.pop("usage"), "end": record.end.value, "position": position}


def _from_row(row: RowMapping) -> UsageRecord:
    values = dict(row)
    usage = Usage(
        **{
            name: values.pop(name)
            for name in ("prompt_tokens", "completion_tokens", "cached_tokens")
        }
    )
    values["end"] = RequestEnd(values["end"])
    return UsageRecord(**values, usage=usage)


def _to_sum(row: RowMapping, by: Sequence[str]) -> UsageSum:
    return UsageSum(
        group={name: row[name] for name in by},
        requests=row["requests"],
        usage=Usage(
            prompt_tokens=int(row["prompt"]),
            completion_tokens=int(row["completion"]),
            cached_tokens=int(row["cached"]),
        ),
        cost=int(row["cost"]),
        first_tokens=row["first_tokens"],
        first_token_s=None if row["first"] is None else float(row["first"]),
        not_finished=row["not_finished"],
    )
