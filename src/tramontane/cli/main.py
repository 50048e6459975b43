"""The command ``tram``: the table of its verbs, and how a run ends."""

import os
import sys
import threading
import traceback
from collections.abc import Sequence

import click

from tramontane import __version__
from tramontane.base.clock import SystemClock
from tramontane.base.errors import TramontaneError
from tramontane.cli.failures import report, report_usage
from tramontane.cli.lazy import Entry, LazyGroup
from tramontane.cli.session import OwnProcesses, Session, Terminal, pass_session, plain_connector
from tramontane.wire.discovery import home_directory, own_environment

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

COMMANDS = {
    "up": Entry("tramontane.cli.lifecycle:up", "Start the platform on this machine."),
    "down": Entry("tramontane.cli.lifecycle:down", "Stop the platform and all that runs on it."),
    "status": Entry("tramontane.cli.health:status", "Show the platform's parts."),
    "doctor": Entry("tramontane.cli.health:doctor", "Show what this machine offers."),
    "deploy": Entry("tramontane.cli.deploy:deploy", "Deploy a directory or a model."),
    "apply": Entry("tramontane.cli.apply:apply", "Deploy all services of a manifest."),
    "plan": Entry("tramontane.cli.apply:plan", "Show what apply would change, and where it runs."),
    "services": Entry("tramontane.cli.services:services", "List, show and delete services."),
    "deployments": Entry("tramontane.cli.services:deployments", "The versions of a service."),
    "instances": Entry("tramontane.cli.services:instances", "The running copies of services."),
    "logs": Entry("tramontane.cli.logs:logs", "Print the output of a service."),
    "exec": Entry("tramontane.cli.operate:exec_", "Run a command inside an instance."),
    "scale": Entry("tramontane.cli.operate:scale", "Set how many instances run."),
    "rollback": Entry("tramontane.cli.operate:rollback", "Go back to an earlier deployment."),
    "pause": Entry("tramontane.cli.operate:pause", "Stop a service until it is resumed."),
    "resume": Entry("tramontane.cli.operate:resume", "Undo pause, and scale automatically."),
    "delete": Entry("tramontane.cli.operate:delete", "Remove a service."),
    "why": Entry("tramontane.cli.operate:why", "Explain where a service runs, or why nowhere."),
    "chat": Entry("tramontane.cli.chat:chat", "Talk to a model."),
    "models": Entry("tramontane.cli.models:models", "The models that can be talked to."),
    "aliases": Entry("tramontane.cli.aliases:aliases", "Names that lead to several models."),
    "usage": Entry("tramontane.cli.usage:usage", "What requests of models used and cost."),
    "cells": Entry("tramontane.cli.resources:cells", "The places where instances can run."),
    "projects": Entry("tramontane.cli.resources:projects", "Workspaces and their policy."),
    "tokens": Entry("tramontane.cli.resources:tokens", "What opens the API and the models."),
    "files": Entry("tramontane.cli.batches:files", "What a project's keys have uploaded."),
    "batches": Entry("tramontane.cli.batches:batches", "Batches of requests to models."),
    "completion": Entry("tramontane.cli.completion:completion", "Print the shell's completion."),
}


@click.group(
    cls=LazyGroup,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show the full story of unexpected errors.")
@click.version_option(__version__, "--version", message="tram %(version)s")
@pass_session
def tram(session: Session, debug: bool) -> None:
    """Run apps and open-weight models on machines of European providers.

    Start with: tram up --detach, then tram deploy.
    """
    session.debug = session.debug or debug


def main() -> None:
    """Run ``tram`` as a process: the entry point of the package."""
    sys.exit(run(sys.argv[1:], own_session()))


def own_session() -> Session:
    """Return the session of this process."""
    environment = own_environment()
    pause = threading.Event().wait
    wanted = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    return Session(
        environment=environment,
        home=home_directory(environment),
        clock=SystemClock(),
        pause=pause,
        connect=plain_connector(pause),
        processes=OwnProcesses(),
        terminal=Terminal(
            stdin=sys.stdin.isatty(),
            stdout=sys.stdout.isatty(),
            stderr=sys.stderr.isatty() and environment.get("TERM") != "dumb",
            colour=wanted,
        ),
    )


def run(arguments: Sequence[str], session: Session) -> int:
    """Run one command and return its exit code; prints errors, raises nothing."""
    # None lets click decide by the stream: colours reach a terminal and nothing else.
    colour = None if session.terminal.colour else False
    try:
        result = tram.main(
            list(arguments), prog_name="tram", standalone_mode=False, obj=session, color=colour
        )
        sys.stdout.flush()
    except click.ClickException as error:
        return report_usage(error, session)
    except (click.Abort, KeyboardInterrupt):
        session.note("interrupted")
        return EXIT_INTERRUPTED
    except TramontaneError as error:
        if session.debug:
            traceback.print_exception(error)
        return report(error, session)
    except BrokenPipeError:
        # The reader (`head`, `less`) has seen enough; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the last line: no traceback for a user
        return _unexpected(error, session)
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception, session: Session) -> int:
    session.progress_done()
    if session.debug:
        traceback.print_exception(error)
    else:
        text = " ".join(str(error).split()) or type(error).__name__
        subject = f"  object: {session.subject}\n" if session.subject else ""
        click.echo(
            f"error: unexpected {type(error).__name__}: {text[:200]}\n{subject}"
            "  next: run it again as `tram --debug ...` and report what it prints",
            err=True,
        )
    return EXIT_FAILED
