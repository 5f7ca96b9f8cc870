"""avg@k and pass@k on the held-out test sets, with everything that should stand beside an accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from opd_lib import tasks
from opd_lib.engine import models, rollout, sources

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.schema import Evaluate, Task

Row = dict[str, Any]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    settings: Evaluate,
    seed: int,
    step: int,
    sample: rollout.Sample = rollout.sample,
) -> dict[str, list[Row]]:
    """Rows for evals.csv (one per test set), problems.csv (one per problem) and caps.csv (one per lower limit).

    accuracy is avg@n_samples, the unweighted mean over problems; pass_at_k the share of problems solved at least once.
    Under a cap of c tokens an answer counts if its response ended within c tokens, the end token included: slightly
    stricter than that limit itself, under which a stated answer counts although its end token is cut.
    A test set of fewer than n_problems is asked as a whole.
    The random numbers depend on the seed and not on the step: steps and arms are compared on common random numbers.
    """
    kind, samples = tasks.load(task.name), settings.n_samples
    questions = {test_set: kind.test(task, test_set, settings.n_problems) for test_set in task.test_sets}
    prompts = [
        prompt
        for test_set, asked in questions.items()
        for prompt in sources.make_prompts(tokenizer, task, asked, [task.test_template] * len(asked), test_set)
        for _ in range(samples)
    ]
    uniform_BT = torch.rand((len(prompts), settings.max_new_tokens), generator=models.generator(seed, "evaluate"))
    rollouts = sample(model, tokenizer, prompts, uniform_BT, settings.temperature, settings.top_p)
    rollouts = sources.grade(task, rollouts, tokenizer)
    answered = [kind.extract_answer(text) is not None for text in sources.decode(rollouts, tokenizer)]
    tables: dict[str, list[Row]] = {"evals": [], "problems": [], "caps": []}
    begin = 0
    for test_set, asked in questions.items():
        rows = slice(begin, begin := begin + len(asked) * samples)
        correct_PG = rollouts.reward_B[rows].view(len(asked), samples)
        tables["evals"].append(
            {
                "step": step,
                "test_set": test_set,
                "accuracy": float(correct_PG.mean()),
                "pass_at_k": float((correct_PG.sum(1) > 0).float().mean()),
                "truncated_share": float((~rollouts.finished_B[rows]).float().mean()),
                "response_length": float(rollouts.length_B[rows].float().mean()),
                "no_answer_share": 1.0 - sum(answered[rows]) / len(answered[rows]),
                "n_problems": len(asked),
                "n_samples": samples,
            }
        )
        tables["problems"] += [
            {"step": step, "test_set": test_set, "problem": i, "n_correct": int(count), "n_samples": samples}
            for i, count in enumerate(correct_PG.sum(1).tolist())
        ]
        for cap in settings.caps:
            in_time_B = rollouts.finished_B[rows] & (rollouts.length_B[rows] <= cap)
            accuracy = float((rollouts.reward_B[rows] * in_time_B).mean())
            share = float(in_time_B.float().mean())
            row = {"step": step, "test_set": test_set, "cap": cap, "accuracy": accuracy, "finished_share": share}
            tables["caps"].append(row)
    return tables
