"""What measuring a pair of checkpoints, or asking one, needs of memory: known before their weights are loaded.

Both are held in float32, whatever they are stored as; a pair that is one checkpoint is held once. As in `memory` the
numbers leave out the framework itself, for which `memory.USABLE` leaves room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opd_lib.engine import memory, sources
from opd_lib.engine.model import models
from opd_lib.engine.sampling import rollout
from opd_lib.forecast import footprint
from opd_lib.forecast.shapes import FLOAT32
from opd_lib.params.refusals import prompt_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from opd_lib.engine.model.held import Held
    from opd_lib.params.schema import Machine, RunParams

DRAWN = 64
"""Bytes per response and entry of the vocabulary while tokens are drawn: logits, float64 probabilities, their order."""
LISTS = 32
"""Candidates of a token: the top-16 of both models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`rows` responses of at most `new_tokens` tokens to prompts of at most `prompt_tokens`.

    `evaluated`: answers to the test sets, all written at a time; 0 where no accuracy is measured.
    """

    rows: int
    prompt_tokens: int
    new_tokens: int
    evaluated: int = 0

    @property
    def length(self) -> int:
        """Tokens of a prompt and its response, at most."""
        return self.prompt_tokens + self.new_tokens


def of_check(params: RunParams, student: Held, n_prompts: int, seed: int, has_accuracy: bool) -> Work:
    """What `pair_features.features` does. Raises ValueError for more tokens than the student's context has."""
    assert params.source.kind == "student"
    asked = params.evaluate
    made = sources.training_prompts(params.task, student.tokenizer, n_prompts, seed, 1)
    longest = max((len(prompt.token_ids) for prompt in made if sources.fits(params.task, prompt)), default=0)
    models.require_room(student.model, longest + params.source.limit(1), student.place)
    return Work(
        rows=n_prompts * params.source.per_prompt,
        prompt_tokens=max(longest, *prompt_tokens(params.task)) if has_accuracy else longest,
        new_tokens=max(params.source.limit(1), asked.max_new_tokens) if has_accuracy else params.source.limit(1),
        evaluated=has_accuracy * asked.n_problems * asked.n_samples * len(params.task.test_sets),
    )


def slots(machine: Machine, model: PreTrainedModel, vocabulary: int, length: int) -> int:
    """How many responses are written at a time: with room for their cache and for what drawing a token takes."""
    by_cache = rollout.slots(model, length, machine.sampler_cache_gib * footprint.GIB, FLOAT32)
    by_logits = int(machine.logits_gib * footprint.GIB // (DRAWN * vocabulary))
    return max(1, min(by_cache, by_logits))


def needed(params: RunParams, student: Held, teacher: Held, work: Work) -> footprint.Memory:
    """What this work holds (bytes)."""
    vocabulary = len(student.tokenizer)
    layers, heads, width = rollout.cache_shape(student.model)
    at_a_time = max(min(work.rows, slots(params.machine, student.model, vocabulary, work.length)), work.evaluated)
    micro = max(min(params.train.micro_tokens, work.rows * work.length), work.length)
    chunk = min(micro, memory.chunk(params.machine, vocabulary))
    read = max(micro, at_a_time * work.prompt_tokens)
    return footprint.Memory(
        weights=float(FLOAT32 * student.parameters),
        optimizer=0.0,
        frozen=float(FLOAT32 * teacher.parameters) if teacher.place != student.place else 0.0,
        gradients=0.0,
        copies=0.0,
        activations=float(read * max(layer(each.model) for each in (student, teacher))),
        logits=footprint.logits(vocabulary, chunk, 2, LISTS),
        sampler=float(DRAWN * vocabulary * at_a_time),
        cache=float(at_a_time * work.length * 2 * layers * heads * width * FLOAT32),
        together=False,
    )


def layer(model: PreTrainedModel) -> int:
    """Bytes that one token takes in one layer, without gradients: eight tensors of the stream, four of its widest."""
    config = model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size
    return int(FLOAT32 * (8 * config.hidden_size + 4 * inner))


def parts(needed: footprint.Memory) -> str:
    """What a sum of memory is made of: weights, and the larger of what is needed at different times."""
    weights = f"student {amount(needed.weights)}, teacher {amount(needed.frozen)}"
    scoring, sampling = amount(needed.passes), amount(needed.sampler + needed.cache)
    return f"{weights}; then the larger of scoring {scoring} and sampling {sampling}"


def amount(size: float) -> str:
    """Bytes in GiB, or in MiB where they are fewer."""
    mib = size / 2**20
    return f"{size / footprint.GIB:.1f} GiB" if size >= footprint.GIB else f"{mib:.{0 if mib >= 10 else 1}f} MiB"
