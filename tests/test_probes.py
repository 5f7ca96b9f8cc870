"""Probes: every number against enumeration or autograd token by token, and runs that measure from start to record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import conftest
import micro
import pytest
import torch
from torch import Tensor

from opd_lib import methods
from opd_lib.engine import probes, score, sources, tokens, train
from opd_lib.engine.model import models
from opd_lib.engine.model.distributed import Ranks
from opd_lib.engine.probes import continuation, gradient, reward, teachers
from opd_lib.engine.sampling import rollout, turns
from opd_lib.maths import coherence, logprobs
from opd_lib.methods import opd
from opd_lib.params import RunSpec
from opd_lib.params.schema import ContinuationProbe, GradientProbe, NewModel, RewardProbe, Sampled, TeachersProbe
from opd_lib.records import record
from opd_lib.run import plan
from opd_lib.tasks import chain
from opd_lib.types import Prompt, Rollouts

SHAPE = NewModel(layers=2, hidden=24, heads=2, context=128, rope_theta=100.0, initializer_range=0.1)
OPTIONS = {key: value for key, value in conftest.OPD.items() if key != "name"}
FLOAT = {"dtype": torch.float64}


def model(seed: int) -> sources.Model:
    return models.new_model(SHAPE, seed).double(), models.chain_tokenizer()


def run_of(student: sources.Model, teacher: sources.Model, other: sources.Model | None = None, **changes: Any) -> Any:
    """What a probe reads of a run. `changes` are of the source or, if it knows the key, of the method."""
    options = OPTIONS | {key: value for key, value in changes.items() if key in OPTIONS}
    values = {"kind": "student", "prompts_per_step": 5, "per_prompt": 2, "max_new_tokens": 12, "schedule": []}
    source = values | {"temperature": 1.0, "top_p": 1.0}
    source |= {key: value for key, value in changes.items() if key in source}
    words = {"name": "chain", "content": "chain-a", "other_content": "chain-b", "other_share": 0.0, "template": "T1"}
    task = chain.Params.model_validate(words | {"test_sets": ("chain-3",), "test_template": "T2"})
    params = SimpleNamespace(
        source=Sampled.model_validate(source),
        task=task,
        train=SimpleNamespace(micro_tokens=changes.get("micro_tokens", 4096)),
        method_options=options,
    )
    chosen = opd.Params(**options)
    objective = score.Objective(method=methods.load("opd"), options=chosen, k=max(4, chosen.k))
    return SimpleNamespace(
        spec=SimpleNamespace(params=params, seed=0),
        student=student,
        teacher=teacher,
        other=other,
        method=objective.method,
        options=chosen,
        sample=rollout.sample,
        writer=None,
        k=objective.k,
        chunk=None,
        objective=objective,
        words=student[1].convert_ids_to_tokens(range(len(student[1]))),
    )


def drawn(run: Any, batch: int = 1) -> Rollouts:
    which = sources.BatchKey(seed=0, step=batch, ranks=Ranks(rank=0, world=1))
    return sources.draw(run.spec.params, which, sources.Authors(student=run.student, teacher=run.teacher))


def taken(rollouts: Rollouts, rows: list[int]) -> Rollouts:
    """Some of the responses."""
    return Rollouts(
        prompts=tuple(rollouts.prompts[row] for row in rows),
        response_BT=rollouts.response_BT[rows],
        length_B=rollouts.length_B[rows],
        finished_B=rollouts.finished_B[rows],
        reward_B=rollouts.reward_B[rows],
    )


def logp_by_response(model: sources.Model, rollouts: Rollouts) -> Iterator[tuple[int, list[int], Tensor]]:
    """(row, tokens, log-probabilities (T, V) they were drawn from), one plain forward per response."""
    for row, prompt in enumerate(rollouts.prompts):
        tokens = rollouts.response_BT[row, : rollouts.length_B[row]].tolist()
        with torch.no_grad():
            logits_LV = model[0](torch.tensor([[*prompt.token_ids, *tokens]])).logits[0]
        yield row, tokens, logits_LV[len(prompt.token_ids) - 1 : -1].log_softmax(-1)


def packed(rollouts: Rollouts, model: sources.Model) -> Tensor:
    """Logits (N, V) of all responses."""
    return conftest.logits(model[0], rollouts, torch.arange(len(rollouts.prompts)))


def tokens_of(rollouts: Rollouts) -> Tensor:
    rows = zip(rollouts.response_BT, rollouts.length_B.tolist(), strict=True)
    return torch.cat([response_T[:length] for response_T, length in rows])


@pytest.fixture(scope="module")
def student() -> sources.Model:
    return model(0)


@pytest.fixture(scope="module")
def teacher() -> sources.Model:
    return model(1)


# responses token by token


def test_what_is_kept_of_a_response_is_what_the_two_models_say(student: sources.Model, teacher: sources.Model) -> None:
    run = run_of(student, teacher, micro_tokens=40)
    rollouts = drawn(run)
    rows = tokens.described(run, rollouts)
    plain = [list(logp_by_response(model, rollouts)) for model in (student, teacher)]
    words = student[1].convert_ids_to_tokens(range(len(student[1])))
    for row, (_, response, p_TV), (_, _, q_TV) in zip(rows, *plain, strict=True):
        assert row["tokens"] == [words[token] for token in response]
        for t, token in enumerate(response):
            p_V, q_V = p_TV[t].exp(), q_TV[t].exp()
            assert row["student_logp"][t] == pytest.approx(float(p_TV[t, token]), abs=1e-4)
            assert row["reverse_kl"][t] == pytest.approx(float((p_V * (p_TV[t] - q_TV[t])).sum()), abs=1e-4)
            assert row["teacher_entropy"][t] == pytest.approx(float(-(q_V * q_TV[t]).sum()), abs=1e-4)
            mine, others = (set(x_V.topk(run.k).indices.tolist()) for x_V in (p_V, q_V))
            assert row["overlap"][t] == len(mine & others) / run.k
            first = [x_V.topk(tokens.LISTED).indices.tolist() for x_V in (p_V, q_V)]
            assert row["top"][t][: tokens.LISTED] == [words[v] for v in first[0]]
            assert set(row["top"][t]) == {words[v] for v in (*first[0], *first[1])}
            ids = student[1].convert_tokens_to_ids(row["top"][t])
            assert row["top_student"][t] == pytest.approx(p_V[ids].tolist(), rel=6e-3)
            assert row["top_teacher"][t] == pytest.approx(q_V[ids].tolist(), rel=6e-3)


def test_some_of_the_responses_are_described_as_among_all(student: sources.Model, teacher: sources.Model) -> None:
    run = run_of(student, teacher, micro_tokens=40)
    rollouts = drawn(run)
    rows = tokens.described(run, rollouts)
    assert tokens.described(run, rollouts, [7, 2]) == [rows[2], rows[7]]


# Gram matrices


def random_gradients(n: int = 7) -> Tensor:
    return torch.randn(n, 11, generator=torch.Generator().manual_seed(2), **FLOAT)


def test_identical_orthogonal_and_opposite_gradients() -> None:
    one_W = random_gradients(1)[0]
    for gradient_NW, value, cosine, rank in [
        (one_W.repeat(5, 1), 5.0, 1.0, 1.0),
        (3.0 * torch.eye(5, **FLOAT), 1.0, 0.0, 5.0),
        (torch.stack([one_W, -one_W]), 0.0, -1.0, 1.0),
        (torch.stack([one_W, one_W, -one_W, -one_W]), 0.0, -1 / 3, 1.0),
        (torch.stack([one_W, 4.0 * one_W]), 25 / 17, 1.0, 1.0),
    ]:
        gram_NN = gradient_NW @ gradient_NW.T
        assert coherence.coherence(gram_NN) == pytest.approx(value, abs=1e-12)
        assert coherence.mean_cosine(gram_NN) == pytest.approx(cosine, abs=1e-12)
        assert coherence.effective_rank(gram_NN) == pytest.approx(rank, abs=1e-12)


def test_the_gram_matrix_gives_what_the_gradients_give() -> None:
    gradient_NW = random_gradients()
    gram_NN = gradient_NW @ gradient_NW.T
    whole = gradient_NW.sum(0).square().sum() / gradient_NW.square().sum()
    assert coherence.coherence(gram_NN) == pytest.approx(float(whole), rel=1e-12)
    pairs = [(s, t) for s in range(7) for t in range(s)]
    cosines = [torch.cosine_similarity(gradient_NW[s], gradient_NW[t], dim=0) for s, t in pairs]
    assert coherence.mean_cosine(gram_NN) == pytest.approx(float(sum(cosines)) / len(pairs), rel=1e-12)
    eigenvalue_N = torch.linalg.svdvals(gradient_NW).square()
    rank = eigenvalue_N.sum() ** 2 / eigenvalue_N.square().sum()
    assert coherence.effective_rank(gram_NN) == pytest.approx(float(rank), rel=1e-12)
    assert coherence.cosine(gradient_NW[0], -3.0 * gradient_NW[0]) == pytest.approx(-1.0, rel=1e-12)


def test_a_gradient_of_zero_has_no_direction() -> None:
    gradient_NW = random_gradients(3)
    with_zero_NW = torch.cat([gradient_NW, torch.zeros(1, 11)])
    cosines = [coherence.mean_cosine(g_NW @ g_NW.T) for g_NW in (gradient_NW, with_zero_NW)]
    assert cosines[0] == pytest.approx(cosines[1], rel=1e-12)
    assert math.isnan(coherence.coherence(torch.zeros(2, 2))) and math.isnan(coherence.mean_cosine(torch.zeros(2, 2)))
    assert math.isnan(coherence.mean_cosine(torch.ones(1, 1)))
    assert math.isnan(coherence.cosine(gradient_NW[0], torch.zeros(11)))


# gradient


def head_gradients(run: Any, rollouts: Rollouts) -> Tensor:
    """The gradient (N, V·H) of each token's loss at the head weight, by one backward pass per token."""
    weight = run.student[0].get_output_embeddings().weight
    student_NV, teacher_NV, token_N = packed(rollouts, run.student), packed(rollouts, run.teacher), tokens_of(rollouts)
    found = []
    for n in range(len(token_N)):
        t, zero = slice(n, n + 1), torch.zeros(1, dtype=torch.long)
        whole = run.options.estimator == "full"
        scores = logprobs.score(student_NV[t], teacher_NV[t], token_N[t], zero, zero, k=run.k, whole=whole)
        loss = run.method.value(scores, run.options).sum()
        found.append(torch.autograd.grad(loss, weight, retain_graph=True)[0].flatten())
    return torch.stack(found)


