"""Signatures of a collapse: by hand, over micro-batches, and as columns of a run."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import pytest
import torch
from conftest import make_world

from opd_lib.engine import collapse, train
from opd_lib.maths import diagnostics, signatures
from opd_lib.records import record
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
    found = means(signatures.per_token(signatures.repeats(given), scores(given), HEDGES))
    assert found["hedge_share"] == pytest.approx(1 / 10) and found["repeat_share"] == pytest.approx(1 / 10)
    assert found["repeated_advantage"] == pytest.approx(5.0)
    assert found["other_advantage"] == pytest.approx((sum(range(10)) - 5) / 9)
    without = signatures.per_token(signatures.repeats(given), scores(given, teacher=False), HEDGES)
    assert set(without) == {"hedge_share", "repeat_share"}


def test_nothing_repeated_has_no_advantage() -> None:
    given = rollouts([1, 2, 3])
    tally = diagnostics.Tally((), 8, 8)
    tally.add(scores(given, teacher=False), signatures.per_token(signatures.repeats(given), scores(given), HEDGES))
    assert math.isnan(tally.means()["repeated_advantage"])


def test_micro_batches_add_up() -> None:
    given = rollouts([1, 2, 3, 1, 2, 3], [7, 7, 2, 3])
    whole, parts = diagnostics.Tally((), 8, 8), diagnostics.Tally((), 8, 8)
    all_of = scores(given)
    for tally, slices in ((whole, [slice(0, 10)]), (parts, [slice(0, 6), slice(6, 10)])):
        for rows in slices:
            part = all_of.part(rows)
            tally.add(
                scores(given, teacher=False).part(rows), signatures.per_token(signatures.repeats(given), part, HEDGES)
            )
    assert whole.means() == pytest.approx(parts.means())


def test_loops_are_long_and_short_of_words() -> None:
    given = rollouts([3, 4] * 40, list(range(80)), [3, 4] * 10)
    assert signatures.loops(given) == 1
    step = [1, 9, 2, 8, 3, 7, 4]
    assert signatures.is_loop([0] * 30 + step * 10) and not signatures.is_loop([w + i for i in range(12) for w in step])


def test_hedges_are_tokens_in_any_case_and_behind_a_blank() -> None:
    words = ["Ġwait", "Wait", "▁wait", "waiting", "but", "w"]
    assert signatures.ids(words, ["wait", "But"], "diagnose.hedges") == [0, 1, 2, 4]
    with pytest.raises(ValueError, match=r"diagnose\.hedges: 'hmm' is no token of the student's vocabulary"):
        signatures.ids(words, ["hmm"], "diagnose.hedges")


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


# --- the watch --------------------------------------------------------------------------------------------------------


def course(**ends: float) -> list[dict[str, float]]:
    """20 steps that begin alike; the named columns go in a line from the sixth on."""
    start = {"overlap_k8": 0.8, "response_length": 40.0, "hedge_share": 0.02, "truncated_share": 0.0, "loss": 0.1}
    share = [max(0.0, (step - 5) / 15) for step in range(1, 21)]
    return [
        {"step": step, **{name: v + w * (ends.get(name, v) - v) for name, v in start.items()}}
        for step, w in zip(range(1, 21), share, strict=True)
    ]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ({}, ""),
        ({"overlap_k8": 0.1}, ""),  # alone it is no collapse
        ({"overlap_k8": 0.9, "response_length": 20.0}, ""),  # the good way
        ({"loss": -5.0, "hedge_share": 0.03}, ""),
        ({"overlap_k8": 0.4, "response_length": 80.0}, "overlap_k8 0.8 → .*; response_length 40 → "),
        ({"hedge_share": 0.2, "truncated_share": 1.0}, "hedge_share 0.02 → .*; truncated_share 0 → "),
    ],
)
def test_two_signatures_together_are_said_once(ends: dict[str, float], said: str) -> None:
    watch = collapse.Watch()
    found = [text for row in course(**ends) if (text := watch.see(row))]
    assert len(found) == bool(said) and all(re.match(rf"step \d+: signs of a collapse: {said}", text) for text in found)


def test_a_watch_sees_a_collapse_between_steps_without_diagnostics() -> None:
    rows = course(overlap_k8=0.4, response_length=80.0)
    bare = {"step": 0, "response_length": 40.0, "loss": 0.1}
    plain, thinned = collapse.Watch(), collapse.Watch()
    said = [text for row in rows if (text := plain.see(row))]
    seen = [text for row in rows for each in (row, bare) if (text := thinned.see(each))]
    assert seen == said != []


def test_a_watch_goes_on_from_the_rows_of_a_run_that_was_killed() -> None:
    rows = course(overlap_k8=0.4, response_length=80.0)
    whole = collapse.Watch()
    steps = [row["step"] for row in rows if whole.see(row)]
    for killed_after in (2, 6, 19):
        resumed = collapse.Watch(rows[:killed_after])
        again = [row["step"] for row in rows[killed_after:] if resumed.see(row)]
        assert again == [step for step in steps if step > killed_after]


def test_a_run_warns_or_stops_as_the_machine_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path)
    micro.teach(world)
    for arm in ("student", "teacher"):
        train.train(micro.load(world).spec(arm, 0))
    monkeypatch.setattr(collapse, "STEPS", 1)
    monkeypatch.setattr(collapse, "BOUNDS", {"loss": (-1.0, 1e9), "grad_norm": (-1.0, 1e9)})

    def run(folder: str, **machine: Any) -> Any:
        asked = {"arms.sampled": {"diagnose.hedges": ["w00"], **machine}}
        spec = micro.load(world, micro.OPD, overrides=asked).spec("sampled", 0)
        return replace(spec, folders=(tmp_path / folder,))

    with pytest.warns(UserWarning, match=r"sampled/seed0: step 2: signs of a collapse: loss .*; grad_norm"):
        whole = train.train(run("warned"))
    assert whole.status == "finished" and len(whole.frame("steps")) == 6
    stopped = run("stopped", **{"machine.stop_on_collapse": True})
    with pytest.raises(ValueError, match=r"it stops here, as machine\.stop_on_collapse says"):
        train.train(stopped)
    present = record.read(stopped.folder)
    assert present is not None and present.status == "failed" and present.identity == whole.identity
