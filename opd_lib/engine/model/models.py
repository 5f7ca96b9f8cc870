"""Models and tokenizers, always as hub-format checkpoints: made new, loaded by path or hub name, saved."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from opd_lib.engine.model import grouped, hub, intake, tensors
from opd_lib.maths.head import Head
from opd_lib.records import durable
from opd_lib.tasks import chain

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.params.schema import NewModel
    from opd_lib.tasks.world import World

Result = TypeVar("Result")


def generator(*purpose: object) -> torch.Generator:
    """A random generator determined by what it is for, e.g. `generator(seed, "rollout", step)`; no state to save."""
    digest = hashlib.blake2b("/".join(map(str, purpose)).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def chain_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the tiny world (128 words)."""
    return world_tokenizer(chain.WORLD)


def world_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """A world's word-level tokenizer and its chat template, loadable by any tool."""
    return word_tokenizer(
        world.words,
        unknown=world.unknown,
        pad_token=world.pad,
        bos_token=world.bos,
        eos_token=world.eos,
        unk_token=world.unknown,
        chat_template=world.chat_template,
        clean_up_tokenization_spaces=False,
    )


def word_tokenizer(words: Sequence[str], unknown: str, **settings: object) -> PreTrainedTokenizerFast:
    """A tokenizer of words between blanks: a word's id is its place in the list. `settings` are transformers' own."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


def new_model(shape: NewModel, seed: int, tokenizer: PreTrainedTokenizerFast | None = None) -> PreTrainedModel:
    """A randomly initialised `Qwen3ForCausalLM` over a tokenizer's tokens (default: the tiny world's).

    Determined by shape, seed and number of tokens.
    """
    tokenizer = tokenizer or chain_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
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
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "init").initial_seed())
        return Qwen3ForCausalLM(config)


def load(
    path: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A checkpoint by folder or hub name (see `hub.fetch`), in float32 where it is trained.

    bfloat16 weights swallow small updates. Raises ValueError, with the remedy, where nothing loadable stands, where the
    files have not exactly the model's tensors, all of them finite. (`intake.require_prompting` asks for the rest.)
    """
    folder = hub.fetch(path)
    intake.require_files(folder, path)
    intake.config(folder, path)
    tokenizer = intake.tokenizer(folder, path)
    model = tensors.load(folder, path, dtype)
    cut_vocabulary(model, tokenizer, path)
    grouped.use(model)
    return model.to(device), tokenizer


def load_tokenizer(path: str | Path) -> tuple[PreTrainedTokenizerFast, int]:
    """A checkpoint's tokenizer, and how many rows its head has: all that is needed where another machine serves it.

    Raises ValueError as `load` does.
    """
    folder = hub.fetch(path, weights=False)
    intake.require_files(folder, path, "a tokenizer")
    rows = int(intake.config(folder, path).get_text_config().vocab_size)
    tokenizer = intake.tokenizer(folder, path)
    require_rows(tokenizer, rows, path)
    return tokenizer, rows


def cut_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: str | Path) -> None:
    """Cut head and embedding to the tokenizer's length: rows beyond it stand for no token.

    Checkpoints of one family are padded to different lengths (151,936 and 152,064 rows for 151,665 tokens); a top-k
    list, an entropy or a divergence must not see the padding. Raises ValueError if a token has no row.
    """
    rows, length = model.get_output_embeddings().weight.shape[0], len(tokenizer)
    require_rows(tokenizer, rows, path)
    if rows > length:
        model.resize_token_embeddings(length)
    assert model.get_output_embeddings().weight.shape[0] == model.config.vocab_size == length


def require_rows(tokenizer: PreTrainedTokenizerFast, rows: int, path: str | Path) -> None:
    """Raise ValueError if a tokenizer has a token for which a head of so many rows has none."""
    length, largest = len(tokenizer), max(tokenizer.get_vocab().values())
    if rows < length or largest >= length:
        raise ValueError(
            f"{path!s}: its tokenizer has {length} tokens (largest id {largest}), its head {rows} rows; save model and "
            "tokenizer of one vocabulary together"
        )


