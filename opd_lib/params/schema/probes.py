"""`probe:` of a params file: what a run that trains nothing does with its two checkpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from opd_lib.params.schema.base import MOST, Checkpoint, Count, Integers, Strict, Tokens, Words


class TeachersProbe(Strict):
    """How far two teachers are from each other at the states a student visits (H2)."""

    kind: Literal["teachers"]
    batches: Count
    other: Checkpoint


class ContinuationProbe(Strict):
    """The teacher finishes the student's responses from prefixes of `depths` tokens (Fig 11b).

    `new_tokens`: what the continuation may write in the arm of a fixed budget of new tokens.
    """

    kind: Literal["continuation"]
    batches: Count
    depths: Annotated[Integers, Field(min_length=1)]
    new_tokens: Tokens


class RewardProbe(Strict):
    """Does the teacher's mean token reward tell right responses from wrong ones (Fig 14)?"""

    kind: Literal["reward"]
    batches: Count


class GradientProbe(Strict):
    """Do the gradients of single tokens add up or cancel (H1)? And those of the objective `against` (H5)?"""

    kind: Literal["gradient"]
    batches: Count
    tokens: Annotated[int, Field(ge=2, le=MOST)]
    against: dict[str, Any]


class PrefixProbe(Strict):
    """The teacher goes on from the student's responses, cut at random, and from other prefixes (engine/probes/prefix).

    `revision`: words whose probability at the cut is recorded.
    """

    kind: Literal["prefix"]
    batches: Count
    revision: Words


class MixtureProbe(Strict):
    """The student beside the means of a teacher that is shown every key in turn (engine/probes/mixture).

    `shows`: the teacher's user message, with {question} and {key}; `hedges`: words whose probability is recorded.
    """

    kind: Literal["mixture"]
    batches: Count
    shows: str
    hedges: Words


class RolloutsProbe(Strict):
    """Responses fit for fine-tuning are written as parquet: `batches` of prompts_per_step × per_prompt (Table 3).

    Where a response fails a filter (`tasks/filters.py`) its prompt is answered again, `attempts` times in all.
    """

    kind: Literal["rollouts"]
    batches: Count
    attempts: Count


Probe = Annotated[
    TeachersProbe | ContinuationProbe | RewardProbe | GradientProbe | PrefixProbe | MixtureProbe | RolloutsProbe,
    Field(discriminator="kind"),
]
