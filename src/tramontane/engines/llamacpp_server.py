"""Serves one GGUF file with llama.cpp's own server: the program inside a model's sandbox.

``engines.llamacpp`` runs it as a lone file, with nothing importable but the standard library and
``xllamacpp``, hence no imports from Tramontane here. Arguments: the weights and the model's name.
"""

# xllamacpp is a compiled module without type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportAttributeAccessIssue=false, reportUnknownArgumentType=false

import os
import signal
import sys

import xllamacpp

SLOTS = 4
"""Requests that are decoded together (continuous batching)."""
CONTEXT_PER_SLOT_MAX = 4096
"""Tokens; a model trained for less gets what it was trained for."""


def main() -> None:
    """Serve until SIGTERM; requests in progress were drained by the gateway before it comes."""
    weights, alias = sys.argv[1:3]
    threads = max(len(os.sched_getaffinity(0)), 1)
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.model_alias = {alias}
    params.hostnames = [os.environ["TRAM_SOCKET"]]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_PER_SLOT_MAX
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.endpoint_metrics = True
    params.ui = False
    params.use_jinja = True
    params.verbosity = 1
    # Blocked before the server makes its threads, so that sigwait below is the only taker.
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    server = xllamacpp.Server(params)
    print(f"serving {alias} on {server.listening_address}", flush=True)
    signal.sigwait(stop)
    # The native threads do not end by themselves while a client is connected.
    os._exit(0)


if __name__ == "__main__":
    main()
