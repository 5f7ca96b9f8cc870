"""Notebooks through papermill, everything through Snakemake: finished means finished, nothing outlives its caller."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import conftest
import micro
import nbformat
import psutil
import pytest

from opd_lib import params, paths
from opd_lib.batch import cluster, execute, jobs, workflow
from opd_lib.batch.cluster import Slurm
from opd_lib.params import RunSpec
from opd_lib.records import record
from opd_lib.run import guard, meter, plan, processes
from opd_lib.run.status import is_locked

pytestmark = pytest.mark.process


def snakemake() -> Path | None:
    try:
        return workflow.find_snakemake(None)
    except ValueError:
        return None


def has_slurm_plugin() -> bool:
    program = snakemake()
    return program is not None and any(program.parents[1].glob("lib/*/site-packages/snakemake_executor_plugin_slurm"))


needs_snakemake = pytest.mark.skipif(snakemake() is None, reason="no Snakemake: `make reproduce` makes .venv-batch")


needs_plugin = pytest.mark.skipif(not has_slurm_plugin(), reason="no Slurm plugin beside this Snakemake")


def request(world: Path, name: str = micro.MODELS, **options: object) -> execute.Request:
    return execute.Request(
        name=name, results=world / "results", folder=world / "notebooks", params_root=world / "params", **options
    )  # fmt: skip


@pytest.fixture
def finished(world: Path) -> Path:
    """A world whose models are trained, as far as records go."""
    for spec in micro.load(world).runs():
        micro.write_record(spec)
    return world


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.notebook
def test_an_executed_notebook_has_outputs_and_no_traces_of_the_machine(finished: Path) -> None:
    micro.write_notebook(finished, micro.MODELS, "import sys; print(sys.executable)")
    experiment = request(finished).experiment()
    path = execute.execute(request(finished))
    notebook = nbformat.read(path, as_version=4)
    texts = [output.text for cell in notebook.cells for output in cell.outputs]
    assert texts == ["3 runs\n", f"{sys.executable}\n"]
    assert "papermill" not in path.read_text()
    assert execute.is_done(request(finished), experiment)
    first = path.read_bytes()
    assert execute.execute(request(finished)).read_bytes() == first
    assert sorted(p.name for p in path.parent.glob("*.*")) == ["notebook.done.json", "notebook.ipynb"]
    micro.write_notebook(finished, micro.MODELS, "print('edited')")
    assert not execute.is_done(request(finished), experiment)


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("1 / 0", [r"cell \[4\]", "ZeroDivisionError"]),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", [r"cell \[[34]\] or the next: the kernel died"]),
        ("import time; time.sleep(100)", [r"cell \[4\]", "took more than 15 s"]),
    ],
)
def test_a_failed_notebook_is_never_a_success(finished: Path, extra: str, said: list[str]) -> None:
    micro.write_notebook(finished, micro.MODELS, extra)
    target = request(finished).target
    target.mkdir(exist_ok=True)
    (target / "notebook.ipynb").write_text("an earlier success")
    with pytest.raises(ValueError) as caught:
        execute.execute(request(finished, cell_seconds=15))
    assert all(re.search(words, str(caught.value)) for words in said), str(caught.value)
    assert (target / "notebook.ipynb").read_text() == "an earlier success"
    assert (target / "notebook.failed.ipynb").exists() and not (target / "notebook.done.json").exists()
    assert not psutil.Process().children(recursive=True)


def test_unknown_notebook_parameters_are_refused(world: Path) -> None:
    source = micro.write_notebook(world, micro.MODELS)
    with pytest.raises(ValueError, match=r"no parameter stps; .*overrides, profile, results, seeds"):
        execute.run_notebook(source, world / "out.ipynb", {"stps": 1}, world / "failed.ipynb", 60)
    assert not (world / "out.ipynb").exists()


def test_the_plan_holds_what_is_missing_with_its_needs(world: Path) -> None:
    for name in (micro.MODELS, micro.OPD):
        micro.write_notebook(world, name)
    root, student = world / "results", micro.load(world).spec("student", 0)
    micro.write_record(student)
    student.model_folder.mkdir()
    chosen = plan.experiments((micro.MODELS, micro.OPD), "tiny", root, None, world / "params")
    todo = jobs.make_plan(chosen, root, world / "notebooks", world / "params")
    content = json.loads(jobs.write_plan(todo, root, guardian=123).read_text())
    assert set(content["runs"]) == {"00_models/teacher/seed0", "00_models/better/seed0", *(
        f"01_opd/{arm}/seed0" for arm in ("plain", "sampled")
    )}  # fmt: skip
    assert content["runs"]["01_opd/plain/seed0"]["needs"] == [".done/00_models/teacher/seed0.run.json"]
    assert "--guardian 123" in content["runs"]["01_opd/plain/seed0"]["command"]
    assert len(content["notebooks"]["01_opd.ipynb"]["needs"]) == 3


def test_a_resumed_batch_counts_all_runs(world: Path) -> None:
    for name in (micro.MODELS, micro.OPD):
        micro.write_notebook(world, name)
    chosen = plan.experiments((micro.MODELS, micro.OPD), "tiny", world / "results", None, world / "params")
    assert jobs.standing(chosen, jobs.make_plan(chosen, world / "results", world / "notebooks", world / "params")) == (
        jobs.Standing()
    )
    for spec in micro.load(world).runs()[:2]:
        micro.write_record(spec)
        spec.model_folder.mkdir()
    todo = jobs.make_plan(chosen, world / "results", world / "notebooks", world / "params")
    before = jobs.standing(chosen, todo)
    assert jobs.summary(todo, world, before.finished) == (
        f"3 runs to train, 2 notebooks to execute, into {world}; 2 of 5 runs are finished"
    )
    gauge = jobs.meter_of(todo, 2, before)
    assert [task.needs for task in gauge.tasks if task.name == "01_opd.ipynb"] == [
        ("01_opd/plain/seed0", "01_opd/sampled/seed0")
    ]
    states = {job.name: meter.DONE for job in todo}
    assert gauge.whole(gauge.lines(states)).counts == "5 of 5 runs, 2 of 2 notebooks"


def test_a_job_is_as_urgent_as_the_chain_behind_it_is_long() -> None:
    def job(name: str, needs: tuple[str, ...], steps: int = 1, expected: float | None = None) -> jobs.Job:
        return jobs.Job(
            name=name, is_run=True, needs=needs, done=Path(name), words=(), folder=Path(), steps=steps,
            expected=expected,
        )  # fmt: skip

    short, long = job("short", (), steps=5), job("long", (), steps=20)
    after_short, after_both = job("after short", ("short",), steps=12), job("after both", ("long", "after short"))
    alone = job("alone", ("done before",), expected=7.5)
    found = jobs.urgency([short, long, after_short, after_both, alone])
    assert found == {"short": 5 + 12 + 1, "long": 20 + 1, "after short": 12 + 1, "after both": 1, "alone": 7.5}


def test_a_job_asks_a_cluster_for_what_its_params_say() -> None:
    machines = params.load("04_success_and_failure", "paper").arms
    one = {"nodes": 1, "mem_mb": 570 * 1024, "runtime": 27 * 60}
    assert cluster.resources(machines["large_failure"].machine) == one | {"gpu": 8, "cpus_per_task": 32}
    probe = params.load("09_reward_geometry", "paper").arms["reward-success"].machine
    assert [cluster.resources(probe)[name] for name in ("gpu", "cpus_per_task")] == [1, 4]
    tiny = params.load("04_success_and_failure", "tiny", {"machine.processes": 2, "machine.hours": 0.51}).arms[
        "failure"
    ]
    assert [cluster.resources(tiny.machine)[name] for name in ("gpu", "cpus_per_task", "runtime")] == [0, 2, 31]
    assert cluster.resources(None) == {"nodes": 1, "gpu": 0, "cpus_per_task": 1, "mem_mb": 4096, "runtime": 60}


def test_slurm_is_told_what_was_asked_and_nothing_ends_with_its_submitter(monkeypatch: pytest.MonkeyPatch) -> None:
    here = workflow.command(Path("root"), 2, Path("snakemake"), None)
    assert "opd_lib.run.guard" in here and " --cores 2 " in " ".join(here) and "--executor" not in here
    monkeypatch.setattr(cluster, "keeps_accounts", lambda: True)
    plain = workflow.command(Path("root"), 100, Path("snakemake"), Slurm(partition=None, account=None))
    assert plain[0] == "snakemake" and "--cores" not in plain and "--slurm-no-account" in plain
    assert " --executor slurm --jobs 100 --latency-wait 60 " in " ".join(plain)
    assert not {"--default-resources", "--slurm-status-command"} & {*plain}
    monkeypatch.setattr(cluster, "keeps_accounts", lambda: False)
    named = cluster.arguments(Slurm(partition="gpu", account="me"), 7)
    assert " --default-resources slurm_partition=gpu slurm_account=me --slurm-status-command squeue" in " ".join(named)
    assert "--slurm-no-account" not in named


def test_accounts_are_kept_where_sacct_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not cluster.keeps_accounts()
    for code, kept in ((1, False), (0, True)):
        (tmp_path / "sacct").write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / "sacct").chmod(0o755)
        assert cluster.keeps_accounts() is kept


@pytest.mark.parametrize(
    ("options", "programs", "message"),
    [
        (("pbs", None, None), ("sbatch",), "--cluster pbs: not supported; choose from slurm"),
        (("slurm", None, None), (), "no program sbatch on the path"),
        ((None, "gpu", None), (), "--partition gpu: belongs to a cluster; say --cluster slurm"),
        ((None, None, "me"), (), "--account me: belongs to a cluster"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str | None, ...], programs: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(cluster.shutil, "which", lambda name: name if name in programs else None)
    with pytest.raises(ValueError, match=message):
        cluster.named(*options)
    assert cluster.named(None, None, None) is None


@needs_plugin
def test_snakemake_would_submit_the_whole_of_paper_scale(tmp_path: Path) -> None:
    chosen = plan.experiments(plan.notebooks("paper"), "paper", tmp_path)
    todo = jobs.make_plan(chosen, tmp_path, paths.NOTEBOOKS, paths.PARAMS)
    path, program = jobs.write_plan(todo, tmp_path, guardian=None), snakemake()
    assert program is not None and "--guardian" not in path.read_text()
    words = workflow.command(tmp_path, 100, program, Slurm(partition="gpu", account=None))
    done = subprocess.run([*words, "--dry-run"], capture_output=True, text=True, check=False, cwd=paths.ROOT)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert re.search(rf"^total +{len(todo) + 1}$", said, re.MULTILINE)
    names = {f"job_{number}_" + re.sub(r"\W", "_", job.name): job.name for number, job in enumerate(todo)}
    found = re.findall(r"^rule (job_\w+):\n(?:    .*\n)*?    resources: (.*)", said, re.MULTILINE)
    asked = {names[rule]: dict(re.findall(r"(\w+)=([^,]+)", resources)) for rule, resources in found}
    assert set(asked) == {job.name for job in todo}
    for job in todo:
        expected = {key: str(value) for key, value in cluster.resources(job.machine).items()}
        assert asked[job.name].items() >= (expected | {"slurm_partition": "gpu"}).items(), job.name


@needs_snakemake
def test_arms_whose_names_differ_in_a_sign_alone_are_two_jobs(world: Path) -> None:
    for arm in ("a-b", "a_b"):
        micro.change_arm(world, micro.OPD, arm, {"train.lr": 0.002 if arm == "a-b" else 0.003})
    micro.write_notebook(world, micro.OPD)
    chosen = plan.experiments((micro.OPD,), "tiny", world / "results", None, world / "params")
    todo = jobs.make_plan(chosen, world / "results", world / "notebooks", world / "params")
    program = snakemake()
    jobs.write_plan(todo, world / "results", guardian=None)
    assert program is not None
    words = workflow.command(world / "results", 1, program, None)
    done = subprocess.run([*words, "--dry-run"], capture_output=True, text=True, check=False, cwd=paths.ROOT)
    assert done.returncode == 0, done.stderr
    assert len(set(re.findall(r"^(?:local)?rule (job_\d+_01_opd_a_b_seed0):", done.stdout, re.MULTILINE))) == 2


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch does not survive a fork")


def chosen_jobs(world: Path) -> tuple[jobs.Job, ...]:
    micro.write_notebook(world, micro.MODELS)
    chosen = plan.experiments((micro.MODELS,), "tiny", world / "results", None, world / "params")
    return jobs.make_plan(chosen, world / "results", world / "notebooks", world / "params")


@pytest.fixture
def address(world: Path) -> Iterator[Path]:
    """Where a process that has imported everything forks runs."""
    with (world / "ready.log").open("ab") as log, workflow.prepared(chosen_jobs(world), log) as path:
        assert path is not None
        wait_for(path.exists)
        yield path


def by_fork(address: Path, *words: str) -> list[str]:
    """A command that only the waiting process can carry out."""
    return [*jobs.requesting(address), "/no/such/python", "-m", "no.such.module", *words]


def forked(address: Path, spec: RunSpec) -> list[str]:
    return by_fork(address, *processes.command(spec)[len(processes.OPD) :])


def say(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=paths.ROOT, env=processes.single_thread(), capture_output=True, text=True, check=False
    )


@needs_linux
def test_a_forked_run_is_the_run_of_a_fresh_process(world: Path, address: Path) -> None:
    for results, words in (("results", lambda spec: forked(address, spec)), ("others", processes.command)):
        for spec in micro.load(world, results=results).runs():
            done = say(words(spec))
            assert (done.returncode, done.stdout) == (0, f"finished: {spec.folder}\n"), done.stderr
    for spec, other in zip(micro.load(world).runs(), micro.load(world, results="others").runs(), strict=True):
        names = sorted(path.relative_to(spec.folder) for path in spec.folder.rglob("*") if path.is_file())
        assert names == sorted(path.relative_to(other.folder) for path in other.folder.rglob("*") if path.is_file())
        for name in names:
            if name.name != "run.json":
                assert (spec.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
        one, two = (record.read(folder) for folder in (spec.folder, other.folder))
        assert one is not None and two is not None and one.provenance == two.provenance and one.gates == two.gates


@needs_linux
@pytest.mark.parametrize(("arm", "code"), [("nobody", 1), ("--no-such-option", 2)])
def test_a_failing_fork_says_what_a_fresh_process_says(world: Path, address: Path, arm: str, code: int) -> None:
    words = ["run", micro.MODELS, arm, "0", "--params", str(world / "params")]
    fork, fresh = say(by_fork(address, *words)), say([*processes.OPD, *words])
    assert fork.returncode == fresh.returncode == code and fork.stdout == fresh.stdout
    assert fork.stderr.splitlines()[-1] == fresh.stderr.splitlines()[-1] != ""


@needs_linux
def test_a_fork_ends_with_what_asked_for_it_and_outlives_what_forked_it(world: Path, address: Path) -> None:
    spec, _ = micro.long(world, "results")
    for number in (signal.SIGINT, signal.SIGKILL):
        before = micro.progress_of(spec.folder)
        asking = subprocess.Popen(forked(address, spec), cwd=paths.ROOT, stderr=subprocess.DEVNULL)
        wait_for(lambda: micro.progress_of(spec.folder) > before + 2)  # noqa: B023
        asking.send_signal(number)
        assert asking.wait(timeout=20) == -number
        wait_for(lambda: not is_locked(spec.folder), seconds=20)
    asking = subprocess.Popen(forked(address, spec), cwd=paths.ROOT, stderr=subprocess.DEVNULL)
    wait_for(lambda: is_locked(spec.folder))
    for member in guard.descendants():
        with suppress(psutil.NoSuchProcess):  # those of the runs interrupted above may be just ending
            if member.cmdline()[1:] == ["-m", "opd_lib.command.ready", str(address)] and member.ppid() != asking.pid:
                parent = member.parent()
                if parent is not None and "opd_lib.run.guard" in parent.cmdline():
                    member.kill()
    assert asking.wait(timeout=240) == 0 and plan.trained(spec)
    told = say([*jobs.requesting(address), sys.executable, "-c", "print('by itself'); raise SystemExit(7)"])
    assert (told.returncode, told.stdout) == (7, "by itself\n")


@needs_linux
def test_two_batches_do_not_meet(world: Path, address: Path) -> None:
    spec = micro.load(world).spec("student", 0)
    with (world / "other.log").open("ab") as log, workflow.prepared(chosen_jobs(world), log) as other:
        assert other is not None and other != address
        wait_for(other.exists)
    assert not other.parent.exists()
    assert say(forked(address, spec)).returncode == 0


@needs_linux
def test_threads_before_a_fork_are_refused_and_jobs_start_by_themselves(tmp_path: Path) -> None:
    code = (
        "import threading, sys; from opd_lib.command import ready\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "ready.wait_and_fork(sys.argv[1])"
    )
    path = tmp_path / "ready"
    waiting = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=paths.ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_for(path.exists)
    told = say([*jobs.requesting(path), sys.executable, "-c", "print('by itself')"])
    assert (told.returncode, told.stdout) == (0, "by itself\n")
    assert "threads after the imports: cannot fork" in waiting.communicate(timeout=60)[1]


def test_only_runs_of_one_process_on_the_processor_are_forked(world: Path) -> None:
    def suits(**changes: object) -> bool:
        return jobs.suits(params.load("04_success_and_failure", "tiny", changes).arms["failure"].machine)

    assert suits() and jobs.suits(None)
    assert not suits(**{"machine.device": "cuda"}) and not suits(**{"machine.processes": 2})
    todo = chosen_jobs(world)
    content = json.loads(jobs.write_plan(todo, world / "results", 123, Path("/socket")).read_text())
    assert all("-S -m opd_lib.command.ready /socket " in job["command"] for job in content["runs"].values())
    with (world / "log").open("ab") as log, workflow.prepared([job for job in todo if not job.is_run], log) as nowhere:
        assert nowhere is None


def command(world: Path, *words: str) -> list[str]:
    places = ("--params", "params", "--notebooks", "notebooks", "--results", "results")
    located = [str(world / word) if word in ("params", "notebooks", "results") else word for word in places]
    return [sys.executable, "-m", "opd_lib.command.cli", "reproduce", "--jobs", "2", *located, *words]


ODD = "odd {a} {{b}} $c %d 'e' \"f\" ü #; & (g) [h]"
"""A path with everything that somebody may take for something else: Snakemake, papermill, a shell, a glob, a URL."""


@needs_snakemake
@pytest.mark.notebook
def test_reproduce_trains_executes_and_repeats_nothing_wherever_it_is(tmp_path: Path) -> None:
    world = conftest.make_world(tmp_path / ODD)
    micro.teach(world)
    for name in (micro.MODELS, micro.OPD):
        micro.write_notebook(world, name)
    done = subprocess.run(command(world), cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "5 runs to train, 2 notebooks to execute" in done.stderr
    assert "01_opd/plain/seed0: done" in done.stderr and "01_opd.ipynb: done" in done.stderr
    root = world / "results"
    assert "2 runs" in (root / "tiny" / micro.OPD / "notebook.ipynb").read_text()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("run.json")}
    again = subprocess.run(command(world), cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert "0 runs to train, 0 notebooks to execute" in again.stderr and again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


@needs_snakemake
def test_reproduce_names_what_failed_and_does_the_rest(world: Path) -> None:
    micro.write_notebook(world, micro.MODELS, "1 / 0")
    done = subprocess.run(command(world), cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: 00_models.ipynb failed" in done.stderr and "ZeroDivisionError" in done.stderr
    assert all(plan.finished(spec) for spec in micro.load(world).runs())
    assert not list((world / "results" / ".snakemake" / "locks").glob("*"))


@needs_snakemake
def test_the_checkout_may_be_anywhere_and_another_snakefile_than_last_time_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = conftest.make_world(tmp_path / ODD)
    program, root, elsewhere = snakemake(), world / "results", world / ODD
    elsewhere.mkdir()
    shutil.copy(paths.ROOT / "Snakefile", elsewhere)
    assert program is not None
    jobs.write_plan(chosen_jobs(world), root, guardian=None)
    with monkeypatch.context() as patch:
        patch.setattr(paths, "ROOT", elsewhere)
        words = workflow.command(root, 1, program, None)
    assert "--nolock" in words and "--nolock" not in workflow.command(Path("plain"), 1, program, None)
    done = subprocess.run([*words, "--dry-run"], capture_output=True, text=True, check=False, cwd=paths.ROOT)
    assert done.returncode == 0 and re.search(r"^total +5$", done.stdout, re.MULTILINE), done.stderr
    kept = root / workflow.SOURCES
    assert kept.exists()
    with pytest.raises(ValueError, match="not tried"):
        workflow.carry_out(chosen_jobs(world), root, 1, Path("/no/such/snakemake"))
    assert not kept.exists()


@needs_snakemake
def test_of_two_that_reproduce_in_one_folder_one_does_and_the_other_says_so(world: Path) -> None:
    micro.write_notebook(world, micro.MODELS)
    with workflow.alone(world / "results"):
        before = everything(world / "results")
        for more in ((), ("--plan-only",)):
            done = subprocess.run(command(world, *more), cwd=paths.ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert re.fullmatch(
                r"error: .*: another `opd reproduce` works here; .*\(nothing was changed\).*\n", done.stderr
            )
        assert everything(world / "results") == before
    both = [
        subprocess.Popen(command(world, "--seeds", "1"), cwd=paths.ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    assert sum("another `opd reproduce` works here" in each for each in said) == 1
    assert all(plan.finished(spec) for spec in micro.load(world).runs())


def everything(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@needs_snakemake
def test_stopping_any_of_the_family_stops_all_of_it(world: Path) -> None:
    micro.write_notebook(world, micro.MODELS)
    micro.change_arm(world, micro.MODELS, "student", {"train.steps": 5000})
    spec, locks = micro.load(world).spec("student", 0), world / "results" / ".snakemake" / "locks"
    for stop in (interrupt, kill, kill_guards, kill_snakemake):
        before = micro.progress_of(spec.folder)
        process = subprocess.Popen(command(world), cwd=paths.ROOT, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: micro.progress_of(spec.folder) > before + 2)  # noqa: B023
        family = guard.descendants(process.pid)
        assert len(family) >= 3
        assert sum("opd_lib.command.ready" in micro.command_of(member) for member in family) >= (
            3 if sys.platform == "linux" else 0
        )
        stop(process)
        _, said = process.communicate(timeout=180)
        assert process.returncode != 0
        goes_on = f"the others resume from their last checkpoints: opd {shlex.join(command(world)[3:])}\n"
        assert (stop is interrupt) == said.endswith(goes_on) and (stop is not interrupt or process.returncode == 130)
        wait_for(lambda: not any(guard.alive(member) for member in family), seconds=120)  # noqa: B023
        assert any(locks.glob("*")) == (stop is kill_snakemake)
    again = subprocess.run(command(world), cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and f"delete {locks}" in again.stderr


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()


def kill_guards(process: subprocess.Popen[str]) -> None:
    for member in guard.descendants(process.pid):
        if "opd_lib.run.guard" in micro.command_of(member):
            member.kill()


def kill_snakemake(process: subprocess.Popen[str]) -> None:
    for member in guard.descendants(process.pid):
        if "--keep-going" in (words := micro.command_of(member)) and "opd_lib.run.guard" not in words:
            member.kill()
