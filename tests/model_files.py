"""Writes model files for tests: GGUF of several architectures, and safetensors.

The weights are made up, but llama.cpp loads them and answers (nonsense). Nothing of the product is
used here, so that what reads such files is not tested against itself.
"""

import json
import random
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
_FORMS = {U32: "I", I32: "i", F32: "f", BOOL: "?"}
BYTE_TOKENS = 256
BLOCKS = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q8_0": (8, 32, 34)}
"""Number of the type, numbers in a block, bytes in a block."""
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}

Item = int | float | bool | str | tuple[int, Sequence[object]]
"""A value of the metadata; a list is its items' type and the items."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a made-up model is like."""

    architecture: str = "llama"
    layers: int = 2
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 512
    vocabulary: int = 1024
    context: int = 4096
    weights: str = "q8_0"
    experts: int = 0
    experts_used: int = 0
    tokenizer: str = "llama"
    more: Mapping[str, Item] = field(default_factory=dict[str, Item])
    """Metadata in place of, or besides, what follows from the rest."""

    @property
    def head_length(self) -> int:
        return self.width // self.heads


def write_gguf(path: Path, shape: Shape) -> Path:
    """Write a model that llama.cpp can load."""
    tensors = list(_tensors(shape))
    with path.open("wb") as file:
        write_header(file, metadata_of(shape), [(n, d, BLOCKS[t]) for n, d, t in tensors])
        for _, dimensions, kind in tensors:
            _write_weights(file, kind, _size(dimensions, BLOCKS[kind]))
    return path


