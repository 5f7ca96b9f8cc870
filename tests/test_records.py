"""Damaged records are said to be so by every reader; whole ones are written lastingly and read quickly."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import micro
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from opd_lib.batch import refresh
from opd_lib.command.cli import app
from opd_lib.params import RunSpec, experiment
from opd_lib.records import durable, leftovers, record, sealing
from opd_lib.records.record import RunRecord
from opd_lib.records.writer import RunWriter
from opd_lib.report import explore
from opd_lib.run import compare, evidence, growing, launch, plan, sealed, status

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
KEPT = {"step": 0, "prompt": "p", "answer": "5", "reward": 1.0, "test_set": "x", "problem": 0, "finished": True}
Damage = Callable[[Path], None]


def begun(spec: RunSpec) -> RunRecord:
    return RunRecord(
        folder=spec.folder, experiment=spec.experiment, profile=spec.profile, arm=spec.arm, seed=spec.seed,
        status="running", identity=spec.identity, params=spec.params.said(),
        parents={role: parent.identity for role, parent in spec.parents.items()},
    )  # fmt: skip


def write(spec: RunSpec, steps: int = 6) -> None:
    """A finished record as a run leaves it, of invented rows."""
    with RunWriter(begun(spec)) as writer:
        for step in range(1, steps + 1):
            writer.append("steps", [{"step": step, "loss": 0.1 * step + spec.seed, "entropy_gap": None}])
            writer.append_lines("tokens", [KEPT | {"step": step, "tokens": ["a", "\u2028"]}])
        writer.append("evals", [{"step": s, "test_set": t, "accuracy": 0.25} for s in (0, 6) for t in ("x", "y")])
        writer.finish({"score": 3.0})


@pytest.fixture
def specs(world: Path) -> tuple[RunSpec, ...]:
    """Runs of the world's first notebook whose records are whole; the tests damage the first."""
    found = micro.load(world, seeds=(0, 1)).runs()
    for spec in found:
        write(spec)
    micro.write_notebook(world, micro.MODELS)
    return found


def opd(world: Path, *words: str) -> Result:
    places = ("--params", str(world / "params"), "--results", str(world / "results"))
    return CliRunner().invoke(app, [*words, *places])


def text(content: bytes | str) -> Damage:
    """run.json says this instead."""
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content) and None  # type: ignore[return-value]


def edited(change: Callable[[bytes], bytes]) -> Damage:
    """Its bytes are changed."""
    return lambda path: path.write_bytes(change(path.read_bytes())) and None  # type: ignore[return-value]


def said(key: str, value: Any) -> Damage:
    """A key of run.json, or of a section, has another value."""

    def change(content: bytes) -> bytes:
        raw = json.loads(content)
        section, _, name = key.rpartition(".")
        (raw[section] if section else raw)[name] = value
        return json.dumps(raw).encode()

    return edited(change)


def without(key: str) -> Damage:
    return edited(lambda content: json.dumps({k: v for k, v in json.loads(content).items() if k != key}).encode())


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


