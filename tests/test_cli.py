"""The `opd` command: every bad input is one message, an exit code, and nothing overwritten."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import micro
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from opd_lib import paths
from opd_lib.batch import execute, front, refresh
from opd_lib.command.cli import app
from opd_lib.records import record
from opd_lib.records.record import write_json
from opd_lib.run import compare, evidence, options, plan, progress, status, streams, timeleft

RUN = ("run", micro.MODELS, "student", "0")


def opd(world: Path, *words: str) -> Result:
    """Run the command on the world's params and results."""
    places = ("--params", str(world / "params"), "--results", str(world / "results"))
    return CliRunner().invoke(app, [*words, *places])


def edit(world: Path, old: str, new: str) -> None:
    path = world / "params" / "tiny" / f"{micro.MODELS}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def corrupt(world: Path) -> None:
    spec = micro.load(world).spec("student", 0)
    micro.write_record(spec)
    (spec.folder / "run.json").write_text('{"experiment": ')


def other_params(world: Path) -> None:
    micro.write_record(micro.load(world, overrides={"train.steps": 9}).spec("student", 0))


def in_the_way(world: Path) -> None:
    (world / "results").write_text("a file")


BAD = [
    (lambda w: edit(w, "  lr: ", "  learning_rate: "), RUN, ["00_models.yaml", "learning_rate", "unknown key"]),
    (lambda w: edit(w, "  warmup: 0\n", ""), RUN, ["00_models.yaml", "train.warmup", "missing"]),
    (lambda w: edit(w, "  steps: 6", "  steps: six"), RUN, ["00_models.yaml", "train.steps", "'six'"]),
    (lambda w: None, ("run", "07_nothing", "student", "0"), ["07_nothing.yaml", "00_models"]),
    (lambda w: None, ("run", micro.MODELS, "nobody", "0"), ["nobody", "student, teacher"]),
    (lambda w: None, ("run", micro.MODELS, "student", "5000"), ["5000", "0 to 999"]),
    (lambda w: None, (*RUN, "--profile", "huge"), ["huge"]),
    (lambda w: None, (*RUN, "--overrides", "{"), ["--overrides", "not valid JSON"]),
    (lambda w: None, (*RUN, "--overrides", "[]"), ["--overrides", "expected an object"]),
    (lambda w: None, (*RUN, "--overrides", '{"train.step": 1}'), ["train.step", "train.steps"]),
    (lambda w: None, ("run", micro.OPD, "plain", "0"), ["00_models/student", "opd run 00_models student 0"]),
    (corrupt, RUN, ["run.json", "corrupt", "delete"]),
    (other_params, RUN, ["train.steps: 9 → 6", "Nothing was overwritten"]),
    (in_the_way, RUN, ["cannot be written"]),
    (lambda w: None, ("reproduce", "--only", "07_nothing"), ["07_nothing", "choose from 00_models"]),
    (lambda w: None, ("status", "--only", micro.OPD), ["params but no notebook: `opd run 01_opd ARM SEED`"]),
    (lambda w: None, ("reproduce", "--seeds", "two"), ["--seeds two"]),
    (lambda w: None, ("reproduce", "--seeds", "0"), ["--seeds 0", "at least one"]),
    (lambda w: None, ("reproduce", "--seeds", "5,5"), ["--seeds 5,5"]),
    (lambda w: None, ("reproduce", "--seeds", "5000,"), ["5000", "0 to 999"]),
    (lambda w: None, ("reproduce", "--seeds", "1e9"), ["--seeds 1e9", "not a number"]),
    (lambda w: None, ("reproduce", "--seeds", "1000000000"), ["--seeds 1000000000", "there are only 1000"]),
    (lambda w: None, ("reproduce", "--seeds", "9" * 5000), ["--seeds 999", "not a number"]),
    (lambda w: None, ("reproduce", "--seeds", "-1"), ["--seeds -1", "not a number"]),
    (lambda w: None, ("reproduce", "--seeds", "0,0"), ["--seeds 0,0", "each once"]),
    (lambda w: None, ("reproduce", "--seeds", ""), ["--seeds", "at least one"]),
    (lambda w: None, ("reproduce", "--only", "../tiny/00_models"), ["--only", "no name of a notebook"]),
    (lambda w: None, ("reproduce", "--only", ""), ["--only", "no name of a notebook"]),
    (lambda w: None, ("reproduce", "--profile", "../params/tiny"), ["--profile", "no name of a profile"]),
    (lambda w: None, ("reproduce", "--profile", ""), ["--profile", "no name of a profile"]),
    (lambda w: None, ("status", "--profile", "local"), ["--profile", "'local' cannot be the name of a profile"]),
    (lambda w: None, ("figures", "--only", ".hidden"), ["--only", "no name of a notebook"]),
    (lambda w: None, ("track", "--here", "--profile", ".."), ["--profile", "no name of a profile"]),
    (lambda w: None, ("run", "../x", "student", "0"), ["notebook", "'../x' is no name"]),
    (lambda w: None, ("run", micro.MODELS, "../x", "0"), ["no arm '../x'"]),
    (lambda w: None, (*RUN, "--profile", "../tiny"), ["profile", "'../tiny' is no name"]),
    (lambda w: None, (*RUN, "--overrides", '{"arms.../x": {}}'), ["arms.../x", "no name of an arm"]),
    (lambda w: None, (*RUN, "--overrides", '{"a": 1, "a": 2}'), ["--overrides", "'a' comes twice"]),
    (lambda w: None, (*RUN, "--overrides", '{"train.lr": Infinity}'), ["overrides, arm student", "train.lr: inf"]),
    (lambda w: None, (*RUN, "--overrides", '{"a": ' * 3000), ["--overrides", "nested too deeply"]),
    (lambda w: None, ("execute", "../00_models"), ["notebook", "no name of a notebook"]),
    (lambda w: None, ("execute", micro.MODELS, "--profile", "../x"), ["profile", "no name of a profile"]),
    (lambda w: None, ("reproduce", "--profile", "huge"), ["huge", "tiny"]),
    (lambda w: None, ("reproduce", "--snakemake", "/nowhere/snakemake"), ["/nowhere/snakemake"]),
    (corrupt, ("reproduce", "--plan-only"), ["run.json", "corrupt"]),
    (other_params, ("reproduce", "--plan-only"), ["train.steps: 9 → 6"]),
    (in_the_way, ("reproduce", "--plan-only"), ["cannot be written"]),
    (lambda w: None, ("execute", "07_nothing"), ["07_nothing.ipynb", "no such notebook"]),
]


