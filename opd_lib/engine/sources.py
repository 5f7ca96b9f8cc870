"""Where a step's responses come from: the student (on-policy), the teacher (off-policy), a corpus, or stored rollouts.

A step's prompts and random numbers depend on (seed, step) alone; each process takes its share of the prompts, whole
groups at a time, so the batch of a step is the same however many processes share it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from opd_lib import tasks
from opd_lib.engine import stored
from opd_lib.engine.model import intake, models
from opd_lib.engine.model.distributed import Ranks
from opd_lib.engine.sampling import rollout
from opd_lib.maths import sampling
from opd_lib.types import Chat, Prompt, Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.params.schema import Answers, Corpus, RunParams, Sampled, Source, Task, Traces

Model = tuple["PreTrainedModel", "PreTrainedTokenizerFast"]
ForAuthor = Callable[[Sequence[Prompt]], Sequence[Prompt]]
"""The prompts that an author is given in the place of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchKey:
    """Which responses: those of (seed, step), this process's share. `purpose`: what their random numbers are for."""

    seed: int
    step: int
    ranks: Ranks
    purpose: str = "rollout"

    @property
    def share(self) -> slice:
        """This process's prompts among all."""
        return slice(self.ranks.rank, None, self.ranks.world)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authors:
    """Who may write them: a model by `sample`, or an earlier run (`shelf`); corpora and answers need nobody.

    `for_author` makes of the prompts (B) those that the author of sampled responses is given; the responses
    keep the others.
    """

    student: Model
    teacher: Model | None = None
    sample: rollout.Sample = rollout.sample
    for_author: ForAuthor | None = None
    shelf: stored.Stored | None = None


def draw(params: RunParams, key: BatchKey, authors: Authors) -> Rollouts:
    """This process's share of the responses of a step, graded."""
    source, student = params.source, authors.student
    if source.kind == "stored":
        assert authors.shelf is not None  # the run that wrote them is this run's parent
        first = (key.step - 1) * source.prompts_per_step
        taken = authors.shelf.take(range(first, first + source.prompts_per_step)[key.share], student[1])
        return require_ends(taken, student, f"source.rollouts: {source.rollouts}")
    if source.kind == "answers":
        return from_answers(source, params.task, student[1], key)
    if source.kind == "student" or source.kind == "teacher":
        return from_model(source, params.task, key, authors)
    return from_corpus(source, params.task, student[1], key)


def author(source: Sampled, student: Model, teacher: Model | None) -> Model:
    """The model that writes the responses."""
    model = student if source.kind == "student" else teacher
    assert model is not None  # params refuses a teacher source without a teacher, and with several
    return model


def from_model(source: Sampled, task: Task, key: BatchKey, authors: Authors) -> Rollouts:
    """P prompts × G responses sampled from a model, each prompt's group together."""
    model = author(source, authors.student, authors.teacher)
    prompts = training_prompts(task, model[1], source.prompts_per_step, key.seed, key.step)
    kept = [index for index, prompt in enumerate(prompts) if fits(task, prompt)][key.share]
    if not kept:
        raise ValueError(
            f"task.max_prompt_tokens: {getattr(task, 'max_prompt_tokens', None)}: at step {key.step} process "
            f"{key.ranks.rank} has no prompt that short; raise it"
        )
    size = (source.prompts_per_step, source.per_prompt, source.limit(key.step))
    uniform_PGT = sampling.uniform(size, models.generator(key.seed, key.purpose, key.step))
    repeated = [prompts[index] for index in kept for _ in range(source.per_prompt)]
    given = authors.for_author(repeated) if authors.for_author else repeated
    written = authors.sample(*model, given, uniform_PGT[kept].flatten(0, 1), source.temperature, source.top_p)
    number_PG = torch.tensor(kept)[:, None] * source.per_prompt + torch.arange(source.per_prompt)
    rollouts = grade(task, replace(written, prompts=tuple(repeated)), model[1])
    return replace(rollouts, number_B=number_PG.flatten())


def training_prompts(task: Task, tokenizer: PreTrainedTokenizerFast, n: int, seed: int, step: int) -> list[Prompt]:
    """The prompts of a step, those that are too long to be asked among them."""
    questions = tasks.load(task.name).training(task, n, seed, step)
    label = f"{task.content}+{task.other_content}" if task.other_share else task.content
    return make_prompts(tokenizer, task, questions, [task.template] * len(questions), label)


def from_answers(source: Answers, task: Task, tokenizer: PreTrainedTokenizerFast, key: BatchKey) -> Rollouts:
    """One boxed answer per prompt."""
    questions = tasks.load(task.name).training(task, source.prompts_per_step, key.seed, key.step)[key.share]
    prompts = make_prompts(tokenizer, task, questions, [task.template] * len(questions), task.content)
    if unknown := [prompt.id for prompt in prompts if not prompt.answer]:
        raise ValueError(
            f"source.kind: answers, but nobody knows that of {unknown[0]}; use a set whose answers are known"
        )
    texts = [f"\\boxed{{{question.answer}}}{tokenizer.eos_token}" for question in questions]
    return grade(task, given(prompts, tokenizer(texts, add_special_tokens=False).input_ids, tokenizer), tokenizer)


