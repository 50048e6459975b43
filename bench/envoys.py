"""Envoys that are not the product's: the backend that answers, and the hand-written peer.

Their configurations are written as a person would who reads Envoy's documentation: nothing that
slows them down, nothing left out that the product's side has to do for the same job.
"""

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.load import Address, connect
from tramontane.gateway.envoy import find_binary

Config = dict[str, Any]
START_S = 20.0


def make_backend(addresses: Sequence[Address], body: str) -> Config:
    """Return an Envoy that gives one fixed JSON answer to everything, on several addresses.

    It reads requests whole: answered before, it would close the connection after each.
    """
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": body}},
        "response_headers_to_add": [
            {
                "header": {"key": "content-type", "value": "application/json"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }
    hosts = [{"name": "all", "domains": ["*"], "routes": [answer]}]
    whole = {
        "name": "envoy.filters.http.buffer",
        "typed_config": _typed(
            "envoy.extensions.filters.http.buffer.v3.Buffer", max_request_bytes=64 * 1024**2
        ),
    }
    listeners = [_make_listener(address, hosts, None, whole) for address in addresses]
    return {"static_resources": {"listeners": listeners}}


def make_static_proxy(
    port: int, hosts: Sequence[str], upstream: str, access_log: Path | None
) -> Config:
    """Return the peer of the gateway: a virtual host and a cluster per service, one socket."""
    virtual_hosts = [
        {
            "name": host,
            "domains": [host, f"{host}:*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": host, "timeout": "0s"}}],
        }
        for host in hosts
    ]
    clusters = [
        {
            "name": host,
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": {
                "cluster_name": host,
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": upstream}}}}]}
                ],
            },
        }
        for host in hosts
    ]
    listener = _make_listener(("127.0.0.1", port), virtual_hosts, access_log)
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@contextmanager
def run_envoy(
    config: Config, directory: Path, name: str, *, workers: int, address: Address
) -> Iterator[int]:
    """Run an Envoy with this configuration until the block ends; yield its process id."""
    file = directory / f"{name}.json"
    file.write_text(json.dumps(config, indent=1))
    command = [str(find_binary()), "--config-path", str(file), "--concurrency", str(workers)]
    command += ["--log-level", "warning", "--disable-hot-restart"]
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_listening(address, process, directory / f"{name}.log")
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_listening(
    address: Address, process: subprocess.Popen[bytes], log: Path, timeout_s: float = START_S
) -> None:
    """Return once somebody accepts connections there; raise with the log's end if it ended."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connect(address).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(errors="replace")[-1500:]
                raise RuntimeError(f"nobody listens on {address}: {end}") from None
            time.sleep(0.02)
        else:
            return


def _make_listener(
    address: Address, hosts: list[Config], access_log: Path | None, *filters_first: Config
) -> Config:
    manager = _typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="bench",
        route_config={"name": "bench", "virtual_hosts": hosts},
        http_filters=[
            *filters_first,
            {
                "name": "envoy.filters.http.router",
                "typed_config": _typed("envoy.extensions.filters.http.router.v3.Router"),
            },
        ],
        use_remote_address=True,
        stream_idle_timeout="0s",
    )
    if access_log is not None:
        log = _typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", path=str(access_log))
        manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": log}]
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    where: Config = (
        {"pipe": {"path": address}}
        if isinstance(address, str)
        else {"socket_address": {"address": address[0], "port_value": address[1]}}
    )
    return {"name": str(address), "address": where, "filter_chains": [{"filters": filters}]}


def _typed(name: str, **fields: object) -> Config:
    return {"@type": f"type.googleapis.com/{name}", **fields}
