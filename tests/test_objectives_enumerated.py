"""Every combination of the keys of `opd`: what is accepted follows the teacher, what is refused has a way out.

Exact enumeration in float64 at a few tokens; float32 beside it where probabilities are extreme.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

import micro
import oracles
import pytest
import torch
from test_methods_exact import PUBLISHED, close, options, outcome
from torch import Tensor

from opd_lib.maths import logprobs
from opd_lib.methods import _opd_refusals as refusals
from opd_lib.methods import opd

FLOAT = torch.float64
SIZES = ((5, (1, 2, 4, 5)), (7, (1, 3, 6)))  # a vocabulary and the lengths of the lists in it


def combinations(vocabulary: int, lengths: tuple[int, ...]) -> Iterator[opd.Params]:
    """The full product of what can be chosen, `sampled` included; `full` once."""
    choices = {name: get_args(opd.Params.model_fields[name].annotation) for name in PUBLISHED}
    choices |= {"k": lengths, "stop_gradient": (True, False), "beta": (0.3,)}
    for values in product(*choices.values()):
        params = opd.Params(**dict(zip(choices, values, strict=True)))
        if params.estimator == "topk" or params.k == lengths[0]:
            yield params


def is_refused(params: opd.Params, vocabulary: int) -> str:
    """Why, or nothing."""
    try:
        opd.check(params, vocabulary, True)
    except ValueError as error:
        return str(error)
    return ""


ACCEPTED = [(v, p) for v, lengths in SIZES for p in combinations(v, lengths) if not is_refused(p, v)]


def expected_gradient(params: opd.Params, student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """At the student's logits; that of a sampled token is expected over all tokens."""
    n, vocabulary = student_NV.shape
    if params.estimator != "sampled":
        return outcome(params, student_NV, teacher_NV, torch.zeros(n, dtype=torch.long))[1]
    p_NV = student_NV.softmax(-1)
    tokens = (torch.full((n,), y) for y in range(vocabulary))
    found = [p_NV[:, y, None] * outcome(params, student_NV, teacher_NV, t)[1] for y, t in enumerate(tokens)]
    return torch.stack(found).sum(0)


