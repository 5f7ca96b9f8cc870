"""Finished runs of a notebook and a seed, packed: one Parquet file for each kind of file that they left.

    results/PROFILE/NN_name/packed/seedS/
      run.parquet      a row per run: its arm, and its run.json byte for byte; and which arms, and
                       how large its neighbours are
      steps.parquet    the same of steps.csv; and so on, for every file that any of these runs has

So a digest in run.json is that of the bytes in a row, and whoever reads a row can verify it. Checkpoints are not
packed: they stay in ARM/seedS/model. How packs are written: records/packing. Runs packed or not: records/files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

from opd_lib import names
from opd_lib.records import damage

FOLDER = "packed"
"""Beside the arms of a notebook."""
RUN = "run.json"
ARM = "arm"
"""The column beside the one that is named for the file."""
ARMS = b"arms"
"""What run.parquet says of its rows, so that one that is lost is missed: the arms, in order."""
SIZES = b"sizes"
"""What run.parquet says of its neighbours, beside its rows: file → bytes of the parquet file that holds those."""
REMEMBERED = 256
"""How many files are kept in memory: those of a notebook for all seeds, whose runs are read in turns."""


@cache
def home(run: Path) -> Path:
    """Where the run of a folder NN_name/ARM/seedS stands if it is packed: NN_name/packed/seedS."""
    return run.parent.parent / FOLDER / run.name


@cache
def parquet(pack: Path, file: str) -> Path:
    """The file that holds all runs' files of one name: steps.parquet for steps.csv."""
    return pack / f"{file.partition('.')[0]}.parquet"


def arms(pack: Path) -> tuple[str, ...]:
    """The arms that are packed there, in order. Raises ValueError for a damaged pack, and an arm that is no name."""
    where = str(parquet(pack, RUN))
    return tuple(names.require(arm, "arm", where) for arm in rows(pack, RUN))


def read(run: Path, file: str) -> bytes | None:
    """A file of the run of a folder, byte for byte; None if it is not packed. Raises ValueError for a damaged pack."""
    return rows(home(run), file).get(run.parent.name)


def rows(pack: Path, file: str) -> dict[str, bytes]:
    """arm → its file of this name; empty if no run left one, and if nothing is packed there.

    Raises ValueError, naming the file and what is wrong with it, for one that is not as it was written, and for a pack
    without records.
    """
    path = parquet(pack, file)
    try:
        return _read(path, file, _version(path))[0]
    except (FileNotFoundError, NotADirectoryError):
        if file == RUN and pack.is_dir():
            raise damaged(path, "is missing, and without it nothing else here is a record") from None
        return {}


def sizes(pack: Path) -> dict[str, int]:
    """file → bytes of the parquet file that holds those of this name, as it was written; empty if none is there.

    Raises ValueError for a damaged pack.
    """
    path = parquet(pack, RUN)
    try:
        return _read(path, RUN, _version(path))[1]
    except (FileNotFoundError, NotADirectoryError):  # unpacked meanwhile
        return {}


def _version(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=REMEMBERED)
def _read(path: Path, file: str, version: tuple[int, ...]) -> tuple[dict[str, bytes], dict[str, int]]:
    """Rows of a file of this version, and what it says of its neighbours' sizes.

    Raises FileNotFoundError if it is gone, ValueError for one that is not as it was written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise
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
    found, contents = (table.column(number).to_pylist() for number in range(len(columns)))
    if len(set(found)) < len(found) or any(column.null_count for column in table.columns):
        raise damaged(path, "has an arm twice, or a row without arm or content")
    sizes = _of_records(path, found, table.schema.metadata or {}) if file == RUN else {}
    return dict(zip(found, contents, strict=True)), sizes


def _of_records(path: Path, found: list[str], metadata: Mapping[bytes, bytes]) -> dict[str, int]:
    """The sizes that run.parquet says, once its rows are found to be those of the arms that it says."""
    try:
        arms, sizes = json.loads(metadata[ARMS]), dict(json.loads(metadata[SIZES]))
        written = ", ".join(arms)
    except (KeyError, TypeError, ValueError):
        raise damaged(path, "does not say which arms it has, and how large its neighbours are") from None
    if found != arms or not found:
        raise damaged(path, f"has records of {', '.join(found) or 'no arm'}, and was written with {written}")
    return sizes


def damaged(path: Path, reason: str) -> ValueError:
    """What is said of a file of a pack that is not what it was."""
    return ValueError(f"{path}: corrupt pack: it {reason}; {remedy(path)}")


def remedy(path: Path) -> str:
    """What to do about a file of a pack that is not as it was written."""
    return (
        f"bring it back (a committed one: `git checkout -- {path.name}` in its folder), or delete {path.parent} "
        "and run again"
    )
