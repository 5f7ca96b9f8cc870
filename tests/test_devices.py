"""Models elsewhere, rollouts here: meta tensors stand for an accelerator's, which do not mix with the machine's own."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from opd_lib import methods
from opd_lib.bench.entrants import OBJECTIVES
from opd_lib.engine import gates, score
from opd_lib.maths import diagnostics
from opd_lib.maths.head import Head
from opd_lib.methods import opd
from opd_lib.types import Candidates, Prompt, Rollouts

PROMPT = Prompt(id="", source="", question="", rendered="", token_ids=(3, 4, 5), answer="")
K, LENGTHS, ROWS = 16, (6, 4, 2), torch.tensor([0, 2])


@pytest.fixture
def rollouts() -> Rollouts:
    return Rollouts(
        prompts=(PROMPT,) * 3,
        response_BT=torch.randint(0, 40, (3, 6)),
        length_B=torch.tensor(LENGTHS),
        finished_B=torch.tensor([False, True, True]),
        reward_B=torch.zeros(3),
        sampler_logp_BT=torch.zeros(3, 6),
    )


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """A device without data: what asks it for a number, or for its precision, is answered for it."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(opd, "has_impossible", lambda _: False)
    monkeypatch.setattr(Candidates, "length", property(lambda _: K))
    return "meta"


def head(width: int, device: str) -> Head:
    tokens = LENGTHS[0] + LENGTHS[2]
    return Head(*(torch.empty(n, width, device=device, requires_grad=True) for n in (tokens, 400)))


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_was_sampled_is_scored_where_the_model_is(
    name: str, measured: bool, rollouts: Rollouts, elsewhere: str
) -> None:
    method = methods.load("opd")
    objective = score.Objective(method=method, options=method.Params(**OBJECTIVES[name]), k=K, chunk=3)
    student = head(16, elsewhere)
    stream = objective.streamed(student, head(24, elsewhere), rollouts, ROWS, measured=measured)
    scaled, _, scores = stream.loss(objective.value, 0.1)
    scaled.backward()
    assert {str(leaf.grad.device) for leaf in student.leaves if leaf.grad is not None} == {elsewhere}
    assert str(gates.sampler_gaps(rollouts, scores).device) == str(scores.token_N.device) == elsewhere
    if measured:
        found = diagnostics.per_token(scores, [4, K])
        assert {str(value_N.device) for value_N, _ in found.values()} == {elsewhere}


def test_such_a_device_is_not_mixed_with_others(elsewhere: str) -> None:
    """So the test above says something; what is looked up here by an index from there stays here, and is found so."""
    here, there = torch.zeros(2), torch.zeros(2, device=elsewhere)
    for mixed in (lambda: here - there, lambda: torch.cat([here, there])):
        with pytest.raises(RuntimeError, match="device"):
            mixed()
    assert str(here[there.long()].device) == "cpu"