def support(params: opd.Params, student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """Which tokens form S (N, V)."""
    k = params.k if params.estimator == "topk" else student_NV.shape[-1]
    empty_NV = torch.zeros_like(student_NV, dtype=torch.bool)
    lists = [empty_NV.scatter(1, logits_NV.topk(k).indices, True) for logits_NV in (student_NV, teacher_NV)]
    return opd.SUPPORTS[params.support](*lists)


# --- what is accepted -----------------------------------------------------------------------------------------------


def test_some_teacher_changes_the_direction_of_the_gradient_whatever_the_student() -> None:
    generator, n = torch.Generator().manual_seed(4), 40
    for vocabulary, params in ACCEPTED[::2]:
        for confident in (0.5, 3.0, 6.0):  # logits by which the student prefers one of its tokens
            student_V = torch.linspace(0.5, -0.5, vocabulary, dtype=FLOAT)
            student_V[0] += confident
            teacher_NV = 2.0 * torch.randn(n, vocabulary, generator=generator, dtype=FLOAT)
            teacher_NV[: n // 2, 0] += confident + 4.0  # some prefer it even more, some only as the student
            teacher_NV[: n // 4] = torch.linspace(0.1, 2.5, n // 4, dtype=FLOAT)[:, None] * student_V
            found_NV = expected_gradient(params, student_V.expand(n, -1).clone(), teacher_NV)
            moved_MV = found_NV[found_NV.norm(dim=1) > 1e-9]
            directions_MV = moved_MV / moved_MV.norm(dim=1, keepdim=True)
            assert len(moved_MV) > 1 and float((directions_MV @ directions_MV.T).min()) < 0.999, (confident, params)


def test_no_objective_drives_the_student_out_of_a_support_that_the_teacher_wants() -> None:
    """The teacher has 90 % of its probability on S, the student little: descending must not take that away too."""
    vocabulary, tried = 60, 0
    for params in combinations(vocabulary, (1, 2)):
        if params.estimator != "topk" or is_refused(params, vocabulary):
            continue
        student_V, teacher_V = torch.zeros(2, vocabulary, dtype=FLOAT)
        student_V[0], student_V[1] = 0.02, 0.01  # its list, just
        theirs = [2, 3] if params.support == "symmetric_difference" else [0, 1]
        teacher_V[: params.k] = 7.0 if params.support == "symmetric_difference" else 0.0
        teacher_V[theirs[: params.k]] = 8.0
        student_NV, teacher_NV = student_V[None], teacher_V[None]
        mask_NV = support(params, student_NV, teacher_NV)
        assert float(teacher_NV.softmax(-1)[mask_NV].sum()) > 0.9 and float(student_NV.softmax(-1)[mask_NV].sum()) < 0.1
        outward = float(expected_gradient(params, student_NV, teacher_NV)[mask_NV].sum())
        assert outward < 1e-12, params
        tried += 1
    assert tried > 100


@pytest.mark.parametrize("support_name", get_args(opd.Params.model_fields["support"].annotation))
def test_descending_raises_the_token_that_the_teacher_prefers(support_name: str) -> None:
    """Tokens 0 and 1 are in S and equally likely to the student; the teacher finds 0 too likely and 1 too unlikely."""
    if support_name == "symmetric_difference":  # lists of 2: 2 and 0, 1 and 3
        p, q = [0.30, 0.30 - 1e-9, 0.35, 0.03, 0.02], [0.05, 0.60, 0.04, 0.30, 0.01]
    else:
        p, q = [0.45, 0.45, 0.05, 0.03, 0.02], [0.25, 0.65, 0.05, 0.03, 0.02]
    student_NV, teacher_NV = torch.tensor([p], dtype=FLOAT).log(), torch.tensor([q], dtype=FLOAT).log()
    for params in combinations(5, (2, 5)):
        if params.support == support_name and not is_refused(params, 5):
            gradient_V = expected_gradient(params, student_NV, teacher_NV)[0]
            assert float(gradient_V[0] - gradient_V[1]) > 1e-3, params


def leaks(params: opd.Params, vocabulary: int) -> bool:
    """Whether the docstring says that it is not stationary at p = q."""
    short = params.estimator == "topk" and params.k < vocabulary and params.tail == "drop"
    forward = params.direction == "forward" and params.normalize != "both"
    truncated = params.direction == "reverse" and params.normalize == "raw" and not params.stop_gradient
    return short and (forward or truncated)


def test_where_both_models_are_one_all_are_stationary_but_the_two_kinds_that_the_docstring_names() -> None:
    student_V = torch.linspace(1.0, -1.0, 5, dtype=FLOAT)
    ends = {"forward": lambda q_V, mass: q_V / mass, "reverse": lambda q_V, mass: q_V / torch.e}
    seen = set()
    for vocabulary, params in ACCEPTED:
        if vocabulary != 5 or params.support == "symmetric_difference":  # which is empty there
            continue
        norm = float(expected_gradient(params, student_V[None], student_V[None]).norm())
        assert norm > 1e-2 if leaks(params, 5) else norm < 1e-12, params
        if leaks(params, 5) and params.k == 2:  # where it is stationary instead: on S at q / mass, or at q / e
            q_V = student_V.softmax(-1)
            p_V = torch.full_like(q_V, 1e-9)
            p_V[:2] = ends[params.direction](q_V, q_V[:2].sum())[:2]
            if params.direction == "reverse":
                p_V[2:] = (1.0 - p_V[:2].sum()) / 3
            there_NV = p_V.log()[None]
            if params.support == "teacher":  # the student's own list is another one there
                assert float(expected_gradient(params, there_NV, student_V[None]).norm()) < 1e-8, params
                seen.add(params.direction)
    assert seen == {"forward", "reverse"}
    for word in ("forward KL under raw or weights", "reverse KL under raw without stop_gradient", "p = q/e"):
        assert opd.__doc__ is not None and word in " ".join(opd.__doc__.split())


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"k": k, "support": s} for k, s in product((2, 4), ("student", "teacher", "intersection", "union"))
    ] + [{"k": 1, "support": "union"}],
    ids=lambda changes: "-".join(map(str, changes.values())),
)  # fmt: skip
def test_differentiated_weights_push_all_mass_out_whatever_the_teacher_says(changes: dict[str, Any]) -> None:
    params = options(normalize="weights", stop_gradient=False, **changes)
    assert "pushes all mass out of S" in is_refused(params, 5)
    student_NV = torch.tensor([[2.0, 1.5, 0.1, 0.0, -0.5]], dtype=FLOAT)
    for teacher_V in torch.eye(5, dtype=FLOAT) * 9.0:
        mask_NV = support(params, student_NV, teacher_V[None])
        if mask_NV.any() and not mask_NV.all():
            assert float(expected_gradient(params, student_NV, teacher_V[None])[mask_NV].sum()) > 1e-2


