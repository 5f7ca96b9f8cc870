"""Where a step's responses come from: the student (on-policy), the teacher (off-policy) or the corpus.

A step's prompts and random numbers depend on (seed, step) alone; each process takes its share of the prompts, whole
groups at a time, so the batch of a step is the same however many processes share it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from opd_lib.engine import models, rollout
from opd_lib.engine.distributed import Ranks
from opd_lib.tasks import chain
from opd_lib.types import Prompt, Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.schema import Corpus, RunParams, Sampled

Model = tuple["PreTrainedModel", "PreTrainedTokenizerFast"]


def draw(params: RunParams, seed: int, step: int, ranks: Ranks, student: Model, teacher: Model | None) -> Rollouts:
    """This process's share of the responses of a step, graded."""
    source = params.source
    if source.kind == "corpus":
        return from_corpus(source, params.task.content, student[1], seed, step, ranks)
    model = student if source.kind == "student" else teacher
    assert model is not None  # params refuses a teacher source without a teacher
    return from_model(source, params, model, seed, step, ranks)


def from_model(source: Sampled, params: RunParams, model: Model, seed: int, step: int, ranks: Ranks) -> Rollouts:
    """P prompts × G responses sampled from a model, each prompt's group together."""
    task = params.task
    questions = chain.draw_mixture(
        task.content, task.other_content, task.other_share, source.prompts_per_step, _rng(seed, "prompts", step)
    )
    label = f"{task.content}+{task.other_content}" if task.other_share else task.content
    prompts = make_prompts(model[1], questions, [task.template] * len(questions), label)
    size = (source.prompts_per_step, source.per_prompt, source.limit(step))
    uniform_PGT = torch.rand(size, generator=models.generator(seed, "rollout", step))
    repeated = [prompt for prompt in prompts[ranks.rank :: ranks.world] for _ in range(source.per_prompt)]
    uniform_BT = uniform_PGT[ranks.rank :: ranks.world].flatten(0, 1)
    rollouts = rollout.sample(*model, repeated, uniform_BT, source.temperature, source.top_p)
    return grade(rollouts, model[1])


def from_corpus(
    source: Corpus, content: str, tokenizer: PreTrainedTokenizerFast, seed: int, step: int, ranks: Ranks
) -> Rollouts:
    """One corpus trace per prompt; templates are dealt at random."""
    style = chain.Style(
        pattern_b=source.pattern_b,
        filler_before_step=source.filler_before_step,
        filler_anywhere=source.filler_anywhere,
        slip_operands=source.slip_operands,
        slip_probability=source.slip_probability,
    )
    rng = _rng(seed, "corpus", step)
    questions = chain.draw_training(content, source.prompts_per_step, rng)
    templates = rng.choices(source.templates, k=len(questions))
    share = slice(ranks.rank, None, ranks.world)
    prompts = make_prompts(tokenizer, questions, templates, content)[share]
    traces = [tokenizer.convert_tokens_to_ids(chain.write_trace(q, style, rng)) for q in questions][share]
    rollouts = Rollouts(
        prompts=tuple(prompts),
        response_BT=models.pad_right(traces, tokenizer.pad_token_id),
        length_B=torch.tensor([len(trace) for trace in traces]),
        finished_B=torch.ones(len(traces), dtype=torch.bool),
        reward_B=torch.full((len(traces),), torch.nan),
    )
    return grade(rollouts, tokenizer)


def make_prompts(
    tokenizer: PreTrainedTokenizerFast, questions: Sequence[chain.Question], templates: Sequence[str], source: str
) -> list[Prompt]:
    """Questions, each with its template token, rendered with the tokenizer's own chat template."""
    pairs = zip(questions, templates, strict=True)
    rendered = [tokenizer.apply_chat_template(chain.messages(q, t), tokenize=False) for q, t in pairs]
    token_ids = tokenizer(rendered, add_special_tokens=False).input_ids
    return [
        Prompt(
            id=f"{source}/{template}/{question.text}",
            source=source,
            question=question.text,
            rendered=text,
            token_ids=tuple(ids),
            answer=question.answer,
        )
        for question, template, text, ids in zip(questions, templates, rendered, token_ids, strict=True)
    ]


def decode(rollouts: Rollouts, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The responses as text, special tokens shown."""
    rows = zip(rollouts.response_BT.tolist(), rollouts.length_B.tolist(), strict=True)
    texts: list[str] = tokenizer.batch_decode([row[:length] for row, length in rows])
    return texts


def grade(rollouts: Rollouts, tokenizer: PreTrainedTokenizerFast) -> Rollouts:
    """The same responses with `reward_B`: 1.0 where the stated answer is right."""
    texts = decode(rollouts, tokenizer)
    rewards = [chain.grade(text, prompt) for text, prompt in zip(texts, rollouts.prompts, strict=True)]
    return replace(rollouts, reward_B=torch.tensor(rewards))


def _rng(*purpose: object) -> random.Random:
    return random.Random("/".join(map(str, purpose)))
