"""A served teacher is the teacher: same scores, losses, gradients and diagnostics wherever a server says enough.

The server of these tests answers as vLLM does, from the exact log-probabilities of a model in the same process; the
real one is in tests/with_vllm.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import conftest
import huggingface_hub
import micro
import pandas as pd
import pytest
import torch
from fake_server import Fake, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from opd_lib import methods, paths
from opd_lib.engine import batches, gates, memory, score, served, train, vllm_server
from opd_lib.engine import teacher as teachers
from opd_lib.engine.model import hub, models
from opd_lib.engine.served import Teacher
from opd_lib.engine.sources import Model
from opd_lib.maths import diagnostics, logprobs
from opd_lib.methods import opd
from opd_lib.params import RunSpec
from opd_lib.params.schema import NewModel
from opd_lib.tasks import chain
from opd_lib.types import OUTSIDE, Prompt, Rollouts, TokenScores

SHAPE = NewModel(layers=2, hidden=24, heads=2, context=128, rope_theta=100.0, initializer_range=0.3)
UNKNOWN = {"teacher_entropy", "entropy_gap", "entropy_gap_of_means", "reverse_kl", "delta_p"}
"""Metrics that a served teacher cannot feed."""
V = len(chain.VOCABULARY)


def is_known(column: str) -> bool:
    return re.sub(r"_k\d+$", "", column) not in UNKNOWN


@pytest.fixture(scope="module")
def student() -> Model:
    return models.new_model(SHAPE, 0).double(), models.chain_tokenizer()


@pytest.fixture(scope="module")
def teacher() -> Model:
    return models.new_model(SHAPE, 1).double().requires_grad_(False), models.chain_tokenizer()


@pytest.fixture
def fake(teacher: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setattr(vllm_server, "WAITS", (0.0, 0.0))
    with serving(Fake(teacher)) as found:
        yield found


def connect(fake: Fake) -> Teacher:
    return served.connect(fake.url, fake.name, V, fake.model[0].config.vocab_size)


def rollouts(n: int = 7, seed: int = 0) -> Rollouts:
    """Random words as prompts and responses, all of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    ids_BL = torch.randint(4, V, (n, 40), generator=generator)
    prompts = tuple(
        Prompt(id=str(i), source="", question="", rendered="", token_ids=tuple(row[: 3 + i % 4]), answer="")
        for i, row in enumerate(ids_BL.tolist())
    )
    length_B = 1 + torch.arange(n) * 3 % 11
    return Rollouts(
        prompts=prompts,
        response_BT=ids_BL[:, 20:32],
        length_B=length_B,
        finished_B=length_B < 11,
        reward_B=torch.zeros(n),
    )


def allowed(ks: tuple[int, ...]) -> list[opd.Params]:
    """Every objective that a served teacher may feed and that may be trained at all."""
    fields = {name: get_args(info.annotation) for name, info in opd.Params.model_fields.items()}
    fields |= {"k": ks, "stop_gradient": (True, False), "beta": (0.3,)}
    found = []
    for values in product(*fields.values()):
        params = opd.Params(**dict(zip(fields, values, strict=True)))
        try:
            opd.check(params, 9, True)
            opd.check_served(params)
        except ValueError:
            continue
        found.append(params)
    return found


# --- what a server says, as scores


