"""The files of a run, in a folder of its own or packed with others: one way to them, wherever they stand.

A run is named by the folder NN_name/ARM/seedS in which it was written, even if that is no longer there. While runs are
packed or unpacked both stand there for a moment, with the same bytes; with different ones they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from opd_lib.records import packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run's file stands: a file of its own, or, if `arm` is not empty, a row of a packed one."""

    path: Path
    arm: str = ""

    def __str__(self) -> str:
        return f"{self.path}, arm {self.arm}" if self.arm else str(self.path)

    @property
    def remedy(self) -> str:
        """What to do about it if it is not what the run left."""
        if self.arm:
            return packed.remedy(self.path)
        back = f"bring it back (a committed one: `git checkout -- {self.path.name}` in its folder)"
        return f"{back}, or delete {self.path.parent} and run again"


def place(run: Path, file: str) -> Place:
    """Where a run's file stands, or would stand: packed if the run is packed and has no folder of its own."""
    if is_packed(run) and not (run / file).exists():
        return Place(path=packed.parquet(packed.home(run), file), arm=run.parent.name)
    return Place(path=run / file)


def read(run: Path, file: str) -> bytes | None:
    """The bytes of a run's file, None if there is none.

    Raises OSError if it cannot be read, ValueError for a damaged pack, and if it stands there twice and not the same.
    """
    own, other = _own(run / file), packed.read(run, file)
    if own is None and other is None:
        own = _own(run / file)  # it may have been unpacked between the two
    if own is None or other is None or own == other:
        return other if own is None else own
    raise ValueError(
        f"{run / file}: has other content than the same run has packed in {packed.home(run)}; delete the one that is "
        "not wanted (`opd unpack --output FOLDER` keeps a copy of packed ones)"
    )


def _own(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def exists(run: Path, file: str) -> bool:
    """Whether a run has this file. Raises ValueError for a damaged pack."""
    path = run / file
    return path.exists() or packed.read(run, file) is not None or path.exists()  # unpacked between the two


def of_other_size(run: Path, sizes: Mapping[str, int]) -> list[str]:
    """Which of a run's files cannot be what they were (file → bytes), seen from sizes alone.

    Of packed ones that is the size of the file which holds them. Raises ValueError for a damaged pack.
    """
    home = packed.home(run)
    whole = packed.sizes(home) if is_packed(run) else {}
    found = []
    for file, known in sizes.items():
        own, other = _size(run / file), _size(packed.parquet(home, file)) if file in whole else None
        if own != known if own is not None else other is None or other != whole[file]:
            found.append(file)
    return found


def _size(path: Path) -> int | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if S_ISREG(found.st_mode) else -1


def is_packed(run: Path) -> bool:
    """Whether a run is packed. Raises ValueError for a damaged pack."""
    return packed.read(run, packed.RUN) is not None


def runs(profile: Path) -> tuple[Path, ...]:
    """The folders of all runs below RESULTS/PROFILE, packed or not, in order. Raises ValueError for a damaged pack."""
    return tuple(run for notebook in sorted(profile.glob("*")) for run in of_notebook(notebook))


def of_notebook(notebook: Path) -> tuple[Path, ...]:
    """The folders of all runs of RESULTS/PROFILE/NN_name, in order. Raises ValueError for a damaged pack."""
    found = (notebook / arm / pack.name for pack in packs(notebook) for arm in packed.arms(pack))
    return tuple(sorted({*unpacked(notebook), *found}))


def of_arm(arm: Path) -> tuple[Path, ...]:
    """The folders of all runs of RESULTS/PROFILE/NN_name/ARM, in order. Raises ValueError for a damaged pack."""
    found = (arm / pack.name for pack in packs(arm.parent) if arm.name in packed.rows(pack, packed.RUN))
    return tuple(sorted({*arm.glob("seed*"), *found}))


def unpacked(notebook: Path) -> Iterator[Path]:
    """Folders of their own of a notebook's runs."""
    return (path.parent for path in notebook.glob(f"*/seed*/{packed.RUN}"))


def packs(notebook: Path) -> tuple[Path, ...]:
    """The folders of a notebook that hold packed runs, one for each seed."""
    return tuple(sorted((notebook / packed.FOLDER).glob("seed*")))