def merged(
    parts: Sequence[tuple[float, tuple[PreTrainedModel, PreTrainedTokenizerFast]]],
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Σ weight · model, element by element in float32, with the first one's tokenizer.

    Raises ValueError unless all have the same tensors and the same vocabulary.
    """
    (_, (model, tokenizer)), *others = parts
    states = [(weight, dict(each.state_dict())) for weight, (each, _) in parts]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for _, state in states]
    if any(shape != shapes[0] for shape in shapes) or any(
        each.get_vocab() != tokenizer.get_vocab() for _, (_, each) in others
    ):
        raise ValueError("student.merge: the checkpoints differ in shape or vocabulary; merge those of one start")
    summed = {name: sum(weight * state[name].float() for weight, state in states) for name in shapes[0]}
    model.load_state_dict({name: tensor.to(states[0][1][name].dtype) for name, tensor in summed.items()})
    return model, tokenizer


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The tokens that end a response: the tokenizer's end token and those of the checkpoint's generation settings."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    more = named if isinstance(named, list) else [named]
    return tuple(sorted({i for i in [tokenizer.eos_token_id, *more] if i is not None}))


def stated_stop_ids(path: str | Path, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The tokens that end a response, read from a checkpoint's files: its weights are not loaded here."""
    return tuple(sorted({tokenizer.eos_token_id, *intake.ends(hub.fetch(path, weights=False), path)}))


def require_room(model: PreTrainedModel, n_tokens: int, path: str = "") -> None:
    """Raise ValueError if a model is to read more tokens than its context has; `path`: what it was loaded from."""
    room = intake.context(model.config)
    if room is not None and n_tokens > room:
        name = path or model.name_or_path or "the model"
        raise ValueError(
            f"{name}: its context (max_position_embeddings) has {room} tokens, and prompt "
            f"and response may have {n_tokens} together; lower the limit of responses (max_new_tokens)"
        )


def require_finite_logits(model: object, logp: Tensor | None) -> None:
    """Raise ValueError if a log-probability that a model gave is NaN or infinite: its distribution was none."""
    if logp is not None and not logp.isfinite().all():
        name = getattr(model, "name_or_path", "") or "the model"
        raise ValueError(
            f"{name}: its logits are not finite, so nothing can be sampled from it; check its weights, its config.json "
            "(rms_norm_eps, rope_parameters) and machine.precision, or lower train.lr"
        )


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, weights: dict[str, Tensor] | None = None
) -> None:
    """Write a hub-format checkpoint so that `folder` either is complete or does not exist.

    `weights` stand for a model that holds only its share of them (see `sharding.gathered`). Raises ValueError, and
    leaves what is there, for weights that are not finite.
    """
    tensors.require_finite((weights or model.state_dict()).items(), f"{folder}: not saved")
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save_pretrained(new, state_dict=weights)
    tokenizer.save_pretrained(new)
    if folder.exists():
        os.replace(folder, old)
    durable.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def digest(content: bytes) -> str:
    """16 hex digits that stand for these bytes."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def weights_digest(model: PreTrainedModel) -> str:
    """A short hash of every weight: two models with the same digest are the same model."""
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def with_head(model: PreTrainedModel, token_BL: Tensor, predicts_BL: Tensor, use: Callable[[Head], Result]) -> Result:
    """What `use` makes of the last hidden states at the marked positions, packed in row order, and the head.

    `token_BL` is padded on the right: causal attention keeps the padding out of sight. Logits are made in `use`, as few
    at a time as it likes (maths/streaming). A model may have a way of its own to do this (`sharding.place`).
    """
    hidden_BLH: Tensor = model.get_decoder()(input_ids=token_BL, use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise ValueError(f"{type(model).__name__}: its head adds a bias to the logits; only a matrix is supported")
    return use(Head(hidden_BLH[predicts_BL], head.weight))


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Rows of ids as one (B, L) tensor, padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
