"""A whole platform to measure: brought up and driven by ``tram``, in a home of its own."""

import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.platform import Platform

from bench.load import connect, give_up, make_request
from tramontane import Client

EXAMPLES = Path(__file__).parents[1] / "examples"
PROJECT = "default"


@contextmanager
def run_platform() -> Iterator[Platform]:
    """Run a platform until the block ends; nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    platform = Platform(home=folder / "home", flags=("--country", "DE", "--operator", "Bench"))
    platform.up()
    try:
        yield platform
    finally:
        platform.tram("down", check=None)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_client(platform: Platform) -> Iterator[Client]:
    """Talk to the platform's API from this process: starting ``tram`` each time takes longer."""
    with Client(home=platform.home) as client:
        yield client


def put_to_sleep(client: Client, names: list[str]) -> None:
    """Scale services to zero and return when no instance of them is left."""
    for name in names:
        client.scale_service(PROJECT, name, 0)
    for name in names:
        wait_for(lambda name=name: is_asleep(client, name), f"{name} to sleep")


def is_asleep(client: Client, name: str) -> bool:
    """Return whether a service is at zero."""
    service = client.get_service(PROJECT, name)
    return service.status == "sleeping" and not service.instances


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.05)


def time_first_byte(
    platform: Platform, service: str, path: str = "/", headers: dict[str, str] | None = None
) -> float:
    """Ask a service through the gateway; return the seconds until the first byte of a 200."""
    host = f"{service}.{PROJECT}.localhost:{platform.gateway_port}"
    request = make_request(host, path, headers={"connection": "close", **(headers or {})})
    began = time.perf_counter()
    with connect(("127.0.0.1", platform.gateway_port)) as sock:
        sock.sendall(request)
        first = sock.recv(65536)
        took_s = time.perf_counter() - began
        if not first.startswith(b"HTTP/1.1 200"):
            give_up(f"{service} answered {first[:500]!r}")
        while sock.recv(65536):
            pass
    return took_s


def read_rows(platform: Platform, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return rows of the platform's own database."""
    with closing(sqlite3.connect(platform.home / "tramontane.db")) as database:
        return database.execute(query, values).fetchall()


def run_tram(platform: Platform, *arguments: str) -> float:
    """Run ``tram`` and return the seconds it took, as a person sees it."""
    began = time.perf_counter()
    done: subprocess.CompletedProcess[str] = platform.tram(*arguments)
    assert done.returncode == 0
    return time.perf_counter() - began
