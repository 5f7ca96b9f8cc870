"""Checkpoints of architectures and tokenizers that people bring: byte-level BPE, random weights, a few kilobytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as kinds
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

END, PAD = "<|endoftext|>", "<|pad|>"
CHAT = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
TEXT = ["Thinking about what is asked, step by step.", "The answer is 4 + 5 * 3, modulo ten.", "system user assistant"]
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


def tokenizer(chat: str | None = CHAT, pad: bool = True, text: list[str] = TEXT) -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on the spot."""
    made = Tokenizer(kinds.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=320, special_tokens=[END, PAD], initial_alphabet=alphabet)
    )
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, unk_token=END)
    found.pad_token, found.chat_template = PAD if pad else None, chat
    return found


def config(kind: str, rows: int, width: int, **settings: Any) -> Any:
    """An architecture of two layers."""
    common = {"vocab_size": rows, "initializer_range": 0.6, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    if kind == "gpt2":
        return GPT2Config(n_embd=width, n_layer=2, n_head=4, n_positions=512, **common | settings)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512}
    return CONFIGS[kind](**sizes | common | settings)


def save(
    folder: Path,
    kind: str,
    tokens: PreTrainedTokenizerFast | None = None,
    width: int = 32,
    dtype: torch.dtype = torch.float32,
    padding: int = 0,
    **settings: Any,
) -> Path:
    """Write a checkpoint whose head has `padding` rows that stand for no token."""
    tokens = tokens or tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width)
        model = AutoModelForCausalLM.from_config(config(kind, len(tokens) + padding, width, **settings))
    model.to(dtype).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