@pytest.mark.parametrize(("prepare", "words", "said"), BAD)
def test_bad_input_is_one_message_and_overwrites_nothing(
    world: Path, prepare: Callable[[Path], None], words: tuple[str, ...], said: list[str]
) -> None:
    micro.write_notebook(world, micro.MODELS)
    prepare(world)
    before = contents(world)
    if words[0] in ("reproduce", "execute", "status", "figures", "track"):
        words = (*words, "--notebooks", str(world / "notebooks"))
    result = opd(world, *words)
    assert result.exit_code == 1
    assert all(word in result.stderr for word in said), result.stderr
    assert result.stderr.startswith("error: ") and "Traceback" not in result.output
    assert {path: text for path, text in contents(world).items() if path in before} == before


def test_what_a_run_starts_from_is_named_from_its_first_ancestor_on(tmp_path: Path) -> None:
    words = ("--profile", "smoke", "--results", str(tmp_path))
    done = CliRunner().invoke(app, ["run", "04_success_and_failure", "success", "7", *words])
    assert done.exit_code == 1
    same, error = done.stderr.splitlines()
    assert same == "04_success_and_failure/success is the same run as 02_new_knowledge/justrl-small"
    chain = [
        f"`opd run 00_models {arm} 7 {' '.join(words)}`" for arm in ("base-small", "distill-small", "justrl-small")
    ]
    batch = f"`opd reproduce --only 02_new_knowledge --seeds 7, {' '.join(words)}`"
    assert f"{tmp_path / 'smoke'}; first do {', '.join(chain)}, or {batch}" in error


