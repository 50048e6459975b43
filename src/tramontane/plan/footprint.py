"""How much memory llama.cpp takes for a model: by name, so that a person can add it up.

The parts and their formulas are those of llama.cpp, each named where it is reckoned. The settings
they hold for are those of ``engines/llamacpp_server.py``: flash attention where the model allows
it, a 16-bit cache that is not shared between slots, weights mapped from their file and not
rearranged. ``tests/integration/engines`` holds the sums against what real loads take
(``docs/decisions/0015-a-model-instance-is-sized-from-its-headers.md``). Called by ``plan.sizing``.
"""

from dataclasses import dataclass

from tramontane.domain.model import ModelFacts

MEBIBYTE = 1024**2
BATCH_TOKENS = 512
"""Tokens of a prompt that are computed at once (``n_ubatch``)."""
CELLS = 256
"""The cache is made in steps of so many tokens (``GGML_PAD(n_ctx, 256)`` in llama-context.cpp)."""
CACHE_BYTES = 2
"""Per number in the cache: F16."""
CHECKPOINTS = 4
"""Earlier states kept per slot, of layers that cannot be wound back (``n_ctx_checkpoints``)."""
CACHE = "KV cache"
F32_BYTES = 4
MASK_BYTES = 2

ENGINE_BYTES = 32 * MEBIBYTE
"""Measured: the interpreter, the library and what it allocates for itself."""
SLOT_BYTES = MEBIBYTE // 2
TOKEN_BYTES = 172
"""Measured: a token in the engine's tables; its text is in the file."""
MERGE_BYTES = 169
CANDIDATE_BYTES = 16
"""A token's score while the next one is drawn: its logit, and ``llama_token_data``."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One term of the sum."""

    name: str
    size_bytes: int
    how: str
    """Where the number comes from, as a person would say it."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a model is to hold at once."""

    context_tokens: int
    """Per slot."""
    parallel: int
    batch_tokens: int


def missing_facts(facts: ModelFacts) -> list[str]:
    """Return what the sum needs and the files do not say."""
    needed = {
        "embedding_length": facts.embedding_length,
        "feed_forward_length": _feed_forward_width(facts),
        "vocabulary": facts.vocabulary,
    }
    if not facts.embedding_only:
        needed |= {"layers": facts.layers, "kv_heads": facts.kv_heads_total}
        if facts.kv_heads_total == 0:
            # Nothing is kept by heads: what recurrent layers keep must be known instead.
            needed |= {"state_bytes": facts.state_bytes or None}
        else:
            needed |= {"key_length": facts.key_length, "value_length": facts.value_length}
    return [name for name, value in needed.items() if value is None]


def batch_of(facts: ModelFacts, context_tokens: int) -> int:
    """Return how many tokens are computed at once: of a model that sees whole texts, all."""
    return context_tokens if facts.embedding_only else min(BATCH_TOKENS, _cells(context_tokens))


def footprint(facts: ModelFacts, load: Load) -> tuple[Part, ...]:
    """Return the parts for a model that lacks no fact; those that are nothing are left out."""
    parts = (
        Part(name="weights", size_bytes=facts.size_bytes, how="the size of its files"),
        _cache(facts, load),
        _states(facts, load),
        _compute(facts, load),
        _outputs(facts, load),
        _tokenizer(facts),
        Part(
            name="engine",
            size_bytes=ENGINE_BYTES + load.parallel * SLOT_BYTES,
            how="measured, whatever the model",
        ),
    )
    return tuple(each for each in parts if each.size_bytes)


