"""Where everything lies on disk, and the two small files each instance has.

    <state>/                          0700
        launcher.lock                 held by the launcher while it lives
        launcher.log                  what the launcher itself has to say
        instances/<id>/spec.json      what was asked for, without the values of the environment
        instances/<id>/status.json    newest observation, and what must be cleaned up after a crash
        instances/<id>/failure.log    only if the supervisor itself failed
        ended/<id>                    empty: this id ran and was removed, so it never runs again
    <run>/                            0700, short: a Unix socket path has at most 107 bytes
        launcher.sock                 asks the launcher to start something
        <id>/control.sock             asks the supervisor of an instance; alive while it listens
        <id>/in.sock                  the instance's endpoint
        <id>/engine.sock              the program's own socket, if its requests are metered
        <id>/app/                     shown inside the sandbox if the program listens on a socket

The launcher makes an instance's control socket listen first and its directory then, which is the
mark that the id is used. So whoever sees the directory and is refused by the socket knows that the
supervisor is dead, whether or not it came to write its files.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tramontane.base.errors import InvalidRequest
from tramontane.domain.ids import InstanceId

SOCKET_PATH_BYTES_MAX = 107
"""``sizeof(sockaddr_un.sun_path)`` without the final zero byte."""

_ID_LENGTH_USUAL = 20
_REMEMBERED_S = 30 * 86_400
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class InstancePaths:
    """The paths of one instance."""

    state: Path
    run: Path

    @property
    def spec(self) -> Path:
        """What was asked for."""
        return self.state / "spec.json"

    @property
    def status(self) -> Path:
        """Newest observation."""
        return self.state / "status.json"

    @property
    def failure(self) -> Path:
        """Traceback of a supervisor that failed."""
        return self.state / "failure.log"

    @property
    def control(self) -> Path:
        """Control socket of the supervisor."""
        return self.run / "control.sock"

    @property
    def endpoint(self) -> Path:
        """Where the gateway connects."""
        return self.run / "in.sock"

    @property
    def engine(self) -> Path:
        """Where a meter connects, if one stands between the gateway and the program."""
        return self.run / "engine.sock"

    @property
    def app_directory(self) -> Path:
        """Shown inside the sandbox when the program listens on a Unix socket."""
        return self.run / "app"

    @property
    def app_socket(self) -> Path:
        """The socket the program itself makes."""
        return self.app_directory / "app.sock"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The paths of one runtime."""

    state: Path
    run: Path

    @property
    def launcher_socket(self) -> Path:
        """Where the launcher takes requests."""
        return self.run / "launcher.sock"

    @property
    def launcher_lock(self) -> Path:
        """Held by the one launcher."""
        return self.state / "launcher.lock"

    @property
    def launcher_log(self) -> Path:
        """Output of the launcher."""
        return self.state / "launcher.log"

    @property
    def instances(self) -> Path:
        """One directory per instance that was not removed."""
        return self.state / "instances"

    @property
    def ended(self) -> Path:
        """One empty file per instance that was removed."""
        return self.state / "ended"

    def instance(self, instance_id: InstanceId) -> InstancePaths:
        """Return the paths of one instance; the id must be a plain name."""
        if not _ID.fullmatch(instance_id):
            raise InvalidRequest(
                f"{instance_id!r} is no instance id: letters, digits, _ and - only", path="id"
            )
        return InstancePaths(state=self.instances / instance_id, run=self.run / instance_id)

    def ids(self) -> list[InstanceId]:
        """Return the ids of all instances that were not removed."""
        try:
            names = [entry.name for entry in os.scandir(self.instances)]
        except FileNotFoundError:
            return []
        return sorted(InstanceId(name) for name in names if _ID.fullmatch(name))

    def ensure(self) -> None:
        """Create the directories, private to this user."""
        for directory in (self.state, self.run, self.instances, self.ended):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.state, self.run):
            directory.chmod(0o700)


def check_run_directory(run: Path) -> None:
    """Raise ``InvalidRequest`` if socket paths below ``run`` would be too long."""
    longest = run / ("x" * _ID_LENGTH_USUAL) / "control.sock"
    excess = len(os.fsencode(longest)) - SOCKET_PATH_BYTES_MAX
    if excess > 0:
        raise InvalidRequest(
            f"run directory {run} is {excess} bytes too long for Unix sockets below it; "
            "choose a shorter one, such as one under /run/user or /tmp",
            path="run_directory",
        )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace ``path`` as a whole: a reader sees the old content or the new, never half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(value, file, separators=(",", ":"))
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in ``path``, or None if there is none."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def remove_instance(layout: Layout, paths: InstancePaths) -> None:
    """Delete the files of an ended instance, leaving only the mark that its id was used."""
    if not paths.state.exists():
        return
    mark = layout.ended / paths.state.name
    mark.touch(mode=0o600)
    shutil.rmtree(paths.run, ignore_errors=True)
    shutil.rmtree(paths.state, ignore_errors=True)


def forget_removed(layout: Layout, now: float) -> None:
    """Delete the marks of instances removed so long ago that nobody can ask for them again."""
    for mark in layout.ended.iterdir():
        if now - mark.stat().st_mtime > _REMEMBERED_S:
            mark.unlink(missing_ok=True)
