"""Probes of the second paper: prefixes by hand, the means over keys by enumeration, and both from start to record."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_labelled import PARAMS
from torch import Tensor

from opd_lib import tasks
from opd_lib.engine import plain, sources
from opd_lib.engine.model import models
from opd_lib.engine.probes import mixture, prefix
from opd_lib.engine.sampling import rollout
from opd_lib.maths import self_distillation
from opd_lib.params import probe_refusals
from opd_lib.params.schema import MixtureProbe, NewModel, PrefixProbe, Sampled
from opd_lib.tasks import tagged
from opd_lib.tasks.labelled_questions import step
from opd_lib.types import Rollouts

SHAPE = NewModel(layers=2, hidden=24, heads=2, context=192, rope_theta=100.0, initializer_range=0.1)
TOKENIZER = models.world_tokenizer(tagged.WORLD)
TASK = tagged.Params(
    **PARAMS.model_dump() | {"name": "tagged", "asks": "{question}", "demand": "answer", "keys": 1, "other_share": 0.0}
)
SHOWS = "<rule> {key} {question}"
PREFIX = PrefixProbe(kind="prefix", batches=1, revision=("wait",))
MIXTURE = MixtureProbe(kind="mixture", batches=1, shows=SHOWS, hedges=("wait",))


def model(seed: int) -> sources.Model:
    return models.new_model(SHAPE, seed, TOKENIZER).double(), TOKENIZER


def run_of(student: sources.Model, teacher: sources.Model, task: tagged.Params = TASK, **more: Any) -> Any:
    """What a probe reads of a run."""
    source = Sampled(
        kind="student", prompts_per_step=6, per_prompt=1, max_new_tokens=64, schedule=(), temperature=1.0, top_p=1.0
    )
    return SimpleNamespace(
        spec=SimpleNamespace(params=SimpleNamespace(source=source, task=task), seed=0),
        student=student,
        teacher=teacher,
        sample=more.get("sample", rollout.sample),
        words=TOKENIZER.convert_ids_to_tokens(range(len(TOKENIZER))),
    )


def answered(texts: list[str], task: tagged.Params = TASK) -> Rollouts:
    """These responses to the first questions of a step."""
    prompts = sources.make_prompts(TOKENIZER, task, tagged.training(task, len(texts), 0, 1), ["T1"] * len(texts), "")
    given = sources.given(prompts, TOKENIZER(texts, add_special_tokens=False).input_ids, TOKENIZER)
    return sources.grade(task, given, TOKENIZER)


# --- prefixes ---------------------------------------------------------------------------------------------------------


def solutions(task: tagged.Params = TASK, n: int = 6) -> list[str]:
    return [f"{question.solution} <eos>" for question in tagged.training(task, n, 0, 1)]


def oracle(run: Any) -> Any:
    """A sampler of somebody who finishes every solution, whatever stands before it."""

    def sample(network: Any, tokenizer: Any, prompts: Any, uniform_BT: Tensor, temperature: float, top_p: float) -> Any:
        rows = []
        for prompt in prompts:
            said = tokenizer.decode(prompt.token_ids).partition("<a> ")[2].split()
            rows.append(tokenizer(f"{prompt.solution} <eos>", add_special_tokens=False).input_ids[len(said) :])
        return sources.given(prompts, rows, tokenizer)

    return sample


def test_a_teacher_that_knows_the_solution_is_right_from_every_prefix_of_it() -> None:
    run = run_of(model(0), model(1))
    run.sample = oracle(run)
    found = prefix.rows(run, PREFIX, answered(solutions()), 1)
    for name in ("alone", "own", "gold", "student"):
        assert [row[f"right_{name}"] for row in found] == [row[f"stated_{name}"] for row in found] == [1.0] * 6
    assert all(row["valid"] == 1 and 0 <= row["cut"] < 1 for row in found)
    lengths = [len(text.split()) for text in solutions()]
    assert [row["depth"] for row in found] == [int(row["cut"] * n) for row, n in zip(found, lengths, strict=True)]


def test_a_wrong_prefix_is_not_valid_and_is_gone_on_from() -> None:
    chains = [question.chain for question in tagged.training(TASK, 6, 0, 1)]
    steps = [step("A", "s1", chain.operations[0], chain.start) for chain in chains]
    wrong = [" ".join([*words, str((chain.values[1] + 1) % 10)]) for words, chain in zip(steps, chains, strict=True)]
    found = prefix.rows(run_of(model(0), model(1)), PREFIX, answered([f"{text} ; ; ; ; ; ;" for text in wrong]), 1)
    assert [row["valid"] for row in found] == [
        int(row["depth"] <= len(words)) for row, words in zip(found, steps, strict=True)
    ]
    assert {row["valid"] for row in found} == {0, 1}
    assert all(0 <= row["revision_student"] <= 1 and row["entropy_student"] > 0 for row in found)


def test_the_teachers_thoughts_at_the_cut_are_those_of_one_forward_pass() -> None:
    run = run_of(model(0), model(1))
    texts = solutions()
    found = prefix.rows(run, PREFIX, answered(texts), 1)
    rollouts = answered(texts)
    wait = TOKENIZER.convert_tokens_to_ids("wait")
    for row, each in enumerate(found):
        said = rollouts.response_BT[row, : each["depth"]].tolist()
        with torch.no_grad():
            p_V = run.teacher[0](torch.tensor([[*rollouts.prompts[row].token_ids, *said]])).logits[0, -1].softmax(-1)
        assert each["revision_student"] == pytest.approx(float(p_V[wait]), rel=1e-4)
        assert each["entropy_student"] == pytest.approx(float(-(p_V * p_V.log()).sum()), rel=1e-4)


def test_the_signal_is_how_far_both_differ_about_the_tokens_early_and_late() -> None:
    run = run_of(model(0), model(1))
    rollouts = answered([solutions()[0], "<ans> 1 <eos>", *solutions()[2:]])
    found = prefix.rows(run, PREFIX, rollouts, 1)
    with torch.no_grad():
        logp, logq = (
            plain.logits(each[0], rollouts, rollouts.prompts).log_softmax(-1) for each in (run.student, run.teacher)
        )
    begin = 0
    for row, tokens in zip(found, rollouts.tokens, strict=True):
        n, at = len(tokens), range(begin, begin + len(tokens))
        sizes = [abs(float(logq[i, token] - logp[i, token])) for i, token in zip(at, tokens, strict=True)]
        third = math.ceil(n / 3)
        assert row["signal"] == pytest.approx(sum(sizes) / n, rel=1e-4)
        assert row["signal_first"] == pytest.approx(sum(sizes[:third]) / third, rel=1e-4)
        assert row["signal_last"] == pytest.approx(sum(sizes[-third:]) / third, rel=1e-4)
        begin += n
    assert [row["right"] for row in found] == rollouts.reward_B.tolist() != [1.0] * 6
    same = prefix.signals(run.student[0], run.student[0], rollouts)
    assert same["signal"] == same["signal_last"] == [0.0] * 6


# --- the mean over keys -----------------------------------------------------------------------------------------------

KEYED = TASK.model_copy(update={"demand": "key", "keys": 3})


def test_the_means_over_keys_are_those_of_the_enumeration() -> None:
    student, teacher = model(0), model(1)
    run = run_of(student, teacher, KEYED)
    texts = ["s1 2 ; <ans> 4 1 6 <eos>", "<ans> w003 7 wait 0 1 <eos>", "s1 3 <eos>"]
    rollouts = answered(texts, KEYED)
    found = mixture.rows(run, MIXTURE, rollouts, 1)
    wait, weight_I = TOKENIZER.convert_tokens_to_ids("wait"), torch.full((3,), 1 / 3, dtype=torch.float64)
    start = 0
    told = [mixture.shown(run, rollouts, SHOWS, key) for key in ("0 0", "0 1", "0 2")]
    with torch.no_grad():
        logp_NV = plain.logits(student[0], rollouts, rollouts.prompts).log_softmax(-1)
        logq_INV = torch.stack([plain.logits(teacher[0], rollouts, prompts) for prompts in told]).log_softmax(-1)
    for row, (text, behind) in enumerate(zip(texts, (5, 3, None), strict=True)):
        n = len(text.split())
        kl_g, kl_a, reverse, forward, hedge = [], [], [], [], []
        for t in range(start, start + n):
            g_V, floor_g = self_distillation.geometric(logq_INV[:, t], weight_I)
            a_V, floor_a = self_distillation.arithmetic(logq_INV[:, t], weight_I)
            p_V = logp_NV[t]
            kl_g.append(float((p_V.exp() * (p_V - g_V)).sum()))
            kl_a.append(float((p_V.exp() * (p_V - a_V)).sum()))
            reverse.append(floor_g)
            forward.append(floor_a)
            hedge.append([float(x_V[wait].exp()) for x_V in (p_V, g_V, a_V)])
            mean_kl = float((p_V.exp() * (p_V - logq_INV[:, t])).sum(-1).mean())
            assert mean_kl == pytest.approx(kl_g[-1] + floor_g), "what is learned and what is left"
        start += n
        expected = {"kl_geometric": kl_g, "kl_arithmetic": kl_a, "floor_reverse": reverse, "floor_forward": forward}
        for name, values in expected.items():
            assert found[row][name] == pytest.approx(sum(values) / n, abs=1e-9)
            there = found[row][f"{name}_behind"]
            assert found[row]["behind"] == (behind is not None)
            assert math.isnan(there) if behind is None else there == pytest.approx(values[behind], abs=1e-9)
        for place, name in enumerate(("student", "geometric", "arithmetic")):
            there = found[row][f"hedge_{name}"]
            assert math.isnan(there) if behind is None else there == pytest.approx(hedge[behind][place])


def test_one_teacher_for_all_keys_leaves_nothing_over() -> None:
    student = model(0)
    run = run_of(student, student, KEYED)
    rollouts = answered(["s1 2 ; <ans> 4 1 6 <eos>"], KEYED)
    plainly = MIXTURE.model_copy(update={"shows": "{question}"})
    (row,) = mixture.rows(run, plainly, rollouts, 1)
    for name in ("kl_geometric", "kl_arithmetic", "floor_reverse", "floor_forward"):
        assert row[name] == pytest.approx(0.0, abs=1e-9)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "probe", "message"),
    [
        (TASK, MIXTURE, "probe.kind: mixture, over the keys of a question: use task tagged, demand: key"),
        (
            KEYED,
            MIXTURE.model_copy(update={"shows": "{question}"}),
            r"probe\.shows: '\{question\}' does not tell the key",
        ),
        (KEYED, MIXTURE.model_copy(update={"shows": "{key}"}), r"probe\.shows: '\{key\}' does not ask the question"),
    ],
)
def test_what_a_mixture_cannot_be_taken_of_is_refused(task: tagged.Params, probe: MixtureProbe, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe_refusals.check_mixture(task, probe)
    probe_refusals.check_mixture(KEYED, MIXTURE)


def test_tasks_say_whether_somebody_can_read_a_beginning() -> None:
    assert {name for name in tasks.NAMES if tasks.load(name).sound is not None} == {"labelled", "tagged"}