def weight_gradient(run: Any, rollouts: Rollouts, options: opd.Params) -> Tensor:
    """The gradient (W) of the loss summed over all tokens of these responses, by backward."""
    student, rows = run.student[0], torch.arange(len(rollouts.prompts))
    objective = score.Objective(method=run.method, options=options, k=options.k)
    objective(student, run.teacher[0], rollouts, rows)[0].backward()
    gradient_W = torch.cat([p.grad.flatten() for p in student.parameters()])
    student.zero_grad(set_to_none=True)
    return gradient_W


EVERY_TOKEN = 10_000


def gathered(run: Any, rollouts: Rollouts, against: opd.Params | None = None) -> gradient.Gradients:
    return gradient.gradients(run, rollouts, against, gradient.choose(rollouts, EVERY_TOKEN, models.generator(0)))


def summary(run: Any, rollouts: Rollouts, tokens: int = EVERY_TOKEN, **against: Any) -> dict[str, Any]:
    probe = GradientProbe(kind="gradient", batches=1, tokens=tokens, against=against)
    (row,) = gradient.rows(run, probe, rollouts, 1)
    return row


@pytest.mark.parametrize("changes", [{}, {"estimator": "sampled"}, {"estimator": "full", "normalize": "raw"}])
def test_the_gram_matrix_is_that_of_single_tokens_by_autograd(
    student: sources.Model, teacher: sources.Model, changes: dict[str, Any]
) -> None:
    run = run_of(student, teacher, **changes)
    rollouts = drawn(run)
    found, head_NW = gathered(run, rollouts), head_gradients(run, rollouts)
    assert len(head_NW) == int(rollouts.length_B.sum()) > 50
    gram_NN = coherence.gram(found.delta_NV, found.hidden_NH)
    torch.testing.assert_close(gram_NN, head_NW @ head_NW.T, rtol=1e-9, atol=1e-12)
    row = summary(run, rollouts)
    assert row["coherence"] == pytest.approx(float(head_NW.sum(0).square().sum() / head_NW.square().sum()), rel=1e-9)
    assert 0.0 < row["coherence"] < row["n_tokens"] == len(head_NW) and 1.0 < row["effective_rank"] < len(head_NW)


