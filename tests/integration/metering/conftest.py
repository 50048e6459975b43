"""How large the engine of these tests is."""

import pytest

from tramontane.plan.sizing import Sizing


@pytest.fixture(scope="session")
def sizing() -> Sizing:
    return Sizing(
        engine="llama.cpp",
        memory_bytes=2**30,
        cpus=1.0,
        threads=1,
        context_tokens=1024,
        parallel=4,
        batch_tokens=512,
        checkpoints=0,
        embeddings=True,
        prompt_cache_bytes=0,
        parts=(),
    )
