"""Serves one GGUF file with llama.cpp's own server: the program inside a model's sandbox.

``engines.llamacpp`` runs it as a lone file, with nothing importable but the standard library and
``xllamacpp``, hence no imports from Tramontane here. Arguments: the weights and the model's name.
"""

# xllamacpp is a compiled module without type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import xllamacpp

SLOTS = 4
"""Requests that are decoded together (continuous batching)."""
CONTEXT_PER_SLOT_MAX = 4096
"""Tokens; a model trained for less gets what it was trained for."""
SMALL_BYTES = 64 * 1024**2
"""Below this a model computes so little per token that a second thread mostly waits and spins:
measured with the bundled model on two busy cores, p99 went from 63 ms to 7 s."""
CONNECTIONS = 128
"""The server gives each open connection a thread; too few, and idle ones starve the busy."""
DRAIN_S = 60.0


def main() -> None:
    """Serve until SIGTERM, then let what is being generated come to its end."""
    weights, alias = sys.argv[1:3]
    address = os.environ["TRAM_SOCKET"]
    # A socket file that is left over makes the server refuse to start.
    Path(address).unlink(missing_ok=True)
    small = Path(weights).stat().st_size < SMALL_BYTES
    threads = 1 if small else max(len(os.sched_getaffinity(0)), 1)
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.model_alias = {alias}
    params.hostnames = [address]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_PER_SLOT_MAX
    params.n_threads_http = CONNECTIONS
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = threads
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
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