def draw(n: int, vocabulary: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student_NV, teacher_NV = 2.0 * torch.randn(2, n, vocabulary, generator=generator, dtype=torch.float64)
    teacher_NV[:1] = student_NV[:1]  # one position where the lists are the same
    teacher_NV[-1:] = -student_NV[-1:]  # and one where they share as little as they can
    return student_NV, teacher_NV, torch.randint(vocabulary, (n,), generator=generator)


def both(
    student_NV: Tensor, teacher_NV: Tensor, token_N: Tensor, k: int, more: int = 0, whole: bool = False
) -> list[TokenScores]:
    """The scores of a teacher in this process and of the same one behind a server, which lists k + more tokens."""
    logp_NV = teacher_NV.log_softmax(-1)
    top_NK = logp_NV.topk(min(k + more, logp_NV.shape[1]), dim=-1)
    own_N = logp_NV.gather(1, token_N[:, None])[:, 0]
    places = (token_N, torch.zeros_like(token_N), torch.arange(len(token_N)))
    return [
        logprobs.score(student_NV, teacher_NV, *places, k, whole=whole),
        logprobs.score_served(student_NV, own_N, top_NK.indices, top_NK.values, *places, k, whole),
    ]


sizes = st.tuples(st.integers(0, 6), st.integers(2, 13), st.integers(0, 10_000)).flatmap(
    lambda size: st.tuples(*map(st.just, size), st.integers(0, size[1]), st.integers(0, 3))
)


@settings(deadline=None, max_examples=80)
@given(sizes)
def test_scores_are_those_of_the_teacher_wherever_the_server_says_enough(size: tuple[int, ...]) -> None:
    n, vocabulary, seed, k, more = size
    own, other = both(*draw(n, vocabulary, seed), k, more)
    for name in ("token_N", "row_N", "position_N", "student_logp_N", "student_entropy_N", "teacher_logp_N"):
        assert torch.equal(getattr(own, name), getattr(other, name)), name
    assert other.teacher_entropy_N is None and other.reverse_kl_N is None
    a, b = own.candidates, other.candidates
    assert (a is None) == (b is None) == (k == 0)
    if a is None or b is None:
        return
    for name in ("id_NC", "student_rank_NC", "teacher_rank_NC", "student_logp_NC"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    said_NC = a.teacher_rank_NC < OUTSIDE
    known_NC = ~b.teacher_logp_NC.isnan()
    assert bool((known_NC | ~said_NC).all()) and torch.equal(a.teacher_logp_NC[known_NC], b.teacher_logp_NC[known_NC])
    if not more:  # exactly the teacher's own list and the token that was drawn
        listed_NC = (a.id_NC[:, :, None] == a.id_NC[:, None, :]) & said_NC[:, None, :]
        assert torch.equal(known_NC, listed_NC.any(2) | (a.id_NC == own.token_N[:, None]))


def test_what_lists_cannot_give_is_refused() -> None:
    student_NV, teacher_NV, token_N = draw(3, 9, 0)
    top_NK, zero_N = teacher_NV.log_softmax(-1).topk(4, dim=-1), torch.zeros_like(token_N)
    for ids, k, message in (
        (top_NK.indices, 5, "k = 5 is impossible with lists of 4 among 9 tokens"),
        (top_NK.indices, -1, "k = -1 is impossible"),
        (top_NK.indices + 9, 4, "name tokens beyond the student's 9"),
    ):
        with pytest.raises(ValueError, match=message):
            logprobs.score_served(student_NV, zero_N.double(), ids, top_NK.values, token_N, zero_N, zero_N, k)


@pytest.mark.parametrize("params", allowed((1, 3, 5)), ids=lambda p: "-".join(map(str, p.model_dump().values())))
def test_losses_and_gradients_of_every_allowed_objective_are_the_same(params: opd.Params) -> None:
    student_NV, teacher_NV, token_N = draw(6, 9, 1)
    found = []
    for which in (0, 1):
        leaf_NV = student_NV.clone().requires_grad_()
        whole = opd.reads(params).distributions
        value_N = opd.value(both(leaf_NV, teacher_NV, token_N, params.k or 2, whole=whole)[which], params)
        found.append((value_N.detach(), torch.autograd.grad(value_N.sum(), leaf_NV)[0]))
    close = 1e-12 if params.tail == "bucket" else 0.0  # the tail is summed, or what the list leaves of 1
    for own, served_one in zip(found[0], found[1], strict=True):
        torch.testing.assert_close(served_one, own, rtol=close, atol=close)
    assert bool(found[0][1].isfinite().all())


def test_objectives_on_unknown_probabilities_are_refused_because_they_would_be_nan() -> None:
    student_NV, teacher_NV, token_N = draw(6, 9, 1)
    _, scores = both(student_NV, teacher_NV, token_N, 3)
    method = methods.load("opd")
    base = {key: value for key, value in conftest.OPD.items() if key != "name"} | {"k": 3}
    assert method.check_served is not None
    for changes in ({"support": "student"}, {"support": "union"}, {"support": "symmetric_difference"}):
        params = opd.Params(**base | changes)
        assert method.value(scores, params).isnan().any()
        with pytest.raises(
            ValueError, match=r"method\.support: .*cannot score given tokens.*machine\.teacher_url: null"
        ):
            method.check_served(params)
    with pytest.raises(ValueError, match=r"method\.estimator: full: .*use sampled, or machine\.teacher_url: null"):
        method.check_served(opd.Params(**base | {"estimator": "full"}))
    for changes in ({"support": "teacher"}, {"support": "intersection"}, {"estimator": "sampled"}):
        method.check_served(opd.Params(**base | changes))


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 13), st.integers(0, 10_000))
def test_diagnostics_are_the_same_or_weigh_nothing(vocabulary: int, seed: int) -> None:
    k = 1 + seed % vocabulary
    ks = sorted({1, (k + 1) // 2, k})
    own, other = (diagnostics.per_token(scores, ks) for scores in both(*draw(6, vocabulary, seed), k))
    assert list(own) == list(other)
    for name, (value_N, weight_N) in other.items():
        if is_known(name):
            assert torch.equal(own[name][0], value_N) and torch.equal(own[name][1], weight_N), name
        else:
            assert not value_N.any() and not weight_N.any(), name


def test_what_is_unknown_has_no_mean_and_leaves_the_others_alone() -> None:
    tallies = [diagnostics.Tally([1, 3], 2, 6) for _ in range(2)]
    for tally, scores in zip(tallies, both(*draw(6, 9, 3), 3), strict=True):
        tally.add(scores)
    own, other = (tally.means() for tally in tallies)
    unknown = {name for name, mean in other.items() if math.isnan(mean)}
    assert unknown == {
        "teacher_entropy",
        "entropy_gap",
        "entropy_gap_of_means",
        "reverse_kl",
        "delta_p_k1",
        "delta_p_k3",
    }
    assert list(own) == list(other) and all(other[name] == own[name] for name in own if name not in unknown)
    rows = tallies[1].by_depth()
    assert all(math.isnan(row["teacher_entropy"]) and 0 <= row["overlap_k3"] <= 1 for row in rows) and len(rows) == 3


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 40), st.floats(0.01, 10.0), st.integers(0, 10_000))
def test_a_list_bounds_the_entropy_and_longer_lists_bound_it_better(vocabulary: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logp_NV = (scale * torch.randn(4, vocabulary, generator=generator, dtype=torch.float64)).log_softmax(-1)
    exact_N, before_N = logprobs.entropy(logp_NV), torch.full((4,), math.log(vocabulary), dtype=torch.float64)
    for k in range(1, vocabulary + 1):
        bound_N = logprobs.entropy_at_most(logp_NV.topk(k, dim=-1).values, vocabulary)
        assert bool((exact_N <= bound_N + 1e-9).all()) and bool((bound_N <= before_N + 1e-9).all())
        before_N = bound_N
    torch.testing.assert_close(before_N, exact_N)


def test_an_even_rest_is_the_entropy() -> None:
    p_V = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1], dtype=torch.float64)
    exact = float(-(p_V * p_V.log()).sum())
    assert float(logprobs.entropy_at_most(p_V.log()[None, :2], 5)) == pytest.approx(exact, rel=1e-12)