def test_token_gradients_add_up_to_the_gradient_of_the_summed_loss(
    student: sources.Model, teacher: sources.Model
) -> None:
    run = run_of(student, teacher)
    rollouts = drawn(run)
    found, whole_W = gathered(run, rollouts), weight_gradient(run, rollouts, run.options)
    torch.testing.assert_close(found.own_2W.sum(0), whole_W, rtol=1e-9, atol=1e-12)
    sizes = {name: weight.numel() for name, weight in student[0].named_parameters()}
    head_W = dict(zip(sizes, whole_W.split(list(sizes.values())), strict=True))["lm_head.weight"]
    torch.testing.assert_close((found.delta_NV.T @ found.hidden_NH).flatten(), head_W, rtol=1e-9, atol=1e-12)
    norm = float(coherence.gram(found.delta_NV, found.hidden_NH).sum())
    assert norm == pytest.approx(float(head_W.square().sum()), rel=1e-9)
    assert summary(run, rollouts)["grad_norm"] == pytest.approx(float(whole_W.norm()) / len(tokens_of(rollouts)))


def test_halves_and_the_other_objective_are_compared_over_all_weights(
    student: sources.Model, teacher: sources.Model
) -> None:
    run = run_of(student, teacher)
    rollouts = drawn(run)
    first_W, second_W = (
        weight_gradient(run, taken(rollouts, rows), run.options) for rows in (list(range(4)), list(range(4, 10)))
    )
    row = summary(run, rollouts)
    assert rollouts.prompts[3].id != rollouts.prompts[4].id, "no group of one prompt may be cut"
    halves = float(torch.cosine_similarity(first_W, second_W, dim=0))
    assert row["half_batch_cosine"] == pytest.approx(halves, rel=1e-9) and abs(halves) < 0.99
    assert row["against_cosine"] is None
    whole_W, eq5_W, many_W = (
        weight_gradient(run, rollouts, opd.Params(**OPTIONS | changes))
        for changes in ({}, {"normalize": "both"}, {"k": 64})
    )
    for changes, other_W in (({"normalize": "both"}, eq5_W), ({"k": 64}, many_W)):
        expected = float(torch.cosine_similarity(whole_W, other_W, dim=0))
        assert summary(run, rollouts, **changes)["against_cosine"] == pytest.approx(expected, rel=1e-9)
        assert expected < 0.999
    assert summary(run, rollouts, beta=0.9)["against_cosine"] == pytest.approx(1.0)  # not read by this objective


