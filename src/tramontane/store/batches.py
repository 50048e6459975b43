"""Rows of batches: what was asked for, and how far it is.

Users make and cancel batches; all else is observed. Requests and results are files; their counts
here follow the files (``store.results``).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, delete, insert, select, update

from tramontane.base.errors import Conflict, InvalidRequest, NotFound
from tramontane.domain.batch import (
    BATCH_OVER,
    BATCH_TRANSITIONS,
    Batch,
    BatchError,
    BatchStatus,
)
from tramontane.domain.transitions import leads_to
from tramontane.store.files import OVER_STATUSES
from tramontane.store.paging import Page, read_page
from tramontane.store.part import Part
from tramontane.store.projects import lock_project
from tramontane.store.rows import NAMES, Row, to_json
from tramontane.store.tables import BATCHES, FILES

METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
MOMENTS: TypeAdapter[dict[BatchStatus, float]] = TypeAdapter(dict[BatchStatus, float])
ERRORS: TypeAdapter[tuple[BatchError, ...]] = TypeAdapter(tuple[BatchError, ...])


@dataclass(frozen=True, kw_only=True)
class BatchFilter:
    """Which batches are wanted; None: all."""

    statuses: Collection[BatchStatus] | None = None
    model: str | None = None
    key_id: str | None = None
    created_after: float | None = None


ALL = BatchFilter()


@dataclass(frozen=True, kw_only=True)
class BatchPage:
    """A part of a listing, and how long all of it is."""

    batches: tuple[Batch, ...]
    more: bool
    total: int


class Batches(Part):
    """What can be done with batches."""

    def add_batch(self, batch: Batch) -> None:
        """Keep a new batch; raises ``InvalidRequest`` if a file of its requests is not there."""
        with self._database.write() as connection:
            lock_project(connection, batch.project)
            found = connection.execute(
                select(FILES.c.id).where(
                    FILES.c.project == batch.project, FILES.c.id.in_(batch.input_files)
                )
            ).scalars()
            missing = sorted(set(batch.input_files) - set(found))
            if missing:
                raise InvalidRequest(f"there is no file {missing[0]} in project {batch.project}")
            connection.execute(insert(BATCHES).values(_to_row(batch)))

    def read_batch(self, project: str, batch_id: str) -> Batch:
        """Return one batch of a project; raises ``NotFound``."""
        batch = self.find_batch(batch_id)
        if batch is None or batch.project != project:
            raise _missing(project, batch_id)
        return batch

    def find_batch(self, batch_id: str) -> Batch | None:
        """Return one batch, or None if it is gone."""
        with self._database.read() as connection:
            row = (
                connection.execute(select(BATCHES).where(BATCHES.c.id == batch_id))
                .mappings()
                .first()
            )
        return None if row is None else _from_row(row)

    def list_batches(self, project: str, page: Page, wanted: BatchFilter = ALL) -> BatchPage:
        """Return a part of a project's batches; raises ``NotFound`` for an unknown ``after``."""
        condition = BATCHES.c.project == project
        if wanted.statuses is not None:
            condition &= BATCHES.c.status.in_([each.value for each in wanted.statuses])
        if wanted.model is not None:
            condition &= BATCHES.c.model == wanted.model
        if wanted.key_id is not None:
            condition &= BATCHES.c.key_id == wanted.key_id
        if wanted.created_after is not None:
            condition &= BATCHES.c.created_at > wanted.created_after
        with self._database.read() as connection:
            found = read_page(connection, BATCHES, condition, page)
        batches = tuple(_from_row(row) for row in found.rows)
        return BatchPage(batches=batches, more=found.more, total=found.total)

    def list_open_batches(self) -> list[str]:
        """Return the ids of all batches that are not over, oldest first."""
        statement = (
            select(BATCHES.c.id)
            .where(BATCHES.c.status.not_in(OVER_STATUSES))
            .order_by(BATCHES.c.created_at, BATCHES.c.id)
        )
        with self._database.read() as connection:
            return list(connection.execute(statement).scalars())

    def cancel_batch(self, project: str, batch_id: str, *, now: float) -> Batch:
        """Ask for the end of a batch, which may have been asked for before.

        Raises ``NotFound``, or ``Conflict`` if it is ending or over already in another way.
        """
        ending = {BatchStatus.CANCELLING, BatchStatus.CANCELLED}
        with self._database.write() as connection:
            batch = _lock(connection, batch_id)
            if batch is None or batch.project != project:
                raise _missing(project, batch_id)
            if batch.status in ending:
                return batch
            if BatchStatus.CANCELLING not in BATCH_TRANSITIONS[batch.status]:
                raise Conflict(f"batch {batch_id} is {batch.status} and cannot be cancelled")
            return _change(connection, batch, BatchStatus.CANCELLING, now, {})

    def delete_batch(self, project: str, batch_id: str) -> None:
        """Forget a batch, but none of its files; ``NotFound``, or ``Conflict`` until it is over."""
        with self._database.write() as connection:
            batch = _lock(connection, batch_id)
            if batch is None or batch.project != project:
                raise _missing(project, batch_id)
            if batch.status not in BATCH_OVER:
                raise Conflict(f"batch {batch_id} is {batch.status}; cancel it first")
            connection.execute(delete(BATCHES).where(BATCHES.c.id == batch_id))

    def advance_batch(
        self,
        batch: Batch,
        status: BatchStatus,
        now: float,
        *,
        errors: Sequence[BatchError] = (),
        counts: Mapping[str, int] | None = None,
    ) -> bool:
        """Write the next status; False if the batch is gone or somebody else changed its status."""
        with self._database.observe() as connection:
            found = _lock(connection, batch.id)
            if found is None or found.status is not batch.status:
                return False
            values: dict[str, Any] = dict(counts or {})
            if errors:
                values["errors"] = to_json(ERRORS, (*found.errors, *errors))
            _change(connection, found, status, now, values)
        return True

    def count_results(self, batch_id: str, succeeded: int, failed: int) -> None:
        """Write how many results there are; counts that come late change nothing back."""
        with self._database.observe() as connection:
            connection.execute(
                update(BATCHES)
                .where(
                    BATCHES.c.id == batch_id,
                    BATCHES.c.succeeded + BATCHES.c.failed <= succeeded + failed,
                )
                .values(succeeded=succeeded, failed=failed)
            )