# --- the same through a server


def outcome(student: Model, teacher: Any, params: opd.Params, budget: int) -> tuple[float, Tensor, dict[str, float]]:
    """Loss, gradient and diagnostics of a batch."""
    batch, tally = rollouts(), diagnostics.Tally([1, 4], 4, 12)
    student[0].zero_grad()
    total = 0.0
    objective = score.Objective(method=methods.load("opd"), options=params, k=8, chunk=7)
    for rows in batches.micro_batches(batch, budget):
        scaled, loss, scores = objective(student[0], teacher, batch, rows)
        scaled.backward()
        total += loss.item()
        tally.add(scores)
    gradient_W = torch.cat([p.grad.flatten() for p in student[0].parameters() if p.grad is not None])
    return total, gradient_W, tally.means()


@pytest.mark.parametrize(
    "changes",
    [
        {"estimator": "sampled"},
        {"support": "teacher"},
        {"support": "intersection"},
        {"support": "teacher", "direction": "forward", "weight": "teacher_p", "stop_gradient": False},
        {"support": "teacher", "tail": "bucket", "normalize": "raw", "stop_gradient": False, "k": 1},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_through_a_server_loss_gradient_and_diagnostics_are_the_same(
    changes: dict[str, Any], student: Model, teacher: Model, fake: Fake
) -> None:
    params = opd.Params(**{key: value for key, value in conftest.OPD.items() if key != "name"} | changes)
    own, other = (outcome(student, each, params, 60) for each in (teacher[0], connect(fake)))
    assert other[0] == pytest.approx(own[0], rel=1e-9) and abs(own[0]) > 0.1
    assert float((own[1] - other[1]).norm() / own[1].norm()) < 1e-9
    for name, mean in own[2].items():
        expected = mean if is_known(name) else math.nan
        assert other[2][name] == pytest.approx(expected, rel=1e-9, nan_ok=True), name


def test_requests_are_split_by_their_tokens(
    student: Model, teacher: Model, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, rows, client = rollouts(), torch.arange(7), connect(fake)
    whole = teachers.output(client, batch, rows, 4)
    for budget, expected in ((1, 7), (25, 3), (10_000, 1)):
        monkeypatch.setattr(served, "REQUEST_TOKENS", budget)
        fake.requests.clear()
        parts = teachers.output(client, batch, rows, 4)
        assert isinstance(whole, tuple) and isinstance(parts, tuple) and len(fake.requests) == expected
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert [tuple(part.shape) for part in client.score([], [], 4)] == [(0,), (0, 4), (0, 4)]
    alone = teachers.output(client, batch, rows, 0)
    assert isinstance(alone, tuple) and torch.equal(alone[0], whole[0]) and alone[1].shape == alone[2].shape == (37, 0)
    assert fake.requests[-1]["prompt_logprobs"] == 0


def test_rows_of_the_head_that_stand_for_no_token_are_left_out(student: Model) -> None:
    padded, tokenizer = models.new_model(SHAPE, 1).double().requires_grad_(False), models.chain_tokenizer()
    padded.resize_token_embeddings(V + 3, mean_resizing=False)
    with torch.no_grad():
        padded.get_output_embeddings().weight[V:] = 2.0 * padded.get_output_embeddings().weight[:3]
    with serving(Fake((padded, tokenizer))) as fake:
        batch, rows = rollouts(), torch.arange(7)
        said = teachers.output(connect(fake), batch, rows, 5)
        assert isinstance(said, tuple) and fake.requests[-1]["prompt_logprobs"] == 8
        logp_NV = conftest.logits(padded, batch, rows).detach().log_softmax(-1)
        assert bool((logp_NV.topk(5).indices >= V).any()), "the test needs padding among the most likely"
        torch.testing.assert_close(said[2], logp_NV[:, :V].topk(5).values, rtol=0, atol=1e-9)
        assert torch.equal(said[1], logp_NV[:, :V].topk(5).indices)
        fake.model[0].config.vocab_size = V + 1  # the checkpoint is believed to have less padding than it has
        with pytest.raises(
            ValueError, match=r"only 4 stand for one of the tokenizer's 128; serve a checkpoint whose head"
        ):
            teachers.output(connect(fake), batch, rows, 5)


def test_gates_see_a_served_teacher(student: Model, teacher: Model, fake: Fake) -> None:
    batch, rows, client, method = rollouts(), torch.arange(7), connect(fake), methods.load("opd")
    scores, exact = (score.score(student[0], each, batch, rows, k=16) for each in (client, teacher[0]))
    found, known = gates.teacher_speaks(scores, V), gates.teacher_speaks(exact, V)
    assert known["teacher_entropy"] < found["teacher_entropy_at_most"] < 0.9 * math.log(V)
    assert found["teacher_logp"] == pytest.approx(known["teacher_logp"], abs=1e-6)
    assert scores.candidates is not None and scores.teacher_logp_N is not None
    flat = replace(scores.candidates, teacher_logp_NC=torch.full_like(scores.candidates.teacher_logp_NC, -math.log(V)))
    with pytest.raises(ValueError, match="learned nothing or lost its weights"):
        gates.teacher_speaks(replace(scores, candidates=flat), V)
    base = {key: value for key, value in conftest.OPD.items() if key != "name"}
    for changes in ({"estimator": "sampled"}, {"support": "teacher"}, {"support": "intersection"}):
        sees = gates.gradient_sees_teacher(
            score.Objective(method=method, options=opd.Params(**base | changes), k=8), student[0], client, batch
        )
        assert sees["teacher_dependence"] > 1e-3, changes
    sft = methods.load("sft")
    with pytest.raises(ValueError, match="does not depend on the teacher"):
        gates.gradient_sees_teacher(score.Objective(method=sft, options=sft.Params(), k=8), student[0], client, batch)


# --- what may go wrong


def test_a_server_that_comes_back_is_waited_for(fake: Fake) -> None:
    client = connect(fake)
    fake.broken = 2
    assert client.score([[5, 6, 7]], [2], 3)[0].isfinite().all()
    fake.broken, fake.away = 1, 1
    assert client.score([[5, 6, 7]], [2], 3)[0].isfinite().all()
    fake.away = 3
    with pytest.raises(ValueError, match=r"v1/completions refuses \(503"):
        client.score([[5, 6, 7]], [2], 3)


def test_a_server_that_is_not_there_is_one_error(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Fake(fake.model)) as gone:
        client = connect(gone)
    remedy = r"cannot be reached \(.*refused.*\); start the server .*last checkpoint.*teacher_url: null"
    with pytest.raises(ValueError, match=rf"machine\.teacher_url: {gone.url}/v1/completions {remedy}"):
        client.score([[5, 6, 7]], [2], 3)
    fake.broken = 99
    with pytest.raises(ValueError, match="cannot be reached"):
        connect(fake)
    assert fake.broken == 96
    fake.broken = 0
    monkeypatch.setattr(vllm_server, "PATIENCE", 0.05)
    monkeypatch.setattr(fake, "complete", lambda body: threading.Event().wait(0.5))
    fake.requests.clear()
    with pytest.raises(ValueError, match=r"cannot be reached \(.*timed out"):
        connect(fake).score([[5, 6, 7]], [2], 3)
    assert len(fake.requests) == 1  # asked again, it would have more to do still


def test_another_model_is_refused_with_what_the_server_has(fake: Fake, tmp_path: Path) -> None:
    message = (
        rf"the server at {fake.url} has org/teacher, and the teacher is org/other; .*--served-model-name org/other"
    )
    with pytest.raises(ValueError, match=message):
        served.connect(fake.url, "org/other", V, V)
    fake.spoil = lambda answer: {"data": []}
    with pytest.raises(ValueError, match="has no model, and the teacher is org/teacher"):
        connect(fake)
    folder = tmp_path / "made" / "model"
    folder.mkdir(parents=True)
    for name, place, same in (
        ("org/teacher", "org/teacher@0123abc", True),
        ("org/teacher@0123abc", "org/teacher@0123abc", True),
        ("org/teacher@0123abc", "org/teacher", False),
        (str(tmp_path / "made" / ".." / "made" / "model"), str(folder), True),
        (str(folder.parent), str(folder), False),
        (None, str(folder), False),
    ):
        assert served.is_checkpoint(name, place) is same, (name, place)


def test_urls_may_end_as_clients_write_them(fake: Fake) -> None:
    for ending in ("", "/", "/v1", "/v1/"):
        assert served.connect(fake.url + ending, "org/teacher", V, V).url == fake.url


@pytest.mark.parametrize(
    ("changes", "row", "message"),
    [
        ({"max_logprobs": 2}, [5, 6], r"refuses \(400: Requested prompt logprobs of 3.*--max-logprobs 3 at least"),
        ({"max_model_len": 3}, [5, 6, 7], r"3 tokens, and the server at .* has room for 3 .*larger --max-model-len"),
        ({"name": "org/new"}, [5, 6], r"refuses \(400: The model `org/teacher` does not exist"),
        ({}, [5, V], r"refuses \(400: Token id 128 is out of vocabulary\); .*serve the teacher's checkpoint"),
        ({"spoil": lambda answer: "<html>"}, [5, 6], "does not answer in JSON; is that a vLLM server"),
    ],
)
def test_refusals_name_the_remedy(
    fake: Fake, changes: dict[str, Any], row: list[int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "max_model_len", changes.get("max_model_len", fake.max_model_len))
    client = connect(fake)
    for name, value in changes.items():
        monkeypatch.setattr(fake, name, value)
    with pytest.raises(ValueError, match=f"machine.teacher_url: .*{message}"):
        client.score([row], [1], 3)


def test_a_context_shortened_meanwhile_is_one_error_too(fake: Fake) -> None:
    client, fake.max_model_len = connect(fake), 3
    with pytest.raises(ValueError, match=r"maximum context length is 3 .*larger --max-model-len"):
        client.score([[5, 6, 7]], [1], 3)


def spoiled(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], Any]:
    """Change the answer's entry for the second token of the first row."""

    def spoil(answer: dict[str, Any]) -> dict[str, Any]:
        if "choices" in answer:
            (choice,) = (choice for choice in answer["choices"] if choice["index"] == 0)
            change(choice)
        return answer

    return spoil


def every(key: str, value: object) -> Callable[[dict[str, Any]], Any]:
    return spoiled(lambda choice: [said.update({key: value}) for said in choice["prompt_logprobs"][1].values()])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoiled(lambda choice: choice.pop("prompt_logprobs")), "without prompt_logprobs for every token"),
        (spoiled(lambda choice: choice["prompt_logprobs"].pop()), "without prompt_logprobs for every token"),
        (spoiled(lambda choice: choice["prompt_logprobs"][1].pop("6")), "without prompt_logprobs for every token"),
        (spoiled(lambda choice: choice["prompt_logprobs"].insert(1, None)), "without prompt_logprobs for every token"),
        (lambda answer: [], "does not answer in JSON"),
        (lambda answer: {}, "without prompt_logprobs for every token"),
        (every("logprob", None), "NaN or −inf.*serve it again, in bfloat16 or float32"),
        (every("logprob", math.nan), "NaN or −inf"),
        (every("logprob", -math.inf), "NaN or −inf"),
        (every("logprob", -9999.0), "NaN or −inf"),
        (every("logprob", 3.5), "no log-probabilities: some are positive.*--logprobs-mode raw_logprobs"),
        (every("logprob", -0.2), "no log-probabilities: .*add up to more"),
    ],
)
def test_answers_that_cannot_be_are_refused(fake: Fake, spoil: Callable[..., Any], message: str) -> None:
    client = connect(fake)
    fake.spoil = spoil
    with pytest.raises(ValueError, match=f"machine.teacher_url: .*{message}"):
        client.score([[5, 6, 7]], [2], 3)