def _cells(tokens: int) -> int:
    return -(-tokens // CELLS) * CELLS


def _token_bytes(facts: ModelFacts) -> int:
    """Return what one token leaves in the cache, over all layers (``n_embd_k_gqa`` + ``_v_``)."""
    return (
        (facts.kv_heads_total or 0)
        * ((facts.key_length or 0) + (facts.value_length or 0))
        * CACHE_BYTES
    )


def _sliding(facts: ModelFacts) -> tuple[int, int]:
    """Return the bytes per token of the layers that look back through a window, and the window."""
    if not facts.sliding_layers or not facts.sliding_window or not facts.layers:
        return 0, 0
    share = _token_bytes(facts) * min(facts.sliding_layers, facts.layers) // facts.layers
    return share, facts.sliding_window


def _cache(facts: ModelFacts, load: Load) -> Part:
    """``llama_kv_cache`` per slot; ``llama_kv_cache_iswa`` keeps no more than the window needs."""
    if facts.embedding_only:
        return Part(name=CACHE, size_bytes=0, how="none: it sees the whole text at once")
    cells = _cells(load.context_tokens)
    windowed, window = _sliding(facts)
    window_cells = min(_cells(window + load.batch_tokens), cells)
    full = _token_bytes(facts) - windowed
    how = f"{load.parallel} x {cells:,} tokens x {full:,} bytes"
    if windowed:
        how += f", and {load.parallel} x {window_cells:,} x {windowed:,} in the sliding window"
    size_bytes = load.parallel * (cells * full + window_cells * windowed)
    return Part(name=CACHE, size_bytes=size_bytes, how=how)


def _states(facts: ModelFacts, load: Load) -> Part:
    """``llama_memory_recurrent``, and the copies that the server keeps to go back to."""
    windowed, window = _sliding(facts)
    state = facts.state_bytes or 0
    checkpoint = state + min(window, _cells(load.context_tokens)) * windowed
    return Part(
        name="states",
        size_bytes=load.parallel * (state + CHECKPOINTS * checkpoint),
        how=f"{load.parallel} x ({state:,} + {CHECKPOINTS} checkpoints of {checkpoint:,} bytes)",
    )


def _compute(facts: ModelFacts, load: Load) -> Part:
    """The scheduler's buffer (``sched_reserve``): what is alive at once while one batch passes.

    Five vectors of the embedding's length run through; beside them stand the widest of the
    feed-forward step, attention's queries and keys, or all logits. The masks come on top.
    """
    embedding = facts.embedding_length or 0
    heads = (facts.attention_heads or 0) + (facts.kv_heads or 0)
    widest = max(
        _feed_forward_width(facts) or 0,
        2 * heads * (facts.key_length or 0),
        (facts.vocabulary or 0) if _scores_all(facts) else 0,
    )
    seen = _cells(load.context_tokens)
    _, window = _sliding(facts)
    seen += min(_cells(window + load.batch_tokens), seen) if window else 0
    per_token = F32_BYTES * (5 * embedding + widest) + MASK_BYTES * seen
    return Part(
        name="compute",
        size_bytes=load.batch_tokens * per_token,
        how=f"{load.batch_tokens} tokens at once x {per_token:,} bytes",
    )


def _feed_forward_width(facts: ModelFacts) -> int | None:
    """Return what is alive in that step; with a gate, as nearly all have, if no tensor tells."""
    if facts.feed_forward_width is None and facts.feed_forward_length is not None:
        return 3 * facts.feed_forward_length
    return facts.feed_forward_width


def _outputs(facts: ModelFacts, load: Load) -> Part:
    """``output_reserve``: the scores of tokens, one row per slot, or per token where it embeds."""
    vocabulary = 0 if facts.embedding_only else facts.vocabulary or 0
    width = F32_BYTES * (vocabulary + (facts.embedding_length or 0))
    rows = load.batch_tokens if facts.embeds else load.parallel
    drawn = 0 if facts.embedding_only else load.parallel * vocabulary * (CANDIDATE_BYTES - 4)
    return Part(
        name="outputs", size_bytes=rows * width + drawn, how=f"{rows} rows of {width:,} bytes"
    )


def _scores_all(facts: ModelFacts) -> bool:
    """Whether every token of a batch is scored, which making vectors of a text implies."""
    return facts.embeds and not facts.embedding_only


def _tokenizer(facts: ModelFacts) -> Part:
    tokens, merges = facts.vocabulary or 0, facts.merges or 0
    return Part(
        name="tokenizer",
        size_bytes=tokens * TOKEN_BYTES + merges * MERGE_BYTES,
        how=f"{tokens:,} tokens x {TOKEN_BYTES} bytes, {merges:,} merges x {MERGE_BYTES}",
    )
