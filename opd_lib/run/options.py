"""The options that commands share, and what their texts mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opd_lib import inputs, names, paths

if TYPE_CHECKING:
    from opd_lib.params import Experiment

Profile = Annotated[
    str, typer.Option(help="tiny (minutes), smoke (seconds of training), or another folder of params/.")
]
Results = Annotated[Path, typer.Option(help="Folder of the records.")]
Records = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the records. Default: the committed ones, results/local, results/local/lab for new ones."
    ),
]
Reproduced = Annotated[
    Path | None,
    typer.Option(
        "--results", help="Folder of the records. Default: results/local; with --overrides that of the try they make."
    ),
]
Only = Annotated[
    str | None, typer.Option(help="Notebooks, separated by commas; `reproduce` also trains what they need.")
]
Seeds = Annotated[str | None, typer.Option(help="How many seeds (from 0), or which: 0,3,4. Default: as in params.")]
MOST_JOBS, MOST_SEEDS, YEAR = 1024, 1000, 365 * 24 * 3600
Jobs = Annotated[
    int | None, typer.Option(min=1, max=MOST_JOBS, help="Processes at a time. Default: one per physical core.")
]
AtATime = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        max=10 * MOST_JOBS,
        help="Processes at a time. Default: one per physical core; on a cluster 100 jobs.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what is missing and what it takes; start nothing.")]
Meeting = Annotated[Path | None, typer.Option(help="Where the processes of this run meet.", hidden=True)]
PlanOnly = Annotated[bool, typer.Option("--plan-only", help="Write RESULTS/.plan.json and stop.")]
OutputsOnly = Annotated[
    bool, typer.Option("--outputs-only", help="Train nothing: execute all notebooks on the committed records.")
]
RecordsOnly = Annotated[
    bool, typer.Option("--records-only", help="Train and commit the records alone: execute and judge nothing.")
]
Every = Annotated[bool, typer.Option("--all", help="Show every run and claim, not only what disagrees.")]
Cluster = Annotated[str | None, typer.Option(help="slurm: submit the jobs instead of running them here.")]
Partition = Annotated[str | None, typer.Option(help="The cluster's partition. Default: its own.")]
Account = Annotated[str | None, typer.Option(help="The cluster's account. Default: yours.")]
Overrides = Annotated[str, typer.Option(help='Changes of params as JSON: {"train.lr": 1e-3}.')]
TryName = Annotated[str | None, typer.Option("--name", help="What the try is called that --overrides make.")]
Snakemake = Annotated[Path | None, typer.Option(help="The snakemake program. Default: of .venv-batch, or on PATH.")]
Output = Annotated[Path, typer.Option(help="Folder for PROFILE/NOTEBOOK/figures and tables.")]
Params = Annotated[Path, typer.Option(help="Folder of params files.", hidden=True)]
Notebooks = Annotated[Path, typer.Option(help="Folder of notebooks.", hidden=True)]
Guardian = Annotated[int | None, typer.Option(help="End when this process is gone.", hidden=True)]
Done = Annotated[Path | None, typer.Option(help="A file to write on success.", hidden=True)]

REDRAWN = paths.LOCAL / "figures"
"""Where `opd figures` draws unless told otherwise."""


def experiments(
    profile: str,
    only: str | None,
    seeds: str | None,
    results: Path | None,
    params: Path,
    notebooks: Path,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Experiment, ...]:
    """The experiments that these options choose. Raises ValueError naming what there is instead."""
    from opd_lib.run import plan

    chosen_seeds = seed_list(seeds)
    known = plan.notebooks(profile, params, notebooks)
    chosen = plan.choose(listed(only), known, profile, params)
    return plan.experiments(chosen, profile, results, chosen_seeds, params, overrides)


def records(results: Path | None, overrides: Mapping[str, Any]) -> Path | None:
    """The folder of records of `Reproduced`; None for a try, which has its own."""
    if results is None:
        return None if overrides else paths.LOCAL
    return results.resolve()


def listed(only: str | None) -> tuple[str, ...] | None:
    """The notebooks that --only names, each once; None for all. Raises ValueError for what is no name."""
    if only is None:
        return None
    words = (names.require(word.strip(), "notebook", "--only") for word in only.split(","))
    return tuple(dict.fromkeys(words))


def seed_list(text: str | None) -> tuple[int, ...] | None:
    """Which seeds a text means: `3` is the first three, `0,3` (or `3,`) are these.

    >>> seed_list("3"), seed_list("0,3"), seed_list("3,")
    ((0, 1, 2), (0, 3), (3,))
    """
    if text is None:
        return None
    numbers = inputs.listed(text, "--seeds")
    if "," not in text and numbers and numbers[0] > MOST_SEEDS:
        raise ValueError(f"--seeds {text}: there are only {MOST_SEEDS}; for one seed write a comma after it")
    seeds = numbers if "," in text else tuple(range(numbers[0] if numbers else 0))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {text}: name at least one seed, and each once")
    return seeds


def mapping(text: str) -> dict[str, Any]:
    """The overrides that a JSON text means. Raises ValueError if it means none."""
    return inputs.from_json(text, "--overrides")


def write_done(path: Path | None, content: str) -> None:
    """Write the file that --done names, if it names one."""
    if path is not None:
        from opd_lib.records.record import write_json

        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"done": content})
