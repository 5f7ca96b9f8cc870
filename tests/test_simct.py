"""SimCT: units of two tokenizations, their values by enumeration, and whole runs in a world of two tokenizers."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import foreign_teacher
import micro
import pandas as pd
import pytest
import torch
from conftest import OPD, make_world
from seams import require_same_bytes_after_a_kill
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as kinds
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from opd_lib import methods
from opd_lib.engine import aligning, gates, plain, setup, train
from opd_lib.engine import teacher as teachers
from opd_lib.engine.model import distributed, models
from opd_lib.engine.model.vocabularies import Surfaces, pairs
from opd_lib.engine.running import ActiveRun
from opd_lib.maths import diagnostics
from opd_lib.maths.head import Head
from opd_lib.maths.streaming import Stream
from opd_lib.maths.units import AlignedLogits
from opd_lib.methods import simct
from opd_lib.params import RunSpec
from opd_lib.params.spec import FINISHED
from opd_lib.spelling import NONE, Alignment, Spelling
from opd_lib.tasks import chain
from opd_lib.types import Prompt, Rollouts

SIMCT, SHARED = simct.Params(units="simct"), simct.Params(units="shared_only")


# --- units -----------------------------------------------------------------------------------------------------------


def spelling(*ends: int, shared: tuple[int, ...] | None = None, known: tuple[bool, ...] | None = None) -> Spelling:
    return Spelling(ends=ends, shared=shared or (NONE,) * len(ends), known=known or (True,) * len(ends))


def drawn(rng: random.Random, length: int) -> Spelling:
    """A spelling of a text of so many characters; some tokens share their last character."""
    ends = sorted({length, *(end for end in range(1, length) if rng.random() < 0.5)})
    ends = [end for end in ends for _ in range(rng.choice((1, 1, 1, 2)))]
    return spelling(*ends, shared=tuple(rng.choice((NONE, 0, 1)) for _ in ends))


def test_units_are_the_finest_partition_at_boundaries_of_both() -> None:
    for seed in range(500):
        of_random_tokens(random.Random(seed))


def of_random_tokens(rng: random.Random) -> None:
    length = rng.randrange(1, 12)
    student, teacher = drawn(rng, length), drawn(rng, length)
    found = simct.aligned(student, teacher, SIMCT)
    assert len(found.student) == len(found.teacher) == len(found.joint) == len(found.taught)
    ends = []
    for spelled, starts in ((student, found.student), (teacher, found.teacher)):
        bounds = [*starts, len(spelled.ends)]
        assert bounds[0] == 0 and all(begin < end for begin, end in pairwise(bounds))  # nothing left out or twice
        ends.append([spelled.ends[end - 1] for end in bounds[1:]])
    assert ends[0] == ends[1] == sorted(set(student.ends) & set(teacher.ends))  # in both, and none is passed over
    for starts, spelled in ((found.student, student), (found.teacher, teacher)):
        assert all(spelled.ends[begin] > spelled.ends[begin - 1] for begin in starts[1:])  # no character is cut
    other = simct.aligned(student, teacher, SHARED)
    assert (other.student, other.teacher) == (found.student, found.teacher)
    assert all(found.taught) and not any(other.joint)
    assert other.taught == tuple(not joint for joint in found.joint)


def test_a_unit_is_a_shared_token_or_a_candidate_or_unknown() -> None:
    student = spelling(1, 2, 4, 6, 7, shared=(5, 3, NONE, 4, 0))
    teacher = spelling(1, 2, 3, 4, 6, 7, shared=(5, 2, NONE, NONE, 1, 0), known=(True,) * 4 + (False, False))
    found = simct.aligned(student, teacher, SIMCT)
    assert found.student == (0, 1, 2, 3, 4) and found.teacher == (0, 1, 2, 4, 5)
    assert found.joint == (False, True, True, False, False)
    assert found.taught == (True, True, True, False, True)  # an end token may be the unknown one: it is shared


def test_a_text_without_tokens_of_the_teachers_is_one_unit_that_teaches_nothing() -> None:
    found = simct.aligned(spelling(1, 2), spelling(), SIMCT)
    assert found == Alignment(student=(0,), teacher=(0,), joint=(False,), taught=(False,))


def test_the_kl_of_units_is_that_of_sequences_without_what_lies_within() -> None:
    """Texts of three letters; the student has letters, the teacher "ab" besides. Units are what `aligned` makes."""
    texts = ["".join(letters) for letters in product("ab", repeat=3)]
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, len(texts), generator=generator, dtype=torch.float64).softmax(-1)
    first: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        ends = [i + 1 for i in range(3) if text[i : i + 2] != "ab"]
        starts = simct.aligned(spelling(1, 2, 3), spelling(*ends), SIMCT).student
        first.setdefault(text[: [*starts, 3][1]], []).append(index)
    assert set(first) == {"a", "b", "ab"}
    whole = float((p * (p / q).log()).sum())
    within, coarse = 0.0, 0.0
    for members in first.values():
        mine, other = p[members], q[members]
        coarse += float(mine.sum() * (mine.sum() / other.sum()).log())
        within += float((mine * (mine / mine.sum() / (other / other.sum())).log()).sum())
    assert 0 < coarse < whole and within > 0
    assert coarse + within == pytest.approx(whole, abs=1e-12)


# --- values ----------------------------------------------------------------------------------------------------------

N_STUDENT, N_TEACHER = 6, 7
PAIRS = ((0, 2), (3, 0), (4, 5))
BOUNDS = ((0, 1, 3, 4, 7), (0, 2, 3, 4, 6))  # units of 1 | 2, 2 | 1, 1 | 1 and 3 | 2 tokens, the third one shared
JOINT, TAUGHT = (True, True, False, True), (True, True, True, True)


def example(
    joint: tuple[bool, ...] = JOINT, taught: tuple[bool, ...] = TAUGHT, **more: Any
) -> tuple[AlignedLogits, Tensor]:
    """A teacher's say about seven tokens of the student's, and the student's logits, float64."""
    generator = torch.Generator().manual_seed(1)
    hidden_MH = torch.randn(BOUNDS[1][-1], 4, generator=generator, dtype=torch.float64)
    weight_VH = torch.randn(N_TEACHER, 4, generator=generator, dtype=torch.float64)
    spelt = AlignedLogits(
        head=Head(hidden_MH, weight_VH),
        token_M=torch.tensor([1, 4, 6, 5, 3, 3]),
        bounds_U=BOUNDS[0],
        teacher_bounds_U=BOUNDS[1],
        joint_U=joint,
        taught_U=taught,
        student_id_C=torch.tensor([one for one, _ in PAIRS]),
        teacher_id_C=torch.tensor([two for _, two in PAIRS]),
        whole=False,
    )
    logits_NV = torch.randn(BOUNDS[0][-1], N_STUDENT, generator=generator, dtype=torch.float64)
    return replace(spelt, **more), logits_NV


