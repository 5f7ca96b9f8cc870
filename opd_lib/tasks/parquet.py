"""Columns of parquet files, or one line that names the file, what is wrong with it and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever pyarrow finds wrong with a file while it is read is a ValueError of one line."""
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: is no parquet file that can be read ({reason}); write it again") from error


def schema(path: Path, columns: Sequence[str]) -> pa.Schema:
    """A file's schema. Raises ValueError if there is no such file, or if it lacks a column or has two of that name."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; name a parquet file")
    with readable(path):
        found = pq.read_schema(path)
    for column in columns:
        if (times := found.names.count(column)) != 1:
            has = f"has {times} columns {column!r}" if times else f"has no column {column!r}"
            raise ValueError(f"{path}: {has}; columns {', '.join(columns)} are needed, found {', '.join(found.names)}")
    return found


def texts(path: Path, columns: Sequence[str]) -> dict[str, list[str | None]]:
    """Columns of texts or numbers, as texts; None where there is no value (null, NaN).

    Raises ValueError for a column that holds anything else, such as chats, and for text that is not UTF-8.
    """
    kinds = schema(path, columns)
    for column in columns:
        if not _is_plain(kind := kinds.field(column).type):
            raise ValueError(f"{path}: column {column!r} is {kind}; name a file whose {column} is text")
    with readable(path):
        table = pq.read_table(path, columns=list(columns))
        return {column: _as_text(table[column]).to_pylist() for column in columns}


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    tests = (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer),
        *(pa.types.is_floating, pa.types.is_decimal, pa.types.is_null),
    )
    return any(test(kind) for test in tests)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    found = column.cast(pa.string())
    found.validate(full=True)
    return found
