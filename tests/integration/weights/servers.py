"""Real servers that tests start: an S3 server and an OCI registry, as processes of their own."""

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
