"""The real engine on a made-up model, without a platform: started as a sandbox would, and asked."""

import http.client
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tramontane.engines.llamacpp import size_arguments
from tramontane.plan.sizing import Sizing

WORDS_FROM = 260
"""Ids below are special tokens and bytes in every vocabulary of ``tests.model_files``."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(300)
        self.sock.connect(self._path)


class Engine:
    """One running engine."""

    def __init__(self, pid: int, address: str) -> None:
        self.pid = pid
        self.address = address

    def text(self, path: str) -> str:
        """Return what is there, which need not be JSON."""
        connection = _UnixConnection(self.address)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def ask(self, path: str, body: object = None) -> Any:
        """Send a body, or ask for what is there; return the answer, which must be a good one."""
        connection = _UnixConnection(self.address)
        try:
            headers = {"Content-Type": "application/json"}
            method = "GET" if body is None else "POST"
            connection.request(method, path, json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, content.decode(errors="replace")
        return json.loads(content)

    def complete(self, tokens: Sequence[int], slot: int | None = None) -> Any:
        body = {"prompt": list(tokens), "n_predict": 4, "ignore_eos": True}
        return self.ask("/completion", body if slot is None else body | {"id_slot": slot})

    def embed(self, tokens: Sequence[int]) -> Any:
        return self.ask("/v1/embeddings", {"input": [list(tokens)]})

    @property
    def peak_bytes(self) -> int:
        """The most memory that was ever resident, as the kernel counts it."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(each for each in status.splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024


def in_parallel(count: int, work: Callable[[int], object]) -> None:
    """Call ``work`` with each number below ``count`` at the same time; raise what one raises."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


@contextmanager
def serving(model: Path, sizing: Sizing, directory: Path) -> Iterator[Engine]:
    """Serve a model with the program, the arguments and the imports that a sandbox has."""
    library, program = find_spec("xllamacpp"), find_spec("tramontane.engines.llamacpp_server")
    assert library is not None
    assert library.origin is not None
    assert program is not None
    assert program.origin is not None
    home = directory / "engine"
    home.mkdir()
    shutil.copy(program.origin, home / "serve.py")
    (home / "xllamacpp").symlink_to(Path(library.origin).parent)
    address = str(directory / "app.sock")
    command = [sys.executable, "-S", "-E", str(home / "serve.py"), str(model), "made-up"]
    with (directory / "stderr").open("wb") as log:
        process = subprocess.Popen(
            [*command, *size_arguments(sizing)],
            env={"TRAM_SOCKET": address},
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith(b"serving"), (directory / "stderr").read_text(errors="replace")
        yield Engine(process.pid, address)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
