"""What a checkpoint is, before its weights are loaded or downloaded: sizes, kinds of numbers, tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM

from opd_lib.engine.model import hub, intake, models, tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A checkpoint. `model` has every size and no numbers (it stands on torch's device `meta`).

    `folder` holds its configuration and tokenizer, and its weights unless `download` says otherwise: the bytes that the
    hub has still to send. `numbers`: how many weights are stored as which kind (safetensors' names; empty before a
    download); `stored`: bytes of the files that hold them.
    """

    place: str
    folder: Path
    download: int
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    numbers: Mapping[str, int]
    stored: int

    @property
    def parameters(self) -> int:
        """How many weights it has; those of a tied head once."""
        return sum(each.numel() for each in self.model.parameters())

    @property
    def both(self) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        """Model and tokenizer, as `models.load` gives them."""
        return self.model, self.tokenizer


def look(place: str) -> Held:
    """A folder's checkpoint, or a hub model's, whose small files are downloaded for it.

    Raises ValueError as `models.load` does.
    """
    waiting = hub.outstanding(place)
    folder = hub.fetch(place, weights=not waiting)
    intake.require_files(folder, place)
    config, tokenizer, where = intake.config(folder, place), intake.tokenizer(folder, place), intake.cannot_load(place)
    found = {} if waiting else tensors.stored(folder, where)
    if found:
        tensors.require_plausible(folder, where, sum(size for _, size in found.values()), len(found))
    with intake.Reading(where), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    models.require_rows(tokenizer, model.get_input_embeddings().weight.shape[0], place)
    numbers: Counter[str] = Counter()
    for kind, size in found.values():
        numbers[kind] += size
    return Held(
        place=place,
        folder=folder,
        download=waiting or 0,
        model=model,
        tokenizer=tokenizer,
        numbers=numbers,
        stored=sum(file.stat().st_size for file in folder.glob(hub.WEIGHTS)) if found else 0,
    )
