"""``tram status`` and ``tram doctor``: how the platform fares, and what this machine offers."""

import json
from typing import Any

import click

from tramontane.base.errors import TramontaneError
from tramontane.cli.failures import CommandFailed
from tramontane.cli.options import output_option
from tramontane.cli.output import format_time, make_table, one_line, print_document, print_list
from tramontane.cli.resources import CELL_COLUMNS
from tramontane.cli.session import Session, pass_session
from tramontane.wire import calls
from tramontane.wire.quantities import format_bytes

DOCTOR = "tramontane.processes.doctor"
DISK_KINDS = ("artifacts", "toolchains", "caches", "archives", "logs")


@click.command()
@output_option
@pass_session
def status(session: Session, output: str) -> None:
    """Show the platform's parts, its cells, its services by status, and its use of the disk."""
    session.about(f"the platform of TRAM_HOME {session.home}")
    found = session.api().fetch(calls.get_status())
    if output != "table":
        print_document(output, found)
        return
    parts = [("control plane", found["control_plane"]), ("gateway", found["gateway"])]
    rows = [
        [
            name,
            part["status"],
            str(part.get("pid") or "-"),
            part.get("address") or "-",
            format_time(part.get("started_at")) or "-",
            one_line(part.get("message") or ""),
        ]
        for name, part in parts
    ]
    click.echo(make_table(["part", "status", "pid", "address", "started", "message"], rows))
    click.echo()
    print_list(output, found["cells"], CELL_COLUMNS, "no cells: nothing can run")
    counts = ", ".join(f"{count} {status}" for status, count in found["services"].items() if count)
    click.echo(f"\nservices: {counts or 'none yet'}")
    if allowed := found.get("egress_allowed"):
        click.echo(f"egress allowed by the operator: {', '.join(allowed)}")
    if disk := found.get("disk"):
        sizes = (f"{kind} {format_bytes(disk[f'{kind}_bytes'])}" for kind in DISK_KINDS)
        click.echo(f"disk: {', '.join(sizes)}")
    click.echo(f"version {found['version']}, home {found['home']}")


@click.command()
@output_option
@pass_session
def doctor(session: Session, output: str) -> None:
    """Show what this machine offers and what is missing; needs no running platform."""
    session.about("this machine")
    session.progress("looking at this machine ...")
    command = ["-m", DOCTOR, "--home", str(session.home), "-o", "json"]
    status, printed = session.processes.run(command)
    session.progress_done()
    findings = _findings(status, printed)
    if output != "table":
        print_document(output, findings)
    else:
        _print_findings(findings)
    missing = [each["name"] for each in findings if each["required"] and not each["offered"]]
    if missing:
        raise CommandFailed(
            f"the platform cannot run here without: {', '.join(missing)}",
            code="unsupported",
            next_step="install what the list above names, then run tram doctor again",
        )


def _findings(status: int, printed: str) -> list[dict[str, Any]]:
    try:
        findings = json.loads(printed)
    except ValueError as error:
        raise TramontaneError(f"the examination ended with exit status {status}") from error
    return findings


def _print_findings(findings: list[dict[str, Any]]) -> None:
    groups = list(dict.fromkeys(each["group"] for each in findings))
    for position, group in enumerate(groups):
        if position:
            click.echo()
        rows = [
            [
                each["name"],
                "yes" if each["offered"] else "no",
                "required" if each["required"] else "optional",
                one_line(each["detail"]),
            ]
            for each in findings
            if each["group"] == group
        ]
        click.echo(make_table([group, "offered", "needed", "detail"], rows))
