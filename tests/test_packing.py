"""Packed records are the same records: every reader, every byte, every refusal; and they are packed once, or not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from test_records import LFS, begun, needs_proc, opd, write

from opd_lib import names, paths
from opd_lib.batch import redraw, reexecute, refresh
from opd_lib.bench import stages
from opd_lib.params import RunSpec
from opd_lib.records import durable, files, packed, packing, record, sealing
from opd_lib.records.writer import RunWriter
from opd_lib.run import compare, evidence, growing, launch, packs, plan, sealed, status

REAL = ("03_reverse_distillation", "09_reward_geometry")
"""Committed notebooks whose records are packed in a test: training runs and probes."""


@pytest.fixture
def profile(world: Path) -> Path:
    """A results folder of whole records: three arms of a notebook, two of another, two seeds."""
    for spec in specs(world):
        write(spec)
        (spec.folder / ".lock").unlink()  # as where they are committed
    return world / "results" / "tiny"


def specs(world: Path) -> tuple[RunSpec, ...]:
    return tuple(s for name in (micro.MODELS, micro.OPD) for s in micro.load(world, name, seeds=(0, 1)).runs())


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def pack_of(spec: RunSpec) -> Path:
    return packed.home(spec.folder)


# --- there and back ---------------------------------------------------------------------------------------------------


def test_what_is_unpacked_is_what_was_packed(world: Path, profile: Path) -> None:
    first = specs(world)[0]
    (first.folder / "model").mkdir()
    (first.folder / "model" / "weights").write_text("w")
    before = contents(profile)
    moved = packs.pack(profile)
    assert (moved.runs, moved.files) == (10, 40) and moved.packs == 4 * 4
    assert moved.bytes == sum(len(content) for name, content in before.items() if "/model/" not in name)
    stem = f"{micro.MODELS}/packed/seed0"
    assert {name for name in contents(profile) if name.startswith(f"{stem}/")} == {
        f"{stem}/{table}.parquet" for table in ("run", "steps", "evals", "tokens")
    }
    assert [path.name for path in (profile / micro.MODELS).iterdir() if path.name != packed.FOLDER] == [first.arm]
    assert contents(first.folder) == {"model/weights": b"w"}, "checkpoints stay"
    assert packs.pack(profile).runs == 0
    assert packs.unpack(profile) == moved
    assert contents(profile) == before


def test_the_same_runs_are_packed_into_the_same_bytes(world: Path, profile: Path) -> None:
    packs.pack(profile)
    first = contents(profile)
    packs.unpack(profile)
    packs.pack(profile)
    assert contents(profile) == first


@pytest.mark.parametrize("notebook", REAL)
def test_committed_records_are_packed_into_a_third_and_come_back(notebook: str, tmp_path: Path) -> None:
    committed = files.of_notebook(paths.RESULTS / "tiny" / notebook)
    for run in committed:
        packing.copy(run, tmp_path / "tiny" / run.relative_to(paths.RESULTS / "tiny"))
    before = contents(tmp_path)
    whole = evidence.records("tiny", tmp_path)
    tables = {table: record.frame(whole.values(), table) for table in record.TABLES}
    moved = packs.pack(tmp_path / "tiny")
    assert moved.runs == len(committed) == len(whole) and moved.bytes == sum(map(len, before.values()))
    assert moved.packed_bytes < moved.bytes / 3
    found = evidence.records("tiny", tmp_path)
    assert found == whole and not any(sealing.fault(r.folder, r.tables, verify=True) for r in found.values())
    for table, frame in tables.items():
        pd.testing.assert_frame_equal(record.frame(found.values(), table), frame)
    packs.unpack(tmp_path / "tiny")
    assert contents(tmp_path) == before


def test_notebooks_and_seeds_are_chosen(world: Path, profile: Path) -> None:
    assert packs.pack(profile, [micro.OPD], [1]).runs == 2
    assert [home.relative_to(profile).as_posix() for home in profile.glob("*/packed/*")] == [
        f"{micro.OPD}/packed/seed1"
    ]
    with pytest.raises(ValueError, match=r"--only 07_x: .* has nothing of it; choose from 00_models, 01_opd"):
        packs.pack(profile, ["07_x"])
    with pytest.raises(ValueError, match="no folder of results"):
        packs.unpack(world / "elsewhere")


def test_elsewhere_the_runs_go_and_the_packs_stay(world: Path, profile: Path) -> None:
    before = contents(profile)
    packs.pack(profile)
    there = contents(profile)
    packs.unpack(profile, output=world / "out")
    assert contents(world / "out" / "tiny") == before and contents(profile) == there
    packs.unpack(profile, output=world / "out")  # the same again is nothing new
    path = world / "out" / "tiny" / micro.OPD / "plain" / "seed0" / "steps.csv"
    path.write_text("step\n")
    with pytest.raises(ValueError, match=rf"{path}: has other content than .*steps\.parquet; delete"):
        packs.unpack(profile, output=world / "out")


# --- every reader -----------------------------------------------------------------------------------------------------


def test_readers_do_not_notice(world: Path, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = micro.load(world, seeds=(0, 1))

    def seen() -> dict[str, Any]:
        found = evidence.records("tiny", world / "results")
        read = evidence.read("tiny", world / "results", world / "params")
        frames = {table: record.frame(found.values(), table).to_csv() for table in record.TABLES}
        stages.write(profile, 0, world / "stages.csv")
        return {
            "records": found,
            "tables": frames,
            "responses": [one.tokens() for one in found.values()],
            "kept": [one.kept("tokens.jsonl") for one in found.values()],
            "evidence": {name: {t: f.to_csv() for t, f in tables.items()} for name, tables in read.experiments.items()},
            "status": status.status(specs(world)).to_csv(),
            "verified": status.status(specs(world), verify=True).to_csv(),
            "compared": compare.compare("tiny", world / "results", world / "results"),
            "missing": plan.missing(specs(world)),
            "curves": growing.curves(models.runs()).to_csv(),
            "launched": launch.run(models).frame("steps").to_csv(),
            "parents": launch.parents(micro.load(world, micro.OPD)).records,
            "stages": (world / "stages.csv").read_text(),
            "linked": contents_of_view(models),
        }

    def contents_of_view(experiment: Any) -> dict[str, bytes]:
        shutil.rmtree(world / "view", ignore_errors=True)
        redraw.link(redraw.finished(experiment), world / "view")
        return {
            path.relative_to(world / "view").as_posix(): path.read_bytes()
            for path in sorted((world / "view").glob("*/*/*/*/*"))
            if path.name != ".lock"
        }

    before = seen()
    assert before["missing"] == () and len(before["records"]) == 10
    packs.pack(profile)
    assert not list(profile.rglob("run.json"))
    after = seen()
    assert after == before
    reexecute.require_committed([models], world / "results")


def test_some_may_be_packed_and_others_not(world: Path, profile: Path) -> None:
    before = status.status(specs(world)).to_csv()
    found = evidence.records("tiny", world / "results")
    packs.pack(profile, [micro.MODELS], [0])
    assert status.status(specs(world)).to_csv() == before
    assert evidence.records("tiny", world / "results") == found and [*found] == sorted(found)


def test_a_pack_is_read_once(world: Path, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs.pack(profile)
    packed._read.cache_clear()
    opened: list[str] = []
    original = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        opened.extend([path.name] if path.is_relative_to(profile) and path.suffix == ".parquet" else [])
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    status.status(specs(world), verify=True)
    assert sorted(opened) == sorted(f"{table}.parquet" for table in ("run", "steps", "evals", "tokens") for _ in "4444")
    opened.clear()
    packed._read.cache_clear()
    status.status(specs(world))
    assert {*opened} == {"run.parquet"}, "sizes need no content"


def test_what_a_seed_takes_is_learnt_from_packed_runs(world: Path, profile: Path) -> None:
    packs.pack(profile)
    new = micro.load(world, seeds=(2,)).runs()
    assert status.pace(new) == {spec.name: 3.0 for spec in new}


# --- damage -----------------------------------------------------------------------------------------------------------


def rewritten(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Callable[[Path], None]:
    """Another pack of changed rows, as whole as the first."""

    def damage(path: Path) -> None:
        table = pq.read_table(path)
        rows = change(dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True)))
        content = {
            packed.ARM: pa.array(list(rows), pa.string()),
            table.column_names[1]: pa.array(rows.values(), pa.binary()),
        }
        pq.write_table(pa.table(content).replace_schema_metadata(table.schema.metadata), path)

    return damage


def said_too(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Callable[[Path], None]:
    """The same of run.parquet, which then also says these arms."""

    def damage(path: Path) -> None:
        rewritten(change)(path)
        table = pq.read_table(path)
        arms = {packed.ARMS: json.dumps(table[packed.ARM].to_pylist())}
        pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **arms}), path)

    return damage


def unsaid(key: bytes, value: bytes | None = None) -> Callable[[Path], None]:
    """Without a word of run.parquet about itself, or with another in its place."""

    def damage(path: Path) -> None:
        table = pq.read_table(path)
        kept = {k: v for k, v in table.schema.metadata.items() if k != key} | ({} if value is None else {key: value})
        pq.write_table(table.replace_schema_metadata(kept), path)

    return damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)


def swapped(path: Path) -> None:
    shutil.copy(path.with_name("evals.parquet"), path)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pointer(path: Path) -> None:
    path.write_bytes(LFS)


def arms_twice(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)


def other_digits(rows: dict[str, bytes]) -> dict[str, bytes]:
    return rows | {"student": rows["student"].replace(b"0.1", b"0.7", 1)}


def without_student(rows: dict[str, bytes]) -> dict[str, bytes]:
    return {arm: content for arm, content in rows.items() if arm != "student"}


TABLES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (cut, "no whole parquet file"),
    "a pointer": (pointer, "git-LFS pointer"),
    "emptied": (lambda path: path.write_bytes(b"") and None, "no whole parquet file"),  # type: ignore[return-value]
    "another table": (swapped, "has columns arm, evals.csv, not arm and steps.csv"),
    "deleted": (Path.unlink, "is missing: its run left it"),
    "a folder": (folder_instead, "cannot be read"),
    "a row less": (rewritten(without_student), "is missing: its run left it"),
    "arms twice": (arms_twice, "has an arm twice"),
    "another digit": (rewritten(other_digits), "has other content than its run left"),
    "a row cut off": (rewritten(lambda rows: rows | {"student": rows["student"][:-9]}), "bytes of the"),
}
UNSEEN_BY_SIZE = {"another digit", "a row cut off"}
"""Where the size of the file may be what it was: only its content tells."""


@pytest.mark.parametrize("kind", TABLES)
def test_a_damaged_pack_is_one_error_for_whoever_reads_it(world: Path, profile: Path, kind: str) -> None:
    damage, reason = TABLES[kind]
    packs.pack(profile)
    spec = specs(world)[0]
    path = pack_of(spec) / "steps.parquet"
    damage(path)
    present = record.read(spec.folder)
    assert present is not None and len(present.frame("evals"))
    readers: tuple[Callable[[], Any], ...] = (
        lambda: present.frame("steps"),
        lambda: launch.run(micro.load(world, seeds=(0, 1))).frame("steps"),
        lambda: evidence.read("tiny", world / "results", world / "params"),
        lambda: compare.compare("tiny", world / "results", world / "results"),
        lambda: refresh.copy_record(spec.folder, world / "copy"),
        lambda: packs.unpack(profile),
        lambda: packs.unpack(profile, output=world / "out"),
        lambda: redraw.link([present], world / "view") or present.frame("steps"),
    )
    for read in readers:
        with pytest.raises(ValueError) as caught:
            read()
        said = str(caught.value)
        assert said.startswith(f"{path}") and reason in said and "git checkout -- steps.parquet" in said, said
        assert "\n" not in said
    assert not (world / "out").exists() and not list(profile.rglob("run.json")), "nothing is half unpacked"
    frame = status.status(specs(world), verify=True).set_index("run")
    assert frame.loc[spec.name, "state"] == "corrupt" and reason in frame.loc[spec.name, "note"]
    assert (frame[frame.index.str.startswith(micro.OPD)]["state"] == "done").all(), "others are spared"
    seen = status.status(specs(world)).set_index("run").loc[spec.name]
    assert seen["state"] == "corrupt" or kind in UNSEEN_BY_SIZE


def test_a_flipped_bit_is_seen(world: Path, profile: Path) -> None:
    packs.pack(profile)
    spec = specs(world)[0]
    path = pack_of(spec) / "tokens.parquet"
    flipped(path)
    frame = status.status([spec], verify=True)
    assert frame["state"][0] == "corrupt" and str(path) in frame["note"][0]


RECORDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (cut, "no whole parquet file"),
    "a pointer": (pointer, "git-LFS pointer"),
    "deleted": (Path.unlink, "is missing, and without it"),
    "half a record": (rewritten(lambda rows: rows | {"student": rows["student"][:90]}), "corrupt record"),
    "written by others": (lambda path: pq.write_table(pq.read_table(path).replace_schema_metadata(), path), "neighb"),
    "without sizes": (unsaid(packed.SIZES), "does not say which arms it has, and how large its neighbours are"),
    "without arms": (unsaid(packed.ARMS), "does not say which arms it has"),
    "arms cut off": (unsaid(packed.ARMS, b'["stud'), "does not say which arms it has"),
    "a row less": (rewritten(without_student), "has records of better, teacher, and was written with better, student"),
    "no rows": (rewritten(lambda rows: {}), "has records of no arm, and was written with better, student, teacher"),
    "no rows, no arms": (said_too(lambda rows: {}), "has records of no arm"),
    "no name": (said_too(lambda rows: rows | {"../student": rows["student"]}), "is no name of an arm"),
}


def test_rows_under_the_name_of_another_arm_are_refused(world: Path, profile: Path) -> None:
    packs.pack(profile)
    home = pack_of(specs(world)[0])
    for path in home.iterdir():
        rewritten(lambda rows: rows | {"student": rows["teacher"], "teacher": rows["student"]})(path)
    before = contents(profile)
    readers: tuple[Callable[[], Any], ...] = (
        lambda: evidence.finished(profile),
        lambda: record.read(profile / micro.MODELS / "student" / "seed0"),
        lambda: packs.unpack(profile),
        lambda: packs.unpack(profile, output=world / "out"),
    )
    for read in readers:
        with pytest.raises(ValueError, match=r"run\.parquet, arm (student|teacher): .*is the record of .*git"):
            read()
    assert contents(profile) == before and not (world / "out").exists()
    seen = status.status(specs(world)).set_index("run")["state"]
    assert {*seen[[f"{micro.MODELS}/{arm}/seed0" for arm in ("student", "teacher")]]} == {"corrupt"}


@pytest.mark.parametrize("kind", RECORDS)
def test_damaged_records_of_a_pack_are_one_error(world: Path, profile: Path, kind: str) -> None:
    damage, reason = RECORDS[kind]
    packs.pack(profile)
    spec = specs(world)[0]
    path = pack_of(spec) / "run.parquet"
    damage(path)
    with pytest.raises(ValueError) as caught:
        evidence.finished(profile)
    assert str(caught.value).startswith(str(path)) and reason in str(caught.value)
    if kind != "no name":
        frame = status.status(specs(world)).set_index("run")
        assert frame.loc[spec.name, "state"] == "corrupt" and str(path) in frame.loc[spec.name, "note"]
        assert (frame[frame.index.str.endswith("seed1")]["state"] == "done").all()
        result = opd(world, "run", micro.MODELS, "student", "0")
        assert result.exit_code == 1 and result.stderr.startswith(f"error: {path}"), result.output
        with pytest.raises(ValueError, match=f"^{path}"):
            packs.unpack(profile)


def test_a_table_nobody_wrote_is_refused_and_a_bad_line_is_named(world: Path, profile: Path) -> None:
    packs.pack(profile)
    spec = specs(world)[0]
    caps = {packed.ARM: ["student"], "caps.csv": pa.array([b"step\n0\n"], pa.binary())}
    pq.write_table(pa.table(caps), pack_of(spec) / "caps.parquet")
    present = record.read(spec.folder)
    assert present is not None
    with pytest.raises(ValueError, match=r"caps\.parquet, arm student: corrupt table: it was not there when"):
        present.frame("caps")
    bad = b'{"tokens": []}\n'
    rewritten(lambda rows: rows | {"student": bad})(pack_of(spec) / "tokens.parquet")
    known = replace(present, tables={**(present.tables or {}), "tokens.jsonl": sealing.seal("tokens.jsonl", bad)})
    with pytest.raises(ValueError, match=r"tokens\.parquet, arm student, line 1: .*git checkout"):
        known.tokens()


def test_a_run_packed_and_not_with_other_bytes_is_refused(world: Path, profile: Path) -> None:
    before = contents(profile)
    packs.pack(profile)
    spec = specs(world)[0]
    spec.folder.mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "steps.csv"):
        (spec.folder / name).write_bytes(before[f"{spec.name}/{name}"])
    assert set(status.status([spec], verify=True)["state"]) == {"done"}, "the same bytes are no contradiction"
    (spec.folder / "steps.csv").write_bytes(before[f"{spec.name}/steps.csv"].replace(b"0.1", b"0.7", 1))
    for read in (
        lambda: evidence.read("tiny", world / "results", world / "params"),
        lambda: packs.pack(profile),
        lambda: packs.unpack(profile),
    ):
        with pytest.raises(ValueError, match=r"seed0/steps\.csv: has other content than .*packed.*; delete the one"):
            read()
    (spec.folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"seed0/run\.json: has other content"):
        record.read(spec.folder)


# --- once, whole, or not at all ---------------------------------------------------------------------------------------


def test_a_pack_is_written_once(world: Path, profile: Path) -> None:
    spec, other = specs(world)[0], specs(world)[2]
    assert (spec.seed, other.seed) == (0, 0) and spec.arm != other.arm
    away = world / "away"
    shutil.move(other.folder, away)
    packs.pack(profile)
    shutil.move(away, other.folder)
    before = contents(profile)
    with pytest.raises(ValueError, match=r"packed/seed0/run\.parquet: does not have run\.json of arm .*opd unpack"):
        packs.pack(profile)
    assert contents(profile) == before
    packs.unpack(profile, seeds=[0])
    packs.pack(profile)
    assert {*packed.arms(pack_of(spec))} == {"student", "teacher", "better"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "running"}, "the run is running; finish it"),
        ({"status": "failed"}, "the run is failed"),
        ({"tables": None}, "has no digests of its tables; `opd seal`"),
        ({"arm": "another"}, "is the record of another/seed0"),
        ({"seed": 5}, "is the record of student/seed5"),
    ],
)
def test_only_whole_records_of_their_place_are_packed(
    world: Path, profile: Path, change: dict[str, Any], reason: str
) -> None:
    path = specs(world)[0].folder / "run.json"
    said = {key: value for key, value in (json.loads(path.read_bytes()) | change).items() if value is not None}
    path.write_text(json.dumps(said))
    before = contents(profile)
    with pytest.raises(ValueError) as caught:
        packs.pack(profile, [micro.MODELS], [0])
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert contents(profile) == before


def test_a_damaged_table_is_not_packed(world: Path, profile: Path) -> None:
    path = specs(world)[0].folder / "steps.csv"
    path.write_bytes(path.read_bytes().replace(b"0.1", b"0.7", 1))
    before = contents(profile)
    with pytest.raises(ValueError, match=rf"{path}: corrupt table: it has other content"):
        packs.pack(profile, [micro.MODELS], [0])
    assert contents(profile) == before


def test_a_run_unpacked_while_it_is_read_is_read(world: Path, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specs(world)[0]
    before = contents(spec.folder)
    packs.pack(profile)
    original = packed.read

    def read(run: Path, file: str) -> bytes | None:
        monkeypatch.setattr(packed, "read", original)
        packing.unpack(pack_of(spec))
        return original(run, file)

    for seen in (
        lambda: files.read(spec.folder, "run.json") == before["run.json"],
        lambda: files.exists(spec.folder, "steps.csv"),
    ):
        monkeypatch.setattr(packed, "read", read)
        assert seen() and not pack_of(spec).exists()
        packs.pack(profile)


def test_a_pack_that_goes_while_it_is_opened_is_none(
    world: Path, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs.pack(profile)
    pack = pack_of(specs(world)[0])
    gone, original = pack.with_name("gone"), Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.parent == pack and pack.exists():
            pack.rename(gone)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    for found in (packed.rows, lambda pack, _: packed.sizes(pack)):
        packed._read.cache_clear()
        assert found(pack, "run.json") == {} and gone.exists()
        gone.rename(pack)


@pytest.mark.parametrize("survived", range(12))
def test_killed_while_files_go_it_reads_as_before_and_goes_on(
    world: Path, profile: Path, survived: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, found = contents(profile), evidence.records("tiny", world / "results")
    original, left = Path.unlink, [survived]

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name in packing.FILES and path.exists():
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        original(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            packs.pack(profile, [micro.MODELS], [0])
    assert evidence.records("tiny", world / "results") == found
    assert set(status.status(specs(world), verify=True)["state"]) == {"done"}
    packs.pack(profile)
    assert not list(profile.rglob("*.csv"))
    packs.unpack(profile)
    assert contents(profile) == before


@pytest.mark.parametrize("written", range(1, 12))
def test_killed_while_it_unpacks_it_reads_as_before_and_goes_on(
    world: Path, profile: Path, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, found = contents(profile), evidence.records("tiny", world / "results")
    packs.pack(profile)
    original, left = durable.write_atomically, [written]

    def write_atomically(path: Path, content: str | bytes, lasting: bool = True) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        original(path, content, lasting)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_atomically", write_atomically)
        with pytest.raises(KeyboardInterrupt):
            packs.unpack(profile)
    assert evidence.records("tiny", world / "results") == found
    packs.unpack(profile)
    assert contents(profile) == before


@pytest.mark.parametrize("again", [packs.pack, packs.unpack])
def test_what_a_pack_that_was_killed_left_goes_with_the_next(
    world: Path, profile: Path, again: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(profile)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            packs.pack(profile, [micro.OPD], [0])
    assert [path.name for path in profile.rglob(".seed0.new.*")] == [f".seed0.new.{os.getpid()}"]
    again(profile, [micro.OPD], [1])  # another seed
    assert not list(profile.rglob(".seed*"))
    packs.unpack(profile)
    assert contents(profile) == before and not list(profile.rglob(packed.FOLDER))


@pytest.mark.parametrize("again", [packs.pack, packs.unpack])
def test_what_an_unpack_that_was_killed_left_goes_with_the_next(
    world: Path, profile: Path, again: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(profile)
    packs.pack(profile, [micro.OPD])
    original = shutil.rmtree

    def rmtree(path: Path) -> None:
        next(iter(path.iterdir())).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", rmtree)
        with pytest.raises(KeyboardInterrupt):
            packs.unpack(profile, seeds=[0])
    assert [path.name for path in profile.rglob(".seed0.old.*")] == [f".seed0.old.{os.getpid()}"]
    again(profile)
    assert shutil.rmtree is original and not list(profile.rglob(".seed*"))
    packs.unpack(profile)
    assert contents(profile) == before and not list(profile.rglob(packed.FOLDER))


@pytest.mark.parametrize("packing_now", [True, False])
def test_what_is_there_is_listed_when_nobody_else_packs(
    world: Path, profile: Path, packing_now: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process is done between the call and its lock."""
    first, second = (packs.pack, packs.unpack) if packing_now else (packs.unpack, packs.pack)
    second(profile)
    acquire = FileLock.acquire

    def late(lock: Any, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(FileLock, "acquire", acquire)
        first(profile)
        return acquire(lock, *args, **kwargs)

    monkeypatch.setattr(FileLock, "acquire", late)
    assert first(profile) == packing.Moved()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_is_no_part_of_a_pack_is_not_lost_with_it(world: Path, profile: Path, elsewhere: bool) -> None:
    packs.pack(profile)
    home = pack_of(specs(world)[0])
    stranger = home / "gates.parquet"
    shutil.copy(home / "steps.parquet", stranger)
    before = contents(profile)
    with pytest.raises(ValueError, match=rf"^{stranger}: is none of the files of a pack, and .*; move it elsewhere$"):
        packs.unpack(profile, [micro.MODELS], [0], output=world / "out" if elsewhere else None)
    assert contents(profile) == before and not (world / "out").exists()


def test_a_table_that_packs_have_no_place_for_stays_with_its_record(world: Path, profile: Path) -> None:
    path = specs(world)[0].folder / "run.json"
    said = json.loads(path.read_bytes())
    (path.parent / "gates.csv").write_bytes(b"step\n0\n")
    path.write_text(json.dumps(said | {"tables": said["tables"] | {"gates.csv": sealing.seal("gates.csv", b"step\n")}}))
    before = contents(profile)
    with pytest.raises(ValueError, match=rf"^{path}: tables: the run left gates\.csv, which no pack .*; use a version"):
        packs.pack(profile, [micro.MODELS], [0])
    assert contents(profile) == before


@needs_proc
def test_a_pack_is_on_the_disk_before_it_has_its_name(world: Path, profile: Path, disk: list[tuple[str, str]]) -> None:
    packs.pack(profile, [micro.OPD], [0])
    kinds = [kind for kind, _ in disk]
    assert kinds.count("name") == 1 and disk[kinds.index("name")][1].endswith("→ seed0")
    synced = {name for kind, name in disk[: kinds.index("name")]}
    assert {f"{table}.parquet" for table in ("run", "steps", "evals", "tokens")} <= synced
    assert disk[-1] == ("sync", packed.FOLDER)


def test_what_differs_when_it_is_read_back_stays(world: Path, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, original = contents(profile), packing.write

    def write(home: Path, found: packing.Contents) -> None:
        original(home, found)
        rewritten(other_digits)(home / "steps.parquet")

    monkeypatch.setattr(packing, "write", write)
    with pytest.raises(ValueError, match=r"steps\.parquet: does not have steps\.csv of arm student"):
        packs.pack(profile, [micro.MODELS], [0])
    assert before.items() <= contents(profile).items(), "nothing went"


def test_one_packs_at_a_time_and_nobody_writes_to_a_pack(world: Path, profile: Path) -> None:
    with FileLock(profile / packs.LOCK), pytest.raises(ValueError, match="another process packs or unpacks here"):
        packs.pack(profile)
    packs.pack(profile)
    spec = specs(world)[0]
    with pytest.raises(ValueError, match=r"this run is packed.*`opd unpack` it first"), RunWriter(begun(spec)):
        pass
    assert not (spec.folder / "run.json").exists()
    micro.change_arm(world, micro.MODELS, "student", {"train.steps": 7})
    with pytest.raises(ValueError, match=r"packed/seed0/run\.parquet, arm student: holds a run of other param.*unpack"):
        plan.finished(micro.load(world).spec("student", 0))
    with pytest.raises(ValueError, match="a results folder uses it itself"):
        names.require(packed.FOLDER, "arm")


def test_records_without_digests_are_sealed_before_they_are_packed(world: Path) -> None:
    for spec in micro.load(world).runs():
        micro.write_record(spec)
    with pytest.raises(ValueError, match="`opd seal` gives them to it"):
        packs.pack(world / "results" / "tiny")
    sealed.seal_all(world / "results" / "tiny")
    assert packs.pack(world / "results" / "tiny").runs == 3
    assert "0 records sealed" in sealed.seal_all(world / "results" / "tiny")


# --- commands ---------------------------------------------------------------------------------------------------------


def test_the_commands_say_what_they_did(world: Path, profile: Path) -> None:
    def said(*words: str) -> str:
        result = opd_records(world, *words)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    assert said("pack", "--only", micro.MODELS).startswith("6 runs: 24 files of")
    assert said("pack", "--seeds", "1").startswith("2 runs: 8 files of"), "of the other notebook"
    assert said("pack").startswith("2 runs: 8 files of") and "compared byte for byte" in said("pack")
    assert said("unpack", "--output", str(world / "out")).startswith("10 runs: 40 files of")
    assert said("unpack", "--seeds", "1,").startswith("5 runs: 20 files of")
    for words in (("pack", "--profile", "../x"), ("pack", "--only", "09_x"), ("unpack", "--seeds", "x")):
        result = opd_records(world, *words)
        assert result.exit_code == 1 and result.stderr.startswith("error: "), result.output


def opd_records(world: Path, *words: str) -> Any:
    from typer.testing import CliRunner

    from opd_lib.command.cli import app

    return CliRunner().invoke(app, [*words, "--results", str(world / "results")])


def test_a_refresh_takes_apart_what_it_replaces(world: Path, profile: Path) -> None:
    committed = world / "committed"
    assert refresh.commit_records(specs(world), committed) == 10
    assert not list(committed.rglob("*.parquet")), "nothing is packed that was not"
    packs.pack(committed / "tiny")
    before = contents(committed)
    refresh.commit_records(specs(world), committed)
    assert contents(committed) == before, "the same records are the same packs"
    spec = specs(world)[0]
    shutil.rmtree(spec.folder)
    write(replace(spec), steps=7)
    with FileLock(committed / "tiny" / packs.LOCK), pytest.raises(ValueError, match="another process packs or unpacks"):
        refresh.commit_records([spec], committed)
    (committed / "tiny" / packs.LOCK).unlink()  # this test's own
    assert contents(committed) == before, "nothing is taken apart under another's hands"
    refresh.commit_records([spec], committed)
    assert not list(committed.rglob("run.json")) and not (committed / "tiny" / packs.LOCK).exists()
    other = f"{spec.profile}/{micro.MODELS}/packed/seed1/"
    kept = {name: content for name, content in before.items() if name.startswith(other)}
    assert kept and kept.items() <= contents(committed).items(), "its seed alone"
    present = record.read(committed / "tiny" / spec.name)
    assert present is not None and len(present.frame("steps")) == 7
