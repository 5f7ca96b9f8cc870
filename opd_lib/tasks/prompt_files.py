"""The rows of a file of one's own: JSONL, Parquet, CSV, or a folder that `datasets` has saved.

A prompt is a text, which is then one user message, or a list of messages {role, content}: a system message at most, and
that first, and a user message last. An answer is a text or a number. Every fault is one ValueError that names the file,
the line (JSONL) or row (counted from 1, without a header), the value and a remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from opd_lib.records import reading
from opd_lib.types import Chat

ROLES = ("system", "user", "assistant")
SHOWN = 80
"""Characters of a value in a message."""
CORRECT = "correct the row, or leave it out"
NAME = "name what the file has in task.column and task.answer"

Cells = Iterator[tuple[str, dict[str, Any]]]
"""Where a row stands, for messages, and what it holds by column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A prompt as a chat, and its answer ("" where no column was named). `place`: its line or row in the file."""

    place: str
    chat: Chat
    answer: str


def rows(path: Path, column: str, answer: str | None) -> Iterator[Row]:
    """The rows of a file, their prompts read from one column, their answers from another (None: they have none).

    Raises ValueError for a file that is not there, is of no known kind or empty or damaged, or lacks a column; for a
    prompt or an answer that is missing, empty or of another type; and for messages that no model can answer.
    """
    columns = [column] if answer is None else [column, answer]
    number = 0
    for place, cells in _reader(path)(path, columns):
        number += 1
        at = f"{path}, {place}"
        yield Row(
            place=place,
            chat=chat(cells[column], f"{at}: {column}"),
            answer="" if answer is None else answer_text(cells[answer], f"{at}: {answer}"),
        )
    if not number:
        raise ValueError(f"{path}: holds no row; name a file that holds prompts")


def chat(value: Any, at: str) -> Chat:
    """The messages of a cell. Raises ValueError, which `at` begins, for what is no prompt."""
    if value is None or isinstance(value, str):
        return (("user", _content(value, at)),)
    if not isinstance(value, list):
        raise ValueError(f"{at}: expected a text or a list of messages, found {_shown(value)}; {CORRECT}")
    messages = tuple(_message(each, f"{at}, message {number}") for number, each in enumerate(value, start=1))
    roles = [role for role, _ in messages]
    if "user" not in roles:
        raise ValueError(f"{at}: no user message among {len(roles)}; {CORRECT}")
    if "system" in roles[1:]:
        raise ValueError(f"{at}: a system message in place {roles.index('system', 1) + 1}; it may only be the first")
    if roles[-1] != "user":
        raise ValueError(f"{at}: ends with an {roles[-1]} message, so nothing is asked; leave that message out")
    return messages


def answer_text(value: Any, at: str) -> str:
    """The answer in a cell: a text without blanks at its ends, or a number as text. Raises ValueError for others."""
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return str(value)
    if value is None or isinstance(value, str):
        return _content(value, at).strip()
    raise ValueError(f"{at}: expected a text or a number, found {_shown(value)}; {CORRECT}")


def _message(value: Any, at: str) -> tuple[str, str]:
    if not isinstance(value, dict) or not {"role", "content"} <= value.keys():
        raise ValueError(f"{at}: expected a record of role and content, found {_shown(value)}; {CORRECT}")
    if value["role"] not in ROLES:
        raise ValueError(f"{at}: role {_shown(value['role'])} is none of {', '.join(ROLES)}; {CORRECT}")
    others = [key for key, held in value.items() if key not in ("role", "content") and held is not None]
    if others:
        raise ValueError(f"{at}: holds {', '.join(map(str, others))} beside role and content; only these two are read")
    return value["role"], _content(value["content"], at)


def _content(value: Any, at: str) -> str:
    """A text as it stands. Raises ValueError if there is none, if it is blank, and if it cannot be written as UTF-8."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{at}: is {'missing (null)' if value is None else 'empty'}; {CORRECT}")
    if not isinstance(value, str):
        raise ValueError(f"{at}: expected a text, found {_shown(value)}; {CORRECT}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{at}: character {error.start + 1} is half a character ({error.reason}); {CORRECT}"
        ) from error
    return value


def _shown(value: Any) -> str:
    return f"{repr(value)[:SHOWN]} ({type(value).__name__})"


def _reader(path: Path) -> Callable[[Path, Sequence[str]], Cells]:
    """What reads a file of this kind. Raises ValueError if there is no such file, and for an unknown ending."""
    if path.is_dir():
        return _saved
    known = ", ".join(READERS)
    if not path.exists():
        raise ValueError(f"{path}: no such file; name one that ends in {known}, or a folder that datasets has saved")
    if path.suffix.lower() not in READERS:
        found = repr(path.suffix) if path.suffix else "none"
        raise ValueError(f"{path}: its ending is {found}; write the prompts to a file that ends in {known}")
    return READERS[path.suffix.lower()]


def _require(path: Path, found: Sequence[str], columns: Sequence[str]) -> None:
    """Raise ValueError unless there is one column of each of these names."""
    for column in columns:
        if (times := found.count(column)) != 1:
            has = f"has {times} columns {column!r}" if times else f"has no column {column!r}"
            raise ValueError(f"{path}: {has}; its columns are {', '.join(found) or 'none'}: {NAME}")


def _numbered(rows: Sequence[dict[str, Any]]) -> Cells:
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _jsonl(path: Path, columns: Sequence[str]) -> Cells:
    """One JSON object per line; the last line may go without a line break."""
    try:
        found = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); name a file that you may read") from error
    if not found.strip():
        return iter(())
    lines = reading.rows(found if found.endswith(b"\n") else found + b"\n", path, columns, f"correct it, or {NAME}")
    return ((f"line {number}", line) for number, line in enumerate(lines, start=1))


def _parquet(path: Path, columns: Sequence[str]) -> Cells:
    import pyarrow.parquet as pq

    from opd_lib.tasks import parquet

    with parquet.readable(path):
        found = pq.read_schema(path)
    _require(path, found.names, columns)
    with parquet.readable(path):
        return _numbered(pq.read_table(path, columns=list(columns)).to_pylist())


def _csv(path: Path, columns: Sequence[str]) -> Cells:
    """A table with a header, every cell the text that stands there: 007 stays 007, and NA is no missing value."""
    import pyarrow as pa
    from pyarrow import csv

    if not path.stat().st_size:
        return iter(())
    as_text = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False)
    whole_cells = csv.ParseOptions(newlines_in_values=True)
    in_order = csv.ReadOptions(use_threads=False)  # whose errors know their row
    try:
        found = csv.read_csv(path, read_options=in_order, parse_options=whole_cells, convert_options=as_text)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: is no CSV that can be read ({reason}); write it again, in UTF-8") from error
    _require(path, found.column_names, columns)
    return _numbered(found.select(list(columns)).to_pylist())


def _saved(path: Path, columns: Sequence[str]) -> Cells:
    import datasets
    import pyarrow as pa

    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: no folder that datasets has saved ({reason}); write it by save_to_disk") from error
    if isinstance(found, datasets.DatasetDict):
        raise ValueError(f"{path}: holds several splits; name the folder of one: {', '.join(map(str, found))}")
    _require(path, found.column_names, columns)
    try:
        return _numbered(found.select_columns(list(columns)).with_format("arrow")[:].to_pylist())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: holds text that is not UTF-8 ({error}); write it again, in UTF-8") from error


READERS: dict[str, Callable[[Path, Sequence[str]], Cells]] = {".jsonl": _jsonl, ".parquet": _parquet, ".csv": _csv}