def write_header(
    file: BinaryIO,
    metadata: Mapping[str, Item],
    tensors: Sequence[tuple[str, Sequence[int], tuple[int, int, int]]] = (),
    *,
    version: int = 3,
) -> None:
    """Write all that stands before the weights."""
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [text(key), *_item(value)]
    offset = 0
    for name, dimensions, block in tensors:
        parts.append(text(name))
        parts.append(struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions))
        parts.append(struct.pack("<IQ", block[0], offset))
        offset += -(-_size(dimensions, block) // 32) * 32
    header = b"".join(parts)
    file.write(header + bytes(-len(header) % 32))


def text(value: str) -> bytes:
    """Return a text as GGUF has it: its length, then its bytes."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _item(value: Item) -> Iterable[bytes]:
    match value:
        case bool():
            yield struct.pack("<I?", BOOL, value)
        case int():
            yield struct.pack("<II", U32, value)
        case float():
            yield struct.pack("<If", F32, value)
        case str():
            yield struct.pack("<I", STRING) + text(value)
        case (kind, items):
            yield struct.pack("<IIQ", ARRAY, kind, len(items))
            for each in items:
                yield text(str(each)) if kind == STRING else struct.pack(f"<{_FORMS[kind]}", each)


def metadata_of(shape: Shape) -> dict[str, Item]:
    """Return the keys and values of a model of this shape."""
    own: dict[str, Item] = {
        "context_length": shape.context,
        "embedding_length": shape.width,
        "block_count": shape.layers,
        "feed_forward_length": shape.feed_forward,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_length,
        "attention.value_length": shape.head_length,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": shape.head_length,
    }
    if shape.experts:
        own |= {"expert_count": shape.experts, "expert_used_count": shape.experts_used}
    return {
        "general.architecture": shape.architecture,
        "general.name": "Made up",
        "general.file_type": FILE_TYPES[shape.weights],
        **{f"{shape.architecture}.{key}": value for key, value in own.items()},
        **_tokenizer(shape),
        **shape.more,
    }


def _tokenizer(shape: Shape) -> dict[str, Item]:
    """Return a vocabulary of words without sense, besides one token for each byte."""
    rest = shape.vocabulary - BYTE_TOKENS - 3
    assert rest > 0, "the vocabulary has no room for bytes"
    if shape.tokenizer == "gpt2":
        tokens = ["<s>", "</s>", "<unk>", *_byte_letters(), *(f"t{n:06}" for n in range(rest))]
        return {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": (STRING, tokens),
            "tokenizer.ggml.token_type": (I32, [3, 3, 3, *[1] * (shape.vocabulary - 3)]),
            "tokenizer.ggml.merges": (STRING, [f"t{n:03} {n:05}" for n in range(rest)]),
            "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 1,
        }
    if shape.tokenizer == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        words = [f"\u2581t{n}" for n in range(shape.vocabulary - len(special))]
        return {
            "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.tokens": (STRING, special + words),
            "tokenizer.ggml.token_type": (I32, [3] * 4 + [1] * len(words)),
            "tokenizer.ggml.token_type_count": 2,
            "tokenizer.ggml.unknown_token_id": 1,
            "tokenizer.ggml.bos_token_id": 2,
            "tokenizer.ggml.seperator_token_id": 3,
            "tokenizer.ggml.padding_token_id": 0,
        }
    bytes_as_tokens = [f"<0x{byte:02X}>" for byte in range(BYTE_TOKENS)]
    words = [f"t{n}" for n in range(rest)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": (STRING, ["<unk>", "<s>", "</s>", *bytes_as_tokens, *words]),
        "tokenizer.ggml.scores": (F32, [0.0] * 259 + [-float(n) for n in range(rest)]),
        "tokenizer.ggml.token_type": (I32, [2, 3, 3] + [6] * BYTE_TOKENS + [1] * rest),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def _byte_letters() -> list[str]:
    """Return the letters that stand for bytes in GPT-2's vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(each) for each in shown] + [chr(256 + n) for n in range(256 - len(shown))]


Line = tuple[str, tuple[int, ...], str]


def _tensors(shape: Shape) -> Iterable[Line]:
    width, kind = shape.width, shape.weights
    yield "token_embd.weight", (width, shape.vocabulary), kind
    if shape.architecture == "bert":
        yield from _bert(shape)
        return
    yield "output_norm.weight", (width,), "f32"
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        yield from _attention(shape, prefix)
        yield f"{prefix}.ffn_norm.weight", (width,), "f32"
        experts = (shape.experts,) if shape.experts else ()
        suffix = "_exps" if experts else ""
        if experts:
            yield f"{prefix}.ffn_gate_inp.weight", (width, shape.experts), "f32"
        for name in ("gate", "up"):
            line = (width, shape.feed_forward, *experts)
            yield f"{prefix}.ffn_{name}{suffix}.weight", line, kind
        yield f"{prefix}.ffn_down{suffix}.weight", (shape.feed_forward, width, *experts), kind
        if shape.architecture == "gemma3":
            for name in ("post_attention_norm", "post_ffw_norm"):
                yield f"{prefix}.{name}.weight", (width,), "f32"


def _attention(shape: Shape, prefix: str) -> Iterable[Line]:
    width, kind, head = shape.width, shape.weights, shape.head_length
    yield f"{prefix}.attn_norm.weight", (width,), "f32"
    yield f"{prefix}.attn_q.weight", (width, shape.heads * head), kind
    for name in ("k", "v"):
        yield f"{prefix}.attn_{name}.weight", (width, shape.kv_heads * head), kind
    yield f"{prefix}.attn_output.weight", (shape.heads * head, width), kind
    if shape.architecture in {"gemma3", "qwen3"}:
        for name in ("q", "k"):
            yield f"{prefix}.attn_{name}_norm.weight", (head,), "f32"


def _bert(shape: Shape) -> Iterable[Line]:
    width, kind = shape.width, shape.weights
    yield "token_types.weight", (width, 2), "f32"
    yield "position_embd.weight", (width, shape.context), "f32"
    yield from _both("token_embd_norm", (width,), "f32")
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        for name in ("q", "k", "v", "output"):
            yield from _both(f"{prefix}.attn_{name}", (width, width), kind)
        yield from _both(f"{prefix}.ffn_up", (width, shape.feed_forward), kind)
        yield from _both(f"{prefix}.ffn_down", (shape.feed_forward, width), kind)
        for name in ("attn_output_norm", "layer_output_norm"):
            yield from _both(f"{prefix}.{name}", (width,), "f32")


def _both(name: str, dimensions: tuple[int, ...], kind: str) -> Iterable[Line]:
    yield f"{name}.weight", dimensions, kind
    yield f"{name}.bias", dimensions[-1:], "f32"


def _size(dimensions: Sequence[int], block: tuple[int, int, int]) -> int:
    product = 1
    for each in dimensions:
        product *= each
    assert product % block[1] == 0, f"{dimensions} is no whole number of blocks"
    return product // block[1] * block[2]


def _write_weights(file: BinaryIO, kind: str, size_bytes: int) -> None:
    piece = _PIECES.setdefault(kind, _make_piece(kind))
    left = size_bytes
    while left > 0:
        left -= file.write(piece[:left])
    file.write(bytes(-size_bytes % 32))


_PIECES: dict[str, bytes] = {}


def _make_piece(kind: str) -> bytes:
    """Return weights around zero, a whole number of blocks."""
    source = random.Random(1)
    match kind:
        case "f32":
            one = struct.pack("<4096f", *(source.gauss(0, 0.02) for _ in range(4096)))
        case "f16":
            one = struct.pack("<8192e", *(source.gauss(0, 0.02) for _ in range(8192)))
        case _:
            room = BLOCKS[kind][2] - 2
            scale = struct.pack("<e", 0.0005)
            one = b"".join(scale + source.randbytes(room) for _ in range(256))
    return one * (2**20 // len(one) + 1)


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, Sequence[int], int]]) -> Path:
    """Write tensors given as dtype, shape and bytes per number; all of them zero."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, dimensions, width) in tensors.items():
        end = at + _size(dimensions, (0, 1, width))
        header[name] = {"dtype": dtype, "shape": list(dimensions), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(at))
    return path
