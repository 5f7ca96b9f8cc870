r"""Cleaning a set of questions of those that a reference set has: parquet in, parquet out, in chunks.

    set → instructions stripped → same text as a reference question? → same meaning? → the rows that are left, in order

What the same text and the same meaning are says `tasks.similarity`. Rows are judged one by one: questions repeated
within the set stay, and the shards of a set can be cleaned one at a time. Memory holds the reference (texts, vectors)
and one chunk.

Source: arXiv 2604.13016 appendix C.3 (DeepMath against DAPO) and its script, threshold and model included.
Differs: the script removes `… within \boxed{}.` and the DAPO file it reads ends in `… within \boxed{{}}.`, so there the
instruction stays in every reference question: no text can match, and the cosines shift. Here both spellings go;
`strip_as_published` is the script's reading, for counting the difference. Texts that differ in blanks are the same.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from opd_lib.tasks import parquet
from opd_lib.tasks.math_rows import TEMPLATES
from opd_lib.tasks.similarity import Duplicate, Embed, Say, extra, find_duplicates, index_reference, sentence_encoder

Strip = Callable[[str], str]
Rows = Iterator[tuple[pa.RecordBatch, list[str]]]
"""Some rows and the stripped question of each."""

THRESHOLD = 0.6
MODEL = "sentence-transformers/all-mpnet-base-v2"
CHUNK = 4096  # rows in memory at a time
BUFFER = 1 << 20  # bytes of a column read from the file at a time
DROPPED = ("row", "reason", "cosine", "question", "nearest")

ANSWER_LINE_PREFIX, ANSWER_LINE_SUFFIX = (part.strip() for part in TEMPLATES["original"])
BOXED_SUFFIX, DOUBLE_BOXED_SUFFIX = (TEMPLATES[name][1].strip() for name in ("boxed", "boxed_double"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a cleaning did: rows = exact + semantic + kept. `reference_questions` counts different ones."""

    source: str
    reference: str
    reference_questions: int
    rows: int
    exact: int
    semantic: int
    kept: int
    threshold: float
    model: str
    strip: str


def strip_instructions(text: str) -> str:
    r"""A question without the instructions of the released files, whichever template they were written with.

    >>> strip_instructions(r"What is 1+1? Please reason step by step, and put your final answer within \boxed{{}}.")
    'What is 1+1?'
    """
    text = text.strip().removeprefix(ANSWER_LINE_PREFIX).lstrip()
    for suffix in (ANSWER_LINE_SUFFIX, BOXED_SUFFIX, DOUBLE_BOXED_SUFFIX):
        text = text.removesuffix(suffix).rstrip()
    return text


def strip_as_published(text: str) -> str:
    r"""What the published script takes for the question: it knows the single-brace instruction only.

    >>> strip_as_published(r"Why? Please reason step by step, and put your final answer within \boxed{}.")
    'Why?'
    >>> strip_as_published(r"Why? Please reason step by step, and put your final answer within \boxed{{}}.")
    'Why? Please reason step by step, and put your final answer within \\boxed{{}}.'
    """
    return text.strip().removesuffix(BOXED_SUFFIX).rstrip()


def question(cell: str | Sequence[dict[str, str | None] | None] | None) -> str:
    """What one row asks: a plain text, or the user messages of a chat list[{content, role}]; empty if nothing.

    >>> question([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
    'Why?'
    """
    if cell is None or isinstance(cell, str):
        return cell or ""
    return "\n".join(message["content"] or "" for message in cell if message and message["role"] == "user")


def read(path: Path, column: str, chunk: int, strip: Strip, only: bool = False) -> Rows:
    """The rows of a parquet file (`only`: of this column alone), at most `chunk` at a time.

    Raises ValueError for a row that asks nothing, and for what cannot be read.
    """
    first = 0
    with (
        parquet.readable(path),
        pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file,  # else a whole row group is read at once
    ):
        for batch in file.iter_batches(batch_size=chunk, columns=[column] if only else None):
            texts = [strip(question(cell)) for cell in batch.column(column).to_pylist()]
            if "" in texts:
                row = first + texts.index("")
                raise ValueError(f"{path}: row {row} (from 0) has no question in column {column!r}; take it out")
            first += len(texts)
            yield batch, texts