RECORDS: dict[str, Damage] = {
    "empty": text(""),
    "half": edited(lambda content: content[: len(content) // 2]),
    "zeros": edited(lambda content: bytes(len(content))),
    "no text": text(b"\xff\xfe\x00{"),
    "another encoding": edited(lambda content: content.decode().encode("latin-1").replace(b"chain", b"ch\xe9n")),
    "a list": text("[]"),
    "a number": text("3"),
    "null": text("null"),
    "a string": text('"run"'),
    "deep": text("[" * 200_000),
    "a long number": text('{"seed": ' + "1" * 5000 + "}"),
    "a pointer": text(LFS),
    "a conflict": edited(lambda content: b"<<<<<<< HEAD\n" + content + b"=======\n" + content + b">>>>>>> theirs\n"),
    "a folder": folder_instead,
    "an unknown key": said("colour", "red"),
    "no status": without("status"),
    "no arm": without("arm"),
    "no params": without("params"),
    "an unknown status": said("status", "done"),
    "status a number": said("status", 3),
    "seed a word": said("seed", "zero"),
    "seed true": said("seed", True),
    "seed below 0": said("seed", -1),
    "identity a number": said("identity", 7),
    "params null": said("params", None),
    "params a list": said("params", [1]),
    "a task that is none": said("params.task", 3),
    "a teacher that is none": said("params.teacher", 3),
    "parents a list": said("parents", ["x"]),
    "a parent that is none": said("parents", {"teacher": 5}),
    "provenance null": said("provenance", None),
    "versions a list": said("provenance", {"versions": ["torch"]}),
    "gates a list": said("gates", []),
    "seconds a list": said("seconds", [1.0]),
    "seconds as text": said("seconds", {"score": "3"}),
    "seconds null": said("seconds", {"score": None}),
    "seconds not finite": said("seconds", {"score": float("inf")}),
    "seconds not a number": said("seconds", {"score": float("nan")}),
    "endless seconds": said("seconds", {"score": 10**400}),
    "error null": said("error", None),
    "tables a list": said("tables", []),
    "a table null": said("tables", {"steps.csv": None}),
    "a seal without digest": said("tables", {"steps.csv": {"bytes": 3, "rows": 1}}),
}
TABLES: dict[str, tuple[str, Damage, str]] = {
    "40 bytes cut off": ("evals.csv", edited(lambda content: content[:-40]), "bytes of the"),
    "a row cut off": ("steps.csv", edited(lambda content: content[: content[:-1].rfind(b"\n") + 1]), "bytes of the"),
    "a row twice": ("steps.csv", edited(lambda content: content + b"6,0.1,\n"), "bytes of the"),
    "emptied": ("steps.csv", text(""), "0 bytes"),
    "deleted": ("steps.csv", Path.unlink, "is missing"),
    "a folder": ("steps.csv", folder_instead, "cannot be read"),
    "a pointer": ("evals.csv", text(LFS), "git-LFS pointer"),
    "a conflict": ("evals.csv", edited(lambda c: c + b"<<<<<<< HEAD\n0\n=======\n1\n>>>>>>> x\n"), "conflict markers"),
    "other line ends": ("steps.csv", edited(lambda content: content.replace(b"\n", b"\r\n")), "line ends"),
    "no text": ("steps.csv", text(b"\x00\xff"), "2 bytes"),
    "responses cut off": ("tokens.jsonl", edited(lambda content: content[:-40]), "bytes of the"),
    "responses deleted": ("tokens.jsonl", Path.unlink, "is missing"),
}
SAME_SIZE: dict[str, tuple[str, Damage, str]] = {
    "another digit": ("evals.csv", edited(lambda content: content.replace(b"0.25", b"0.75", 1)), "other content"),
    "another header": ("steps.csv", edited(lambda content: content.replace(b"loss", b"lost")), "other content"),
    "another word": ("tokens.jsonl", edited(lambda content: content.replace(b'"a"', b'"b"', 1)), "other content"),
    "a table nobody wrote": ("caps.csv", text("step,cap\n0,4\n"), "was not there"),
}
PROGRESS: dict[str, Damage] = {
    "empty": text(""),
    "a list": text("[]"),
    "null": text("null"),
    "no text": text(b"\xff\xfe"),
    "a folder": lambda path: path.mkdir(),
    "no step": text('{"steps": 6, "seconds": {}}'),
    "step as text": text('{"step": "3", "steps": 6, "seconds": {}}'),
    "step beyond the end": text('{"step": 9, "steps": 6, "seconds": {}}'),
    "step without end": text('{"step": 1, "steps": 6, "seconds": {"score": 1e999}}'),
    "seconds null": text('{"step": 1, "steps": 6, "seconds": {"score": null}}'),
    "seconds a list": text('{"step": 1, "steps": 6, "seconds": [1]}'),
}


def test_there_are_enough_of_them() -> None:
    assert len(RECORDS) + len(TABLES) + len(SAME_SIZE) + len(PROGRESS) >= 41


def one_corrupt(world: Path, *options: str) -> str:
    """What `opd status` says of the one corrupt run; the others are done."""
    result = opd(world, "status", "--runs", "--notebooks", str(world / "notebooks"), "--seeds", "2", *options)
    assert result.exit_code == 0 and "1 corrupt" in result.stdout and "5 done" in result.stdout, result.output
    lines = [line for line in result.stdout.splitlines() if " corrupt " in line]
    assert len(lines) == 1 and "student/seed0" in lines[0]
    return lines[0]


@pytest.mark.parametrize("kind", RECORDS)
def test_a_damaged_record_is_one_error_and_spares_the_others(
    world: Path, specs: tuple[RunSpec, ...], kind: str
) -> None:
    path = specs[0].folder / "run.json"
    RECORDS[kind](path)
    with pytest.raises(ValueError, match=r"run\.json: (corrupt record|cannot be read)") as caught:
        record.read(specs[0].folder)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 700
    one_corrupt(world)
    for words in (("run", micro.MODELS, "student", "0"), ("claims",), ("compare",)):
        where = ["--params", str(world / "params")] if words[0] == "run" else []
        result = CliRunner().invoke(app, [*words, "--results", str(world / "results"), *where])
        assert result.exit_code == 1 and result.stderr.startswith(f"error: {path}: "), result.output
        assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("kind", TABLES | SAME_SIZE)
def test_a_damaged_table_is_one_error_for_whoever_reads_it(world: Path, specs: tuple[RunSpec, ...], kind: str) -> None:
    file, damage, reason = (TABLES | SAME_SIZE)[kind]
    path = specs[0].folder / file
    damage(path)
    present = record.read(specs[0].folder)
    assert present is not None
    table = path.suffix == ".csv"
    with pytest.raises(ValueError) as caught:
        present.frame(path.stem) if table else present.tokens()
    assert str(caught.value).startswith(f"{path}: corrupt table: it ") and reason in str(caught.value)
    assert "git checkout" in str(caught.value) and "delete" in str(caught.value)
    readers: list[Callable[[], Any]] = [lambda: refresh.copy_record(present.folder, world / "copy", with_tokens=True)]
    if table:
        readers += [
            lambda: launch.run(micro.load(world, seeds=(0, 1))).frame(path.stem),
            lambda: evidence.read("tiny", world / "results", world / "params"),
            lambda: compare.compare("tiny", world / "results", world / "results"),
        ]
        readers += [lambda: growing.rows(present, path.stem)] if path.stem in (growing.STEPS, growing.EVALS) else []
    else:
        readers.append(lambda: explore.tokens([present]))
    for read in readers:
        with pytest.raises(ValueError) as caught:
            read()
        assert str(path) in str(caught.value)
    shown = one_corrupt(world, "--verify")
    assert file in shown and reason in shown
    if kind in TABLES:
        assert file in one_corrupt(world)


@pytest.mark.parametrize("kind", PROGRESS)
def test_a_damaged_progress_file_stops_nobody(world: Path, specs: tuple[RunSpec, ...], kind: str) -> None:
    with RunWriter(begun(specs[0])):
        pass
    path = specs[0].folder / record.PROGRESS
    PROGRESS[kind](path)
    with pytest.raises(ValueError, match=r"\.progress\.json: corrupt .*; delete it"):
        status.snapshot(specs[0].folder)
    assert str(path) in one_corrupt(world)
    from opd_lib.run import meter

    line = meter.meter_of(specs[:1], 1).lines({specs[0].name: meter.RUNNING})[0]
    assert line.step == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"step,loss\n1,0.5\n2,0.", r"is cut off in line 3 \(no line break at its end\)"),
        (b"step,loss\n1,0.5\n2\n", "more or fewer cells"),
        (b"", "is empty"),
        (LFS, "git-LFS"),
        (b"step,loss\n<<<<<<< HEAD\n1,0.5\n=======\n1,0.6\n>>>>>>> x\n", r"conflict markers \(line 2\)"),
    ],
)
def test_without_digests_what_can_be_seen_is_refused(world: Path, content: bytes, reason: str) -> None:
    spec = micro.load(world).spec("student", 0)
    micro.write_record(spec)
    present = record.read(spec.folder)
    assert present is not None and present.tables is None
    assert len(present.frame("steps")) == 2 and present.frame("evals").empty
    (spec.folder / "steps.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"steps\.csv: corrupt table: .*{reason}"):
        present.frame("steps")
    with pytest.raises(ValueError, match=r"steps\.csv"):
        sealed.seal_all(world / "results" / "tiny")


def test_a_record_without_digests_is_accepted_as_such_and_said_to_be(world: Path) -> None:
    spec = micro.load(world).spec("student", 0)
    micro.write_record(spec)
    assert "no digests" not in status.status([spec])["note"][0]
    frame = status.status([spec], verify=True)
    assert frame["state"][0] == "done" and "no digests" in frame["note"][0]


def test_sealing_adds_the_key_once_and_changes_nothing_else(world: Path) -> None:
    old = micro.load(world, seeds=(0, 1)).runs()
    for spec in old:
        micro.write_record(spec)
    before = {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}
    assert "6 records sealed (6 tables)" in sealed.seal_all(world / "results" / "tiny")
    after = {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} == {spec.folder / "run.json" for spec in old}
    for spec in old:
        now = json.loads((spec.folder / "run.json").read_bytes())
        assert now.pop("tables") == {"steps.csv": sealing.seal("steps.csv", (spec.folder / "steps.csv").read_bytes())}
        assert json.dumps(now, indent=1) + "\n" == before[spec.folder / "run.json"].decode()
    assert "0 records sealed" in sealed.seal_all(world / "results" / "tiny")
    shutil.rmtree(old[1].folder)
    micro.write_record(old[1])
    (old[0].folder / "steps.csv").write_text("step,loss\n1,0.5\n2,0.75\n")
    with pytest.raises(ValueError, match=r"seed0/steps\.csv: corrupt table"):
        sealed.seal_all(world / "results" / "tiny")
    present = record.read(old[1].folder)
    assert present is not None and present.tables is None  # nothing is written where one does not hold


def test_sealing_shows_when_something_else_changes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = micro.load(world).spec("student", 0)
    micro.write_record(spec)
    original = sealed._replace

    def also(path: Path, content: str) -> None:
        original(path, content)
        (path.parent / "steps.csv").write_text("step,loss\n")

    monkeypatch.setattr(sealed, "_replace", also)
    with pytest.raises(ValueError, match=r"steps\.csv: has changed while records were sealed"):
        sealed.seal_all(world / "results" / "tiny")


def test_a_committed_copy_knows_only_the_tables_it_has(world: Path, specs: tuple[RunSpec, ...]) -> None:
    for with_tokens, files in ((False, {"steps.csv", "evals.csv"}), (True, {"steps.csv", "evals.csv", "tokens.jsonl"})):
        refresh.copy_record(specs[0].folder, world / "copy", with_tokens=with_tokens)
        copied = record.read(world / "copy")
        assert copied is not None and set(copied.tables or ()) == files
        assert sealing.fault(copied.folder, copied.tables, verify=True) == ""
        assert bool(copied.tokens()) == with_tokens


def test_kept_words_may_be_any_and_a_bad_line_is_named(world: Path) -> None:
    spec = micro.load(world).spec("student", 0)
    micro.write_record(spec)
    present = record.read(spec.folder)
    assert present is not None
    rows = [KEPT | {"tokens": ["a\u2028b", "\x0b"]}, KEPT | {"step": 1, "tokens": ["c"]}]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (spec.folder / "tokens.jsonl").write_text("".join(lines), encoding="utf-8")
    assert present.tokens() == rows
    for bad in ("{\n", "[1]\n", '{"tokens": []}\n'):
        (spec.folder / "tokens.jsonl").write_text(lines[0] + bad, encoding="utf-8")
        with pytest.raises(ValueError, match=r"tokens\.jsonl, line 2: .*; bring it back .*delete"):
            present.tokens()


# --- growing tables ---------------------------------------------------------------------------------------------------


def test_an_append_reads_nothing_however_long_the_table(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = micro.load(world).spec("student", 0)
    with RunWriter(begun(spec)) as writer:
        writer.append("steps", [{"step": 1, "loss": 0.5}])
        modes: list[str] = []
        original = Path.open

        def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
            modes.append(mode)
            return original(path, mode, *rest, **named)

        monkeypatch.setattr(Path, "open", opened)
        for step in range(2, 300):
            writer.append("steps", [{"step": step, "loss": 0.5}])
            writer.append_lines("rollouts", [{"step": step}])
        assert modes.count("ab") == 2 * 298 and len(modes) == 2 * 298 + 1  # the header, once
        monkeypatch.undo()
        seals = writer.save()
    for file, seal in seals.items():
        assert seal == sealing.seal(file, (spec.folder / file).read_bytes())


def test_a_resumed_run_reads_its_tables_once_and_in_pieces(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from opd_lib.records import ledger

    spec = micro.load(world).spec("student", 0)
    row = {"step": 1, "tokens": ["w"] * 200}
    with RunWriter(begun(spec)) as writer:
        writer.append_lines("rollouts", [row] * 500)
        seals = writer.save()
        writer.append_lines("rollouts", [row | {"step": 2}] * 500)
    monkeypatch.setattr(ledger, "PIECE", 4096)
    fed: list[int] = []
    original = sealing.Hasher.feed
    monkeypatch.setattr(sealing.Hasher, "feed", lambda self, part: (fed.append(len(part)), original(self, part))[1])
    with RunWriter(begun(spec)) as writer:
        writer.restore(seals)
        assert max(fed) <= 4096 and sum(fed) == seals["rollouts.jsonl"]["bytes"]
    assert (spec.folder / "rollouts.jsonl").stat().st_size == seals["rollouts.jsonl"]["bytes"]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("steps.csv", edited(lambda content: content.replace(b"2,0.2", b"", 1))),
        ("steps.csv", edited(lambda content: content[:20])),
        ("steps.csv", text(LFS)),
        ("steps.csv", Path.unlink),
        ("tokens.jsonl", edited(lambda content: content.replace(b'"a"', b'"b"', 1))),
        ("tokens.jsonl", Path.unlink),
    ],
)
def test_rows_lost_before_a_checkpoint_are_never_written_over(world: Path, file: str, damage: Damage) -> None:
    spec = micro.load(world).spec("student", 0)
    with RunWriter(begun(spec)) as writer:
        for step in (1, 2, 3, 4):
            writer.append("steps", [{"step": step, "loss": 0.1 * step}])
            writer.append_lines("tokens", [{"step": step, "tokens": ["a"]}])
            if step == 3:
                seals = writer.save()
    whole = {path: path.read_bytes() for path in spec.folder.iterdir()}
    damage(spec.folder / file)
    before = {path: path.read_bytes() for path in spec.folder.iterdir() if path.name != "run.json"}
    with RunWriter(begun(spec)) as writer, pytest.raises(ValueError, match=rf"{file}: corrupt table: .*delete"):
        writer.restore(seals)
    assert {path: path.read_bytes() for path in spec.folder.iterdir() if path.name != "run.json"} == before
    for path, content in whole.items():
        path.write_bytes(content)
    with RunWriter(begun(spec)) as writer:
        writer.restore(seals)
        writer.append("steps", [{"step": 4, "loss": 0.4}])
        writer.append_lines("tokens", [{"step": 4, "tokens": ["a"]}])
    assert all((spec.folder / name).read_bytes() == whole[spec.folder / name] for name in ("steps.csv", "tokens.jsonl"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("step,loss\n1,0.1\n3,0.3\n", "another row 2"),
        ("step,loss\n1,0.1\n2,0.2\n", "ends with step 2"),
        ("step,loss\n1,0.1\nx,0.2\n3,0.3\n", "another row 2"),
        ("step,loss\n1,0.1\n2,0.2\n2,0.2\n3,0.3\n", "another row 3"),
    ],
)
def test_where_no_digest_is_kept_every_step_must_have_its_row(world: Path, content: str, said: str) -> None:
    spec = micro.load(world).spec("student", 0)
    with RunWriter(begun(spec)) as writer:
        (spec.folder / "steps.csv").write_text(content)
        with pytest.raises(ValueError, match=said):
            writer.truncate(3, counted="steps")
        assert (spec.folder / "steps.csv").read_text() == content
        (spec.folder / "steps.csv").unlink()
        with pytest.raises(ValueError, match="is missing"):
            writer.truncate(3, counted="steps")
        (spec.folder / "steps.csv").write_text("step,loss\n1,0.1\n2,0.2\n3,0.3\n4,0.4\n5,")
        writer.truncate(3, counted="steps")
        assert (spec.folder / "steps.csv").read_text() == "step,loss\n1,0.1\n2,0.2\n3,0.3\n"


def test_a_table_that_somebody_else_changes_ends_the_run(world: Path) -> None:
    spec = micro.load(world).spec("student", 0)

    def disturbed() -> None:
        with RunWriter(begun(spec)) as writer:
            writer.append("steps", [{"step": 1, "loss": 0.1}])
            with (spec.folder / "steps.csv").open("a") as file:
                file.write("9,9\n")
            writer.append("steps", [{"step": 2, "loss": 0.1}])

    with pytest.raises(ValueError, match=r"steps\.csv: .*was changed"):
        disturbed()
    present = record.read(spec.folder)
    assert present is not None and present.status == "failed" and "was changed" in present.error


# --- lasting ----------------------------------------------------------------------------------------------------------


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are read from /proc")


@needs_proc
def test_what_gets_a_name_is_on_the_disk_and_so_is_the_name(tmp_path: Path, disk: list[tuple[str, str]]) -> None:
    durable.write_json(tmp_path / "a.json", {})
    temporary = f".a.json.{os.getpid()}"
    assert disk == [("sync", temporary), ("name", f"{temporary} → a.json"), ("sync", tmp_path.name)]
    disk.clear()
    (tmp_path / "new" / "inside").mkdir(parents=True)
    (tmp_path / "new" / "inside" / "weights").write_text("x")
    durable.replace(tmp_path / "new", tmp_path / "model")
    assert disk[:3] == [("sync", "weights"), ("sync", "inside"), ("sync", "new")] and disk[3][0] == "name"
    disk.clear()
    durable.write_json(tmp_path / "a.json", {}, lasting=False)
    assert [kind for kind, _ in disk] == ["name"]


@needs_proc
def test_tables_are_on_the_disk_before_what_presupposes_them(world: Path, disk: list[tuple[str, str]]) -> None:
    write(micro.load(world).spec("student", 0))
    last = max(index for index, (kind, name) in enumerate(disk) if kind == "name" and name.endswith("run.json"))
    for file in ("steps.csv", "evals.csv", "tokens.jsonl"):
        assert ("sync", file) in disk[:last]


# --- what killed processes leave --------------------------------------------------------------------------------------


def test_the_next_call_sweeps_what_a_killed_process_left(world: Path, specs: tuple[RunSpec, ...]) -> None:
    def leave(folder: Path) -> list[Path]:
        (folder / leftovers.SHARES / "00000004").mkdir(parents=True)
        left = [folder / name for name in (leftovers.CHECKPOINT, record.PROGRESS, ".run.json.4711")]
        for path in left:
            path.write_text("x")
        return [*left, folder / leftovers.SHARES]

    whole = {path.name for path in specs[0].folder.iterdir()}
    finished, running, locked = (leave(spec.folder) for spec in specs[:3])
    micro.write_record(specs[1], status="running")
    with RunWriter(begun(specs[4])):
        owned = leave(specs[4].folder)
        micro.write_record(specs[4])
        assert plan.swept(specs) == specs
        assert all(path.exists() for path in owned)
    assert not any(path.exists() for path in (*finished, *locked))
    assert {path.name for path in specs[0].folder.iterdir()} == whole
    assert all(path.exists() for path in running)
    with RunWriter(begun(specs[1])):
        assert [path.exists() for path in running] == [True, True, False, True]


def test_a_launch_and_a_plan_sweep(world: Path, specs: tuple[RunSpec, ...]) -> None:
    from opd_lib.batch import jobs

    experiment = micro.load(world, seeds=(0, 1))
    for call in (
        lambda: launch.run(experiment),
        lambda: jobs.make_plan([experiment], world / "results", world / "notebooks", world / "params"),
        lambda: opd(world, "run", micro.MODELS, "student", "0"),
    ):
        for spec in specs:
            (spec.folder / "model").mkdir(exist_ok=True)
        (specs[0].folder / leftovers.CHECKPOINT).write_text("x")
        call()
        assert not (specs[0].folder / leftovers.CHECKPOINT).exists()


# --- many of them -----------------------------------------------------------------------------------------------------


def test_status_asks_once_for_a_version_and_twice_for_a_record(
    world: Path, specs: tuple[RunSpec, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for spec in specs:
        said("provenance", {"versions": {"pandas": "0", "numpy": "0"}})(spec.folder / "run.json")
    status.installed_version.cache_clear()
    asked: list[str] = []
    monkeypatch.setattr(status, "version", lambda name: asked.append(name) or "1")  # type: ignore[func-returns-value]
    read: list[Path] = []
    original = record.read
    monkeypatch.setattr(record, "read", lambda folder: (read.append(folder), original(folder))[1])
    frame = status.status(specs)
    assert sorted(asked) == ["numpy", "pandas"] and all("pandas 0 → 1" in note for note in frame["note"])
    assert len([folder for folder in read if folder in {spec.folder for spec in specs}]) <= 2 * len(specs)


def test_tables_of_many_runs_are_read_as_one(
    world: Path, specs: tuple[RunSpec, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [present for spec in specs if (present := record.read(spec.folder)) is not None]
    apart = pd.concat(
        [
            one.frame("steps").assign(arm=one.arm, seed=one.seed)[["arm", "seed", "step", "loss", "entropy_gap"]]
            for one in found
        ],
        ignore_index=True,
    )
    calls: list[int] = []
    original = pd.read_csv
    monkeypatch.setattr(pd, "read_csv", lambda *a, **k: (calls.append(1), original(*a, **k))[1])
    pd.testing.assert_frame_equal(record.frame(found, "steps"), apart)
    assert len(calls) == 1


def test_a_spec_is_made_once_however_many_start_from_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = experiment.identity
    monkeypatch.setattr(experiment, "identity", lambda *a: (made.append(1), original(*a))[1])
    micro.load(world, micro.OPD, seeds=tuple(range(20))).runs()
    assert len(made) == 20 * 4  # two arms, a student and a teacher; not a student and a teacher for each arm