def test_the_coherence_of_kept_tokens_is_the_cosine_of_their_gradients(
    student: sources.Model, teacher: sources.Model
) -> None:
    run = run_of(student, teacher, per_prompt=2)
    rollouts = drawn(run)
    head_NW = head_gradients(run, rollouts)
    rows = gradient.kept(run, rollouts, gathered(run, rollouts))
    row_N = torch.arange(len(rollouts.prompts)).repeat_interleave(rollouts.length_B)
    assert [row["problem"] for row in rows] == [0, 2, 4]
    for row in rows:
        expected_T = torch.cosine_similarity(head_NW[row_N == row["problem"]], head_NW.sum(0), dim=1)
        torch.testing.assert_close(torch.tensor(row["coherence"]), expected_T.float(), atol=1e-4, rtol=0)


def test_micro_batches_change_nothing_and_leave_no_gradient_behind(
    student: sources.Model, teacher: sources.Model
) -> None:
    rows = []
    for micro_tokens in (1, 60, 4096):
        run = run_of(student, teacher, micro_tokens=micro_tokens)
        rows.append(summary(run, drawn(run), tokens=30, normalize="both"))
        assert rows[-1]["n_tokens"] == 30
        assert all(p.grad is None for model in (student, teacher) for p in model[0].parameters())
    assert rows[0] == pytest.approx(rows[2], rel=1e-9) and rows[1] == pytest.approx(rows[2], rel=1e-9)


def test_mean_abs_advantage_is_over_all_tokens_of_the_batch(student: sources.Model, teacher: sources.Model) -> None:
    run = run_of(student, teacher)
    rollouts = drawn(run)
    pairs = zip(logp_by_response(student, rollouts), logp_by_response(teacher, rollouts), strict=True)
    gaps = [abs(float(q_TV[t, y] - p_TV[t, y])) for (_, ys, p_TV), (_, _, q_TV) in pairs for t, y in enumerate(ys)]
    assert summary(run, rollouts, tokens=3)["mean_abs_advantage"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-9)


