"""Estimates: shapes without a hub, lengths, hours, memory against the machine asked for, and the printed plan."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import micro
import pytest
from test_redraw import WITHOUT_TORCH
from transformers import Qwen3Config

from opd_lib import params, paths
from opd_lib.engine import memory
from opd_lib.engine.model import models
from opd_lib.forecast import cost, hardware, hours, shapes
from opd_lib.forecast.footprint import GIB
from opd_lib.forecast.hours import Assumptions
from opd_lib.params import RunSpec
from opd_lib.params.schema import NewModel
from opd_lib.run import estimate, plan

H100, A100 = Assumptions(), Assumptions(accelerator=hardware.A100)
FILES = sorted(paths.PARAMS.glob("*/[0-9]*.yaml"))
BIG = ("paper", "gpu-math")


NOWHERE = paths.LOCAL / "no-records-here"


@cache
def runs(profile: str) -> tuple[RunSpec, ...]:
    """Every run of a profile and what it starts from."""
    names = [path.stem for path in FILES if path.parent.name == profile]
    return plan.with_parents(plan.all_runs(plan.experiments(names, profile, NOWHERE)))


@pytest.mark.parametrize("profile", sorted({path.parent.name for path in FILES}))
def test_every_run_of_every_profile_has_an_estimate_without_a_hub(profile: str) -> None:
    for spec in runs(profile):
        found = estimate.estimate(spec, H100)
        assert found.memory.total > 0 and found.host > 0
        timed = found.training + found.evaluation == found.training + found.evaluation
        assert timed == (profile in BIG) and (found.training > 0) == (timed and not spec.params.only_evaluates)
        assert (found.disk.peak == 0) == (spec.params.probe is not None)


@pytest.mark.parametrize("profile", BIG)
def test_machines_asked_for_suffice_by_the_estimate(profile: str) -> None:
    """hours for the paper's A100, host memory, and 80 GiB on each accelerator."""
    over = set()
    for spec in runs(profile):
        found, machine = estimate.estimate(spec, A100), spec.params.machine
        assert found.wall <= machine.hours <= max(3.0, 15 * found.wall) or spec.params.probe is not None, spec.name
        assert found.host / GIB <= machine.memory_gib, spec.name
        over |= set() if found.fits else {spec.arm}
    assert over == set()


def test_distillation_at_paper_scale_costs_what_others_report() -> None:
    """Per 200 steps: 18 to 24 H100-hours by a third party's step times; here between half of that and twice."""
    found = [estimate.estimate(spec, H100) for spec in runs("paper")]
    each = [e for e in found if e.spec.params.method["name"] == "opd" and e.spec.params.probe is None]
    mean = 200 * sum(e.training for e in each) / sum(plan.steps(e.spec) for e in each)
    assert 9 < mean < 48


def test_the_third_partys_steps_are_as_far_from_the_floor_as_the_plan_says(tmp_path: Path) -> None:
    """R1-Distill-1.5B from JustRL-1.5B, 256 responses of up to 7,168 tokens on one H100: 329 to 433 s."""
    experiment = params.load("02_new_knowledge", "paper", {"machine.processes": 1}, results=tmp_path)
    spec, limit = experiment.spec("justrl-small", 0), 7168
    mean = H100.mean(spec.params, limit)
    step = hours.step_of(spec.params, estimate.shapes(spec), H100, mean, limit, recompute=False)
    seconds = cost.floor(step, H100.accelerator).total
    assert [round(seconds / measured, 2) for measured in (433, 329)] == [0.15, 0.20]
    assert "15 to 20 % of the same floor, not 40" in estimate.PUBLISHED and H100.efficiency == 0.4


def test_hours_grow_with_limits_and_a_growing_limit_lies_between(tmp_path: Path) -> None:
    experiment = params.load("08_response_length", "paper", results=tmp_path)
    found = {arm: estimate.estimate(experiment.spec(arm, 0), H100).training for arm in experiment.arms}
    limits = [found[f"limit-{n}"] for n in (6, 12, 34, 80, 114, 171)]
    assert limits == sorted(limits) and len(set(limits)) == 6
    assert found["limit-34"] < found["growing"] < found["limit-171"]
    slower, twice = Assumptions(efficiency=0.2), estimate.estimate(experiment.spec("limit-80", 0), H100)
    assert estimate.estimate(experiment.spec("limit-80", 0), slower).training == pytest.approx(2 * twice.training)


