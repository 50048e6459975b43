"""What is reckoned for a model, held against what the real engine takes for it.

Every shape exercises a term of ``plan.footprint`` that would be missed in another. A new engine
whose memory differs fails here, not at a user's.
"""

from importlib.resources import files
from pathlib import Path

import pytest

from tests.integration.engines.serving import WORDS_FROM, Engine, in_parallel, serving
from tests.model_files import Shape, write_gguf
from tramontane.domain.cell import Capacity
from tramontane.domain.definition import EngineOptions, ResourceWishes
from tramontane.domain.model import ModelFacts
from tramontane.engines.inspection import inspect_model
from tramontane.plan.sizing import Sizing, size_model

TOLERANCE = 0.15
CAPACITY = Capacity(memory_bytes=64 * 1024**3, cpus=2.0)
MEBIBYTE = 1024**2

SHAPES: dict[str, tuple[Shape, EngineOptions]] = {
    "small": (Shape(), EngineOptions(context_tokens=1024, parallel=4)),
    "one-slot": (Shape(tokenizer="gpt2"), EngineOptions(context_tokens=4096, parallel=1)),
    "weights": (
        Shape(layers=12, width=1024, heads=16, kv_heads=4, feed_forward=4096, vocabulary=8192),
        EngineOptions(context_tokens=1024, parallel=1),
    ),
    "half-precision": (
        Shape(layers=8, width=512, heads=8, feed_forward=2048, weights="f16"),
        EngineOptions(context_tokens=1024, parallel=2),
    ),
    # Rearranged for the CPU, these weights would stand in memory twice.
    "four-bit": (
        Shape(layers=12, width=1024, heads=16, feed_forward=4096, weights="q4_0"),
        EngineOptions(context_tokens=1024, parallel=1),
    ),
    "cache": (
        Shape(layers=8, width=512, heads=8, kv_heads=8, feed_forward=1024),
        EngineOptions(context_tokens=1024, parallel=8),
    ),
    "long-context": (
        Shape(layers=4, context=32768),
        EngineOptions(context_tokens=16384, parallel=2),
    ),
    "vocabulary": (
        Shape(vocabulary=131072, tokenizer="gpt2"),
        EngineOptions(context_tokens=1024, parallel=2),
    ),
    "experts": (
        Shape(layers=4, width=512, heads=8, feed_forward=1024, experts=8, experts_used=4),
        EngineOptions(context_tokens=1024, parallel=2),
    ),
    "sliding-window": (
        Shape(
            architecture="gemma3",
            layers=12,
            width=512,
            heads=8,
            kv_heads=4,
            context=8192,
            more={"gemma3.attention.sliding_window": 512},
        ),
        EngineOptions(context_tokens=4096, parallel=2),
    ),
    "pooled": (
        Shape(vocabulary=32768, more={"llama.pooling_type": 1}),
        EngineOptions(context_tokens=1024, parallel=2),
    ),
    "encoder": (
        Shape(
            architecture="bert",
            layers=6,
            width=512,
            heads=8,
            kv_heads=8,
            feed_forward=2048,
            weights="f16",
            context=1024,
            tokenizer="bert",
            more={"bert.attention.causal": False, "bert.pooling_type": 2},
        ),
        EngineOptions(parallel=2),
    ),
}


def size(facts: ModelFacts, options: EngineOptions, memory_bytes: int | None = None) -> Sizing:
    found = size_model(facts, CAPACITY, ResourceWishes(memory_bytes=memory_bytes), options)
    assert isinstance(found, Sizing), found.message
    return found


def tokens(count: int, seed: int) -> list[int]:
    return [WORDS_FROM + (7 * seed + 13 * position) % 700 for position in range(count)]


def use(engine: Engine, facts: ModelFacts, sizing: Sizing) -> None:
    """Hold a conversation of two turns in every slot, and make vectors where the model does."""
    prompt = min(sizing.context_tokens - 8, 4096 if facts.size_bytes < 32 * MEBIBYTE else 1016)
    for length in () if facts.embedding_only else (prompt // 2, prompt):
        in_parallel(
            sizing.parallel,
            lambda slot, length=length: engine.complete(tokens(length, slot + 1), slot=slot),
        )
    if sizing.embeddings:
        text = min(sizing.batch_tokens, sizing.context_tokens) - 8
        in_parallel(sizing.parallel, lambda slot: engine.embed(tokens(text, slot + 1)))


@pytest.mark.parametrize("name", SHAPES)
def test_the_sum_is_what_a_real_load_takes(name: str, tmp_path: Path) -> None:
    shape, options = SHAPES[name]
    model = write_gguf(tmp_path / "model.gguf", shape)
    facts = inspect_model(model)
    sizing = size(facts, options)
    with serving(model, sizing, tmp_path) as engine:
        use(engine, facts, sizing)
        measured = engine.peak_bytes
    model.unlink()
    difference = sizing.needed_bytes / measured - 1
    parts = {each.name: each.size_bytes // MEBIBYTE for each in sizing.parts}
    assert abs(difference) <= TOLERANCE, (
        f"reckoned {sizing.needed_bytes // MEBIBYTE} MiB, measured {measured // MEBIBYTE} "
        f"({difference:+.0%}): {parts}"
    )
    assert measured < sizing.memory_bytes, "an instance would be ended for using what it was given"


def test_memory_that_is_not_needed_keeps_prompts_and_no_more(tmp_path: Path) -> None:
    shape = Shape(layers=8, kv_heads=4)
    model = write_gguf(tmp_path / "model.gguf", shape)
    facts = inspect_model(model)
    options = EngineOptions(context_tokens=1024, parallel=1)
    limit = size(facts, options).memory_bytes + 40 * MEBIBYTE
    sizing = size(facts, options, limit)
    assert sizing.prompt_cache_bytes == 40 * MEBIBYTE
    with serving(model, sizing, tmp_path) as engine:
        engine.complete(tokens(1000, 1))
        before = engine.peak_bytes
        for seed in range(2, 12):
            engine.complete([WORDS_FROM + seed, *tokens(1000, seed)])
        grown = engine.peak_bytes - before
        again = engine.complete([WORDS_FROM + 11, *tokens(1000, 11)])
    # Each prompt leaves 8 MiB: four are kept, the others make room.
    assert 16 * MEBIBYTE < grown < 44 * MEBIBYTE
    assert again["timings"]["cache_n"] > 900


def test_an_engine_takes_the_context_and_the_slots_that_were_reckoned(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf", Shape())
    sizing = size(inspect_model(model), EngineOptions(context_tokens=512, parallel=3))
    with serving(model, sizing, tmp_path) as engine:
        assert [each["n_ctx"] for each in engine.ask("/slots")] == [512] * 3
        with pytest.raises(AssertionError, match="exceed_context_size_error"):
            engine.complete(tokens(600, 1))


def test_a_text_of_five_megabytes_is_refused_and_does_not_break_the_limit(tmp_path: Path) -> None:
    model = Path(str(files("tramontane.engines").joinpath("models/tiny.gguf")))
    sizing = size(inspect_model(model), EngineOptions())
    with serving(model, sizing, tmp_path) as engine:
        with pytest.raises(AssertionError, match="exceed_context_size_error"):
            engine.ask("/completion", {"prompt": "hello 1 " * 655_360, "n_predict": 1})
        assert engine.peak_bytes < sizing.memory_bytes
