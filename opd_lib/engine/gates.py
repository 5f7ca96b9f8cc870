"""Checks at the start of every run, because the worst distillation bugs train happily in silence.

Each gate raises ValueError with the remedy, or returns what it measured for the run's record: a teacher of another
vocabulary, differently rendered prompts, other end tokens, a sampler that is not the trainer, a teacher that says
nothing, a loss that does not look at the teacher.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch

from opd_lib import tasks
from opd_lib.engine import aligning, score, sources
from opd_lib.engine import teacher as teachers
from opd_lib.engine.model import models
from opd_lib.maths import logprobs
from opd_lib.maths.head import CombinedLogits, Head, TeacherLogits
from opd_lib.maths.streaming import Served
from opd_lib.maths.units import AlignedLogits
from opd_lib.types import OUTSIDE, Rollouts, TokenScores

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.engine.credit import Credit
    from opd_lib.methods import Method
    from opd_lib.params.schema import RunParams

DEPENDENCE = 1e-6  # relative change of the gradient under another teacher
LISTED = 16  # of a served teacher's most likely tokens, to see that it knows more than a uniform guess


def same_tongue(params: RunParams, method: Method, student: sources.Model, teacher: sources.Model) -> dict[str, Any]:
    """One vocabulary, one rendered prompt, a common end; the same messages alone where a method aligns tokenizers."""
    if method.aligned is not None:
        return aligning.same_chat(params, student, teacher)
    same = same_vocabulary(student, teacher) | same_prompt(params, student, teacher)
    return same | same_end(student, teacher)


def same_vocabulary(student: sources.Model, teacher: sources.Model) -> dict[str, Any]:
    """Student and teacher must mean the same by every token id. Raises ValueError naming the first that differs."""
    ours, theirs = ({index: word for word, index in model[1].get_vocab().items()} for model in (student, teacher))
    if ours != theirs:
        first = min(index for index in {*ours, *theirs} if ours.get(index) != theirs.get(index))
        raise ValueError(
            f"teacher: its vocabulary is not the student's: id {first} is {ours.get(first)!r} for the student and "
            f"{theirs.get(first)!r} for the teacher; distillation by token needs one tokenizer, method simct aligns two"
        )
    return {"vocabulary": len(ours)}


def same_prompt(params: RunParams, student: sources.Model, teacher: sources.Model) -> dict[str, Any]:
    """Both models must be given the same rendered prompt; text and hash go into the record."""
    task = params.task
    question = tasks.load(task.name).test(task, task.test_sets[0], 1)
    mine, other = (
        sources.make_prompts(model[1], task, question, [task.template], "gate")[0] for model in (student, teacher)
    )
    if mine.rendered != other.rendered:
        raise ValueError(
            f"teacher: renders the prompt as {other.rendered!r}, the student as {mine.rendered!r}; "
            "give both the same chat template"
        )
    if mine.token_ids != other.token_ids:
        pairs = ((student, mine), (teacher, other))
        words = [model[1].convert_ids_to_tokens(list(prompt.token_ids)) for model, prompt in pairs]
        ours, theirs = next((one, two) for one, two in zip_longest(*words) if one != two)
        raise ValueError(
            f"teacher: its tokenizer splits the prompt {mine.rendered!r} into other tokens than the student's, first "
            f"{theirs!r} where the student has {ours!r}; one vocabulary is not enough: give both one tokenizer"
        )
    return {"prompt": mine.rendered, "prompt_sha256": hashlib.sha256(mine.rendered.encode()).hexdigest()}


def same_end(student: sources.Model, teacher: sources.Model, theirs: Sequence[int] | None = None) -> dict[str, Any]:
    """Both models must end responses with a token they share: with other ends a student learns never to end.

    Ends are those of tokenizer and generation settings (`models.stop_ids`; `theirs`: of a teacher that is elsewhere).
    Raises ValueError for ends that have nothing in common; unequal ones are a warning, and go into the record.
    """
    ours = set(models.stop_ids(*student))
    others = set(models.stop_ids(*teacher) if theirs is None else theirs)
    if ours == others:
        return {}
    mine, other = (student[1].convert_ids_to_tokens(sorted(ids)) for ids in (ours, others))
    ends = f"teacher: ends responses with {', '.join(map(str, other))}, the student with {', '.join(map(str, mine))}"
    if not ours & others:
        raise ValueError(
            f"{ends}: the student would be taught to go on where it ends, and to end where it goes on; give both the "
            "same eos_token (tokenizer_config.json) or eos_token_id (generation_config.json)"
        )
    warnings.warn(f"{ends}: what only one of them takes for the end, the other reads on after", stacklevel=2)
    return {"end_tokens": {"student": mine, "teacher": other}}


def sampler_agrees(rollouts: Rollouts, scores: TokenScores, bound: float) -> dict[str, Any]:
    """The sampler's log-probabilities must be the trainer's (only for responses the student has just sampled).

    Raises ValueError if they are more than `bound` nats apart, token mean.
    """
    gaps_N = sampler_gaps(rollouts, scores)
    require_agreement(float(gaps_N.mean()), bound)
    return {"sampler_gap": float(gaps_N.max())}


def require_agreement(mean_gap: float, bound: float) -> None:
    """Raise ValueError if the policy that sampled is not the one that is trained."""
    if not mean_gap <= bound:
        raise ValueError(
            f"source: sampler and trainer log-probabilities differ by {mean_gap:.2g} nats per token "
            f"(machine.max_sampler_gap: {bound:g}); the sampled policy is not the trained one: check weights, "
            "positions, masks and precision"
        )


def sampler_gap(rollouts: Rollouts, scores: TokenScores) -> float:
    """Largest |sampler − trainer| log-probability over the tokens sampled here (nats); 0 if none were."""
    return float(sampler_gaps(rollouts, scores).max())


def sampler_gaps(rollouts: Rollouts, scores: TokenScores) -> Tensor:
    """|sampler − trainer| log-probability of each token (N, nats); zeros for responses nobody sampled here."""
    if rollouts.sampler_logp_BT is None:
        return torch.zeros_like(scores.student_logp_N)
    sampler_logp_N = rollouts.sampler_logp_BT.to(scores.row_N.device)[scores.row_N, scores.position_N]
    return (sampler_logp_N - scores.student_logp_N.detach()).abs()


def teacher_speaks(scores: TokenScores, vocabulary: int) -> dict[str, Any]:
    """The teacher must be finite and know more than a uniform guess (lost weights look uniform).

    Of a served teacher the entropy is not known, but the most that its list of likely tokens leaves open is.
    """
    assert scores.teacher_logp_N is not None
    entropy_N, logp_N, name = scores.teacher_entropy_N, scores.teacher_logp_N, "teacher_entropy"
    if scores.units is not None and entropy_N is not None:
        first_N = scores.units.place_N == 0
        entropy_N, logp_N = entropy_N[first_N], scores.units.teacher_mean_N[first_N]
    if entropy_N is None:
        c = scores.candidates
        assert c is not None
        top_NK = c.teacher_logp_NC[c.teacher_rank_NC < OUTSIDE].view(len(c.id_NC), -1)
        entropy_N, name = logprobs.entropy_at_most(top_NK, vocabulary), "teacher_entropy_at_most"
    entropy, logp = float(entropy_N.mean()), float(logp_N.mean())
    uniform = math.log(vocabulary)
    if not (math.isfinite(logp) and entropy < 0.9 * uniform):
        raise ValueError(
            f"teacher: entropy {entropy:.3g} nats where a uniform guess has {uniform:.3g}, mean log-probability "
            f"{logp:.3g}: it has learned nothing or lost its weights; check the checkpoint"
        )
    return {name: entropy, "teacher_logp": logp}


def gradient_sees_teacher(
    objective: score.Objective,
    student: PreTrainedModel,
    teacher: teachers.Teacher,
    rollouts: Rollouts,
    credits: tuple[Credit, Credit] | None = None,
) -> dict[str, Any]:
    """The gradient at the logits must change when the teacher's distribution is replaced by another.

    Of a method whose options say `control: true` it is measured alone: that it does not is what it is there to show.
    `credits`: what the method makes of its view of the responses under the teacher, and under `another`: a method may
    see its teacher through weights alone.
    """
    rows = torch.arange(min(4, len(rollouts.prompts)))
    head = teachers.head(student, rollouts, rows)
    output = teachers.output(teacher, rollouts, rows, objective.k)
    assert output is not None
    part = next(objective.streamed(head, output, rollouts, rows, credits and credits[0]).parts)  # of the tokens
    student_NV = head.logits(part)

    def gradient(output: teachers.TeacherOutput, credit: Credit | None) -> Tensor:
        logits_NV = student_NV.clone().requires_grad_()
        stream = objective.streamed(head, output, rollouts, rows, credit)
        (result,) = torch.autograd.grad(stream.weighted(objective.value, logits_NV, part)[0], logits_NV)
        return result

    mine, others = credits or (None, None)
    true_NV, other_NV = gradient(output, mine), gradient(another(output, len(student_NV[0])), others)
    if not (true_NV.isfinite().all() and other_NV.isfinite().all()):
        raise ValueError(
            "method: the objective's gradient at the logits is not finite (NaN or infinite) on the first batch; look "
            "for a logarithm or a quotient of what can be 0, and for exponentials that overflow"
        )
    change = float((true_NV - other_NV).norm() / other_NV.norm().clamp(min=1e-30))
    if not change > DEPENDENCE and not getattr(objective.options, "control", False):
        raise ValueError(
            f"method: the gradient does not depend on the teacher (relative change {change:.2g}); this objective is "
            "no distillation: see the refusals of methods/opd.py"
        )
    return {"teacher_dependence": change}


def another(output: teachers.TeacherOutput, vocabulary: int) -> TeacherLogits | AlignedLogits | Served:
    """The output of a teacher whose every token is the next one; the tokens drawn are e times less likely to it."""
    if isinstance(output, tuple):
        teacher_logp_N, top_id_NK, top_logp_NK = output
        return teacher_logp_N - 1.0, (top_id_NK + 1) % vocabulary, top_logp_NK
    if isinstance(output, CombinedLogits):
        return CombinedLogits({name: rolled(each) for name, each in output.named.items()}, output.combine)
    if isinstance(output, AlignedLogits):
        return replace(output, head=rolled(output.head))
    return rolled(output)


def rolled(head: TeacherLogits | None) -> Head:
    """A head whose every token is the one before."""
    assert isinstance(head, Head)
    return Head(head.hidden_NH, head.weight_VH.roll(1, 0))