def test_lengths_are_those_that_the_share_of_cut_responses_implies(tmp_path: Path) -> None:
    thinking = params.load("02_new_knowledge", "paper", results=tmp_path).arms["justrl-small"]
    spoken = params.load("02_new_knowledge", "paper", results=tmp_path).arms["nt-large"]
    assert H100.beyond(thinking, 7168) == 0.6 and H100.beyond(spoken, 7168) == 0.075
    assert H100.beyond(thinking, 0) == 1.0
    means = [H100.mean(thinking, limit) for limit in (512, 7168, 31_744)]
    assert means == sorted(means) and all(mean < limit for mean, limit in zip(means, (512, 7168, 31_744), strict=True))
    assert means[1] == pytest.approx(0.4 * H100.mean(thinking, 1e9))  # exponential: the cut share's complement
    assert H100.mean(spoken, 7168) < means[1]


@pytest.mark.parametrize(("steps", "every", "count"), [(200, 20, 11), (279, 93, 4), (10, 20, 2), (5, 2, 4)])
def test_evaluations_are_counted_as_the_loop_makes_them(tmp_path: Path, steps: int, every: int, count: int) -> None:
    changes = {"train.steps": steps, "evaluate.every": every}
    loaded = params.load("05_overlap_tokens", "paper", changes, results=tmp_path)
    assert hours.n_evaluations(loaded.arms["overlap"]) == count


@pytest.mark.parametrize("profile", ["tiny", "gpu"])
def test_new_models_have_the_parameters_of_their_shapes(profile: str) -> None:
    shapes = {}
    for params_of in params.load("00_models", profile).arms.values():
        if isinstance(params_of.student, NewModel):
            shapes[params_of.student.hidden] = params_of
    sizes = []
    for _, params_of in sorted(shapes.items()):
        shape, found = params_of.student, memory.new_shape(params_of)
        sizes.append(round(found.parameters / 1e6, 1 if profile == "tiny" else 0))
        if profile == "tiny":
            assert models.new_model(shape, 0, models.chain_tokenizer()).num_parameters() == found.parameters
    assert sizes == ([0.1, 0.2, 0.3, 0.7] if profile == "tiny" else [5, 11, 21, 53])


def test_a_runs_student_has_the_shape_of_what_it_started_from(tmp_path: Path) -> None:
    spec = params.load("06_cold_start", "paper", results=tmp_path).spec("sft", 0)
    assert estimate.shapes(spec) == {"student": hardware.QWEN3_1_7B, "teacher": hardware.QWEN3_4B}
    stored = params.load("00_models", "paper", results=tmp_path).spec("sft-small", 0)
    assert estimate.shapes(stored) == {"student": hardware.QWEN3_1_7B}


def test_a_folder_is_read_and_an_unknown_name_refused(tmp_path: Path) -> None:
    config = Qwen3Config(num_hidden_layers=2, hidden_size=64, num_attention_heads=2, num_key_value_heads=1, head_dim=32)
    config.save_pretrained(tmp_path / "mine")
    changes = {"student": str(tmp_path / "mine"), "teacher": str(tmp_path / "mine")}
    spec = params.load("05_overlap_tokens", "paper", changes, results=tmp_path / "results").spec("overlap", 0)
    shape = shapes.shape(json.loads((tmp_path / "mine" / "config.json").read_text()))
    assert shape.layers == 2 and shape.kv_width == 32
    assert estimate.shapes(spec) == memory.shapes(spec) == {"student": shape, "teacher": shape}
    unknown = params.load("05_overlap_tokens", "paper", {"student": "nobody/nothing"}, results=tmp_path / "results")
    said = r"paper/05_overlap_tokens\.yaml, arm overlap: student: nobody/nothing: no shape known for planning"
    with pytest.raises(ValueError, match=said):
        estimate.shapes(unknown.spec("overlap", 0))
    (tmp_path / "mine" / "config.json").write_text("[]")
    for read in (estimate.shapes, memory.shapes):
        with pytest.raises(ValueError, match=r"mine/config\.json: "):
            read(spec)


def test_enough_memory_keeps_activations_less_recomputes_them_too_little_is_refused(tmp_path: Path) -> None:
    small_cache = {"machine.sampler_cache_gib": 1.0}  # or sampling would need the most
    spec = params.load("02_new_knowledge", "paper", small_cache, results=tmp_path).spec("justrl-small", 0)
    shapes = estimate.shapes(spec)
    kept, again = (memory.needed(spec.params, shapes, 80 * GIB, flag).total for flag in (False, True))
    assert again < kept
    assert memory.require(spec, shapes, 1.001 * kept / memory.USABLE) is False
    assert memory.require(spec, shapes, 1.001 * again / memory.USABLE) is True
    with pytest.raises(ValueError, match=r"needs about .* GiB of cuda memory in each process.*what helps"):
        memory.require(spec, shapes, 0.999 * again / memory.USABLE)
    tiny = params.load("04_success_and_failure", "tiny", results=tmp_path).spec("large_success", 0)
    assert memory.require(tiny, estimate.shapes(tiny), 2.0 * GIB) is False
    with pytest.raises(ValueError, match=r"of cpu memory.*machine\.device: cuda"):
        memory.require(tiny, estimate.shapes(tiny), 2.0 * 2**20)


