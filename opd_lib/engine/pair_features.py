"""Two checkpoints as they are: what the first step of a distillation and the first evaluation would find."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from opd_lib import tasks
from opd_lib.engine import batches, evaluate, gates, memory, pair_memory, score, sources, step_record
from opd_lib.engine.model import intake
from opd_lib.engine.model.distributed import Ranks
from opd_lib.engine.sampling import rollout
from opd_lib.judge import prognosis
from opd_lib.maths import diagnostics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.params.schema import Machine, RunParams
    from opd_lib.types import Prompt, Rollouts

K = 16
"""The top-k of the overlap, as in `prognosis.START`."""
ALONE = Ranks(rank=0, world=1)


def features(
    params: RunParams, student: sources.Model, teacher: sources.Model, n_prompts: int, seed: int
) -> dict[str, float]:
    """`prognosis.FEATURES`, and the two accuracies as `start` and `teacher`.

    The student answers `n_prompts` prompts as at the first step of a run with these parameters and this seed; with as
    many prompts as such a step has, the numbers are those of its row. Accuracy is that of the first evaluation; it is
    nan for checkpoints of another vocabulary than the tiny world's, which never learned to answer its questions.
    Raises ValueError for two vocabularies, a tokenizer that cannot put a question, and what the gates refuse.
    """
    prepare(student, teacher)
    gates.same_prompt(params, student, teacher)
    gates.same_end(student, teacher)
    assert params.source.kind == "student"  # on-policy distillation: the notebook's own settings
    source = params.source.model_copy(update={"prompts_per_step": n_prompts})
    enlarged = params.model_copy(update={"source": source})
    key = sources.BatchKey(seed=seed, step=1, ranks=ALONE)
    rollouts = sources.draw(enlarged, key, sources.Authors(student=student, sample=sampler(params.machine)))
    found = first_step(enlarged, student, teacher, rollouts)
    for name, model in (("start", student), ("teacher", teacher)):
        found[name] = accuracy(params, model, seed) if is_of_the_world(model, params.task.name) else math.nan
    return found | {prognosis.GAP: found["teacher"] - found["start"]}


def sampler(machine: Machine) -> rollout.Sample:
    """`rollout.sample`, as many responses at a time as the memory for cache and logits (machine) has room for."""

    def sample(
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        prompts: Sequence[Prompt],
        uniform_BT: torch.Tensor,
        temperature: float,
        top_p: float,
    ) -> Rollouts:
        length = rollout.longest(prompts) + uniform_BT.shape[1]
        slots = pair_memory.slots(machine, model, len(tokenizer), length)
        return rollout.sample(model, tokenizer, prompts, uniform_BT, temperature, top_p, slots)

    return sample


def prepare(student: sources.Model, teacher: sources.Model) -> list[str]:
    """Make a pair ready to be asked and scored; returns what it was lent (`intake.lend`).

    Raises ValueError for two vocabularies, and for a tokenizer that cannot put a question.
    """
    notes = intake.lend(student[1], teacher[1])
    for role, model in (("student", student), ("teacher", teacher)):
        intake.require_prompting(model[1], role)
        model[0].requires_grad_(False).eval()
    gates.same_vocabulary(student, teacher)
    return notes


@torch.no_grad()
def first_step(
    params: RunParams, student: sources.Model, teacher: sources.Model, rollouts: Rollouts
) -> dict[str, float]:
    """`prognosis.START` on these responses of the student: token means, and means over responses."""
    tally = diagnostics.Tally([K], params.diagnose.depth_bucket, rollouts.response_BT.shape[1])
    chunk = memory.chunk(params.machine, len(student[1]))
    for number, rows in enumerate(batches.micro_batches(rollouts, params.train.micro_tokens)):
        scores = score.score(student[0], teacher[0], rollouts, rows, K, chunk)
        if number == 0:
            gates.sampler_agrees(rollouts, scores, params.machine.max_sampler_gap)
            gates.teacher_speaks(scores, len(teacher[1]))
        tally.add(scores)
    row = step_record.batch_row(rollouts) | tally.means()
    return {name: row[name] for name in prognosis.START}


def accuracy(params: RunParams, model: sources.Model, seed: int) -> float:
    """avg@n_samples on the held-out problems, mean over the test sets."""
    rows = evaluate.evaluate(*model, params.task, params.evaluate, seed, step=0)["evals"]
    return sum(float(row["accuracy"]) for row in rows) / len(rows)


def is_of_the_world(model: sources.Model, task: str) -> bool:
    """True if a checkpoint's tokens are those of this task's world, with the same ids."""
    world = tasks.load(task).world
    return world is not None and model[1].get_vocab() == {word: index for index, word in enumerate(world.words)}
