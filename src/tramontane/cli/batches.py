"""``tram files`` and ``tram batches``: what a project's keys have sent, and how far it is."""

from collections.abc import Sequence

import click

from tramontane.cli.lazy import SuggestingGroup
from tramontane.cli.options import DEFAULT_PROJECT, output_option
from tramontane.cli.output import Column, Item, format_time, print_list, print_one
from tramontane.cli.session import Session, pass_session
from tramontane.wire import calls
from tramontane.wire.quantities import format_bytes

project_option = click.option(
    "-p",
    "--project",
    metavar="PROJECT",
    default=DEFAULT_PROJECT,
    show_default=True,
    help="The project that they belong to.",
)
batch_argument = click.argument("batch_id", metavar="ID")


def _progress(batch: Item) -> str:
    return f"{batch['succeeded'] + batch['failed']} of {batch['total']}"


FILE_COLUMNS: Sequence[Column] = (
    ("id", lambda each: each["id"]),
    ("name", lambda each: each["name"]),
    ("purpose", lambda each: each["purpose"]),
    ("size", lambda each: format_bytes(each["size_bytes"])),
    ("lines", lambda each: each["lines"]),
    ("created", lambda each: format_time(each["created_at"])),
    ("expires", lambda each: format_time(each["expires_at"]) or "never"),
)
BATCH_COLUMNS: Sequence[Column] = (
    ("id", lambda each: each["id"]),
    ("status", lambda each: each["status"]),
    ("endpoint", lambda each: each["endpoint"]),
    ("done", _progress),
    ("failed", lambda each: each["failed"]),
    ("key", lambda each: each["key_id"]),
    ("created", lambda each: format_time(each["created_at"])),
)


@click.group(cls=SuggestingGroup)
def files() -> None:
    """Files that a project's keys have uploaded, and results of batches."""


@files.command("list")
@project_option
@output_option
@pass_session
def list_files(session: Session, project: str, output: str) -> None:
    """List files, the newest first."""
    session.about(f"files of project {project}")
    found = session.api().fetch(calls.list_files(project))
    print_list(output, found, FILE_COLUMNS, f"no files in project {project}")


@click.group(cls=SuggestingGroup)
def batches() -> None:
    """Batches of requests to models."""


@batches.command("list")
@project_option
@output_option
@pass_session
def list_batches(session: Session, project: str, output: str) -> None:
    """List batches, the newest first."""
    session.about(f"batches of project {project}")
    found = session.api().fetch(calls.list_batches(project))
    print_list(output, found, BATCH_COLUMNS, f"no batches in project {project}")


@batches.command("get")
@batch_argument
@project_option
@output_option
@pass_session
def get_batch(session: Session, batch_id: str, project: str, output: str) -> None:
    """Show one batch and what is wrong with it."""
    session.about(f"batch {batch_id} in project {project}", "tram batches list")
    batch = session.api().fetch(calls.get_batch(project, batch_id))
    print_one(output, batch, BATCH_COLUMNS)
    if output == "table":
        for each in batch["errors"]:
            where = "" if each["line"] is None else f"line {each['line']}: "
            click.echo(f"{each['code']}: {where}{each['message']}")


@batches.command("cancel")
@batch_argument
@project_option
@output_option
@pass_session
def cancel_batch(session: Session, batch_id: str, project: str, output: str) -> None:
    """Send nothing more of a batch; it keeps the results that it has."""
    session.about(f"batch {batch_id} in project {project}", "tram batches list")
    batch = session.api().fetch(calls.cancel_batch(project, batch_id))
    print_one(output, batch, BATCH_COLUMNS)
