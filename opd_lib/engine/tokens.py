"""Responses kept token by token, for reading: what both models think at every position while training goes on.

The student answers the first `machine.kept_problems` problems of each test set whenever it is evaluated, always with
the same random numbers: from step to step, and from run to run of one seed, only the models differ. Nothing of it takes
part in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from opd_lib import tasks
from opd_lib.engine import batches, score, served, sources
from opd_lib.engine.model import models
from opd_lib.maths import diagnostics, sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.engine.running import ActiveRun
    from opd_lib.types import Candidates, Rollouts, TokenScores

LISTED = 6
"""How many of each model's most likely tokens are kept at a position."""
OVERLAP_K = 16
"""How long the lists are whose overlap is kept, where the run has lists that long."""
LONGEST = 2048
"""Tokens after which a kept response is cut."""

Row = dict[str, Any]


def keep(run: ActiveRun, step: int) -> None:
    """Record how the student answers the kept problems now. Every process of a run with a teacher must call it."""
    task, seed = run.spec.params.task, run.spec.seed
    kind, n = tasks.load(task.name), run.spec.params.machine.kept_problems
    if n == 0:
        return
    questions = {test_set: kind.test(task, test_set, n) for test_set in task.test_sets}
    prompts = [
        prompt
        for test_set, problems in questions.items()
        for prompt in sources.make_prompts(
            run.student[1], task, problems, [task.test_template] * len(problems), test_set
        )
    ]
    limit = min(run.spec.params.evaluate.max_new_tokens, LONGEST)
    uniform_BT = sampling.uniform((len(prompts), limit), models.generator(seed, "tokens"))
    rollouts = run.sample(*run.student, prompts, uniform_BT, 1.0, 1.0)
    rollouts = sources.grade(task, rollouts, run.student[1])
    places = [(test_set, index) for test_set, problems in questions.items() for index in range(len(problems))]
    rows = [
        {"step": step, "test_set": test_set, "problem": index} | row
        for (test_set, index), row in zip(places, described(run, rollouts), strict=True)
    ]
    if run.writer:
        run.writer.append_lines("tokens", rows)


def described(run: ActiveRun, rollouts: Rollouts, wanted: Sequence[int] | None = None) -> list[Row]:
    """`opinions` of a run's models on these responses (default: all).

    A response is cut where prompt and response have more tokens than train.micro_tokens.
    """
    assert run.teacher is not None
    k = run.k if isinstance(run.teacher[0], served.Teacher) else max(run.k, min(LISTED, len(run.words)))
    limits = Limits(k=k, micro_tokens=run.spec.params.train.micro_tokens, chunk=run.chunk)
    return opinions((run.student[0], run.teacher[0]), run.words, rollouts, limits, wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is looked at: lists of length k, so many tokens in a forward pass, logits of a chunk at a time."""

    k: int
    micro_tokens: int
    chunk: int


@torch.no_grad()
def opinions(
    pair: tuple[PreTrainedModel, Any],
    words: Sequence[str],
    rollouts: Rollouts,
    limits: Limits,
    wanted: Sequence[int] | None = None,
) -> list[Row]:
    """These responses (default: all) with their tokens and what student and teacher say of them.

    Nats; lists: probabilities. A response is cut where prompt and response have more than `micro_tokens` tokens.
    """
    k, read = limits.k, batches.beginnings(rollouts, limits.micro_tokens)
    found: dict[int, Row] = {}
    chosen = torch.tensor(range(len(read.prompts)) if wanted is None else wanted)
    groups = batches.micro_batches(read, limits.micro_tokens)
    for rows in filter(len, (group[torch.isin(group, chosen)] for group in groups)):
        scores = score.score(*pair, read, rows, k, limits.chunk)
        columns = per_token(scores, min(k, OVERLAP_K))
        lists = [] if scores.candidates is None else most_likely(scores.candidates, words)
        for row in rows.tolist():
            mine_N = scores.row_N == row
            found[row] = {
                "prompt": read.prompts[row].rendered,
                "answer": read.prompts[row].answer,
                "reward": score.known(float(read.reward_B[row])),
                "finished": bool(read.finished_B[row]),
                "tokens": [words[token] for token in scores.token_N[mine_N].tolist()],
                **{name: rounded(value_N[mine_N].tolist()) for name, value_N in columns.items()},
                **listed([lists[i] for i in mine_N.nonzero()[:, 0].tolist()] if lists else []),
            }
    return [found[row] for row in sorted(found)]


def per_token(scores: TokenScores, k: int) -> dict[str, Tensor]:
    """The quantities that a token may be coloured by; overlap and advantage (Eqs 6, 7) with lists of length k."""
    columns = score.per_token(scores)
    if scores.candidates is not None:
        metrics = diagnostics.at_k(scores, k)
        columns |= {"overlap": metrics["overlap"][0], "advantage": metrics["advantage_paper"][0]}
    return columns


def most_likely(candidates: Candidates, words: Sequence[str]) -> list[list[tuple[str, float, float]]]:
    """At each position (token, student's probability, teacher's): what is among the first LISTED of either model."""
    c = candidates
    shown_NC = (c.student_rank_NC < LISTED) | (c.teacher_rank_NC < LISTED)
    p_NC, q_NC = c.student_logp_NC.exp(), c.teacher_logp_NC.exp()
    return [
        [(words[token], p, q) for token, p, q, is_shown in zip(*position, strict=True) if is_shown]
        for position in zip(c.id_NC.tolist(), p_NC.tolist(), q_NC.tolist(), shown_NC.tolist(), strict=True)
    ]


def listed(positions: Sequence[Sequence[tuple[str, float, float]]]) -> Row:
    """The lists as three columns of a row: tokens, the student's probabilities, the teacher's (null: not known)."""
    if not positions:
        return {}
    return {
        "top": [[word for word, _, _ in position] for position in positions],
        "top_student": [[short(p) for _, p, _ in position] for position in positions],
        "top_teacher": [[short(q) for _, _, q in position] for position in positions],
    }


def short(probability: float) -> float | None:
    """Three digits."""
    return float(f"{probability:.3g}") if math.isfinite(probability) else None


def rounded(values: Sequence[float]) -> list[float | None]:
    """Four decimals."""
    return [round(value, 4) if math.isfinite(value) else None for value in values]