@pytest.mark.parametrize("kept", ["student", "intersection"])
@pytest.mark.parametrize("normalize", ["raw", "weights"])
def test_a_forward_kl_of_the_students_own_token_has_one_direction(kept: str, normalize: str) -> None:
    forward = {"direction": "forward", "weight": "teacher_p", "stop_gradient": False}
    params = options(k=1, support=kept, normalize=normalize, **forward)
    assert "no teacher changes the gradient's direction" in is_refused(params, 5)
    student_NV = torch.tensor([[2.0, 1.5, 0.1, 0.0, -0.5]], dtype=FLOAT).expand(20, -1).clone()
    teacher_NV = 3.0 * torch.randn(20, 5, generator=torch.Generator().manual_seed(1), dtype=FLOAT)
    found_NV = expected_gradient(params, student_NV, teacher_NV)
    moved_MV = found_NV[found_NV.norm(dim=1) > 0]
    close(moved_MV / moved_MV.norm(dim=1, keepdim=True), (moved_MV[:1] / moved_MV[:1].norm()).expand_as(moved_MV))


def alternatives(message: str, vocabulary: int) -> list[dict[str, Any]]:
    """What a refusal's remedy tells to change: each alternative by itself."""
    (remedy,) = re.findall(r"; (?:use|write) ([^;]*)$", message)
    found = []
    for alternative in re.split(r",? or ", remedy):
        changes: dict[str, Any] = {}
        for key, word in re.findall(r"(\w+): (\w+)", alternative):
            changes[key] = {"true": True, "false": False}.get(word, word)
        if re.search(r"\bk > 1|1 < k <", alternative):
            changes["k"] = 2
        assert changes, (alternative, message)
        found.append(changes)
    return found


def test_every_remedy_leads_to_an_objective_that_is_accepted() -> None:
    """At once where one thing is wrong, and one by one where several are."""
    vocabulary, at_once = 5, 0
    for params in combinations(vocabulary, (0, 1, 2, 5, 9)):
        wrong = [key for key, when, _ in refusals.REFUSALS if refusals.applies(when, refusals.known(params, 5, True))]
        waiting, steps = [params], 0
        while waiting:
            waiting = [
                tried.model_copy(update=changes)
                for tried in waiting
                if (message := is_refused(tried, vocabulary))
                for changes in alternatives(message, vocabulary)
            ]
            steps += 1
            assert steps <= 5, params
            if len(wrong) == 1 and steps == 1 and params.k in (1, 2):  # another k may hide the rest
                assert not any(is_refused(tried, vocabulary) for tried in waiting), params
                at_once += 1
    assert at_once > 50


CORPUS = {"kind": "corpus", "prompts_per_step": 4, "templates": ["T1"], "pattern_b": 0.5, "filler_before_step": 0.0,
          "filler_anywhere": 0.0, "slip_operands": [], "slip_probability": 0.0}  # fmt: skip


@pytest.mark.parametrize("source", [{"source.kind": "teacher"}, {"source": CORPUS}], ids=["teacher", "corpus"])
def test_sampled_is_refused_for_tokens_that_others_wrote(world: Path, source: dict[str, Any]) -> None:
    """Of them the expected log-ratio is no KL; whoever reads whole lists may learn on any prefix."""
    where = r"arm plain of 01_opd: method\.estimator: sampled, but source\.kind is (teacher|corpus): only of the "
    with pytest.raises(
        ValueError, match=rf"overrides, {where}.*; use estimator: topk or full, or source\.kind: student"
    ):
        micro.load(world, micro.OPD, overrides=source | {"method.estimator": "sampled"})
    for estimator in ("topk", "full"):
        opd.check_others(options(estimator=estimator), "teacher")


