"""What a batch is to do and where: everything into a results folder, or what overrides change into that of a try."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd_lib import paths
from opd_lib.batch import redraw
from opd_lib.params import Experiment
from opd_lib.records import reading
from opd_lib.run import tries

OWN = "method"
"""The tag of a cell whose objective is an override of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The experiments of a batch and the folder in which it works.

    `overrides` and the `name` asked for are those of a try; of what is done in another folder they are empty.
    `left_out`: notebook → why it is not among them.
    """

    experiments: tuple[Experiment, ...]
    root: Path
    left_out: Mapping[str, str]
    overrides: Mapping[str, Any]
    name: str | None

    def begin(self) -> None:
        """Write down what the try is, before its first run."""
        if self.overrides:
            tries.begin(self.root, self.overrides, self.name)

    def ended(self) -> Iterator[str]:
        """What there is now, in lines."""
        for experiment in self.experiments:
            yield f"done: {self.root / experiment.profile / experiment.name / paths.EXECUTED}"
        if self.overrides:
            made = tries.read(self.root)
            yield f"try {made.name}: {made.folder}"
            unnamed = made.name == made.folder.name
            words = f"`opd tries rename {made.name} NAME` gives it a name, " if unnamed else ""
            yield f"{words}`opd tries` lists it beside the paper's arms"


def chosen(
    experiments: tuple[Experiment, ...],
    overrides: Mapping[str, Any],
    name: str | None,
    notebooks: Path = paths.NOTEBOOKS,
) -> Chosen:
    """What is to be done of these experiments, which were loaded with `overrides`.

    Without a results folder of their own, those that overrides change make a try; the others are left out. Raises
    ValueError for overrides that change nothing, and for a name that cannot be the try's.
    """
    results = experiments[0].results
    if results is not None or not overrides:
        if name is not None:
            raise ValueError(f"--name {name}: names a try; give --overrides, and no --results")
        root = paths.LOCAL if results is None else results
        return Chosen(experiments=experiments, root=root, left_out={}, overrides={}, name=None)
    left_out = dict(_left_out(experiments, notebooks))
    changed = tuple(each for each in experiments if each.name not in left_out)
    if not changed:
        raise ValueError("--overrides: " + "; ".join(f"{each}: {why}" for each, why in left_out.items()))
    root = tries.place(overrides)
    if name is not None:
        tries.require_name(name, root)
    return Chosen(experiments=changed, root=root, left_out=left_out, overrides=overrides, name=name)


def _left_out(experiments: Iterable[Experiment], notebooks: Path) -> Iterator[tuple[str, str]]:
    """(notebook, why) of those that a try has nothing of, or that make one of their own."""
    for each in experiments:
        source = notebooks / f"{each.name}.ipynb"
        if not each.varied:
            yield each.name, "the overrides say what its params say already"
        elif any(OWN in redraw.tags(cell) for cell in reading.mapping(source, ["cells"])["cells"]):
            yield each.name, "a cell of its own is an override, too; set yours in the notebook (`make lab`)"
