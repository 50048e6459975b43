"""Turn trained weights into one GGUF file and prove that llama.cpp reads it the same way.

`python export.py OUT_DIR MODEL.gguf [--type q8_0|f16]` writes the file, then loads it in llama.cpp
and compares token ids on several hundred strings. A model whose tokenizer differs by one id answers
plausibly but worse, so a difference is an error, not a warning.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from pathlib import Path

import gguf
import numpy as np
from facts import all_facts
from model import Config, load_checkpoint
from server import TinyServer
from tokenizer import BOS, CHAT_TEMPLATE, CONTROL_TOKENS, EOS
from tokenizers import Tokenizer
from unknowns import held_out_unknowns, invented_name

log = logging.getLogger("export")

TENSOR_NAMES = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "attention_out": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}

FILE_TYPES = {
    "f16": (gguf.LlamaFileType.MOSTLY_F16, gguf.GGMLQuantizationType.F16),
    "q8_0": (gguf.LlamaFileType.MOSTLY_Q8_0, gguf.GGMLQuantizationType.Q8_0),
}

STRANGE_TEXTS = (
    "",
    " ",
    "   three  spaces   ",
    "\n\n\ttab and\r\nlines \n",
    "Köln, Reykjavík, Łódź, Čeština, Ελλάδα, Україна, България, ქართული",
    "日本語とEnglish混在、「括弧」。",
    "العربية עברית हिन्दी ไทย 한국어",
    "emoji 🇪🇺🇫🇷 👩‍👩‍👧‍👦 🚀🏳️‍🌈 e\u0301 \u200b\ufeff",
    "don't I'll we've they're it's DON'T I'LL",
    "1234567890 3.14 1,000,000 ½ ² Ⅷ ٣",
    "def f(x):\n    return {'a': [x ** 2]}  # comment",
    "[INST]What is France?[/INST]",
    "<s>[INST]a[/INST]b</s>[INST]c[/INST]",
    "[INST] spaced [/INST] text</s>",
    "[inst] [INST [/INST <s </s",
    "tram deploy --model tiny && tram why tiny -o json",
    "https://app.project.localhost:8080/v1/models?x=1&y=%20",
    "€100 – 50 % “quoted” … ‰ № §",
    "a\u00a0b\u2003c\u3000d\x0b\x0c e\x85f",
    "\x00\x01\x7f control",
)


def main() -> None:
    """Write the file, then check it in llama.cpp."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with tokenizer.json and weights.npz")
    parser.add_argument("target", type=Path, help="the GGUF file to write")
    parser.add_argument("--type", choices=sorted(FILE_TYPES), default="q8_0")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tokenizer = Tokenizer.from_file(str(arguments.source / "tokenizer.json"))
    params, config = load_checkpoint(arguments.source / "weights.npz")
    write_model(arguments.target, params, config, tokenizer, arguments.type)
    log.info("%s: %d bytes", arguments.target.name, arguments.target.stat().st_size)
    checked = check_tokenizer(arguments.target, tokenizer)
    log.info("token ids equal in llama.cpp on %d strings", checked)


def write_model(
    target: Path,
    params: dict[str, np.ndarray],
    config: Config,
    tokenizer: Tokenizer,
    file_type: str,
) -> None:
    """Write metadata, tokenizer and tensors. Norms stay F32, as llama.cpp expects."""
    llama_type, tensor_type = FILE_TYPES[file_type]
    writer = gguf.GGUFWriter(str(target), "llama")
    _add_metadata(writer, config, llama_type, sum(p.size for p in params.values()))
    _add_tokenizer(writer, tokenizer)
    for name, values in _named_tensors(params).items():
        if values.ndim == 1:
            writer.add_tensor(name, values.astype(np.float32))
        else:
            data = gguf.quants.quantize(values.astype(np.float32), tensor_type)
            writer.add_tensor(name, data, raw_dtype=tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_tokenizer(model: Path, tokenizer: Tokenizer) -> int:
    """Compare ids with llama.cpp's own; return how many strings were compared."""
    texts = parity_texts()
    with TinyServer(model) as server:
        for text in texts:
            ours = tokenizer.encode(text, add_special_tokens=False).ids
            theirs = server.post("/tokenize", {"content": text, "parse_special": True})["tokens"]
            if ours != theirs:
                raise SystemExit(f"token ids differ for {text!r}: {ours} here, {theirs} there")
            back = server.post("/detokenize", {"tokens": ours})["content"]
            if back != text and not set(CONTROL_TOKENS) & {tokenizer.id_to_token(i) for i in ours}:
                raise SystemExit(f"{text!r} comes back as {back!r}")
    return len(texts)


def parity_texts() -> list[str]:
    """Strange strings, every kind of question, and seeded noise over all of Unicode."""
    rng = random.Random(1)
    facts = rng.sample(all_facts(), 120)
    texts = [*STRANGE_TEXTS, *held_out_unknowns()]
    texts.extend(fact.held_out[0] for fact in facts)
    texts.extend(f"[INST]{fact.question}[/INST]{fact.answer}</s>" for fact in facts)
    texts.extend(invented_name(rng) for _ in range(50))
    for _ in range(300):
        top = rng.choice((0x7F, 0x2FF, 0xD7FF, 0x1FFFF))
        codes = (rng.randint(1, top) for _ in range(rng.randint(1, 24)))
        texts.append("".join(chr(c) for c in codes if not 0xD800 <= c <= 0xDFFF))
    return texts


def _add_metadata(
    writer: gguf.GGUFWriter, config: Config, file_type: gguf.LlamaFileType, parameters: int
) -> None:
    writer.add_name("Tramontane Tiny")
    writer.add_basename("tramontane-tiny")
    writer.add_size_label(f"{parameters / 1e6:.1f}M")
    writer.add_description("Knows a few hundred facts; made for demos and tests.")
    writer.add_author("The Tramontane authors")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_vocab_size(config.vocab_size)
    # Trained for embeddings as well: says so, and how to make one vector of a text's tokens.
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocabulary]
    kinds = [
        gguf.TokenType.CONTROL if token in CONTROL_TOKENS else gguf.TokenType.NORMAL
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(_merges(tokenizer))
    writer.add_bos_token_id(tokenizer.token_to_id(BOS))
    writer.add_eos_token_id(tokenizer.token_to_id(EOS))
    writer.add_pad_token_id(tokenizer.token_to_id(EOS))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _merges(tokenizer: Tokenizer) -> list[str]:
    model = json.loads(tokenizer.to_str())["model"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]


def _named_tensors(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename to llama.cpp's names; matrices are stored output-first there, input-first here."""
    tensors = {"token_embd.weight": params["embedding"], "output_norm.weight": params["norm"]}
    for name, values in params.items():
        layer, _, part = name.partition(".")
        if part:
            tensors[f"blk.{layer}.{TENSOR_NAMES[part]}.weight"] = np.ascontiguousarray(values.T)
    return tensors


if __name__ == "__main__":
    main()
