"""Whole runs: resumed ones equal unbroken ones bit for bit, two processes equal one, faults leave the record whole."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import micro
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from opd_lib.engine import checkpoint, memory, score, train
from opd_lib.engine.model import models
from opd_lib.engine.sampling import rollout_compiled
from opd_lib.params import RunSpec
from opd_lib.records import record, sealing
from opd_lib.records.writer import RunWriter
from opd_lib.run import plan, status
from opd_lib.tasks import chain
from opd_lib.types import Prompt, TokenScores

FILES = ("steps.csv", "evals.csv", "depth.csv", "problems.csv", "rollouts.jsonl")


@pytest.fixture
def trained(world: Path) -> Path:
    """The world with a student and a teacher that knows something."""
    micro.teach(world)
    for arm in ("student", "teacher"):
        train.train(micro.load(world).spec(arm, 0))
    return world


def distil(world: Path, results: str = "results", arm: str = "plain", **options: object) -> RunSpec:
    """An OPD run whose record goes to another results folder while its models stay where they are."""
    made = micro.load(world, micro.OPD).spec(arm, 0)
    spec = micro.load(world, micro.OPD, results, **options).spec(arm, 0)
    return type(spec)(**{name: getattr(spec, name) for name in spec.__slots__} | {"parents": made.parents})


class Stopped(BaseException):
    """Stands for a kill: no handler of ours sees it."""


def test_a_run_cut_at_any_step_resumes_to_the_same_bytes(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = distil(trained, "whole")
    train.train(whole)
    for cut in (1, 2, 3, 5):
        broken = distil(trained, f"cut{cut}")
        original = train.update

        def stop(run, rollouts, step, cut=cut, original=original):  # type: ignore[no-untyped-def]
            original(run, rollouts, step)
            if step == cut:
                raise Stopped

        monkeypatch.setattr(train, "update", stop)
        with pytest.raises(Stopped):
            train.train(broken)
        monkeypatch.setattr(train, "update", original)
        (broken.folder / "steps.csv").open("a").write("6,0.1")  # a torn line, as a kill may leave it
        present = record.read(broken.folder)
        assert present is not None and present.status == "running"
        assert train.train(broken).status == "finished"
        for name in FILES:
            assert (broken.folder / name).read_bytes() == (whole.folder / name).read_bytes(), (cut, name)
        digests = [models.weights_digest(models.load(spec.model_folder)[0]) for spec in (whole, broken)]
        assert digests[0] == digests[1]
        assert not (broken.folder / checkpoint.FILE).exists()


def killed(monkeypatch: pytest.MonkeyPatch, spec: RunSpec, name: str, place: object = train, after: int = 1) -> None:
    """Train a run until this function of a module has been called so many times, and stop it there."""
    original, calls = getattr(place, name), []

    def stop(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == after:
            raise Stopped
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, stop)
        with pytest.raises(Stopped):
            train.train(spec)


def test_gates_are_those_of_the_first_batch_however_often_a_run_is_resumed(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, middle, end = (distil(trained, name) for name in ("whole", "middle", "end"))
    expected = train.train(whole)
    assert {"teacher_entropy", "sampler_gap", "teacher_dependence", "prompt"} <= set(expected.gates)
    killed(monkeypatch, middle, "update", after=4)  # the last checkpoint is of step 2
    killed(monkeypatch, middle, "update", after=3)  # … of step 4
    killed(monkeypatch, end, "save", models)  # … of step 6, which is the last
    for spec in (middle, end):
        found = train.train(spec)
        assert found.gates == expected.gates and list(found.gates) == list(expected.gates)
        assert found.tables == expected.tables
    (end.folder / "run.json").unlink()
    assert train.train(end).gates == expected.gates


def test_a_resumed_run_refuses_what_does_not_go_with_its_checkpoint(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, spec = distil(trained, "whole"), distil(trained)
    train.train(whole)
    killed(monkeypatch, spec, "update", after=6)  # the last checkpoint is of step 4
    steps, evals = (spec.folder / f"{name}.csv" for name in ("steps", "evals"))
    for path in (steps, evals):
        content = path.read_bytes()
        lines = content.splitlines(keepends=True)
        for damaged in (b"".join([*lines[:2], *lines[3:]]), b"".join(lines[:2]), None):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises(ValueError, match=rf"{path.name}: corrupt table: .*delete"):
                train.train(spec)
            assert (path.read_bytes() if path.exists() else None) == damaged
        path.write_bytes(content)
    saved = torch.load(spec.folder / checkpoint.FILE)
    (spec.folder / "run.json").unlink()  # alone it does not make another run's checkpoint this run's
    other = distil(trained, overrides={"train.lr": 0.5})
    with pytest.raises(ValueError, match=r"\.checkpoint\.pt: a checkpoint of other parameters"):
        train.train(other)
    (spec.folder / "run.json").unlink()
    del saved["record"]  # as it was written before it kept anything of the record
    torch.save(saved, spec.folder / checkpoint.FILE)
    whole_steps = steps.read_bytes()
    steps.write_bytes(whole_steps.replace(b"\n2,", b"\n7,"))
    with pytest.raises(ValueError, match=r"steps\.csv: corrupt table"):
        train.train(spec)
    steps.write_bytes(whole_steps)
    assert train.train(spec).status == "finished"
    assert steps.read_bytes() == (whole.folder / "steps.csv").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are read from /proc")
def test_what_a_run_leaves_is_on_the_disk_before_it_is_relied_on(world: Path, disk: list[tuple[str, str]]) -> None:
    spec = micro.load(world).spec("student", 0)
    train.train(spec)
    named = [index for index, event in enumerate(disk) if event == ("name", ".checkpoint.pt.new → .checkpoint.pt")]
    assert len(named) == 3
    for begin, end in zip([0, *named], named, strict=False):
        before = disk[begin:end]
        assert {("sync", "steps.csv"), ("sync", "rollouts.jsonl"), ("sync", ".checkpoint.pt.new")} <= {*before}
        assert disk[end + 1] == ("sync", "seed0")  # the folder that holds the name
    model = disk.index(("name", ".model.new → model"))
    assert {("sync", "model.safetensors"), ("sync", "config.json"), ("sync", ".model.new")} <= {*disk[:model]}
    last = [name for kind, name in disk if kind == "name"][-1]
    assert last.endswith("→ run.json")  # progress of each step is not waited for, the end is
    assert len([event for event in disk if event == ("sync", "steps.csv")]) == len(named)


def test_a_finished_record_knows_its_tables(trained: Path) -> None:
    present = train.train(distil(trained))
    files = {path.name for path in (*present.folder.glob("*.csv"), *present.folder.glob("*.jsonl"))}
    assert present.tables == sealing.sealed(present.folder) and set(present.tables) == files
    read = record.read(present.folder)
    assert read is not None and read.tables == present.tables
    assert sealing.fault(read.folder, read.tables, verify=True) == ""


def test_the_same_run_twice_is_the_same_bytes_and_another_seed_is_not(trained: Path) -> None:
    one, two = distil(trained, "one"), distil(trained, "two")
    train.train(one)
    train.train(two)
    for name in FILES:
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    other = micro.load(trained).spec("student", 1)
    train.train(other)
    assert (other.folder / "steps.csv").read_bytes() != (
        micro.load(trained).spec("student", 0).folder / "steps.csv"
    ).read_bytes()


def test_a_record_says_what_it_was_made_of(trained: Path) -> None:
    spec = distil(trained)
    present = train.train(spec)
    assert present.identity == spec.identity
    assert present.parents == {role: parent.identity for role, parent in spec.parents.items()}
    assert set(present.provenance) >= {"commit", "python", "versions", "machine", "device", "lock", "student_weights"}
    assert set(present.gates) >= {"prompt", "prompt_sha256", "sampler_gap", "teacher_entropy", "teacher_dependence"}
    steps, evals = present.frame("steps"), present.frame("evals")
    assert list(steps["step"]) == [1, 2, 3, 4, 5, 6]
    assert sorted(set(evals["step"])) == [0, 3, 6]
    assert {"overlap_k4", "overlap_k16", "reverse_kl", "grad_norm"} <= set(steps.columns)
    assert steps["sampler_gap"].max() < 1e-3
    for example in present.examples():
        assert len(example["tokens"]) == len(example["student_logp"]) == len(example["teacher_logp"])


def test_sampled_token_runs_have_the_same_diagnostics(trained: Path) -> None:
    plain, sampled = (train.train(distil(trained, arm=arm)).frame("steps") for arm in ("plain", "sampled"))
    assert list(plain.columns) == list(sampled.columns)
    first = ["overlap_k16", "reverse_kl", "advantage_paper_k16", "student_entropy"]
    pd.testing.assert_series_equal(plain.iloc[0][first], sampled.iloc[0][first])  # same student, same rollouts
    assert plain["loss"].iloc[0] != sampled["loss"].iloc[0]


def test_a_finished_run_of_other_params_is_refused_and_untouched(trained: Path) -> None:
    spec = distil(trained)
    train.train(spec)
    before = {path.name: path.read_bytes() for path in spec.folder.iterdir() if path.is_file()}
    other = distil(trained, overrides={"train.lr": 0.5})
    with pytest.raises(ValueError, match=r"train\.lr: 0\.01 → 0\.5"):
        train.train(other)
    assert {path.name: path.read_bytes() for path in spec.folder.iterdir() if path.is_file()} == before


def test_one_process_at_a_time_writes_a_run(trained: Path) -> None:
    spec = distil(trained)
    with RunWriter(train.new_record(spec)), pytest.raises(ValueError, match="another process is writing this run"):
        train.train(spec)


def test_weights_that_are_not_finite_stop_the_run_before_a_step_and_leave_the_batch(trained: Path) -> None:
    spec = distil(trained, overrides={"train.lr": 1e30})
    with pytest.raises(ValueError, match=r"(loss|gradient norm|source).*") as error:
        train.train(spec)
    present = record.read(spec.folder)
    assert present is not None and present.status == "failed" and str(error.value) in present.error


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = distil(trained)
    original = score.Objective.value

    def poisoned(self: score.Objective, scores: TokenScores) -> Any:
        return original(self, scores) * float("nan")

    sampled = distil(trained, "sampled_results", arm="sampled")
    with monkeypatch.context() as patch:
        patch.setattr(train, "require_gates", lambda *_, **__: None)
        patch.setattr(score.Objective, "value", poisoned)
        with pytest.raises(ValueError, match=r"loss nan at step 1; the batch is in .*nonfinite_step1_rank0\.json"):
            train.train(sampled)
    batch = json.loads((sampled.folder / "nonfinite_step1_rank0.json").read_text())
    assert len(batch) == 8 and all(row["prompt"].startswith("<bos>") for row in batch)
    assert not (sampled.folder / checkpoint.FILE).exists() and not sampled.model_folder.exists()
    assert train.train(spec).status == "finished"


def test_a_reward_that_is_no_number_is_said_before_it_reaches_its_group(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpo = {"name": "grpo", "normalize_std": True, "epsilon": 1e-6}
    micro.change_arm(trained, micro.OPD, "rl", {"method": grpo, "teacher": None})
    original, asked = chain.grade, []

    def graded(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
        rewards = original(responses, prompts)
        asked.append(prompts[0].source)
        return [math.nan, *rewards[1:]] if prompts[0].source.startswith("chain-a") else rewards

    monkeypatch.setattr(chain, "grade", graded)
    with pytest.raises(ValueError, match=r"task\.content: 1 of 8 responses have no reward .* method grpo needs one"):
        train.train(distil(trained, arm="rl"))
    assert "chain-a" in asked


def test_kept_problems_are_answered_at_every_evaluation_and_change_nothing(trained: Path) -> None:
    kept, bare = distil(trained, "kept"), distil(trained, "bare", overrides={"machine.kept_problems": 0})
    assert kept.identity == bare.identity
    records = [train.train(spec) for spec in (kept, bare)]
    assert records[1].tokens() == []
    found = pd.DataFrame(records[0].tokens())
    steps = sorted(set(records[0].frame("evals")["step"]))
    assert found["step"].drop_duplicates().tolist() == steps and len(steps) > 2
    assert found.groupby("step").agg(tuple)[["test_set", "problem", "prompt"]].drop_duplicates().shape[0] == 1
    assert found["student_logp"].map(tuple).nunique() == len(found)  # the student changes
    files = [
        {path.name: path.read_bytes() for path in (*spec.folder.glob("*.csv"), *spec.model_folder.iterdir())}
        for spec in (kept, bare)
    ]
    assert files[0] == files[1]


def test_thinned_diagnostics_leave_training_and_the_other_columns_alone(trained: Path) -> None:
    whole = distil(trained, "whole")
    thin = distil(trained, "thin", overrides={"machine.diagnose_every": 4, "evaluate.every": 100})
    assert thin.identity != whole.identity  # evaluations are rarer; thinning itself does not count:
    assert distil(trained, "thin", overrides={"machine.diagnose_every": 4}).identity == whole.identity
    train.train(whole)
    train.train(thin)
    every, some = (pd.read_csv(spec.folder / "steps.csv").set_index("step") for spec in (whole, thin))
    always = ["loss", "grad_norm", "n_tokens", "response_length", "reward", "sampler_gap"]
    pd.testing.assert_frame_equal(every[always], some[always])
    last = whole.params.train.steps
    measured = [step for step in some.index if step == 1 or step % 4 == 0 or step == last]
    assert list(some.columns) == list(every.columns) and some["reverse_kl"].dropna().index.tolist() == measured
    pd.testing.assert_frame_equal(every.loc[measured], some.loc[measured])
    assert set(pd.read_csv(thin.folder / "depth.csv")["step"]) == set(measured)
    weights = [(spec.model_folder / "model.safetensors").read_bytes() for spec in (whole, thin)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("where", ["after the weights", "before the weights"])
def test_a_run_killed_while_it_ends_resumes_to_the_same_bytes(
    trained: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    whole, broken = distil(trained, "whole"), distil(trained, "broken")
    train.train(whole)
    original = models.save

    def stop(*arguments: object) -> None:
        if where == "after the weights":
            original(*arguments)  # type: ignore[arg-type]
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(models, "save", stop)
        with pytest.raises(Stopped):
            train.train(broken)
    assert train.train(broken).status == "finished"
    for name in FILES:
        assert (broken.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert sorted(path.name for path in broken.folder.iterdir()) == sorted(path.name for path in whole.folder.iterdir())


def test_a_corrupt_checkpoint_or_model_is_one_error(trained: Path) -> None:
    spec = distil(trained)
    spec.folder.mkdir(parents=True)
    (spec.folder / checkpoint.FILE).write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="corrupt checkpoint"):
        train.train(spec)
    (spec.folder / checkpoint.FILE).unlink()
    teacher = spec.parents["teacher"].model_folder / "model.safetensors"
    teacher.write_bytes(teacher.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot load a checkpoint from"):
        train.train(spec)


def test_a_teacher_with_a_smaller_vocabulary_is_refused_before_anything_is_scored(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = distil(trained)
    folder = spec.parents["teacher"].model_folder
    small = Qwen3Config.from_pretrained(folder)
    small.vocab_size = 60
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {word: i for word, i in tokenizer["model"]["vocab"].items() if i < 60}
    models.save(Qwen3ForCausalLM(small), models.chain_tokenizer(), folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="its vocabulary is not the student's"):
        train.train(spec)
    assert not (spec.folder / "evals.csv").exists()


def test_an_untrained_teacher_is_refused_at_the_start(world: Path) -> None:
    for arm in ("student", "teacher"):
        train.train(micro.load(world, overrides={"train.lr": 1e-9}).spec(arm, 0))
    spec = micro.load(world, micro.OPD)
    parents = micro.load(world, overrides={"train.lr": 1e-9})
    run = spec.spec("plain", 0)
    run = type(run)(
        **{name: getattr(run, name) for name in run.__slots__}
        | {"parents": {role: parents.spec(role, 0) for role in ("student", "teacher")}}
    )
    with pytest.raises(ValueError, match="learned nothing or lost its weights"):
        train.train(run)


def test_the_learning_rate_ramps_and_ends_where_it_says(world: Path) -> None:
    settings = (
        micro.load(world, overrides={"train.steps": 10, "train.warmup": 4, "train.decay": 5}).arms["student"].train
    )
    rates = [train.learning_rate(settings, step) / settings.lr for step in range(1, 11)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.process
def test_two_processes_make_the_same_steps_as_one(trained: Path) -> None:
    train.train(micro.load(trained, micro.OPD).spec("plain", 0))
    micro.change_arm(trained, micro.OPD, "plain", {"machine.processes": 2})
    results = trained / "parallel"
    results.mkdir()
    (results / "tiny").mkdir()
    (results / "tiny" / "00_models").symlink_to(trained / "results" / "tiny" / "00_models")
    words = ["run", micro.OPD, "plain", "0", "--results", str(results), "--params", str(trained / "params")]
    done = subprocess.run(
        [sys.executable, "-m", "opd_lib.command.cli", *words], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        pd.read_csv(root / "tiny" / micro.OPD / "plain" / "seed0" / "steps.csv")
        for root in (trained / "results", results)
    )
    assert list(one.columns) == list(two.columns)
    assert (one["n_tokens"] == two["n_tokens"]).all()
    exact = ["loss", "grad_norm", "overlap_k16", "reverse_kl", "student_entropy", "reward", "response_length"]
    pd.testing.assert_frame_equal(one[exact].head(1), two[exact].head(1), rtol=1e-6, atol=1e-9)
    pd.testing.assert_frame_equal(one[exact], two[exact], rtol=1e-3, atol=1e-5)


def test_a_compiled_sampler_makes_the_same_run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train.train(distil(trained))
    settings = {"backend": "eager", "dynamic": False, "fullgraph": True}  # captured, not compiled
    monkeypatch.setattr(rollout_compiled, "COMPILED", settings)
    micro.change_arm(trained, micro.OPD, "plain", {"machine.sampler": "compiled"})
    train.train(distil(trained, "compiled"))
    for name in ("steps.csv", "evals.csv", "problems.csv"):
        plain, compiled = (
            pd.read_csv(trained / results / "tiny" / micro.OPD / "plain" / "seed0" / name)
            for results in ("results", "compiled")
        )
        seconds = [column for column in plain if "second" in column or column == "sampler_gap"]
        pd.testing.assert_frame_equal(plain.drop(columns=seconds), compiled.drop(columns=seconds), rtol=1e-4, atol=1e-6)


def test_a_process_count_that_was_not_started_is_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match=r"machine\.processes: 2 asked for, 1 started"):
        train.train(distil(trained, overrides={"machine.processes": 2}))


def test_fewer_prompts_than_processes_are_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match=r"machine\.processes: 9"):
        micro.load(trained, micro.OPD, overrides={"machine.processes": 9})


def test_a_checkpoint_is_evaluated_as_it_is_and_handed_on_under_its_name(trained: Path) -> None:
    made = micro.load(trained).spec("teacher", 0)
    elsewhere = trained / "elsewhere"
    made.model_folder.rename(elsewhere)  # a checkpoint that no run of this world has made
    sampled = {"kind": "student", "prompts_per_step": 4, "per_prompt": 2, "max_new_tokens": 12, "schedule": []}
    changes = {"student": str(elsewhere), "train.steps": 0, "source": sampled | {"temperature": 1.0, "top_p": 1.0}}
    micro.change_arm(trained, micro.MODELS, "named", changes)
    micro.change_arm(trained, micro.OPD, "plain", {"teacher": f"run:{micro.MODELS}/named"})
    named = micro.load(trained).spec("named", 0)
    assert status.status([named])["steps"].tolist() == [1]
    present = train.train(named)
    assert (present.status, set(present.seconds)) == ("finished", {"evaluate"})
    assert present.frame("steps").empty and set(present.frame("evals")["step"]) == {0}
    as_taught = record.read(made.folder)
    assert as_taught is not None and present.provenance["student_weights"] != as_taught.provenance["student_weights"]
    digests = [models.weights_digest(models.load(place)[0]) for place in (elsewhere, named.model_folder)]
    assert digests[0] == digests[1] == present.provenance["student_weights"]
    assert plan.trained(named) and status.status([named])[["state", "step"]].values.tolist() == [["done", 1]]
    child = train.train(micro.load(trained, micro.OPD).spec("plain", 0))
    assert child.provenance["teacher_weights"] == digests[0] and child.parents["teacher"] == named.identity
    assert not list(named.folder.glob(".checkpoint*")) and not (named.folder / record.PROGRESS).exists()


def test_too_little_memory_is_said_before_anything_is_loaded(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = distil(trained)
    monkeypatch.setattr(memory, "free", lambda machine: 2.0**20)
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(
        ValueError, match=r"needs about .* GiB of cpu memory in each process, 0\.0 GiB are free"
    ) as error:
        train.train(spec)
    present = record.read(spec.folder)
    assert present is not None and present.status == "failed" and str(error.value) in present.error
    monkeypatch.undo()
    assert train.train(spec).status == "finished"  # as soon as there is room


def test_where_memory_is_short_activations_are_computed_again_to_the_same_bytes(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, short = distil(trained, "whole"), distil(trained, "short")
    train.train(whole)
    monkeypatch.setattr(memory, "require", lambda *_: True)
    enable, asked = Qwen3ForCausalLM.gradient_checkpointing_enable, []
    monkeypatch.setattr(
        Qwen3ForCausalLM, "gradient_checkpointing_enable", lambda *given: asked.append(given[1:]) or enable(*given)
    )
    assert train.train(short).status == "finished" and asked == [({"use_reentrant": False},)]
    for name in FILES:
        assert (short.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_a_kind_of_model_whose_costs_are_unknown_is_not_asked_for_its_memory(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    tokenizer = models.chain_tokenizer()
    other = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=len(tokenizer)))
    models.save(other, tokenizer, trained / "other")
    micro.change_arm(trained, micro.MODELS, "other", {"student": str(trained / "other"), "train.steps": 0})
    monkeypatch.setattr(memory, "free", lambda machine: 0.0)
    assert train.train(micro.load(trained).spec("other", 0)).status == "finished"