def given(
    prompts: Sequence[Prompt], responses: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerFast
) -> Rollouts:
    """Responses that nobody sampled, each with its end token; not graded."""
    return Rollouts(
        prompts=tuple(prompts),
        response_BT=models.pad_right(responses, tokenizer.pad_token_id),
        length_B=torch.tensor([len(response) for response in responses]),
        finished_B=torch.ones(len(responses), dtype=torch.bool),
        reward_B=torch.full((len(responses),), torch.nan),
    )


def require_ends(rollouts: Rollouts, model: Model, where: str) -> Rollouts:
    """These responses, unchanged. Raises ValueError if one ends with a token that is no end token of the model."""
    last_B = rollouts.response_BT[torch.arange(len(rollouts.length_B)), rollouts.length_B - 1]
    ends = models.stop_ids(*model)
    strange = sorted({int(token) for token in last_B[rollouts.finished_B]} - set(ends))
    if strange:
        theirs, ours = (model[1].convert_ids_to_tokens(list(ids)) for ids in (strange, ends))
        raise ValueError(
            f"{where}: its responses end with {theirs}, the student's with {ours}: it would never learn to end; write "
            "them with a model of the same end tokens"
        )
    return rollouts


def fits(task: Task, prompt: Prompt) -> bool:
    """False for prompts that are longer than the task allows; the tiny world has no such limit."""
    return len(prompt.token_ids) <= getattr(task, "max_prompt_tokens", math.inf)


def from_corpus(source: Corpus | Traces, task: Task, tokenizer: PreTrainedTokenizerFast, key: BatchKey) -> Rollouts:
    """One trace of the tiny world per prompt; templates are dealt at random."""
    rng = random.Random(f"{key.seed}/corpus/{key.step}")
    questions, templates, traces = tasks.corpus(source, task.content, rng)
    prompts = make_prompts(tokenizer, task, questions, templates, task.content)[key.share]
    written = [tokenizer.convert_tokens_to_ids(words) for words in traces[key.share]]
    return grade(task, given(prompts, written, tokenizer), tokenizer)


def make_prompts(
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    questions: Sequence[tasks.Question],
    templates: Sequence[str],
    source: str,
) -> list[Prompt]:
    """Questions, each in its template, rendered with the tokenizer's own chat template, ready to be answered."""
    kind = tasks.load(task.name)
    written = [kind.messages(question, template) for question, template in zip(questions, templates, strict=True)]
    chats = [tuple((message["role"], message["content"]) for message in messages) for messages in written]
    rendered, token_ids = render(tokenizer, task, chats)
    return [
        Prompt(
            id=f"{source}/{template}/{question.id}",
            source=source,
            question=question.text,
            rendered=text,
            token_ids=tuple(ids),
            answer=question.answer,
            chat=chat,
            solution=getattr(question, "solution", ""),
            told=tuple(getattr(question, "told", {}).items()),
            domain=kind.domain(task, question),
        )
        for question, template, chat, text, ids in zip(questions, templates, chats, rendered, token_ids, strict=True)
    ]


def render(tokenizer: PreTrainedTokenizerFast, task: Task, chats: Sequence[Chat]) -> tuple[list[str], list[list[int]]]:
    """Chats as texts and token ids, by the tokenizer's own template with the task's options, ready to be answered."""
    options = {"tokenize": False, "add_generation_prompt": True} | tasks.load(task.name).chat_options(task)
    messages = [[{"role": role, "content": content} for role, content in chat] for chat in chats]
    name = f"the tokenizer of {tokenizer.name_or_path}" if tokenizer.name_or_path else "the tokenizer"
    with intake.Reading(f"{name}: its chat template cannot put a question of this task", intake.TEMPLATE):
        rendered = [tokenizer.apply_chat_template(chat, **options) for chat in messages]
    return rendered, tokenizer(rendered, add_special_tokens=False).input_ids


def group_size(source: Source) -> int:
    """How many responses in a row answer one prompt."""
    return source.per_prompt if source.kind in ("student", "teacher") else 1


def decode(rollouts: Rollouts, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The responses as text, special tokens shown, without the end token."""
    lengths = (rollouts.length_B - rollouts.finished_B.long()).tolist()
    rows = zip(rollouts.response_BT.tolist(), lengths, strict=True)
    texts: list[str] = tokenizer.batch_decode([row[:length] for row, length in rows])
    return texts


def grade(task: Task, rollouts: Rollouts, tokenizer: PreTrainedTokenizerFast) -> Rollouts:
    """These responses with their `reward_B`: 1.0 where the stated answer is right, NaN where no answer is known."""
    grading = tasks.grading(task)
    rewards = (
        grading.grade(decode(rollouts, tokenizer), rollouts.prompts) if grading else [math.nan] * len(rollouts.prompts)
    )
    return replace(rollouts, reward_B=torch.tensor(rewards))


def require_rewards(rollouts: Rollouts, key: str, who: str) -> None:
    """Raise ValueError if a reward is no number: of the set named by `key` no answer is known, and `who` needs it."""
    unknown = (~rollouts.reward_B.isfinite()).nonzero()[:, 0].tolist()
    if unknown:
        raise ValueError(
            f"{key}: {len(unknown)} of {len(rollouts.prompts)} responses have no reward (the first answers "
            f"{rollouts.prompts[unknown[0]].id}), and {who} needs one of each; use a set whose answers are known"
        )