@pytest.mark.parametrize("changes", [{"source.temperature": 0.9}, {"source.top_p": 0.95}], ids=str)
def test_the_students_own_tokens_are_drawn_as_likely_as_they_are(world: Path, changes: dict[str, Any]) -> None:
    for estimator in ("sampled", "topk"):
        with pytest.raises(
            ValueError, match=r"source: temperature .*, top_p .*; use temperature: 1\.0 and top_p: 1\.0"
        ):
            micro.load(world, micro.OPD, overrides=changes | {"method.estimator": estimator})


@pytest.mark.parametrize(
    "against",
    [{"k": 1, "direction": "forward", "weight": "teacher_p", "stop_gradient": False}, {"stop_gradient": False}],
)
def test_what_a_probe_compares_with_is_refused_as_well(world: Path, against: dict[str, Any]) -> None:
    probe = {"kind": "gradient", "batches": 1, "tokens": 8, "against": against}
    with pytest.raises(
        ValueError,
        match=r"arm plain of 01_opd: method\.(k: 1|normalize: weights): .*(under every teacher|no teacher changes)",
    ):
        micro.load(world, micro.OPD, overrides={"probe": probe})


def test_an_expectation_over_others_tokens_has_another_gradient() -> None:
    """The reason: under the student the sampled gradient is that of the reverse KL, under the teacher it is not."""
    student_NV, teacher_NV = 1.5 * torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(3), dtype=FLOAT)
    sampled = options(estimator="sampled")
    exact_NV = expected_gradient(options(estimator="full", normalize="raw"), student_NV, teacher_NV)
    close(expected_gradient(sampled, student_NV, teacher_NV), exact_NV)
    q_V = teacher_NV.softmax(-1)[0]
    each = [outcome(sampled, student_NV, teacher_NV, torch.tensor([y]))[1] for y in range(5)]
    others_NV = sum(q * gradient_NV for q, gradient_NV in zip(q_V, each, strict=True))
    assert float((others_NV - exact_NV).norm()) > 0.1


# --- float32 --------------------------------------------------------------------------------------------------------


def extreme(tail: float, n_outside: int = 4) -> Tensor:
    """Logits far from 0 of three likely tokens and some that have `tail` of the probability together."""
    inside_V = (1.0 - tail) * torch.tensor([0.5, 0.3, 0.2], dtype=FLOAT)
    p_V = torch.cat([inside_V, torch.full((n_outside,), tail / n_outside, dtype=FLOAT)])
    return p_V.log()[None]


BUCKETS = (
    {"direction": "forward", "weight": "teacher_p", "stop_gradient": False},
    {"stop_gradient": False},
    {"stop_gradient": True},
    {"direction": "jsd", "stop_gradient": False},
)


@pytest.mark.parametrize("how", BUCKETS, ids=lambda how: "-".join(map(str, how.values())))
@pytest.mark.parametrize("own_tail", [1e-3, 1e-8, 1e-12, 1e-30])
def test_the_tail_bucket_is_exact_in_float32_however_small_it_is(how: dict[str, Any], own_tail: float) -> None:
    params = options(k=3, tail="bucket", normalize="raw", **how)
    for other_tail in (0.065, 1e-9):
        student_NV, teacher_NV = extreme(own_tail) + 20.0, extreme(other_tail)
        exact = oracles.of_opd(student_NV, teacher_NV, torch.zeros(1), params)
        value, gradient_NV = outcome(params, student_NV.float(), teacher_NV.float(), torch.zeros(1, dtype=torch.long))
        torch.testing.assert_close(value.double(), torch.tensor(exact[0], dtype=FLOAT), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient_NV.double(), exact[1], rtol=1e-4, atol=1e-6)
    if how["stop_gradient"] is False and how.get("direction") == "forward":
        raised = float(
            outcome(params, student_NV.float(), extreme(0.065).float(), torch.zeros(1).long())[1][0, 3:].sum()
        )
        assert raised == pytest.approx(-0.065 + own_tail, abs=1e-6)  # which was 0 where the tail is below 1.2e-7


