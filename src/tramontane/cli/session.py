"""What a command may use of the world outside: made once in ``main``, passed as click's object.

Tests pass a session with a fake API, a fake clock and no terminal; no command reaches for the
environment, the network or another process by itself.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import click

from tramontane.base.clock import Clock
from tramontane.base.ids import random_id
from tramontane.wire.discovery import Platform, own_environment, read_platform, read_token
from tramontane.wire.plain import PlainSender, Sender


class Child(Protocol):
    """A process that was started: the part of ``subprocess.Popen`` that is used here."""

    @property
    def stdout(self) -> "Lines | None":
        """What it prints, if that was asked for."""
        ...

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        ...

    def wait(self) -> int:
        """Wait for its end and return the exit status."""
        ...


class Lines(Protocol):
    """Text that arrives line by line."""

    def readline(self) -> str:
        """Return the next line, or nothing at the end."""
        ...


class Processes(Protocol):
    """Starts the platform's own processes, each a module of this package."""

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run to the end; return the exit status and what it printed. Errors pass through."""
        ...

    def start(
        self, command: Sequence[str], *, log: Path | None, secrets: Mapping[str, str]
    ) -> Child:
        """Start in a session of its own; output goes to ``log``, or to ``Child.stdout``.

        ``secrets`` are environment variables: an argument vector is for everybody to read.
        """
        ...


class OwnProcesses:
    """The real ones."""

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run to the end; return the exit status and what it printed."""
        done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True)
        return done.returncode, done.stdout

    def start(
        self, command: Sequence[str], *, log: Path | None, secrets: Mapping[str, str]
    ) -> Child:
        """Start in a session of its own, so that the terminal's Ctrl-C is ours to handle."""
        environment = {**own_environment(), **secrets}
        if log is None:
            return subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        log.touch(mode=0o600)
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )


@dataclass(kw_only=True)
class Terminal:
    """Which standard streams a person looks at, and whether colour is wanted."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    colour: bool = False


SenderFactory = Callable[[str, str | None], Sender]
"""Takes an address and a token."""


@dataclass(kw_only=True)
class Session:
    """One run of ``tram``."""

    environment: Mapping[str, str]
    home: Path
    clock: Clock
    pause: Callable[[float], object]
    """Waits for so many seconds."""
    connect: SenderFactory
    processes: Processes
    terminal: Terminal = field(default_factory=Terminal)
    debug: bool = False

    subject: str = ""
    """The object that the command is about, as an error names it."""
    next_step: str = ""
    """What to do when it is not found."""

    def about(self, subject: str, next_step: str = "") -> None:
        """Say which object errors are about from here on."""
        self.subject = subject
        self.next_step = next_step

    def about_service(self, project: str, name: str) -> None:
        """Say that errors are about this service."""
        self.about(f"service {name} in project {project}", "tram services list")

    def platform(self) -> Platform:
        """Return the addresses of the platform."""
        return read_platform(self.environment, self.home)

    def api(self) -> Sender:
        """Return what sends calls to the platform's API."""
        platform = self.platform()
        return self.connect(platform.api, read_token(self.environment, self.home))

    def progress(self, text: str) -> None:
        """Show what is going on, on a terminal only: one line that the next one replaces."""
        if self.terminal.stderr:
            # Longer than the terminal is wide, it would leave its first part behind.
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{text[:width]}", nl=False, err=True)

    def progress_done(self) -> None:
        """Take the progress line away."""
        self.progress("")

    def note(self, text: str) -> None:
        """Tell a person something that is not the result: to standard error."""
        self.progress_done()
        click.echo(text, err=True)


def plain_connector(pause: Callable[[float], object]) -> SenderFactory:
    """Return the factory of real senders."""
    return lambda address, token: PlainSender(address, token, ids=random_id, pause=pause)


pass_session = click.make_pass_decorator(Session)
