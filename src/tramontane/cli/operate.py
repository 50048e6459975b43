"""Verbs on one running service: scale, rollback, pause, resume, delete, exec and why."""

from collections.abc import Sequence
from typing import Any

import click

from tramontane.cli.options import (
    DurationType,
    NumberType,
    name_argument,
    output_option,
    project_option,
)
from tramontane.cli.output import (
    format_time,
    make_table,
    one_line,
    print_document,
    print_one,
)
from tramontane.cli.session import Session, pass_session
from tramontane.wire import calls


class InstancesType(click.ParamType[int]):
    """A number of instances, or ``auto`` as -1."""

    name = "instances"
    automatic = -1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if value == "auto":
            return self.automatic
        text = str(value)
        if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= 1000):
            self.fail(f"expected a number from 0 to 1000, or auto, got {text!r}", param, ctx)
        return int(text)


@click.command()
@name_argument
@click.argument("instances", metavar="N|auto", type=InstancesType())
@project_option
@pass_session
def scale(session: Session, name: str, instances: int, project: str) -> None:
    """Set how many instances run: 0 sleeps until the next request, auto follows demand.

    A worker gets no requests: it stays at 0 until it is scaled again, and auto is its minimum.
    """
    session.about_service(project, name)
    wanted = None if instances == InstancesType.automatic else instances
    service = session.api().fetch(calls.scale_service(project, name, wanted))
    is_asked = service["url"] is not None
    match wanted:
        case None if is_asked:
            click.echo(f"{name} scales automatically")
        case None:
            click.echo(f"{name} goes to its minimum: {_instances(service['instances_min'])}")
        case 0 if is_asked:
            click.echo(f"{name} goes to sleep; the next request wakes it")
        case 0:
            click.echo(
                f"{name} goes to zero and stays there, since no request wakes it; "
                f"start it again with: tram scale {name} auto"
            )
        case _:
            click.echo(f"{name} goes to {_instances(wanted)}")


def _instances(count: int) -> str:
    return f"{count} instance{'s' if count != 1 else ''}"


@click.command()
@name_argument
@click.argument("number", metavar="[N]", type=NumberType(min=1), required=False)
@project_option
@output_option
@pass_session
def rollback(session: Session, name: str, number: int | None, project: str, output: str) -> None:
    """Go back to deployment N, or to the last healthy one before this.

    The newest deployments are kept for this: as many as tram up --keep-deployments says.
    """
    session.about_service(project, name)
    session.next_step = f"tram deployments list {name}"
    found = session.api().fetch(calls.rollback_service(project, name, number))
    if output != "table":
        print_document(output, found)
    else:
        click.echo(f"{name} goes back to deployment {found['number']}")


@click.command()
@name_argument
@project_option
@pass_session
def pause(session: Session, name: str, project: str) -> None:
    """Stop all instances of a service; it answers nothing until it is resumed."""
    session.about_service(project, name)
    session.api().fetch(calls.pause_service(project, name))
    click.echo(f"{name} is paused; resume it with: tram resume {name}")


@click.command()
@name_argument
@project_option
@pass_session
def resume(session: Session, name: str, project: str) -> None:
    """Undo pause, and leave the number of instances to demand."""
    session.about_service(project, name)
    session.api().fetch(calls.resume_service(project, name))
    click.echo(f"{name} is resumed")


@click.command()
@name_argument
@project_option
@pass_session
def delete(session: Session, name: str, project: str) -> None:
    """Remove a service with all its deployments."""
    delete_one(session, project, name)


def delete_one(session: Session, project: str, name: str) -> None:
    """Delete one service: shared with ``tram services delete``."""
    session.about_service(project, name)
    session.api().fetch(calls.delete_service(project, name))
    click.echo(f"{name} is being deleted; its instances are stopped first")


@click.command("exec", context_settings={"ignore_unknown_options": True})
@name_argument
@click.argument("command", metavar="-- COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
@project_option
@click.option("--instance", metavar="ID", help="In this instance instead of any ready one.")
@click.option(
    "--timeout", type=DurationType(), default=60.0, show_default="60s", help="End it after this."
)
@output_option
@pass_session
def exec_(  # noqa: PLR0913 - one argument per option
    session: Session,
    *,
    name: str,
    command: Sequence[str],
    project: str,
    instance: str | None,
    timeout: float,
    output: str,
) -> int:
    """Run a command inside an instance; its exit code becomes this command's."""
    session.about_service(project, name)
    call = calls.exec_command(project, name, command, instance=instance, timeout_s=timeout)
    done = session.api().fetch(call)
    if output != "table":
        print_document(output, done)
    else:
        click.echo(done["stdout"], nl=False)
        click.echo(done["stderr"], nl=False, err=True)
    code: int = done["exit_code"]
    return code if 0 <= code <= 255 else 1


@click.command()
@name_argument
@project_option
@output_option
@pass_session
def why(session: Session, name: str, project: str, output: str) -> None:
    """Explain where a service runs and why, or why it runs nowhere."""
    session.about_service(project, name)
    found = session.api().fetch(calls.explain_service(project, name))
    if output != "table":
        print_document(output, found)
        return
    print_one(
        output,
        found,
        [
            ("service", lambda each: f"{each['project']}/{each['service']}"),
            ("status", lambda each: each["status"]),
            ("reason", lambda each: each["reason"]),
            ("message", lambda each: each["message"]),
            ("policy", lambda each: each["policy"] or "none: it may run on any cell"),
        ],
    )
    print_candidates(found["candidates"])
    if found["events"]:
        click.echo("\nlast events")
        for event in found["events"][-10:]:
            at = format_time(event["at"])
            click.echo(f"  {at}  {event['reason']}: {one_line(event['message'])}")


def print_candidates(candidates: Sequence[Any]) -> None:
    """Print each cell that was considered and the rules that were held against it."""
    if not candidates:
        click.echo("\nno cell was considered: see tram cells list")
        return
    click.echo()
    rows = [
        [each["cell"], "yes" if each["allowed"] else "no", one_line(each["reason"])]
        for each in candidates
    ]
    click.echo(make_table(["cell", "allowed", "reason"], rows))
    findings = [
        [each["cell"], finding["rule"], finding["verdict"], one_line(finding["reason"])]
        for each in candidates
        for finding in each["findings"]
    ]
    if findings:
        click.echo()
        click.echo(make_table(["cell", "rule", "verdict", "reason"], findings))
