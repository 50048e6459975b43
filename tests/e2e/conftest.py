"""One platform per module, in a short-lived home; torn down whatever happens."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.platform import Platform, command_of, wait_for

APP = """
import asyncio, os, time
STARTED = time.time()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path, query = scope["path"], scope["query_string"].decode()
    if path == "/slow":
        await asyncio.sleep(float(query or 1))
    if path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(int(query or 5)):
            await send({"type": "http.response.body", "body": b"%d\\n" % number, "more_body": True})
            await asyncio.sleep(0.5)
        await send({"type": "http.response.body", "body": b"end\\n"})
        return
    if path == "/crash":
        os._exit(3)
    if path == "/log":
        print("said", query, flush=True)
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    text = f"VERSION {os.getpid()} {len(body)}".encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text})
"""


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running_platform() as platform:
        yield platform


@contextmanager
def running_platform(*flags: str) -> Iterator[Platform]:
    """Run a platform started with these flags besides the usual ones."""
    home = Path(tempfile.mkdtemp(prefix="tram-e2e-"))
    platform = Platform(home=home / "home")
    platform.flags = (*platform.flags, *flags)
    platform.up()
    try:
        yield platform
    finally:
        platform.tram("down", check=None)
        try:
            wait_for(
                lambda: not list(platform.processes()),
                f"the last processes to end: {list(map(command_of, platform.processes()))}",
                timeout_s=5,
            )
        finally:
            shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def app_source(tmp_path: Path) -> Path:
    """A directory with a small ASGI app that answers ``v1 <pid> <body length>``."""
    return write_app(tmp_path / "app", "v1")


def write_app(directory: Path, version: str, manifest: str = "") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "main.py").write_text(APP.replace("VERSION", version))
    (directory / "requirements.txt").write_text("")
    if manifest:
        (directory / "tramontane.yaml").write_text(manifest)
    return directory