def test_every_token_is_as_likely_to_be_chosen_and_padding_never_is(student: sources.Model) -> None:
    rollouts = replace(drawn(run_of(student, student)), length_B=torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]))
    count_BT = sum(gradient.choose(rollouts, 11, models.generator(i)).int() for i in range(2000))
    assert isinstance(count_BT, Tensor) and int(count_BT.sum()) == 2000 * 11
    valid_BT = torch.arange(count_BT.shape[1]) < rollouts.length_B[:, None]
    assert int(count_BT[~valid_BT].sum()) == 0
    assert int((count_BT[valid_BT] - 400).abs().max()) < 5 * math.sqrt(2000 * 0.2 * 0.8)  # 11 of 55 tokens


# teachers


def naive_distances(p_V: list[float], q_V: list[float]) -> dict[str, float]:
    kl = lambda a_V, b_V: math.fsum(a * math.log(a / b) for a, b in zip(a_V, b_V, strict=True) if a > 0)
    m_V = [(p + q) / 2 for p, q in zip(p_V, q_V, strict=True)]
    lists = [set(sorted(range(len(x_V)), key=lambda v, x_V=x_V: -x_V[v])[:16]) for x_V in (p_V, q_V)]
    return {
        "js": (kl(p_V, m_V) + kl(q_V, m_V)) / 2,
        "kl": kl(p_V, q_V),
        "kl_reverse": kl(q_V, p_V),
        "overlap_k16": len(lists[0] & lists[1]) / 16,
    }


def test_jensen_shannon_is_symmetric_bounded_and_zero_for_equals() -> None:
    p_NV, q_NV = (6.0 * torch.randn(2, 200, 9, generator=torch.Generator().manual_seed(4), **FLOAT)).log_softmax(-1)
    js_N = logprobs.jensen_shannon(p_NV, q_NV)
    naive_N = [
        naive_distances(p_V, q_V)["js"] for p_V, q_V in zip(p_NV.exp().tolist(), q_NV.exp().tolist(), strict=True)
    ]
    torch.testing.assert_close(js_N, torch.tensor(naive_N, **FLOAT), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(js_N, logprobs.jensen_shannon(q_NV, p_NV), rtol=1e-12, atol=1e-15)
    assert float(js_N.min()) > 0.0 and 0.5 < float(js_N.max()) <= math.log(2)
    assert float(logprobs.jensen_shannon(p_NV, p_NV).abs().max()) < 1e-15
    apart_NV = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], **FLOAT).log()
    assert logprobs.jensen_shannon(apart_NV[:1], apart_NV[1:]).tolist() == pytest.approx([math.log(2)])


@pytest.mark.parametrize("micro_tokens", [60, 4096])
def test_teachers_are_compared_at_every_token_of_the_student(
    student: sources.Model, teacher: sources.Model, micro_tokens: int
) -> None:
    other = model(2)
    run = run_of(student, teacher, other, micro_tokens=micro_tokens)
    rollouts = drawn(run)
    by_name = {"student": student, "teacher": teacher, "other": other}
    p = {name: [p_TV.exp().tolist() for *_, p_TV in logp_by_response(m, rollouts)] for name, m in by_name.items()}
    rows = teachers.rows(run, TeachersProbe(kind="teachers", batches=1, other="x"), rollouts, 1)
    assert [row["pair"] for row in rows] == ["teacher-other", "student-teacher", "student-other"]
    for row in rows:
        first, second = row["pair"].split("-")
        per_response = zip(p[first], p[second], strict=True)
        naive = [
            naive_distances(*pair) for firsts, seconds in per_response for pair in zip(firsts, seconds, strict=True)
        ]
        assert row["n_tokens"] == len(naive) == int(rollouts.length_B.sum())
        for name in ("js", "kl", "kl_reverse", "overlap_k16"):
            assert row[name] == pytest.approx(sum(values[name] for values in naive) / len(naive), rel=1e-9), name
        assert row["kl"] != pytest.approx(row["kl_reverse"], rel=1e-3)


def test_two_teachers_that_are_one_are_no_distance_apart(student: sources.Model, teacher: sources.Model) -> None:
    run = run_of(student, teacher, teacher)
    same, one, two = teachers.rows(run, TeachersProbe(kind="teachers", batches=1, other="x"), drawn(run), 1)
    assert {name: same[name] for name in ("kl", "kl_reverse", "overlap_k16")} == {
        "kl": 0.0, "kl_reverse": 0.0, "overlap_k16": 1.0,
    }  # fmt: skip
    assert abs(same["js"]) < 1e-15
    assert one["js"] == two["js"] > 1e-3


