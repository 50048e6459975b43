"""A real platform for end-to-end tests: driven by ``tram``, seen through the gateway."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRAM = Path(sys.executable).with_name("tram")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """Return the first true value of ``condition``; fail saying what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}; last: {value!r}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return "gone meanwhile"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Platform:
    """One platform with a home of its own; ``tram`` runs the command line against it."""

    home: Path
    gateway_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)
    flags: tuple[str, ...] = ("--country", "DE", "--operator", "Test operator")

    def tram(
        self, *arguments: str | Path, check: int | None = 0, timeout_s: float = 180.0, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [TRAM, *map(str, arguments)],
            env={**os.environ, "TRAM_HOME": str(self.home), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            **more,
        )
        if check is not None:
            assert done.returncode == check, (
                f"tram {' '.join(map(str, arguments))} ended with {done.returncode}\n"
                f"{done.stdout}\n{done.stderr}\n{self.control_log()}"
            )
        return done

    def read(self, *arguments: str) -> Any:
        return json.loads(self.tram(*arguments, "-o", "json").stdout)

    def up(self) -> None:
        self.tram(
            "up",
            "--detach",
            "--gateway",
            f"127.0.0.1:{self.gateway_port}",
            "--api",
            f"127.0.0.1:{self.api_port}",
            *self.flags,
        )

    def down(self) -> None:
        self.tram("down")

    def service(self, name: str) -> Any:
        return self.read("services", "get", name)

    def wait_status(self, name: str, *statuses: str, timeout_s: float = 30.0) -> Any:
        def look() -> Any:
            found = self.service(name)
            return found if found["status"] in statuses else None

        return wait_for(look, f"{name} to be {' or '.join(statuses)}", timeout_s)

    def request(
        self,
        service: str,
        path: str = "/",
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 60.0,
        project: str = "default",
    ) -> Answer:
        """Send one request through the gateway to a service by its host name."""
        host = f"{service}.{project}.localhost:{self.gateway_port}" if service else "localhost"
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway_port, timeout=timeout_s)
        try:
            connection.request(method, path, body=body, headers={"Host": host, **(headers or {})})
            response = connection.getresponse()
            data = response.read()
            found = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, found, data)
        finally:
            connection.close()

    def control_pid(self) -> int:
        return self.read("status")["control_plane"]["pid"]

    def kill_control(self) -> int:
        pid = self.control_pid()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), "the control plane to be gone")
        return pid

    def processes(self) -> Iterator[int]:
        """Yield every process that belongs to this platform, by its home or its sockets."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes()
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue
                if str(self.home).encode() in line and alive(int(entry.name)):
                    yield int(entry.name)

    def complaints(self) -> list[str]:
        """Return what the control plane's log tells beside the course of things."""
        lines = (self.home / "control.log").read_text().splitlines()
        return [line for line in lines if " INFO " not in line and not line.startswith("{")]

    def control_log(self) -> str:
        file = self.home / "control.log"
        return file.read_text(errors="replace")[-4000:] if file.exists() else ""
