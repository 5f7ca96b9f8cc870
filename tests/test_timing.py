"""`opd time`: the loop's own step at given shapes, beside TRL's, with the floor and what memory was planned."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from opd_lib.bench import case, child, entrants, speed, targets, timed_step, timing, worker
from opd_lib.bench.case import Case
from opd_lib.engine.model import models
from opd_lib.forecast import hardware, shapes

HERE: dict[str, Any] = {
    "machine.device": "cpu",
    "machine.precision": "float32",
    "machine.sampler": "transformers",
    "train.micro_tokens": 60,
}
STUDENT = shapes.Shape(
    layers=2, hidden=32, intermediate=48, heads=4, kv_heads=2, head_dim=16, vocabulary=90, tied=True, qkv_bias=False,
    qk_norm=True,
)  # fmt: skip
TEACHER = replace(STUDENT, heads=2, kv_heads=1, vocabulary=97, tied=False, qkv_bias=True, qk_norm=False)


@pytest.fixture
def pair(tmp_path: Path) -> Case:
    """Two models of which only a config.json is there."""
    for name, shape in (("student", STUDENT), ("teacher", TEACHER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(case.config(shape)))
    return Case(
        entrant="ours, reverse KL", student=str(tmp_path / "student"), teacher=str(tmp_path / "teacher"),
        response=14, sequences=5, prompt=6, steps=2, overrides=HERE,
    )  # fmt: skip


def test_the_step_is_that_of_plain_torch_on_all_responses_at_once(pair: Case) -> None:
    """Loss and gradient norm, although it goes in three micro-batches; the second step is at other weights."""
    first, second = timed_step.measure(pair)
    shapes = {role: replace(shape, vocabulary=90) for role, shape in (("student", STUDENT), ("teacher", TEACHER))}
    assert pair.shapes() == shapes
    run = timed_step.prepared(pair, pair.spec(), recompute=False)
    rollouts, short = timed_step.given(pair, 90, 5, 14), timed_step.given(pair, 90, 1, timed_step.WARM)
    timed_step.train.update(run, short, 2)
    student, teacher = run.student[0], run.teacher and run.teacher[0]
    assert isinstance(teacher, torch.nn.Module)
    token_BL = torch.cat([torch.tensor([p.token_ids for p in rollouts.prompts]), rollouts.response_BT], 1)
    logp, logq = (model(input_ids=token_BL).logits[:, 5:-1].log_softmax(-1) for model in (student, teacher))
    loss = entrants.reverse_kl(logp, logq).mean()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(student.parameters(), 1e9)
    assert first["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert first["norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert second["loss"] != first["loss"] and min(first["loss"], first["norm"]) > 1e-4
    assert (first["step"], second["step"], first["recompute"], first["response"]) == (0, 1, False, 14)
    assert all(first[f"{stage}_s"] > 0 for stage in ("score", "backward", "optimize")) and "rollout_s" not in first
    if worker.STATUS.exists():
        assert 0.1 < first["peak_gib"] < 8 and 0 < first["planned_gib"] < 1


def test_sampling_is_timed_by_itself(pair: Case) -> None:
    rows = list(timed_step.measure(replace(pair, entrant=case.SAMPLING)))
    assert [row["step"] for row in rows] == [0, 1]
    for row in rows:
        assert row["rollout_s"] > 0 and 5 <= row["written"] <= 5 * 14
        assert not {"score_s", "loss", "norm"} & set(row)


def test_a_models_weights_are_random_and_of_its_shape() -> None:
    for shape in (STUDENT, TEACHER):
        one, other, same = (timed_step.random_model(shape, 30, seed, "cpu", torch.float32) for seed in (1, 2, 1))
        assert shapes.shape(one.config.to_dict()) == shape and one.num_parameters() == shape.parameters
        assert models.weights_digest(one) == models.weights_digest(same) != models.weights_digest(other)


def test_objectives_are_those_of_the_benchmark(pair: Case) -> None:
    losses = {}
    for name, objective in case.ENTRANTS.items():
        spec = replace(pair, entrant=name).spec()
        assert spec.params.method == {"name": "opd"} | entrants.OBJECTIVES[objective]
        assert spec.params.source.kind == "student" and spec.params.source.max_new_tokens == 14
        if name not in (case.SAMPLING, targets.TRL):
            losses[name] = next(timed_step.measure(replace(pair, entrant=name)))["loss"]
    assert len(set(losses.values())) == 3


def test_the_floor_is_that_of_the_device_by_its_name() -> None:
    """Qwen3-1.7B from Qwen3-4B, 256 responses of 2,048 tokens on an H200, by hand."""
    qwen = Case(
        entrant="ours, published", student="Qwen/Qwen3-1.7B", teacher="Qwen/Qwen3-4B", response=2048, overrides={}
    )
    update = case.floor(qwen, "NVIDIA H200")
    assert update == pytest.approx(4.9 + 6.2, abs=0.1)
    sampling = replace(qwen, entrant=case.SAMPLING)
    assert case.floor(sampling, "NVIDIA H200") == pytest.approx(1.47 + 14.7, abs=0.1)  # the longest is the mean here
    sparse = case.floor(replace(qwen, entrant="ours, Eq. 5"), "NVIDIA H200")
    heads = 2 * 151_936 * (2 * 2048 + 2560) * 256 * 2048 / 989e12  # the student's is passed once, the teacher's never
    assert update - sparse == pytest.approx(heads, rel=0.01)
    assert case.floor(sampling, "NVIDIA H100 80GB HBM3") > case.floor(sampling, "NVIDIA H200")
    assert math.isnan(case.floor(qwen, "cpu"))
    names = {"NVIDIA A100-SXM4-80GB": hardware.A100, "NVIDIA H100 80GB HBM3": hardware.H100}
    others = ("NVIDIA RTX A1000", "NVIDIA GH200 480GB", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-40GB", "NVIDIA H200 NVL")
    assert {name: hardware.accelerator(name) for name in (*names, *others)} == names | dict.fromkeys(others)


@pytest.mark.process
def test_rows_are_added_and_a_failure_is_one_error(pair: Case, tmp_path: Path) -> None:
    path = tmp_path / "new" / speed.SHAPES
    timing.carry_out([pair], path)
    broken = replace(pair, overrides=HERE | {"machine.device": "cuda"})
    if not torch.cuda.is_available():
        with pytest.raises(
            ValueError, match=r"ours, reverse KL, .*student from .*14 tokens: machine.device: cuda, but"
        ):
            timing.carry_out([broken, replace(pair, steps=1, response=9)], path)
    timing.carry_out([replace(pair, steps=1, overrides=HERE | {"train.lr": 1e-3})], path)
    table = speed.shapes(path.parent)
    assert table["pair"].unique().tolist() == ["student ← teacher"] and table["response"].tolist() == [14, 9, 14]
    rows = pd.read_csv(path)
    assert len(rows) == 4 and set(asdict(pair)) - {"steps"} <= set(rows)
    seconds = rows[rows["response"] == 9].iloc[0]
    update = sum(seconds[f"{stage}_s"] for stage in ("score", "backward", "optimize", "diagnose"))
    assert table["seconds"][1] == pytest.approx(update) and table["tokens/s"][1] == pytest.approx(45 / update)
    assert table["loss"][0] == pytest.approx(rows[rows["response"] == 14]["loss"][:2].mean())


def test_the_compiled_sampler_and_lower_precision_take_part(pair: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command does unless told otherwise, but that the graph is captured without being compiled."""
    from opd_lib.engine.sampling import rollout_compiled

    monkeypatch.setattr(rollout_compiled, "COMPILED", {"backend": "eager", "dynamic": False, "fullgraph": True})
    skipped = timed_step.graphs_skipped()  # in this process, by other tests
    precise = next(timed_step.measure(pair))
    chosen = HERE | {"machine.precision": "bfloat16", "machine.sampler": "compiled"}
    sampled = next(timed_step.measure(replace(pair, entrant=case.SAMPLING, overrides=chosen)))
    assert 5 <= sampled["written"] <= 70 and sampled["graphs_skipped"] == skipped and sampled["rollout_s"] > 0
    row = next(timed_step.measure(replace(pair, overrides=chosen)))
    assert row["loss"] != precise["loss"] and row["loss"] == pytest.approx(precise["loss"], rel=0.05)
    assert json.loads(row["overrides"]) == chosen


