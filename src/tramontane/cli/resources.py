"""``tram cells``, ``projects`` and ``tokens``: what services use and live in."""

from collections.abc import Sequence
from typing import Any

import click

from tramontane.base.errors import NotFound
from tramontane.cli.lazy import SuggestingGroup
from tramontane.cli.limits import OPTIONS as LIMIT_OPTIONS
from tramontane.cli.limits import describe_limits, limit_options, read_limits
from tramontane.cli.options import DurationType, output_option
from tramontane.cli.output import (
    Column,
    Item,
    format_time,
    make_table,
    one_line,
    print_document,
    print_list,
    print_one,
)
from tramontane.cli.session import Session, pass_session
from tramontane.wire import calls
from tramontane.wire.quantities import format_bytes


def _fact(attribute: str) -> Any:
    def read(cell: Item) -> str:
        known = [fact["value"] for fact in cell["facts"] if fact["attribute"] == attribute]
        return ", ".join(known) or "unknown"

    return read


CELL_COLUMNS: Sequence[Column] = (
    ("name", lambda each: each["name"]),
    ("runtime", lambda each: each["runtime"]),
    ("isolation", lambda each: each["isolation"]),
    ("reachable", lambda each: each["reachable"]),
    ("country", _fact("country")),
    ("operator", _fact("operator")),
    ("memory", lambda each: format_bytes(each["memory_bytes"])),
    ("cpus", lambda each: each["cpus"]),
    ("instances", lambda each: each["instances"]),
)
PROJECT_COLUMNS: Sequence[Column] = (
    ("name", lambda each: each["name"]),
    ("policy", lambda each: each["policy"]),
    ("services", lambda each: each["services"]),
    ("created", lambda each: format_time(each["created_at"])),
)
TOKEN_COLUMNS: Sequence[Column] = (
    ("id", lambda each: each["id"]),
    ("name", lambda each: each["name"]),
    ("project", lambda each: each["project"] or "all"),
    ("scope", lambda each: each["scope"]),
    ("models", lambda each: each["models"] or "all"),
    ("limits", lambda each: describe_limits(each["limits"]) or "none"),
    ("created", lambda each: format_time(each["created_at"])),
    ("expires", lambda each: format_time(each["expires_at"]) or "never"),
)


@click.group(cls=SuggestingGroup)
def cells() -> None:
    """The places where instances can run."""


@cells.command("list")
@output_option
@pass_session
def list_cells(session: Session, output: str) -> None:
    """List cells."""
    session.about("cells")
    print_list(output, session.api().fetch(calls.list_cells()), CELL_COLUMNS, "no cells")


@cells.command("get")
@click.argument("name", metavar="NAME")
@output_option
@pass_session
def get_cell(session: Session, name: str, output: str) -> None:
    """Show one cell and how each fact about it is known."""
    session.about(f"cell {name}", "tram cells list")
    cell = session.api().fetch(calls.get_cell(name))
    print_one(output, cell, CELL_COLUMNS)
    if output == "table" and cell["facts"]:
        click.echo()
        rows = [
            [each["attribute"], one_line(each["value"]), each["evidence"], one_line(each["source"])]
            for each in cell["facts"]
        ]
        click.echo(make_table(["fact", "value", "evidence", "source"], rows))


@click.group(cls=SuggestingGroup)
def projects() -> None:
    """Workspaces of services, each with a policy."""


@projects.command("list")
@output_option
@pass_session
def list_projects(session: Session, output: str) -> None:
    """List projects."""
    session.about("projects")
    print_list(output, session.api().fetch(calls.list_projects()), PROJECT_COLUMNS, "no projects")


@projects.command("get")
@click.argument("name", metavar="NAME")
@output_option
@pass_session
def get_project(session: Session, name: str, output: str) -> None:
    """Show one project."""
    session.about(f"project {name}", "tram projects list")
    print_one(output, session.api().fetch(calls.get_project(name)), PROJECT_COLUMNS)


