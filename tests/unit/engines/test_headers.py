"""Headers of model files: what is read from good ones, and how bad ones end."""

import contextlib
import io
import json
import os
import struct
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model_files import (
    F32,
    I32,
    STRING,
    Item,
    Shape,
    metadata_of,
    text,
    write_gguf,
    write_header,
    write_safetensors,
)
from tramontane.base.errors import InvalidRequest
from tramontane.domain.model import Pooling, WeightsFormat
from tramontane.engines.headers.config import facts_of_safetensors, parse_config
from tramontane.engines.headers.gguf import GgufHeader, Listed, read_gguf
from tramontane.engines.headers.gguf_facts import facts_of_gguf
from tramontane.engines.headers.makers import country_of
from tramontane.engines.headers.reading import MalformedHeader
from tramontane.engines.headers.safetensors import read_index, read_safetensors
from tramontane.engines.headers.templates import knows_tools
from tramontane.engines.inspection import inspect_model, weight_files

F16 = (1, 1, 2)


def header(metadata: dict[str, Item], **more: Any) -> bytes:
    file = io.BytesIO()
    write_header(file, metadata, **more)
    return file.getvalue()


def read(raw: bytes) -> GgufHeader:
    return read_gguf(io.BytesIO(raw), len(raw))


def facts(metadata: dict[str, Item]):
    return facts_of_gguf(read(header(metadata)), 1)


# --- GGUF --------------------------------------------------------------------------------------


def test_the_bundled_model() -> None:
    path = Path(str(files("tramontane.engines").joinpath("models/tiny.gguf")))
    found = inspect_model(path)
    assert found.format is WeightsFormat.GGUF
    assert (found.name, found.architecture, found.licence) == (
        "Tramontane Tiny",
        "llama",
        "apache-2.0",
    )
    assert (found.parameters, found.quantisation) == (3_148_032, "Q8_0")
    assert (found.context_length, found.layers, found.embedding_length) == (1024, 4, 256)
    assert (found.feed_forward_length, found.feed_forward_width) == (640, 3 * 640)
    assert (found.attention_heads, found.kv_heads, found.kv_heads_total) == (8, 2, 8)
    assert (found.key_length, found.value_length) == (32, 32)
    assert (found.vocabulary, found.merges) == (2048, 1788)
    assert (found.chat_template, found.tools, found.causal) == (True, False, True)
    assert found.size_bytes == path.stat().st_size
    assert (found.pooling, found.embedding_only) == (Pooling.MEAN, False)
    assert (found.origin_country, found.revision, found.digest) == (None, None, None)


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read(version: int) -> None:
    raw = header({"general.architecture": "llama"}, version=version)
    assert read(raw).version == version


def test_values_of_every_kind() -> None:
    found = read(
        header(
            {
                "text": "grüß",
                "number": 7,
                "share": 0.5,
                "flag": True,
                "texts": (STRING, ["a", "b"]),
                "numbers": (I32, [-1, 2]),
                "many": (F32, [0.0] * 5000),
            }
        )
    ).metadata
    assert found == {
        "text": "grüß",
        "number": 7,
        "share": 0.5,
        "flag": True,
        "texts": Listed(count=2),
        "numbers": Listed(count=2, numbers=(-1, 2)),
        "many": Listed(count=5000),
    }


def test_a_long_text_is_passed_over_and_what_follows_is_read() -> None:
    found = read(header({"long": "x" * (3 * 1024**2), "after": 1})).metadata
    assert found == {"long": None, "after": 1}


def test_what_is_missing_is_unknown() -> None:
    found = facts({})
    assert found.format is WeightsFormat.GGUF
    unknown = {
        name: value
        for name, value in vars(found).items()
        if value is not None and name not in {"format", "size_bytes"}
    }
    assert unknown == {"chat_template": False}


def test_values_of_the_wrong_type_are_unknown() -> None:
    found = facts(
        {
            "general.architecture": "llama",
            "general.name": 7,
            "llama.block_count": "many",
            "llama.context_length": True,
            "llama.attention.head_count": 0.5,
        }
    )
    assert (found.name, found.layers, found.context_length) == (None, None, None)
    assert found.attention_heads is None


def test_a_mixture_of_experts_counts_those_that_a_token_meets(tmp_path: Path) -> None:
    shape = Shape(experts=8, experts_used=2, feed_forward=512)
    found = inspect_model(write_gguf(tmp_path / "m.gguf", shape))
    assert (found.feed_forward_length, found.feed_forward_width) == (1024, 3 * 1024)


