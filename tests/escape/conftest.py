"""The bed of the conformance suite, and things outside that a sandbox must not reach."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.beds import ProcessBed
from tests.conformance.conftest import bed, directory
from tests.conformance.programs import SERVER
from tramontane.domain.ids import InstanceId

__all__ = ["bed", "directory", "outside"]


@pytest.fixture
def outside(directory: Path) -> Iterator[dict[str, Any]]:
    """Things outside the sandbox, and a process whose environment holds a password."""
    password = secrets.token_hex(16)
    private, public = directory / "private", directory / "public"
    private.write_text(password)
    private.chmod(0o600)
    public.write_text(password)
    public.chmod(0o644)
    listener = socket.create_server(("127.0.0.1", 0))
    abstract = f"tram-test-{password}"
    abstract_listener = socket.socket(socket.AF_UNIX)
    abstract_listener.bind("\0" + abstract)
    abstract_listener.listen()
    victim = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "input()"],
        stdin=subprocess.PIPE,
        env={"PASSWORD": password},
    )
    port = listener.getsockname()[1]
    yield {
        "file": str(private),
        "public": str(public),
        "state": str(directory / "state"),
        "run": str(directory / "run"),
        "control": str(directory / "run" / "ins_neighbour" / "control.sock"),
        "password": password,
        "port": port,
        "port_hex": f":{port:04X}",
        "abstract": abstract,
        "victim": victim.pid,
        "uid": os.getuid(),
    }
    assert victim.poll() is None, "the victim was hit"
    victim.kill()
    victim.communicate()
    listener.close()
    abstract_listener.close()


@pytest.fixture
async def neighbour(bed: ProcessBed, outside: dict[str, Any]) -> InstanceId:
    """Another instance, whose environment holds the password."""
    spec = bed.programs.python(
        "ins_neighbour", SERVER, environment=(("PASSWORD", outside["password"]),)
    )
    await bed.runtime.start(spec)
    return spec.id
