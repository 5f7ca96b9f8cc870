"""The `opd` command. Every import that costs time stands inside the command that needs it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from opd_lib import __version__, paths
from opd_lib.bench.command import bench
from opd_lib.command.claims import claims
from opd_lib.command.lab import lab
from opd_lib.command.reproduce import reproduce
from opd_lib.command.site import site
from opd_lib.command.status import status
from opd_lib.command.talk import talk
from opd_lib.command.tries import tries
from opd_lib.run import data, options, records, streams, timing, track
from opd_lib.run.options import Done, Guardian, Jobs, Notebooks, Only, Overrides, Params, Profile, Results, Seeds


class Commands(TyperGroup):
    """Commands whose ValueErrors and OSErrors are one message on standard error and exit code 1."""

    def make_context(self, *words: Any, **options: Any) -> Any:
        """Read the words before the command's own, which may ask for nothing but help."""
        streams.settle()
        with streams.errors_as_messages():
            return super().make_context(*words, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        with streams.errors_as_messages():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="On-policy distillation replicated: train the runs, execute the notebooks, judge the claims.",
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"opd {__version__}")
        raise typer.Exit


@app.callback()
def opd(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and stop.")
    ] = False,
) -> None:
    """What all commands have in common."""


app.command()(reproduce)


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="An experiment, such as 03_reverse_distillation.")],
    arm: Annotated[str, typer.Argument(help="One of its arms.")],
    seed: Annotated[int, typer.Argument(help="The seed: 0 to 99 are judged, from 100 on calibration.")],
    profile: Profile = "tiny",
    results: options.Records = None,
    overrides: Overrides = "{}",
    guardian: Guardian = None,
    done: Done = None,
    meeting: options.Meeting = None,
    params: Params = paths.PARAMS,
) -> None:
    """Train one run: one arm, one seed. Resumes where it was interrupted; waits if another process trains it."""
    from opd_lib.run import guard

    if guardian is not None:
        guard.follow(guardian)
    from opd_lib.params import load
    from opd_lib.run import console, plan, single

    spec = load(notebook, profile, options.mapping(overrides), (seed,), results, params).spec(arm, seed)
    if meeting is not None:
        single.join(spec, meeting)
        return
    by_hand = guardian is None and done is None  # what a batch starts is quiet
    if by_hand and (spec.experiment, spec.arm) != (notebook, arm):
        typer.echo(f"{notebook}/{arm} is the same run as {spec.experiment}/{spec.arm}", err=True)
    before = plan.trained(spec)
    if folder := single.train(spec, console.reporting if by_hand else single.quietly):
        options.write_done(done, spec.identity)
        typer.echo(f"{'finished before, nothing was trained' if before else 'finished'}: {folder}")


@app.command(name="execute")
def execute_notebook(
    notebook: Annotated[str, typer.Argument(help="A notebook, such as 03_reverse_distillation.")],
    profile: Profile = "tiny",
    results: options.Reproduced = None,
    seeds: Seeds = None,
    overrides: Overrides = "{}",
    cell_seconds: Annotated[int, typer.Option(min=1, max=options.YEAR, help="Longest time for one cell.")] = 24 * 3600,
    guardian: Guardian = None,
    done: Done = None,
    params: Params = paths.PARAMS,
    notebooks: Notebooks = paths.NOTEBOOKS,
) -> None:
    """Execute one notebook into RESULTS/PROFILE/NOTEBOOK/notebook.ipynb; runs that are missing are trained.

    With --overrides and without --results into the folder of the try that they make.
    """
    from opd_lib.batch import execute
    from opd_lib.run import guard

    if guardian is not None:
        guard.follow(guardian)
    changes = options.mapping(overrides)
    request = execute.Request(
        name=notebook,
        profile=profile,
        results=options.records(results, changes),
        seeds=options.seed_list(seeds),
        overrides=changes,
        folder=notebooks,
        params_root=params,
        cell_seconds=cell_seconds,
    )
    path = execute.execute(request)
    options.write_done(done, notebook)
    typer.echo(f"done: {path}")