def deduplicate(
    source: Path,
    reference: Path,
    target: Path,
    *,
    threshold: float = THRESHOLD,
    model: str = MODEL,
    chunk: int = CHUNK,
    column: str = "prompt",
    reference_column: str = "prompt",
    strip: Strip = strip_instructions,
    embed: Embed | None = None,
    say: Say = lambda line: None,
) -> Summary:
    """Write those rows of `source` to `target` that `reference` does not have: in order, with all their columns.

    The columns named hold texts or chats. `embed` stands in for the model where it is given; `model` is then only a
    name in the summary. `say` hears how far the work is. Beside TARGET.parquet come TARGET.summary.json and
    TARGET.dropped.csv (DROPPED; `row` counts from 0), and the target last: where it is, the work was finished.
    Raises ValueError for bad input, before any model is loaded.
    """
    outputs = [target.with_name(f"{target.stem}.dropped.csv"), target.with_name(f"{target.stem}.summary.json"), target]
    _require_files(source, reference, outputs, threshold, chunk)
    _require_texts(source, column)
    _require_texts(reference, reference_column)
    extra("faiss")
    references = [text for _, texts in read(reference, reference_column, chunk, strip, only=True) for text in texts]
    if not references:
        raise ValueError(f"{reference}: the reference set is empty; name one with questions")
    for _ in read(source, column, chunk, strip, only=True):
        pass  # a row without a question is refused now, not after hours of embedding
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        dropped, record, kept = drafts = [Path(folder) / path.name for path in outputs]
        known = index_reference(references, embed or sentence_encoder(model), chunk, say)
        judge = partial(find_duplicates, known=known, threshold=threshold)
        counts = _write(read(source, column, chunk, strip), judge, pq.read_schema(source), kept, dropped, say)
        summary = Summary(
            source=str(source), reference=str(reference), reference_questions=len(known.texts), rows=counts.total(),
            exact=counts["exact"], semantic=counts["semantic"], kept=counts["kept"], threshold=threshold, model=model,
            strip=strip.__name__,
        )  # fmt: skip
        record.write_text(json.dumps(asdict(summary), indent=1) + "\n", encoding="utf-8")
        for draft, path in zip(drafts, outputs, strict=True):
            os.replace(draft, path)
    return summary


def _write(
    rows: Rows,
    judge: Callable[[list[str]], list[Duplicate | None]],
    schema: pa.Schema,
    kept: Path,
    dropped: Path,
    say: Say,
) -> Counter[str]:
    """Sort the rows into two files; how many are kept, exact and semantic."""
    counts: Counter[str] = Counter()
    with pq.ParquetWriter(kept, schema) as writer, dropped.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(DROPPED)
        for batch, texts in rows:
            found = judge(texts)
            writer.write_batch(batch.filter(pa.array([duplicate is None for duplicate in found])))
            for row, (text, duplicate) in enumerate(zip(texts, found, strict=True), start=counts.total()):
                if duplicate is not None:
                    table.writerow((row, duplicate.reason, duplicate.cosine, text, duplicate.nearest))
            counts.update("kept" if duplicate is None else duplicate.reason for duplicate in found)
            say(f"{counts.total()} rows read, {counts['kept']} kept")
    return counts


def _require_files(source: Path, reference: Path, outputs: Sequence[Path], threshold: float, chunk: int) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: {threshold} marks no duplicates; write a cosine above 0 and at most 1")
    if chunk < 1:
        raise ValueError(f"chunk: {chunk} rows cannot be read at a time; write at least 1")
    for path in (source, reference):
        if not path.is_file():
            raise ValueError(f"{path}: no such file; name a parquet file")
    for path in outputs:
        if path.is_dir():
            raise ValueError(f"{path}: is a folder; name a file to write")
        if path.resolve() in (source.resolve(), reference.resolve()):
            raise ValueError(f"{path}: would be written over, and is one of the sets read; name another target")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _require_texts(path: Path, column: str) -> None:
    kind = parquet.schema(path, [column]).field(column).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    message = kind.value_type if is_list and pa.types.is_struct(kind.value_type) else ()
    is_chat = {"content", "role"} <= {field.name for field in message if _is_text(field.type)}
    if not _is_text(kind) and not is_chat:
        raise ValueError(f"{path}: column {column!r} is {kind}; name one of texts or of chats list[{{content, role}}]")
