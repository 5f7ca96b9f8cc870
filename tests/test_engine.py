"""Sampling, scoring and one-step training: exact distributions, exact alignment, gradients that ignore bookkeeping."""

from __future__ import annotations

import math
import random
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import conftest
import pytest
import torch

from opd_lib import methods
from opd_lib.engine import batches, evaluate, gates, score, sources
from opd_lib.engine.credit import Credit
from opd_lib.engine.model import models
from opd_lib.engine.model.distributed import Ranks
from opd_lib.engine.sampling import growing, rollout
from opd_lib.maths import sampling
from opd_lib.params.schema import Evaluate, Limit, NewModel, Sampled
from opd_lib.tasks import chain
from opd_lib.types import Rollouts

SHAPE = NewModel(layers=2, hidden=24, heads=2, context=128, rope_theta=100.0, initializer_range=0.1)
OPD = {key: value for key, value in conftest.OPD.items() if key != "name"}


def task(**changes: Any) -> chain.Params:
    values = {"name": "chain", "content": "chain-a", "other_content": "chain-b", "other_share": 0.0, "template": "T1"}
    return chain.Params.model_validate(values | {"test_sets": ("chain-3", "chain-4"), "test_template": "T2"} | changes)


def source(**changes: Any) -> Sampled:
    values = {"kind": "student", "prompts_per_step": 4, "per_prompt": 2, "max_new_tokens": 6, "schedule": []}
    return Sampled.model_validate(values | {"temperature": 1.0, "top_p": 1.0} | changes)


def evaluation(**changes: Any) -> Evaluate:
    values = {"every": 1, "n_problems": 5, "n_samples": 3, "temperature": 0.7, "top_p": 0.95, "max_new_tokens": 8}
    return Evaluate.model_validate(values | {"caps": ()} | changes)


@pytest.fixture(scope="module")
def student() -> sources.Model:
    return models.new_model(SHAPE, 0).double(), models.chain_tokenizer()


@pytest.fixture(scope="module")
def teacher() -> sources.Model:
    return models.new_model(SHAPE, 1).double(), models.chain_tokenizer()


def sampled(model: sources.Model, n: int = 6, limit: int = 9, boost_end: float = 0.0) -> Rollouts:
    """Responses of unequal prompts and lengths."""
    questions = chain.draw_training("chain-a", n, random.Random(5))
    prompts = sources.make_prompts(model[1], task(), questions, ["T1"] * n, "chain-a")
    uniform_BT = torch.rand(n, limit, generator=models.generator(7), dtype=torch.float64)
    head = model[0].get_output_embeddings()
    assert head.bias is None
    return sources.grade(task(), rollout.sample(*model, prompts, uniform_BT, 1.0, 1.0), model[1])


def test_choose_inverts_the_cumulative_distribution() -> None:
    logits_V = torch.tensor([0.3, -1.0, 2.0, 0.7, -0.2], dtype=torch.float64)
    uniform_B = (torch.arange(20_000) + 0.5) / 20_000
    for temperature in (1.0, 0.7):
        token_B = sampling.choose(logits_V.expand(20_000, -1), uniform_B, temperature, 1.0)
        frequency_V = token_B.bincount(minlength=5) / 20_000
        torch.testing.assert_close(frequency_V, (logits_V / temperature).softmax(-1).float(), atol=1e-4, rtol=0)


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    probability_V = torch.tensor([0.05, 0.4, 0.25, 0.2, 0.1])
    uniform_B = (torch.arange(10_000) + 0.5) / 10_000
    for top_p, kept in ((0.39, [1]), (0.41, [1, 2]), (0.8, [1, 2, 3]), (0.94, [1, 2, 3, 4])):
        token_B = sampling.choose(probability_V.log().expand(10_000, -1), uniform_B, 1.0, top_p)
        frequency_V = token_B.bincount(minlength=5) / 10_000
        expected_V = torch.zeros(5).index_copy(0, torch.tensor(kept), probability_V[kept] / probability_V[kept].sum())
        torch.testing.assert_close(frequency_V, expected_V, atol=2e-4, rtol=0)