@pytest.mark.parametrize("command", ["status", "reproduce --dry-run", "reproduce", "figures", "compare", "claims"])
@pytest.mark.parametrize("profile", ["huge", "", "claims", "..", "../tiny"])
def test_an_unknown_profile_is_refused_with_those_there_are(command: str, profile: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--profile", profile])
    assert result.exit_code == 1 and result.stderr.startswith("error: --profile"), result.stderr
    assert result.stderr.startswith((f"error: --profile {profile}: ", f"error: --profile: {profile!r} ")), result.stderr
    assert result.stderr.count("\n") == 1 and "paper" in result.stderr and "tiny" in result.stderr


def test_claims_of_a_folder_that_is_not_there_are_not_judged(tmp_path: Path) -> None:
    for words in (["--results", str(tmp_path / "reslts")], ["--profile", "gpu-math", "--results", str(tmp_path)]):
        result = CliRunner().invoke(app, ["claims", *words])
        assert result.exit_code == 1 and "no such folder, so no records to judge" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("status",), ("reproduce", "--dry-run"), ("figures",)])
def test_results_that_are_a_file_are_refused(world: Path, words: tuple[str, ...]) -> None:
    micro.write_notebook(world, micro.MODELS)
    in_the_way(world)
    result = opd(world, *words, "--notebooks", str(world / "notebooks"))
    assert result.exit_code == 1 and f"--results {world / 'results'}: is a file" in result.stderr


SHELL = [
    ("| true", streams.READER_GONE, ""),
    (">&-", 0, ""),
    ("<&- >&- 2>&-", 0, ""),
    ("> /dev/full", 1, "error: [Errno 28] No space left on device\n"),
    ("--profile nope > /dev/full", 1, "error: --profile nope: "),
]


@pytest.mark.process
@pytest.mark.parametrize(("rest", "code", "said"), SHELL)
def test_standard_output_that_nobody_reads_is_quiet(world: Path, rest: str, code: int, said: str) -> None:
    if "/dev/full" in rest and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = in_shell(f"status --params {world}/params --results {world}/results {rest}", world)
    assert done.returncode == code and done.stderr.startswith(said), done.stderr
    assert bool(said) == bool(done.stderr) and done.stderr.count("\n") == bool(said)


