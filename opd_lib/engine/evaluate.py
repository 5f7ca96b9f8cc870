"""avg@k and pass@k on the held-out test sets, with everything that should stand beside an accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from opd_lib import tasks
from opd_lib.engine import sources
from opd_lib.engine.model import distributed, models
from opd_lib.engine.sampling import rollout
from opd_lib.maths import sampling

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.params.schema import Evaluate, Task
    from opd_lib.types import Prompt

Row = dict[str, Any]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    settings: Evaluate,
    seed: int,
    step: int,
    sample: rollout.Sample = rollout.sample,
    ranks: distributed.Ranks = distributed.ALONE,
) -> dict[str, list[Row]]:
    """Rows for evals.csv (one per test set), problems.csv (one per problem) and caps.csv (one per lower limit).

    accuracy is avg@n_samples, the unweighted mean over problems; pass_at_k the share of problems solved at least once.
    Under a cap of c tokens an answer counts if its response ended within c tokens, the end token included: slightly
    stricter than that limit itself, under which a stated answer counts although its end token is cut.
    A test set of fewer than n_problems is asked as a whole. Where nothing is graded, what counts answers is NaN.
    The random numbers depend on the seed and not on the step: steps and arms are compared on common random numbers.
    Every process of a run must call it; each answers its share, and all return the same rows.
    """
    kind, samples = tasks.load(task.name), settings.n_samples
    questions = {test_set: kind.test(task, test_set, settings.n_problems) for test_set in task.test_sets}
    prompts = [
        prompt
        for test_set, problems in questions.items()
        for prompt in sources.make_prompts(tokenizer, task, problems, [task.test_template] * len(problems), test_set)
        for _ in range(samples)
    ]
    require_short(task, prompts)
    uniform_BT = sampling.uniform((len(prompts), settings.max_new_tokens), models.generator(seed, "evaluate"))
    found_B4 = answers((model, tokenizer), task, settings, prompts, uniform_BT, sample, ranks)
    tables: dict[str, list[Row]] = {"evals": [], "problems": [], "caps": []}
    begin = 0
    for test_set, problems in questions.items():
        reward_B, finished_B, length_B, answered_B = found_B4[begin : begin + len(problems) * samples].unbind(1)
        begin += len(problems) * samples
        correct_PG = reward_B.view(len(problems), samples)
        tables["evals"].append(
            {
                "step": step,
                "test_set": test_set,
                "accuracy": float(correct_PG.mean()),
                "pass_at_k": float(correct_PG.amax(1).mean()),
                "truncated_share": float((1.0 - finished_B).mean()),
                "response_length": float(length_B.mean()),
                "no_answer_share": 1.0 - float(answered_B.sum()) / len(answered_B),
                "n_problems": len(problems),
                "n_samples": samples,
            }
        )
        tables["problems"] += [
            {"step": step, "test_set": test_set, "problem": i, "n_correct": whole(count), "n_samples": samples}
            for i, count in enumerate(correct_PG.sum(1).tolist())
        ]
        for cap in settings.caps:
            in_time_B = finished_B * (length_B <= cap)
            accuracy = float((reward_B * in_time_B).mean())
            share = float(in_time_B.mean())
            row = {"step": step, "test_set": test_set, "cap": cap, "accuracy": accuracy, "finished_share": share}
            tables["caps"].append(row)
    return tables


def require_short(task: Task, prompts: Sequence[Prompt]) -> None:
    """Raise ValueError if a test prompt of one's own has more tokens than the task plans for."""
    if task.name != "prompts":
        return
    long = [prompt for prompt in prompts if not sources.fits(task, prompt)]
    if long:
        raise ValueError(
            f"task.max_prompt_tokens: {task.max_prompt_tokens}, but {long[0].id}, which is held out, has "
            f"{len(long[0].token_ids)} tokens; raise it, or take longer prompts out of {task.file}"
        )


def whole(count: float) -> int | float:
    """A count as a whole number; NaN as it is."""
    return count if math.isnan(count) else int(count)


def answers(
    model: sources.Model,
    task: Task,
    settings: Evaluate,
    prompts: list[Prompt],
    uniform_BT: Tensor,
    sample: rollout.Sample,
    ranks: distributed.Ranks,
) -> Tensor:
    """Of each response (B, 4): reward, whether it ended, its length (tokens), whether it states an answer.

    A process without a share of its own answers the first prompt for nothing: sampling may want every process.
    Where the task grades nothing, reward and statement are NaN. Raises ValueError if a task that does has no answer to
    a question.
    """
    mine = ranks.share(len(prompts))
    answered = mine or [0]
    rollouts = sample(
        *model, [prompts[i] for i in answered], uniform_BT[answered], settings.temperature, settings.top_p
    )
    rollouts = sources.grade(task, rollouts, model[1])
    answered_B = torch.full_like(rollouts.reward_B, math.nan)
    if grading := tasks.grading(task):
        sources.require_rewards(rollouts, "task.test_sets", "an accuracy")
        stated = [grading.extract_answer(text) is not None for text in sources.decode(rollouts, model[1])]
        answered_B = torch.tensor(stated)
    columns = (rollouts.reward_B, rollouts.finished_B, rollouts.length_B, answered_B)
    found_B4 = torch.zeros(len(prompts), len(columns))
    found_B4[mine] = torch.stack([column.float() for column in columns], 1)[: len(mine)]
    distributed.sum_over_ranks([found_B4])
    return found_B4
