"""Finished runs are packed, and unpacked to the same bytes (records/packed says into what).

A pack is written once, under a name it gets when all of it is on the disk. What stands there twice goes only after both
were compared byte for byte, and after every table was held against the digest that its run left. Killed in between, it
leaves both, or the rest of one: they read as before, and the next call goes on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from opd_lib.records import durable, files, packed, record, sealing
from opd_lib.records.packed import RUN

FILES = (RUN, *sealing.FILES)
"""Whatever is packed of a run; its checkpoints stay where they are."""
LEFT = re.compile(r"\.seed\d+\.(new|old)\.\d+")
"""What a pack is called while it is written, or removed: by which process."""
COMPRESSION, LEVEL = "zstd", 19

Contents = dict[str, dict[str, bytes]]
"""file → arm → its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What was packed or unpacked: runs, their files and bytes one by one, and those of the packs."""

    runs: int = 0
    files: int = 0
    bytes: int = 0
    packs: int = 0
    packed_bytes: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(**{name: getattr(self, name) + getattr(other, name) for name in Moved.__slots__})

    def __str__(self) -> str:
        return (
            f"{self.runs} runs: {self.files:,} files of {self.bytes / 1e6:.1f} MB one by one, "
            f"{self.packs} of {self.packed_bytes / 1e6:.1f} MB packed"
        )


def pack(runs: Iterable[Path]) -> Moved:
    """Pack runs of one notebook and seed, and remove the files that are packed then.

    Raises ValueError, before anything is changed, for a run that is not finished, has no digests or is not what it was,
    and for a pack that is there and says otherwise.
    """
    folders = sorted(runs)
    home = packed.home(folders[0])
    found = contents(folders)
    if home.exists():
        require_same(home, found, may_have_more=True)
    else:
        write(home, found)
        require_same(home, found, may_have_more=False)
    for folder in folders:
        remove(folder)
    return _moved(home, found)


def unpack(home: Path, target: Path | None = None) -> Moved:
    """Put the runs of a pack into folders of their own, and remove it; with a `target` NN_name put them there, alone.

    Raises ValueError, before anything is changed, for a damaged pack or table, for a file in the pack that is none of
    its own, and for a file in a run's place that says otherwise.
    """
    require_known(home)
    place = home.parent.parent if target is None else target
    found = {file: rows for file in FILES if (rows := packed.rows(home, file))}
    require_whole(home, found)
    for file, arm, content in _each(found):
        path = place / arm / home.name / file
        if path.exists() and path.read_bytes() != content:
            _refuse(path, f"has other content than {packed.parquet(home, file)}", "delete the one that is not wanted")
    for file, arm, content in sorted(_each(found), key=lambda each: each[0] == RUN):  # what makes a record comes last
        path = place / arm / home.name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_atomically(path, content)
    moved = _moved(home, found)
    if target is None:
        require_whole(home, found)  # now also beside what was written
        discard(home)
    return moved


def copy(run: Path, target: Path) -> None:
    """Write the files of a run, packed or not, into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        if (content := files.read(run, file)) is not None:
            (target / file).write_bytes(content)


def contents(runs: Iterable[Path]) -> Contents:
    """Every file of these runs. Raises ValueError for a run that is not finished, has no digests, or is damaged."""
    found: Contents = {file: {} for file in FILES}
    for run in runs:
        present = record.read(run)
        assert present is not None  # the caller has found it
        where = run / RUN
        if present.status != record.FINISHED:
            _refuse(where, f"the run is {present.status}", "finish it, or delete its folder")
        if present.tables is None:
            _refuse(where, "has no digests of its tables", "`opd seal` gives them to it")
        if (named := (present.arm, f"seed{present.seed}")) != (run.parent.name, run.name):
            _refuse(where, f"is the record of {'/'.join(named)}", "put it where it belongs")
        if unknown := sorted({*present.tables} - {*FILES}):
            left = "use a version of opd that knows it, or leave this run as it is"
            _refuse(where, f"tables: the run left {', '.join(unknown)}, which no pack has a place for", left)
        for file in FILES:
            content = present.content(file) if file != RUN else files.read(run, RUN)
            if file == RUN or file in present.tables:
                found[file][present.arm] = content or b""
    return {file: rows for file, rows in found.items() if rows}


