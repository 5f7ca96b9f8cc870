"""Models and tokenizers, always as hub-format checkpoints: made new, loaded by path or hub name, saved."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from opd_lib.tasks import chain

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.schema import NewModel


def generator(*purpose: object) -> torch.Generator:
    """A random generator determined by what it is for, e.g. `generator(seed, "rollout", step)`; no state to save."""
    digest = hashlib.blake2b("/".join(map(str, purpose)).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def chain_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny world's word-level tokenizer (128 words) and its chat template, loadable by any tool."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = {word: index for index, word in enumerate(chain.VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token=chain.UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=chain.PAD,
        bos_token=chain.BOS,
        eos_token=chain.EOS,
        unk_token=chain.UNKNOWN,
        chat_template=chain.CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def new_model(shape: NewModel, seed: int) -> PreTrainedModel:
    """A randomly initialised `Qwen3ForCausalLM` over the tiny world's vocabulary, determined by (shape, seed)."""
    config = Qwen3Config(
        vocab_size=len(chain.VOCABULARY),
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.hidden // shape.heads,
        intermediate_size=3 * shape.hidden,
        max_position_embeddings=shape.context,
        tie_word_embeddings=False,
        initializer_range=shape.initializer_range,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        pad_token_id=chain.VOCABULARY.index(chain.PAD),
        bos_token_id=chain.VOCABULARY.index(chain.BOS),
        eos_token_id=chain.VOCABULARY.index(chain.EOS),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "init").initial_seed())
        return Qwen3ForCausalLM(config)


def load(path: str | Path, device: str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A checkpoint by folder or hub name, in float32 (bfloat16 master weights swallow small updates).

    Raises ValueError where nothing loadable stands, naming the place and the remedy.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
        model = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"cannot load a checkpoint from {path!s}: {str(error).splitlines()[0]}. Give a folder written by "
            "save_pretrained, a hub name, or run:NOTEBOOK/ARM (`opd run NOTEBOOK ARM SEED` makes that checkpoint again)"
        ) from error
    cut_vocabulary(model, tokenizer, path)
    return model.to(device), tokenizer


def cut_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: str | Path) -> None:
    """Cut head and embedding to the tokenizer's length: rows beyond it stand for no token.

    Checkpoints of one family are padded to different lengths (151,936 and 152,064 rows for 151,665 tokens); a top-k
    list, an entropy or a divergence must not see the padding. Raises ValueError if a token has no row.
    """
    rows, length = model.get_output_embeddings().weight.shape[0], len(tokenizer)
    if rows < length or max(tokenizer.get_vocab().values()) >= length:
        raise ValueError(
            f"{path!s}: its tokenizer has {length} tokens (largest id {max(tokenizer.get_vocab().values())}), its head "
            f"{rows} rows; save model and tokenizer of one vocabulary together"
        )
    if rows > length:
        model.resize_token_embeddings(length)
    assert model.get_output_embeddings().weight.shape[0] == model.config.vocab_size == length


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The tokens that end a response: the tokenizer's end token and those of the checkpoint's generation settings."""
    named = model.generation_config.eos_token_id if model.generation_config else None
    more = named if isinstance(named, list) else [named]
    return tuple(sorted({i for i in [tokenizer.eos_token_id, *more] if i is not None}))


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a hub-format checkpoint so that `folder` either is complete or does not exist."""
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save_pretrained(new)
    tokenizer.save_pretrained(new)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def digest(content: bytes) -> str:
    """16 hex digits that stand for these bytes."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def weights_digest(model: PreTrainedModel) -> str:
    """A short hash of every weight: two models with the same digest are the same model."""
    state = sorted(model.state_dict().items())
    return digest(b"".join(name.encode() + tensor.cpu().contiguous().numpy().tobytes() for name, tensor in state))


def last_hidden(model: PreTrainedModel, token_BL: Tensor) -> Tensor:
    """Hidden states (B, L, H) of right-padded token ids (B, L). Causal attention keeps the padding out of sight."""
    hidden: Tensor = model.get_decoder()(input_ids=token_BL, use_cache=False).last_hidden_state
    return hidden


def head(model: PreTrainedModel, hidden_NH: Tensor) -> Tensor:
    """Logits (N, V) of hidden states (N, H)."""
    logits: Tensor = model.get_output_embeddings()(hidden_NH)
    return logits


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Rows of ids as one (B, L) tensor, padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
