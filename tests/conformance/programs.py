"""Programs for the real runtimes, and specs that start them. Standard library Python only."""

import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tramontane.domain.artifact import Artifact, Listen, Mount
from tramontane.domain.definition import Probe, ProbeKind, Resources
from tramontane.domain.ids import InstanceId
from tramontane.runtimes.runtime import InstanceSpec

SERVER = """
import http.server, os, pathlib, signal, socketserver, sys
if "ignore" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sick = pathlib.Path(os.environ["HOME"], "sick")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"ok"
        self.send_response(503 if sick.exists() else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "client"
    def log_message(self, *arguments):
        pass
class Tcp(http.server.ThreadingHTTPServer):
    daemon_threads = True
class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
path = os.environ.get("TRAM_SOCKET")
server = Unix(path, Handler) if path else Tcp(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("serving", flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python, and what a sandbox must show for it to run."""

    path: str
    mounts: tuple[Mount, ...]


def find_interpreter() -> Interpreter:
    """Return the interpreter that runs the tests, as a sandbox can show it."""
    prefix = Path(sysconfig.get_config_var("installed_base")).resolve()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    path = str(prefix / "bin" / f"python{version}")
    if prefix.is_relative_to("/usr"):
        return Interpreter(path, ())
    return Interpreter(path, (Mount(source=str(prefix), target=str(prefix)),))


@dataclass(frozen=True)
class Programs:
    """Makes specs whose logs go below one directory."""

    directory: Path
    interpreter: Interpreter

    def python(
        self,
        instance_id: str,
        source: str,
        *arguments: str,
        probe: Probe | None = None,
        resources: Resources | None = None,
        listen: Listen = Listen.TCP,
        environment: Sequence[tuple[str, str]] = (),
        mounts: Sequence[Mount] = (),
        egress_socket: str | None = None,
        models_socket: str | None = None,
    ) -> InstanceSpec:
        """Return an instance that runs Python source."""
        command = (self.interpreter.path, "-I", "-S", "-c", source, *arguments)
        return self.command(
            instance_id,
            *command,
            probe=probe,
            resources=resources,
            listen=listen,
            environment=environment,
            mounts=mounts,
            egress_socket=egress_socket,
            models_socket=models_socket,
        )

    def command(
        self,
        instance_id: str,
        *command: str,
        probe: Probe | None = None,
        resources: Resources | None = None,
        listen: Listen = Listen.TCP,
        environment: Sequence[tuple[str, str]] = (),
        mounts: Sequence[Mount] = (),
        egress_socket: str | None = None,
        models_socket: str | None = None,
    ) -> InstanceSpec:
        """Return an instance that runs a command."""
        usual = Probe(kind=ProbeKind.HTTP, grace_s=15, interval_s=0.05, timeout_s=5, failures_max=2)
        return InstanceSpec(
            id=InstanceId(instance_id),
            label=f"test/{self.directory.name}#1",
            artifact=Artifact(
                digest="sha256:0",
                language="python",
                command=command,
                directory="/",
                mounts=(*self.interpreter.mounts, *mounts),
                listen=listen,
            ),
            command=command,
            environment=tuple(environment),
            resources=resources or Resources(),
            probe=probe or usual,
            log_path=str(self.directory / "logs" / f"{instance_id}.log"),
            egress_socket=egress_socket,
            models_socket=models_socket,
        )