def write(home: Path, found: Contents) -> None:
    """Write a pack, as a whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    new = home.with_name(f".{home.name}.new.{os.getpid()}")
    new.mkdir(parents=True)
    for file in reversed(FILES):  # run.json comes last: it says how large the others are
        if rows := found.get(file):
            columns = {packed.ARM: pa.array(list(rows), pa.string()), file: pa.array(list(rows.values()), pa.binary())}
            pq.write_table(
                pa.table(columns).replace_schema_metadata(_metadata(new, found) if file == RUN else None),
                packed.parquet(new, file), compression=COMPRESSION, compression_level=LEVEL,
                use_dictionary=False, write_statistics=False, write_page_checksum=True,
            )  # fmt: skip
    durable.replace(new, home)


def _metadata(new: Path, found: Contents) -> dict[bytes, str]:
    """What run.parquet says beside its rows, once its neighbours are written."""
    written = {file: path for file in found if (path := packed.parquet(new, file)).exists()}
    sizes = {file: path.stat().st_size for file, path in written.items()}
    return {packed.ARMS: json.dumps(list(found[RUN])), packed.SIZES: json.dumps(sizes)}


def require_same(home: Path, found: Contents, may_have_more: bool) -> None:
    """Raise ValueError, naming file and arm, unless a pack holds just these files, or these and others' ones."""
    there = packed.arms(home)
    for file in FILES:
        rows, wanted = packed.rows(home, file), found.get(file, {})
        for arm in dict.fromkeys((*found[RUN], *(() if may_have_more else there))):
            if rows.get(arm) == wanted.get(arm):
                continue
            what = f"does not have {file} of arm {arm} as that run's folder has it, and a pack is written once"
            _refuse(packed.parquet(home, file), what, "`opd unpack` takes it apart; then pack again")


def require_known(home: Path) -> None:
    """Raise ValueError if the folder of a pack holds anything that `unpack` does not bring back, and would remove."""
    known = {packed.parquet(home, file) for file in FILES}
    for path in sorted(home.iterdir()):
        if path not in known:
            _refuse(path, "is none of the files of a pack, and unpacking would remove it", "move it elsewhere")


def require_whole(home: Path, found: Contents) -> None:
    """Raise ValueError unless every packed run has the tables that it left, no other ones, and each as it was."""
    for arm in found[RUN]:
        run = home.parent.parent / arm / home.name
        present = record.read(run)
        assert present is not None  # it is packed
        if fault := sealing.fault(run, present.tables, verify=True):
            raise ValueError(fault)
    for file, arm, _ in _each(found):
        if arm not in found[RUN]:
            raise packed.damaged(packed.parquet(home, file), f"has arm {arm}, of which {RUN} is not packed")


def remove(run: Path) -> None:
    """Remove what is packed of a run from its own folder, what makes it a record last; and folders without content."""
    for file in (*sealing.FILES, RUN):
        (run / file).unlink(missing_ok=True)
    for folder in (run, run.parent):
        with suppress(OSError):  # checkpoints, or what is no part of a record
            folder.rmdir()


def discard(home: Path) -> None:
    """Remove a pack: at once for whoever reads."""
    old = home.with_name(f".{home.name}.old.{os.getpid()}")
    os.replace(home, old)
    shutil.rmtree(old)
    with suppress(OSError):  # other seeds
        home.parent.rmdir()


def sweep(notebook: Path) -> None:
    """Remove what a process that was killed in `write` or `discard` left of a pack. Nobody else may be packing here."""
    folder = notebook / packed.FOLDER
    for left in [path for path in folder.glob(".*") if LEFT.fullmatch(path.name)]:
        shutil.rmtree(left)
    with suppress(OSError):  # packs, or not there
        folder.rmdir()


def _each(found: Mapping[str, Mapping[str, bytes]]) -> Iterator[tuple[str, str, bytes]]:
    return ((file, arm, content) for file, rows in found.items() for arm, content in rows.items())


def _moved(home: Path, found: Contents) -> Moved:
    every = [content for _, _, content in _each(found)]
    parts = [packed.parquet(home, file).stat().st_size for file in found]
    return Moved(
        runs=len(found[RUN]), files=len(every), bytes=sum(map(len, every)), packs=len(parts), packed_bytes=sum(parts)
    )


def _refuse(where: Path, what: str, remedy: str) -> NoReturn:
    raise ValueError(f"{where}: {what}; {remedy}")
