"""What a teacher makes of a response that the student has begun: alone, and from four kinds of prefix (mechanism 1).

Each of the student's responses is cut at a random place, and the teacher goes on from there:

    alone      from nothing
    own        from as large a part of its own response, written anew from there
    gold       from as large a part of the worked solution
    student    from what the student has written

`signal` is how far teacher and student differ about the tokens of the student's own response, early and late in it.
`valid` says whether the student's part is right as far as it goes: only there does a lower accuracy say that the prefix
disturbs the teacher, and not that the problem is lost already. `stated` says whether an answer was stated at all.

Source: arXiv 2605.11182, whose prefix experiment has `alone` and `student`. Differs: the other two, validity, and what
the teacher thinks of a revision word at the cut. Its figures of the signal are curves; here thirds are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from opd_lib import tasks
from opd_lib.engine import sources
from opd_lib.engine.model import models
from opd_lib.engine.sampling.turns import begun
from opd_lib.maths import sampling, signatures

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.engine.running import ActiveRun
    from opd_lib.params.schema import PrefixProbe
    from opd_lib.types import Prompt, Rollouts

Tokens = list[list[int]]
"""Of each response."""


@torch.no_grad()
def rows(run: ActiveRun, probe: PrefixProbe, rollouts: Rollouts, batch: int) -> list[dict[str, Any]]:
    """One row per response: `cut` (share), `depth` (tokens), `valid`, and of each prefix `right_*` and `stated_*`.

    `revision_*`: the teacher's probability of the probe's words at the cut; `entropy_*` (nats). And what `signals` says
    of the student's own response.
    Raises ValueError if it is not known whether a response is right.
    """
    task, source = run.spec.params.task, run.spec.params.source
    assert run.teacher is not None and source.kind == "student"  # params refuses a probe without either
    sources.require_rewards(rollouts, "task.content", "a probe of prefixes")
    kind, (teacher, tokenizer) = tasks.load(task.name), run.teacher
    grading = tasks.grading(task)
    assert kind.sound is not None and grading is not None  # params refuses tasks whose prefixes nobody can read
    prompts, limit = rollouts.prompts, source.max_new_tokens
    revision = signatures.ids(run.words, probe.revision, "probe.revision")
    cut_B = sampling.uniform((len(prompts),), models.generator(run.spec.seed, "cut", batch))

    def finished(who: str, begun_with: list[Prompt], prefixes: Tokens) -> Tokens:
        """Whole responses: each prefix, and what the teacher writes behind it up to the limit."""
        numbers = models.generator(run.spec.seed, f"prefix/{who}", batch)
        uniform_BT = sampling.uniform((len(prompts), limit), numbers)
        added = run.sample(teacher, tokenizer, begun_with, uniform_BT, source.temperature, source.top_p)
        return [prefix + new[: limit - len(prefix)] for prefix, new in zip(prefixes, added.tokens, strict=True)]

    def judged(who: str, responses: Tokens) -> dict[str, list[float]]:
        """Whether they are right, and whether they state an answer at all."""
        texts = tokenizer.batch_decode(responses)
        stated = [float(grading.extract_answer(text) is not None) for text in texts]
        return {f"right_{who}": grading.grade(texts, prompts), f"stated_{who}": stated}

    alone = finished("alone", list(prompts), [[] for _ in prompts])
    gold: Tokens = tokenizer([prompt.solution for prompt in prompts], add_special_tokens=False).input_ids
    found: dict[str, list[Any]] = {"cut": cut_B.tolist()} | judged("alone", alone)
    for who, whole in (("own", alone), ("gold", gold), ("student", rollouts.tokens)):
        prefixes = [each[: int(cut * len(each))] for each, cut in zip(whole, cut_B.tolist(), strict=True)]
        begun_with = [begun(prompt, prefix) for prompt, prefix in zip(prompts, prefixes, strict=True)]
        found |= judged(who, finished(who, begun_with, prefixes))
        logp_BV = torch.stack([next_logp(teacher, prompt) for prompt in begun_with])
        found[f"revision_{who}"] = logp_BV[:, revision].exp().sum(1).tolist()
        found[f"entropy_{who}"] = (-logp_BV.exp() * logp_BV).sum(1).tolist()
    found |= signals(run.student[0], teacher, rollouts)
    found["depth"] = [len(prefix) for prefix in prefixes]
    found["valid"] = [int(kind.sound(*each)) for each in zip(prompts, tokenizer.batch_decode(prefixes), strict=True)]
    return [{"row": row} | {name: column[row] for name, column in found.items()} for row in range(len(prompts))]


@torch.no_grad()
def signals(student: Any, teacher: Any, rollouts: Rollouts) -> dict[str, list[Any]]:
    """Of the student's own responses: whether each is right, and mean |log q − log p| at its tokens (nats).

    `signal`: of all tokens; `signal_first`, `signal_last`: of the first and of the last third of them.
    """
    found: dict[str, list[Any]] = {"right": rollouts.reward_B.tolist()}
    for prompt, tokens in zip(rollouts.prompts, rollouts.tokens, strict=True):
        size_T = (token_logp(teacher, prompt, tokens) - token_logp(student, prompt, tokens)).abs()
        third = -(-len(tokens) // 3)
        for name, of_T in (("", size_T), ("_first", size_T[:third]), ("_last", size_T[-third:])):
            found.setdefault(f"signal{name}", []).append(float(of_T.mean()))
    return found


def token_logp(model: Any, prompt: Prompt, tokens: list[int]) -> Tensor:
    """Log-probabilities (T, nats) of the tokens of a response."""
    ids = torch.tensor([[*prompt.token_ids, *tokens]], device=model.device)
    logits_TV: Tensor = model(ids).logits[0, len(prompt.token_ids) - 1 : -1].float()
    return logits_TV.log_softmax(-1).gather(1, ids[0, -len(tokens) :, None])[:, 0].cpu()


def next_logp(model: Any, prompt: Prompt) -> Tensor:
    """Log-probabilities (V, nats) of the token behind a prompt."""
    logits: Tensor = model(torch.tensor([prompt.token_ids], device=model.device)).logits[0, -1]
    return logits.float().log_softmax(-1)
