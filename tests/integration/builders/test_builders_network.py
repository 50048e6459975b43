"""How builds get to their packages: through the one way out, whatever this machine's own way is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.builders.running import Bench
from tramontane.builders.settings import Isolation
from tramontane.domain.definition import BuildOptions
from tramontane.domain.route import EgressBounds
from tramontane.processes.network import read_own_networks

pytestmark = pytest.mark.timeout(60)

FETCH = """
import os, sys, urllib.error, urllib.request
print("knows", [value for name, value in os.environ.items() if "hunter2" in value])
for url in sys.argv[1:]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            print(url, answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        print(url, error.code, error.read().decode().strip())
    except OSError as error:
        print(url, error)
"""
OWN_SERVER = """
import http.server, threading, urllib.request
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("own", urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/main.py").status)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    if made.isolation is Isolation.NONE:
        pytest.skip("this machine allows no sandbox for builds")
    made.bounds = EgressBounds(own=read_own_networks())
    return made


@asynccontextmanager
async def serve(heads: list[str]) -> AsyncIterator[int]:
    """Answer every request on this machine's loopback, and note its head."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npackages")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def fetch(bench: Bench, source: Path, *urls: str, program: str = FETCH) -> list[str]:
    (source / "main.py").write_text("")
    (source / "fetch.py").write_text(program)
    command = f"python fetch.py {' '.join(urls)}"
    await bench.build(source, BuildOptions(language="python", command=command))
    return bench.lines


async def test_a_mirror_that_the_operator_names_is_reached(bench: Bench, source: Path) -> None:
    heads: list[str] = []
    async with serve(heads) as port, serve([]) as other:
        bench.environment = {"UV_DEFAULT_INDEX": f"http://127.0.0.1:{port}/simple"}
        mirror, closed = f"http://127.0.0.1:{port}/simple/x", f"http://127.0.0.1:{other}/"
        lines = await fetch(bench, source, mirror, closed)
    assert f"{mirror} 200 packages" in lines
    assert heads[0].startswith("GET /simple/x HTTP/1.1\r\n")
    assert any(line.startswith(f"{closed} 403 ") for line in lines)
    assert f"network: 127.0.0.1:{port}" in lines
    denied = f"network: denied 127.0.0.1:{other}: it is this machine's own address"
    assert lines.count(denied) == 1


async def test_the_operators_proxy_is_used_and_its_password_stays_with_us(
    bench: Bench, source: Path
) -> None:
    heads: list[str] = []
    async with serve(heads) as port:
        bench.environment = {"HTTP_PROXY": f"http://me:hunter2@127.0.0.1:{port}"}
        registry = "http://registry.invalid/simple/"
        here = (f"http://127.0.0.2:{port}/", "http://[::ffff:127.0.0.1]/", "http://127.1/")
        lines = await fetch(bench, source, registry, *here)
    assert f"{registry} 200 packages" in lines
    assert heads[0].startswith("GET http://registry.invalid:80/simple/ HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic bWU6aHVudGVyMg==\r\n" in heads[0]
    assert "knows []" in lines
    # On this machine the proxy would be asked for this machine.
    assert [line.split()[1] for line in lines if line.startswith(here)] == ["403"] * 3
    assert len(heads) == 1


async def test_a_step_reaches_what_it_starts_itself(bench: Bench, source: Path) -> None:
    assert "own 200" in await fetch(bench, source, program=OWN_SERVER)