# reward


@pytest.mark.parametrize("micro_tokens", [60, 4096])
def test_the_mean_reward_of_a_response_is_its_mean_log_ratio(
    student: sources.Model, teacher: sources.Model, micro_tokens: int
) -> None:
    run = run_of(student, teacher, micro_tokens=micro_tokens, max_new_tokens=40)
    rollouts = replace(drawn(run), reward_B=torch.tensor([1.0, 0.0] * 5))
    rows = reward.rows(run, RewardProbe(kind="reward", batches=1), rollouts, 1)
    pairs = zip(rows, logp_by_response(student, rollouts), logp_by_response(teacher, rollouts), strict=True)
    for row, (index, written, logp_TV), (_, _, logq_TV) in pairs:
        ratios = [float(logq_TV[t, token] - logp_TV[t, token]) for t, token in enumerate(written)]
        assert row["reward_mean"] == pytest.approx(sum(ratios) / len(written), rel=1e-9)
        ended = written[-1] == student[1].eos_token_id
        expected = {"row": index, "correct": float(index % 2 == 0), "length": len(written), "finished": int(ended)}
        assert {name: row[name] for name in expected} == expected
    assert len({row["length"] for row in rows}) > 1 and {row["finished"] for row in rows} == {0, 1}


# continuation


def probe_of(depths: tuple[int, ...] = (0, 3, 7), new_tokens: int = 5) -> ContinuationProbe:
    return ContinuationProbe(kind="continuation", batches=1, depths=depths, new_tokens=new_tokens)


