"""The streaming head: value and gradient of every objective against the oracles, and what never comes into being."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any

import oracles
import pytest
import torch
from test_methods_exact import ACCEPTED, options
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from opd_lib.forecast import footprint
from opd_lib.maths import logprobs, streaming
from opd_lib.maths.head import Head
from opd_lib.maths.streaming import Stream
from opd_lib.methods import grpo, opd, sft
from opd_lib.types import Reads, TokenScores

N, H, V = 5, 6, 9
EQ5 = options(normalize="both", k=2)
PUBLISHED, FULL = options(k=2), options(estimator="full", normalize="raw", stop_gradient=False)
JSD = {"direction": "jsd", "stop_gradient": False}
HUNGRY = [
    PUBLISHED,
    FULL,
    options(estimator="full", normalize="both", **JSD),
    options(estimator="full", normalize="weights"),
    options(k=2, tail="bucket", normalize="raw", **JSD),
]


@pytest.fixture
def always_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "SPARSE", 0)


class Created(TorchDispatchMode):
    """Watches every tensor that is made: the most numbers in one, the most bytes alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.alive, self.peak = 0, 0, 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.largest = max(self.largest, storage.nbytes() // tensor.element_size())
                if storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self.alive += storage.nbytes()
                    self.peak = max(self.peak, self.alive)
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


def leaves(n: int = N, h: int = H, v: int = V, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Student states and head, teacher states and head (of another width), tokens."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
    student_NH, student_VH, teacher_NH, teacher_VH = draw(n, h), 0.7 * draw(v, h), draw(n, h + 2), 0.5 * draw(v, h + 2)
    token_N = torch.randint(v, (n,), generator=generator)
    return student_NH.requires_grad_(), student_VH.requires_grad_(), teacher_NH, teacher_VH, token_N


def stream(
    tensors: tuple[Tensor, ...], params: opd.Params | None, chunk: int | None, k: int = 0, measured: bool = True
) -> Stream:
    student_NH, student_VH, teacher_NH, teacher_VH, token_N = tensors
    reads = Reads() if params is None else opd.reads(params)
    return Stream(
        student=Head(student_NH, student_VH),
        teacher=Head(teacher_NH, teacher_VH),
        token_N=token_N,
        row_N=torch.zeros_like(token_N),
        position_N=torch.arange(len(token_N)),
        advantage_N=None,
        k=max(k, reads.k),
        reads=reads,
        measured=measured,
        chunk=chunk,
    )


def everything(record: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a record and of the records in it."""
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            yield from everything(value)
        elif value is not None:
            yield field.name, value


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def require_oracle(params: opd.Params, chunk: int | None, k: int, measured: bool) -> None:
    """Value, gradient of the hidden states and gradient of the head, by the oracle's gradient at the logits."""
    tensors = student_NH, student_VH, teacher_NH, teacher_VH, token_N = leaves()
    logits_NV, teacher_NV = student_NH @ student_VH.T, teacher_NH @ teacher_VH.T
    value, delta_NV = oracles.of_opd(logits_NV, teacher_NV, token_N, params)
    loss_of = lambda scores: opd.value(scores, params)
    scaled, loss, _ = stream(tensors, params, chunk, k, measured).loss(loss_of, scale=0.25)
    close(loss, torch.tensor(value, dtype=torch.float64))
    close(scaled.detach(), 0.25 * loss)
    hidden_gradient_NH, head_gradient_VH = torch.autograd.grad(3.0 * scaled, [student_NH, student_VH])
    close(hidden_gradient_NH, 0.75 * delta_NV @ student_VH.detach())
    close(head_gradient_VH, 0.75 * delta_NV.T @ student_NH.detach())


@pytest.mark.parametrize("chunk", [2, None])
@pytest.mark.parametrize("params", ACCEPTED, ids=lambda p: "-".join(map(str, p.model_dump().values())))
def test_value_and_gradients_are_the_oracles(params: opd.Params, chunk: int | None) -> None:
    require_oracle(params, chunk, k=4, measured=True)
    require_oracle(params, chunk, k=0, measured=False)


WITHOUT_PARTITION = [params for params in ACCEPTED if params.estimator == "topk" and params.normalize == "both"]


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("params", WITHOUT_PARTITION, ids=lambda p: "-".join(map(str, p.model_dump().values())))
def test_a_loss_without_partition_function_needs_the_heads_rows_of_its_support_alone(
    params: opd.Params, measured: bool
) -> None:
    assert stream(leaves(), params, chunk=2, measured=measured).is_sparse
    require_oracle(params, chunk=2, k=4 if measured else 0, measured=measured)


@pytest.mark.usefixtures("always_sparse")
def test_objectives_that_read_the_partition_function_are_never_sparse() -> None:
    """Their gradient pushes at every token of the vocabulary."""
    _, student_VH, *_ = tensors = leaves()
    for params in (PUBLISHED, FULL, options(estimator="sampled")):
        streamed = stream(tensors, params, chunk=2)
        assert not streamed.is_sparse
        scaled, *_ = streamed.loss(lambda scores, params=params: opd.value(scores, params), 1.0)
        assert (torch.autograd.grad(scaled, student_VH)[0] != 0).all()


@pytest.mark.parametrize("chunk", [1, 3, 7])
@pytest.mark.parametrize("k", [0, 4, V])
def test_chunks_change_no_score(chunk: int, k: int) -> None:
    whole, parts = (stream(leaves(), None, size, k).scores() for size in (None, chunk))
    student_NH, student_VH, teacher_NH, teacher_VH, token_N = leaves()
    places = (token_N, torch.zeros_like(token_N), torch.arange(N))
    plain = logprobs.score(student_NH @ student_VH.T, teacher_NH @ teacher_VH.T, *places, k)
    for (name, one), (_, other), (_, expected) in zip(*map(everything, (whole, parts, plain)), strict=True):
        assert not one.requires_grad, name
        torch.testing.assert_close(one, expected, rtol=1e-12, atol=1e-12, msg=name)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, msg=name)


def test_scores_that_come_with_a_loss_are_those_without() -> None:
    for measured in (True, False):
        alone = stream(leaves(), PUBLISHED, 2, k=4, measured=measured).scores()
        _, _, beside = stream(leaves(), PUBLISHED, 2, k=4, measured=measured).loss(
            lambda scores: opd.value(scores, PUBLISHED), 1.0
        )
        for (name, one), (_, other) in zip(everything(alone), everything(beside), strict=True):
            assert torch.equal(one, other) and not other.requires_grad, name
        assert (alone.student_entropy_N is None) is (alone.reverse_kl_N is None) is not measured


@pytest.mark.usefixtures("always_sparse")
def test_where_little_is_read_the_teacher_makes_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = stream(leaves(), EQ5, chunk=2, measured=False)
    monkeypatch.setattr(streamed.teacher, "logits", None)
    _, _, scores = streamed.loss(lambda scores: opd.value(scores, EQ5), 1.0)
    student_NH, student_VH, *_, token_N = leaves()
    logp_NV = (student_NH @ student_VH.T).log_softmax(-1)
    close(scores.student_logp_N, logp_NV.detach().gather(1, token_N[:, None])[:, 0])  # the sampler is checked by these
    with_diagnostics = stream(leaves(), EQ5, chunk=2, measured=True)
    monkeypatch.setattr(with_diagnostics.teacher, "logits", None)
    with pytest.raises(TypeError):
        with_diagnostics.loss(lambda scores: opd.value(scores, EQ5), 1.0)


@pytest.mark.parametrize("params", [PUBLISHED, EQ5, FULL, options(estimator="sampled")], ids=str)
@pytest.mark.parametrize("measured", [True, False])
def test_no_tensor_holds_the_vocabulary_for_more_tokens_than_a_chunk(params: opd.Params, measured: bool) -> None:
    n, h, v, chunk = 64, 4, 400, 3
    tensors = leaves(n, h, v, torch.float32)
    with Created() as created:
        scaled, *_ = stream(tensors, params, chunk, measured=measured).loss(lambda s: opd.value(s, params), 1.0)
        scaled.backward()
    assert created.largest <= max(chunk * v, (h + 2) * v) < n * v / 8


@pytest.mark.parametrize("params", HUNGRY, ids=lambda p: f"{p.estimator}-{p.tail}-{p.normalize}-{p.direction}")
@pytest.mark.parametrize("measured", [True, False])
def test_logits_take_the_stated_memory_however_many_tokens_there_are(params: opd.Params, measured: bool) -> None:
    h, v, chunk = 4, 5000, 6
    peaks = []
    for n in (24, 96):
        tensors = leaves(n, h, v, torch.float32)
        with Created() as created:
            stream(tensors, params, chunk, measured=measured).loss(lambda s: opd.value(s, params), 1.0)
        peaks.append(created.peak)
        head_gradient = 2 * 4 * h * v  # the sum, and a product on its way into it
        assert created.peak - head_gradient <= footprint.logits(v, chunk, models=2, k=2 * params.k) + 2000 * n
    assert peaks[1] <= 1.05 * peaks[0]


def test_a_chunk_fills_its_memory() -> None:
    for size in (1e6, 5e8):
        n = footprint.chunk(size, vocabulary=32_768)
        assert footprint.logits(32_768, n, models=2, k=0) <= max(size, footprint.logits(32_768, 1, 2, 0))
        assert footprint.logits(32_768, n + 1, models=2, k=0) > size


def test_bfloat16_passes_sum_the_heads_gradient_in_float32() -> None:
    """Many chunks' small contributions must not be lost beside a large sum."""
    student_NH, student_VH, teacher_NH, teacher_VH, token_N = leaves(n=512)
    exact = torch.autograd.grad(
        stream((student_NH, student_VH, teacher_NH, teacher_VH, token_N), None, None).loss(_likelihood, 1.0)[0],
        student_VH,
    )[0]
    low = [t.detach().bfloat16().requires_grad_() for t in (student_NH, student_VH)]
    others = [t.bfloat16() for t in (teacher_NH, teacher_VH)]
    with torch.autocast("cpu", torch.bfloat16):
        master_VH = student_VH.detach().float().requires_grad_()
        scaled, *_ = stream((low[0], master_VH, *others, token_N), None, chunk=1).loss(_likelihood, 1.0)
    (found,) = torch.autograd.grad(scaled, master_VH)
    assert found.dtype == torch.float32
    assert float((found - exact).norm() / exact.norm()) < 0.01


def _likelihood(scores: TokenScores) -> Tensor:
    return sft.value(scores, sft.Params())


def test_advantages_belong_to_their_tokens_in_every_chunk() -> None:
    tensors = student_NH, student_VH, *_, token_N = leaves()
    advantage_N = torch.arange(N, dtype=torch.float64) - 2.0
    from dataclasses import replace

    streamed = replace(stream(tensors, None, chunk=2), advantage_N=advantage_N, teacher=None, k=0)
    scaled, *_ = streamed.loss(lambda scores: grpo.value(scores, None), 1.0)  # type: ignore[arg-type]
    logp_N = (student_NH @ student_VH.T).log_softmax(-1).gather(1, token_N[:, None])[:, 0]
    wanted = torch.autograd.grad(-(advantage_N * logp_N).sum(), [student_NH, student_VH])
    for found, expected in zip(torch.autograd.grad(scaled, [student_NH, student_VH]), wanted, strict=True):
        close(found, expected)


def test_the_gradient_at_the_logits_can_be_watched() -> None:
    tensors = student_NH, student_VH, teacher_NH, teacher_VH, token_N = leaves()
    seen: list[tuple[slice, Tensor]] = []
    stream(tensors, EQ5, chunk=2).loss(lambda s: opd.value(s, EQ5), 2.0, watch=lambda *what: seen.append(what))
    _, delta_NV = oracles.of_opd(student_NH @ student_VH.T, teacher_NH @ teacher_VH.T, token_N, EQ5)
    assert list(chain(*(range(N)[part] for part, _ in seen))) == list(range(N))
    close(torch.cat([delta for _, delta in seen]), 2.0 * delta_NV)


def test_a_second_differentiation_is_refused() -> None:
    scaled, *_ = stream(leaves(), PUBLISHED, chunk=2).loss(lambda s: opd.value(s, PUBLISHED), 1.0)
    scaled.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once; score the tokens again"):
        scaled.backward()


def test_no_tokens_are_no_error() -> None:
    student_NH, student_VH, teacher_NH, teacher_VH, token_N = leaves(n=0)
    scaled, loss, scores = stream((student_NH, student_VH, teacher_NH, teacher_VH, token_N), PUBLISHED, 2).loss(
        lambda s: opd.value(s, PUBLISHED), 1.0
    )
    scaled.backward()
    assert float(loss) == 0.0 and len(scores.token_N) == 0
    assert student_VH.grad is not None and not student_VH.grad.any()