@projects.command("create")
@click.argument("name", metavar="NAME")
@click.option(
    "--policy", multiple=True, metavar="PRESET", help="All its services must satisfy this."
)
@output_option
@pass_session
def create_project(session: Session, name: str, policy: Sequence[str], output: str) -> None:
    """Create a project, or change the policy of one that exists."""
    session.about(f"project {name}")
    found = session.api().fetch(calls.put_project(name, policy=policy))
    print_one(output, found, PROJECT_COLUMNS)


@projects.command("delete")
@click.argument("name", metavar="NAME")
@pass_session
def delete_project(session: Session, name: str) -> None:
    """Delete a project without services."""
    session.about(f"project {name}", "tram projects list")
    session.api().fetch(calls.delete_project(name))
    click.echo(f"project {name} is deleted")


@click.group(cls=SuggestingGroup)
def tokens() -> None:
    """What opens the API and the models."""


@tokens.command("list")
@output_option
@pass_session
def list_tokens(session: Session, output: str) -> None:
    """List tokens, without their secrets."""
    session.about("tokens")
    print_list(output, session.api().fetch(calls.list_tokens()), TOKEN_COLUMNS, "no tokens")


@tokens.command("get")
@click.argument("token_id", metavar="ID")
@output_option
@pass_session
def get_token(session: Session, token_id: str, output: str) -> None:
    """Show one token, without its secret."""
    session.about(f"token {token_id}", "tram tokens list")
    found = session.api().fetch(calls.list_tokens())
    print_one(
        output,
        _pick(found, "id", token_id, NotFound(f"no token has the id {token_id}")),
        TOKEN_COLUMNS,
    )


@tokens.command("create")
@click.option("-p", "--project", metavar="PROJECT", help="For this project only.")
@click.option("--name", default="token", show_default=True, help="What you will know it by.")
@click.option(
    "--scope",
    type=click.Choice(["inference", "read", "deploy", "admin"]),
    default="inference",
    show_default=True,
    help="What it allows.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="For this model only, or alias; may be given several times. Without it: all.",
)
@limit_options
@click.option("--expires", type=DurationType(), help="Valid for this long, such as 30d.")
@output_option
@pass_session
def create_token(session: Session, *, expires: float | None, output: str, **wanted: Any) -> None:
    """Make a token. It is shown once; the platform keeps only its hash."""
    name, project = wanted["name"], wanted["project"]
    session.about(f"token {name}" + (f" for project {project}" if project else ""))
    limits = read_limits(wanted)
    call = calls.create_token(
        **{option: value for option, value in wanted.items() if option not in LIMIT_OPTIONS},
        limits=limits,
        expires_in_s=None if expires is None else int(expires),
    )
    made = session.api().fetch(call)
    if output != "table":
        print_document(output, made)
        return
    click.echo(made["token"])
    session.note(f"keep it: {made['id']} is not shown again")


@tokens.command("limit")
@click.argument("token_id", metavar="ID")
@limit_options
@output_option
@pass_session
def limit_token(session: Session, token_id: str, output: str, **wanted: Any) -> None:
    """Change how much a token may use. What is not named is not limited any more."""
    session.about(f"token {token_id}", "tram tokens list")
    found = session.api().fetch(calls.limit_token(token_id, read_limits(wanted)))
    print_one(output, found, TOKEN_COLUMNS)


@tokens.command("delete")
@click.argument("token_id", metavar="ID")
@pass_session
def delete_token(session: Session, token_id: str) -> None:
    """Make a token invalid."""
    session.about(f"token {token_id}", "tram tokens list")
    session.api().fetch(calls.delete_token(token_id))
    click.echo(f"token {token_id} is deleted")


def _pick(items: Sequence[Item], key: str, value: str, missing: NotFound) -> Item:
    for item in items:
        if item[key] == value:
            return item
    raise missing
