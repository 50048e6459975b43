"""A model hub of the test's own: the part of Hugging Face's HTTP API that serves a repository.

Two servers: the hub, and the delivery network that large files are redirected to. What goes wrong
is configuration (``Faults``). Every request is kept, with its headers. ``test_weights_hub`` lets
the real ``huggingface_hub`` download from it, which shows that it has the real hub's shape.
"""

import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".gguf", ".safetensors", ".bin")
"""Stored by their sha256 and delivered by redirect, as the hub does with large files."""
CHUNK_BYTES = 16_384


@dataclass
class Repository:
    """One model repository: each commit is a set of files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str = ""
    """Needed to see it."""
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit and return its name."""
        told = [sorted((name, _sha256(data)) for name, data in files.items()), len(self.commits)]
        name = hashlib.sha1(json.dumps(told).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.branches[branch] = name
        return name


@dataclass
class Faults:
    """What goes wrong; changed by tests at any time."""

    bytes_per_s: float = 0.0
    """Of each connection; 0: as fast as it goes."""
    cut_after: int = 0
    """Close the connection after so many bytes of a file; 0: never."""
    ranges: bool = True
    names_only: bool = False
    """List names without sizes and checksums, as some mirrors do."""
    trees_only: bool = False
    """List files by the call that lists trees alone."""
    spoil: str = ""
    """Send other bytes for this file."""
    statuses: list[int] = field(default_factory=list)
    """Answer the next requests for files with these."""
    api: bool = True
    """Answer in the form of a hub."""


@dataclass(frozen=True)
class Asked:
    """One request."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Hub:
    """A hub that runs."""

    endpoint: str
    delivery: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    asked: list[Asked] = field(default_factory=list)
    bytes_sent: int = 0

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def asked_for(self, part: str) -> list[Asked]:
        return [each for each in self.asked if part in each.path]


@contextmanager
def run_hub() -> Iterator[Hub]:
    """Run a hub and its delivery network until the block ends."""
    servers = [Server(("127.0.0.1", 0), Handler) for _ in range(2)]
    places = [f"http://127.0.0.1:{each.server_address[1]}" for each in servers]
    hub = Hub(endpoint=places[0], delivery=places[1])
    threads = []
    for server, name in zip(servers, ("hub", "delivery"), strict=True):
        server.hub, server.name = hub, name
        threads.append(threading.Thread(target=server.serve_forever, args=(0.05,)))
        threads[-1].start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    hub: Hub
    name: str

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that were killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride] - ours by construction

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.hub.asked.append(Asked(self.server.name, self.command, self.path, headers))
        try:
            if self.server.name == "delivery":
                self._deliver(path)
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                self._list(found[1], found[2] or "main")
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
                self._list_tree(found[1], found[2])
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+(?:/pr/\d+)?)/(.+)", path):
                self._resolve(*found.groups())
            else:
                self._refuse(404, "")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def _find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.hub.repositories.get(name)
        sent = self.headers.get("authorization", "")
        if repository is None or (repository.token and sent != f"Bearer {repository.token}"):
            self._refuse(401, "RepoNotFound")
            return None
        if repository.gated:
            self._refuse(403, "GatedRepo")
            return None
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return commit, repository.commits[commit]

    def _list(self, name: str, revision: str) -> None:
        if not self.hub.faults.api:
            self._send(200, b"<html>hello</html>", {"Content-Type": "text/html"})
            return
        if (found := self._find(name, revision)) is None:
            return
        commit, files = found
        bare = self.hub.faults.names_only or "blobs" not in self.path
        listed = [_list_file(file, data, bare=bare) for file, data in sorted(files.items())]
        if self.hub.faults.trees_only:
            listed = []
        document = {"id": name, "modelId": name, "sha": commit, "siblings": listed, "tags": []}
        document |= {"private": False, "downloads": 0}
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _list_tree(self, name: str, revision: str) -> None:
        if (found := self._find(name, revision)) is None:
            return
        listed = [{"type": "directory", "path": "original", "size": 0, "oid": "0" * 40}]
        for file, data in sorted(found[1].items()):
            entry = {"type": "file", "path": file, "size": len(data), "oid": _git(data)}
            large = {"oid": _sha256(data), "size": len(data), "pointerSize": 134}
            listed.append({**entry, "lfs": large} if file.endswith(LARGE) else entry)
        self._send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if (found := self._find(name, revision)) is None:
            return
        commit, files = found
        if file not in files:
            self._refuse(404, "EntryNotFound")
            return
        data = files[file]
        known = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not file.endswith(LARGE):
            self._send_file(data, {**known, "ETag": f'"{_git(data)}"'})
            return
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{_sha256(data)}"'}
        place = f"{self.hub.delivery}/{_sha256(data)}/{file}?signature=secret"
        self._send(302, b"", {**known, **linked, "Location": place})

    def _deliver(self, path: str) -> None:
        _, sha256, file = path.split("/", 2)
        for repository in self.hub.repositories.values():
            for files in repository.commits.values():
                if file in files and _sha256(files[file]) == sha256:
                    data = files[file]
                    if self.hub.faults.spoil == file:
                        data = bytes(reversed(data))
                    self._send_file(data, {"ETag": f'"{sha256}"'})
                    return
        self._refuse(404, "")

    def _send_file(self, data: bytes, headers: Mapping[str, str]) -> None:
        faults = self.hub.faults
        if faults.statuses and self.command == "GET":
            self._refuse(faults.statuses.pop(0), "", {"Retry-After": "0"})
            return
        start, end, status = 0, len(data), 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if wanted and faults.ranges:
            start, status = int(wanted[1]), 206
            end = min(int(wanted[2] or len(data)) + 1, len(data))
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        self._send(status, data[start:end], headers)

    def _refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        named = {"X-Error-Code": code} if code else {}
        self._send(status, b'{"error": "no"}', {**named, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        is_file = status in {200, 206} and "ETag" in headers
        if is_file:
            self._trickle(body)
        else:
            self.wfile.write(body)

    def _trickle(self, body: bytes) -> None:
        faults = self.hub.faults
        cut = faults.cut_after or len(body)
        for at in range(0, min(len(body), cut), CHUNK_BYTES):
            chunk = body[at : min(at + CHUNK_BYTES, cut)]
            self.wfile.write(chunk)
            self.hub.bytes_sent += len(chunk)
            if faults.bytes_per_s:
                self.wfile.flush()
                time.sleep(len(chunk) / faults.bytes_per_s)
        if cut < len(body):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


def _list_file(name: str, data: bytes, *, bare: bool) -> dict[str, object]:
    if bare:
        return {"rfilename": name}
    listed: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": _git(data)}
    if name.endswith(LARGE):
        listed["lfs"] = {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}
    return listed


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