@app.command()
def figures(
    profile: Profile = "tiny",
    only: Only = None,
    seeds: Seeds = None,
    jobs: Jobs = None,
    results: options.Records = None,
    output: options.Output = options.REDRAWN,
    params: Params = paths.PARAMS,
    notebooks: Notebooks = paths.NOTEBOOKS,
) -> None:
    """Draw all figures and tables again from finished records; trains nothing and needs neither torch nor a kernel."""
    from opd_lib.batch import redraw
    from opd_lib.run import processes
    from opd_lib.run.progress import many

    chosen = options.experiments(profile, only, seeds, results, params, notebooks)
    for drawn in redraw.redraw(chosen, output, notebooks, jobs or processes.cores()):
        typer.echo(f"{drawn.name}: {many(drawn.figures, 'figure')}, {drawn.seconds:.1f} s, {drawn.folder}")


@app.command()
def check(
    student: Annotated[str, typer.Argument(help="A folder, a hub name, gguf:FILE, or run:NOTEBOOK/ARM.")],
    teacher: Annotated[str, typer.Argument(help="The same; both need one tokenizer.")],
    profile: Profile = "tiny",
    prompts: Annotated[int, typer.Option(min=1, max=100_000, help="How many prompts the student answers.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=999, help="Of the prompts and samples, and of run: checkpoints.")] = 0,
    results: options.Records = None,
    params: Params = paths.PARAMS,
) -> None:
    """What is known before training: overlap, entropy, divergence and lead, beside the runs seen, and a prognosis."""
    from opd_lib.run import check as checking

    pair = checking.Pair(student=student, teacher=teacher, profile=profile, seed=seed, results=results, root=params)
    typer.echo(checking.check(pair, prompts, say=partial(typer.echo, err=True)))


@app.command()
def compare(profile: Profile = "tiny", results: Results = paths.LOCAL, every: options.Every = False) -> None:
    """Does this machine agree? What differs between local records and the committed ones, and a verdict."""
    from opd_lib.run import compare as comparison

    typer.echo(comparison.compare(profile, results, every=every))


@app.command()
def refresh(
    profile: Profile = "tiny",
    seeds: Seeds = None,
    jobs: Jobs = None,
    snakemake: options.Snakemake = None,
    outputs_only: options.OutputsOnly = False,
    records_only: options.RecordsOnly = False,
) -> None:
    """Rewrite the committed results: train into results/local, copy the records, execute the notebooks, judge.

    With --records-only a few seeds of a world whose notebooks cannot be written yet.
    """
    from opd_lib.batch import reexecute
    from opd_lib.batch.refresh import commit_records
    from opd_lib.run import packs, plan, processes

    if outputs_only and records_only:
        raise ValueError("--outputs-only and --records-only: choose one of them, or neither for both")
    if not outputs_only:
        chosen = options.experiments(profile, None, seeds, paths.LOCAL, paths.PARAMS, paths.NOTEBOOKS)
        if records_only:
            processes.complete(plan.all_runs(chosen), jobs)
        else:
            reproduce(profile=profile, seeds=seeds, jobs=jobs, snakemake=snakemake)
        typer.echo(f"{commit_records(plan.all_runs(chosen))} records copied to {paths.RESULTS / profile}")
        typer.echo(str(packs.pack(paths.RESULTS / profile)))
    if not records_only:
        for line in reexecute.reexecute(profile, options.seed_list(seeds), jobs or processes.cores()):
            typer.echo(line)


for command in (
    *(talk, claims, status, records.seal, records.pack, records.unpack, bench, timing.time),
    *(data.data, data.prompts, data.dedup, data.grade, track.track, site, lab),
):
    app.command()(command)
app.add_typer(tries)

if __name__ == "__main__":
    app()
