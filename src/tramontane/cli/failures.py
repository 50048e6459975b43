"""How a failure looks to a person: what failed, which object, next step; and the exit code."""

from collections.abc import Iterable, Mapping

import click

from tramontane.base.errors import NotFound, TramontaneError
from tramontane.cli.session import Session
from tramontane.wire.codes import EXIT_CODES

LOG_LINES_MAX = 40

_NEXT_STEPS: Mapping[str, str] = {
    "invalid_request": "correct it and run the command again",
    "unauthenticated": "check TRAM_TOKEN, or the credentials file in TRAM_HOME",
    "forbidden": "use a token with a wider scope: tram tokens create",
    "refused_by_policy": "tram cells list shows what is known of each cell",
    "not_found": "check the name",
    "conflict": "look at what it is now, then run the command again",
    "build_failed": "correct the source and deploy again",
    "source_failed": "sources.yaml in TRAM_HOME has endpoints and tokens; tram models cache shows "
    "what is on the platform's machine",
    "unsupported": "tram doctor shows what this machine offers",
    "timed_out": "the work goes on; look again with: tram status",
    "unavailable": "tram up, or tram status if it should be running",
    "internal": "tram status; for details run it again as: tram --debug ...",
}


class CommandFailed(TramontaneError):
    """The command did its work and the answer is no: ``next_step`` is its own."""

    def __init__(
        self, message: str, *, code: str = "internal", next_step: str = "", detail: str = ""
    ) -> None:
        super().__init__(message, detail=detail or None, next_step=next_step or None)
        self.code = code


def make_not_found(kind: str, name: str, known: Iterable[str]) -> NotFound:
    """Return the error about a name that is not among the known ones."""
    names = ", ".join(sorted(set(known)))
    return NotFound(
        f"no {kind} is named {name}; " + (f"there are: {names}" if names else "there is none yet")
    )


def report(error: TramontaneError, session: Session) -> int:
    """Print the three parts to standard error and return the exit code."""
    session.progress_done()
    if error.detail:
        lines = error.detail.rstrip().splitlines()
        if len(lines) > LOG_LINES_MAX:
            lines = [f"... {len(lines) - LOG_LINES_MAX} lines before", *lines[-LOG_LINES_MAX:]]
        click.echo("\n".join(f"  | {line}" for line in lines), err=True)
    click.echo(f"{click.style('error', fg='red')}: {error.message}", err=True)
    objects = " · ".join(part for part in (session.subject, _field(error)) if part)
    if objects:
        click.echo(f"  object: {objects}", err=True)
    click.echo(f"  next: {_next_step(error, session)}", err=True)
    return EXIT_CODES.get(error.code, 1)


def report_usage(error: click.ClickException, session: Session) -> int:
    """Print what is wrong with the command line in the same three parts."""
    session.progress_done()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    message = " ".join(error.format_message().split()).rstrip(".")
    if not message[:2].isupper():  # PATH stays as it is written
        message = message[:1].lower() + message[1:]
    click.echo(f"{click.style('error', fg='red')}: {message}", err=True)
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "tram"
    click.echo(f"  object: {path}\n  next: {path} --help", err=True)
    return error.exit_code


def _field(error: TramontaneError) -> str:
    return f"field {error.path}" if error.path else ""


def _next_step(error: TramontaneError, session: Session) -> str:
    if error.next_step:
        return error.next_step
    if error.code == "not_found" and session.next_step:
        return f"{session.next_step} shows what there is"
    return _NEXT_STEPS.get(error.code, _NEXT_STEPS["internal"])