def test_a_step_without_a_gate_is_narrower(tmp_path: Path) -> None:
    shape = Shape(architecture="bert", tokenizer="bert", kv_heads=4, feed_forward=512)
    found = inspect_model(write_gguf(tmp_path / "m.gguf", shape))
    assert (found.feed_forward_length, found.feed_forward_width) == (512, 2 * 512)


def test_heads_that_differ_by_layer() -> None:
    shape = Shape(layers=4, more={"llama.attention.head_count_kv": (I32, [4, 0, 2, 0])})
    found = facts(metadata_of(shape))
    assert (found.kv_heads, found.kv_heads_total) == (4, 6)


@pytest.mark.parametrize(
    ("architecture", "more", "sliding"),
    [
        ("gemma3", {}, 10),
        ("gemma3", {"gemma3.attention.sliding_window_pattern": 2}, 6),
        ("gemma3", {"gemma3.attention.sliding_window_pattern": (I32, [1, 0] * 6)}, 6),
        ("unheard-of", {}, 0),
    ],
)
def test_layers_that_look_back_through_a_window(
    architecture: str, more: dict[str, Item], sliding: int
) -> None:
    window = {f"{architecture}.attention.sliding_window": 512}
    shape = Shape(architecture=architecture, layers=12, more={**window, **more})
    found = facts(metadata_of(shape))
    assert (found.sliding_window, found.sliding_layers) == (512, sliding)


def test_latent_attention_keeps_one_compressed_head() -> None:
    latent = {
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 576,
        "deepseek2.attention.value_length": 512,
        "deepseek2.attention.key_length_mla": 192,
    }
    found = facts(metadata_of(Shape(architecture="deepseek2", layers=27, more=latent)))
    assert (found.kv_heads_total, found.key_length, found.value_length) == (27, 576, 0)


def test_recurrent_layers_keep_a_state() -> None:
    state = {"mamba.ssm.inner_size": 1536, "mamba.ssm.state_size": 16, "mamba.ssm.conv_kernel": 4}
    shape = Shape(architecture="mamba", layers=24, kv_heads=0, more=state)
    found = facts(metadata_of(shape))
    assert found.kv_heads_total == 0
    assert found.state_bytes == 24 * 4 * (3 * 1536 + 16 * 1536)


def test_models_that_make_vectors() -> None:
    encoder = facts(metadata_of(Shape(architecture="bert", more={"bert.pooling_type": 2})))
    assert (encoder.embedding_only, encoder.embeds, encoder.pooling) == (True, True, Pooling.CLS)
    decoder = facts(metadata_of(Shape(more={"llama.pooling_type": 3})))
    assert (decoder.embedding_only, decoder.embeds, decoder.pooling) == (False, True, Pooling.LAST)
    plain = facts(metadata_of(Shape()))
    assert (plain.embedding_only, plain.embeds, plain.pooling) == (False, False, None)


def test_the_maker_and_its_country() -> None:
    assert facts({"general.organization": "Mistral AI"}).origin_country == "FR"
    assert facts({"general.organization": "Somebody"}).origin_country is None
    assert country_of("LGAI-EXAONE") == "KR"


@pytest.mark.parametrize(
    ("template", "tools"),
    [
        ("{% for message in messages %}{{ message.content }}{% endfor %}", False),
        ("{%- if tools %}[AVAILABLE_TOOLS]{% endif %}", True),
        ("{{- tools | tojson }}", True),
        ("You have tools.", False),
    ],
)
def test_tools_of_a_template(template: str, tools: bool) -> None:
    assert knows_tools(template) is tools
    assert facts({"tokenizer.chat_template": template}).tools is tools


def test_parts_of_a_split_model_count_together(tmp_path: Path) -> None:
    shape = Shape()
    parts = [tmp_path / f"m-{n:05}-of-00002.gguf" for n in (1, 2)]
    for part in parts:
        write_gguf(part, shape)
    assert weight_files(parts[0]) == tuple(parts)
    alone = inspect_model(write_gguf(tmp_path / "m.gguf", shape))
    assert alone.parameters is not None
    together = inspect_model(parts[0])
    assert together.parameters == 2 * alone.parameters
    assert together.size_bytes == 2 * alone.size_bytes
    parts[1].unlink()
    with pytest.raises(InvalidRequest, match=r"m-00002-of-00002\.gguf"):
        inspect_model(parts[0])


