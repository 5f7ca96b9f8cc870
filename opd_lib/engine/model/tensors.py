"""A checkpoint's weights: every one of them from its files, of the size its configuration says, and finite.

transformers fills what a file lacks with random numbers and reports it in a log. Here that is a ValueError that names
the checkpoint and the first tensors, as every other fault is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from opd_lib.engine.model.intake import CONFIG, GENERATION, Reading, cannot_load, end_ids
from opd_lib.forecast import hardware

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
NUMBERS = ("F64", "F32", "F16", "BF16")
"""How weights may be stored: other numbers lose what they mean when they are taken as they are."""
NAMED = 3  # of the tensors that are wrong, so many are named


def load(folder: Path, path: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """A checkpoint's model, every weight of which comes from its files.

    Raises ValueError for weights that are pickled, missing, unexpected, of another size, stored as other numbers than
    floating-point ones or not finite, naming the first of them; and for what else cannot be read.
    """
    where = cannot_load(path)
    shapes = stored(folder, where)
    require_plausible(folder, where, sum(size for _, size in shapes.values()), len(shapes))
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is said below
    try:
        with Reading(where):
            found, info = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are said below, with the rest
            )
    finally:
        logging.set_verbosity(level)
    require_whole(info, where)
    require_tied(found, where)
    wrong = [f"{name} ({shapes[name][0]})" for name, _ in found.named_parameters() if is_lossy(shapes.get(name))]
    if wrong:
        raise ValueError(f"{where}: {first(wrong)} stored as no floating-point numbers; save it in bfloat16 or float32")
    require_finite(found.state_dict().items(), where)
    if found.generation_config is not None:
        end_ids(found.generation_config.eos_token_id, f"{where}: {GENERATION}")
    return found


def stored(folder: Path, where: str) -> dict[str, tuple[str, int]]:
    """Each tensor of a folder's safetensors files: its kind of numbers, and how many they are."""
    files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    if not files:
        pickled = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
        what = (
            f"its weights are pickled ({pickled[0]}), and a pickle may run what it likes" if pickled else "no weights"
        )
        raise ValueError(f"{where}: {what}; it needs model.safetensors, as save_pretrained writes it")
    found: dict[str, tuple[str, int]] = {}
    for file in files:
        with Reading(f"{where}: {file.name} is damaged"), safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is no mapping
                part = tensors.get_slice(name)
                found[name] = (part.get_dtype(), prod(part.get_shape()))
    return found


def is_lossy(tensor: tuple[str, int] | None) -> bool:
    """True for numbers that do not mean what they are."""
    return tensor is not None and tensor[0] not in NUMBERS


def require_plausible(folder: Path, where: str, numbers: int, tensors: int) -> None:
    """Raise ValueError if the configuration speaks of a far larger model than the files hold: it would be allocated."""
    try:
        shape = hardware.shape_in(folder / CONFIG)
    except ValueError:
        return  # a kind whose size is not known here
    if shape.parameters > 4 * numbers + 1024 or shape.layers > tensors:
        raise ValueError(
            f"{where}: {CONFIG} describes {shape.layers} layers and {shape.parameters:.3g} weights, the files hold "
            f"{tensors} tensors with {numbers:.3g}; they do not belong together"
        )


def require_whole(info: Mapping[str, Any], where: str) -> None:
    """Raise ValueError unless the files have exactly the model's tensors; tied ones count as there."""
    wrong = [
        (names, word)
        for names, word in (
            (sorted(info["missing_keys"]), "missing"),
            (sorted(info["unexpected_keys"]), "unexpected"),
            (
                [f"{name} {tuple(has)} for {tuple(wants)}" for name, has, wants in sorted(info["mismatched_keys"])],
                "mis-sized",
            ),
        )
        if names
    ]
    if wrong:
        found = "; ".join(f"{len(names)} {word}: {first(names)}" for names, word in wrong)
        raise ValueError(
            f"{where}: its tensors are not those of the model that {CONFIG} describes ({found}); save the model itself "
            "with save_pretrained, without what wraps it (module., _orig_mod., base_model.model.)"
        )


def require_tied(model: PreTrainedModel, where: str) -> None:
    """Raise ValueError if head and embedding are one by the configuration and two in the files."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None:
        raise ValueError(f"{where}: {type(model).__name__} has no head that gives logits; name a causal language model")
    if model.config.get_text_config().tie_word_embeddings and head.weight is not embedding.weight:
        raise ValueError(
            f"{where}: {CONFIG} ties the head to the embedding, and the files hold two that differ; set "
            "tie_word_embeddings to false, or save the model again"
        )


def require_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Raise ValueError if a tensor has a number that is not finite, in the share that is here."""
    wrong = [name for name, tensor in local(tensors) if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        raise ValueError(f"{where}: {first(wrong)} not finite (NaN or infinite); such a model says nothing")


def local(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Of tensors that are spread over the processes, the share that is here."""
    for name, tensor in tensors:
        yield name, tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first(names: list[str]) -> str:
    """The first few of these names."""
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
