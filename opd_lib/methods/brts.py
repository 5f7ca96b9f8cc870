"""BRTS: beside the student's own responses, the best of a few that the teacher has written.

    loss = L_student + coef · L_teacher
    L_student   published objective of `opd`, on the student's responses
    L_teacher   forward KL on the teacher's k most likely tokens, on one response of the teacher to each prompt:
                tier 1   of N sampled ones the right one whose tokens the student finds most like its own (mean overlap)
                tier 2   if none is right, one written by a teacher that was shown the answer, if that one is right
                tier 3   otherwise the most similar of the N

Both models score every response behind the plain prompt: what the author was shown is in nobody's input.

Source: arXiv 2605.09725 and its code. Differs: one global token mean for each part; the hint's wording is an option.
With coef 0 no teacher writes: the objective of `opd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from opd_lib.methods import opd, opsd
from opd_lib.methods.opd import NEEDS as NEEDS
from opd_lib.methods.opd import check_served as check_served
from opd_lib.methods.opd import value as value
from opd_lib.seam import Branch, Group, Say, Shown, View
from opd_lib.types import Prompt, Reads

if TYPE_CHECKING:
    from torch import Tensor

FORWARD = {
    "support": "teacher", "weight": "teacher_p", "normalize": "raw", "stop_gradient": False, "direction": "forward",
}  # fmt: skip


class Params(opd.Params):
    """The objective's options, and how the teacher's responses are chosen. A file says `part: student`."""

    part: Literal["student", "teacher"] = Field(description="whose responses; the other part follows from coef")
    coef: Annotated[float, Field(ge=0.0, le=1e6, description="weight of the teacher's part")]
    candidates: Annotated[int, Field(ge=1, le=10**6, description="N, responses of the teacher to choose from")]
    temperature: Annotated[float, Field(gt=0.0, le=1e6, description="at which the teacher writes")]
    top_p: Annotated[float, Field(gt=0.0, le=1.0, description="the share of the mass it draws from")]
    hint: str = Field(description='the message that tier 2\'s author sees, as in `opsd`; "" for no tier 2')
    similar_k: Annotated[int, Field(ge=1, le=10**6, description="length of the lists compared (tokens)")]


def branches(params: Params) -> tuple[Branch, ...]:
    """The teacher's part."""
    if params.part == "teacher":
        return ()
    method = params.model_dump() | FORWARD | {"name": "brts", "part": "teacher"}
    written = params.candidates + bool(params.hint)
    changes = {
        "source.kind": "teacher",
        "source.per_prompt": written,
        "source.temperature": params.temperature,
        "source.top_p": params.top_p,
        "method": method,
    }
    return (Branch(name="teacher", changes=changes, coef=params.coef),)


def reads(params: Params) -> Reads:
    """What the objective reads; of the teacher's responses the overlap as well."""
    of_value = opd.reads(params)
    if params.part == "student":
        return of_value
    signals = frozenset({f"overlap_k{params.similar_k}"})
    return Reads(k=of_value.k, lists=of_value.lists, partition=of_value.partition, signals=signals)


def shown(prompts: Sequence[Prompt], groups: Sequence[Group], params: Params, say: Say) -> Shown:
    """What the author of the teacher's responses sees: the plain prompt, and for the last of a group the hint."""
    chats = []
    for prompt, group in zip(prompts, groups, strict=True):
        hinted = params.part == "teacher" and bool(params.hint)
        plain = len(group.texts) - hinted
        chats += [prompt.chat] * plain + [opsd.shown_chat(prompt, params.hint)] * hinted
    return Shown(chats=chats)


def select(view: View, params: Params) -> Tensor:
    """All of the student's responses; of the teacher's one of each group (B)."""
    import torch

    if params.part == "student":
        return torch.ones_like(view.finished_B)
    overlap_N = view.signal[f"overlap_k{params.similar_k}"]
    similar_PG = view.mean(overlap_N).view_as(view.reward_PG)
    right_PG, n = view.reward_PG > 0.5, params.candidates
    best_P = similar_PG[:, :n].masked_fill(~right_PG[:, :n], -1.0).argmax(1)  # the first of equals
    nearest_P = similar_PG[:, :n].argmax(1)
    chosen_P = torch.where(right_PG[:, :n].any(1), best_P, nearest_P)
    if params.hint:
        chosen_P = torch.where(~right_PG[:, :n].any(1) & right_PG[:, n], n, chosen_P)
    return torch.nn.functional.one_hot(chosen_P, view.reward_PG.shape[1]).bool().flatten()


def notes(view: View, params: Params) -> dict[str, tuple[float, float]]:
    """Of the teacher's part: the shares of prompts that tier 1 and tier 2 have served."""
    if params.part == "student":
        return {}
    right_PG, n = view.reward_PG > 0.5, params.candidates
    first_P = right_PG[:, :n].any(1)
    second_P = ~first_P & right_PG[:, n:].any(1)
    return {"tier1": (float(first_P.sum()), len(first_P)), "tier2": (float(second_P.sum()), len(first_P))}


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """What `opd` refuses of either part. Raises ValueError."""
    opd.check(params, vocabulary, has_teacher)
    if params.part == "student":
        opd.check(params.model_copy(update=FORWARD), vocabulary, has_teacher)
    if params.similar_k > vocabulary:
        raise ValueError(f"method.similar_k: {params.similar_k}: use 1 ≤ similar_k ≤ {vocabulary}")


def check_ungraded(params: Params) -> None:
    """Refuse responses of which nobody knows the right ones: they are chosen first. Raises ValueError."""
    if params.coef:
        raise ValueError(
            f"method.coef: {params.coef:g}: brts chooses right responses of the teacher, but nothing is graded; "
            "use coef: 0.0, or a task.grader other than none"
        )
