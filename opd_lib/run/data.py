"""The commands about data: what a set or a file of prompts holds, making one free of another's questions, grading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def dedup(
    source: Annotated[Path, typer.Argument(help="The set to be cleaned: a parquet file.")],
    reference: Annotated[Path, typer.Argument(help="The set whose questions it must not hold: a parquet file.")],
    target: Annotated[Path, typer.Argument(help="The cleaned set: a new parquet file, its report beside it.")],
    threshold: Annotated[float, typer.Option(help="Cosine from which two questions count as one.")] = 0.6,
    model: Annotated[str, typer.Option(help="What embeds the questions.")] = "sentence-transformers/all-mpnet-base-v2",
    column: Annotated[str, typer.Option(help="Column of the questions.")] = "prompt",
    reference_column: Annotated[str, typer.Option(help="The same in REFERENCE.")] = "prompt",
) -> None:
    """Drop the questions of SOURCE that REFERENCE has, word for word or in meaning (the extra `dedup`)."""
    from opd_lib.tasks import dedup as deduplication

    summary = deduplication.deduplicate(
        source,
        reference,
        target,
        threshold=threshold,
        model=model,
        column=column,
        reference_column=reference_column,
        say=lambda line: typer.echo(line, err=True),
    )
    for name, value in asdict(summary).items():
        typer.echo(f"{name}: {value}")


def data(
    sets: Annotated[list[str], typer.Argument(help="Sets by name, such as dapo, aime24, amc23-83.")],
    folder: Annotated[str | None, typer.Option(help="Read the sets' files from here instead of the hub.")] = None,
) -> None:
    """What mathematics sets hold, counted: rows, questions, repeats, answers, and whether they are as released."""
    from opd_lib.tasks import math_sets

    for name in sets:
        math_sets.require_set(name, folder)
        for key, value in asdict(math_sets.describe(name, folder)).items():
            typer.echo(f"{key}: {value}")


def prompts(
    file: Annotated[Path, typer.Argument(help="Prompts of your own: .jsonl, .parquet, .csv, or a datasets folder.")],
    column: Annotated[str, typer.Option(help="The column of the prompts: texts, or lists of messages.")] = "prompt",
    answer: Annotated[str | None, typer.Option(help="The column of the answers, if there is one.")] = None,
    held_out: Annotated[float, typer.Option(min=0.0, max=1.0, help="The share that is tested on.")] = 0.1,
) -> None:
    """What a file of prompts holds, counted, and the digest that a params file names it by (task prompts)."""
    from opd_lib.tasks import prompt_sets

    origin = prompt_sets.Origin(file=file, column=column, answer=answer, held_out=held_out)
    summary = prompt_sets.read(origin).summary
    typer.echo(summary.in_words)
    typer.echo(f"digest: {summary.digest}")


def grade(
    files: Annotated[list[Path], typer.Argument(help="Parquet files with columns response and answer, or folders of.")],
    asked: Annotated[str, typer.Option(help="What the prompts ask for: box, or line for `Answer: ...`.")] = "box",
) -> None:
    """How often math-verify and exact match disagree about responses, such as a cold start's rollouts."""
    from opd_lib.report import tables
    from opd_lib.tasks import graders

    if asked not in (forms := ("box", "line")):
        raise ValueError(f"--asked: {asked!r} is unknown; choose from {', '.join(forms)}")
    found = responses(files)
    golds = [gold or "" for gold in found["answer"]]
    table = graders.compare_graders(found["response"], golds, "line" if asked == "line" else "box")
    typer.echo(tables.show(table.assign(examples=table["examples"].map("; ".join)).reset_index()))


def responses(files: Sequence[Path]) -> dict[str, list[str | None]]:
    """Columns response and answer of parquet files or folders of them, in order; None where a file holds no value.

    Raises ValueError naming what is no such file, what lacks a column or holds no texts, and what is without a row.
    """
    from opd_lib.tasks import parquet

    found: dict[str, list[str | None]] = {"response": [], "answer": []}
    for given in files:
        parts = sorted(path for path in given.glob("*.parquet") if path.is_file()) if given.is_dir() else [given]
        if not parts:
            raise ValueError(f"{given}: no parquet file in this folder; name one with columns {', '.join(found)}")
        for path in parts:
            for column, values in parquet.texts(path, list(found)).items():
                found[column] += values
    if not found["response"]:
        raise ValueError(f"{', '.join(map(str, files))}: no row; name files that hold responses")
    return found
