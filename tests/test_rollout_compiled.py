"""The compiled sampler: the responses of `rollout.sample`, a bounded number of graphs, one error where it fails."""

from __future__ import annotations

import shutil
from typing import Any

import conftest
import pytest
import torch
from torch._dynamo.utils import counters

from opd_lib.engine import score, sources
from opd_lib.engine.model import models
from opd_lib.engine.sampling import rollout, rollout_compiled
from opd_lib.params.schema import NewModel
from opd_lib.tasks import chain
from opd_lib.types import Prompt, Rollouts

SHAPE = NewModel(layers=2, hidden=24, heads=2, context=128, rope_theta=100.0, initializer_range=0.1)
LONGEST = 90
CAPTURED: dict[str, Any] = {"backend": "eager", "dynamic": False, "fullgraph": True}
"""The graph is captured as on an accelerator, and run without being compiled."""
COMPILED = rollout_compiled.COMPILED


@pytest.fixture(autouse=True)
def _only_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_compiled, "COMPILED", CAPTURED)


def sampler_of(model: Any, slots: int, dtype: torch.dtype | None = None) -> rollout_compiled.Sampler:
    """With room for so many responses."""
    number = dtype or model.dtype
    one = 2 * number.itemsize * SHAPE.layers * SHAPE.hidden * LONGEST
    return rollout_compiled.Sampler(model, number, slots * one, LONGEST)


@pytest.fixture(scope="module")
def student() -> sources.Model:
    return models.new_model(SHAPE, 0).double(), models.chain_tokenizer()


@pytest.fixture(scope="module")
def prompts(student: sources.Model) -> list[Prompt]:
    """24 prompts of several lengths."""
    questions = [question for n in (3, 9, 5) for question in chain.held_out_questions(f"chain-{n}", 8)]
    task = chain.Params.model_validate(conftest.RUN["task"])
    found = sources.make_prompts(student[1], task, questions, ["T1"] * 24, "chain-a")
    assert len({len(prompt.token_ids) for prompt in found}) > 2
    return found


def numbers(count: int, limit: int = 40) -> torch.Tensor:
    return torch.rand(count, limit, generator=models.generator(8), dtype=torch.float64)


def require_equal(found: Rollouts, expected: Rollouts, atol: float = 1e-12) -> None:
    for name in ("response_BT", "length_B", "finished_B"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    torch.testing.assert_close(found.sampler_logp_BT, expected.sampler_logp_BT, atol=atol, rtol=0)


@pytest.mark.parametrize(("slots", "top_p"), [(1, 1.0), (2, 0.9), (5, 1.0), (8, 1.0), (16, 0.9), (100, 1.0)])
def test_responses_are_those_of_the_plain_sampler(
    student: sources.Model, prompts: list[Prompt], slots: int, top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "stop_ids", lambda *_: list(range(12)))  # so that lengths differ much
    monkeypatch.setattr(rollout_compiled, "NARROWEST", 2)
    sampler = sampler_of(student[0], slots)
    for few in (prompts, prompts[3:8], prompts[:1]):
        expected = rollout.sample(*student, few, numbers(len(few)), 1.0, top_p)
        require_equal(sampler.sample(*student, few, numbers(len(few)), 1.0, top_p), expected)
    assert max(sampler.slots) == min(slots, 32) and min(sampler.slots) == 1


def test_a_graph_is_captured_once_for_each_width_and_length(
    student: sources.Model, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "stop_ids", lambda *_: list(range(12)))
    sampler = sampler_of(student[0], 100)
    counters.clear()
    for count in (24, 20, 13, 1):
        sampler.sample(*student, prompts[:count], numbers(count), 0.7, 0.95)
    assert sorted(sampler.slots) == [1, 16, 32]
    assert counters["stats"]["unique_graphs"] == 3 and not counters["graph_break"]
    longer = sampler.sample(*student, prompts[:2], numbers(2, LONGEST), 1.0, 1.0)
    assert sampler.longest > LONGEST and counters["stats"]["unique_graphs"] == 4
    require_equal(longer, rollout.sample(*student, prompts[:2], numbers(2, LONGEST), 1.0, 1.0))


@pytest.mark.parametrize("slots", [1, 3, 100])
def test_responses_of_one_token_need_no_slot(
    student: sources.Model, prompts: list[Prompt], slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "stop_ids", lambda *_: list(range(len(student[1]))))
    found = sampler_of(student[0], slots).sample(*student, prompts, numbers(24), 1.0, 1.0)
    require_equal(found, rollout.sample(*student, prompts, numbers(24), 1.0, 1.0))
    assert found.length_B.tolist() == [1] * 24 and found.finished_B.all()


def test_a_copy_in_another_precision_leaves_the_student_as_it_is() -> None:
    model = models.new_model(SHAPE, 0)
    before, draws, said = models.weights_digest(model), torch.get_rng_state(), model.config.to_dict()
    copy = sampler_of(model, 4, torch.bfloat16).copy
    assert copy is not None and copy.dtype == torch.bfloat16 and copy.config is not model.config
    assert model.config.to_dict() == said and models.weights_digest(model) == before
    assert torch.equal(torch.get_rng_state(), draws)  # nothing was drawn for weights that are overwritten
    for mine, theirs in zip(copy.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(mine.float(), theirs)  # what is no weight has its values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_samples_from_the_weights_as_they_are_now(prompts: list[Prompt], dtype: torch.dtype) -> None:
    model, words = models.new_model(SHAPE, 0), models.chain_tokenizer()
    sampler = sampler_of(model, 100, dtype)
    before = sampler.sample(model, words, prompts, numbers(24).float(), 1.0, 1.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=models.generator(parameter.shape))
    after = sampler.sample(model, words, prompts, numbers(24).float(), 1.0, 1.0)
    assert not torch.equal(before.response_BT, after.response_BT)
    scores_N, sampled_N = log_probabilities(model, after)
    gap = float((scores_N - sampled_N).abs().mean())
    assert gap < 1e-6 if dtype == torch.float32 else 1e-4 < gap < 0.05
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def log_probabilities(model: Any, rollouts: Rollouts) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every sampled token: the trainer's, the sampler's."""
    assert rollouts.sampler_logp_BT is not None
    with torch.no_grad():
        scores = score.score(model, None, rollouts, torch.arange(len(rollouts.prompts)), k=0)
    return scores.student_logp_N, rollouts.sampler_logp_BT[scores.row_N, scores.position_N]


def test_a_model_that_does_not_see_everything_is_refused() -> None:
    sliding = models.new_model(SHAPE, 0)
    sliding.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ValueError, match=r"machine\.sampler: compiled needs .*sliding_attention"):
        sampler_of(sliding, 4)


def test_a_compiler_that_fails_is_one_error(
    student: sources.Model, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setitem(rollout_compiled.COMPILED, "backend", broken)
    sampler = sampler_of(student[0], 4)
    with pytest.raises(ValueError, match=r"machine\.sampler: torch\.compile failed .*machine\.sampler: transformers"):
        sampler.sample(*student, prompts, numbers(24), 1.0, 1.0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_for_a_cpu_the_responses_are_the_same(
    student: sources.Model, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_compiled, "COMPILED", COMPILED)
    sampler = sampler_of(student[0], 16)
    expected = rollout.sample(*student, prompts, numbers(24), 1.0, 1.0)
    require_equal(sampler.sample(*student, prompts, numbers(24), 1.0, 1.0), expected, atol=1e-6)  # norms are float32
