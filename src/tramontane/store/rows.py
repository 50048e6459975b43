"""Between rows and the domain's values; every part of the store reads and writes through these.

Definitions and artifacts are kept as JSON of their dataclasses. Fields that a newer version adds
have defaults, and fields that an older version does not know are ignored: old rows stay readable.
"""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from tramontane.domain.alias import Alias, AliasDefinition
from tramontane.domain.artifact import Artifact
from tramontane.domain.cell import Capacity, Cell, Fact
from tramontane.domain.definition import Definition, DirectorySource, ServiceKind
from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.limits import Limits
from tramontane.domain.project import Project
from tramontane.domain.service import Service, ServiceStatus
from tramontane.domain.snapshot import Event
from tramontane.domain.token import Scope, Token

Row = Mapping[Any, Any]

DEFINITION: TypeAdapter[Definition] = TypeAdapter(Definition)
ALIAS: TypeAdapter[AliasDefinition] = TypeAdapter(AliasDefinition)
ARTIFACT: TypeAdapter[Artifact] = TypeAdapter(Artifact)
FACTS: TypeAdapter[tuple[Fact, ...]] = TypeAdapter(tuple[Fact, ...])
NAMES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])
LIMITS: TypeAdapter[Limits] = TypeAdapter(Limits)


def to_json(adapter: TypeAdapter[Any], value: object) -> str:
    """Return ``value`` as the text that ``adapter`` reads back."""
    return adapter.dump_json(value).decode()


def definition_from_json(text: str) -> Definition:
    """Return a stored definition; the error of a damaged one repeats nothing of it."""
    try:
        return DEFINITION.validate_json(text)
    except ValidationError as error:
        # Its own text would quote the values of variables, and errors end in logs.
        damaged = [".".join(map(str, each["loc"])) for each in error.errors(include_input=False)]
        raise ValueError(f"a stored definition cannot be read at: {', '.join(damaged)}") from None


def project_from_row(row: Row) -> Project:
    """Return the value of a row of ``projects``."""
    return Project(
        name=row["name"], policy=NAMES.validate_json(row["policy"]), created_at=row["created_at"]
    )


def service_from_row(row: Row) -> Service:
    """Return the value of a row of ``services``."""
    values = _named(row)
    values["kind"] = ServiceKind(values["kind"])
    values["status"] = ServiceStatus(values["status"])
    return Service(**values)


def deployment_from_row(row: Row) -> Deployment:
    """Return the value of a row of ``deployments``."""
    values = _named(row)
    for name in ("was_healthy", "source_digest", "artifact_digest"):
        del values[name]
    values["definition"] = definition_from_json(values["definition"])
    artifact = values["artifact"]
    values["artifact"] = None if artifact is None else ARTIFACT.validate_json(artifact)
    values["status"] = DeploymentStatus(values["status"])
    return Deployment(**values)


def deployment_to_row(deployment: Deployment) -> dict[str, Any]:
    """Return the columns of a new row of ``deployments``."""
    artifact = deployment.artifact
    return {
        "id": deployment.id,
        "service_id": deployment.service_id,
        "number": deployment.number,
        "definition": to_json(DEFINITION, deployment.definition),
        "created_at": deployment.created_at,
        **artifact_to_row(artifact),
        "status": deployment.status.value,
        "reason": deployment.reason,
        "message": deployment.message,
        "start_failures": deployment.start_failures,
        "was_healthy": deployment.status is DeploymentStatus.HEALTHY,
        "source_digest": source_digest_of(deployment.definition),
    }


def artifact_to_row(artifact: Artifact | None) -> dict[str, Any]:
    """Return the columns of ``deployments`` that tell of the artifact."""
    if artifact is None:
        return {"artifact": None, "artifact_digest": None}
    return {"artifact": to_json(ARTIFACT, artifact), "artifact_digest": artifact.digest}


def source_digest_of(definition: Definition) -> str | None:
    """Return which archive a deployment is built from, if it is from one."""
    source = definition.source
    return source.digest if isinstance(source, DirectorySource) else None


def instance_from_row(row: Row) -> Instance:
    """Return the value of a row of ``instances``."""
    values = _named(row)
    values["status"] = InstanceStatus(values["status"])
    return Instance(**values)


def alias_from_row(row: Row) -> Alias:
    """Return the value of a row of ``aliases``."""
    values = _named(row)
    values["definition"] = ALIAS.validate_json(values["definition"])
    return Alias(**values)


def cell_from_row(row: Row) -> Cell:
    """Return the value of a row of ``cells``."""
    return Cell(
        id=row["id"],
        name=row["name"],
        runtime=row["runtime"],
        isolation=row["isolation"],
        capacity=Capacity(memory_bytes=row["memory_bytes"], cpus=row["cpus"]),
        facts=FACTS.validate_json(row["facts"]),
        reachable=row["reachable"],
    )


def cell_to_row(cell: Cell) -> dict[str, Any]:
    """Return the columns of a row of ``cells``."""
    return {
        "id": cell.id,
        "name": cell.name,
        "runtime": cell.runtime,
        "isolation": cell.isolation,
        "memory_bytes": cell.capacity.memory_bytes,
        "cpus": cell.capacity.cpus,
        "facts": to_json(FACTS, cell.facts),
        "reachable": cell.reachable,
    }


def token_from_row(row: Row) -> Token:
    """Return the value of a row of ``tokens``."""
    values = _named(row)
    del values["last_used_at"]
    values["scope"] = Scope(values["scope"])
    models = values["models"]
    values["models"] = None if models is None else NAMES.validate_json(models)
    limits = values["limits"]
    values["limits"] = None if limits is None else LIMITS.validate_json(limits)
    return Token(**values)


def event_from_row(row: Row) -> Event:
    """Return the value of a row of ``events``."""
    values = _named(row)
    del values["id"]
    return Event(**values)


def _named(row: Row) -> dict[str, Any]:
    return cast("dict[str, Any]", dict(row))
