r"""From the rows of a released file, or of a hub's dataset, to questions without instructions.

Rows are read through `datasets`. Whatever goes wrong on the way is one ValueError that says what could not be read and
what to do about it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opd_lib.tasks.graders import boxed_answer, plain_integer

if TYPE_CHECKING:
    from datasets import Dataset

_FIRST = (
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem."
)
TEMPLATES = {  # what stands before and after a question
    "original": (f"{_FIRST}\n\n", '\n\nRemember to put your answer on its own line after "Answer:".'),
    "boxed": ("", r" Please reason step by step, and put your final answer within \boxed{}."),
    "boxed_double": ("", r" Please reason step by step, and put your final answer within \boxed{{}}."),
}

ROWS_AT_ONCE = 10_000  # in memory
SHOWN = 80  # characters of a value in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a row holds what, as dotted paths: `only` is the one element of a list, a number one of several.

    `must`: a path and what it has to hold in every row. `keep`: rows where a path holds something else are left out.
    """

    text: str
    answer: str | None = None
    id: str | None = None
    must: tuple[str, str] | None = None
    keep: tuple[str, str] | None = None

    @property
    def columns(self) -> list[str]:
        """The columns the paths begin at."""
        checks = [path for path, _ in filter(None, (self.must, self.keep))]
        return sorted({path.split(".")[0] for path in filter(None, (self.text, self.answer, self.id, *checks))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A dataset of the Hugging Face hub. `revision` should be a commit: a branch or tag may change."""

    name: str
    revision: str
    layout: Layout
    split: str = "train"
    configs: tuple[str | None, ...] = (None,)

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit."""
        return re.fullmatch(r"[0-9a-f]{40}", self.revision) is not None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a row holds, as text; empty where the layout names no path."""

    id: str
    text: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question without instructions. `answer` is the normalised gold, empty where the set has none."""

    id: str
    text: str
    answer: str


def from_file(path: Path, layout: Layout) -> Iterator[Row]:
    """The rows of a parquet file. ValueError if the file or its folder is not there or not what it should be."""
    import datasets
    import pyarrow.parquet as pq

    if not path.parent.is_dir():
        raise ValueError(
            f"task.data: there is no folder {path.parent}; name the folder of the files, or null for the hub"
        )
    if not path.is_file():
        raise ValueError(
            f"task.data: {path.parent} holds no {path.name}; put the file there, or write null for the hub"
        )
    try:
        if pq.read_metadata(path).num_rows == 0:
            raise ValueError("it has no row")
        dataset = datasets.load_dataset("parquet", data_files=str(path), split="train")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ValueError(f"{path}: is no parquet file that can be read ({reason}); fetch it again") from error
    return rows_in(dataset, layout, str(path))


def from_hub(hub: Hub) -> Iterator[Row]:
    """The rows of a hub's dataset, its configurations one after the other."""
    for config in hub.configs:
        where = f"{hub}/{config}" if config else str(hub)
        yield from rows_in(_download(hub, config), hub.layout, where)


def _download(hub: Hub, config: str | None) -> Dataset:
    """One configuration of a dataset. Every way this is known to fail becomes a ValueError with its remedy."""
    import datasets

    page = f"https://huggingface.co/datasets/{hub.name}"
    or_local = "or name a folder that holds the set's file in task.data"
    try:
        dataset = datasets.load_dataset(hub.name, config, split=hub.split, revision=hub.revision)
    except datasets.exceptions.DatasetNotFoundError as error:
        remedy = f"is not on the hub, or is private; see {page}, {or_local}"
        if "gated" in str(error):
            remedy = f"is gated: ask for access on {page} and log in with `hf auth login`, {or_local}"
        if str(error).startswith("Revision"):
            remedy = f"has no such revision; take a commit of {page}/commits/main, {or_local}"
        raise ValueError(f"{hub}: {remedy}") from error
    except ConnectionError as error:
        raise ValueError(
            f"{hub}: the hub cannot be reached ({error}); connect once to fill the cache, {or_local}"
        ) from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{hub}: cannot be read ({error}); see {page}, {or_local}") from error
    # without network, datasets takes whatever revision it finds in its cache
    if hub.pinned and any(hub.revision not in Path(file["filename"]).parts for file in dataset.cache_files):
        raise ValueError(
            f"{hub}: only another revision is cached and the hub cannot be reached; connect once, {or_local}"
        )
    return dataset


def rows_in(dataset: Dataset, layout: Layout, where: str) -> Iterator[Row]:
    """The rows of a dataset that belong to the set. `where` begins every message."""
    missing = sorted(set(layout.columns) - set(dataset.column_names))
    if missing:
        found = ", ".join(dataset.column_names)
        raise ValueError(f"{where}: column {missing[0]!r} expected, found only {found}; is this the released file?")
    number = 0
    for batch in dataset.select_columns(layout.columns).with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError as error:
            first = f"{where}, from row {number}"
            raise ValueError(f"{first}: holds text that is not UTF-8 ({error}); is this the released file?") from error
        for row in rows:
            at = f"{where}, row {number}"
            number += 1
            if layout.keep and _value(row, layout.keep[0], at) != layout.keep[1]:
                continue
            if layout.must and (held := _value(row, layout.must[0], at)) != layout.must[1]:
                raise ValueError(f"{at}: {layout.must[0]} should hold {layout.must[1]!r}, holds {held[:SHOWN]!r}")
            yield Row(
                id=_value(row, layout.id, at) if layout.id else "",
                text=_value(row, layout.text, at),
                answer=_value(row, layout.answer, at) if layout.answer else "",
            )


def _value(row: dict[str, Any], path: str, at: str) -> str:
    """What a dotted path leads to, as text. ValueError where a row has another shape or holds nothing there."""
    value: Any = row
    for step in path.split("."):
        if step == "only":
            expected, fits = "a list of one element", isinstance(value, list) and len(value) == 1
        elif step.isdigit():
            expected, fits = f"a list of more than {step} elements", isinstance(value, list) and len(value) > int(step)
        else:
            expected, fits = f"a record with {step!r}", isinstance(value, dict) and step in value
        if not fits:
            raise ValueError(f"{at}: {path}: expected {expected}, found {repr(value)[:SHOWN]}")
        value = value[0] if step == "only" else value[int(step)] if step.isdigit() else value[step]
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if not is_number and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{at}: {path}: expected text or a number, found {repr(value)[:SHOWN]}")
    return str(value)


def to_questions(name: str, rows: Iterable[Row]) -> tuple[list[Question], Counter[str], int]:
    """The questions of rows, how many came in which template, and how many rows were copies of an earlier one.

    A row without an id is known by its place. ValueError if two rows of one id differ.
    """
    questions: dict[str, Question] = {}
    instructions: Counter[str] = Counter()
    copies = 0
    for place, row in enumerate(rows):
        text, template = strip_instruction(row.text)
        question = Question(id=row.id or f"{name}-{place}", text=text, answer=normalize_gold(row.answer))
        if question.id not in questions:
            questions[question.id] = question
            instructions[template] += 1
        elif questions[question.id] == question:
            copies += 1
        else:
            raise ValueError(f"{name}: two rows have the id {question.id!r} and differ; is this the released file?")
    return list(questions.values()), instructions, copies


def strip_instruction(content: str) -> tuple[str, str]:
    r"""A question without the instruction it is put with, and that template's name (`none` if it has none).

    >>> strip_instruction(r"What is 1? Please reason step by step, and put your final answer within \boxed{{}}.")
    ('What is 1?', 'boxed_double')
    """
    for template, (before, after) in TEMPLATES.items():
        if content.startswith(before) and content.endswith(after) and len(content) > len(before + after):
            return content[len(before) : len(content) - len(after)], template
    return content, "none"


def normalize_gold(gold: str) -> str:
    r"""A gold as a grader wants it: without a box around it, an integer the usual way.

    >>> [normalize_gold(gold) for gold in (r"\boxed{204}", "142.0", "025", r"336^\circ", r"\frac{1}{2}")]
    ['204', '142', '25', '336', '\\frac{1}{2}']
    """
    gold = boxed_answer(gold) or gold.strip()
    return plain_integer(gold) or gold
