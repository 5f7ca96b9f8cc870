"""A teacher with a tokenizer of its own: it reads the student's text in its own tokens, behind its own prompt.

    student's tokens → text → teacher's tokens → a method's `aligned`: units → AlignedLogits

Text is what both models have in common: messages are rendered by each one's own chat template, responses are written
out and tokenised again. The end of a response is the end token of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from opd_lib import tasks
from opd_lib.engine import batches, sources
from opd_lib.engine.model import models, sharding
from opd_lib.engine.model.vocabularies import Pairs, Surfaces, pairs
from opd_lib.maths.head import Head
from opd_lib.maths.units import AlignedLogits
from opd_lib.spelling import Alignment, Spelling
from opd_lib.types import Rollouts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.methods import Method
    from opd_lib.params.schema import RunParams, Task
    from opd_lib.types import Prompt

HeadOf = Callable[["PreTrainedModel", "Rollouts", "Tensor"], "Head"]
"""A model's states and head for some rows' tokens (teacher.head)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A teacher with a tokenizer of its own. `align` makes units of two spellings of a response."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    surfaces: Surfaces
    shared: Pairs
    task: Task
    align: Callable[[Spelling, Spelling], Alignment]

    def output(self, rollouts: Rollouts, rows: Tensor, head_of: HeadOf) -> AlignedLogits:
        """Its output for these rows' tokens, without gradient."""
        spellings = [self.spellings(rollouts, row) for row in rows.tolist()]
        prompts = self.rendered([rollouts.prompts[row] for row in rows.tolist()])
        given = self.responses(prompts, [ids for _, _, ids in spellings])
        self.require_room(given)
        together = len(rows) * int((rollouts.length_B + batches.context(rollouts))[rows].max())
        head = self.head(given, together, head_of)
        aligned = [checked(self.align(mine, other), mine, other) for mine, other, _ in spellings]
        device = head.hidden_NH.device
        lengths = [(len(mine.ends), len(other.ends)) for mine, other, _ in spellings]
        return AlignedLogits(
            head=head,
            token_M=torch.tensor([token for _, _, ids in spellings for token in ids], dtype=torch.long, device=device),
            bounds_U=bounds([each.student for each in aligned], [mine for mine, _ in lengths]),
            teacher_bounds_U=bounds([each.teacher for each in aligned], [other for _, other in lengths]),
            joint_U=tuple(flag for each in aligned for flag in each.joint),
            taught_U=tuple(flag for each in aligned for flag in each.taught),
            student_id_C=torch.tensor(self.shared.student, device=device),
            teacher_id_C=torch.tensor(self.shared.teacher, device=device),
            whole=self.shared.whole,
        )

    def head(self, given: Rollouts, together: int, head_of: HeadOf) -> Head:
        """The states of all its tokens, at most so many tokens (padded) in a pass, or one response.

        A spread model reads all at once: all processes must make the same passes.
        """
        everything = torch.arange(len(given.prompts))
        groups = [everything] if sharding.is_sharded(self.model) else batches.micro_batches(given, together)
        heads = [head_of(self.model, given, group) for group in groups]
        if len(heads) == 1:
            return heads[0]
        lengths = [given.length_B[group].tolist() for group in groups]
        states = [part for head, each in zip(heads, lengths, strict=True) for part in torch.split(head.hidden_NH, each)]
        order = torch.cat(groups).argsort().tolist()
        return Head(torch.cat([states[place] for place in order]), heads[0].weight_VH)

    def spellings(self, rollouts: Rollouts, row: int) -> tuple[Spelling, Spelling, list[int]]:
        """A response as student and teacher spell it, and the teacher's tokens."""
        drawn: list[int] = rollouts.response_BT[row, : rollouts.length_B[row]].tolist()
        finished = bool(rollouts.finished_B[row])
        pieces = self.surfaces.pieces(drawn[:-1] if finished else drawn)
        text = "".join(pieces)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, last = list(encoded.input_ids), len(text)
        ends = list(accumulate((end for _, end in encoded.offset_mapping), max))
        if ids:
            ends[-1] = last  # blanks at the end that its tokenizer leaves out
        end = [last + 1] if finished else []
        ids += [self.tokenizer.eos_token_id] if finished else []
        mine = [*accumulate(map(len, pieces)), *end]
        return (
            spelling(drawn, mine, self.shared.student_number, self.surfaces.tokenizer.unk_token_id),
            spelling(ids, [*ends, *end], self.shared.teacher_number, self.tokenizer.unk_token_id),
            ids,
        )

    def rendered(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """These prompts with their chats in the teacher's own template and tokens."""
        texts, token_ids = sources.render(self.tokenizer, self.task, [prompt.chat for prompt in prompts])
        return [
            replace(prompt, rendered=text, token_ids=tuple(ids))
            for prompt, text, ids in zip(prompts, texts, token_ids, strict=True)
        ]

    def responses(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[int]]) -> Rollouts:
        """These tokens of the teacher's behind these prompts."""
        return Rollouts(
            prompts=tuple(prompts),
            response_BT=models.pad_right(responses, 0),
            length_B=torch.tensor([len(ids) for ids in responses]),
            finished_B=torch.ones(len(responses), dtype=torch.bool),
            reward_B=torch.full((len(responses),), torch.nan),
        )

    def require_room(self, given: Rollouts) -> None:
        """Raise ValueError if prompt and response have more of the teacher's tokens than its context."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        longest = max(len(p.token_ids) + n for p, n in zip(given.prompts, given.length_B.tolist(), strict=True))
        if limit is not None and longest > limit:
            raise ValueError(
                f"teacher: prompt and response have {longest} of its tokens, and its context has {limit}; lower "
                "source.max_new_tokens"
            )


def spelling(ids: Sequence[int], ends: Sequence[int], numbers: Sequence[int], unknown: int | None) -> Spelling:
    """Tokens that end there in the text; `numbers` of a vocabulary's tokens among the shared ones."""
    shared, known = tuple(numbers[index] for index in ids), tuple(index != unknown for index in ids)
    return Spelling(ends=tuple(ends), shared=shared, known=known)


