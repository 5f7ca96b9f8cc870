"""All runs of a results folder packed, or unpacked: which notebooks and seeds, and nobody else meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from filelock import FileLock, Timeout

from opd_lib.records import files, packed, packing
from opd_lib.records.packing import Moved

LOCK = ".packing.lock"

Names = Collection[str] | None
Seeds = Collection[int] | None
"""Which ones; None: all."""


def pack(profile: Path, notebooks: Names = None, seeds: Seeds = None) -> Moved:
    """Pack the runs below RESULTS/PROFILE that stand in folders of their own.

    Raises ValueError as `packing.pack` does; notebooks and seeds before the one that is refused are packed.
    """
    folders = chosen(profile, notebooks)
    with alone(profile, folders):
        found = [run for notebook in folders for run in files.unpacked(notebook)]
        return sum((packing.pack(group) for group in _by_seed(found, seeds)), Moved())


def unpack(profile: Path, notebooks: Names = None, seeds: Seeds = None, output: Path | None = None) -> Moved:
    """Put packed runs back into folders of their own, or with `output` into OUTPUT/PROFILE while the packs stay.

    Raises ValueError as `packing.unpack` does; notebooks and seeds before the one that is refused are unpacked.
    """
    folders = chosen(profile, notebooks)
    if output is not None:
        found = _packs(folders, seeds)
        return sum((packing.unpack(pack, output / profile.name / pack.parts[-3]) for pack in found), Moved())
    with alone(profile, folders):
        return sum((packing.unpack(pack) for pack in _packs(folders, seeds)), Moved())


@contextmanager
def apart(profile: Path, runs: Iterable[Path]) -> Iterator[None]:
    """The seeds of these runs of RESULTS/PROFILE are unpacked meanwhile; those that were packed are packed again after.

    Raises ValueError as `packing.pack` and `packing.unpack` do. After an error in between they stay unpacked.
    """
    homes = sorted(set(map(packed.home, runs)))
    with alone(profile, [home.parent.parent for home in homes]):
        there = [home for home in homes if home.is_dir()]
        for home in there:
            packing.unpack(home)
        yield
        for home in there:
            packing.pack(run for run in files.unpacked(home.parent.parent) if packed.home(run) == home)


def chosen(profile: Path, notebooks: Names) -> tuple[Path, ...]:
    """The folders of these notebooks below RESULTS/PROFILE, of all by default. Raises ValueError for one not there."""
    known = {path.name: path for path in sorted(profile.glob("*")) if path.is_dir()}
    if not known:
        raise ValueError(f"{profile}: no folder of results; name another with --results or --profile")
    for name in notebooks or ():
        if name not in known:
            raise ValueError(f"--only {name}: {profile} has nothing of it; choose from {', '.join(known)}")
    return tuple(path for name, path in known.items() if notebooks is None or name in notebooks)


@contextmanager
def alone(profile: Path, notebooks: Iterable[Path]) -> Iterator[None]:
    """Nobody else packs here meanwhile, and what killed processes left in these folders is gone.

    Raises ValueError if somebody does.
    """
    lock = FileLock(profile / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{profile}: another process packs or unpacks here; wait for it") from None
    try:
        for notebook in notebooks:
            packing.sweep(notebook)
        yield
    finally:
        (profile / LOCK).unlink(missing_ok=True)
        lock.release()


def _packs(notebooks: Iterable[Path], seeds: Seeds) -> list[Path]:
    return [pack for notebook in notebooks for pack in files.packs(notebook) if _is_of(pack, seeds)]


def _by_seed(runs: Iterable[Path], seeds: Seeds) -> Iterator[list[Path]]:
    wanted = sorted((run for run in runs if _is_of(run, seeds)), key=packed.home)
    return (list(group) for _, group in groupby(wanted, key=packed.home))


def _is_of(folder: Path, seeds: Seeds) -> bool:
    return seeds is None or folder.name in {f"seed{seed}" for seed in seeds}
