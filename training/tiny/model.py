"""The network: a Mistral-style decoder in plain JAX, small enough to train on two CPU cores.

RMSNorm, rotary positions, grouped-query attention and SwiGLU, as in Mistral 7B, so that llama.cpp
runs it as architecture `llama` without a line of special code. Two choices differ from the
big models: input and output embeddings are one matrix (half the vocabulary cost), and there is no
sliding window (the context is shorter than any window would be).

`train.py` calls `hidden_states` and `logits`; `export.py` reads `Config` and the parameter names.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Config:
    """Shape of the network. Every width is a multiple of 32, the block length of Q8_0."""

    vocab_size: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 2
    ffn_width: int = 640
    context_length: int = 1024
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Width of one attention head; also the number of rotated dimensions."""
        return self.width // self.heads


class Geometry(NamedTuple):
    """Who may look at whom, and how positions turn: the same for every layer."""

    bias: jax.Array
    cos: jax.Array
    sin: jax.Array


def make_params(config: Config, seed: int) -> Params:
    """Draw initial weights; residual outputs start small so that depth does not add up."""
    rng = np.random.default_rng(seed)

    def normal(rows: int, columns: int, scale: float) -> jax.Array:
        return jnp.asarray(rng.normal(0.0, scale, (rows, columns)), jnp.float32)

    width, kv_width = config.width, config.kv_heads * config.head_width
    inner, residual = width**-0.5, (2 * config.layers * width) ** -0.5
    params: Params = {
        "embedding": normal(config.vocab_size, width, 0.02),
        "norm": jnp.ones(width),
    }
    for layer in range(config.layers):
        params |= {
            f"{layer}.attention_norm": jnp.ones(width),
            f"{layer}.query": normal(width, width, inner),
            f"{layer}.key": normal(width, kv_width, inner),
            f"{layer}.value": normal(width, kv_width, inner),
            f"{layer}.attention_out": normal(width, width, residual),
            f"{layer}.ffn_norm": jnp.ones(width),
            f"{layer}.gate": normal(width, config.ffn_width, inner),
            f"{layer}.up": normal(width, config.ffn_width, inner),
            f"{layer}.down": normal(config.ffn_width, width, residual),
        }
    return params


def hidden_states(
    params: Params, config: Config, tokens: jax.Array, segments: jax.Array
) -> jax.Array:
    """Return the normalised last-layer states, (batch, time, width).

    `segments` numbers the conversations packed into a row: a token sees only earlier tokens of its
    own conversation. Rotary positions are relative, so they need no restart per conversation.
    """
    time = tokens.shape[1]
    causal = jnp.tril(jnp.ones((time, time), bool))
    visible = causal[None] & (segments[:, :, None] == segments[:, None, :])
    geometry = Geometry(jnp.where(visible, 0.0, -1e9)[:, None, None], *rotation(config, time))
    states = params["embedding"][tokens]
    for layer in range(config.layers):
        states = states + attention(params, config, layer, states, geometry)
        states = states + feed_forward(params, config, layer, states)
    return rms_norm(states, params["norm"], config.norm_epsilon)


def logits(params: Params, states: jax.Array) -> jax.Array:
    """Score the vocabulary with the tied embedding matrix."""
    return states @ params["embedding"].T


def attention(
    params: Params,
    config: Config,
    layer: int,
    states: jax.Array,
    geometry: Geometry,
) -> jax.Array:
    """Grouped-query attention: `heads / kv_heads` query heads share one key and value head."""
    batch, time, _ = states.shape
    groups = config.heads // config.kv_heads
    normed = rms_norm(states, params[f"{layer}.attention_norm"], config.norm_epsilon)

    def split(name: str, heads: int) -> jax.Array:
        projected = normed @ params[f"{layer}.{name}"]
        return projected.reshape(batch, time, heads, config.head_width)

    query = rotate(split("query", config.heads), geometry)
    query = query.reshape(batch, time, config.kv_heads, groups, config.head_width)
    key = rotate(split("key", config.kv_heads), geometry)
    value = split("value", config.kv_heads)
    scores = jnp.einsum("bqkgd,bskd->bkgqs", query, key) * config.head_width**-0.5
    mixed = jnp.einsum("bkgqs,bskd->bqkgd", jax.nn.softmax(scores + geometry.bias), value)
    return mixed.reshape(batch, time, config.width) @ params[f"{layer}.attention_out"]


def feed_forward(params: Params, config: Config, layer: int, states: jax.Array) -> jax.Array:
    """SwiGLU: a gated linear unit with SiLU as the gate."""
    normed = rms_norm(states, params[f"{layer}.ffn_norm"], config.norm_epsilon)
    gate = jax.nn.silu(normed @ params[f"{layer}.gate"])
    return (gate * (normed @ params[f"{layer}.up"])) @ params[f"{layer}.down"]


def rms_norm(states: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    """Scale each state to unit root mean square, then by a learned weight."""
    return states * jax.lax.rsqrt(jnp.mean(states**2, -1, keepdims=True) + epsilon) * weight


def rotation(config: Config, time: int) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines per position and pair of dimensions."""
    pairs = jnp.arange(0, config.head_width, 2) / config.head_width
    angles = jnp.arange(time)[:, None] * config.rope_base ** -pairs[None]
    return jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]


def rotate(heads: jax.Array, geometry: Geometry) -> jax.Array:
    """Rotate neighbouring pairs, llama.cpp's order for `llama`: the export permutes nothing."""
    _, cos, sin = geometry
    even, odd = heads[..., 0::2], heads[..., 1::2]
    rotated = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return rotated.reshape(heads.shape)


def save_checkpoint(path: Path, params: Params, config: Config) -> None:
    """Write weights and shape into one .npz."""
    arrays = {name: np.asarray(value) for name, value in params.items()}
    np.savez(path, config=json.dumps(dataclasses.asdict(config)), **arrays)


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], Config]:
    """Read what `save_checkpoint` wrote."""
    with np.load(path) as stored:
        config = Config(**json.loads(str(stored["config"])))
        return {name: stored[name] for name in stored.files if name != "config"}, config
