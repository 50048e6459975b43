"""A whole ``tram`` without sockets, processes or waiting: a fake API behind the real commands."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tramontane.base.errors import NotFound, TramontaneError, Unavailable
from tramontane.cli.main import run
from tramontane.cli.session import Session, Terminal
from tramontane.testing.clocks import FakeClock
from tramontane.wire.calls import PREFIX, Call

API = "http://127.0.0.1:8081"
GATEWAY = "http://127.0.0.1:8080"
Answer = object | Callable[[Call], object]


class FakeApi:
    """Answers by method and path; a list under ``script`` is played one answer per call."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {"GET aliases": []}
        self.calls: list[Call] = []
        self.tokens: list[str | None] = []
        self.down = False

    def on(self, method: str, path: str, answer: Answer) -> None:
        """Answer a call; an exception is raised, a function is called, the rest is returned."""
        self.answers[f"{method} {path}"] = answer

    def script(self, method: str, path: str, answers: Sequence[object]) -> None:
        """Answer each call with the next one; the last stays."""
        rest = list(answers)
        self.on(method, path, lambda _: rest.pop(0) if len(rest) > 1 else rest[0])

    def connect(self, address: str, token: str | None) -> "FakeApi":
        if self.down:
            raise Unavailable(f"no platform answers at {address}: start one with `tram up`")
        self.tokens.append(token)
        return self

    def fetch(self, call: Call) -> Any:
        self.calls.append(call)
        key = f"{call.method} {call.path.removeprefix(PREFIX + '/')}"
        if key not in self.answers:
            raise NotFound(f"nothing at {key}")
        answer = self.answers[key]
        if callable(answer):
            answer = answer(call)
        if isinstance(answer, TramontaneError):
            raise answer
        return answer

    def stream(self, call: Call) -> Iterator[bytes]:
        for each in self.fetch(call):
            yield each if isinstance(each, bytes) else json.dumps(each).encode()

    def sent(self, method: str, path: str) -> Any:
        """Return the JSON body of the last call to this path."""
        for call in reversed(self.calls):
            if (call.method, call.path.removeprefix(PREFIX + "/")) == (method, path):
                return json.loads(call.body or b"null")
        raise AssertionError(f"{method} {path} was not called")


class FakeChild:
    def __init__(self, lines: Sequence[str], exit_status: int | None) -> None:
        self._lines = [f"{line}\n" for line in lines]
        self._exit_status = exit_status
        self.stdout = self

    def readline(self) -> str:
        return self._lines.pop(0) if self._lines else ""

    def poll(self) -> int | None:
        return self._exit_status

    def wait(self) -> int:
        return self._exit_status or 0


@dataclass
class FakeProcesses:
    """What the platform's own processes would print."""

    outputs: dict[str, tuple[int, str]] = field(default_factory=dict)
    lines: Sequence[str] = ()
    exit_status: int | None = None
    started: list[list[str]] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    on_start: Callable[[], object] = lambda: None

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        self.started.append(list(command))
        return self.outputs.get(command[1], (0, ""))

    def start(
        self, command: Sequence[str], *, log: Path | None, secrets: Mapping[str, str]
    ) -> FakeChild:
        self.started.append(list(command))
        self.secrets = dict(secrets)
        if log is not None:
            log.write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8")
        self.on_start()
        return FakeChild(self.lines, self.exit_status)


@dataclass
class Result:
    """How one run ended."""

    code: int
    out: str
    err: str


class Tram:
    """Runs ``tram`` with fakes around it."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.api = FakeApi()
        self.clock = FakeClock()
        self.processes = FakeProcesses()
        self.terminal = Terminal()
        self._capsys = capsys

    def write_home(self) -> None:
        self.home.mkdir(exist_ok=True)
        addresses = {"api": API, "gateway": GATEWAY, "domain": "localhost"}
        (self.home / "platform.json").write_text(json.dumps(addresses))
        (self.home / "credentials").write_text("secret\n")

    def __call__(self, *arguments: str) -> Result:
        session = Session(
            environment={},
            home=self.home,
            clock=self.clock,
            pause=self.clock.advance,
            connect=self.api.connect,
            processes=self.processes,
            terminal=self.terminal,
        )
        code = run(arguments, session)
        printed = self._capsys.readouterr()
        return Result(code, printed.out, printed.err)


def make_instance(**changes: object) -> dict[str, Any]:
    return {
        "id": "ins_1",
        "status": "healthy",
        "cell": "local",
        "deployment": 1,
        "reason": "healthy",
        "message": "",
        "created_at": 1700000000.0,
        "ready_at": 1700000001.0,
        "pid": 4242,
        **changes,
    }


def make_service(**changes: object) -> dict[str, Any]:
    return {
        "id": "svc_1",
        "project": "default",
        "name": "hello",
        "kind": "web",
        "status": "healthy",
        "reason": "healthy",
        "message": "1 instance ready",
        "url": "http://hello.default.localhost:8080",
        "generation": 1,
        "deployment": 1,
        "serving_deployment": 1,
        "policy": ["eu"],
        "created_at": 1700000000.0,
        "instances": [make_instance()],
        "instances_min": 0,
        "instances_max": 5,
        **changes,
    }


def make_deployment(status: str, **changes: object) -> dict[str, Any]:
    return {
        "id": "dep_1",
        "service": "hello",
        "project": "default",
        "number": 1,
        "status": status,
        "reason": status,
        "message": "",
        "created_at": 1700000000.0,
        "serving": status == "healthy",
        "definition": {"kind": "web", "environment": {"KEY": None}, "probe": {"grace_s": 60}},
        "warnings": [],
        **changes,
    }