def test_the_self_test_compares_words(fake: Fake, teacher: Model) -> None:
    client = connect(fake)
    found = client.self_test(teacher[1], [5, 6, 7], 4)
    assert found["teacher_served_as"] == "org/teacher" and -20 < found["teacher_prompt_logp"] < 0
    for spoil in (every("decoded_token", None), every("decoded_token", "")):
        fake.spoil = spoil  # a server without a tokenizer says no words
        assert client.self_test(teacher[1], [5, 6, 7], 4) == found
    fake.spoil = every("decoded_token", "other")
    with pytest.raises(
        ValueError, match=r"token \d+ is '.*' for the teacher and 'other' for the server .*own tokenizer"
    ):
        client.self_test(teacher[1], [5, 6, 7], 4)


def test_a_teacher_elsewhere_needs_a_tokenizer_that_fits_its_head(tmp_path: Path, teacher: Model) -> None:
    model, tokenizer = models.new_model(SHAPE, 1), models.chain_tokenizer()
    models.save(model, tokenizer, tmp_path / "plain")
    for weights in (tmp_path / "plain").glob("*.safetensors"):
        weights.unlink()
    found, rows = models.load_tokenizer(tmp_path / "plain")
    assert (found.get_vocab(), rows) == (teacher[1].get_vocab(), V)
    tokenizer.add_tokens(["w99"])
    models.save(model, tokenizer, tmp_path / "small")
    with pytest.raises(ValueError, match=r"small: its tokenizer has 129 tokens \(largest id 128\), its head 128 rows"):
        models.load_tokenizer(tmp_path / "small")
    (tmp_path / "plain" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"cannot load a tokenizer from .*plain"):
        models.load_tokenizer(tmp_path / "plain")


