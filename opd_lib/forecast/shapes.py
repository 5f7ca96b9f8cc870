"""The shape of a decoder, as its config.json states it: how many weights it has, and bytes in a key-value cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BFLOAT16, FLOAT32 = 2, 4
"""Bytes of a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder. `qkv_bias`: queries, keys and values have one (Qwen2); `qk_norm`: queries and keys are normalised.

    `intermediate` is the width of its gated feed-forward layer, `vocabulary` the rows of its head, padding included.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    qkv_bias: bool
    qk_norm: bool

    @property
    def query_width(self) -> int:
        """d: the width of all queries together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """The width of all keys (or values) together."""
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Weights of one decoder layer."""
        attention = 2 * self.hidden * (self.query_width + self.kv_width)
        biases = (self.query_width + 2 * self.kv_width) * self.qkv_bias
        norms = 2 * self.hidden + 2 * self.head_dim * self.qk_norm
        return attention + biases + norms + 3 * self.hidden * self.intermediate

    @property
    def body(self) -> int:
        """N: weights without embedding and head."""
        return self.layers * self.layer_parameters + self.hidden

    @property
    def head(self) -> int:
        """V·H: weights of the head; the embedding has as many, and is the same if `tied`."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.body + self.head * (1 if self.tied else 2)

    def kv_bytes(self, number: int = BFLOAT16) -> int:
        """Bytes that the key-value cache keeps of one token."""
        return 2 * self.layers * self.kv_width * number


def shape(config: Mapping[str, Any]) -> Shape:
    """The shape that a hub checkpoint's config.json states. Raises ValueError for other kinds of model."""
    kind = config.get("model_type")
    if kind not in ("qwen2", "qwen3"):
        raise ValueError(f"model_type: {kind!r}: costs are known for qwen2 and qwen3 only; write its Shape out")
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return Shape(
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        intermediate=int(config["intermediate_size"]),
        heads=heads,
        kv_heads=int(config["num_key_value_heads"]),
        head_dim=int(config.get("head_dim") or hidden // heads),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=kind == "qwen2" or bool(config.get("attention_bias", False)),
        qk_norm=kind == "qwen3",
    )
