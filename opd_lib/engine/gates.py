"""Checks at the start of every run, because the worst distillation bugs train happily in silence.

Each gate raises ValueError with the remedy, or returns what it measured for the run's record: a teacher of another
vocabulary, differently rendered prompts, a sampler that is not the trainer, a teacher that says nothing, a loss that
does not look at the teacher.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import torch

from opd_lib import tasks
from opd_lib.engine import score, sources
from opd_lib.maths import logprobs
from opd_lib.methods import Method
from opd_lib.types import Rollouts, TokenScores

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.schema import RunParams

SAMPLER_TOLERANCE = 1e-3  # nats; float32 sampling and training differ by rounding only
DEPENDENCE = 1e-6  # relative change of the gradient under another teacher


def same_vocabulary(student: sources.Model, teacher: sources.Model) -> dict[str, Any]:
    """Student and teacher must mean the same by every token id. Raises ValueError naming the first that differs."""
    ours, theirs = ({index: word for word, index in model[1].get_vocab().items()} for model in (student, teacher))
    if ours != theirs:
        first = min(index for index in {*ours, *theirs} if ours.get(index) != theirs.get(index))
        raise ValueError(
            f"teacher: its vocabulary is not the student's: id {first} is {ours.get(first)!r} for the student and "
            f"{theirs.get(first)!r} for the teacher; distillation by token needs one tokenizer"
        )
    return {"vocabulary": len(ours)}


def same_prompt(params: RunParams, student: sources.Model, teacher: sources.Model) -> dict[str, Any]:
    """Both models must be given the same rendered prompt; text and hash go into the record."""
    task = params.task
    question = tasks.load(task.name).test(task, task.test_sets[0], 1)
    mine, other = (
        sources.make_prompts(model[1], task, question, [task.template], "gate")[0] for model in (student, teacher)
    )
    if (mine.rendered, mine.token_ids) != (other.rendered, other.token_ids):
        raise ValueError(
            f"teacher: renders the prompt as {other.rendered!r}, the student as {mine.rendered!r}; "
            "give both the same chat template"
        )
    return {"prompt": mine.rendered, "prompt_sha256": hashlib.sha256(mine.rendered.encode()).hexdigest()}


def sampler_agrees(rollouts: Rollouts, scores: TokenScores) -> dict[str, Any]:
    """The sampler's log-probabilities must be the trainer's (only for responses the student has just sampled)."""
    gap = sampler_gap(rollouts, scores)
    if not gap <= SAMPLER_TOLERANCE:
        raise ValueError(
            f"source: sampler and trainer log-probabilities differ by up to {gap:.2g} nats (allowed: "
            f"{SAMPLER_TOLERANCE:g}); the sampled policy is not the trained one: check weights, positions and masks"
        )
    return {"sampler_gap": gap}


def sampler_gap(rollouts: Rollouts, scores: TokenScores) -> float:
    """Largest |sampler − trainer| log-probability over the tokens sampled here (nats); 0 if none were."""
    if rollouts.sampler_logp_BT is None:
        return 0.0
    sampler_logp_N = rollouts.sampler_logp_BT[scores.row_N, scores.position_N]
    return float((sampler_logp_N - scores.student_logp_N.detach()).abs().max())


def teacher_speaks(scores: TokenScores, vocabulary: int) -> dict[str, Any]:
    """The teacher must be finite and know more than a uniform guess (lost weights look uniform)."""
    assert scores.teacher_entropy_N is not None and scores.teacher_logp_N is not None
    entropy, logp = float(scores.teacher_entropy_N.mean()), float(scores.teacher_logp_N.mean())
    uniform = math.log(vocabulary)
    if not (math.isfinite(logp) and entropy < 0.9 * uniform):
        raise ValueError(
            f"teacher: entropy {entropy:.3g} nats where a uniform guess has {uniform:.3g}, mean log-probability "
            f"{logp:.3g}: it has learned nothing or lost its weights; check the checkpoint"
        )
    return {"teacher_entropy": entropy, "teacher_logp": logp}


def gradient_sees_teacher(
    method: Method, options: Any, student: PreTrainedModel, teacher: PreTrainedModel, rollouts: Rollouts, k: int
) -> dict[str, Any]:
    """The gradient at the logits must change when the teacher's distribution is replaced by another."""
    rows = torch.arange(min(4, len(rollouts.prompts)))
    with torch.no_grad():
        student_NV = score.response_logits(student, rollouts, rows)
        teacher_NV = score.response_logits(teacher, rollouts, rows)
    lengths = rollouts.length_B[rows].tolist()
    token_N = torch.cat([rollouts.response_BT[row, :n] for row, n in zip(rows.tolist(), lengths, strict=True)])
    position_N = torch.zeros_like(token_N)

    def gradient(teacher_logits_NV: Tensor) -> Tensor:
        logits_NV = student_NV.clone().requires_grad_()
        scores = logprobs.score(logits_NV, teacher_logits_NV, token_N, position_N, position_N, k=k)
        (result,) = torch.autograd.grad(method.loss(scores, options).total, logits_NV)
        return result

    true_NV, other_NV = gradient(teacher_NV), gradient(teacher_NV.roll(1, dims=-1))
    change = float((true_NV - other_NV).norm() / other_NV.norm().clamp(min=1e-30))
    if not change > DEPENDENCE:
        raise ValueError(
            f"method: the gradient does not depend on the teacher (relative change {change:.2g}); this objective is "
            "no distillation: see the refusals of methods/opd.py"
        )
    return {"teacher_dependence": change}