HEAD = b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "the mark GGUF ends at byte 4, but the file has 0"),
        (b"PK\x03\x04 and more", "it is not a GGUF file: it begins with b'PK"),
        (b"GGUF" + struct.pack("<I", 1), "version 1"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (HEAD + struct.pack("<QQ", 2**60, 0), "claims 1152921504606846976 tensors"),
        (HEAD + struct.pack("<QQ", 0, 2**60), "claims 1152921504606846976 keys"),
        (HEAD + struct.pack("<QQ", 0, 1), "the length of the name of key 1"),
        (HEAD + struct.pack("<QQQ", 0, 1, 2**62), "the name of key 1 claims"),
        (HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 1) + b"\xff", "is not UTF-8"),
        (HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<I", 99), "type 99"),
        (HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1), "type 9"),
        (
            HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 2**40),
            "claims 1099511627776 texts",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<IIQ", 9, 4, 2**40),
            "ends at byte",
        ),
        (HEAD + struct.pack("<QQ", 0, 2) + (text("k") + struct.pack("<II", 4, 1)) * 2, "twice"),
        (HEAD + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<I", 2**31), "dimensions"),
        (
            HEAD + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<IQIQ", 1, 2**63, 77, 0),
            "9223372036854775808 parameters",
        ),
    ],
)
def test_a_damaged_header_is_named(raw: bytes, complaint: str) -> None:
    with pytest.raises(MalformedHeader) as caught:
        read(raw)
    assert complaint in caught.value.message


@pytest.mark.parametrize("alignment", [0, 3, "x"])
def test_an_alignment_that_is_none_is_refused(alignment: Item) -> None:
    with pytest.raises(MalformedHeader, match=r"general\.alignment"):
        read(header({"general.alignment": alignment}))


def test_weights_that_are_not_all_there_are_missed() -> None:
    raw = header({}, tensors=[("blk.0.attn_q.weight", (64, 2), F16)])
    assert read(raw + bytes(256)).tensors[0].parameters == 128
    with pytest.raises(MalformedHeader, match=r"'blk\.0\.attn_q\.weight' ends at byte"):
        read(raw + bytes(255))


SAMPLE = header(
    {**metadata_of(Shape(vocabulary=300)), "tokenizer.chat_template": "{{ tools }}"},
    tensors=[("token_embd.weight", (256, 300), F16), ("output_norm.weight", (256,), (0, 1, 4))],
)


def check_total(raw: bytes) -> None:
    """Whatever the bytes are: facts, or the one error that is meant for it."""
    with contextlib.suppress(MalformedHeader):
        facts_of_gguf(read(raw), len(raw))


def test_a_file_cut_at_any_byte_ends_in_an_error() -> None:
    for length in range(0, len(SAMPLE), 3):
        with pytest.raises(MalformedHeader):
            read(SAMPLE[:length])


@settings(max_examples=300, deadline=2000)
@given(st.data())
def test_any_change_of_bytes_ends_in_facts_or_an_error(data: st.DataObject) -> None:
    raw = bytearray(SAMPLE + bytes(256 * 301 * 4))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, len(SAMPLE) - 1))
        patch = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.just(b"\xff" * 8)))
        raw[at : at + len(patch)] = patch
    check_total(bytes(raw))


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=400))
def test_any_bytes_end_in_facts_or_an_error(rest: bytes) -> None:
    check_total(HEAD + rest)


# --- safetensors and config.json ---------------------------------------------------------------

MISTRAL: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "sliding_window": None,
    "vocab_size": 32768,
}