@pytest.fixture
def graded(monkeypatch: pytest.MonkeyPatch) -> list[Rollouts]:
    """Makes an answer right or wrong by its first and last word, so that accuracies differ; what was graded."""

    def by_words(texts: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
        return [float(sum(map(ord, text[:3] + text[-3:])) % 2) for text in texts]

    monkeypatch.setattr(chain, "grade", by_words)
    seen: list[Rollouts] = []
    original = sources.grade

    def grade(task: chain.Params, rollouts: Rollouts, tokenizer: Any) -> Rollouts:
        seen.append(original(task, rollouts, tokenizer))
        return seen[-1]

    monkeypatch.setattr(sources, "grade", grade)
    return seen


def test_a_teacher_that_is_the_student_continues_like_the_student(
    student: sources.Model, teacher: sources.Model, graded: list[Rollouts]
) -> None:
    def accuracies(run: Any, who: str) -> list[float]:
        rows = continuation.rows(run, probe_of(), drawn(run), 1)
        assert [(r["depth"], r["budget"]) for r in rows if r["who"] == who] == [
            (depth, budget) for depth in (0, 3, 7) for budget in ("total", "new")
        ]
        return [row["accuracy"] for row in rows if row["who"] == who]

    same, another = (run_of(student, model, prompts_per_step=12, max_new_tokens=20) for model in (student, teacher))
    assert accuracies(same, "teacher") == accuracies(same, "student") == accuracies(another, "student")
    assert accuracies(another, "teacher") != accuracies(another, "student")
    assert len(set(accuracies(same, "student"))) > 2, "the test needs accuracies that differ"


def test_prefixes_are_kept_budgets_respected_and_the_same_long_responses_used_throughout(
    student: sources.Model, teacher: sources.Model, graded: list[Rollouts]
) -> None:
    run = run_of(student, teacher, prompts_per_step=12, max_new_tokens=20)
    rollouts = drawn(run)
    long = [row for row, length in enumerate(rollouts.length_B.tolist()) if length > 7]
    assert 1 < len(long) < 24, "the test needs responses that are left out"
    del graded[:]
    rows = continuation.rows(run, probe_of(), rollouts, 1)
    assert len(rows) == len(graded) == 12
    end = student[1].eos_token_id
    for row, whole in zip(rows, graded, strict=True):
        depth, limit = row["depth"], {"total": 20, "new": row["depth"] + 5}[row["budget"]]
        assert [prompt.token_ids for prompt in whole.prompts] == [rollouts.prompts[i].token_ids for i in long]
        assert torch.equal(whole.response_BT[:, :depth], rollouts.response_BT[long, :depth])
        assert int(whole.length_B.max()) == limit and int(whole.length_B.min()) > depth
        for response, n, finished in zip(
            whole.response_BT.tolist(), whole.length_B.tolist(), whole.finished_B, strict=True
        ):
            assert (response[n - 1] == end) == bool(finished) and (finished or n == limit)
        assert row["n"] == len(long) and row["accuracy"] == pytest.approx(float(whole.reward_B.mean()))
        assert row["student_accuracy"] == pytest.approx(float(rollouts.reward_B[long].mean()))


@pytest.mark.parametrize("depth", [0, 12])
def test_a_continuation_is_what_its_author_samples_after_the_prefix(
    student: sources.Model, teacher: sources.Model, graded: list[Rollouts], depth: int
) -> None:
    """Sampled here with each budget of its own: a limit and a cut of something longer are the same."""
    run = run_of(student, teacher, prompts_per_step=12, max_new_tokens=20)
    rollouts = drawn(run, batch=3)
    long = [row for row, length in enumerate(rollouts.length_B.tolist()) if length > depth]
    assert (len(long) < 24) == (depth > 0), "the test needs responses that are left out"
    del graded[:]
    rows = continuation.rows(run, probe_of(depths=(depth,)), rollouts, 3)
    uniform_BT = torch.rand(24, 20 - depth, generator=models.generator(0, "continuation", 3, depth))[long]
    for row, whole in zip(rows, graded, strict=True):
        author = {"teacher": teacher, "student": student}[row["who"]]
        limit = {"total": 20 - depth, "new": 5}[row["budget"]]
        for i, index in enumerate(long):
            prefix = (*rollouts.prompts[index].token_ids, *rollouts.response_BT[index, :depth].tolist())
            prompt = replace(rollouts.prompts[index], token_ids=prefix)
            alone = rollout.sample(*author, [prompt], uniform_BT[i : i + 1, :limit], 1.0, 1.0)
            assert whole.response_BT[i, depth : whole.length_B[i]].tolist() == alone.response_BT[0].tolist()


@pytest.mark.parametrize("depth", [0, 1, 7])
def test_the_student_given_its_old_random_numbers_writes_its_old_responses(student: sources.Model, depth: int) -> None:
    run = run_of(student, student, prompts_per_step=12, max_new_tokens=20)
    rollouts = drawn(run, batch=3)
    long = [row for row, length in enumerate(rollouts.length_B.tolist()) if length > depth]
    uniform_BT = torch.rand(12, 2, 20, generator=models.generator(0, "rollout", 3)).flatten(0, 1)[long, depth:]
    prompts = [turns.begun(rollouts.prompts[row], rollouts.response_BT[row, :depth].tolist()) for row in long]
    whole = continuation.joined(rollouts, long, depth, rollout.sample(*student, prompts, uniform_BT, 1.0, 1.0), 20)
    old = taken(rollouts, long)
    assert sources.decode(whole, student[1]) == sources.decode(old, student[1])
    assert torch.equal(whole.length_B, old.length_B) and torch.equal(whole.finished_B, old.finished_B)


def test_without_a_long_response_there_is_nothing_to_continue(student: sources.Model) -> None:
    run = run_of(student, student, max_new_tokens=6)
    assert continuation.rows(run, probe_of(depths=(6,)), drawn(run), 1) == []


# whole runs

PROBES: dict[str, dict[str, Any]] = {
    "teachers": {"kind": "teachers", "batches": 2, "other": "run:00_models/better"},
    "continuation": {"kind": "continuation", "batches": 2, "depths": [0, 4], "new_tokens": 3},
    "reward": {"kind": "reward", "batches": 2},
    "gradient": {"kind": "gradient", "batches": 2, "tokens": 20, "against": {"normalize": "both"}},
    "gradient-alone": {"kind": "gradient", "batches": 2, "tokens": 20, "against": {}},
}
COLUMNS = {
    "teachers": ["batch", "pair", "js", "kl", "kl_reverse", "overlap_k16", "n_tokens"],
    "continuation": ["batch", "depth", "who", "budget", "accuracy", "student_accuracy", "n"],
    "reward": ["batch", "row", "reward_mean", "correct", "length", "finished"],
    "gradient": ["batch", "coherence", "mean_cosine", "effective_rank", "n_tokens", "half_batch_cosine",
                 "against_cosine", "mean_abs_advantage", "grad_norm"],
}  # fmt: skip


@pytest.fixture
def prepared(world: Path) -> Path:
    """The world with its models trained and an arm for every probe."""
    micro.teach(world)
    for arm in ("student", "teacher", "better"):
        train.train(micro.load(world).spec(arm, 0))
    for arm, probe in PROBES.items():
        micro.change_arm(world, micro.OPD, arm, {"probe": probe})
    micro.change_arm(world, micro.OPD, "plain", {"train.steps": 1})
    return world


def spec_of(world: Path, arm: str) -> RunSpec:
    return micro.load(world, micro.OPD).spec(arm, 0)


def test_a_probe_writes_its_table_and_agrees_with_the_first_step_of_a_run(prepared: Path) -> None:
    tables = {}
    for arm in PROBES:
        spec = spec_of(prepared, arm)
        assert not plan.trained(spec)
        assert train.train(spec).status == "finished" and plan.trained(spec)
        assert not spec.model_folder.exists() and not (spec.folder / "steps.csv").exists()
        tables[arm] = record.read(spec.folder).frame("probe")  # type: ignore[union-attr]
        assert list(tables[arm].columns) == COLUMNS[arm.partition("-")[0]]
        assert sorted(set(tables[arm]["batch"])) == [1, 2]
    assert tables["gradient-alone"]["against_cosine"].isna().all()
    assert tables["gradient"]["against_cosine"].between(0.0, 1.0, inclusive="neither").all()
    first = train.train(spec_of(prepared, "plain")).frame("steps").iloc[0]
    pair = tables["teachers"].query("batch == 1 and pair == 'student-teacher'").iloc[0]
    answers, batch = tables["reward"].query("batch == 1"), tables["gradient"].iloc[0]
    for ours, theirs in [
        (pair["kl"], first["reverse_kl"]),
        (pair["overlap_k16"], first["overlap_k16"]),
        (pair["n_tokens"], first["n_tokens"]),
        (batch["grad_norm"], first["grad_norm"]),
        (-(answers["reward_mean"] * answers["length"]).sum() / answers["length"].sum(), first["sampled_reverse_kl"]),
        (answers["correct"].mean(), first["reward"]),
    ]:
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)