def test_only_what_a_tokenizer_needs_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **more: asked.append(more) or "here")
    hub.fetch("org/model@0123", weights=False)
    hub.fetch("org/model@0123")
    without, whole = (set(each["allow_patterns"]) for each in asked)
    assert whole - without == {"*.safetensors"} and "*.json" in without


# --- params and runs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"method\.support: student: a vLLM server cannot score .*machine\.teacher_url: null"),
        ({"method.estimator": "full", "method.k": 0}, r"method\.estimator: full"),
        ({"source.kind": "teacher"}, r"source\.kind: teacher, but a served teacher writes no responses"),
        (
            {"probe": {"kind": "teachers", "batches": 1, "other": "run:00_models/better"}},
            r"probe\.kind: teachers compares whole distributions",
        ),
        (
            {"probe": {"kind": "continuation", "batches": 1, "depths": [2], "new_tokens": 4}},
            r"probe\.kind: continuation lets the teacher write, and .*teacher_url: null",
        ),
        (
            {
                "method.support": "teacher",
                "probe": {"kind": "gradient", "batches": 1, "tokens": 4, "against": {"support": "union"}},
            },
            r"method\.support: union",
        ),
        ({"machine.teacher_url": "localhost:8000"}, r"machine\.teacher_url: 'localhost:8000': String should match"),
    ],
)
def test_what_a_server_cannot_feed_is_refused_with_the_reason(
    world: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        micro.load(world, micro.OPD, overrides={"machine.teacher_url": "http://here:1", **changes})


def test_a_url_is_no_part_of_an_identity_and_is_not_read_without_a_teacher(world: Path) -> None:
    changes = {"machine.teacher_url": "http://here:8000", "method.support": "teacher"}
    there = micro.load(world, micro.OPD, overrides=changes).spec("plain", 0)
    here = micro.load(world, micro.OPD, overrides={"method.support": "teacher"}).spec("plain", 0)
    assert there.identity == here.identity
    assert (
        micro.load(world, overrides={"machine.teacher_url": "http://here:8000"}).spec("teacher", 0).params.teacher
        is None
    )
    reward = {"probe": {"kind": "reward", "batches": 1}}
    assert micro.load(world, micro.OPD, overrides=changes | reward).arms["plain"].probe is not None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with a student and a teacher that knows something."""
    world = conftest.make_world(tmp_path_factory.mktemp("world"))
    micro.teach(world)
    for arm in ("student", "teacher"):
        train.train(micro.load(world).spec(arm, 0))
    return world


def distil(world: Path, results: str, changes: dict[str, Any]) -> RunSpec:
    """An OPD run whose record goes to another results folder while its models stay where they are."""
    made = micro.load(world, micro.OPD).spec("plain", 0)
    spec = micro.load(world, micro.OPD, results, overrides=changes).spec("plain", 0)
    return type(spec)(**{name: getattr(spec, name) for name in spec.__slots__} | {"parents": made.parents})


@contextmanager
def served_checkpoint(world: Path) -> Iterator[Fake]:
    folder = str(micro.load(world).spec("teacher", 0).model_folder)
    with serving(Fake(models.load(folder), name=folder, root=folder)) as fake:
        yield fake


@pytest.mark.parametrize(
    "changes",
    [{"method.estimator": "sampled"}, {"method.support": "teacher", "method.k": 4}],
    ids=["sampled", "teacher"],
)
def test_a_whole_run_is_that_of_a_teacher_in_process(
    trained: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = "-".join(map(str, changes.values()))
    own = train.train(distil(trained, f"own-{label}", changes))
    with served_checkpoint(trained) as fake:
        spec = distil(trained, f"served-{label}", changes | {"machine.teacher_url": fake.url})
        weights = models.load
        monkeypatch.setattr(models, "load", lambda path, **more: weights(path, **more) if path != fake.name else 1 / 0)
        found = train.train(spec)
    assert found.status == "finished" and found.identity == own.identity
    assert {"teacher_served_as", "teacher_prompt_logp", "teacher_entropy_at_most", "teacher_dependence"} <= set(
        found.gates
    )
    assert found.provenance["teacher_weights"] == fake.name
    for table in ("steps", "depth"):
        a, b = own.frame(table), found.frame(table)
        assert list(a) == list(b) and len(a) == len(b)
        known = [name for name in b if is_known(name)]
        assert b.drop(columns=known).isna().all(axis=None) and not a.drop(columns=known).isna().any(axis=None)
        pd.testing.assert_frame_equal(a[known], b[known], rtol=1e-4, atol=1e-5)
    assert "sampled_reverse_kl" in found.frame("steps") and ",," in (found.folder / "steps.csv").read_text()
    example = found.examples()[0]
    assert len(example["teacher_logp"]) == len(example["tokens"]) and "teacher_entropy" not in example


def test_a_served_teacher_takes_no_memory_here(trained: Path) -> None:
    changes: dict[str, Any] = {"method.support": "teacher"}
    here, there = (
        memory.setting(spec.params, memory.shapes(spec), 1e9, recompute=False)
        for spec in (
            distil(trained, "memory", changes),
            distil(trained, "memory", changes | {"machine.teacher_url": "http://x:1"}),
        )
    )
    assert len(here.frozen) == 1 and there == replace(here, frozen=(), scorers=1)


@pytest.mark.process
def test_every_process_asks_for_its_own_rows(trained: Path) -> None:
    changes: dict[str, Any] = {"method.support": "teacher", "train.micro_tokens": 60}
    one = train.train(distil(trained, "one", changes)).frame("steps")
    results = trained / "two"
    (results / "tiny").mkdir(parents=True)
    (results / "tiny" / micro.MODELS).symlink_to(trained / "results" / "tiny" / micro.MODELS)
    with served_checkpoint(trained) as fake:
        changes |= {"machine.teacher_url": fake.url, "machine.processes": 2, "machine.shard": True}
        words = ["opd_lib.command.cli", "run", micro.OPD, "plain", "0"]
        words += ["--results", str(results), "--params", str(trained / "params")]
        done = subprocess.run(
            [sys.executable, "-m", *words, "--overrides", json.dumps(changes)],
            capture_output=True, text=True, check=False, timeout=300, cwd=paths.ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
    two = pd.read_csv(results / "tiny" / micro.OPD / "plain" / "seed0" / "steps.csv")
    assert list(one) == list(two) and (one["n_tokens"] == two["n_tokens"]).all()
    known = ["loss", "grad_norm", "overlap_k16", "sampled_reverse_kl", "advantage_paper_k16"]
    pd.testing.assert_frame_equal(one[known].head(1), two[known].head(1), rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(one[known], two[known], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("probe", ["reward", "gradient"])
def test_probes_that_read_log_probabilities_work_with_a_server(trained: Path, probe: str) -> None:
    keys: dict[str, Any] = {"kind": probe, "batches": 1}
    if probe == "gradient":
        keys |= {"tokens": 20, "against": {"estimator": "sampled"}}
    changes: dict[str, Any] = {"probe": keys, "method.support": "teacher"}
    own = train.train(distil(trained, f"own-{probe}", changes)).frame("probe")
    with served_checkpoint(trained) as fake:
        spec = distil(trained, f"served-{probe}", changes | {"machine.teacher_url": fake.url})
        pd.testing.assert_frame_equal(train.train(spec).frame("probe"), own, rtol=1e-4, atol=1e-5)


def test_a_server_that_is_too_short_or_lost_stops_the_run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"method.support": "teacher"}
    monkeypatch.setattr(vllm_server, "WAITS", ())
    with served_checkpoint(trained) as fake:
        changes["machine.teacher_url"] = fake.url
        fake.max_model_len = 20
        with pytest.raises(ValueError, match=r"27 tokens, and the server .* has room for 20"):
            train.train(distil(trained, "short", changes))
        fake.max_model_len, fake.max_logprobs = 128, 15
        with pytest.raises(ValueError, match=r"--max-logprobs 16 at least"):
            train.train(distil(trained, "few", changes))
        fake.max_logprobs, complete = 20, fake.complete

        def lose(body: dict[str, Any]) -> dict[str, Any]:
            fake.broken = int(len(fake.requests) == 8)
            return complete(body)

        fake.requests.clear()
        monkeypatch.setattr(fake, "complete", lose)
        with pytest.raises(ValueError, match="cannot be reached"):
            train.train(distil(trained, "lost", changes))
        spec = distil(trained, "lost", changes)
        assert 2 <= len(pd.read_csv(spec.folder / "steps.csv")) < 6
        assert train.train(spec).status == "finished"
    assert len(pd.read_csv(spec.folder / "steps.csv")) == 6