def _lock(connection: Connection, batch_id: str) -> Batch | None:
    statement = select(BATCHES).where(BATCHES.c.id == batch_id).with_for_update()
    row = connection.execute(statement).mappings().first()
    return None if row is None else _from_row(row)


def _change(
    connection: Connection,
    batch: Batch,
    status: BatchStatus,
    now: float,
    values: Mapping[str, Any],
) -> Batch:
    assert leads_to(BATCH_TRANSITIONS, batch.status, status), (
        f"batch {batch.id} may not go from {batch.status} to {status}"
    )
    moments = {**batch.moments, status: now}
    row = connection.execute(
        update(BATCHES)
        .where(BATCHES.c.id == batch.id)
        .values(status=status.value, moments=to_json(MOMENTS, moments), **values)
        .returning(BATCHES)
    )
    return _from_row(row.mappings().one())


def _to_row(batch: Batch) -> dict[str, Any]:
    return {
        **asdict(batch),
        "status": batch.status.value,
        "input_files": to_json(NAMES, batch.input_files),
        "metadata": to_json(METADATA, batch.metadata),
        "moments": to_json(MOMENTS, batch.moments),
        "errors": to_json(ERRORS, batch.errors),
    }


def _from_row(row: Row) -> Batch:
    values: dict[str, Any] = dict(row)
    values["status"] = BatchStatus(values["status"])
    values["input_files"] = NAMES.validate_json(values["input_files"])
    values["metadata"] = METADATA.validate_json(values["metadata"])
    values["moments"] = MOMENTS.validate_json(values["moments"])
    values["errors"] = ERRORS.validate_json(values["errors"])
    return Batch(**values)


def _missing(project: str, batch_id: str) -> NotFound:
    return NotFound(f"there is no batch {batch_id} in project {project}")
