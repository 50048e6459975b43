"""From a model's ``config.json`` and the headers of its safetensors to its facts. Pure.

Keys as Transformers writes them (``PretrainedConfig`` and each architecture's own); a model that
sees or hears keeps those of its language part under ``text_config``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from tramontane.domain.model import ModelFacts, WeightsFormat
from tramontane.engines.headers.reading import parse_json
from tramontane.engines.headers.safetensors import SafeTensor
from tramontane.engines.headers.templates import knows_tools

CONFIG_BYTES_MAX = 4 * 1024**2
PACKED = frozenset({"awq", "gptq", "bitsandbytes", "aqlm", "hqq", "mxfp4"})
"""Ways to quantise that put several parameters into one stored number: counting tells nothing."""


def parse_config(raw: bytes) -> Mapping[str, Any]:
    """Return the settings of ``config.json``; raises ``MalformedHeader``."""
    return parse_json(raw, "config.json")


def facts_of_safetensors(
    config: Mapping[str, Any],
    tensors: Sequence[SafeTensor],
    *,
    size_bytes: int,
    template: str | None = None,
    licence: str | None = None,
) -> ModelFacts:
    """Return what ``config.json``, the tensors' headers and the files beside them say."""
    text = _object(config, "text_config") or config
    method = _text(_object(config, "quantization_config") or {}, "quant_method")
    layers = _natural(text, "num_hidden_layers", "n_layer")
    width = _natural(text, "hidden_size", "n_embd")
    heads = _natural(text, "num_attention_heads", "n_head")
    kv_heads = _natural(text, "num_key_value_heads")
    kv_heads = heads if kv_heads is None else kv_heads
    head_length = _natural(text, "head_dim") or (width // heads if width and heads else None)
    key_length, value_length = head_length, head_length
    latent = _natural(text, "kv_lora_rank")
    if latent:
        # Multi-head latent attention: one head of compressed keys, from which values are made.
        key_length, value_length = latent + (_natural(text, "qk_rope_head_dim") or 0), 0
        kv_heads = 1
    window = _natural(text, "sliding_window") or None
    return ModelFacts(
        format=WeightsFormat.SAFETENSORS,
        size_bytes=size_bytes,
        architecture=_architecture(config),
        parameters=None if method in PACKED else sum(each.parameters for each in tensors) or None,
        quantisation=method or _dtype(tensors),
        licence=licence,
        context_length=_natural(text, "max_position_embeddings", "n_positions"),
        layers=layers,
        embedding_length=width,
        feed_forward_length=_feed_forward_length(text),
        attention_heads=heads,
        kv_heads=kv_heads,
        kv_heads_total=None if layers is None or kv_heads is None else layers * kv_heads,
        key_length=key_length,
        value_length=value_length,
        sliding_window=window,
        sliding_layers=None if window is None else _sliding_layers(text, layers),
        vocabulary=_natural(text, "vocab_size"),
        chat_template=template is not None,
        tools=None if template is None else knows_tools(template),
        causal=_causal(config),
    )


def _architecture(config: Mapping[str, Any]) -> str | None:
    listed = config.get("architectures")
    if isinstance(listed, list) and listed and isinstance(listed[0], str):
        return listed[0][:80]
    return _text(config, "model_type")


def _causal(config: Mapping[str, Any]) -> bool | None:
    """Return whether the named class writes text: the names say so by their ends."""
    architecture = _architecture(config) or ""
    if architecture.endswith(("ForCausalLM", "ForConditionalGeneration")):
        return True
    return None if not config.get("architectures") else False


def _feed_forward_length(text: Mapping[str, Any]) -> int | None:
    dense = _natural(text, "intermediate_size", "n_inner")
    used = _natural(text, "num_experts_per_tok")
    if not used:
        return dense
    return max(used * (_natural(text, "moe_intermediate_size") or dense or 0), dense or 0) or None


def _sliding_layers(text: Mapping[str, Any], layers: int | None) -> int | None:
    kinds = text.get("layer_types")
    if isinstance(kinds, list):
        return sum(1 for each in cast("list[object]", kinds) if each == "sliding_attention")
    if text.get("use_sliding_window") is False or layers is None:
        return 0
    period = _natural(text, "sliding_window_pattern", "_sliding_window_pattern")
    return layers - layers // period if period else layers


def _dtype(tensors: Iterable[SafeTensor]) -> str | None:
    bytes_by_dtype: Counter[str] = Counter()
    for each in tensors:
        bytes_by_dtype[each.dtype] += each.size_bytes
    found = bytes_by_dtype.most_common(1)
    return found[0][0] if found else None


def _natural(settings: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = settings.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
            return value
    return None


def _text(settings: Mapping[str, Any], name: str) -> str | None:
    value = settings.get(name)
    return (value.strip()[:80] or None) if isinstance(value, str) else None


def _object(settings: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = settings.get(name)
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None
