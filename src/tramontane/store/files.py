"""Rows of files: what a project has, how much that is, and what has expired.

The content of a file is in its place (``store.contents``) before its row is written, and goes
after its row is gone: a row always stands for a whole file, whatever is killed when.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, or_, select

from tramontane.base.errors import Conflict, NotFound
from tramontane.domain.batch import BATCH_OVER
from tramontane.domain.files import ProjectFile
from tramontane.store.paging import Page, read_page
from tramontane.store.part import Part
from tramontane.store.projects import insert_project, lock_project
from tramontane.store.rows import NAMES
from tramontane.store.tables import BATCHES, FILES

OVER_STATUSES = tuple(sorted(status.value for status in BATCH_OVER))


@dataclass(frozen=True, kw_only=True)
class FilePage:
    """A part of a listing, and how long all of it is."""

    files: tuple[ProjectFile, ...]
    more: bool
    total: int


class Files(Part):
    """What can be done with files."""

    def add_file(self, file: ProjectFile, *, project_bytes_max: int | None = None) -> bool:
        """Note that a file's content is in its place; False if the project has no room for it.

        The project is made if there was none. A file that is there already is left as it is.
        """
        with self._database.write() as connection:
            insert_project(self._database, connection, file.project, file.created_at)
            # Locked, so that two uploads at once see each other.
            lock_project(connection, file.project)
            used = _sum_bytes(connection, file.project)
            if project_bytes_max is not None and used + file.size_bytes > project_bytes_max:
                return False
            connection.execute(
                self._database.insert(FILES).values(**asdict(file)).on_conflict_do_nothing()
            )
        return True

    def read_file(self, project: str, file_id: str, *, now: float) -> ProjectFile:
        """Return one file of a project; raises ``NotFound``."""
        statement = select(FILES).where(
            FILES.c.id == file_id, FILES.c.project == project, _is_there(now)
        )
        with self._database.read() as connection:
            row = connection.execute(statement).mappings().first()
        if row is None:
            raise NotFound(f"there is no file {file_id} in project {project}")
        return ProjectFile(**dict(row))

    def list_files(
        self, project: str, page: Page, *, now: float, purpose: str | None = None
    ) -> FilePage:
        """Return a part of a project's files; raises ``NotFound`` for an unknown ``after``."""
        wanted = (FILES.c.project == project) & _is_there(now)
        if purpose is not None:
            wanted &= FILES.c.purpose == purpose
        with self._database.read() as connection:
            found = read_page(connection, FILES, wanted, page)
        files = tuple(ProjectFile(**dict(row)) for row in found.rows)
        return FilePage(files=files, more=found.more, total=found.total)

    def sum_file_bytes(self, project: str) -> int:
        """Return what the files of a project take up."""
        with self._database.read() as connection:
            return _sum_bytes(connection, project)

    def delete_file(self, project: str, file_id: str) -> None:
        """Forget a file; its content may go once this returns.

        Raises ``NotFound``, or ``Conflict`` while a batch still needs it.
        """
        with self._database.write() as connection:
            # As ``add_batch`` does: whoever comes second sees the other.
            lock_project(connection, project)
            user = find_needed_files(connection).get(file_id)
            if user is not None:
                raise Conflict(f"file {file_id} is needed by batch {user}; cancel that first")
            result = connection.execute(
                delete(FILES).where(FILES.c.id == file_id, FILES.c.project == project)
            )
        if not result.rowcount:
            raise NotFound(f"there is no file {file_id} in project {project}")

    def forget_expired_files(self, now: float) -> int:
        """Forget what has expired and no batch needs, and return how many files those were."""
        with self._database.observe() as connection:
            needed = list(find_needed_files(connection))
            result = connection.execute(
                delete(FILES).where(~_is_there(now), FILES.c.id.not_in(needed))
            )
        return result.rowcount

    def list_known_files(self, file_ids: Collection[str]) -> frozenset[str]:
        """Return those of these ids that rows name, those that batches write included."""
        with self._database.read() as connection:
            found = connection.execute(select(FILES.c.id).where(FILES.c.id.in_(file_ids)))
            return frozenset(found.scalars()) | find_needed_files(connection).keys()


def find_needed_files(connection: Connection) -> dict[str, str]:
    """Return every file that a batch reads or writes until it is over, and which batch."""
    statement = select(
        BATCHES.c.id, BATCHES.c.input_files, BATCHES.c.output_file, BATCHES.c.error_file
    ).where(BATCHES.c.status.not_in(OVER_STATUSES))
    return {
        file_id: row.id
        for row in connection.execute(statement)
        for file_id in (*NAMES.validate_json(row.input_files), row.output_file, row.error_file)
    }


def _is_there(now: float) -> ColumnElement[bool]:
    return or_(FILES.c.expires_at.is_(None), FILES.c.expires_at > now)


def _sum_bytes(connection: Connection, project: str) -> int:
    statement = select(func.sum(FILES.c.size_bytes)).where(FILES.c.project == project)
    return int(connection.execute(statement).scalar() or 0)
