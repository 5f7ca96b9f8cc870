"""The command `opd claims`: what the paper presupposes and what it says, judged from the records, as text."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from opd_lib import paths
from opd_lib.run.options import Profile, Results

WIDTH, CLAIM, PRECONDITION = 100, 22, 18
"""Characters of a line, and of the columns of text with which the tables fit into it."""
VERDICTS = ("id", "statement", "ours", "interval", "claimed", "detectable", "verdict")
"""The columns of the verdicts for which a line has room."""


def claims(
    profile: Profile = "tiny",
    results: Results = paths.RESULTS,
    readme: Annotated[bool, typer.Option(help="Also rewrite what the pages say of them (profile tiny).")] = False,
) -> None:
    """Judge preconditions and claims from the records, print them and write RESULTS/PROFILE/claims.csv."""
    from opd_lib.batch import refresh
    from opd_lib.judge import claims as verdicts
    from opd_lib.judge import preconditions
    from opd_lib.report import tables
    from opd_lib.run.compare import registers

    if readme and profile != refresh.DEFAULT_PROFILE:
        raise ValueError(f"--readme: the README is of profile {refresh.DEFAULT_PROFILE}, not {profile}; leave it out")
    found = refresh.found(profile, results)
    for register in registers(profile):
        if register.preconditions:
            states = preconditions.judge(register, found)
            shown = tables.show(tables.precondition_table(states, PRECONDITION))
            typer.echo(f"{shown}\n\n{textwrap.fill(preconditions.summary(states), WIDTH)}\n")
    judged = refresh.verdicts(found)
    shown = tables.verdict_table(judged, width=CLAIM)[list(VERDICTS)]
    typer.echo(f"{tables.show(shown)}\n\n{textwrap.fill(verdicts.summary(judged), WIDTH)}")
    typer.echo(f"\nwritten: {refresh.write_claims(judged, profile, results)}")
    if readme:
        refresh.write_readme(judged, results)
