"""Two checkpoints as they are: what the first step of a distillation and the first evaluation would find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from opd_lib.engine import evaluate, gates, score, sources, train
from opd_lib.engine.distributed import Ranks
from opd_lib.maths import diagnostics
from opd_lib.report import prognosis
from opd_lib.tasks import chain
from opd_lib.types import Rollouts

if TYPE_CHECKING:
    from opd_lib.schema import RunParams
    from opd_lib.types import TokenScores

K = 16
"""The top-k of the overlap, as in `prognosis.START`."""
ALONE = Ranks(rank=0, world=1)


def measure(
    params: RunParams, student: sources.Model, teacher: sources.Model, n_prompts: int, seed: int
) -> dict[str, float]:
    """`prognosis.FEATURES`, and the two accuracies as `start` and `teacher`.

    The student answers `n_prompts` prompts as at the first step of a run with these parameters and this seed; with as
    many prompts as such a step has, the numbers are those of its row. Accuracy is that of the first evaluation.
    Raises ValueError for checkpoints of another vocabulary than the task's, and for what the gates of a run refuse.
    """
    for role, model in (("student", student), ("teacher", teacher)):
        require_world(role, model)
        model[0].requires_grad_(False).eval()
    gates.same_vocabulary(student, teacher)
    gates.same_prompt(params, student, teacher)
    assert params.source.kind == "student"  # on-policy distillation: the notebook's own settings
    source = params.source.model_copy(update={"prompts_per_step": n_prompts})
    asked = params.model_copy(update={"source": source})
    rollouts = sources.draw(asked, seed, 1, ALONE, student, teacher)
    found = first_step(asked, student, teacher, rollouts)
    found["start"], found["teacher"] = (accuracy(params, model, seed) for model in (student, teacher))
    return found | {prognosis.GAP: found["teacher"] - found["start"]}


@torch.no_grad()
def first_step(
    params: RunParams, student: sources.Model, teacher: sources.Model, rollouts: Rollouts
) -> dict[str, float]:
    """`prognosis.START` on these responses of the student: token means, and means over responses."""
    tally = diagnostics.Tally([K], params.diagnose.depth_bucket, rollouts.response_BT.shape[1])
    for number, rows in enumerate(score.micro_batches(rollouts, params.train.micro_tokens)):
        scores = score.score(student[0], teacher[0], rollouts, rows, K)
        if number == 0:
            pass_gates(rollouts, scores)
        tally.add(scores)
    row = train.batch_row(rollouts) | tally.means()
    return {name: row[name] for name in prognosis.START}


def pass_gates(rollouts: Rollouts, scores: TokenScores) -> None:
    """Raise ValueError for a sampler that is not the student scored, or a teacher that says nothing."""
    gates.sampler_agrees(rollouts, scores)
    gates.teacher_speaks(scores, len(chain.VOCABULARY))


def accuracy(params: RunParams, model: sources.Model, seed: int) -> float:
    """avg@n_samples on the held-out problems, mean over the test sets."""
    rows = evaluate.evaluate(*model, params.task, params.evaluate, seed, step=0)["evals"]
    return sum(float(row["accuracy"]) for row in rows) / len(rows)


def require_world(role: str, model: sources.Model) -> None:
    """Raise ValueError unless a checkpoint's tokens are the tiny world's, with the same ids."""
    vocabulary = model[1].get_vocab()
    expected = {word: index for index, word in enumerate(chain.VOCABULARY)}
    if vocabulary != expected:
        token = min(word for word in {*vocabulary, *expected} if vocabulary.get(word) != expected.get(word))
        raise ValueError(
            f"{role}: its vocabulary has {len(vocabulary)} tokens and is not the tiny world's ({len(expected)}): "
            f"{token!r} is id {vocabulary.get(token)} there and {expected.get(token)} here. opd check asks the tiny "
            "world's questions, and its prognosis was fitted there; give two checkpoints of the tiny world"
        )
