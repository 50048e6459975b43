"""Real servers that tests start: an S3 server and an OCI registry, as processes of their own."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config

from tests.e2e.platform import free_port, wait_for

ACCESS_KEY, SECRET_KEY = "tramontane", "a-secret-of-the-store"


@dataclass(frozen=True)
class S3Server:
    """An S3 server that runs."""

    endpoint: str
    checks_signatures: bool

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}),
        )


@contextmanager
def running(command: Sequence[str], url: str, log: Path, **environment: str) -> Iterator[None]:
    """Run a server until the block ends; it is up when its address answers anything at all."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=output, stderr=output
        )

        def answers() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")
            try:
                httpx.get(url, trust_env=False)
            except httpx.TransportError:
                return False
            return True

        try:
            wait_for(answers, f"{command[0]} to answer")
            yield
        finally:
            process.kill()
            process.wait()


@contextmanager
def run_moto(folder: Path) -> Iterator[S3Server]:
    """Run moto's server: the S3 protocol in Python; it lets every signature pass."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, endpoint, folder / "moto.log"):
        yield S3Server(endpoint, checks_signatures=False)


@contextmanager
def run_versitygw(folder: Path) -> Iterator[S3Server]:
    """Run versitygw: S3 over a directory, in production at its makers; it checks signatures."""
    program = shutil.which("versitygw")
    if program is None:
        pytest.skip(
            "no versitygw on PATH; get it with: "
            "go install github.com/versity/versitygw/cmd/versitygw@v1.0.14"
        )
    data, port = folder / "data", free_port()
    data.mkdir()
    endpoint = f"http://127.0.0.1:{port}"
    command = [program, "--port", f"127.0.0.1:{port}", "posix", str(data)]
    secrets = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    with running(command, endpoint, folder / "versitygw.log", **secrets):
        yield S3Server(endpoint, checks_signatures=True)


def find_registry(cache: Path) -> str:
    """Return Debian's registry: from PATH, or unpacked from its package, which needs no root."""
    if program := shutil.which("docker-registry"):
        return program
    unpacked = cache / "usr/bin/docker-registry"
    if not unpacked.exists():
        for command in (
            ["apt-get", "download", "docker-registry"],
            ["sh", "-c", "dpkg -x docker-registry_*.deb ."],
        ):
            done = subprocess.run(command, cwd=cache, capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(
                    "no docker-registry on PATH, and no package of it: "
                    f"{(done.stderr or done.stdout).strip().splitlines()[-1:]}; "
                    "get it with: apt install docker-registry"
                )
    return str(unpacked)


@dataclass(frozen=True)
class RegistryServer:
    """A registry that runs, open to all who come from this machine."""

    host: str
    folder: Path

    def push(
        self,
        repository: str,
        tag: str,
        layers: Sequence[tuple[bytes, str, dict[str, str]]],
        **manifest: Any,
    ) -> str:
        """Push an artifact of layers (content, media type, annotations); return its digest."""
        with httpx.Client(trust_env=False) as sender:
            listed = [
                {
                    **self._upload(sender, repository, content),
                    "mediaType": kind,
                    "annotations": notes,
                }
                for content, kind, notes in layers
            ]
            empty = self._upload(sender, repository, b"{}")
            kind = "application/vnd.oci.image.manifest.v1+json"
            document = {
                "schemaVersion": 2,
                "mediaType": kind,
                "config": {**empty, "mediaType": "application/vnd.oci.empty.v1+json"},
                "layers": listed,
                **manifest,
            }
            return self.put_manifest(sender, repository, tag, document)

    def put_manifest(
        self, sender: httpx.Client, repository: str, tag: str, document: dict[str, Any]
    ) -> str:
        answer = sender.put(
            f"http://{self.host}/v2/{repository}/manifests/{tag}",
            content=json.dumps(document).encode(),
            headers={"Content-Type": document["mediaType"]},
        )
        assert answer.status_code == 201, answer.text
        return answer.headers["Docker-Content-Digest"]

    def _upload(self, sender: httpx.Client, repository: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        begun = sender.post(f"http://{self.host}/v2/{repository}/blobs/uploads/")
        assert begun.status_code == 202, begun.text
        place = begun.headers["Location"]
        done = sender.put(
            f"{place}{'&' if '?' in place else '?'}digest={digest}",
            content=content,
            headers={"Content-Type": "application/octet-stream"},
        )
        assert done.status_code == 201, done.text
        return {"digest": digest, "size": len(content)}


@contextmanager
def run_registry(program: str, folder: Path, auth: dict[str, Any]) -> Iterator[RegistryServer]:
    """Run a registry over a folder; ``auth`` is that part of its configuration."""
    host = f"localhost:{free_port()}"
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": host, "secret": "of this test"},
        **({"auth": auth} if auth else {}),
    }
    file = folder / f"{host.rpartition(':')[2]}.yml"
    file.write_text(json.dumps(config))
    with running([program, "serve", str(file)], f"http://{host}/v2/", folder / "registry.log"):
        yield RegistryServer(host, folder)
