"""``tram up`` and ``tram down``: start and stop the platform's own processes.

The processes are modules of ``tramontane.processes``, started by name: the command line knows
their arguments and what they print, and imports nothing of them.
"""

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click

from tramontane.base.errors import InvalidRequest, TramontaneError, Unavailable
from tramontane.cli.failures import CommandFailed
from tramontane.cli.options import DurationType, EurosType, SizeType
from tramontane.cli.output import make_table
from tramontane.cli.session import Child, Session, pass_session
from tramontane.wire import calls
from tramontane.wire.discovery import Platform

CONTROL = "tramontane.processes.control"
DOWN = "tramontane.processes.down"
DATABASE_VARIABLE = "TRAM_DATABASE"
"""The control plane reads the database's URL here: it may hold a password."""
LOG_FILE = "control.log"
CLAIM_FILE = "claim.json"
"""The control plane keeps here what was claimed about this machine at an earlier start."""

START_TIMEOUT_S = 90.0
POLL_S = 0.1
LOG_TAIL_LINES = 30


class AddressType(click.ParamType[str]):
    """``HOST:PORT``."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text unchanged if it is an address."""
        host, colon, port = str(value).rpartition(":")
        digits = port.isascii() and port.isdigit() and len(port) <= 5
        if not (host and colon and digits and 0 < int(port) <= 65535):
            self.fail(f"expected HOST:PORT such as 127.0.0.1:8080, got {value!r}", param, ctx)
        return str(value)


class DestinationType(AddressType):
    """``HOST:PORT``, or ``none``."""

    name = "destination"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text unchanged if it is one; the control plane knows what it may be."""
        return str(value) if value == "none" else super().convert(value, param, ctx)


class CountryType(click.ParamType[str]):
    """Two letters, as in ISO 3166."""

    name = "country"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the code in capitals."""
        code = str(value).strip().upper()
        if code and not (len(code) == 2 and code.isascii() and code.isalpha()):
            self.fail(f"expected a country code such as FR or DE, got {value!r}", param, ctx)
        return code


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Return once it runs, and leave it running.")
@click.option(
    "--gateway",
    type=AddressType(),
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    help="Where services answer.",
)
@click.option(
    "--api",
    type=AddressType(),
    default="127.0.0.1:8081",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the HTTP API answers.",
)
@click.option(
    "--country",
    type=CountryType(),
    metavar="CC",
    help="Where this machine stands. Without it no location is claimed.",
)
@click.option("--operator", metavar="NAME", help="Who operates this machine.")
@click.option(
    "--hourly-cost",
    type=EurosType(),
    metavar="EUR",
    help="What an hour of this machine costs: requests of models without a price share it by "
    "memory and time. Kept for later starts; 0 takes it back.",
)
@click.option(
    "--isolation",
    type=click.Choice(["sandbox", "none"]),
    help="How instances are kept apart. Default: a sandbox.",
)
@click.option(
    "--allow-egress-to",
    "egress_allowed",
    multiple=True,
    type=DestinationType(),
    metavar="HOST:PORT",
    help="Let instances whose manifest names it reach this port of this machine, or this name in "
    "a private network; may be given several times. Kept for later starts; none takes it back.",
)
@click.option(
    "--otlp-endpoint",
    metavar="URL",
    help="Send a span for each request of a model there, by OTLP/HTTP: an OpenTelemetry collector "
    "such as http://127.0.0.1:4318. Default: what OTEL_EXPORTER_OTLP_ENDPOINT says.",
)
@click.option("--database", metavar="URL", help="PostgreSQL instead of the embedded SQLite.")
@click.option(
    "--keep-deployments",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Keep this many versions of each service to roll back to. Default: 10.",
)
@click.option(
    "--keep-unneeded",
    type=DurationType(),
    metavar="DURATION",
    help="Keep sources and builds this long after nothing needs them any more. Default: 10m.",
)
@click.option(
    "--cache-limit",
    type=SizeType(),
    metavar="SIZE",
    help="Keep the caches of builds below this size. Default: 10GiB.",
)
@click.option(
    "--weights-limit",
    type=SizeType(),
    metavar="SIZE",
    help="Keep the weights of models below this size. Default: half of the disk.",
)
@pass_session
def up(  # noqa: PLR0913 - one argument per option
    session: Session,
    *,
    detach: bool,
    gateway: str,
    api: str,
    country: str | None,
    operator: str | None,
    hourly_cost: str | None,
    isolation: str | None,
    egress_allowed: Sequence[str],
    otlp_endpoint: str | None,
    database: str | None,
    keep_deployments: int | None,
    keep_unneeded: float | None,
    cache_limit: int | None,
    weights_limit: int | None,
) -> None:
    """Start the platform on this machine.

    Without --detach it stays in the foreground, and Ctrl-C stops the platform as tram down does.
    """
    session.about(f"the platform of TRAM_HOME {session.home}")
    if (running := _running(session)) is not None:
        session.note("the platform is running already; stop it with: tram down")
        _print_addresses(running)
        return
    _ensure_home(session.home)
    if country is None:
        country = _ask_country(session)
    given = {
        "--home": str(session.home),
        "--gateway": gateway,
        "--api": api,
        "--country": country,
        "--operator": operator,
        "--hourly-cost": hourly_cost,
        "--isolation": isolation,
        "--otlp-endpoint": otlp_endpoint,
        "--keep-deployments": keep_deployments,
        "--keep-unneeded": keep_unneeded,
        "--cache-limit": cache_limit,
        "--weights-limit": weights_limit,
    }
    secrets = {DATABASE_VARIABLE: database} if database else {}
    flags = [
        word
        for option, value in given.items()
        if value not in (None, "")
        for word in (option, str(value))
    ]
    flags += [word for each in egress_allowed for word in ("--allow-egress-to", each)]
    command = ["-m", CONTROL, *flags]
    if detach:
        _start_detached(session, command, secrets)
        _print_ready(session)
        click.echo("stop it with: tram down")
    else:
        _run_in_foreground(session, command, secrets)


