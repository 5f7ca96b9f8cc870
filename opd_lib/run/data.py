"""The commands about data sets: what is in them, and making one free of another's questions."""

from __future__ import annotations

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
        math_sets.check(name, folder)
        for key, value in asdict(math_sets.describe(name, folder)).items():
            typer.echo(f"{key}: {value}")
