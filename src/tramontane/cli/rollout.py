"""The way of a definition into service: pack, upload, put, follow. Shared by deploy and apply.

What a person should see on the way goes to standard error; results go to standard output.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tramontane.base.errors import Conflict, TimedOut
from tramontane.cli.failures import CommandFailed
from tramontane.cli.session import Session
from tramontane.cli.text import log_text, parse_line
from tramontane.wire import calls
from tramontane.wire.archive import pack
from tramontane.wire.plain import Sender, is_present
from tramontane.wire.quantities import format_bytes

POLL_FIRST_S = 0.1
POLL_MAX_S = 1.0
DETAIL_LINES = 30


@dataclass(frozen=True)
class Rollout:
    """A deployment that was accepted and is to be followed."""

    project: str
    name: str
    number: int
    created_at: float
    serves: bool = False
    """It was there before, and healthy: the same had been deployed already."""
    warnings: Sequence[str] = ()

    def __str__(self) -> str:
        """Return what became of the wish, as a sentence's end."""
        if self.serves:
            return f"deployment {self.number} serves already: nothing changed"
        return f"deployment {self.number} is accepted"


def upload(session: Session, api: Sender, directory: Path) -> str:
    """Pack a directory, send it unless the platform has it already, and return its digest."""
    session.progress(f"packing {directory} ...")
    with tempfile.TemporaryDirectory(prefix="tram-") as folder:
        archive = Path(folder) / "source.tar.gz"
        packed = pack(directory, archive)
        size = format_bytes(packed.size_bytes)
        files = f"{packed.files} file{'s' if packed.files != 1 else ''}"
        if is_present(api, calls.check_source(packed.digest)):
            session.note(f"source: {directory}, {files}, unchanged since an earlier upload")
            return packed.digest
        session.progress(f"uploading {size} ...")
        api.fetch(calls.upload_source(packed.digest, archive))
        session.note(f"source: {directory}, {files}, {size} uploaded")
    return packed.digest


def digest_of(session: Session, directory: Path) -> str:
    """Return the digest that ``upload`` would, without sending anything."""
    session.progress(f"packing {directory} ...")
    with tempfile.TemporaryDirectory(prefix="tram-") as folder:
        return pack(directory, Path(folder) / "source.tar.gz").digest


def put(api: Sender, project: str, name: str, definition: calls.Document) -> Rollout:
    """Ask for the service to be like this; its project comes into being with it."""
    made = api.fetch(calls.put_service(project, name, definition))
    serves = made["status"] == "healthy"
    return Rollout(
        project, name, made["number"], made["created_at"], serves, made.get("warnings", ())
    )


def follow(session: Session, api: Sender, rollout: Rollout, timeout_s: float) -> Mapping[str, Any]:
    """Wait until the deployment serves and return the service; raise if it will not."""
    build_log = BuildLog(session, api, rollout)
    deadline = session.clock.monotonic() + timeout_s
    delay_s = POLL_FIRST_S
    was_building = not rollout.serves
    while True:
        call = calls.get_deployment(rollout.project, rollout.name, rollout.number)
        deployment = api.fetch(call)
        building = deployment["status"] == "building"
        if building or was_building:
            build_log.print_new()
        was_building = building
        if _is_done(session, api, rollout, deployment, build_log):
            session.progress_done()
            return api.fetch(calls.get_service(rollout.project, rollout.name))
        left_s = deadline - session.clock.monotonic()
        if left_s <= 0:
            raise TimedOut(
                f"{rollout.name} is not ready after {timeout_s:g} s: deployment {rollout.number} "
                f"is {_standing(deployment)}; it goes on, see: tram why {rollout.name}"
            )
        session.progress(_progress(rollout, deployment, build_log))
        session.pause(min(delay_s, left_s))
        delay_s = min(delay_s * 1.5, POLL_MAX_S)


def _is_done(
    session: Session,
    api: Sender,
    rollout: Rollout,
    deployment: Mapping[str, Any],
    build_log: "BuildLog",
) -> bool:
    """Return whether the deployment serves; raise if it cannot."""
    name, message = rollout.name, deployment["message"] or deployment["reason"]
    match deployment["status"], deployment["reason"]:
        case "healthy", _:
            return True
        case (("pending" | "failed"), "policy"):
            raise CommandFailed(
                f"no cell may run {name}: {message}",
                code="refused_by_policy",
                next_step=f"tram why {name} shows each rule and cell; it stays pending until then",
            )
        case (("pending" | "failed"), "too_large"):
            raise CommandFailed(
                f"no cell can ever run {name}: {message}",
                code="unsupported",
                next_step="correct it and deploy again; "
                f"until then deployment {rollout.number} stays pending: tram why {name}",
            )
        case "failed", reason:
            built = "build" in reason
            detail = build_log.tail() if built else _last_output(api, rollout)
            # What never ran, such as a model that cannot be read, has no output of its own.
            source = " --source build" if built else " --source runtime" if detail else ""
            raise CommandFailed(
                f"deployment {rollout.number} of {name} failed: {message}",
                code="build_failed" if built else "internal",
                next_step="correct it and deploy again; the whole output: "
                f"tram logs {name}{source}",
                detail=detail,
            )
        case "superseded", _:
            raise Conflict(f"a newer deployment took the place of {rollout.number} of {name}")
        case _:
            return False


def _standing(deployment: Mapping[str, Any]) -> str:
    message = deployment["message"] or deployment["reason"]
    return f"{deployment['status']} ({message})" if message else str(deployment["status"])


def _progress(rollout: Rollout, deployment: Mapping[str, Any], build_log: "BuildLog") -> str:
    if deployment["status"] == "building" and build_log.last:
        return f"building {rollout.name}: {build_log.last[:100]}"
    return f"{rollout.name}: {_standing(deployment)} ..."


def _last_output(api: Sender, rollout: Rollout) -> str:
    """Return what the instances said last: it usually is why they did not start."""
    call = calls.stream_logs(
        rollout.project,
        rollout.name,
        sources=["runtime", "platform"],
        since=rollout.created_at,
        tail=DETAIL_LINES,
    )
    return "\n".join(log_text(parse_line(each)["text"], raw=False) for each in api.stream(call))


class BuildLog:
    """What a build has printed: shown as it comes, or kept for the case that it fails."""

    def __init__(self, session: Session, api: Sender, rollout: Rollout) -> None:
        self._session = session
        self._api = api
        self._rollout = rollout
        self._since = rollout.created_at
        self._seen: set[bytes] = set()
        self._lines: list[str] = []

    @property
    def last(self) -> str:
        """The newest line."""
        return self._lines[-1].strip() if self._lines else ""

    def print_new(self) -> None:
        """Fetch what came since the last time; print it where no progress line shows it."""
        call = calls.stream_logs(
            self._rollout.project, self._rollout.name, sources=["build"], since=self._since
        )
        for document in self._api.stream(call):
            line = parse_line(document)
            # ``since`` includes its own moment, so lines of that moment come twice.
            if line["at"] > self._since:
                self._since, self._seen = line["at"], set()
            elif document in self._seen:
                continue
            self._seen.add(document)
            text = log_text(line["text"], raw=False)
            self._lines.append(text)
            del self._lines[:-1000]
            if not self._session.terminal.stderr:
                self._session.note(f"build: {text}")

    def tail(self) -> str:
        """Return the end of the log, if it was not printed as it came."""
        return "\n".join(self._lines[-DETAIL_LINES:]) if self._session.terminal.stderr else ""