@click.command()
@pass_session
def down(session: Session) -> None:
    """Stop the control plane, the gateway and all instances. What was deployed stays known."""
    session.about(f"the platform of TRAM_HOME {session.home}")
    session.progress("stopping ...")
    status, printed = session.processes.run(["-m", DOWN, "--home", str(session.home)])
    session.progress_done()
    click.echo(printed, nl=False)
    if status != 0:
        raise CommandFailed(
            "the platform did not stop completely",
            next_step="run tram down again, then tram status",
        )


def _running(session: Session) -> Platform | None:
    """Return the addresses of the platform that runs from this home, or None."""
    local = _local(session)
    try:
        platform = local.platform()
        session.connect(platform.api, None).fetch(calls.check_health())
        # Another platform may have taken the address of a dead one; it does not know our token.
        local.api().fetch(calls.get_status())
    except TramontaneError:
        return None
    return platform


def _local(session: Session) -> Session:
    """Return the session for the platform of this home, whatever ``TRAM_API`` points to."""
    return replace(session, environment={})


def _ensure_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(
            f"cannot create {home}: {error.strerror}",
            next_step="set TRAM_HOME to a directory of yours",
        ) from error


def _ask_country(session: Session) -> str:
    """Ask until something was claimed once: the control plane keeps it. Empty: no claim."""
    if not session.terminal.stdin or (session.home / CLAIM_FILE).exists():
        return ""
    return click.prompt(
        "In which country does this machine stand? (code such as FR; empty: say nothing)",
        default="",
        show_default=False,
        type=CountryType(),
        err=True,
    )


def _start_detached(session: Session, command: Sequence[str], secrets: Mapping[str, str]) -> None:
    log = session.home / LOG_FILE
    start = log.stat().st_size if log.exists() else 0
    child = session.processes.start(command, log=log, secrets=secrets)
    deadline = session.clock.monotonic() + START_TIMEOUT_S
    session.progress("starting the platform ...")
    while _running(session) is None:
        ended = child.poll()
        printed = _read_from(log, start)
        _raise_if_failed(printed.splitlines())
        if ended is not None:
            raise CommandFailed(
                f"the control plane ended with exit status {ended} while starting",
                next_step=f"see {log}; tram doctor shows what this machine offers",
                detail="\n".join(printed.splitlines()[-LOG_TAIL_LINES:]),
            )
        if session.clock.monotonic() > deadline:
            raise CommandFailed(
                f"the platform was not ready after {START_TIMEOUT_S:g} s",
                code="timed_out",
                next_step=f"see {log}; stop it with: tram down",
            )
        session.pause(POLL_S)
    session.progress_done()


def _run_in_foreground(
    session: Session, command: Sequence[str], secrets: Mapping[str, str]
) -> None:
    child = session.processes.start(command, log=None, secrets=secrets)
    # A supervisor's SIGTERM and a closed terminal should stop the platform as Ctrl-C does.
    stops = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in stops]
    try:
        session.progress("starting the platform ...")
        _relay(session, child)
        status = child.wait()
    except KeyboardInterrupt:
        for number in (*stops, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        session.note("\nstopping the platform ...")
        _, printed = session.processes.run(["-m", DOWN, "--home", str(session.home)])
        click.echo(printed, nl=False)
        return
    finally:
        for number, handler in zip(stops, before, strict=True):
            signal.signal(number, handler)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if status != 0:
        raise CommandFailed(f"the control plane ended with exit status {status}")


def _relay(session: Session, child: Child) -> None:
    """Show what the control plane says until it ends."""
    while child.stdout is not None and (line := child.stdout.readline()):
        _raise_if_failed([line])
        match _event(line).get("event"):
            case "ready":
                session.progress_done()
                _print_ready(session)
                session.note("Ctrl-C stops the platform")
            case None:
                click.echo(line, nl=False)
            case _:
                pass


def _print_ready(session: Session) -> None:
    local = _local(session)
    platform = local.platform()
    _print_addresses(platform)
    cells = local.api().fetch(calls.list_cells())
    if not any(fact["attribute"] == "country" for cell in cells for fact in cell["facts"]):
        session.note(
            "no location is claimed for this machine: services whose policy names a place stay "
            "pending;\nclaim one with: tram down, then tram up --country CC"
        )


def _print_addresses(platform: Platform) -> None:
    gateway = platform.gateway or "-"
    rows = [
        ["API", platform.api],
        ["API documentation", f"{platform.api}/docs"],
        ["gateway", gateway],
        ["services", f"{gateway.replace('127.0.0.1', f'<name>.<project>.{platform.domain}')}"],
        ["inference", f"{gateway}/v1"],
    ]
    click.echo(make_table(["part", "address"], rows))


def _raise_if_failed(lines: Sequence[str]) -> None:
    for line in lines:
        event = _event(line)
        if event.get("event") == "failed":
            raise CommandFailed(
                f"the platform did not start: {event.get('message', 'no reason given')}",
                code=str(event.get("code", "internal")),
                next_step=event.get("next") or "tram doctor shows what this machine offers",
            )


def _event(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _read_from(log: Path, start: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(start)
            return file.read(1024 * 1024).decode("utf-8", "replace")
    except OSError as error:
        raise Unavailable(f"cannot read {log}: {error.strerror}") from error