def test_trl_finds_our_loss_and_norm(pair: Case) -> None:
    pytest.importorskip("trl", reason="needs the extra bench")
    ours, theirs = (list(timed_step.measure(replace(pair, entrant=name))) for name in ("ours, reverse KL", targets.TRL))
    for mine, its in zip(ours, theirs, strict=True):
        assert its["loss"] == pytest.approx(mine["loss"], rel=1e-5)
        assert its["norm"] == pytest.approx(mine["norm"], rel=1e-5)


def test_where_no_table_can_be_written_nothing_is_timed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "steps.csv", tmp_path / "file" / "below" / "steps.csv"):
        with pytest.raises(ValueError, match=rf"^{place}: cannot be written .*--results"):
            child.require_writable(place)
    child.require_writable(tmp_path / "new" / "steps.csv")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "new" / "steps.csv").write_text("a\n")
    child.require_writable(tmp_path / "new" / "steps.csv")
    assert (tmp_path / "new" / "steps.csv").read_text() == "a\n"


def test_what_cannot_be_timed_is_refused(pair: Case) -> None:
    with pytest.raises(ValueError, match="entrant: 'me' is not known; choose from ours, sampling"):
        replace(pair, entrant="me").require()
    with pytest.raises(ValueError, match="org/none: no shape known"):
        replace(pair, teacher="org/none").require()
    with pytest.raises(ValueError, match=r"train\.lr"):
        replace(pair, overrides={"train.lr": -1.0}).require()
    pair.require()
