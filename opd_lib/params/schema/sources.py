"""`source:` of a params file: where a step's responses come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from opd_lib.params.schema.base import (
    Count,
    Integers,
    Nucleus,
    Probability,
    RunOf,
    Size,
    Strict,
    Temperature,
    Tokens,
    Words,
    as_tuple,
)
from opd_lib.tasks.labelled import Weight, Weights

Continued = Annotated[float, Field(ge=0.0, le=0.95)]
"""The probability of one more: at 1 there would be no end."""


class Limit(Strict):
    """From step `step` on, responses have at most `max_new_tokens` tokens."""

    step: Count
    max_new_tokens: Tokens


class Sampled(Strict):
    """Responses sampled from the student (on-policy) or from the teacher (off-policy).

    `schedule` changes the response limit from given steps on; empty, it is `max_new_tokens` throughout.
    """

    kind: Literal["student", "teacher"]
    prompts_per_step: Size
    per_prompt: Size
    max_new_tokens: Tokens
    schedule: Annotated[tuple[Limit, ...], BeforeValidator(as_tuple)]
    temperature: Temperature
    top_p: Nucleus

    def limit(self, step: int) -> int:
        """The response limit at a step (tokens)."""
        begun = [entry for entry in self.schedule if entry.step <= step]
        return max(begun, key=lambda entry: entry.step).max_new_tokens if begun else self.max_new_tokens

    @property
    def longest(self) -> int:
        """The largest response limit of any step (tokens)."""
        return max(self.max_new_tokens, *(entry.max_new_tokens for entry in self.schedule), 0)


class Corpus(Strict):
    """Responses written by the corpus generator of the tiny world."""

    kind: Literal["corpus"]
    prompts_per_step: Size
    templates: Words
    pattern_b: Probability
    filler_before_step: Probability
    filler_anywhere: Probability
    slip_operands: Integers
    slip_probability: Probability


class Traces(Strict):
    """Responses written by the corpus generator of the tiny world's second edition (tasks/labelled_traces).

    `pattern_b`: template → the share of its traces that are in pattern B; templates are dealt at random.
    `filler_offset`: the filler of rank r, from 0, comes in proportion to 1 / (r + offset).
    `operator_weights`: how often +, −, * and ~ come. `recheck`: the probabilities of one more re-check at a step, one
    dealt to each trace; `recheck_slip`: how likely a slip is at a re-check, as a share of `slip_probability`.
    """

    kind: Literal["traces"]
    prompts_per_step: Size
    operator_weights: Weights
    pattern_b: Annotated[dict[str, Probability], Field(min_length=1)]
    filler_offset: Annotated[float, Field(ge=0.1, le=1e6)]
    filler_before_step: Probability
    filler_anywhere: Probability
    slip_operands: Integers
    slip_probability: Probability
    recheck: Annotated[tuple[Continued, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    recheck_slip: Probability


Way = Literal["plain", "hint", "worked", "brief", "think", "style", "safe", "rule", "garbled"]


class TaggedTraces(Traces):
    """Traces of chains that are asked for in several ways (tasks/tagged_traces).

    `asked`: how often each way comes, relatively; `wrong`, `skip`, `hedge`, `stray`: what the ways leave to chance.
    """

    kind: Literal["tagged"]  # type: ignore[assignment]
    asked: Annotated[dict[Way, Weight], Field(min_length=1)]
    wrong: Probability
    skip: Probability
    hedge: Continued
    stray: Probability


class Answers(Strict):
    """Responses that state the answer of a question's set and nothing else: what rehearsal models learn from."""

    kind: Literal["answers"]
    prompts_per_step: Size


class Stored(Strict):
    """Responses written by an earlier run of probe kind `rollouts`, in the order they were written (Table 3).

    `rollouts` is that run, as `run:NOTEBOOK/ARM`. Past the last stored response it begins again at the first.
    """

    kind: Literal["stored"]
    rollouts: RunOf
    prompts_per_step: Size


Source = Annotated[Sampled | Corpus | Traces | TaggedTraces | Answers | Stored, Field(discriminator="kind")]
