"""The benchmark: everybody here does the same work, and the tables say what was measured."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from opd_lib.bench import command, compare, entrants, speed, stages, targets, worker
from opd_lib.bench.workload import Size, Workload
from opd_lib.command.cli import app
from opd_lib.records.durable import write_json

linux = pytest.mark.skipif(not worker.STATUS.exists(), reason="memory is read from Linux's /proc")
SMALL = Size(vocabulary=60, sequences=3, prompt=4, response=7, layers=2, student=16, teacher=24)


def outcome(name: str) -> tuple[float, float]:
    """Loss and gradient norm of the first step."""
    work = Workload(SMALL)
    loss, backward = entrants.ENTRANTS[name].make(work)()
    backward()
    return loss, work.step()


@pytest.mark.parametrize(
    "pair", [("ours", "naive"), ("ours, published objective", "naive, published objective")], ids=lambda pair: pair[0]
)
def test_within_an_objective_we_find_the_loss_and_gradient_of_plain_torch(pair: tuple[str, str]) -> None:
    ours, plain = map(outcome, pair)
    assert ours == pytest.approx(plain, rel=1e-5)
    assert ours[0] > 0.01 and ours[1] > 0.01


def test_objectives_differ() -> None:
    """So agreement within one says something."""
    losses = [outcome(name)[0] for name in ("ours", "ours, published objective", "ours, Eq. 5")]
    assert min(abs(a / b - 1) for i, a in enumerate(losses) for b in losses[:i]) > 0.05


def test_with_rollouts_the_tokens_are_those_that_were_sampled() -> None:
    work = Workload(SMALL)
    step = entrants.ENTRANTS["ours, with rollout"].make(work)
    loss, backward = step()
    backward()
    assert SMALL.sequences <= work.produced <= SMALL.tokens and math.isfinite(loss)


def test_what_did_other_work_does_not_enter_the_table() -> None:
    facts = {"objective": "reverse KL", "vocabulary": 60, "tokens": 21, "round": 0}
    known = [{key: str(value) for key, value in (facts | {"entrant": "ours", "loss": 0.5, "norm": 2.0}).items()}]
    known.append(known[0] | {"loss": "0.4"})  # its second step
    theirs = facts | {"entrant": "theirs", "loss": 0.5, "norm": 2.0}
    compare.require_same_work([theirs | {"norm": 2.00001}], known)
    compare.require_same_work([theirs | {"loss": 0.6, "vocabulary": 70}], known)
    for wrong in ({"loss": 0.50002}, {"norm": 1.9}, {"loss": math.nan}):
        with pytest.raises(ValueError, match=r"theirs, V 60, T 21: .* did not do the same work"):
            compare.require_same_work([theirs | wrong], known)


@linux
def test_a_step_is_measured_from_equal_weights() -> None:
    before = Workload(SMALL).student.state_dict()
    one, two = worker.measure("ours", SMALL, warm=0, steps=2)
    assert one.loss == pytest.approx(outcome("ours")[0], rel=1e-6)  # bringing the moments into being moved no weight
    assert two.loss != one.loss and one.cpu_s > 0 and one.peak_mib > one.step_mib >= 0
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), Workload(SMALL).student.state_dict().values(), strict=True)
    )


@linux
@pytest.mark.process
def test_a_benchmark_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = compare.Stage(size=SMALL, entrants=("ours", "naive"), rounds=1, steps=2)
    path = tmp_path / "new" / "steps.csv"
    compare.carry_out([stage], path)
    first = path.read_bytes()
    assert len(speed.read(path.parent)) == 4
    compare.carry_out([stage], path)
    assert path.read_bytes() == first
    compare.carry_out([replace(stage, rounds=2)], path)
    assert path.read_bytes().startswith(first) and len(speed.read(path.parent)) == 8
    assert capsys.readouterr().out.count("ours") == 2
    found = speed.agreement(speed.read(path.parent))
    assert found["entrants"].tolist() == [2] and float(found["loss"][0]) < 1e-5 and float(found["norm"][0]) < 1e-5


@linux
@pytest.mark.process
def test_an_entrant_that_fails_is_one_error(tmp_path: Path) -> None:
    impossible = compare.Stage(size=replace(SMALL, student=2), entrants=("ours",), rounds=1, steps=1)
    with pytest.raises(ValueError, match=r"ours at Size\(vocabulary=60.*student=2,"):
        compare.carry_out([impossible], tmp_path / "steps.csv")
    assert not (tmp_path / "steps.csv").exists()


# --- tables


def steps(**changes: float) -> pd.DataFrame:
    """Two entrants, three sizes, two rounds of two steps: ours takes 2 s and 100 MiB, theirs 4 s and 400, per 1,000."""
    rows = []
    for entrant, seconds, mib in (("ours", 2.0, 100.0), ("TRL", 4.0, 400.0)):
        for tokens in (1000, 2000, 4000):
            for number in range(4):
                rows.append({
                    "entrant": entrant, "objective": "reverse KL", "vocabulary": 50, "tokens": tokens,
                    "round": number // 2, "produced": tokens, "wall_s": 1.0, "peak_mib": 1.0,
                    "cpu_s": (seconds + 0.1 * number) * tokens / 1000, "step_mib": mib * tokens / 1000 + 7,
                    "loss": 1.5, "norm": 2.0,
                })  # fmt: skip
    return pd.DataFrame(rows).assign(cpu_per_token=1.0, **changes)


TARGET = targets.Target(measure="time", column="cpu_s", ours="ours", peers=("nobody", "TRL"), at=(50, 4000), target=0.5)


def test_a_ratio_is_of_medians_with_the_rounds_spread() -> None:
    (row,) = targets.ratios(steps(), [TARGET]).to_dict("records")
    assert row["ours"] == pytest.approx(4 * 2.15) and row["theirs"] == pytest.approx(4 * 4.15) and row["peer"] == "TRL"
    assert row["ratio"] == pytest.approx(2.15 / 4.15) and row["met"] == "no"
    assert row["spread"] == f"{2.05 / 4.05:.2f} to {2.25 / 4.25:.2f}"
    (met,) = targets.ratios(steps(), [replace(TARGET, target=0.52)]).to_dict("records")
    assert met["met"] == "yes"
    assert targets.ratios(steps(), [replace(TARGET, peers=("nobody",))]).empty


def test_growth_is_between_the_two_largest_sizes() -> None:
    ours, theirs = speed.growth(steps()).to_dict("records")
    assert (ours["from"], ours["to"]) == (2000, 4000)
    assert ours["exponent"] == pytest.approx(1.0) and ours["seconds_per_1000"] == pytest.approx(2.15)
    assert ours["kib_per_token"] == pytest.approx(102.4) and theirs["kib_per_token"] == pytest.approx(409.6)
    wide = steps(vocabulary=200)
    found = speed.growth_by_vocabulary(pd.concat([steps(), wide[wide["entrant"] == "ours"]]))
    assert found[["series", "vocabulary"]].to_numpy().tolist() == [["ours", 50], ["ours", 200]]


def test_against_itself_time_is_proportional_and_memory_knows_no_vocabulary() -> None:
    wide = steps(vocabulary=200)
    wide["cpu_s"] *= 4
    whole = pd.DataFrame({"measure": ["wall", "cpu"], "seconds": [960.0, 1.0]})
    found = targets.against_itself(pd.concat([steps(), wide]), whole)
    assert found["met"].tolist() == ["yes", "yes", "no"] and found["ratio"].tolist() == pytest.approx(
        [1.0, 1.0, 16 / 15]
    )
    wide["step_mib"] *= 1.2
    wide["cpu_s"] **= 1.3
    assert targets.against_itself(pd.concat([steps(), wide]), whole)["met"].tolist() == ["no", "no", "no"]


def test_what_nobody_can_leave_out_bounds_the_missed_ratios(tmp_path: Path) -> None:
    rows = [
        ("ours, published objective", "published", speed.LARGEST, 9.0, 3000.0, 1200.0),
        (targets.NAIVE_PUBLISHED, "published", speed.LARGEST, 9.0, 9000.0, 7000.0),
        (targets.TRL, "reverse KL", speed.LARGEST, 9.0, 8000.0, 6000.0),
        ("ours", "reverse KL", speed.TINY, 3.0, 1.0, 1.0),
        ("naive", "reverse KL", speed.TINY, 2.0, 1.0, 1.0),
        ("ours, Eq. 5", "Eq. 5", speed.TINY, 1.0, 1.0, 1.0),
        ("ours, with rollout", speed.OWN_RESPONSES, speed.TINY, 4.0, 1.0, 1.0),
        ("TRL, with rollout", speed.OWN_RESPONSES, speed.TINY, 5.0, 1.0, 1.0),
    ]
    named = [
        {
            "entrant": entrant, "objective": objective, "vocabulary": size[0], "tokens": size[1], "produced": size[1],
            "hidden": "256, 512", "sequences": 64, "round": 0, "cpu_s": seconds, "wall_s": seconds, "peak_mib": peak,
            "step_mib": step,
        }
        for entrant, objective, size, seconds, peak, step in rows
    ]  # fmt: skip
    growing = steps().assign(hidden="8, 8", sequences=1)
    pd.concat([pd.DataFrame(named), growing, growing.assign(vocabulary=200)]).to_csv(tmp_path / speed.STEPS)
    pd.DataFrame({"measure": ["wall"], "seconds": [1200.0]}).to_csv(tmp_path / speed.WHOLE)
    stages = {"notebook": "a", "stage": ["score", "rollout"], "seconds": [1440.0, 720.0]}
    pd.DataFrame(stages).to_csv(tmp_path / speed.STAGES)
    peak, whole, minutes = targets.bounds(tmp_path).to_dict("records")
    assert peak["amount"] == pytest.approx(1800 + 4 * 151_936 * 256 * 4 / 2**20) and peak["theirs"] == 9000
    assert (whole["ratio"], whole["reached"], whole["target"]) == pytest.approx((2 / 5, 4 / 5, 1 / 3))
    assert (minutes["amount"], minutes["ratio"], minutes["reached"]) == pytest.approx((18.0, 18 / 15, 20 / 15))
    wider = [row | {"tokens": speed.WIDER[1], "produced": speed.WIDER[1], "cpu_s": 8 * row["cpu_s"]} for row in named]
    measured = pd.read_csv(tmp_path / speed.STEPS, index_col=0)
    at_wider = pd.DataFrame([row for row in wider if row["vocabulary"] == speed.WIDER[0]])
    compiled = at_wider[at_wider["entrant"] == "naive"].assign(entrant="naive, compiled", cpu_s=12.0)
    pd.concat([measured, at_wider, compiled]).to_csv(tmp_path / speed.STEPS)
    whole = targets.bounds(tmp_path).to_dict("records")[1]
    assert (whole["ratio"], whole["reached"]) == pytest.approx((12 / 40, 4 / 5))  # those who compile take part there


def test_in_the_committed_benchmark_no_bound_is_above_what_was_reached() -> None:
    found = targets.bounds(speed.place("tiny", None))
    assert (found["ratio"] < found["reached"]).all() and (found["reached"] > found["target"]).all()


def test_other_work_shows_in_the_table_of_agreement() -> None:
    frame = steps()
    frame.loc[(frame["entrant"] == "TRL") & (frame["tokens"] == 2000), "norm"] = 2.02
    found = speed.agreement(frame).set_index("tokens")
    assert found["norm"].map(float).tolist() == [0.0, 0.01, 0.0] and found["loss"].map(float).tolist() == [0.0] * 3


def test_in_the_committed_benchmark_everybody_did_the_same_work() -> None:
    found = speed.agreement(speed.read(speed.place("tiny", None)))
    assert entrants.WHOLE == speed.OWN_RESPONSES not in set(found["objective"])
    assert found["entrants"].max() >= 6 and found[["loss", "norm"]].astype(float).max(axis=None) < 1e-5


def test_repetitions_are_numbered_within_what_a_figure_compares() -> None:
    assert speed.at(steps(), (50, 1000)).groupby("arm")["seed"].apply(list).tolist() == [[0, 1, 2, 3]] * 2
    several = speed.growing(steps(), 50)
    assert not several.duplicated(["series", "seed", "tokens"]).any() and len(several) == 24
    assert speed.by_vocabulary(steps()).empty


def test_measurements_that_are_not_there_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"steps\.csv: no such file; `make bench` measures it"):
        speed.read(tmp_path)


def test_a_benchmark_that_lacks_its_packages_or_a_place_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "carry_out", lambda *args: pytest.fail("something was measured"))
    (tmp_path / "file").write_text("mine")
    for missing, said in (({"trl"}, "needs trl; say `make bench`"), (set(), "file/steps.csv: cannot be written")):
        monkeypatch.setattr(command, "find_spec", lambda name, missing=missing: None if name in missing else name)
        result = CliRunner().invoke(app, ["bench", "--results", str(tmp_path / "file")])
        assert result.exit_code == 1 and said in result.stderr
    for words in (["--jobs", "0"], ["--seed", "-1"]):
        assert CliRunner().invoke(app, ["bench", *words]).exit_code == 2
    result = CliRunner().invoke(app, ["bench", "--stages-of", str(tmp_path), "--results", str(tmp_path)])
    assert result.exit_code == 1 and f"{tmp_path}: no record of seed 0" in result.stderr


def test_seconds_are_summed_by_notebook_and_stage(tmp_path: Path) -> None:
    for notebook, arm, seconds in (("01_a", "x", 2.0), ("01_a", "y", 3.0), ("02_b", "x", 5.0)):
        folder = tmp_path / notebook / arm / "seed3"
        folder.mkdir(parents=True)
        names = {"experiment": notebook, "profile": tmp_path.name, "arm": arm, "seed": 3, "identity": "0" * 16}
        content = names | {"status": "finished", "params": {}, "parents": {}}
        write_json(folder / "run.json", content | {"seconds": {"score": seconds, "rollout": 1.0}})
    with pytest.raises(ValueError, match="no record of seed 4; train it first: make reproduce SEEDS=4,"):
        stages.write(tmp_path, 4, tmp_path / "stages.csv")
    stages.write(tmp_path, 3, tmp_path / "stages.csv")
    found = speed.stages(tmp_path)
    table = speed.by_notebook(found).set_index("notebook")
    assert table.loc["01_a"].to_dict() == {"rollout": 2.0, "score": 5.0, "all": 7.0} and table.loc["all", "all"] == 13.0
    shares = speed.share_of_stages(found).set_index("arm")["share"]
    assert shares["score"] == pytest.approx(10 / 13) and shares.sum() == pytest.approx(1.0)


def test_the_table_is_drawn_with_its_targets() -> None:
    promised = pd.concat([targets.ratios(steps(), [TARGET]), pd.DataFrame([{
        "measure": "growth", "peer": "none", "ratio": 1.2, "target": 1.1, "spread": "",
    }])], ignore_index=True)  # fmt: skip
    drawn = targets.drawn(promised)
    assert drawn["label"].tolist() == ["time / TRL", "growth / none"] and drawn["target"].tolist() == [0.5, 1.1]
    assert (drawn["low"][0], drawn["high"][0]) == (0.51, 0.53) and drawn[["low", "high"]].loc[1].isna().all()