def test_a_checkpoint_as_it_is_costs_its_evaluation_alone(tmp_path: Path) -> None:
    changes = {"train.steps": 0, "machine.sampler": "transformers", "machine.shard": False, "machine.processes": 1}
    as_it_is = params.load("00_models", "paper", changes, results=tmp_path).spec("base-large-grpo", 0)
    trained = params.load("00_models", "paper", changes | {"train.steps": 93}, results=tmp_path)
    found, whole = (estimate.estimate(spec, H100) for spec in (as_it_is, trained.spec("base-large-grpo", 0)))
    assert found.training == 0 and whole.evaluation == pytest.approx(2 * found.evaluation) and found.evaluation > 0
    memory_of = found.memory
    assert 0 == memory_of.optimizer == memory_of.gradients == memory_of.activations == memory_of.logits
    assert memory_of.weights == whole.memory.weights == 4 * hardware.QWEN3_4B.parameters
    assert found.disk.checkpoints == 0 and found.disk.export == whole.disk.export == memory_of.weights


def test_only_a_large_teacher_is_spread(tmp_path: Path) -> None:
    experiment = params.load("04_success_and_failure", "paper", results=tmp_path)
    for arm, spread in (("large_success", False), ("large_failure", True)):
        spec = experiment.spec(arm, 0)
        setting = memory.setting(spec.params, estimate.shapes(spec), 80.0 * GIB, recompute=True)
        assert [is_spread for _, is_spread in setting.frozen] == [spread]


def test_the_machines_own_memory_is_shared_by_its_processes(tmp_path: Path) -> None:
    machine = params.load("04_success_and_failure", "tiny", results=tmp_path).arms["success"].machine
    one, two = memory.free(machine), memory.free(machine.model_copy(update={"processes": 2}))
    assert one > 0 and two == pytest.approx(one / 2, rel=0.2)


def test_the_plan_counts_every_run_once_and_stands_beside_the_published_budget(tmp_path: Path) -> None:
    names = [path.stem for path in FILES if path.parent.name == "paper"]
    text = estimate.plan_text(plan.experiments(names, "paper", tmp_path))
    specs = runs("paper")
    assert f"{len(names)} notebooks, {len(specs)} runs, of which {len(specs)} still to be done" in text
    assert all(text.count(f"{spec.name} ") == 1 for spec in specs)
    assert "500 to 650 H100-hours" in text and "GPU-hours" in text and "GB of finished weights" in text
    assert "Does not fit" not in text
    assert re.search(rf"^all +{len(specs)} ", text, re.MULTILINE)
    assert re.search(r"^00_models/distill-xlarge/seed0 +0 +8 +0\.0 ", text, re.MULTILINE)
    row = next(line for line in text.splitlines() if line.startswith("02_new_knowledge/justrl-small"))
    assert row.split()[1:3] == ["200", "8"]


@pytest.mark.process
def test_a_dry_run_needs_no_torch_and_starts_nothing(tmp_path: Path) -> None:
    words = ["reproduce", "--profile", "paper", "--dry-run", "--results", str(tmp_path / "results")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == estimate.plan_text(plan.experiments(plan.notebooks("paper"), "paper", tmp_path)) + "\n"
    assert not (tmp_path / "results").exists()


def test_the_plan_is_of_what_is_missing(world: Path) -> None:
    experiment = micro.load(world)
    for arm in ("student", "teacher"):
        micro.write_record(experiment.spec(arm, 0))
    text = estimate.plan_text([experiment])
    assert "1 notebook, 3 runs, of which 1 still to be done" in text
    assert "00_models/better" in text and "00_models/student" not in text
    micro.write_record(experiment.spec("better", 0))
    assert estimate.plan_text([experiment]) == "1 notebook, 3 runs, of which 0 still to be done."


def test_the_plan_of_a_tiny_profile_names_no_hours(tmp_path: Path) -> None:
    text = estimate.plan_text(plan.experiments(["04_success_and_failure"], "tiny", tmp_path))
    assert "No hours for runs on a CPU" in text and "GPU-hours." not in text


def test_a_hub_model_has_one_revision_everywhere_and_only_known_models_are_named() -> None:
    found: dict[str, set[str]] = {}
    for path in FILES:
        for line in path.read_text().splitlines():
            for name in re.findall(r"[\w-]+/[\w.-]+(?:@\w+)?", line.partition("#")[0]):
                if name.partition("@")[0] in hardware.HUB:
                    found.setdefault(name.partition("@")[0], set()).add(name.partition("@")[2])
    assert len(found) == 10 and all(len(revisions) == 1 for revisions in found.values())
    assert all(re.fullmatch(r"(?:[0-9a-f]{40})?", revision) for (revision,) in found.values())
