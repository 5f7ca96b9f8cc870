"""The command `opd talk`: questions typed in, answered token by token."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from opd_lib import paths
from opd_lib.run import options
from opd_lib.run.options import Params, Profile


def talk(
    student: Annotated[str, typer.Argument(help="A folder, a hub name, gguf:FILE, or run:NOTEBOOK/ARM.")],
    teacher: Annotated[str | None, typer.Argument(help="What listens; it needs the student's tokenizer.")] = None,
    profile: Profile = "tiny",
    question: Annotated[list[str] | None, typer.Option(help="Ask this and stop; may be repeated.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, max=100_000, help="Of an answer, at most.")] = None,
    temperature: Annotated[float, typer.Option(min=0.01, max=100.0, help="Of the answer.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="The nucleus that it is drawn from.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=999, help="Of the answer, and of run: checkpoints.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Write all answers to this page, as the token explorer.")] = None,
    results: options.Records = None,
    params: Params = paths.PARAMS,
) -> None:
    """Ask a checkpoint questions, a line each, and read its answers token by token with both models' lists."""
    from opd_lib.report import explore
    from opd_lib.run import talk as talking

    limits = {"max_new_tokens": tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    pair = talking.meet(student, teacher, profile, results=results, root=params, **limits)  # type: ignore[arg-type]
    listens = f"; {teacher} listens ({talking.OTHER}: it would rather have said another token)" if teacher else ""
    typer.echo(f"{student} answers, drawn at temperature {temperature:g}, top_p {top_p:g}{listens}", err=True)
    for line in question or typed():
        try:
            typer.echo(talking.text(pair.answer(line), has_teacher=teacher is not None))
        except ValueError as error:
            if question:
                raise
            typer.echo(f"error: {error}", err=True)
    if save and pair.rows:
        typer.echo(f"written: {explore.answers(pair.rows, pair.name, seed).save(save)}")


def typed() -> Iterator[str]:
    """The questions on standard input, a line each, until an empty one or its end."""
    while True:
        if sys.stdin.isatty():
            typer.echo("question (an empty line ends): ", nl=False)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line
