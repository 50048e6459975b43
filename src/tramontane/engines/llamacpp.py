"""llama.cpp as an engine: from a GGUF file to what a runtime must run. Pure.

Called when a deployment's source is a model. The server is the native one of ``xllamacpp``; it
speaks the OpenAI API on a Unix socket, to which the instance's meter connects.
"""

import json
from dataclasses import dataclass

from tramontane.domain.artifact import Artifact, Listen, Mount
from tramontane.domain.model import ModelFacts
from tramontane.plan.sizing import Sizing

MODELS = "/models"
"""Where the weights are inside the sandbox."""
ENGINE = "/engine"
LANGUAGE = "gguf"
METER = "llamacpp"
"""How its requests are counted: the name in ``metering.engine_wire``."""
REQUESTS_MAX = 120
"""Requests that its server takes at a time: a few of its connections are for probes."""
HEALTH = "/health"
"""The server answers 503 there while it loads the weights, then 200."""


@dataclass(frozen=True, kw_only=True)
class EngineFiles:
    """What of this machine the engine needs: found by ``processes``, mounted read-only."""

    python: str
    """The interpreter, as a path inside the sandbox."""
    python_mounts: tuple[Mount, ...]
    library: str
    """Directory of the ``xllamacpp`` package."""
    program: str
    """``engines/llamacpp_server.py``: run alone, so that no other package is loaded or shown."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A GGUF file on this machine, or all parts of one, the first first."""

    paths: tuple[str, ...]
    digest: str
    """``sha256:…`` of the content."""


def make_artifact(weights: Weights, facts: ModelFacts, files: EngineFiles, alias: str) -> Artifact:
    """Return how to serve ``weights`` under the model name ``alias``."""
    shown = _names(len(weights.paths))
    return Artifact(
        digest=weights.digest,
        language=LANGUAGE,
        # -S and -E: neither site-packages nor the environment decide what is imported.
        command=(files.python, "-S", "-E", f"{ENGINE}/serve.py", shown[0], alias),
        directory="/",
        environment=(("TRAM_ENGINE_LIBRARY", f"{ENGINE}/xllamacpp"),),
        mounts=(
            *files.python_mounts,
            Mount(source=files.library, target=f"{ENGINE}/xllamacpp"),
            Mount(source=files.program, target=f"{ENGINE}/serve.py"),
            *(Mount(source=each, target=at) for each, at in zip(weights.paths, shown, strict=True)),
        ),
        listen=Listen.UNIX,
        health_path=HEALTH,
        facts=facts,
    )


def size_arguments(sizing: Sizing) -> tuple[str, ...]:
    """Return what follows the artifact's command, so that the engine takes what was reckoned."""
    size = {
        "context_tokens": sizing.context_tokens,
        "parallel": sizing.parallel,
        "threads": sizing.threads,
        "batch_tokens": sizing.batch_tokens,
        "prompt_cache_bytes": sizing.prompt_cache_bytes,
        "checkpoints": sizing.checkpoints,
        "embeddings": int(sizing.embeddings),
    }
    return (json.dumps(size),)


def _names(count: int) -> list[str]:
    """Return the files as the engine sees them: it finds the parts by the first one's name."""
    if count == 1:
        return [f"{MODELS}/model.gguf"]
    return [f"{MODELS}/model-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
