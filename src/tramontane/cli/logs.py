"""``tram logs``: the output of a service as it comes."""

from collections.abc import Sequence

import click

from tramontane.cli.options import (
    DurationType,
    NumberType,
    name_argument,
    output_option,
    project_option,
)
from tramontane.cli.output import format_time, print_document
from tramontane.cli.session import Session, pass_session
from tramontane.cli.text import log_text, parse_line
from tramontane.wire import calls


@click.command()
@name_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes; end with Ctrl-C.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    type=click.Choice(["build", "runtime", "egress", "platform"]),
    help="Only this source; may be given several times.",
)
@click.option("--since", type=DurationType(), metavar="DURATION", help="Not older than this.")
@click.option("--tail", type=NumberType(min=0), metavar="N", help="The last N lines.")
@click.option("--instance", metavar="ID", help="Only this instance.")
@click.option("--timestamps", is_flag=True, help="Begin each line with its time (UTC).")
@project_option
@output_option
@pass_session
def logs(  # noqa: PLR0913 - one argument per option
    session: Session,
    *,
    name: str,
    follow: bool,
    sources: Sequence[str],
    since: float | None,
    tail: int | None,
    instance: str | None,
    timestamps: bool,
    project: str,
    output: str,
) -> None:
    """Print the output of a service."""
    session.about_service(project, name)
    call = calls.stream_logs(
        project,
        name,
        sources=sources,
        since=None if since is None else session.clock.now() - since,
        follow=follow,
        instance=instance,
        tail=tail,
    )
    for document in session.api().stream(call):
        if output == "json":
            # One document per line, so that a stream without end can be read.
            click.echo(document)
            continue
        line = parse_line(document)
        if output == "yaml":
            print_document(output, [line])
            continue
        moment = f"{format_time(line['at'])} " if timestamps else ""
        # Which source or copy a line is from matters only where there may be several.
        place = "" if sources and len(sources) == 1 else f"{line['source']}: "
        click.echo(f"{moment}{place}{log_text(line['text'], raw=not session.terminal.stdout)}")
