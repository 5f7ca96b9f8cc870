"""Signatures of a collapse: by hand, over micro-batches, and as columns of a run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import pytest
import torch
from conftest import make_world

from opd_lib.engine import train
from opd_lib.maths import diagnostics, signatures
from opd_lib.types import Rollouts, TokenScores

HEDGES = [7]


def rollouts(*responses: list[int]) -> Rollouts:
    longest = max(map(len, responses))
    padded = [[*row, *[0] * (longest - len(row))] for row in responses]
    n = len(responses)
    return Rollouts(
        prompts=(),
        response_BT=torch.tensor(padded),
        length_B=torch.tensor([len(row) for row in responses]),
        finished_B=torch.ones(n, dtype=torch.bool),
        reward_B=torch.zeros(n),
    )


def scores(given: Rollouts, teacher: bool = True) -> TokenScores:
    """Log-probabilities that differ by the number of the token."""
    places = [(row, t) for row, n in enumerate(given.length_B.tolist()) for t in range(n)]
    row_N, position_N = torch.tensor(places).T
    number_N = torch.arange(len(places), dtype=torch.float32)
    return TokenScores(
        token_N=given.response_BT[row_N, position_N],
        row_N=row_N,
        position_N=position_N,
        student_logp_N=-torch.ones_like(number_N),
        student_entropy_N=torch.ones_like(number_N),
        teacher_logp_N=number_N - 1.0 if teacher else None,
    )


def means(metrics: dict[str, diagnostics.Metric]) -> dict[str, float]:
    return {name: float(value_N.sum() / weight_N.sum()) for name, (value_N, weight_N) in metrics.items()}


def test_a_token_is_repeated_where_it_ends_a_run_of_three_that_stood_before() -> None:
    assert signatures.repeated([1, 2, 1, 2, 1, 2]) == [False] * 4 + [True] * 2
    assert signatures.repeated([5, 5, 5, 5]) == [False, False, False, True]
    assert signatures.repeated([1, 2]) == [False, False] and signatures.repeated([]) == []


def test_shares_and_advantages_by_hand() -> None:
    given = rollouts([1, 2, 3, 1, 2, 3], [7, 1, 2, 3])  # what another response says is no repetition
    found = means(signatures.per_token(given, scores(given), HEDGES))
    assert found["hedge_share"] == pytest.approx(1 / 10) and found["repeat_share"] == pytest.approx(1 / 10)
    assert found["repeated_advantage"] == pytest.approx(5.0)
    assert found["other_advantage"] == pytest.approx((sum(range(10)) - 5) / 9)
    without = signatures.per_token(given, scores(given, teacher=False), HEDGES)
    assert set(without) == {"hedge_share", "repeat_share"}


def test_nothing_repeated_has_no_advantage() -> None:
    given = rollouts([1, 2, 3])
    tally = diagnostics.Tally((), 8, 8)
    tally.add(scores(given, teacher=False), signatures.per_token(given, scores(given), HEDGES))
    assert math.isnan(tally.means()["repeated_advantage"])


def test_micro_batches_add_up() -> None:
    given = rollouts([1, 2, 3, 1, 2, 3], [7, 7, 2, 3])
    whole, parts = diagnostics.Tally((), 8, 8), diagnostics.Tally((), 8, 8)
    all_of = scores(given)
    for tally, slices in ((whole, [slice(0, 10)]), (parts, [slice(0, 6), slice(6, 10)])):
        for rows in slices:
            part = all_of.part(rows)
            tally.add(scores(given, teacher=False).part(rows), signatures.per_token(given, part, HEDGES))
    assert whole.means() == pytest.approx(parts.means())


def test_loops_are_long_and_short_of_words() -> None:
    given = rollouts([3, 4] * 40, list(range(80)), [3, 4] * 10)
    assert signatures.loops(given) == 1
    step = [1, 9, 2, 8, 3, 7, 4]
    assert signatures.is_loop([0] * 30 + step * 10) and not signatures.is_loop([w + i for i in range(12) for w in step])


def test_hedges_are_tokens_in_any_case_and_behind_a_blank() -> None:
    words = ["Ġwait", "Wait", "▁wait", "waiting", "but", "w"]
    assert signatures.ids(words, ["wait", "But"]) == [0, 1, 2, 4]
    with pytest.raises(ValueError, match=r"diagnose\.hedges: 'hmm' is no token of the student's vocabulary"):
        signatures.ids(words, ["hmm"])


def test_a_run_that_names_hedges_has_the_columns_and_otherwise_is_the_same_run(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    micro.teach(world)
    for arm in ("student", "teacher"):
        train.train(micro.load(world).spec(arm, 0))
    rows: dict[bool, Any] = {}
    for named in (False, True):
        asked = {"arms.sampled": {"diagnose.hedges": ["w00"]}} if named else {}
        spec = micro.load(world, micro.OPD, overrides=asked).spec("sampled", 0)
        rows[named] = train.train(replace(spec, folders=(tmp_path / str(named),))).frame("steps")
    added = {"hedge_share", "repeat_share", "repeated_advantage", "other_advantage", "looping_share"}
    assert set(rows[True]) - set(rows[False]) == added
    assert rows[True][list(rows[False])].equals(rows[False])
    assert rows[True][["hedge_share", "repeat_share", "looping_share"]].stack().between(0, 1).all()