def test_a_refused_objective_is_refused_also_where_the_vocabulary_is_known_late(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in real mathematics; the one that a probe compares with, too."""
    spec = spec_of(prepared, "gradient")
    probe = GradientProbe.model_validate(PROBES["gradient"] | {"against": {"k": 129}})
    spec = replace(spec, params=spec.params.model_copy(update={"probe": probe}))
    with pytest.raises(ValueError, match=r"method\.k: 129: the vocabulary has 128 tokens"):
        train.train(spec)


@pytest.mark.parametrize(
    ("measure", "probe"),
    [
        (reward.rows, RewardProbe(kind="reward", batches=1)),
        (continuation.rows, ContinuationProbe(kind="continuation", batches=1, depths=(0,), new_tokens=3)),
    ],
    ids=["reward", "continuation"],
)
def test_a_probe_of_what_is_right_wants_to_know_it(
    student: sources.Model, teacher: sources.Model, measure: Any, probe: Any
) -> None:
    run = run_of(student, teacher)
    rollouts = drawn(run)
    unknown = replace(rollouts, reward_B=rollouts.reward_B.clone().index_fill(0, torch.tensor([3]), torch.nan))
    where = (
        r"task\.content: 1 of 10 responses have no reward \(the first answers chain-a/T1/.*; use a set whose answers"
    )
    with pytest.raises(ValueError, match=where):
        measure(run, probe, unknown, 1)


class Stopped(BaseException):
    """Stands for a kill: no handler of ours sees it."""


def test_an_interrupted_probe_begins_again(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(prepared, "reward")

    def stop(run: Any, probe: Any, rollouts: Rollouts, batch: int) -> list[dict[str, Any]]:
        if batch == 2:
            raise Stopped
        return [{"row": 0, "reward_mean": 9.0, "correct": 0.0, "length": 1, "finished": 0}]

    with monkeypatch.context() as patch:
        patch.setitem(probes.ROWS, "reward", stop)
        with pytest.raises(Stopped):
            train.train(spec)
    present = record.read(spec.folder)
    assert present is not None and present.status == "running" and len(present.frame("probe")) == 1
    assert not plan.trained(spec) and plan.missing([spec]) == (spec,)
    found = train.train(spec).frame("probe")
    assert len(found) == 16 and 9.0 not in set(found["reward_mean"])
    assert plan.trained(spec) and plan.missing([spec]) == ()