def make_directory(path: Path, config: dict[str, Any] = MISTRAL) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for name in names:
        write_safetensors(path / name, {"w": ("BF16", (8, 4), 2), "n": ("F32", (4,), 4)})
    index = {"metadata": {}, "weight_map": dict(zip("ab", names, strict=True))}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def test_a_directory_of_safetensors(tmp_path: Path) -> None:
    make_directory(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{% if tools %}"}')
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\n")
    found = inspect_model(tmp_path)
    assert found.format is WeightsFormat.SAFETENSORS
    assert (found.architecture, found.parameters) == ("MistralForCausalLM", 72)
    assert (found.quantisation, found.licence) == ("BF16", "apache-2.0")
    assert (found.context_length, found.layers, found.embedding_length) == (32768, 32, 4096)
    assert (found.kv_heads, found.kv_heads_total) == (8, 256)
    assert (found.key_length, found.value_length, found.vocabulary) == (128, 128, 32768)
    assert (found.chat_template, found.tools, found.causal) == (True, True, True)
    shards = list(tmp_path.glob("*.safetensors"))
    assert found.size_bytes == sum(each.stat().st_size for each in shards)


def test_one_file_without_an_index(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_safetensors(tmp_path / "model.safetensors", {"w": ("F16", (3, 5), 2)})
    found = inspect_model(tmp_path)
    assert (found.parameters, found.quantisation) == (15, "F16")
    assert (found.architecture, found.layers, found.causal, found.tools) == (None,) * 4
    assert found.chat_template is False


def test_the_language_part_of_a_model_that_sees() -> None:
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": MISTRAL}
    found = facts_of_safetensors(config, (), size_bytes=1)
    assert (found.architecture, found.layers) == ("Gemma3ForConditionalGeneration", 32)


def test_windows_latent_heads_and_packed_weights() -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    more = {"sliding_window": 512, "layer_types": kinds, "num_hidden_layers": 6}
    assert facts_of_safetensors(MISTRAL | more, (), size_bytes=1).sliding_layers == 5
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_hidden_layers": 2}
    found = facts_of_safetensors(MISTRAL | latent, (), size_bytes=1)
    assert (found.kv_heads_total, found.key_length, found.value_length) == (2, 576, 0)
    packed = {"quantization_config": {"quant_method": "awq"}}
    raw = json.dumps({"w": {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    file = struct.pack("<Q", len(raw)) + raw + bytes(8)
    tensors = read_safetensors(io.BytesIO(file), len(file))
    found = facts_of_safetensors(MISTRAL | packed, tensors, size_bytes=1)
    assert (found.quantisation, found.parameters) == ("awq", None)


def packed(entry: object, data: int = 8) -> bytes:
    raw = entry if isinstance(entry, bytes) else json.dumps({"w": entry}).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(data)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "the length of the header"),
        (struct.pack("<Q", 2**63) + b"{}", "the header ends at byte"),
        (packed(b"[]"), "the header is not a JSON object"),
        (packed(b"{"), "the header is not JSON"),
        (packed(b"[" * 100_000), "the header is not JSON"),
        (packed(b'{"a": 1, "a": 2}'), "a key stands there twice"),
        (packed(7), "tensor 'w' is not described"),
        (packed({"dtype": "F32", "shape": [1]}), "lacks its dtype, shape or data_offsets"),
        (packed({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}), "lacks"),
        (packed({"dtype": "F32", "shape": [2], "data_offsets": [4, 0]}), "ends before it begins"),
        (
            packed({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}),
            "tensor 'w' ends 8 bytes after the file",
        ),
        (packed({"dtype": "F32", "shape": [1] * 40, "data_offsets": [0, 4]}), "40 dimensions"),
    ],
)
def test_damaged_safetensors_are_named(raw: bytes, complaint: str) -> None:
    with pytest.raises(MalformedHeader) as caught:
        read_safetensors(io.BytesIO(raw), len(raw))
    assert complaint in caught.value.message


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/x.safetensors", "passwd"])
def test_an_index_leads_nowhere_else(name: str) -> None:
    with pytest.raises(MalformedHeader, match="no file beside it"):
        read_index(json.dumps({"weight_map": {"a": name}}).encode())


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=200))
def test_any_bytes_after_the_length_end_in_tensors_or_an_error(rest: bytes) -> None:
    raw = struct.pack("<Q", max(len(rest) - 8, 0)) + rest
    with contextlib.suppress(MalformedHeader):
        read_safetensors(io.BytesIO(raw), len(raw))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = st.sampled_from([*MISTRAL, "text_config", "quantization_config", "layer_types"])


@settings(max_examples=200, deadline=2000)
@given(st.dictionaries(NAMES, JSON))
def test_any_config_ends_in_facts(config: dict[str, Any]) -> None:
    facts_of_safetensors(MISTRAL | config, (), size_bytes=1)


def test_a_config_that_is_none() -> None:
    with pytest.raises(MalformedHeader, match=r"config\.json is not JSON"):
        parse_config(b"\x00")


# --- files -------------------------------------------------------------------------------------


def test_files_that_cannot_be_read_say_which(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot read .*missing\.gguf: No such file"):
        inspect_model(tmp_path / "missing.gguf")
    with pytest.raises(InvalidRequest, match=r"cannot read .*config\.json: No such file"):
        inspect_model(tmp_path)
    make_directory(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"12345678")
    with pytest.raises(MalformedHeader, match=r"model-00002-of-00002\.safetensors: the header"):
        inspect_model(tmp_path)
    (tmp_path / "config.json").write_bytes(b" " * (5 * 1024**2))
    with pytest.raises(MalformedHeader, match=r"config\.json is longer than"):
        inspect_model(tmp_path)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(MalformedHeader, match=r"pipe\.gguf is not a regular file"):
        inspect_model(tmp_path / "pipe.gguf")
