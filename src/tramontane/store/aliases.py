"""Aliases: what a user asked for, one row each. Only users write them.

Called by the API, and read by ``reconcile.aliases``. A name means one thing in a project: an alias
or a model service, whichever came first.
"""

from sqlalchemy import Connection, delete, insert, select, update

from tramontane.base.errors import Conflict, InvalidRequest, NotFound
from tramontane.domain.alias import Alias, AliasDefinition
from tramontane.domain.definition import Definition, ServiceKind
from tramontane.store.part import Part, suggest
from tramontane.store.projects import lock_project
from tramontane.store.requests import ALWAYS, Guard, find_result, remember_result
from tramontane.store.rows import ALIAS, alias_from_row, to_json
from tramontane.store.tables import ALIASES, SERVICES


class Aliases(Part):
    """What can be done with aliases."""

    def put_alias(
        self,
        project: str,
        name: str,
        definition: AliasDefinition,
        *,
        now: float,
        guard: Guard = ALWAYS,
    ) -> Alias:
        """Make ``definition`` what the alias means from now on; what it means already is no change.

        Raises ``NotFound`` if there is no such project, ``Conflict`` if a model service has the
        name, ``InvalidRequest`` if the alias names a service that is no model of the project.
        """
        with self._database.write() as connection:
            lock_project(connection, project)
            alias = _find_alias(connection, project, name)
            if find_result(connection, guard.request, now) is not None and alias is not None:
                return alias
            _check_generation(project, name, alias, guard)
            models = _list_models(connection, project)
            if name in models:
                raise Conflict(
                    f"a model service of project {project} is named {name}; choose another name "
                    f"for the alias, or delete the service first: tram delete {name} -p {project}",
                    path="name",
                )
            _check_services(definition, models, project)
            alias = _write_alias(connection, alias, project, name, definition, now)
            remember_result(connection, guard.request, name, now)
            return alias

    def delete_alias(self, project: str, name: str, *, now: float, guard: Guard = ALWAYS) -> None:
        """Forget an alias; raises ``NotFound``."""
        with self._database.write() as connection:
            if find_result(connection, guard.request, now) is not None:
                return
            alias = _find_alias(connection, project, name)
            if alias is None:
                raise _missing_alias(connection, project, name)
            _check_generation(project, name, alias, guard)
            connection.execute(
                delete(ALIASES).where(ALIASES.c.project == project, ALIASES.c.name == name)
            )
            remember_result(connection, guard.request, name, now)

    def read_alias(self, project: str, name: str) -> Alias:
        """Return one alias; raises ``NotFound`` with the nearest name."""
        with self._database.read() as connection:
            alias = _find_alias(connection, project, name)
            if alias is None:
                raise _missing_alias(connection, project, name)
        return alias

    def list_aliases(self, project: str | None = None) -> list[Alias]:
        """Return the aliases of one project, or of all, by name."""
        statement = select(ALIASES).order_by(ALIASES.c.project, ALIASES.c.name)
        if project is not None:
            statement = statement.where(ALIASES.c.project == project)
        with self._database.read() as connection:
            return [alias_from_row(row) for row in connection.execute(statement).mappings()]

    def list_model_services(self, project: str) -> frozenset[str]:
        """Return the names that aliases of a project may lead to."""
        with self._database.read() as connection:
            return _list_models(connection, project)


def check_no_alias(connection: Connection, project: str, name: str, definition: Definition) -> None:
    """Raise ``Conflict`` if a service that would serve a model has the name of an alias."""
    if definition.kind is ServiceKind.MODEL and _find_alias(connection, project, name) is not None:
        raise Conflict(
            f"an alias of project {project} is named {name}; choose another name for the service, "
            f"or delete the alias first: tram aliases delete {name} -p {project}",
            path="name",
        )


def _find_alias(connection: Connection, project: str, name: str) -> Alias | None:
    statement = select(ALIASES).where(ALIASES.c.project == project, ALIASES.c.name == name)
    row = connection.execute(statement).mappings().first()
    return None if row is None else alias_from_row(row)


def _missing_alias(connection: Connection, project: str, name: str) -> NotFound:
    names = select(ALIASES.c.name).where(ALIASES.c.project == project)
    known = connection.execute(names).scalars()
    return NotFound(f"no alias is named {name} in project {project}{suggest(name, known)}")


def _list_models(connection: Connection, project: str) -> frozenset[str]:
    statement = select(SERVICES.c.name).where(
        SERVICES.c.project == project,
        SERVICES.c.kind == ServiceKind.MODEL.value,
        SERVICES.c.deleted.is_(False),
    )
    return frozenset(connection.execute(statement).scalars())


def _check_services(definition: AliasDefinition, models: frozenset[str], project: str) -> None:
    named = [
        *((f"targets.{at}.service", each.service) for at, each in enumerate(definition.targets)),
        *((f"canaries.{at}.service", each.service) for at, each in enumerate(definition.canaries)),
        *((f"fallbacks.{at}", each) for at, each in enumerate(definition.fallbacks)),
    ]
    for path, service in named:
        if service not in models:
            raise InvalidRequest(
                f"{path}: no model service is named {service} in project {project}"
                f"{suggest(service, models)}",
                path=path,
            )


def _check_generation(project: str, name: str, alias: Alias | None, guard: Guard) -> None:
    expected, actual = guard.expected_generation, 0 if alias is None else alias.generation
    if expected is not None and expected != actual:
        raise Conflict(
            f"alias {name} of project {project} is at generation {actual}, not {expected}; "
            "read it again and repeat the change",
            path="If-Match",
        )


def _write_alias(
    connection: Connection,
    before: Alias | None,
    project: str,
    name: str,
    definition: AliasDefinition,
    now: float,
) -> Alias:
    if before is not None and before.definition == definition:
        return before
    alias = Alias(
        project=project,
        name=name,
        definition=definition,
        generation=1 if before is None else before.generation + 1,
        created_at=now if before is None else before.created_at,
    )
    values = {"definition": to_json(ALIAS, definition), "generation": alias.generation}
    if before is None:
        row = {"project": project, "name": name, "created_at": now, **values}
        connection.execute(insert(ALIASES).values(row))
    else:
        same = (ALIASES.c.project == project) & (ALIASES.c.name == name)
        connection.execute(update(ALIASES).where(same).values(values))
    return alias
