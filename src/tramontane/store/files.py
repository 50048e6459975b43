"""Rows of files: what a project has, how much that is, and what has expired.

The content of a file is in its place (``store.contents``) before its row is written, and goes
after its row is gone: a row always stands for a whole file, whatever is killed when.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, or_, select, tuple_

from tramontane.base.errors import NotFound
from tramontane.domain.files import ProjectFile
from tramontane.store.part import Part
from tramontane.store.projects import insert_project, lock_project
from tramontane.store.tables import FILES


@dataclass(frozen=True, kw_only=True)
class Page:
    """Which part of a listing is wanted: behind an object, or so many objects further on."""

    limit: int
    after: str | None = None
    offset: int = 0
    newest_first: bool = True


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
        place = tuple_(FILES.c.created_at, FILES.c.id)
        statement = select(FILES).where(wanted)
        with self._database.read() as connection:
            if page.after is not None:
                last = self._place(connection, project, page.after)
                statement = statement.where(place < last if page.newest_first else place > last)
            order = (
                (FILES.c.created_at.desc(), FILES.c.id.desc())
                if page.newest_first
                else (FILES.c.created_at, FILES.c.id)
            )
            rows = connection.execute(
                statement.order_by(*order).offset(page.offset).limit(page.limit + 1)
            ).mappings()
            files = [ProjectFile(**dict(row)) for row in rows]
            total = connection.execute(select(func.count()).select_from(FILES).where(wanted))
            return FilePage(
                files=tuple(files[: page.limit]),
                more=len(files) > page.limit,
                total=total.scalar_one(),
            )

    def sum_file_bytes(self, project: str) -> int:
        """Return what the files of a project take up."""
        with self._database.read() as connection:
            return _sum_bytes(connection, project)

    def delete_file(self, project: str, file_id: str) -> None:
        """Forget a file; raises ``NotFound``. Its content may go once this returns."""
        with self._database.write() as connection:
            result = connection.execute(
                delete(FILES).where(FILES.c.id == file_id, FILES.c.project == project)
            )
        if not result.rowcount:
            raise NotFound(f"there is no file {file_id} in project {project}")

    def forget_expired_files(self, now: float) -> int:
        """Forget every file that has expired, and return how many those were."""
        with self._database.observe() as connection:
            result = connection.execute(delete(FILES).where(~_is_there(now)))
        return result.rowcount

    def list_known_files(self, file_ids: Collection[str]) -> frozenset[str]:
        """Return those of these ids that rows name."""
        with self._database.read() as connection:
            found = connection.execute(select(FILES.c.id).where(FILES.c.id.in_(file_ids)))
            return frozenset(found.scalars())

    @staticmethod
    def _place(connection: Connection, project: str, file_id: str) -> object:
        row = connection.execute(
            select(FILES.c.created_at, FILES.c.id).where(
                FILES.c.id == file_id, FILES.c.project == project
            )
        ).first()
        if row is None:
            raise NotFound(f"there is no file {file_id} in project {project} to go on after")
        return tuple_(row.created_at, row.id)


def _is_there(now: float) -> ColumnElement[bool]:
    return or_(FILES.c.expires_at.is_(None), FILES.c.expires_at > now)


def _sum_bytes(connection: Connection, project: str) -> int:
    statement = select(func.sum(FILES.c.size_bytes)).where(FILES.c.project == project)
    return int(connection.execute(statement).scalar() or 0)
