"""The command `opd time`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opd_lib import paths
from opd_lib.run import options

Model = Annotated[str, typer.Argument(help="A hub name whose shape is known, or a folder with a config.json.")]
Lengths = Annotated[list[int] | None, typer.Option(min=1, help="Tokens of each response. Default: 2048, then 7168.")]
Entrants = Annotated[list[str] | None, typer.Option(help="Who makes the step. Default: all that are installed.")]
Folder = Annotated[Path | None, typer.Option(help="Folder of the table. Default: results/local/DEVICE/90_speed.")]


def time(
    student: Model,
    teacher: Model,
    response: Lengths = None,
    sequences: Annotated[int, typer.Option(help="Responses in a step.", min=1)] = 256,
    prompt: Annotated[int, typer.Option(help="Tokens of each prompt.", min=1)] = 150,
    steps: Annotated[int, typer.Option(help="Steps that are measured of each.", min=1)] = 1,
    entrant: Entrants = None,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    overrides: options.Overrides = "{}",
    results: Folder = None,
) -> None:
    """Time steps at two models' shapes, of random weights: seconds by stage, share of the floor, memory; TRL's too."""
    from opd_lib.bench import case, child, speed, timing
    from opd_lib.report import tables

    if device not in ("cuda", "cpu"):
        raise ValueError(f"--device {device}: no such device; use cuda or cpu")
    changes = {"machine.device": device} | options.mapping(overrides)
    cases = [
        case.Case(
            entrant=name,
            student=student,
            teacher=teacher,
            response=length,
            sequences=sequences,
            prompt=prompt,
            steps=steps,
            overrides=changes,
        )
        for length in response or (2048, 7168)
        for name in entrant or case.installed()
    ]
    for one in cases:
        one.require()
    folder = results or paths.LOCAL / device / speed.FOLDER
    child.require_writable(folder / speed.SHAPES)
    if (folder / speed.SHAPES).exists():
        speed.shapes(folder)  # a damaged table is said before anything is timed
    try:
        timing.carry_out(cases, folder / speed.SHAPES)
    finally:
        if (folder / speed.SHAPES).exists():
            typer.echo(tables.show(speed.shapes(folder), digits=2))
