"""Checkpoints in GGUF files: read once, written beside the records as a plain folder, and loaded from there ever after.

    gguf:PATH            a file
    gguf:PACKAGE/FILE    a file that an installed Python package carries

A plain folder is what everything else here reads: sizes before weights, tokens before a prompt. Quantized weights
become the float32 numbers that they stand for. transformers saves no model that it has read from such a file, and may
take its tokenizer's beginning for its end; both are put right here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from opd_lib import paths
from opd_lib.engine.model.intake import CONFIG, Reading, cannot_load
from opd_lib.names import GGUF_PREFIX

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PLACE = paths.LOCAL / "gguf"
REMEDY = "copy the file again, or give the checkpoint that it was made from"
ENDS = {"eos_token": "eos", "pad_token": "padding", "bos_token": "bos", "unk_token": "unknown"}
"""Special token of a tokenizer → its name in the file: tokenizer.ggml.NAME_token_id."""


def folder(reference: str, place: Path | None = None) -> Path:
    """The folder of the checkpoint that a GGUF file holds, written first if nobody has yet.

    It stands in `place` (PLACE) and is named by the file and the digest of its content. Raises ValueError for a file
    that is not there or not whole, and for a model that transformers does not read from such files.
    """
    file = located(reference)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=6)).hexdigest()
    place = place or PLACE
    found = place / f"{re.sub(r'[^A-Za-z0-9._-]', '-', file.stem)}-{digest}"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / f".{found.name}.lock"):
        if not (found / CONFIG).is_file():
            written = found.with_name(f".{found.name}.{os.getpid()}")
            shutil.rmtree(written, ignore_errors=True)
            write(file, written)
            os.replace(written, found)
    return found


def located(reference: str) -> Path:
    """Where the file is. Raises ValueError, with what to do, if it is not there."""
    name = reference.removeprefix(GGUF_PREFIX)
    if Path(name).is_file():
        return Path(name)
    package, _, inside = name.partition("/")
    where = cannot_load(reference)
    is_package = package.isidentifier() and bool(inside)
    spec = importlib.util.find_spec(package) if is_package else None
    if spec is None:
        more = f", and no package {package} is installed" if is_package else ""
        raise ValueError(f"{where}: no such file{more}; write gguf:PATH, or gguf:PACKAGE/FILE of an installed package")
    for root in spec.submodule_search_locations or ():
        if (file := Path(root) / inside).is_file() and file.resolve().is_relative_to(Path(root).resolve()):
            return file
    there = sorted(file.name for root in spec.submodule_search_locations or () for file in Path(root).glob("*.gguf"))
    raise ValueError(f"{where}: package {package} has no file {inside}; it has {', '.join(there) or 'no GGUF file'}")


def write(file: Path, into: Path) -> None:
    """Write the checkpoint of a GGUF file as a folder: float32 weights, configuration, tokenizer and its ends."""
    where = cannot_load(f"{GGUF_PREFIX}{file}")
    with quiet(), Reading(where, REMEDY):
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        set_ends(tokenizer, file)
        plain(read).save_pretrained(into)
        tokenizer.save_pretrained(into)


@contextmanager
def quiet() -> Iterator[None]:
    """No bars of transformers inside the block: it takes seconds."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def plain(read: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model of which nothing says that it was quantized."""
    settings = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    with torch.device("meta"):
        model = type(read)(AutoConfig.for_model(**settings))
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = read.generation_config
    return model


def set_ends(tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    """Give a tokenizer the special tokens that the file itself names."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    for name, short in ENDS.items():
        if (field := fields.get(f"tokenizer.ggml.{short}_token_id")) is not None:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(int(field.contents())))
