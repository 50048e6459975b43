"""How large an instance of a model is: the arithmetic, what gives way first, and refusals."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.cell import Capacity
from tramontane.domain.definition import (
    Definition,
    DirectorySource,
    EngineOptions,
    ModelSource,
    Resources,
    ResourceWishes,
    ServiceKind,
)
from tramontane.domain.model import ModelFacts, Pooling, WeightsFormat
from tramontane.plan.footprint import CACHE, CELLS, ENGINE_BYTES, SLOT_BYTES, Load, footprint
from tramontane.plan.needs import needs_of
from tramontane.plan.sizing import (
    HEADROOM_BYTES,
    HEADROOM_BYTES_LEAST,
    Refusal,
    Sizing,
    size_model,
    with_headroom,
)

MIB, GIB = 1024**2, 1024**3
AUTOMATIC, USUAL = ResourceWishes(), EngineOptions()
MISTRAL_7B = ModelFacts(
    format=WeightsFormat.GGUF,
    size_bytes=4_372_811_936,
    architecture="llama",
    context_length=32768,
    layers=32,
    embedding_length=4096,
    feed_forward_width=3 * 14336,
    attention_heads=32,
    kv_heads=8,
    kv_heads_total=256,
    key_length=128,
    value_length=128,
    state_bytes=0,
    vocabulary=32768,
    merges=0,
    causal=True,
)
TINY = replace(
    MISTRAL_7B,
    size_bytes=3_415_872,
    context_length=1024,
    layers=4,
    embedding_length=256,
    feed_forward_width=3 * 640,
    attention_heads=8,
    kv_heads=2,
    kv_heads_total=8,
    key_length=32,
    value_length=32,
    vocabulary=2048,
    merges=1788,
)
LAPTOP = Capacity(memory_bytes=16 * GIB, cpus=8)
SERVER = Capacity(memory_bytes=256 * GIB, cpus=64)


def sized(
    facts: ModelFacts,
    capacity: Capacity = SERVER,
    resources: ResourceWishes = AUTOMATIC,
    options: EngineOptions = USUAL,
) -> Sizing:
    found = size_model(facts, capacity, resources, options)
    assert isinstance(found, Sizing), found.message
    return found


def refused(
    facts: ModelFacts,
    capacity: Capacity = SERVER,
    resources: ResourceWishes = AUTOMATIC,
    options: EngineOptions = USUAL,
) -> str:
    found = size_model(facts, capacity, resources, options)
    assert isinstance(found, Refusal)
    return found.message


def part(facts: ModelFacts, name: str, load: Load) -> int:
    return {each.name: each.size_bytes for each in footprint(facts, load)}.get(name, 0)


# --- the arithmetic ----------------------------------------------------------------------------


def test_the_cache_of_a_known_model() -> None:
    # Mistral 7B: 32 layers x 8 heads x (128 + 128) numbers x 2 bytes = 128 KiB per token.
    load = Load(context_tokens=32768, parallel=2, batch_tokens=512)
    assert part(MISTRAL_7B, "KV cache", load) == 2 * 32768 * 128 * 1024


def test_the_cache_is_made_in_whole_steps() -> None:
    one = Load(context_tokens=1, parallel=1, batch_tokens=1)
    step = Load(context_tokens=CELLS, parallel=1, batch_tokens=1)
    assert part(TINY, "KV cache", one) == part(TINY, "KV cache", step) > 0


def test_layers_with_a_window_keep_no_more_than_it_shows() -> None:
    facts = replace(MISTRAL_7B, sliding_window=1024, sliding_layers=24)
    load = Load(context_tokens=32768, parallel=1, batch_tokens=512)
    per_token = 128 * 1024
    expected = 32768 * per_token // 4 + 1536 * per_token * 3 // 4
    assert part(facts, "KV cache", load) == expected
    # What has left the window cannot be wound back to, so copies are kept.
    assert part(facts, "states", load) == 4 * 1024 * per_token * 3 // 4


def test_recurrent_layers_take_the_same_whatever_the_length() -> None:
    facts = replace(MISTRAL_7B, kv_heads=0, kv_heads_total=0, key_length=None, state_bytes=3 * MIB)
    short = Load(context_tokens=256, parallel=2, batch_tokens=256)
    long = Load(context_tokens=65536, parallel=2, batch_tokens=256)
    assert part(facts, "states", short) == part(facts, "states", long) == 2 * 5 * 3 * MIB
    assert part(facts, "KV cache", long) == 0
    assert isinstance(size_model(facts, SERVER, AUTOMATIC, USUAL), Sizing)


def test_a_feed_forward_step_is_taken_to_have_a_gate_where_no_tensor_tells() -> None:
    load = Load(context_tokens=1024, parallel=1, batch_tokens=512)
    untold = replace(TINY, feed_forward_width=None, feed_forward_length=640)
    assert footprint(untold, load) == footprint(TINY, load)


def test_a_model_that_makes_vectors_scores_every_token_of_a_batch() -> None:
    load = Load(context_tokens=4096, parallel=1, batch_tokens=512)
    embeds = replace(MISTRAL_7B, pooling=Pooling.LAST, vocabulary=131072)
    plain = replace(embeds, pooling=None)
    assert part(embeds, "outputs", load) > 512 * 131072 * 4
    assert part(plain, "outputs", load) < 4 * MIB
    assert part(embeds, "compute", load) > part(plain, "compute", load)


def test_a_model_that_sees_whole_texts_keeps_no_cache() -> None:
    encoder = replace(TINY, causal=False, pooling=Pooling.MEAN, context_length=512)
    found = sized(encoder)
    assert (found.embeddings, found.context_tokens, found.batch_tokens) == (True, 512, 512)
    assert "KV cache" not in {each.name for each in found.parts}


def test_the_limit_is_the_sum_with_headroom_in_whole_mebibytes() -> None:
    found = sized(MISTRAL_7B)
    assert found.needed_bytes == sum(each.size_bytes for each in found.parts)
    assert found.memory_bytes == with_headroom(found.parts)
    assert found.memory_bytes % MIB == 0
    assert found.memory_bytes >= found.needed_bytes * 1.1
    least = footprint(TINY, Load(context_tokens=256, parallel=1, batch_tokens=256))
    assert with_headroom(least) >= sum(each.size_bytes for each in least) + HEADROOM_BYTES
    assert ENGINE_BYTES + SLOT_BYTES in [each.size_bytes for each in least]


def test_a_limit_that_its_user_gives_may_leave_less_for_requests() -> None:
    automatic = sized(TINY)
    tight = sized(TINY, resources=ResourceWishes(memory_bytes=128 * MIB))
    assert (tight.parts, tight.prompt_cache_bytes) == (automatic.parts, 0)
    assert automatic.memory_bytes > 384 * MIB > tight.memory_bytes
    assert "resources.memory allows 80 MiB" in refused(
        TINY, resources=ResourceWishes(memory_bytes=80 * MIB)
    )
    small = sized(TINY, Capacity(memory_bytes=256 * MIB, cpus=1))
    assert small.memory_bytes < 256 * MIB


# --- what a user did not say -------------------------------------------------------------------


def test_a_model_gets_its_own_context_where_that_fits() -> None:
    found = sized(TINY)
    assert (found.context_tokens, found.parallel, found.notes) == (1024, 4, ())
    assert (found.engine, found.prompt_cache_bytes) == ("llama.cpp", 0)


def test_unasked_the_cache_takes_no_more_than_the_weights_since_it_is_cleared_at_each_start() -> (
    None
):
    found = sized(MISTRAL_7B)
    cache = {each.name: each.size_bytes for each in found.parts}[CACHE]
    assert 0.9 * MISTRAL_7B.size_bytes < cache <= MISTRAL_7B.size_bytes
    assert (found.parallel, found.context_tokens) == (4, 8192)
    assert "ask for more with engine.context" in found.notes[0]
    asked = sized(MISTRAL_7B, options=EngineOptions(context_tokens=32768))
    assert (asked.parallel, asked.context_tokens, asked.notes) == (4, 32768, ())
    bought = sized(MISTRAL_7B, resources=ResourceWishes(memory_bytes=64 * GIB))
    assert (bought.parallel, bought.context_tokens, bought.notes) == (4, 32768, ())


def test_the_context_gives_way_before_the_slots() -> None:
    facts = replace(MISTRAL_7B, kv_heads_total=64)
    found = sized(facts, Capacity(memory_bytes=15 * GIB, cpus=8))
    assert found.parallel == 4
    assert 8192 <= found.context_tokens < 32768
    assert found.context_tokens % CELLS == 0
    assert found.memory_bytes <= 7.5 * GIB, "its next version must find room beside it"
    (note,) = found.notes
    assert note.startswith(f"{found.context_tokens:,} tokens of context instead of the model's own")


def test_slots_give_way_where_the_context_would_be_worth_nothing() -> None:
    found = sized(MISTRAL_7B, LAPTOP)
    assert (found.parallel, found.context_tokens >= 8192) == (2, True)
    assert any("2 requests at a time instead of 4" in each for each in found.notes)


def test_a_model_that_takes_more_than_its_share_may_have_the_cell() -> None:
    found = sized(MISTRAL_7B, Capacity(memory_bytes=8 * GIB, cpus=8))
    assert 4 * GIB < found.memory_bytes <= 8 * GIB


def test_the_smallest_instance_is_reckoned_before_it_is_refused() -> None:
    message = refused(MISTRAL_7B, Capacity(memory_bytes=4 * GIB, cpus=8))
    assert "for 1 request at a time with 256 tokens" in message
    assert "weights 4,171 MiB" in message
    assert "the cell has 4,096 MiB; take a smaller model" in message


@pytest.mark.parametrize(("facts", "cpus", "threads"), [(TINY, 1.0, 1), (MISTRAL_7B, 64.0, 64)])
def test_cores(facts: ModelFacts, cpus: float, threads: int) -> None:
    found = sized(facts)
    assert (found.cpus, found.threads) == (cpus, threads)


# --- what a user did say -----------------------------------------------------------------------


def test_wishes_are_kept() -> None:
    found = sized(
        MISTRAL_7B,
        LAPTOP,
        ResourceWishes(cpus=2.5),
        EngineOptions(context_tokens=4096, parallel=3),
    )
    assert (found.context_tokens, found.parallel) == (4096, 3)
    assert (found.cpus, found.threads) == (2.5, 2)
    assert found.notes == ()


def test_memory_that_is_not_needed_keeps_prompts() -> None:
    automatic = sized(TINY)
    given = sized(TINY, resources=ResourceWishes(memory_bytes=GIB))
    assert given.memory_bytes == GIB
    assert given.prompt_cache_bytes == GIB - automatic.memory_bytes
    assert given.parts == automatic.parts


def test_memory_that_is_too_little_for_the_whole_context_shortens_it() -> None:
    found = sized(MISTRAL_7B, SERVER, ResourceWishes(memory_bytes=10 * GIB))
    assert found.memory_bytes == 10 * GIB
    assert found.context_tokens < 32768
    assert "more would not fit into resources.memory" in found.notes[0]


def test_wishes_that_cannot_be_met_are_refused_with_the_sum() -> None:
    message = refused(MISTRAL_7B, SERVER, ResourceWishes(memory_bytes=2 * GIB))
    assert "resources.memory allows 2,048 MiB; raise resources.memory" in message
    message = refused(MISTRAL_7B, LAPTOP, options=EngineOptions(context_tokens=32768, parallel=64))
    assert "lower engine.context or engine.parallel" in message
    message = refused(MISTRAL_7B, options=EngineOptions(context_tokens=40000))
    assert "was trained for 32,768; lower engine.context" in message


def test_what_no_engine_serves_is_refused() -> None:
    message = refused(replace(MISTRAL_7B, format=WeightsFormat.SAFETENSORS))
    assert "no engine here serves weights as safetensors" in message


def test_what_the_files_do_not_say_is_never_guessed() -> None:
    silent = replace(MISTRAL_7B, kv_heads_total=None, vocabulary=None)
    message = refused(silent)
    assert "do not say vocabulary, kv_heads" in message
    assert "give resources.memory" in message
    trusted = sized(silent, resources=ResourceWishes(memory_bytes=6 * GIB))
    assert (trusted.memory_bytes, trusted.context_tokens, trusted.parts) == (6 * GIB, 8192, ())
    assert "on trust" in trusted.notes[0]


# --- whatever the numbers ----------------------------------------------------------------------

SHAPES = st.builds(
    ModelFacts,
    format=st.just(WeightsFormat.GGUF),
    size_bytes=st.integers(0, 2**42),
    context_length=st.none() | st.integers(0, 2**24),
    layers=st.integers(0, 200),
    embedding_length=st.integers(0, 2**16),
    feed_forward_width=st.integers(0, 2**18),
    attention_heads=st.none() | st.integers(0, 256),
    kv_heads=st.integers(0, 256),
    kv_heads_total=st.just(0) | st.integers(0, 2**15),
    key_length=st.integers(0, 1024),
    value_length=st.integers(0, 1024),
    sliding_window=st.none() | st.integers(1, 2**16),
    sliding_layers=st.none() | st.integers(0, 300),
    state_bytes=st.integers(0, 2**30),
    vocabulary=st.integers(0, 2**20),
    merges=st.none() | st.integers(0, 2**20),
    pooling=st.none() | st.sampled_from(Pooling),
    causal=st.none() | st.booleans(),
)
CAPACITIES = st.builds(
    Capacity, memory_bytes=st.integers(0, 2**42), cpus=st.floats(0.1, 512, allow_nan=False)
)
WISHES = st.builds(
    ResourceWishes,
    memory_bytes=st.none() | st.integers(16 * MIB, 2**42),
    cpus=st.none() | st.floats(0.01, 512),
)
OPTIONS = st.builds(
    EngineOptions,
    context_tokens=st.none() | st.integers(16, 2**20),
    parallel=st.none() | st.integers(1, 64),
)


@given(SHAPES, CAPACITIES, WISHES, OPTIONS)
def test_a_size_fits_or_is_refused_with_a_sum_that_does_not(
    facts: ModelFacts, capacity: Capacity, resources: ResourceWishes, options: EngineOptions
) -> None:
    found = size_model(facts, capacity, resources, options)
    limit = resources.memory_bytes
    available = capacity.memory_bytes if limit is None else limit
    if isinstance(found, Refusal):
        if found.parts:
            assert with_headroom(found.parts, HEADROOM_BYTES_LEAST) > available
        return
    assert found.memory_bytes == limit if limit else found.memory_bytes <= available
    assert found.parallel >= 1
    assert found.context_tokens >= 0
    assert found.threads >= 1
    assert options.parallel in {None, found.parallel}
    assert options.context_tokens in {None, found.context_tokens}
    if found.parts:
        least = HEADROOM_BYTES if found.prompt_cache_bytes else HEADROOM_BYTES_LEAST
        assert with_headroom(found.parts, least) + found.prompt_cache_bytes <= available
    shortened = found.context_tokens < (facts.context_length or 0)
    if shortened and options.context_tokens is None:
        assert found.notes, "what is less than the model offers is said"


# --- what an instance gets of it ---------------------------------------------------------------


def test_limits_of_what_is_no_model() -> None:
    web = Definition(kind=ServiceKind.WEB, source=DirectorySource(digest="sha256:0"))
    assert needs_of(web, None, SERVER).resources == Resources()
    asked = replace(web, resources=ResourceWishes(memory_bytes=GIB, cpus=2, processes_max=9))
    assert needs_of(asked, None, SERVER).resources == Resources(
        memory_bytes=GIB, cpus=2, processes_max=9
    )


def test_limits_of_a_model() -> None:
    model = Definition(kind=ServiceKind.MODEL, source=ModelSource(reference="m"))
    needs = needs_of(model, MISTRAL_7B, SERVER)
    assert needs.sizing is not None
    assert needs.resources == Resources(
        memory_bytes=needs.sizing.memory_bytes, cpus=64, processes_max=192 + 2 * 64
    )
    too_large = needs_of(model, MISTRAL_7B, Capacity(memory_bytes=GIB, cpus=1))
    assert too_large.refusal is not None
    assert needs_of(model, None, SERVER).resources == Resources(), "nobody has looked at it yet"
