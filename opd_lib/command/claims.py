"""The command `opd claims`: what the paper presupposes and what it says, judged from the records, as text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from opd_lib import paths
from opd_lib.run.options import Profile, Results

if TYPE_CHECKING:
    import pandas as pd

WIDTH, CLAIM, PRECONDITION, WORDS = 100, 22, 18, 12
"""Characters of a line, and of the columns of text with which the tables fit into it."""


def claims(
    profile: Profile = "tiny",
    results: Results = paths.RESULTS,
    readme: Annotated[bool, typer.Option(help="Also rewrite what the pages say of them (profile tiny).")] = False,
) -> None:
    """Judge preconditions and claims from the records, print them and write RESULTS/PROFILE/claims.csv."""
    from opd_lib.batch import refresh
    from opd_lib.judge import claims as verdicts
    from opd_lib.judge import preconditions
    from opd_lib.run.compare import registers

    if readme and profile != refresh.DEFAULT_PROFILE:
        raise ValueError(f"--readme: the README is of profile {refresh.DEFAULT_PROFILE}, not {profile}; leave it out")
    found = refresh.found(profile, results)
    for register in registers(profile):
        if register.preconditions:
            states = preconditions.judge(register, found)
            typer.echo(f"{_preconditions(states)}\n\n{textwrap.fill(preconditions.summary(states), WIDTH)}\n")
    judged = refresh.verdicts(found)
    typer.echo(f"{_verdicts(judged)}\n\n{textwrap.fill(verdicts.summary(judged), WIDTH)}")
    typer.echo(f"\nwritten: {refresh.write_claims(judged, profile, results)}")
    if readme:
        refresh.write_readme(judged, results)


def _preconditions(states: pd.DataFrame) -> str:
    from opd_lib.report import tables

    in_words = states["state"] + (": " + states["fails"]).where(states["fails"] != "", "")
    shown = states.assign(
        precondition=_wrapped(states["statement"], PRECONDITION),
        paper=_wrapped(states["paper"], WORDS),
        wanted=_wrapped(states["wanted"], WORDS),
        **{name: [tables.number(value) for value in states[name]] for name in ("mean", "lowest", "highest")},
        n=states["n_seeds"],
        state=_wrapped(in_words, WORDS),
    )
    return tables.show(shown[["id", "precondition", "paper", "wanted", "mean", "lowest", "highest", "n", "state"]])


def _verdicts(judged: pd.DataFrame) -> str:
    from opd_lib.report import tables

    shown = tables.verdict_table(judged, width=CLAIM)
    return tables.show(shown[["id", "statement", "ours", "interval", "claimed", "detectable", "verdict"]])


def _wrapped(texts: pd.Series, width: int) -> list[str]:
    return [textwrap.fill(text, width) for text in texts]
