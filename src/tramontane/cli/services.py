"""``tram services``, ``tram deployments`` and ``tram instances``: reading what there is."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from tramontane.base.errors import NotFound
from tramontane.cli.lazy import SuggestingGroup
from tramontane.cli.operate import delete_one
from tramontane.cli.options import (
    NumberType,
    any_project_option,
    name_argument,
    output_option,
    project_option,
)
from tramontane.cli.output import (
    Column,
    Item,
    format_time,
    make_table,
    one_line,
    print_list,
    print_one,
)
from tramontane.cli.session import Session, pass_session
from tramontane.wire import calls


def _counts(service: Item) -> str:
    ready = sum(each["status"] == "healthy" for each in service["instances"])
    return f"{ready}/{service['instances_min']}-{service['instances_max']}"


SERVICE_COLUMNS: Sequence[Column] = (
    ("name", lambda each: each["name"]),
    ("project", lambda each: each["project"]),
    ("kind", lambda each: each["kind"]),
    ("status", lambda each: each["status"]),
    ("ready", _counts),
    ("policy", lambda each: each["policy"]),
    ("url", lambda each: each["url"]),
)
SERVICE_FIELDS: Sequence[Column] = (
    *SERVICE_COLUMNS[:4],
    ("reason", lambda each: each["reason"]),
    ("message", lambda each: each["message"]),
    ("url", lambda each: each["url"] or f"none: a {each['kind']} takes no requests"),
    ("deployment", lambda each: each["deployment"]),
    ("serving", lambda each: each["serving_deployment"]),
    ("policy", lambda each: each["policy"] or "none: it may run on any cell"),
    ("instances", _counts),
    ("created", lambda each: format_time(each["created_at"])),
)
INSTANCE_COLUMNS: Sequence[Column] = (
    ("id", lambda each: each["id"]),
    ("status", lambda each: each["status"]),
    ("cell", lambda each: each["cell"]),
    ("deployment", lambda each: each["deployment"]),
    ("pid", lambda each: each.get("pid")),
    ("created", lambda each: format_time(each["created_at"])),
    ("message", lambda each: each["message"] or each["reason"]),
)
DEPLOYMENT_COLUMNS: Sequence[Column] = (
    ("number", lambda each: each["number"]),
    ("status", lambda each: each["status"]),
    ("serving", lambda each: each["serving"]),
    ("created", lambda each: format_time(each["created_at"])),
    ("message", lambda each: each["message"] or each["reason"]),
)


@click.group(cls=SuggestingGroup)
def services() -> None:
    """List, show and delete services."""


@services.command("list")
@any_project_option
@output_option
@pass_session
def list_services(session: Session, project: str | None, output: str) -> None:
    """List services."""
    session.about("services" if project is None else f"services of project {project}")
    found = session.api().fetch(calls.list_services(project))
    print_list(output, found, SERVICE_COLUMNS, "no services yet; deploy one with: tram deploy")


@services.command("get")
@name_argument
@project_option
@output_option
@pass_session
def get_service(session: Session, name: str, project: str, output: str) -> None:
    """Show one service with its instances."""
    session.about_service(project, name)
    service = session.api().fetch(calls.get_service(project, name))
    print_one(output, service, SERVICE_FIELDS)
    if output == "table" and service["instances"]:
        click.echo()
        print_list(output, service["instances"], INSTANCE_COLUMNS, "")


@services.command("delete")
@name_argument
@project_option
@pass_session
def delete_service(session: Session, name: str, project: str) -> None:
    """Remove a service with all its deployments."""
    delete_one(session, project, name)


@click.group(cls=SuggestingGroup)
def deployments() -> None:
    """Show the versions of a service."""


@deployments.command("list")
@name_argument
@project_option
@output_option
@pass_session
def list_deployments(session: Session, name: str, project: str, output: str) -> None:
    """List the versions of a service."""
    session.about_service(project, name)
    found = session.api().fetch(calls.list_deployments(project, name))
    print_list(output, found, DEPLOYMENT_COLUMNS, f"{name} was never deployed")


@deployments.command("get")
@name_argument
@click.argument("number", type=NumberType(min=1), metavar="N")
@project_option
@output_option
@pass_session
def get_deployment(session: Session, name: str, number: int, project: str, output: str) -> None:
    """Show one version and its definition."""
    session.about(
        f"deployment {number} of service {name} in project {project}",
        f"tram deployments list {name}",
    )
    found = session.api().fetch(calls.get_deployment(project, name, number))
    print_one(output, found, DEPLOYMENT_COLUMNS)
    if output == "table":
        click.echo()
        click.echo(make_table(["setting", "value"], _settings(found["definition"])))


@click.group(cls=SuggestingGroup)
def instances() -> None:
    """Show the running copies of services."""


@instances.command("list")
@click.argument("name", metavar="[NAME]", required=False)
@any_project_option
@output_option
@pass_session
def list_instances(session: Session, name: str | None, project: str | None, output: str) -> None:
    """List the instances of one service, or the live ones of all."""
    if name is not None:
        project = project or "default"
        session.about_service(project, name)
        found = session.api().fetch(calls.list_instances(project, name))
        print_list(output, found, INSTANCE_COLUMNS, f"{name} has no instance")
        return
    session.about("instances")
    found = [
        {"service": service["name"], "project": service["project"], **instance}
        for service in session.api().fetch(calls.list_services(project))
        for instance in service["instances"]
    ]
    service_column: Column = ("service", lambda each: f"{each['project']}/{each['service']}")
    print_list(output, found, [service_column, *INSTANCE_COLUMNS], "no instance is running")


@instances.command("get")
@click.argument("instance_id", metavar="ID")
@output_option
@pass_session
def get_instance(session: Session, instance_id: str, output: str) -> None:
    """Show one live instance."""
    session.about(f"instance {instance_id}", "tram instances list")
    for service in session.api().fetch(calls.list_services()):
        for instance in service["instances"]:
            if instance["id"] == instance_id:
                print_one(output, instance, INSTANCE_COLUMNS)
                return
    raise NotFound(f"no live instance has the id {instance_id}")


def _settings(definition: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Return a definition as rows; of its variables only the names are known here."""
    rows: list[list[str]] = []
    for key, value in definition.items():
        if key == "environment":
            rows.extend([f"{prefix}environment.{name}", "(set)"] for name in value)
        elif isinstance(value, dict):
            rows.extend(_settings(value, f"{prefix}{key}."))  # type: ignore[arg-type]
        elif value is not None and value != []:
            rows.append([f"{prefix}{key}", one_line(str(value))])
    return rows
