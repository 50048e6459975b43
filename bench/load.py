"""The load generator: HTTP/1.1 over kept-alive connections, as little Python as that takes.

A ``Load`` owns worker processes (apart from ours, so that measuring costs the measured nothing in
our event loop); each drives its connections from one ``epoll`` loop. Two shapes of load:

- *closed loop*: every connection sends the next request when its answer is complete. What comes
  out is the throughput; latencies are those of a saturated system.
- *fixed rate*: one connection, one request at a time, at a rate far below saturation. What comes
  out is the latency.

Every answer must be a 200 and complete; anything else fails the benchmark rather than colours it.
"""

import asyncio
import multiprocessing
import os
import select
import socket
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked: connection number n sends ``requests[n % len(requests)]`` over and over."""

    address: Address
    requests: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one slice of load gave."""

    requests: int
    """All requests, those before the measured window included."""
    per_s: float
    """Answers per second within the window."""
    latencies_ns: tuple[int, ...]


def make_request(
    host: str, path: str = "/", *, body: bytes | None = None, headers: dict[str, str] | None = None
) -> bytes:
    """Return one request as bytes."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"host: {host}"]
    lines += ["user-agent: bench", "accept: */*"]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class Load:
    """Worker processes that make load; use as ``with``."""

    def __init__(self, workers: int, cores: Sequence[int] | None) -> None:
        self._workers = workers
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_pin,
            initargs=(cores,),
        )

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    async def saturate(
        self, target: Target, *, connections: int, seconds: float, warm_s: float = 0.3
    ) -> Sample:
        """Run a closed loop on so many connections in all."""
        loop = asyncio.get_running_loop()
        each = max(1, connections // self._workers)
        parts = await asyncio.gather(
            *(
                loop.run_in_executor(self._pool, run_closed_loop, target, each, seconds, warm_s)
                for _ in range(self._workers)
            )
        )
        return Sample(
            requests=sum(part.requests for part in parts),
            per_s=sum(part.per_s for part in parts),
            latencies_ns=tuple(value for part in parts for value in part.latencies_ns),
        )

    async def pace(self, target: Target, *, rate: float, seconds: float) -> Sample:
        """Run at a fixed rate on one connection."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, run_fixed_rate, target, rate, seconds)


def run_closed_loop(target: Target, connections: int, seconds: float, warm_s: float) -> Sample:
    """Keep every connection busy for ``warm_s`` and then ``seconds``; count the latter."""
    clock = time.perf_counter_ns
    poller = select.epoll()
    socks = {sock.fileno(): sock for sock in (connect(target.address) for _ in range(connections))}
    requests = {
        number: target.requests[index % len(target.requests)] for index, number in enumerate(socks)
    }
    started, sent_at, partial = clock(), dict.fromkeys(socks, 0), dict[int, bytes]()
    opens, ends = started + int(warm_s * 1e9), started + int((warm_s + seconds) * 1e9)
    latencies, total, now = array("q"), 0, started
    for number, sock in socks.items():
        sock.setblocking(False)
        poller.register(number, select.EPOLLIN)
        sent_at[number] = clock()
        send(sock, requests[number])
    while now < ends:
        for number, _ in poller.poll(5.0) or give_up("no answer for 5 s"):
            sock = socks[number]
            data = sock.recv(262144) or give_up("the connection was closed")
            if number in partial:
                data = partial.pop(number) + data
            if not is_complete(data):
                partial[number] = data
                continue
            now = clock()
            total += 1
            if opens <= now < ends:
                latencies.append(now - sent_at[number])
            sent_at[number] = now
            send(sock, requests[number])
    for sock in socks.values():
        sock.close()
    return Sample(requests=total, per_s=len(latencies) / seconds, latencies_ns=tuple(latencies))


def run_fixed_rate(target: Target, rate: float, seconds: float) -> Sample:
    """Send one request every ``1 / rate`` seconds; a late answer delays, it is not skipped."""
    clock, request = time.perf_counter_ns, target.requests[0]
    latencies = array("q")
    with connect(target.address) as sock:
        for _ in range(5):
            exchange(sock, request)
        due, ends = clock(), clock() + int(seconds * 1e9)
        while due < ends:
            time.sleep(max(0.0, (due - clock()) / 1e9))
            began = clock()
            exchange(sock, request)
            latencies.append(clock() - began)
            due += int(1e9 / rate)
    return Sample(
        requests=len(latencies), per_s=len(latencies) / seconds, latencies_ns=tuple(latencies)
    )


def exchange(sock: socket.socket, request: bytes) -> bytes:
    """Send one request and return its whole answer."""
    send(sock, request)
    data = b""
    while not data or not is_complete(data):
        data += sock.recv(262144) or give_up("the connection was closed")
    return data


def connect(address: Address) -> socket.socket:
    """Return a connection; answers that take more than 30 s are none."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(30.0)
    sock.connect(address)
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def send(sock: socket.socket, request: bytes) -> None:
    """Send a small request at once."""
    assert sock.send(request) == len(request), "requests must fit into the socket's buffer"


def is_complete(data: bytes) -> bool:
    """Return whether an answer is there as a whole; raises if it is not a 200."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    if not data.startswith(b"HTTP/1.1 200"):
        give_up(f"answered {data[:500]!r}")
    head = data[:head_end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return head.find(b"chunked") > 0 and data.endswith(b"\r\n0\r\n\r\n")
    line_end = head.find(b"\r\n", at + 17)
    length = int(head[at + 17 : line_end if line_end > 0 else head_end])
    return len(data) >= head_end + 4 + length


def give_up(why: str) -> NoReturn:
    """Raise: a benchmark that met a failure has no result."""
    raise RuntimeError(f"the load generator gave up: {why}")


def _pin(cores: Sequence[int] | None) -> None:
    if cores:
        os.sched_setaffinity(0, cores)