def checked(found: Alignment, student: Spelling, teacher: Spelling) -> Alignment:
    """What a method's `aligned` has made. Raises ValueError unless it is units, each of one text in both spellings."""
    ends = []
    for starts, spelled in ((found.student, student), (found.teacher, teacher)):
        stops = [*starts[1:], len(spelled.ends)]
        whole = starts[:1] == (0,) and all(begin < stop for begin, stop in zip(starts, stops, strict=True))
        ends.append([spelled.ends[stop - 1] for stop in stops] if whole else [])
    if not teacher.ends:
        ends[1] = ends[0]  # nothing to be taught by, in one unit
    if not ends[0] or ends[0] != ends[1] or not len(ends[0]) == len(found.joint) == len(found.taught):
        raise ValueError(
            f"method: aligned: units that begin at {found.student} and {found.teacher} of the tokens that end at "
            f"{student.ends} and {teacher.ends}: begin at 0, and end where both models' tokens do"
        )
    return found


def bounds(starts: Sequence[Sequence[int]], lengths: Sequence[int]) -> tuple[int, ...]:
    """Where units begin among the tokens of all responses, and where the last one ends."""
    first = [0, *accumulate(lengths)]
    return (*(begin + start for begin, row in zip(first, starts, strict=False) for start in row), first[-1])


def foreign(
    params: RunParams, student: sources.Model, teacher: sources.Model, method: Method, options: Any
) -> sources.Model:
    """The teacher as it teaches a student of other tokens. Raises ValueError if the two share none but the end."""
    assert method.aligned is not None
    surfaces = Surfaces(student[1])
    shared = pairs(surfaces, Surfaces(teacher[1]))
    if len(shared.student) < 2:
        raise ValueError("teacher: its tokenizer and the student's have no token in common; choose another checkpoint")
    known = Foreign(
        model=teacher[0],
        tokenizer=teacher[1],
        surfaces=surfaces,
        shared=shared,
        task=params.task,
        align=partial(method.aligned, params=options),
    )
    return known, teacher[1]


def same_chat(params: RunParams, student: sources.Model, teacher: sources.Model) -> dict[str, Any]:
    """Both models must be given the same messages, each in its own template; texts and hash go into the record.

    Raises ValueError for a tokenizer that cannot render, end or align texts, and for a message that is left out.
    """
    for role, (_, tokenizer) in (("student", student), ("teacher", teacher)):
        for name in ("chat_template", "eos_token"):
            if not getattr(tokenizer, name):
                raise ValueError(f"{role}: its tokenizer has no {name}; set one and save the checkpoint again")
        if not tokenizer.is_fast:
            raise ValueError(f"{role}: its tokenizer does not say where tokens stand in a text; use a fast one")
    task = params.task
    question = tasks.load(task.name).test(task, task.test_sets[0], 1)
    mine, other = (
        sources.make_prompts(model[1], task, question, [task.template], "gate")[0] for model in (student, teacher)
    )
    for who, prompt in (("student", mine), ("teacher", other)):
        for role, content in prompt.chat:
            if content.strip() not in prompt.rendered:
                raise ValueError(
                    f"{who}: its chat template leaves out the {role} message {content!r}: it renders "
                    f"{prompt.rendered!r}; use one that shows it"
                )
    digest = hashlib.sha256(mine.rendered.encode()).hexdigest()
    return {"prompt": mine.rendered, "prompt_sha256": digest, "teacher_prompt": other.rendered}
