"""What is known of a model from the headers of its files: facts, read once and kept.

``engines.headers`` reads them without loading a weight, ``plan.sizing`` reckons with them, and
people see them in ``tram models inspect``. What a file does not say is None, here and everywhere.
"""

from dataclasses import dataclass
from enum import StrEnum


class WeightsFormat(StrEnum):
    """How the weights are stored, which decides who can serve them."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one: a model that says so makes embeddings."""

    NONE = "none"
    MEAN = "mean"
    CLS = "cls"
    LAST = "last"
    RANK = "rank"
    """To a score instead of a vector: the model ranks documents."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The card of a model. None: its files do not say."""

    format: WeightsFormat
    size_bytes: int
    """Of all files with weights."""
    digest: str | None = None
    """``sha256:…`` of the weights; of several files, over the digests of each."""
    revision: str | None = None
    """Of the repository that the files come from."""

    name: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    quantisation: str | None = None
    """Such as ``Q4_K_M`` or ``BF16``: the name by which people choose it."""
    licence: str | None = None
    origin_country: str | None = None
    """Where the seat of its maker is: an ISO 3166 code of two letters."""

    context_length: int | None = None
    """Tokens that it was trained to see at once."""
    layers: int | None = None
    embedding_length: int | None = None
    feed_forward_length: int | None = None
    """Numbers in the widest feed-forward step; of experts, in all that one token meets."""
    feed_forward_width: int | None = None
    """What is alive of one token in that step: the gate, if there is one, beside what goes in."""
    attention_heads: int | None = None
    kv_heads: int | None = None
    """Heads that keys and values are kept for; where layers differ, the most of any."""
    kv_heads_total: int | None = None
    """The same, summed over all layers that keep keys and values."""
    key_length: int | None = None
    value_length: int | None = None
    """Numbers per head and token in the cache; 0 where values are made again from the keys."""
    sliding_window: int | None = None
    sliding_layers: int | None = None
    """How many of the layers look no further back than ``sliding_window`` tokens."""
    state_bytes: int | None = None
    """What one request keeps besides keys and values, however long it is (recurrent layers)."""
    vocabulary: int | None = None
    merges: int | None = None
    """Rules of its tokenizer, beside the tokens."""

    chat_template: bool | None = None
    tools: bool | None = None
    """Whether the chat template knows tools; None without a template."""
    pooling: Pooling | None = None
    causal: bool | None = None
    """Whether each token sees only those before it. If not, the model writes no text."""

    @property
    def embedding_only(self) -> bool:
        """Whether it makes vectors or scores, and no text."""
        return self.causal is False

    @property
    def embeds(self) -> bool:
        """Whether it is made for embeddings or ranking."""
        return self.embedding_only or self.pooling not in {None, Pooling.NONE}