def test_a_uniform_number_of_zero_never_picks_an_impossible_token() -> None:
    logits_BV = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert sampling.choose(logits_BV, torch.tensor([0.0]), 1.0, 1.0).tolist() == [1]
    assert sampling.choose(logits_BV, torch.tensor([1.0 - 1e-7]), 1.0, 1.0).tolist() == [1]


@pytest.mark.parametrize("top_p", [1.0, 0.9999])
def test_every_token_of_a_large_vocabulary_can_be_drawn_as_often_as_it_should(top_p: float) -> None:
    """At the middle of its part of the cumulative distribution, however small: at V = 151,000 in float32."""
    v = 151_000
    logits_V = 3.0 * torch.randn(v, generator=models.generator("large"))
    p_V = logits_V.double().softmax(-1)
    sorted_V, order_V = p_V.sort(descending=True)
    kept_V = torch.zeros(v, dtype=torch.bool).scatter(0, order_V, sorted_V.cumsum(0) - sorted_V < top_p)
    p_V = p_V.where(kept_V, 0.0) / p_V[kept_V].sum()
    end_V = p_V.cumsum(0)
    found = [
        sampling.choose(logits_V[None], u_1, 1.0, top_p) for u_1 in ((end_V - 0.5 * p_V)[kept_V][:: v // 50]).split(1)
    ]
    assert torch.cat(found).tolist() == kept_V.nonzero()[:, 0][:: v // 50].tolist()
    small_V = kept_V & (p_V < 2.0**-25)
    assert 1e-5 < float(p_V[small_V].sum()) < 1e-3  # what float32 would never draw


def test_uniform_numbers_have_48_bits_of_which_the_first_are_torchs() -> None:
    numbers = sampling.uniform((300, 200), models.generator(3))
    assert numbers.dtype == torch.float64 and float(numbers.min()) >= 0.0 and float(numbers.max()) < 1.0
    first = torch.rand((300, 200), generator=models.generator(3))
    assert torch.equal(sampling.coarse(numbers), first) and torch.equal(sampling.coarse(first), first)
    rest = (numbers - first.double()) * 2.0**24
    assert torch.equal(rest * 2.0**24, (rest * 2.0**24).round()) and len(rest.unique()) > 59_000
    assert abs(float(rest.mean()) - 0.5) < 0.01 and abs(float((rest * first).mean()) - 0.25) < 0.01
    highest = torch.tensor([1.0 - 2.0**-48], dtype=torch.float64)
    assert float(sampling.coarse(highest)[0]) == 1.0 - 2.0**-24


def test_few_tokens_are_drawn_as_in_the_committed_runs() -> None:
    """By float32 sums at the first 24 bits: also next to a border, where other arithmetic would draw a neighbour."""
    logits_BV = 2.0 * torch.randn(4000, 128, generator=models.generator("few"))
    numbers_B = sampling.uniform((4000,), models.generator("border"))
    cumulative_BV = (logits_BV / 0.7).softmax(-1).cumsum(-1)
    border_B = cumulative_BV.gather(1, torch.randint(127, (4000, 1), generator=models.generator(0)))[:, 0].double()
    for u_B in (numbers_B, (border_B + 1e-9).clamp(max=0.9999), (border_B - 1e-9).clamp(min=0.0)):
        target_B1 = torch.floor(u_B * 2**24).float()[:, None] / 2**24 * cumulative_BV[:, -1:]
        expected_B = torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0].clamp(max=127)
        assert torch.equal(sampling.choose(logits_BV, u_B, 0.7, 1.0), expected_B)


def test_the_highest_number_draws_nothing_that_was_cut() -> None:
    logits_BV = torch.tensor([[0.3, 1.0, 0.2, -9.0], [1.0, 0.1, -torch.inf, -torch.inf]], dtype=torch.float64)
    highest_B = torch.full((2,), 1.0 - 2.0**-53, dtype=torch.float64)
    assert sampling.choose(logits_BV, highest_B, 1.0, 0.9).tolist() == [2, 1]
    for v in (5000, 151_000):
        wide_BV = torch.nn.functional.pad(logits_BV, (0, v), value=-torch.inf).float()
        assert sampling.choose(wide_BV, highest_B, 1.0, 0.9).tolist() == [2, 1]


@pytest.mark.parametrize("v", [5, 2000])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_drawn_of_no_distribution_can_be_seen(v: int, bad: float) -> None:
    logits_BV = torch.zeros(2, v)
    logits_BV[1, 2] = bad
    token_B, logp_B = sampling.drawn(logits_BV, torch.tensor([0.3, 0.3]), 1.0, 0.9)
    assert logp_B.isfinite().tolist() == [True, False] and int(token_B.max()) < v


def test_a_response_depends_on_its_prompt_and_numbers_not_on_its_batch(student: sources.Model) -> None:
    together = sampled(student)
    questions = chain.draw_training("chain-a", 6, random.Random(5))
    prompts = sources.make_prompts(student[1], task(), questions, ["T1"] * 6, "chain-a")
    uniform_BT = torch.rand(6, 9, generator=models.generator(7), dtype=torch.float64)
    for row in range(6):
        alone = rollout.sample(*student, [prompts[row]], uniform_BT[row : row + 1], 1.0, 1.0)
        n = int(alone.length_B[0])
        assert n == int(together.length_B[row])
        assert alone.response_BT[0].tolist() == together.response_BT[row, :n].tolist()


@pytest.mark.parametrize(("slots", "top_p"), [(1, 1.0), (2, 0.9), (5, 1.0), (8, 1.0), (23, 0.9)])
def test_few_slots_are_refilled_and_change_no_response(
    student: sources.Model, slots: int, top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [
        question for name in ("chain-3", "chain-9", "chain-5") for question in chain.held_out_questions(name, 8)
    ]
    prompts = sources.make_prompts(student[1], task(), questions, ["T1"] * 24, "chain-a")
    assert len({len(prompt.token_ids) for prompt in prompts}) > 2
    uniform_BT = torch.rand(24, 40, generator=models.generator(8), dtype=torch.float64)
    monkeypatch.setattr(models, "stop_ids", lambda *_: list(range(12)))  # so that lengths differ much
    together = rollout.sample(*student, prompts, uniform_BT, 1.0, top_p)
    assert int(together.length_B.min()) < 5 and int(together.length_B.max()) > 20
    written: list[int] = []
    original = growing.Batch.next_tokens

    def counted(batch: growing.Batch, *arguments: Any) -> Any:
        written.append(len(batch.row_R))
        return original(batch, *arguments)

    monkeypatch.setattr(growing.Batch, "next_tokens", counted)
    few = rollout.sample(*student, prompts, uniform_BT, 1.0, top_p, slots)
    for name in ("response_BT", "length_B", "finished_B"):
        assert torch.equal(getattr(few, name), getattr(together, name)), name
    torch.testing.assert_close(few.sampler_logp_BT, together.sampler_logp_BT, atol=1e-12, rtol=0)
    assert max(written) <= slots
    waves = [together.length_B[i : i + slots] for i in range(0, 24, slots)]
    assert len(written) <= sum(int(lengths.max()) for lengths in waves) + len(waves)
    if slots == 5:
        assert len(written) < 0.9 * sum(int(lengths.max()) for lengths in waves)


def test_a_cache_has_slots_for_what_it_holds(student: sources.Model) -> None:
    per_token = 2 * 4 * SHAPE.layers * SHAPE.hidden
    assert rollout.slots(student[0], 100, 7.9 * 100 * per_token, 4) == 7
    assert rollout.slots(student[0], 100, 7.9 * 100 * per_token, 2) == 15
    assert rollout.slots(student[0], 100, 1.0, 4) == 1


def test_sampling_stops_at_the_end_token_and_says_what_was_cut(student: sources.Model) -> None:
    questions = chain.draw_training("chain-a", 64, random.Random(6))
    prompts = sources.make_prompts(student[1], task(), questions, ["T1"] * 64, "chain-a")
    uniform_BT = torch.rand(64, 60, generator=models.generator(8), dtype=torch.float64)
    rollouts = rollout.sample(*student, prompts, uniform_BT, 1.0, 1.0)
    end = student[1].eos_token_id
    assert 0 < int(rollouts.finished_B.sum()) < 64, "the test needs both kinds"
    for row, length, finished in zip(
        rollouts.response_BT.tolist(), rollouts.length_B.tolist(), rollouts.finished_B.tolist(), strict=True
    ):
        assert (end in row) == finished
        assert length == (row.index(end) + 1 if finished else 60)
        assert all(token == student[1].pad_token_id for token in row[length:])


def test_sampler_and_trainer_see_the_same_log_probabilities_at_the_same_positions(student: sources.Model) -> None:
    rollouts = sampled(student)
    for rows in batches.micro_batches(rollouts, max_tokens=60):
        scores = score.score(student[0], None, rollouts, rows, k=0)
        assert gates.sampler_gap(rollouts, scores) < 1e-5  # the sampler's record is float32
        assert scores.token_N.tolist() == [
            token for row in rows.tolist() for token in rollouts.response_BT[row, : rollouts.length_B[row]].tolist()
        ]


def test_an_accuracy_wants_an_answer_to_every_question(student: sources.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one it would be NaN, and pass@k would count the question as unsolved."""
    monkeypatch.setattr(chain, "grade", lambda responses, prompts: [torch.nan] + [1.0] * (len(prompts) - 1))
    with pytest.raises(
        ValueError, match=r"task\.test_sets: 1 of 30 responses have no reward .*chain-.*answers are known"
    ):
        evaluate.evaluate(*student, task(), evaluation(), seed=0, step=0)


def test_micro_batches_hold_every_row_once_within_the_budget(student: sources.Model) -> None:
    rollouts = sampled(student)
    for budget in (1, 40, 60, 1000):
        groups = batches.micro_batches(rollouts, budget)
        assert sorted(row for group in groups for row in group.tolist()) == list(range(6))
        for group in groups:
            longest = max(len(rollouts.prompts[r].token_ids) + int(rollouts.length_B[r]) for r in group.tolist())
            assert len(group) == 1 or longest * len(group) <= budget


def gradient(student: sources.Model, teacher: sources.Model, rollouts: Rollouts, budget: int) -> torch.Tensor:
    method = methods.load("opd")
    options = method.Params(**OPD)
    student[0].zero_grad()
    objective = score.Objective(method=method, options=options, k=8, chunk=11)
    for rows in batches.micro_batches(rollouts, budget):
        scaled, _, _ = objective(student[0], teacher[0], rollouts, rows, scale=1 / float(rollouts.length_B.sum()))
        scaled.backward()
    return torch.cat([p.grad.flatten() for p in student[0].parameters() if p.grad is not None])


def test_micro_batch_size_and_padding_do_not_change_the_gradient(
    student: sources.Model, teacher: sources.Model
) -> None:
    rollouts = sampled(student)
    whole = gradient(student, teacher, rollouts, 10_000)
    for budget in (1, 40, 80):
        torch.testing.assert_close(gradient(student, teacher, rollouts, budget), whole, rtol=1e-9, atol=1e-12)
    padded = replace(rollouts, response_BT=torch.nn.functional.pad(rollouts.response_BT, (0, 7)))
    torch.testing.assert_close(gradient(student, teacher, padded, 10_000), whole, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_zero_for_a_teacher_that_is_the_student_and_not_for_another(
    student: sources.Model, teacher: sources.Model
) -> None:
    rollouts = sampled(student)
    assert float(gradient(student, student, rollouts, 10_000).norm()) < 1e-12
    assert float(gradient(student, teacher, rollouts, 10_000).norm()) > 1e-3


def drawn_by(model: sources.Model, params: Any, step: int, rank: int = 0, world: int = 1) -> Rollouts:
    """A process's share of what a model answers at a step."""
    which = sources.BatchKey(seed=0, step=step, ranks=Ranks(rank=rank, world=world))
    return sources.draw(params, which, sources.Authors(student=model))


def test_shares_of_a_step_are_the_step_however_many_processes() -> None:
    model = models.new_model(SHAPE, 0), models.chain_tokenizer()
    params = SimpleNamespace(task=task(other_share=0.5), source=source())

    def texts(rank: int, world: int) -> list[str]:
        share = drawn_by(model, params, 3, rank, world)
        return [p.rendered + t for p, t in zip(share.prompts, sources.decode(share, model[1]), strict=True)]

    assert sorted(texts(0, 2) + texts(1, 2)) == sorted(texts(0, 1))


def test_a_share_of_the_prompts_comes_from_the_other_content() -> None:
    model = models.new_model(SHAPE, 0), models.chain_tokenizer()
    few = source(prompts_per_step=200, per_prompt=1, max_new_tokens=1)

    def others(share: float) -> float:
        params = SimpleNamespace(task=task(other_share=share), source=few)
        prompts = drawn_by(model, params, 1).prompts  # type: ignore[arg-type]
        parts = [part_of(prompt.question) for prompt in prompts]
        return sum(part in chain.CONTENTS["chain-b"].parts for part in parts) / len(parts)

    assert (others(0.0), others(1.0)) == (0.0, 1.0)
    assert others(0.25) == pytest.approx(0.25, abs=0.1)


def part_of(text: str) -> int:
    """The part of the question space that this question's hash deals it to."""
    start, *rest = text.split()
    return chain.Question(int(start), tuple((o, int(d)) for o, d in zip(rest[::2], rest[1::2], strict=True))).part


def test_the_response_limit_follows_its_schedule() -> None:
    model = models.new_model(SHAPE, 0), models.chain_tokenizer()
    growing = source(schedule=[Limit(step=3, max_new_tokens=4), Limit(step=5, max_new_tokens=9)], max_new_tokens=2)
    assert [growing.limit(step) for step in (1, 2, 3, 4, 5, 99)] == [2, 2, 4, 4, 9, 9]
    assert (growing.longest, source().longest) == (9, 6)
    params = SimpleNamespace(task=task(), source=growing)
    drawn = drawn_by(model, params, 3)  # type: ignore[arg-type]
    assert int(drawn.length_B.max()) == 4


def test_evaluation_rows_are_what_the_counts_say(student: sources.Model) -> None:
    settings = evaluation(caps=())
    found = evaluate.evaluate(*student, task(), settings, seed=0, step=0)
    evals, problems = found["evals"], found["problems"]
    assert not found["caps"] and [row["test_set"] for row in evals] == ["chain-3", "chain-4"]
    for row in evals:
        counts = [p["n_correct"] for p in problems if p["test_set"] == row["test_set"]]
        assert len(counts) == 5
        assert row["accuracy"] == pytest.approx(sum(counts) / 15)
        assert row["pass_at_k"] == pytest.approx(sum(count > 0 for count in counts) / 5)
    later = evaluate.evaluate(*student, task(), settings, seed=0, step=9)["problems"]
    assert later == [{**row, "step": 9} for row in problems]


def test_accuracy_under_a_cap_is_that_of_a_lower_limit(student: sources.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an answer is right is made to depend on its length, so that a cap changes the accuracy."""
    monkeypatch.setattr(chain, "grade", lambda texts, prompts: [float(len(text.split()) % 2) for text in texts])
    long = evaluate.evaluate(*student, task(), evaluation(caps=(3, 8), max_new_tokens=8), seed=0, step=0)
    caps = {(row["test_set"], row["cap"]): row for row in long["caps"]}
    assert list(caps) == [("chain-3", 3), ("chain-3", 8), ("chain-4", 3), ("chain-4", 8)]
    for test_set in ("chain-3", "chain-4"):
        low, high = caps[test_set, 3], caps[test_set, 8]
        assert low["finished_share"] <= high["finished_share"] and low["accuracy"] <= high["accuracy"]
        full = next(row for row in long["evals"] if row["test_set"] == test_set)
        assert high["finished_share"] == pytest.approx(1.0 - full["truncated_share"])


def test_a_responses_advantage_reaches_each_of_its_tokens_unrounded(student: sources.Model) -> None:
    rollouts = sampled(student)
    advantage_B = torch.linspace(-0.75, 0.5, len(rollouts.prompts), dtype=torch.float64)
    objective = score.Objective(method=methods.load("grpo"), options=None, k=0, chunk=5)
    advantage_N = advantage_B.repeat_interleave(rollouts.length_B)
    rows, credit = torch.tensor([1, 3]), Credit(advantage_N=advantage_N)
    _, _, scores = objective(student[0], None, rollouts, rows, credit)
    assert scores.advantage_N is not None
    assert torch.equal(scores.advantage_N, advantage_B[rows].repeat_interleave(rollouts.length_B[rows]))


@pytest.mark.parametrize("max_tokens", [10, 14, 10_000])
def test_beginnings_score_like_the_same_tokens_of_whole_responses(student: sources.Model, max_tokens: int) -> None:
    whole = sampled(student)
    cut = batches.beginnings(whole, max_tokens)
    lengths = [len(prompt.token_ids) for prompt in whole.prompts]
    assert cut.length_B.tolist() == [
        max(1, min(n, max_tokens - prompt)) for n, prompt in zip(whole.length_B.tolist(), lengths, strict=True)
    ]
    rows = torch.arange(len(whole.prompts))
    all_of, begun = (score.score(student[0], None, rollouts, rows, 0) for rollouts in (whole, cut))
    kept_N = all_of.position_N < cut.length_B[all_of.row_N]
    assert torch.allclose(all_of.student_logp_N[kept_N], begun.student_logp_N)
    assert gates.sampler_gap(cut, begun) < 1e-5
    assert (cut.finished_B == (whole.finished_B & (cut.length_B == whole.length_B))).all()


def test_gates_stop_what_trains_in_silence(student: sources.Model, teacher: sources.Model) -> None:
    rollouts = sampled(student)
    rows = torch.arange(6)
    scores = score.score(student[0], teacher[0], rollouts, rows, k=8)
    with pytest.raises(ValueError, match="learned nothing or lost its weights"):
        gates.teacher_speaks(replace(scores, teacher_entropy_N=scores.teacher_entropy_N * 0 + 4.8), 128)
    shifted = replace(rollouts, sampler_logp_BT=rollouts.sampler_logp_BT.roll(1, dims=1))
    with pytest.raises(ValueError, match="sampler and trainer log-probabilities differ"):
        gates.sampler_agrees(shifted, scores, 1e-3)
    assert gates.sampler_agrees(rollouts, scores, 1e-3)["sampler_gap"] < 1e-5
    method = methods.load("opd")
    found = gates.gradient_sees_teacher(
        score.Objective(method=method, options=method.Params(**OPD), k=8), student[0], teacher[0], rollouts
    )
    assert found["teacher_dependence"] > 0.1
    sft = methods.load("sft")
    with pytest.raises(ValueError, match="does not depend on the teacher"):
        gates.gradient_sees_teacher(
            score.Objective(method=sft, options=sft.Params(), k=8), student[0], teacher[0], rollouts
        )
    blind = methods.load("blind")
    control = blind.Params(loss="sampled", k=0, control=True)
    found = gates.gradient_sees_teacher(
        score.Objective(method=blind, options=control, k=8), student[0], teacher[0], rollouts
    )
    assert found == {"teacher_dependence": 0.0}, "a control may, and its record says so"


def test_a_teacher_of_another_vocabulary_or_template_is_refused(student: sources.Model) -> None:
    model, _ = student
    other = models.chain_tokenizer()
    other.add_tokens(["w99"])
    with pytest.raises(ValueError, match="id 128 is None for the student and 'w99' for the teacher"):
        gates.same_vocabulary(student, (model, other))
    params = SimpleNamespace(task=task())
    silent = models.chain_tokenizer()
    silent.chat_template = "{{ messages[1].content }}"
    with pytest.raises(ValueError, match="give both the same chat template"):
        gates.same_prompt(params, student, (model, silent))  # type: ignore[arg-type]
    assert gates.same_prompt(params, student, student)["prompt"].startswith("<bos> T1")  # type: ignore[arg-type]


def ending(model: sources.Model, *words: str, end: str = "<eos>") -> sources.Model:
    """A model whose tokenizer ends with `end`, and whose generation settings name these words as well."""
    network, tokenizer = models.new_model(SHAPE, 0), models.chain_tokenizer()
    tokenizer.eos_token = end
    network.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids(word) for word in words]
    return network, tokenizer


def test_student_and_teacher_must_share_an_end_and_are_told_of_others(student: sources.Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gates.same_end(student, student) == {}
        assert gates.same_end(ending(student, "w00"), ending(student, "w00", "<eos>")) == {}
    with pytest.warns(UserWarning, match=r"teacher: ends responses with <eos>, w00, the student with <eos>"):
        found = gates.same_end(student, ending(student, "w00"))
    assert found == {"end_tokens": {"student": ["<eos>"], "teacher": ["<eos>", "w00"]}}
    with pytest.warns(UserWarning, match="the student with <eos>, w00"):
        gates.same_end(ending(student, "w00"), student)
    for other in (ending(student, end="w00"), ending(student, "w01", end="w00")):
        with pytest.raises(ValueError, match=r"teacher: ends responses with w0.*, the student with <eos>: .*eos_token"):
            gates.same_end(student, other)
    with pytest.warns(UserWarning, match="teacher"):  # generation settings alone may be what both have in common
        gates.same_end(student, ending(student, "<eos>", end="w00"))
    theirs = student[1].convert_tokens_to_ids(["w05"])  # of a teacher that is elsewhere
    with pytest.raises(ValueError, match="teacher: ends responses with w05"):
        gates.same_end(student, student, theirs)


def test_an_objective_whose_gradient_is_no_number_is_told_so(student: sources.Model, teacher: sources.Model) -> None:
    method = methods.load("opd")
    for factor in (math.nan, math.inf):
        broken = replace(method, value=lambda *given, f=factor: method.value(*given) * f)
        objective = score.Objective(method=broken, options=method.Params(**OPD), k=8)
        with pytest.raises(ValueError, match=r"gradient at the logits is not finite"):
            gates.gradient_sees_teacher(objective, student[0], teacher[0], sampled(student))


def test_a_students_logits_that_are_not_finite_are_not_scored(student: sources.Model) -> None:
    broken = models.new_model(SHAPE, 0)
    broken.config.rms_norm_eps = broken.model.norm.variance_epsilon = -1.0
    rollouts = sampled(student)
    with pytest.raises(ValueError, match="its logits are not finite"):
        score.score(broken, None, rollouts, torch.arange(2), k=0)


def test_a_missing_checkpoint_is_one_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"cannot load a checkpoint from .*nowhere"):
        models.load(tmp_path / "nowhere")