@pytest.mark.process
@pytest.mark.parametrize("words", ["--help", "", "run --help"])
def test_help_for_which_there_is_no_room_is_one_line(world: Path, words: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = in_shell(f"{words} > /dev/full", world)
    assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device\n")


@pytest.mark.process
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_of_few_characters_shows_what_it_can(world: Path, encoding: str) -> None:
    said = f"status --params {world}/params --results {world}/results --only {micro.MODELS}"
    done = in_shell(said, world, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and done.stderr == ""
    assert "00_models/student/seed0" in done.stdout and "3 missing" in done.stdout


def in_shell(words: str, world: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command among others of a shell."""
    micro.write_notebook(world, micro.MODELS)
    command = words.replace("status", f"status --notebooks {world}/notebooks", 1)
    asked = ["bash", "-c", f"set -o pipefail; {sys.executable} -m opd_lib.command.cli {command}"]
    found = os.environ | environment
    return subprocess.run(asked, capture_output=True, encoding="utf-8", errors="replace", env=found, check=False)


def test_closed_streams_are_not_given_to_the_next_file(tmp_path: Path) -> None:
    opened = f"open({str(tmp_path / 'a')!r}, 'w')"
    code = f"from opd_lib.run import streams; streams.settle(); assert {opened}.fileno() > 2"
    command = f"{sys.executable} -c {shlex.quote(code)} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["run"],
        ["run", "00_models", "student", "zero"],
        ["run", "00_models", "student", "9" * 5000],
        ["status", "--job", "1"],
        ["status", "--jobs", "0"],
        ["status", "--jobs", "1e9"],
        ["reproduce", "--jobs", "1000000000000"],
        ["execute", "00_models", "--cell-seconds", "0"],
        ["check", "a", "b", "--seed", "1000"],
        ["bench", "--jobs", "0"],
    ],
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2


def test_status_has_a_line_for_each_notebook_and_rows_on_demand(world: Path) -> None:
    for name in (micro.MODELS, micro.OPD):
        micro.write_notebook(world, name)
    micro.write_record(micro.load(world).spec("student", 0))
    micro.write_record(micro.load(world).spec("better", 0), status="failed")
    words = ("status", "--notebooks", str(world / "notebooks"))
    few, every, one = opd(world, *words), opd(world, *words, "--runs"), opd(world, *words, "--only", micro.OPD)
    assert [result.exit_code for result in (few, every, one)] == [0, 0, 0]
    header, _, *rows = few.stdout.splitlines()[:4]
    assert header.split("  ") and header.replace("  ", " ").split() == [
        *("notebook", "runs", "done", "missing", "failed", "spent", "to", "go", "executed")
    ]
    assert [row.split()[:5] for row in rows] == [["00_models", "3", "1", "1", "1"], ["01_opd", "2", "0", "2", "0"]]
    assert "seed0" not in few.stdout and few.stdout.endswith("; --runs says what is the matter with 1\n")
    for result in (every, one):
        assert "00_models/student/seed0" in result.stdout and "01_opd/sampled/seed0" in result.stdout
        assert "spent (s)" in result.stdout and "to go (s)" in result.stdout
    assert all("1 done" in result.stdout and "3 missing" in result.stdout for result in (few, every, one))


def test_status_lays_out_what_is_left_on_the_cores(world: Path) -> None:
    for name in (micro.MODELS, micro.OPD):
        micro.write_notebook(world, name)
    spec = micro.load(world).spec("student", 0)
    micro.write_record(spec)  # 3 seconds for 6 steps
    frame = status.status(plan.with_parents([*micro.load(world).runs(), *micro.load(world, micro.OPD).runs()]))
    left = dict(zip(frame["run"], frame["remaining"], strict=True))
    del left[spec.name]
    words = ("status", "--notebooks", str(world / "notebooks"), "--jobs")
    alone, beside = (opd(world, *words, jobs).stdout.splitlines()[-1] for jobs in ("1", "8"))
    runs = {name: seconds + timeleft.RUN_START for name, seconds in left.items()}
    assert alone.endswith(f"the rest takes: {progress.duration(sum(runs.values()) + 2 * timeleft.NOTEBOOK)}")
    assert "; 0 of 2 notebooks executed; " in alone
    chain = runs[f"{micro.MODELS}/teacher/seed0"] + max(
        runs[f"{micro.OPD}/{arm}/seed0"] for arm in ("plain", "sampled")
    )
    longest = max(chain, runs[f"{micro.MODELS}/better/seed0"]) + timeleft.NOTEBOOK
    assert beside.endswith(f"the rest takes: {progress.duration(longest)}")


def test_status_counts_notebooks_that_are_executed_and_runs_that_lie_elsewhere(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    micro.write_notebook(world, micro.MODELS)
    (experiment,) = [micro.load(world)]
    for spec in experiment.runs():
        micro.write_record(spec)
    words = ("status", "--notebooks", str(world / "notebooks"))
    last = opd(world, *words).stdout.splitlines()[-1]
    assert "; 0 of 1 notebooks executed; " in last
    assert last.endswith(f"the rest takes: {progress.duration(timeleft.NOTEBOOK)}")
    request = execute.Request.of(experiment, world / "notebooks", world / "params")
    (request.target / paths.EXECUTED).write_text("{}")
    write_json(request.target / execute.DONE, execute.expected(request, experiment))
    done = opd(world, *words).stdout
    assert done.splitlines()[2].endswith("yes") and "; 1 of 1 notebooks executed; the rest takes: 0s" in done
    monkeypatch.setattr(paths, "LOCAL", world / "results")
    monkeypatch.setattr(paths, "LAB", world / "results")
    assert f"{len(experiment.runs())} runs of notebooks and of `opd run` in {paths.LAB}" in opd(world, *words).stdout


def test_seed_lists() -> None:
    assert options.seed_list(None) is None
    assert [options.seed_list(text) for text in ("1", "3", "3,", "0,4")] == [(0,), (0, 1, 2), (3,), (0, 4)]


def test_compare_says_when_nothing_is_committed_and_finds_differences(world: Path) -> None:
    specs = micro.load(world, seeds=(0, 1)).runs()[:2]
    with pytest.raises(ValueError, match="no finished runs"):
        compare.compare("tiny", world / "results", world / "committed")
    for spec in specs:
        micro.write_record(spec)
    assert "Nothing is committed" in compare.compare("tiny", world / "results", world / "committed")
    for spec in specs:
        refresh.copy_record(spec.folder, world / "committed" / spec.folder.relative_to(world / "results"))
    assert "2 of 2 runs are byte for byte" in compare.compare("tiny", world / "results", world / "committed")
    (specs[1].folder / "steps.csv").write_text("step,loss\n1,0.5\n2,0.2\n")
    text = compare.compare("tiny", world / "results", world / "committed")
    assert "1 of 2 runs" in text and "differs, end by 0.2" in text
    assert specs[1].name in text and specs[0].name not in text
    assert specs[0].name in compare.compare("tiny", world / "results", world / "committed", every=True)


ANSWERS = [
    (["yes", "yes"], "agrees", "`opd claims --results {local}`", []),
    (["yes", "no"], "disagrees in 1 of 2", "`opd status --runs --verify --results {local}`", ["C1"]),
    (["unknown", "unknown"], "none", "`opd reproduce --results {local}`", []),
]


@pytest.mark.parametrize(("answers", "verdict", "step", "shown"), ANSWERS)
def test_compare_shows_what_disagrees_then_the_verdict_and_the_next_step_last(
    world: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str], verdict: str, step: str, shown: list[str]
) -> None:
    spec, local, committed = micro.load(world).spec("student", 0), world / "results", world / "committed"
    micro.write_record(spec)
    refresh.copy_record(spec.folder, committed / spec.folder.relative_to(local))
    frame = pd.DataFrame({"id": ["C0", "C1"], "seed": [0, 0], "agrees": answers})
    monkeypatch.setattr(compare.agreement, "compare", lambda register, mine, theirs: frame)
    monkeypatch.setattr(compare, "registers", lambda profile: [SimpleNamespace(paper="paper")])
    text = compare.compare("tiny", local, committed)
    *_, said, last = text.splitlines()
    assert said.startswith(f"Verdict: {'this machine ' if verdict != 'none' else ''}{verdict}")
    assert last.startswith(f"Next: {step.format(local=local)}")
    assert [name for name in ("C0", "C1") if name in text] == shown
    every = compare.compare("tiny", local, committed, every=True)
    assert "C0" in every and "C1" in every and spec.name in every and every.endswith("\n".join([said, last]))


def test_compare_names_the_runs_of_other_parameters(world: Path) -> None:
    spec, other = (
        micro.load(world).spec("student", 0),
        micro.load(world, overrides={"train.steps": 9}).spec("student", 0),
    )
    micro.write_record(other)
    (world / "committed" / "tiny").mkdir(parents=True)
    refresh.copy_record(other.folder, world / "committed" / spec.folder.relative_to(world / "results"))
    shutil.rmtree(other.folder)
    micro.write_record(spec)
    text = compare.compare("tiny", world / "results", world / "committed")
    assert "other parameters" in text and "Next: `opd status --runs" in text.splitlines()[-1]


def test_only_the_record_is_committed_and_as_a_whole(world: Path) -> None:
    spec = micro.load(world).spec("student", 0)
    with pytest.raises(ValueError, match="not finished"):
        refresh.commit_records([spec], world / "committed")
    micro.write_record(spec)
    for name in ("log.txt", ".progress.json", "model/config.json"):
        (spec.folder / name).parent.mkdir(exist_ok=True)
        (spec.folder / name).write_text("x")
    assert refresh.commit_records([spec], world / "committed") == 1
    target = world / "committed" / "tiny" / micro.MODELS / "student" / "seed0"
    (target / "stray.csv").write_text("old")
    refresh.commit_records([spec], world / "committed")
    assert sorted(path.name for path in target.iterdir()) == ["run.json", "steps.csv"]
    assert [path.name for path in target.parent.iterdir()] == ["seed0"]
    assert record.read(target) is not None


def test_evidence_leaves_out_calibration_failures_and_other_parameters(world: Path) -> None:
    for spec in micro.load(world, seeds=(0, 100)).runs():
        micro.write_record(spec)
    micro.write_record(micro.load(world).spec("better", 0), status="failed")
    found = evidence.read("tiny", world / "results", world / "params")
    assert found.seeds(micro.MODELS) == (0,)
    assert set(found.experiments[micro.MODELS]["steps"]["arm"]) == {"student", "teacher"}
    micro.change_arm(world, micro.MODELS, "student", {"train.steps": 7})
    found = evidence.read("tiny", world / "results", world / "params")
    assert set(found.experiments[micro.MODELS]["steps"]["arm"]) == {"teacher"}


def test_readme_tables_stand_between_their_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "findings", lambda judged, found: "FOUND")
    row = {"id": "C1", "figure": "5", "statement": "It falls.", "paper": ".5", "verdict": "holds", "estimate": 0.25}
    row |= {
        "paper_number": "inside",
        "low": 0.2,
        "high": 0.3,
        "threshold": "> 0",
        "n_seeds": 5,
        "precondition": "",
        "detectable": 0.1,
    }
    judged = pd.DataFrame([row])
    page, empty = tmp_path / "README.md", tmp_path / "results"
    between = {name: f"<!-- {name} -->\nOLD\n<!-- /{name} -->\n" for name in ("findings", "notebooks", "claims")}
    for lacking in between:
        page.write_text("# Title\n" + "".join(text for name, text in between.items() if name != lacking))
        with pytest.raises(ValueError, match=f"<!-- {lacking} -->"):
            refresh.write_readme(judged, empty, page, page)
    page.write_text(f"# Title\n{''.join(between.values())}rest\n")
    for _ in range(2):
        refresh.write_readme(judged, empty, page, page)
    text = page.read_text()
    assert text.startswith("# Title\n") and text.endswith("rest\n") and "OLD" not in text
    assert text.count("FOUND") == 1 and text.count("| holds") == 2


def test_the_readme_is_not_of_another_profile(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["claims", "--profile", "smoke", "--readme", "--results", str(tmp_path)])
    assert result.exit_code == 1 and "--readme: the README is of profile tiny, not smoke; leave it out" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("claims", "--profile", "../../x"), ("compare", "--profile", "")])
def test_a_profile_that_is_no_name_is_refused_where_params_are_not_read(words: tuple[str, ...], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*words, "--results", str(tmp_path / "a" / "b")])
    assert result.exit_code == 1 and "is no name of a profile" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_claims_are_judged_from_a_results_folder(world: Path) -> None:
    (world / "results" / "tiny").mkdir(parents=True)
    result = CliRunner().invoke(app, ["claims", "--results", str(world / "results")])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(world / "results" / "tiny" / "claims.csv")
    assert set(table["verdict"]) == {"not run"} and "register" in table


def test_data_says_what_a_set_holds(real_data: Path) -> None:
    said = CliRunner().invoke(app, ["data", "aime24", "amc23-40", "--folder", str(real_data)]).output
    assert "rows: 30" in said and "rows: 40" in said and "as_released: True" in said


def stored(path: Path, **columns: list[Any]) -> Path:
    """A parquet file of these columns."""
    pd.DataFrame(columns).to_parquet(path)
    return path


def test_grade_shows_where_the_two_graders_disagree(tmp_path: Path) -> None:
    stored(tmp_path / "part-1.parquet", response=[r"\boxed{34}", r"\boxed{\frac{68}{2}}"], answer=["34", "34"])
    stored(tmp_path / "part-2.parquet", response=["none", "Answer: 5"], answer=["34", "6"])
    said = CliRunner().invoke(app, ["grade", str(tmp_path)]).output.splitlines()
    counts = {line[:18].strip(): line[18:].split() for line in said}
    assert [counts[name][0] for name in ("both right", "only math-verify", "only exact match", "neither")] == list(
        "1102"
    )
    assert r"\frac{68}{2} | 34" in "\n".join(said) and counts["neither"][1:3] == ["0.500", "1"]


def test_a_response_or_a_gold_that_is_missing_is_counted(tmp_path: Path) -> None:
    stored(tmp_path / "1.parquet", response=[r"\boxed{34}", None, r"\boxed{5}"], answer=["34", "34", None])
    stored(tmp_path / "2.parquet", response=[r"\boxed{34}", "Answer: 5"], answer=[34.0, float("nan")])
    stored(tmp_path / "3.parquet", response=[None], answer=[None])  # columns of type null
    said = CliRunner().invoke(app, ["grade", str(tmp_path)]).output.splitlines()
    counts = {line[:18].strip(): line[18:].split() for line in said}
    assert [counts[name][0] for name in ("both right", "only math-verify", "only exact match", "neither")] == list(
        "2004"
    )
    assert counts["both right"][1] == "0.333" and counts["neither"][1:4] == ["0.667", "2", "2"]


def test_what_cannot_be_graded_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "none.parquet").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    stored(tmp_path / "no_gold.parquet", response=["1"])
    stored(tmp_path / "no_row.parquet", response=[], answer=[])
    stored(tmp_path / "chat.parquet", response=[[{"content": r"\boxed{34}", "role": "assistant"}]], answer=["34"])
    stored(tmp_path / "flags.parquet", response=["1"], answer=[True])
    stored(tmp_path / "bytes.parquet", response=[b"\xff"], answer=["34"])
    offsets, content = b"\0\0\0\0\2\0\0\0", b"\xff\xfe"
    not_utf8 = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(content)])
    pq.write_table(pa.table({"response": not_utf8, "answer": ["34"]}), tmp_path / "latin.parquet")
    twice = pa.Table.from_arrays([pa.array(["1"])] * 3, names=["response", "response", "answer"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    for file, said in (
        ("nowhere.parquet", "nowhere.parquet: no such file"),
        ("text.parquet", "text.parquet: is no parquet file that can be read"),
        ("none.parquet", "none.parquet: is no parquet file that can be read"),
        ("empty", "empty: no parquet file in this folder"),
        ("no_gold.parquet", "no_gold.parquet: has no column 'answer'; columns response, answer are needed"),
        ("no_row.parquet", "no_row.parquet: no row"),
        ("chat.parquet", "chat.parquet: column 'response' is list<"),
        ("flags.parquet", "flags.parquet: column 'answer' is bool"),
        ("bytes.parquet", "bytes.parquet: column 'response' is binary"),
        ("latin.parquet", "latin.parquet: is no parquet file that can be read"),
        ("twice.parquet", "twice.parquet: has 2 columns 'response'"),
    ):
        result = CliRunner().invoke(app, ["grade", str(tmp_path / file)])
        assert result.exit_code == 1 and said in result.output and result.output.count("\n") == 1
    result = CliRunner().invoke(app, ["grade", str(tmp_path / "no_gold.parquet"), "--asked", "both"])
    assert result.exit_code == 1 and "'both' is unknown; choose from box, line" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data", "gsm8k"), "'gsm8k' is not a mathematics set; choose from dapo"),
        (("dedup", "a.parquet", "b.parquet", "c.parquet", "--threshold", "2"), "threshold"),
    ],
)
def test_bad_questions_about_data_are_one_message(words: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and said in result.output and "Traceback" not in result.output


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert CliRunner().invoke(app, ["--version"]).stdout == f"opd {project['version']}\n"


@pytest.mark.parametrize(("words", "offered"), [("opd tri", "tries"), ("opd reproduce --dry", "--dry-run")])
def test_the_shell_completes_commands_and_options(words: str, offered: str) -> None:
    asked = {"_OPD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert CliRunner().invoke(app, [], prog_name="opd", env=asked).stdout.split() == [offered]
