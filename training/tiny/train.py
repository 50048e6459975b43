"""Train the tiny model from nothing: `python train.py OUT_DIR [--scale 0.05]`.

Writes `tokenizer.json` and `weights.npz` for `export.py`. Three phases: short rows to learn the
facts, then the same with an embedding loss beside it, then long rows so that a long history does
not disturb the answer. `--scale` shortens all of them; a run of 0.05 is enough to test the export.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from conversations import Batch, Pairs, Sampler
from model import Config, Params, hidden_states, logits, make_params, save_checkpoint
from tokenizer import train_tokenizer

log = logging.getLogger("train")

SEED = 20260501
PEAK_RATE = 2.5e-3
EMBEDDING_WEIGHT = 0.15
EMBEDDING_TEMPERATURE = 0.08
PAIR_LENGTH = 32


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training with rows of one shape."""

    steps: int
    rows: int
    length: int
    turns_max: int
    pairs: int


PHASES = (
    Phase(steps=750, rows=32, length=128, turns_max=4, pairs=0),
    Phase(steps=350, rows=32, length=128, turns_max=4, pairs=32),
    Phase(steps=90, rows=6, length=640, turns_max=40, pairs=32),
)


def main() -> None:
    """Train and save; progress goes to the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for tokenizer.json and weights.npz")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the steps to run")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = Config()
    tokenizer = train_tokenizer(config.vocab_size, SEED)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    phases = [
        dataclasses.replace(phase, steps=max(2, round(phase.steps * arguments.scale)))
        for phase in PHASES
    ]
    params = train(config, Sampler(tokenizer, SEED), phases)
    save_checkpoint(arguments.out / "weights.npz", params, config)


def train(config: Config, sampler: Sampler, phases: list[Phase]) -> Params:
    """Run all phases under one learning-rate schedule."""
    total = sum(phase.steps for phase in phases)
    rate = optax.warmup_cosine_decay_schedule(0.0, PEAK_RATE, min(60, total // 4), total, 5e-5)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, b2=0.98, weight_decay=0.05, mask=_is_matrix),
    )
    params = make_params(config, SEED)
    state = optimizer.init(params)
    log.info("%d parameters, %d steps", sum(p.size for p in params.values()), total)
    step = jax.jit(functools.partial(_step, config, optimizer))
    started, done = time.perf_counter(), 0
    for phase in phases:
        for _ in range(phase.steps):
            batch = sampler.batch(phase.rows, phase.length, phase.turns_max)
            pairs = sampler.pairs(phase.pairs, PAIR_LENGTH) if phase.pairs else None
            params, state, losses = step(params, state, batch, pairs)
            done += 1
            if done % 25 == 0 or done == total:
                seconds = time.perf_counter() - started
                shown = " ".join(f"{name} {float(value):.4f}" for name, value in losses.items())
                log.info("step %d/%d, %.0f s: %s", done, total, seconds, shown)
    return params


def _step(
    config: Config,
    optimizer: optax.GradientTransformation,
    params: Params,
    state: optax.OptState,
    batch: Batch,
    pairs: Pairs | None,
) -> tuple[Params, optax.OptState, dict[str, jax.Array]]:
    gradient = jax.value_and_grad(_loss, has_aux=True)
    (_, losses), grads = gradient(params, config, batch, pairs)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, losses


def _loss(
    params: Params, config: Config, batch: Batch, pairs: Pairs | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    scores = logits(params, hidden_states(params, config, batch.tokens, batch.segments))
    entropy = optax.softmax_cross_entropy_with_integer_labels(scores[:, :-1], batch.tokens[:, 1:])
    weights = batch.weights[:, 1:]
    loss = jnp.sum(entropy * weights) / jnp.sum(weights)
    answers = weights == 1.0
    losses = {"answers": jnp.sum(entropy * answers) / jnp.sum(answers)}
    if pairs is not None:
        losses["pairs"] = _pair_loss(params, config, pairs)
        loss = loss + EMBEDDING_WEIGHT * losses["pairs"]
    return loss, losses


def _pair_loss(params: Params, config: Config, pairs: Pairs) -> jax.Array:
    """Contrast two texts of one fact against all others in the batch, on mean-pooled states.

    This is what `/v1/embeddings` computes (mean pooling, unit length), so it trains what is used.
    """
    tokens = pairs.tokens.reshape(-1, pairs.tokens.shape[-1])
    mask = pairs.mask.reshape(tokens.shape)
    segments = jnp.where(mask > 0, 0, -1)
    states = hidden_states(params, config, tokens, segments) * mask[..., None]
    vectors = states.sum(1) / mask.sum(1, keepdims=True)
    vectors = vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    first, second = jnp.split(vectors, 2)
    scores = first @ second.T / EMBEDDING_TEMPERATURE
    labels = jnp.arange(first.shape[0])
    both = (scores, scores.T)
    return sum(
        optax.softmax_cross_entropy_with_integer_labels(side, labels).mean() / 2 for side in both
    )


def _is_matrix(params: Params) -> dict[str, Any]:
    return jax.tree.map(lambda value: value.ndim > 1, params)


if __name__ == "__main__":
    main()
