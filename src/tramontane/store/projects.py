"""Projects: workspaces of services. They come into being with their first service."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from tramontane.base.errors import Conflict, NotFound
from tramontane.domain.project import Project
from tramontane.store.database import Database
from tramontane.store.part import Part, suggest
from tramontane.store.rows import NAMES, project_from_row, to_json
from tramontane.store.tables import ALIASES, PROJECTS, SERVICES


@dataclass(frozen=True, kw_only=True)
class ProjectRecord:
    """A project and how many services it has."""

    project: Project
    services: int


class Projects(Part):
    """What can be done with projects."""

    def ensure_project(self, name: str, *, now: float) -> Project:
        """Return the project of this name, new if there was none."""
        with self._database.write() as connection:
            insert_project(self._database, connection, name, now)
            return lock_project(connection, name)

    def list_projects(self) -> list[ProjectRecord]:
        """Return every project, by name."""
        with self._database.read() as connection:
            return _read_records(connection)

    def read_project(self, name: str) -> ProjectRecord:
        """Return one project; raises ``NotFound``."""
        with self._database.read() as connection:
            found = {each.project.name: each for each in _read_records(connection)}
        if name not in found:
            raise missing_project(name, found)
        return found[name]

    def set_project_policy(self, name: str, policy: tuple[str, ...], *, now: float) -> Project:
        """Replace the presets that all services of the project must satisfy.

        The project is made if there was none. Every service of it gets a new generation, because
        decisions that were made under the old policy must not be applied any more.
        """
        with self._database.write() as connection:
            insert_project(self._database, connection, name, now)
            project = lock_project(connection, name)
            if project.policy == policy:
                return project
            connection.execute(
                update(PROJECTS)
                .where(PROJECTS.c.name == name)
                .values(policy=to_json(NAMES, policy))
            )
            connection.execute(
                update(SERVICES)
                .where(SERVICES.c.project == name)
                .values(generation=SERVICES.c.generation + 1)
            )
            return lock_project(connection, name)

    def delete_project(self, name: str) -> None:
        """Remove an empty project; raises ``NotFound``, or ``Conflict`` if it has services."""
        with self._database.write() as connection:
            project = lock_project(connection, name)
            names = connection.execute(
                select(SERVICES.c.name).where(SERVICES.c.project == project.name)
            ).scalars()
            left = sorted(names)
            if left:
                raise Conflict(
                    f"project {name} still has services ({', '.join(left[:5])}"
                    f"{' …' if len(left) > 5 else ''}); delete them first"
                )
            # Without models they lead nowhere.
            connection.execute(delete(ALIASES).where(ALIASES.c.project == name))
            connection.execute(delete(PROJECTS).where(PROJECTS.c.name == name))


def insert_project(database: Database, connection: Connection, name: str, now: float) -> None:
    """Make the project unless there is one."""
    connection.execute(
        database.insert(PROJECTS)
        .values(name=name, policy=to_json(NAMES, ()), created_at=now)
        .on_conflict_do_nothing()
    )


def lock_project(connection: Connection, name: str) -> Project:
    """Return the project, locked until the transaction ends; raises ``NotFound``."""
    row = (
        connection.execute(select(PROJECTS).where(PROJECTS.c.name == name).with_for_update())
        .mappings()
        .first()
    )
    if row is None:
        raise missing_project(name, connection.execute(select(PROJECTS.c.name)).scalars())
    return project_from_row(row)


def missing_project(name: str, known: Iterable[str]) -> NotFound:
    """Return the error for a project that does not exist, with the nearest one that does."""
    return NotFound(f"no project is named {name}{suggest(name, known)}")


def _read_records(connection: Connection) -> list[ProjectRecord]:
    services = select(SERVICES.c.project, func.count().label("services")).group_by(
        SERVICES.c.project
    )
    counts = {row["project"]: row["services"] for row in connection.execute(services).mappings()}
    rows = connection.execute(select(PROJECTS).order_by(PROJECTS.c.name)).mappings()
    projects = [project_from_row(row) for row in rows]
    return [ProjectRecord(project=each, services=counts.get(each.name, 0)) for each in projects]
