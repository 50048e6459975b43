"""Serves one GGUF file with llama.cpp's own server: the program inside a model's sandbox.

``engines.llamacpp`` runs it as a lone file, with nothing importable but the standard library and
``xllamacpp``, hence no imports from Tramontane here. Arguments: the weights, the model's name, and
what ``plan.sizing`` chose, as JSON.
"""

# xllamacpp is a compiled module without type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

if library := os.environ.get("TRAM_ENGINE_LIBRARY"):
    # In a sandbox it lies beside this file; without one, wherever it was installed.
    sys.path.insert(0, str(Path(library).parent))

import xllamacpp

SIZE: dict[str, int] = {
    "context_tokens": 4096,
    "parallel": 4,
    "threads": len(os.sched_getaffinity(0)),
    "batch_tokens": 512,
    "prompt_cache_bytes": 0,
    "checkpoints": 0,
    "embeddings": 1,
}
"""For a model that was prepared by an earlier version and was sized by nobody."""
CONNECTIONS = 128
"""The server gives each open connection a thread; too few, and idle ones starve the busy."""
DRAIN_S = 60.0


def main() -> None:
    """Serve until SIGTERM, then let what is being generated come to its end."""
    weights, alias, *chosen = sys.argv[1:]
    size = SIZE | json.loads(chosen[0] if chosen else "{}")
    address = os.environ["TRAM_SOCKET"]
    # A socket file that is left over makes the server refuse to start.
    Path(address).unlink(missing_ok=True)
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.model_alias = {alias}
    params.hostnames = [address]
    params.n_threads_http = CONNECTIONS
    apply_size(params, size)
    params.endpoint_metrics = True
    params.ui = False
    params.use_jinja = True
    params.verbosity = 0
    # Blocked before the server makes its threads, so that sigwait below is the only taker.
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    server = xllamacpp.Server(params)
    print(f"serving {alias} on {server.listening_address}", flush=True)
    signal.sigwait(stop)
    deadline = time.monotonic() + DRAIN_S
    while is_generating(address) and time.monotonic() < deadline:
        time.sleep(0.05)
    # Not a normal exit: the server's destructor waits half a minute for open streams, then cuts.
    os._exit(0)


def apply_size(params: xllamacpp.CommonParams, size: dict[str, int]) -> None:
    """Set what decides how much memory and how many cores the server takes.

    The footprint that was reckoned with (``plan.footprint``) holds for these settings.
    """
    params.n_parallel = size["parallel"]
    params.n_ctx = size["parallel"] * size["context_tokens"]
    params.n_batch = max(size["batch_tokens"], params.n_batch)
    params.n_ubatch = size["batch_tokens"]
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = size["threads"]
    # Fitting is done; the engine must neither shrink the context nor ask what is free.
    params.fit_params = False
    # Weights stay one mapping of their file: shared by all instances, and warm after a sleep.
    params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MMAP
    # Rearranging weights for the CPU would copy them beside that mapping.
    params.no_extra_bufts = True
    # Its own default keeps prompts of gigabytes.
    params.cache_ram_mib = size["prompt_cache_bytes"] // 1024**2
    params.n_ctx_checkpoints = size["checkpoints"]
    params.embedding = bool(size["embeddings"])


def is_generating(address: str) -> bool:
    """Return whether any slot of our own server is at work."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2.0)
        connection.connect(address)
        connection.sendall(b"GET /slots HTTP/1.0\r\nHost: self\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    slots = json.loads(answer.partition(b"\r\n\r\n")[2])
    return any(slot["is_processing"] for slot in slots)


if __name__ == "__main__":
    main()
