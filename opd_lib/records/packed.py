"""Finished runs of a notebook and a seed, packed: one Parquet file for each kind of file that they left.

    results/PROFILE/NN_name/packed/seedS/
      run.parquet      a row per run: its arm, and its run.json byte for byte
      steps.parquet    the same of steps.csv; and so on, for every file that any of these runs has

So a digest in run.json is that of the bytes in a row, and whoever reads a row can verify it. Checkpoints are not
packed: they stay in ARM/seedS/model. How packs are written: records/packing. Runs packed or not: records/files.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from opd_lib import names
from opd_lib.records import damage

FOLDER = "packed"
"""Beside the arms of a notebook."""
RUN = "run.json"
ARM = "arm"
"""The column beside the one that is named for the file."""
REMEMBERED = 64
"""How many files are kept in memory: those of a table for all seeds, read in turns."""


def home(run: Path) -> Path:
    """Where the run of a folder NN_name/ARM/seedS stands if it is packed: NN_name/packed/seedS."""
    return run.parent.parent / FOLDER / run.name


def parquet(pack: Path, file: str) -> Path:
    """The file that holds all runs' files of one name: steps.parquet for steps.csv."""
    return pack / f"{file.partition('.')[0]}.parquet"


def arms(pack: Path) -> tuple[str, ...]:
    """The arms that are packed there, in order. Raises ValueError for a damaged pack."""
    return tuple(rows(pack, RUN))


def read(pack: Path, arm: str, file: str) -> bytes | None:
    """A run's file, byte for byte; None if this run has none. Raises ValueError for a damaged pack."""
    return rows(pack, file).get(arm) if pack.is_dir() else None


def rows(pack: Path, file: str) -> dict[str, bytes]:
    """arm → its file of this name; empty if no run left one.

    Raises ValueError, naming the file and what is wrong with it, for one that is not as it was written, and for a pack
    without records.
    """
    path = parquet(pack, file)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if file == RUN:
            raise damaged(path, "is missing, and without it nothing else here is a record") from None
        return {}
    return _rows(path, file, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=REMEMBERED)
def _rows(path: Path, file: str, version: tuple[int, ...]) -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from None
    try:
        table = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read(use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = damage.foreign(content) or f"is no whole parquet file ({str(error).partition(chr(10))[0]})"
        raise damaged(path, reason) from None
    columns = [(ARM, pa.string()), (file, pa.binary())]
    if [(field.name, field.type) for field in table.schema] != columns:
        raise damaged(path, f"has columns {', '.join(table.schema.names)}, not {ARM} and {file}")
    found, contents = (table[name].to_pylist() for name, _ in columns)
    if len(set(found)) < len(found) or None in found or None in contents:
        raise damaged(path, "has an arm twice, or a row without arm or content")
    for arm in found:
        names.require(arm, "arm", str(path))
    return dict(zip(found, contents, strict=True))


def damaged(path: Path, reason: str) -> ValueError:
    """What is said of a file of a pack that is not what it was."""
    return ValueError(f"{path}: corrupt pack: it {reason}; {remedy(path)}")


def remedy(path: Path) -> str:
    """What to do about a file of a pack that is not as it was written."""
    return (
        f"bring it back (a committed one: `git checkout -- {path.name}` in its folder), or delete {path.parent} "
        "and run again"
    )