TOKEN_N = torch.tensor([1, 2, 5, 4, 0, 1, 2])


def streamed(spelt: AlignedLogits, chunk: int | None = None) -> Stream:
    nowhere = Head(torch.zeros(len(TOKEN_N), 1, dtype=torch.float64), torch.zeros(N_STUDENT, 1, dtype=torch.float64))
    return Stream(
        student=nowhere,
        teacher=spelt,
        token_N=TOKEN_N,
        row_N=torch.zeros_like(TOKEN_N),
        position_N=torch.arange(len(TOKEN_N)),
        k=0,
        reads=simct.reads(SIMCT),
        measured=True,
        chunk=chunk,
    )


def outcome(spelt: AlignedLogits, logits_NV: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """Values (N) and the gradient of their sum at the logits, chunk by chunk."""
    stream, leaf_NV = streamed(spelt, chunk), logits_NV.clone().requires_grad_()
    values = [simct.value(stream.score(leaf_NV[part], part), SIMCT) for part in stream.parts]
    value_N = torch.cat(values)
    return value_N.detach(), torch.autograd.grad(value_N.sum(), leaf_NV)[0]


def enumerated(spelt: AlignedLogits, logits_NV: Tensor) -> tuple[Tensor, Tensor]:
    """The same by the definition, one number after the other, with the gradient by hand:
    dKL/ds_u = p̂_u (log p̂_u/q̂_u − KL); ds_v/dz = e_v − p at the first token, ds_unit/dz = (e_y − p)/n at each."""
    p_NV, logp = logits_NV.softmax(-1), logits_NV.log_softmax(-1).tolist()
    logq = spelt.head.logits(slice(None)).log_softmax(-1).tolist()
    values, slope_NV = [0.0] * len(logp), torch.zeros_like(logits_NV)
    for unit, ((i, end), (j, last)) in enumerate(
        zip(pairwise(spelt.bounds_U), pairwise(spelt.teacher_bounds_U), strict=True)
    ):
        if not spelt.taught_U[unit]:
            continue
        mine, other = [logp[i][one] for one, _ in PAIRS], [logq[j][two] for _, two in PAIRS]
        if spelt.joint_U[unit]:
            mine.append(sum(logp[n][int(TOKEN_N[n])] for n in range(i, end)) / (end - i))
            other.append(sum(logq[m][int(spelt.token_M[m])] for m in range(j, last)) / (last - j))
        masses = [sum(math.exp(score) for score in scores) for scores in (mine, other)]
        p = [math.exp(score) / masses[0] for score in mine]
        q = [math.exp(score) / masses[1] for score in other]
        values[i] = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        slopes = [a * (math.log(a / b) - values[i]) for a, b in zip(p, q, strict=True)]
        for slope, (one, _) in zip(slopes, PAIRS, strict=False):
            slope_NV[i, one] += slope
            slope_NV[i] -= slope * p_NV[i]
        if spelt.joint_U[unit]:
            for n in range(i, end):
                slope_NV[n, TOKEN_N[n]] += slopes[-1] / (end - i)
                slope_NV[n] -= slopes[-1] / (end - i) * p_NV[n]
    return torch.tensor(values, dtype=torch.float64), slope_NV


@pytest.mark.parametrize("chunk", [None, 1, 3, 4])
@pytest.mark.parametrize(
    "flags", [{}, {"joint": (False,) * 4, "taught": (False, False, True, False)}, {"taught": (True, False) * 2}]
)
def test_value_and_gradient_are_those_of_the_definition(flags: dict[str, Any], chunk: int | None) -> None:
    spelt, logits_NV = example(**flags)
    value_N, slope_NV = outcome(spelt, logits_NV, chunk)
    expected_N, by_hand_NV = enumerated(spelt, logits_NV)
    torch.testing.assert_close(value_N, expected_N, atol=1e-12, rtol=0)
    torch.testing.assert_close(slope_NV, by_hand_NV, atol=1e-12, rtol=0)
    if not flags:
        assert (slope_NV.abs().sum(1) > 1e-3).all()  # every token of a unit learns
        assert value_N.nonzero()[:, 0].tolist() == list(BOUNDS[0][:-1])
    else:
        assert (slope_NV.abs().sum(1) > 0).sum() < len(TOKEN_N)


def test_chunks_are_whole_units() -> None:
    spelt, _ = example()
    found = {chunk: [(part.start, part.stop) for part in spelt.parts(chunk)] for chunk in (1, 3, 4, None)}
    assert found == {
        1: [(0, 1), (1, 3), (3, 4), (4, 7)],
        3: [(0, 3), (3, 4), (4, 7)],
        4: [(0, 4), (4, 7)],
        None: [(0, 7)],
    }


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    spelt, logits_NV = example()
    shifted_NV = logits_NV + torch.arange(len(logits_NV), dtype=torch.float64)[:, None]
    for one, two in zip(outcome(spelt, logits_NV), outcome(spelt, shifted_NV), strict=True):
        torch.testing.assert_close(one, two, atol=1e-12, rtol=0)
    moved = streamed(spelt).score(shifted_NV, slice(0, 7)).units
    raw = [logits[TOKEN_N[1]] / 2 for logits in (logits_NV[1], shifted_NV[1])]
    assert moved is not None and raw[0] != raw[1]  # what the code's mean of raw logits would see


def test_diagnostics_say_what_is_defined_between_two_tokenizers() -> None:
    spelt, logits_NV = example(taught=(True, False, True, True))
    scores = streamed(spelt).score(logits_NV, slice(0, 7))
    tally = diagnostics.Tally([2], 4, 8)
    tally.add(scores)
    means = tally.means()
    logq_MV = spelt.head.logits(slice(None)).log_softmax(-1)
    starts = list(BOUNDS[1][:-1])
    entropy_U = -(logq_MV.exp() * logq_MV).sum(-1)[starts]
    assert means["teacher_entropy"] == pytest.approx(float(entropy_U.mean()))
    single = [(0, (0, 1)), (3, (3,))]  # units of one token of the student's
    logp_NV = logits_NV.log_softmax(-1)
    ratios = [
        float(logp_NV[n, TOKEN_N[n]]) - sum(float(logq_MV[m, spelt.token_M[m]]) for m in tokens) for n, tokens in single
    ]
    assert means["sampled_reverse_kl"] == pytest.approx(sum(ratios) / 2)
    assert means["taught_share"] == pytest.approx(5 / 7)
    undefined = ("reverse_kl", "entropy_gap", "entropy_gap_of_means", *(f"{name}_k2" for name in diagnostics.AT_K))
    assert all(math.isnan(means[name]) for name in undefined)
    assert set(diagnostics.AT_K) == set(at_k_names())
    assert {name.removesuffix("_k2") for name in means} <= set(diagnostics.UNITS)


def at_k_names() -> list[str]:
    from test_methods_exact import draw, score

    student_NV, teacher_NV, token_N = draw()
    return list(diagnostics.at_k(score(student_NV, teacher_NV, token_N, 2), 2))


def test_scores_without_units_are_refused() -> None:
    from test_methods_exact import draw, score

    with pytest.raises(ValueError, match="scores without units"):
        simct.value(score(*draw(), 0, True), SIMCT)
    with pytest.raises(ValueError, match="teacher: null"):
        simct.check(SIMCT, 7, False)


# --- vocabularies ----------------------------------------------------------------------------------------------------


def byte_tokenizer(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """All bytes, and these pairs of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges), "<end>"])}
    tokenizer = Tokenizer(kinds.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def foreign(student: PreTrainedTokenizerFast, teacher: PreTrainedTokenizerFast) -> aligning.Foreign:
    """A teacher of which nothing is asked but how it reads."""
    surfaces = Surfaces(student)
    return aligning.Foreign(
        model=None,
        tokenizer=teacher,
        surfaces=surfaces,
        shared=pairs(surfaces, Surfaces(teacher)),
        task=None,  # type: ignore[arg-type]
        align=lambda mine, other: simct.aligned(mine, other, SIMCT),
    )


def responses(tokenizer: PreTrainedTokenizerFast, texts: list[str], finished: bool = True) -> Rollouts:
    ids = [
        [*tokenizer(text, add_special_tokens=False).input_ids, *[tokenizer.eos_token_id] * finished] for text in texts
    ]
    chats = (("system", "T1"), ("user", "7 + 5"))
    rendered = (
        tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in chats], tokenize=False)
        if tokenizer.chat_template
        else ""
    )
    prompt = Prompt(
        id="", source="", question="", rendered=rendered, answer="2", chat=chats,
        token_ids=tuple(tokenizer(rendered, add_special_tokens=False).input_ids),
    )  # fmt: skip
    return Rollouts(
        prompts=(prompt,) * len(ids),
        response_BT=models.pad_right(ids, 0),
        length_B=torch.tensor([len(row) for row in ids]),
        finished_B=torch.full((len(ids),), finished),
        reward_B=torch.zeros(len(ids)),
    )


def units_of(teacher: aligning.Foreign, rollouts: Rollouts) -> list[tuple[list[str], list[str], bool, bool]]:
    """The student's and the teacher's tokens of each unit of the first response, and whether it is joint and taught."""
    mine, other, ids = teacher.spellings(rollouts, 0)
    found = simct.aligned(mine, other, SIMCT)
    own = rollouts.response_BT[0, : rollouts.length_B[0]].tolist()
    spans = zip(pairwise([*found.student, len(own)]), pairwise([*found.teacher, len(ids)]), strict=True)
    words = teacher.surfaces.tokenizer.convert_ids_to_tokens, teacher.tokenizer.convert_ids_to_tokens
    return [
        (words[0](own[a:b]), words[1](ids[c:d]), joint, taught)
        for ((a, b), (c, d)), joint, taught in zip(spans, found.joint, found.taught, strict=True)
    ]


def test_words_merged_and_split_are_units() -> None:
    student = models.chain_tokenizer()
    teacher = foreign(student, foreign_teacher.tokenizer())
    found = units_of(teacher, responses(student, ["w07 7 + 5 = 2 ; w63 ="]))
    assert found == [
        (["w07"], ["w0", "7"], True, True),
        (["7"], ["7"], False, True),
        (["+"], ["+"], False, True),
        (["5"], ["5"], False, True),
        (["=", "2"], ["= 2"], True, True),
        ([";"], [";"], False, True),
        (["w63"], ["<unk>", "3"], False, False),
        (["="], ["="], False, True),
        (["<eos>"], ["<eos>"], False, True),
    ]
    shared = {student.convert_ids_to_tokens(i) for i in teacher.shared.student}
    assert shared == set(chain.VOCABULARY) - set(chain.FILLERS) - {"<reserved0>"} and not teacher.shared.whole
    for one, two in zip(teacher.shared.student, teacher.shared.teacher, strict=True):
        assert student.convert_ids_to_tokens(one) == teacher.tokenizer.convert_ids_to_tokens(two)
    assert units_of(teacher, responses(student, ["7 ="], finished=False))[-1] == (["="], ["="], False, True)


def test_blanks_and_ends_are_one_thing_in_all_tokenizers() -> None:
    """Bytes against words: surfaces are compared, a character of several bytes is never cut, the ends are a pair."""
    student, words = byte_tokenizer(("a", "b"), ("Ġ", "7")), models.chain_tokenizer()
    teacher = foreign(student, words)
    named = {student.convert_ids_to_tokens(i) for i in teacher.shared.student}
    assert named == {"Ġ7", "<end>"}
    found = units_of(foreign(student, byte_tokenizer()), responses(student, ["ab é7"]))
    assert [(mine, other) for mine, other, _, _ in found] == [
        (["ab"], ["a", "b"]), (["Ġ"], ["Ġ"]), (["Ã", "©"], ["Ã", "©"]), (["7"], ["7"]), (["<end>"], ["<end>"]),
    ]  # fmt: skip
    assert [joint for *_, joint, _ in found] == [True, False, True, False, False]
    broken = student.convert_tokens_to_ids(["Ã", "a", "Ã"])
    assert Surfaces(student).pieces(broken) == ["\ufffd", "a", "\ufffd"]
    assert Surfaces(student).pieces(student("🙂a").input_ids) == ["🙂", "", "", "", "a"]


@pytest.mark.parametrize(
    "broken",
    [
        {"student": (0, 2), "teacher": (0, 1)},  # the first unit is two texts
        {"student": (1,), "teacher": (0,)},
        {"student": (0, 1, 2), "teacher": (0, 1, 1)},
        {"student": (0, 1), "teacher": (0, 1), "joint": (True,)},
    ],
)
def test_units_that_are_none_are_one_error(broken: dict[str, Any]) -> None:
    mine, other = spelling(1, 2, 4), spelling(1, 3, 4)
    good = simct.aligned(mine, other, SIMCT)
    assert aligning.checked(good, mine, other) is good and good.student == good.teacher == (0, 1)
    with pytest.raises(ValueError, match=r"method: aligned: units that begin at .* begin at 0, and end where both"):
        aligning.checked(replace(good, **broken), mine, other)
    nothing = simct.aligned(mine, spelling(), SIMCT)
    assert aligning.checked(nothing, mine, spelling()) is nothing


def test_one_vocabulary_is_shared_whole() -> None:
    found = pairs(Surfaces(models.chain_tokenizer()), Surfaces(models.chain_tokenizer()))
    assert found.whole and found.student == found.teacher == tuple(range(128))
    student, other = byte_tokenizer(), byte_tokenizer(("a", "b"))
    found = pairs(Surfaces(student), Surfaces(other))
    assert len(found.student) == len(student) and not found.whole  # bytes of characters, and the ends, too
    assert found.teacher[student.eos_token_id] == other.eos_token_id != student.eos_token_id


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with its student, and a teacher with a tokenizer of its own in the folder `foreign`."""
    world = make_world(tmp_path_factory.mktemp("simct"))
    micro.teach(world)
    for arm in ("student", "teacher"):
        micro.change_arm(world, micro.MODELS, arm, {"train.steps": 30})
        train.train(micro.load(world).spec(arm, 0))
    foreign_teacher.save(world / "foreign")
    return world


def spec_of(world: Path, results: Path, arm: str, **changes: Any) -> RunSpec:
    """A distillation with these changes; its record goes to `results`."""
    own = {"method": {"name": "simct", "units": "simct"}, "teacher": str(world / "foreign")} | changes
    experiment = micro.load(world, micro.OPD, overrides={f"arms.{arm}": own})
    return replace(experiment.spec(arm, 0), folders=(results / arm,))


def begun(spec: RunSpec) -> tuple[ActiveRun, Rollouts]:
    run = setup.start(spec, distributed.ALONE, None, False)
    return run, train.draw(run, 1)


def gradient(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()


def logits(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """Logits (T, V), float64, from which each token of a response is drawn."""
    return model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].double()


def by_hand(run: ActiveRun, rollouts: Rollouts) -> Tensor:
    """The loss by its definition: words of texts, units found by comparing words, no part of the engine."""
    assert run.teacher is not None
    (student, mine), (teacher, other) = run.student, (run.teacher[0].model, run.teacher[1])
    shared = [word for word in chain.VOCABULARY if other.get_vocab().get(word) is not None]
    ids = [mine.convert_tokens_to_ids(shared), other.convert_tokens_to_ids(shared)]
    total, n = torch.zeros((), dtype=torch.float64), 0
    for prompt, row_T, length in zip(rollouts.prompts, rollouts.response_BT, rollouts.length_B.tolist(), strict=True):
        words = mine.convert_ids_to_tokens(row_T[:length].tolist())
        units: list[tuple[list[str], list[str]]] = []
        while words:
            take = 2 if words[0] == "=" and len(words) > 1 and words[1] in chain.DIGITS else 1
            unit, words = words[:take], words[take:]
            spelled = [" ".join(unit)] if unit[0] not in chain.FILLERS else [unit[0][:2], unit[0][2:]]
            units.append((unit, [word if word in other.get_vocab() else chain.UNKNOWN for word in spelled]))
        tokens = [mine.convert_tokens_to_ids([w for unit, _ in units for w in unit]),
                  other.convert_tokens_to_ids([w for _, spelled in units for w in spelled])]  # fmt: skip
        begin = other(prompt.rendered, add_special_tokens=False).input_ids
        logp_NV = logits(student, list(prompt.token_ids), tokens[0]).log_softmax(-1)
        with torch.no_grad():
            logq_MV = logits(teacher, begin, tokens[1]).log_softmax(-1)
        i = j = 0
        for unit, spelled in units:
            p_C, q_C = logp_NV[i, ids[0]], logq_MV[j, ids[1]]
            if unit != spelled:
                rows = (range(i, i + len(unit)), range(j, j + len(spelled)))
                p = torch.stack([logp_NV[n_, tokens[0][n_]] for n_ in rows[0]]).mean()
                q = torch.stack([logq_MV[m, tokens[1][m]] for m in rows[1]]).mean()
                p_C, q_C = torch.cat([p_C, p[None]]), torch.cat([q_C, q[None]])
            if chain.UNKNOWN not in spelled or unit == [chain.UNKNOWN]:
                p_C, q_C = p_C.log_softmax(-1), q_C.log_softmax(-1)
                total = total + (p_C.exp() * (p_C - q_C)).sum()
            i, j, n = i + len(unit), j + len(spelled), n + len(unit)
    return total / n


def test_the_streamed_step_is_the_plain_one_and_that_of_the_definition(made: Path, tmp_path: Path) -> None:
    changes = {"train.micro_tokens": 60, "machine.logits_gib": 2e-5}
    run, rollouts = begun(spec_of(made, tmp_path, "small", **changes))
    student = run.student[0]
    assert run.teacher is not None and run.chunk < int(rollouts.length_B.max())
    kinds_ = {(len(a), len(b)) for row in range(8) for a, b, *_ in units_of(run.teacher[0], one(rollouts, row))}
    assert kinds_ >= {(1, 1), (1, 2), (2, 1)}
    note = train.accumulate(run, rollouts, 1)
    streamed_W = gradient(student)
    for total in (plain.loss(student, run.teacher[0], rollouts, run.method, run.options, 2), by_hand(run, rollouts)):
        student.zero_grad()
        total.backward()
        relative = float((gradient(student) - streamed_W).norm() / streamed_W.norm())
        assert relative < 2e-5 and float(streamed_W.norm()) > 0
        assert note.write(0.0, {})["loss"] == pytest.approx(total.item(), abs=2e-6)


def test_the_teacher_reads_no_more_at_a_time_than_the_student(made: Path, tmp_path: Path) -> None:
    run, rollouts = begun(spec_of(made, tmp_path, "passes"))
    assert run.teacher is not None
    teacher, lengths = run.teacher[0], []

    def head_of(model: Any, given: Rollouts, rows: Tensor) -> Head:
        lengths.append(len(rows))
        return teachers.head(model, given, rows)

    ids = [teacher.spellings(rollouts, row)[2] for row in range(8)]
    given = teacher.responses(teacher.rendered(rollouts.prompts), ids)
    whole, parts = (teacher.head(given, together, head_of).hidden_NH for together in (10**6, 50))
    assert lengths[0] == 8 == sum(lengths[1:]) and len(lengths) > 3
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)


def one(rollouts: Rollouts, row: int) -> Rollouts:
    rows = slice(row, row + 1)
    return replace(
        rollouts,
        prompts=rollouts.prompts[rows],
        response_BT=rollouts.response_BT[rows],
        length_B=rollouts.length_B[rows],
        finished_B=rollouts.finished_B[rows],
    )


def test_nothing_reaches_the_teacher(made: Path, tmp_path: Path) -> None:
    run, rollouts = begun(spec_of(made, tmp_path, "still"))
    assert run.teacher is not None
    teacher = run.teacher[0].model.requires_grad_(True)
    train.accumulate(run, rollouts, 1)
    assert all(parameter.grad is None for parameter in teacher.parameters()) and gradient(run.student[0]).any()


def test_a_run_across_tokenizers_trains_and_says_what_it_knows(made: Path, tmp_path: Path) -> None:
    tables = {}
    for units in ("simct", "shared_only"):
        done = train.train(spec_of(made, tmp_path, units, method={"name": "simct", "units": units}))
        assert done.status == FINISHED
        steps = tables[units] = done.frame("steps")
        assert len(steps) == 6 and (steps["loss"] > 0).all() and (steps["grad_norm"] > 0).all()
        assert steps[["overlap_k4", "reverse_kl", "entropy_gap", "entropy_gap_of_means"]].isna().all(axis=None)
        assert steps[["teacher_entropy", "sampled_reverse_kl", "student_entropy"]].notna().all(axis=None)
        assert done.gates["teacher_dependence"] > 1e-3 and "<bos> T1 <q>" in done.gates["teacher_prompt"]
        assert "NaN" not in (done.folder / "rollouts.jsonl").read_text() + (done.folder / "tokens.jsonl").read_text()
    assert (tables["simct"]["taught_share"] > tables["shared_only"]["taught_share"] + 0.2).all()


def test_with_one_tokenizer_it_is_opd_to_the_bit(made: Path, tmp_path: Path) -> None:
    full = {**OPD, "estimator": "full", "normalize": "raw", "stop_gradient": False}
    teacher = "run:00_models/teacher"
    done = [
        train.train(spec_of(made, tmp_path, name, teacher=teacher, method=method, **{"machine.logits_gib": 2e-5}))
        for name, method in (("opd", full), ("simct", {"name": "simct", "units": "simct"}))
    ]
    columns = ["step", "loss", "grad_norm", "n_tokens", "reward", "student_entropy", "sampled_reverse_kl"]
    columns.append("teacher_entropy")
    pd.testing.assert_frame_equal(*(found.frame("steps")[columns] for found in done), check_exact=True)
    weights = [(found.folder / "model" / "model.safetensors").read_bytes() for found in done]
    assert weights[0] == weights[1]
    assert (done[1].frame("steps")["taught_share"] == 1.0).all()


def test_a_killed_run_resumes_to_the_same_bytes(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = (spec_of(made, tmp_path / name, "simct") for name in ("whole", "broken"))
    require_same_bytes_after_a_kill(whole, broken, monkeypatch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": None}, "teacher: null"),
        ({"teacher": "self"}, "teacher: self, but method simct aligns the tokens of two checkpoints; name one teacher"),
        ({"teacher": {"one": "run:00_models/teacher"}}, "teacher: several by name, but method simct"),
        ({"machine.teacher_url": "http://a:1"}, "machine.teacher_url: a server, but method simct"),
        ({"source.kind": "teacher"}, "source.kind: teacher, but method simct"),
        ({"probe": {"kind": "reward", "batches": 1}}, "probe.kind: reward, but method simct"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_reason(made: Path, changes: dict[str, Any], message: str) -> None:
    own = {"method": {"name": "simct", "units": "simct"}, "teacher": "run:00_models/teacher"} | changes
    with pytest.raises(ValueError, match=message):
        micro.load(made, micro.OPD, overrides={"arms.mine": own})


def test_other_methods_keep_to_one_vocabulary(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs one tokenizer, method simct aligns two"):
        begun(spec_of(made, tmp_path, "opd", method=OPD))


def test_a_chat_template_must_show_each_message(made: Path, tmp_path: Path) -> None:
    run, rollouts = begun(spec_of(made, tmp_path, "gates"))
    assert run.teacher is not None
    params, teacher = run.spec.params, run.teacher[0]
    silent = foreign_teacher.tokenizer()
    silent.chat_template = "<q> {{ messages[-1].content }} <a>"
    with pytest.raises(ValueError, match=r"teacher: its chat template leaves out the system message 'T1'"):
        gates.same_tongue(params, methods.load("simct"), run.student, (teacher.model, silent))
    silent.chat_template = None
    with pytest.raises(ValueError, match="teacher: its tokenizer has no chat_template"):
        gates.same_tongue(params, methods.load("simct"), run.student, (teacher.model, silent))
    words = models.word_tokenizer(["zero", "one", "?"], "?", eos_token="?")
    with pytest.raises(ValueError, match="have no token in common"):
        aligning.foreign(params, run.student, (teacher.model, words), methods.load("simct"), SIMCT)
    teacher.model.config.max_position_embeddings = 20
    with pytest.raises(
        ValueError, match=r"teacher: prompt and response have \d+ of its tokens, and its context has 20"
    ):
        run.teacher_output(rollouts, torch.arange(8), 0)
