"""Stable-OPD: on-policy distillation that is held near the student's start, beside answers that somebody has written.

    loss = L(p, expert) + near · L(p, start) + golden · L_golden
    L          the objective of `opd`, against either teacher, on the student's own responses
    L_golden   cross-entropy on the responses of `corpus` (a `source:` of its own), divided by their own tokens

    teacher: {expert: run:…, start: run:…}    the teacher, and the checkpoint that the student starts from

With near and golden 0 it is `opd` with the expert for a teacher.

Source: arXiv 2604.08527. Differs: the divergence from the start has the form of the objective, whichever that is (the
paper's is a KL estimated at the sampled token: `estimator: sampled`); golden responses have a divisor of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from opd_lib.methods import opd
from opd_lib.methods.opd import NEEDS as NEEDS
from opd_lib.methods.opd import check as check
from opd_lib.methods.opd import reads as reads
from opd_lib.methods.opd import value as value
from opd_lib.seam import Branch, View

if TYPE_CHECKING:
    from torch import Tensor

TEACHERS = frozenset({"expert", "start"})


class Params(opd.Params):
    """The objective's options, and what holds the student."""

    near: Annotated[float, Field(ge=0.0, le=1e6, description="weight of the divergence from the start")]
    golden: Annotated[float, Field(ge=0.0, le=1e6, description="weight of the golden responses")]
    corpus: dict[str, Any] = Field(description="where they come from, as `source:` has it; {} with golden 0")


def shares(view: View, params: Params) -> dict[str, Tensor]:
    """1 for the expert, `near` for the start (N each)."""
    import torch

    one_N = torch.ones_like(view.row_N, dtype=torch.float32)
    return {"expert": one_N, "start": params.near * one_N}


def branches(params: Params) -> tuple[Branch, ...]:
    """The golden responses."""
    if not params.golden:
        return ()
    return (Branch(name="golden", changes={"source": params.corpus, "method": {"name": "sft"}}, coef=params.golden),)


def check_teachers(params: Params, teachers: frozenset[str], contents: frozenset[str]) -> None:
    """Refuse teachers of other names, and golden responses from nowhere. Raises ValueError."""
    if teachers != TEACHERS:
        raise ValueError(
            f"teacher: {', '.join(sorted(teachers)) or '(one without a name)'}: method stable has two; write "
            "{expert: run:…, start: run:…}"
        )
    if bool(params.golden) != bool(params.corpus):
        raise ValueError(
            f"method.corpus: {params.corpus}: with golden: {params.golden:g}; write a source where golden is above 0, "
            "and {} where it is 0"
        )
