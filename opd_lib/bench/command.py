"""The command `opd bench`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from opd_lib import paths


def bench(
    results: Annotated[Path, typer.Option(help="Folder of the measurements.")] = paths.LOCAL / "tiny" / "90_speed",
    jobs: Annotated[int, typer.Option(min=1, max=1024, help="Processes at a time; each uses one core.")] = 1,
    stages_of: Annotated[
        Path | None, typer.Option(help="Only sum up where the time of these records of one seed went: RESULTS/PROFILE.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=999, help="The seed of --stages-of.")] = 0,
    docs: Annotated[bool, typer.Option("--docs", help="Only write the committed ratios into docs/speed.md.")] = False,
) -> None:
    """Measure training steps beside TRL, Liger and plain torch (`make bench`); go on where it was interrupted."""
    from opd_lib.bench import speed, targets
    from opd_lib.report import tables

    if docs:
        from opd_lib.report.outputs import put_between

        table = targets.table(speed.place("tiny", None)).drop(columns=["ours", "theirs"])
        put_between(paths.ROOT / "docs" / "speed.md", "speed", tables.markdown(table, digits=2))
        return
    if stages_of is not None:
        from opd_lib.bench import stages

        stages.write(stages_of, seed, results / speed.STAGES)
        return
    if missing := [name for name in ("trl", "liger_kernel") if not find_spec(name)]:
        raise ValueError(f"the benchmark needs {', '.join(missing)}; say `make bench`, or install the extra `bench`")
    from opd_lib.bench import child, compare

    child.require_writable(results / speed.STEPS)
    compare.carry_out(compare.STAGES, results / speed.STEPS, jobs)
    measured = speed.read(results)
    typer.echo(tables.show(speed.agreement(measured)))
    typer.echo(tables.show(targets.ratios(measured), digits=2))