def test_a_tail_without_a_token_weighs_nothing() -> None:
    """Two lists of three may hold all five tokens together."""
    student_NV = torch.tensor([[4.0, 3.0, 2.0, -1.0, -2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    teacher_NV = torch.tensor([[-2.0, -1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    for how in BUCKETS:
        bucket = options(k=3, tail="bucket", normalize="raw", support="union", **how)
        full = bucket.model_copy(update={"estimator": "full", "tail": "drop"})
        found, exact = (outcome(p, student_NV[:1], teacher_NV[:1], torch.zeros(1).long()) for p in (bucket, full))
        for one, other in zip(found, exact, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert outcome(bucket, student_NV, teacher_NV, torch.zeros(2).long())[1].isfinite().all()


@pytest.mark.parametrize("beta", [1e-7, 1e-3, 0.5, 1.0 - 1e-3, 1.0 - 1e-6])
@pytest.mark.parametrize("estimator", ["topk", "full"])
def test_jensen_shannon_is_exact_in_float32_also_where_the_mixture_is_nearly_one_of_the_two(
    beta: float, estimator: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    student_NV, teacher_NV = 3.0 * torch.randn(2, 6, 9, generator=generator, dtype=FLOAT)
    params = options(estimator=estimator, k=4, direction="jsd", normalize="raw", stop_gradient=False, beta=beta)
    value, gradient_NV = outcome(params, student_NV.float(), teacher_NV.float(), torch.zeros(6).long())
    expected, expected_NV = oracles.of_opd(student_NV, teacher_NV, torch.zeros(6).long(), params)
    assert float(value) == pytest.approx(expected, rel=2e-4)
    assert float((gradient_NV - expected_NV).norm() / expected_NV.norm()) < 1e-4


# --- tokens that are impossible -------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["reverse", "forward", "jsd"])
@pytest.mark.parametrize("normalize", ["raw", "both"])
@pytest.mark.parametrize("estimator", ["full", "topk"])
def test_an_impossible_token_adds_what_an_ever_less_likely_one_tends_to(
    direction: str, normalize: str, estimator: str
) -> None:
    """Logits of −inf: in both models, and in the one whose probability the other does not divide by."""
    weight = "teacher_p" if direction == "forward" else "student_p"
    how = {"direction": direction, "normalize": normalize, "weight": weight, "stop_gradient": False}
    params = options(estimator=estimator, k=5 if estimator == "topk" else 3, **how)
    student_NV = torch.tensor([[1.0, 0.3, -0.5, 0.2, 0.1]], dtype=FLOAT).repeat(2, 1)
    teacher_NV = torch.tensor([[-0.2, 0.8, 0.1, 0.4, 0.0]], dtype=FLOAT).repeat(2, 1)
    found = []
    for impossible in (-torch.inf, -60.0):
        own_NV, other_NV = student_NV.clone(), teacher_NV.clone()
        own_NV[0, 3] = other_NV[0, 3] = impossible
        (other_NV if direction == "forward" else own_NV)[1, 2] = impossible
        found.append(outcome(params, own_NV, other_NV, torch.zeros(2).long()))
    for exact, limit in zip(*found, strict=True):
        torch.testing.assert_close(exact, limit, rtol=1e-9, atol=1e-12)


def test_what_is_infinite_stays_infinite_and_what_is_nan_stays_nan() -> None:
    """So that the loop stops: a teacher that rules out what the student writes, a model that has lost its weights."""
    params = options(estimator="full", normalize="raw", stop_gradient=False)
    student_NV, teacher_NV = torch.zeros(2, 1, 5, dtype=FLOAT)
    teacher_NV[0, 2] = -torch.inf
    assert float(outcome(params, student_NV, teacher_NV, torch.zeros(1).long())[0]) == torch.inf
    student_NV[0, 1] = torch.nan
    assert outcome(params, student_NV, teacher_NV, torch.zeros(1).long())[0].isnan()


def test_diagnostics_of_impossible_tokens_are_finite() -> None:
    logits_NV = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]], dtype=FLOAT)
    scores = logprobs.score(logits_NV, logits_NV.clone(), *torch.zeros(3, 1).long(), k=2)
    assert float(scores.reverse_kl_N) == 0.0 and scores.student_entropy_N.isfinite().all()
