"""avg@k and pass@k on the held-out test sets, with everything that should stand beside an accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import models, rollout, sources
from opd_lib.tasks import chain

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
) -> dict[str, list[Row]]:
    """Rows for evals.csv (one per test set), problems.csv (one per problem) and caps.csv (one per lower limit).

    accuracy is avg@n_samples, the unweighted mean over problems; pass_at_k the share of problems solved at least once.
    Under a cap of c tokens an answer counts if its response ended within c tokens, the end token included: slightly
    stricter than that limit itself, under which a stated answer counts although its end token is cut.
    The random numbers depend on the seed and not on the step: steps and arms are compared on common random numbers.
    """
    n, samples = settings.n_problems, settings.n_samples
    prompts = [
        prompt
        for test_set in task.test_sets
        for prompt in sources.make_prompts(
            tokenizer, chain.held_out_questions(test_set, n), [task.test_template] * n, test_set
        )
        for _ in range(samples)
    ]
    uniform_BT = torch.rand((len(prompts), settings.max_new_tokens), generator=models.generator(seed, "evaluate"))
    rollouts = rollout.sample(model, tokenizer, prompts, uniform_BT, settings.temperature, settings.top_p)
    rollouts = sources.grade(rollouts, tokenizer)
    texts = sources.decode(rollouts, tokenizer)
    tables: dict[str, list[Row]] = {"evals": [], "problems": [], "caps": []}
    for index, test_set in enumerate(task.test_sets):
        rows = slice(index * n * samples, (index + 1) * n * samples)
        correct_PG = rollouts.reward_B[rows].view(n, samples)
        answered = [chain.extract_answer(text) is not None for text in texts[rows]]
        tables["evals"].append(
            {
                "step": step,
                "test_set": test_set,
                "accuracy": float(correct_PG.mean()),
                "pass_at_k": float((correct_PG.sum(1) > 0).float().mean()),
                "truncated_share": float((~rollouts.finished_B[rows]).float().mean()),
                "response_length": float(rollouts.length_B[rows].float().mean()),
                "no_answer_share": 1.0 - sum(answered) / len(answered),
                "n_problems": n,
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
