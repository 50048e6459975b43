"""From the header of a GGUF file to the facts of its model. Pure.

Keys by https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; what they mean for memory, by
llama.cpp's ``src/llama-hparams.cpp`` and ``src/llama-kv-cache*.cpp``.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

from tramontane.domain.model import ModelFacts, Pooling, WeightsFormat
from tramontane.engines.headers.gguf import TENSOR_TYPES, GgufHeader, Listed, Tensor, Value
from tramontane.engines.headers.makers import country_of
from tramontane.engines.headers.templates import knows_tools

FILE_TYPES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
"""``general.file_type`` by number (``llama_ftype``)."""
POOLINGS = (Pooling.NONE, Pooling.MEAN, Pooling.CLS, Pooling.LAST, Pooling.RANK)
"""``pooling_type`` by number (``llama_pooling_type``)."""
ENCODERS = frozenset(
    "bert nomic-bert nomic-bert-moe jina-bert-v2 jina-bert-v3 neo-bert modern-bert eurobert "
    "gemma-embedding t5encoder".split()
)
"""Architectures that see the whole text at once, so that they write none."""
SLIDING_PERIODS: Mapping[str, int] = {
    "cohere2": 4,
    "gemma-embedding": 6,
    "gemma2": 2,
    "gemma3": 6,
    "gpt-oss": 2,
    "modern-bert": 3,
    "olmo2": 4,
}
"""Of so many layers the last looks at everything, where files leave that to the engine
(``set_swa_pattern`` in llama.cpp's ``src/models``). An architecture that is not listed is taken
to look at everything in every layer: reckoned with too much memory rather than too little."""
LAYERS_MAX = 100_000
_FEED_FORWARD = re.compile(r"blk\.(\d+)\.ffn_(gate|up|gate_up|down)(_exps)?\.weight")
_F32_BYTES = 4
_FILE_TYPE_GUESSED = 1024
"""Added to the number where the converter did not know it for certain."""


def facts_of_gguf(header: GgufHeader, size_bytes: int) -> ModelFacts:
    """Return what the header says; ``size_bytes`` is that of the whole file."""
    keys = _Keys(header.metadata)
    template = header.metadata.get("tokenizer.chat_template")
    facts = ModelFacts(
        format=WeightsFormat.GGUF,
        size_bytes=size_bytes,
        name=keys.text("general.name"),
        architecture=keys.architecture,
        parameters=sum(each.parameters for each in header.tensors) or None,
        quantisation=_quantisation(keys, header.tensors),
        licence=keys.text("general.license"),
        origin_country=country_of(keys.text("general.organization")),
        context_length=keys.own("context_length"),
        layers=keys.own("block_count"),
        embedding_length=keys.own("embedding_length"),
        feed_forward_length=_feed_forward_length(keys),
        feed_forward_width=_feed_forward_width(keys, header.tensors),
        attention_heads=keys.largest("attention.head_count"),
        vocabulary=_vocabulary(keys, header.tensors),
        merges=keys.length("tokenizer.ggml.merges"),
        chat_template="tokenizer.chat_template" in header.metadata,
        tools=knows_tools(template) if isinstance(template, str) else None,
        pooling=_pooling(keys),
        causal=_causal(keys),
    )
    return _with_cache(facts, keys)


@dataclass(frozen=True)
class _Keys:
    """Metadata as far as it is what it should be; the rest counts as missing."""

    metadata: Mapping[str, Value]

    @property
    def architecture(self) -> str | None:
        return self.text("general.architecture")

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return (value.strip()[:200] or None) if isinstance(value, str) else None

    def own_value(self, key: str) -> Value:
        """Return the value under the architecture's name."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def own(self, key: str) -> int | None:
        value = self.own_value(key)
        return value if _is_natural(value) else None

    def listed(self, key: str) -> tuple[int, ...] | None:
        """Return the numbers of a list, one per layer."""
        value = self.own_value(key)
        if not isinstance(value, Listed) or value.numbers is None:
            return None
        return tuple(max(int(each), 0) for each in value.numbers)

    def largest(self, key: str) -> int | None:
        listed = self.listed(key)
        return max(listed, default=None) if listed is not None else self.own(key)

    def length(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value.count if isinstance(value, Listed) else None


def _is_natural(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _quantisation(keys: _Keys, tensors: tuple[Tensor, ...]) -> str | None:
    """Return the name of the mixture, or else the type that most of the bytes have."""
    number = keys.metadata.get("general.file_type")
    if isinstance(number, int) and number & ~_FILE_TYPE_GUESSED in FILE_TYPES:
        return FILE_TYPES[number & ~_FILE_TYPE_GUESSED]
    bytes_by_type: Counter[int] = Counter()
    for each in tensors:
        bytes_by_type[each.type_number] += each.size_bytes or each.parameters
    if not bytes_by_type:
        return None
    found = TENSOR_TYPES.get(bytes_by_type.most_common(1)[0][0])
    return None if found is None else found[0]


def _feed_forward_length(keys: _Keys) -> int | None:
    """Return the width of the widest step; of experts, all that one token meets at once."""
    dense = keys.largest("feed_forward_length")
    expert, used = keys.own("expert_feed_forward_length"), keys.own("expert_used_count")
    if used and keys.own("expert_count"):
        return max(used * (expert or dense or 0), dense or 0) or None
    return dense


def _feed_forward_width(keys: _Keys, tensors: tuple[Tensor, ...]) -> int | None:
    """Return the numbers of the first step's matrices, side by side, and of what the last takes."""
    widths: Counter[str] = Counter()
    for each in tensors:
        found = _FEED_FORWARD.fullmatch(each.name)
        if found is not None and len(each.shape) >= 2:
            layer, kind, experts = found.groups()
            met = (keys.own("expert_used_count") or 1) if experts else 1
            widths[layer] += met * (each.shape[0] if kind == "down" else each.shape[1])
    return max(widths.values(), default=None)


def _vocabulary(keys: _Keys, tensors: tuple[Tensor, ...]) -> int | None:
    """Return how many tokens there are: what the engine does, which asks the tokenizer first."""
    counted = keys.length("tokenizer.ggml.tokens") or keys.own("vocab_size")
    embedding = next((each for each in tensors if each.name == "token_embd.weight"), None)
    if counted is None and embedding is not None and embedding.shape:
        return embedding.shape[-1]
    return counted


def _pooling(keys: _Keys) -> Pooling | None:
    number = keys.own("pooling_type")
    return POOLINGS[number] if number is not None and number < len(POOLINGS) else None


def _causal(keys: _Keys) -> bool | None:
    said = keys.own_value("attention.causal")
    if isinstance(said, bool):
        return said
    return None if keys.architecture is None else keys.architecture not in ENCODERS


# --- what a request leaves in memory -----------------------------------------------------------


def _with_cache(facts: ModelFacts, keys: _Keys) -> ModelFacts:
    """Return the facts with heads, their sizes, and which layers keep what."""
    layers = None if facts.layers is None else min(facts.layers, LAYERS_MAX)
    heads, width = facts.attention_heads, facts.embedding_length
    usual = width // heads if heads and width else None
    key_length = keys.own("attention.key_length") or usual
    value_length = keys.own("attention.value_length") or usual
    if keys.own("attention.key_length_mla") is not None:
        # Multi-head latent attention: one head of compressed keys, from which values are made.
        value_length = 0
    kept = _heads_by_layer(keys, layers, heads)
    window = keys.own("attention.sliding_window") or None
    return replace(
        facts,
        kv_heads=None if kept is None else max(kept, default=0),
        kv_heads_total=None if kept is None else sum(kept),
        key_length=key_length,
        value_length=value_length,
        sliding_window=window,
        sliding_layers=None if window is None else _sliding_layers(keys, layers),
        state_bytes=_state_bytes(keys, layers),
    )


def _heads_by_layer(
    keys: _Keys, layers: int | None, attention_heads: int | None
) -> tuple[int, ...] | None:
    """Return for each layer that keeps keys and values, for how many heads."""
    listed = keys.listed("attention.head_count_kv")
    if listed is None:
        each = keys.own("attention.head_count_kv")
        each = attention_heads if each is None else each
        if layers is None or each is None:
            return None
        listed = (each,) * layers
    shared = keys.own("attention.shared_kv_layers") or 0
    own = listed[: max(len(listed) - shared, 0)]
    interval = keys.own("full_attention_interval")
    return own[interval - 1 :: interval] if interval else own


def _sliding_layers(keys: _Keys, layers: int | None) -> int | None:
    listed = keys.listed("attention.sliding_window_pattern")
    if listed is not None:
        return sum(1 for each in listed if each)
    period = keys.own("attention.sliding_window_pattern")
    period = period or SLIDING_PERIODS.get(keys.architecture or "")
    if layers is None:
        return None
    return layers - layers // period if period else 0


def _state_bytes(keys: _Keys, layers: int | None) -> int | None:
    """Return what recurrent layers keep (``n_embd_r`` and ``n_embd_s`` of llama-hparams.cpp)."""
    inner, state = keys.own("ssm.inner_size"), keys.own("ssm.state_size")
    if layers is None or inner is None or state is None:
        return 0 if layers is not None else None
    kernel, groups = keys.own("ssm.conv_kernel") or 0, keys.own("ssm.group_count") or 0
    recurrent = layers
    listed = keys.listed("attention.head_count_kv")
    if listed is not None:
        recurrent = sum(1 for each in listed if each == 0)
    elif interval := keys.own("full_attention_interval"):
        recurrent = layers - layers // interval
    convolution = max(kernel - 1, 0) * (inner + 2 * groups * state)
    return recurrent * _F32_BYTES * (convolution + state * inner)
