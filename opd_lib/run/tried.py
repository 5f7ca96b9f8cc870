"""What tries came to, as text: a table of all of them, and two side by side."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from opd_lib import params, paths
from opd_lib.judge import versus
from opd_lib.judge.quantities import EmptyTableError, Evidence, NoRecordError, SeedView
from opd_lib.maths import stats
from opd_lib.params.spec import FINISHED, determining
from opd_lib.records import parameters, record
from opd_lib.records.record import RunRecord
from opd_lib.report import tables
from opd_lib.run import progress
from opd_lib.run.tries import NAME, Try, training

SHOWN = 48
"""Characters of a value in a table."""
DAY = 24 * 3600
PAPER = "paper"
"""The arm that a notebook calls so is what its others are held to."""
Group = tuple[str, str, str]
"""Profile, notebook, arm."""


def table(every: Iterable[Try], root: Path = paths.PARAMS) -> pd.DataFrame:
    """A row for each arm of each try: what it changes, its seeds, its accuracy beside the committed arm's, a verdict.

    Accuracies are those at the end (`quantities.accuracy_end`), means over seeds with their intervals; the committed
    arm's (`_beside`) are of the same seeds. The verdict is that of the 95 % interval over seeds of the difference.
    Raises ValueError for a corrupt record.
    """
    rows = [row for each in every for row in _rows(each, root)]
    columns = ["name", "notebook", "arm", "changes", "seeds", "accuracy", "committed", "verdict", "age", "size"]
    return pd.DataFrame(rows, columns=columns)


def _rows(each: Try, root: Path) -> list[dict[str, Any]]:
    going_on, (size, newest) = training(each.folder), _measured(each.folder)
    whole = {"name": each.name, "age": _age(time.time() - newest), "size": f"{size / 2**20:.1f} MiB"}
    rows: list[dict[str, Any]] = []
    for (profile, notebook, arm), found in (own := groups(each)).items():
        ends, (other, theirs) = accuracies(found), _beside(found, own, root)
        busy = any(name.startswith(f"{notebook}/{arm}/") for name in going_on)
        done = sum(present.status == FINISHED for present in found)
        row = {
            "notebook": notebook if profile == "tiny" else f"{profile}/{notebook}",
            "arm": arm,
            "changes": said(changes(each, found[0], root)),
            "seeds": (str(done) if done == len(found) else f"{done} of {len(found)}") + (", training" if busy else ""),
            "accuracy": _mean(ends.values()),
            "committed": _mean(theirs.values()) + (f" ({other})" if theirs and other != arm else ""),
            "verdict": _verdict(ends, theirs),
        }
        rows.append(row | (dict.fromkeys(whole, "") if rows else whole))
    nothing = dict.fromkeys(("notebook", "arm", "accuracy", "committed", "verdict"), tables.MISSING)
    begun = ", training" if going_on else ""
    return rows or [{**whole, **nothing, "changes": said(each.overrides or {}), "seeds": f"0{begun}"}]


def groups(each: Try) -> dict[Group, list[RunRecord]]:
    """(profile, notebook, arm) → the records of its seeds, in order."""
    by_arm = sorted(each.records(), key=lambda found: (*_group(found), found.seed))
    return {group: list(found) for group, found in groupby(by_arm, key=_group)}


def changes(each: Try, present: RunRecord, root: Path = paths.PARAMS) -> dict[str, Any]:
    """What an arm of a try changes: key → value. From the overrides; without those, from its record.

    Of an arm that the params file does not have, it is what differs from the arm that is most like it; empty where the
    file is no longer there.
    """
    if each.overrides is not None:
        everywhere = {key: value for key, value in each.overrides.items() if not key.startswith("arms.")}
        return {**(each.overrides.get(f"arms.{present.arm}") or {}), **everywhere}
    try:
        arms = params.load(present.experiment, present.profile, root=root).arms
    except ValueError:
        return {}
    alike = [arms[present.arm]] if present.arm in arms else arms.values()
    mine, plain = _parameters(present.params), [_parameters(determining(arm)) for arm in alike]
    apart = [{key: value for key, value in mine.items() if key not in arm or arm[key] != value} for arm in plain]
    return min(apart, key=len, default={})


def said(changed: Mapping[str, Any]) -> str:
    """Keys and values in a line; long values by their beginnings, texts of several lines by their digests."""
    return ", ".join(f"{key}: {_short(value)}" for key, value in parameters.flatten(changed).items()) or tables.MISSING


def accuracies(found: Iterable[RunRecord], start: bool = False) -> dict[int, float]:
    """seed → accuracy at the end, or at the start, of finished runs of one arm that were evaluated."""
    finished = [present for present in found if present.status == FINISHED]
    ends: dict[int, float] = {}
    for present in finished:
        evals = {"evals": record.frame([present], "evals")}
        evidence = Evidence(profile=present.profile, experiments={present.experiment: evals})
        view = SeedView(evidence=evidence, experiment=present.experiment, seed=present.seed)
        with suppress(NoRecordError, EmptyTableError):
            ends[present.seed] = view.accuracy_start(present.arm) if start else view.accuracy_end(present.arm)
    return ends


def _beside(
    found: Sequence[RunRecord], own: Mapping[Group, Sequence[RunRecord]], root: Path
) -> tuple[str, dict[int, float]]:
    """The paper's arm to which a try's arm is held, and its accuracies at the end, of the same seeds.

    It is the committed one of the same name; where the notebook has an arm `paper`, all others are held to that one, as
    the try itself has it if it changes that, too. No accuracies where there is no such arm.
    """
    ends, like = accuracies(found), found[0]
    arm = PAPER if like.arm != PAPER and _has_paper(like, root) else like.arm
    if arm != like.arm and (mine := own.get((like.profile, like.experiment, arm))):
        theirs = accuracies(mine)
    else:
        places = (paths.run_folder(like.profile, like.experiment, arm, seed) for seed in ends)
        theirs = accuracies(present for present in map(record.read, places) if present is not None)
    return arm, {seed: end for seed, end in theirs.items() if seed in ends}


def _has_paper(like: RunRecord, root: Path) -> bool:
    try:
        return PAPER in params.load(like.experiment, like.profile, root=root).arms
    except ValueError:
        return False


def _verdict(mine: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """Whether an arm is better than another of the same seeds; a dash where they have none in common."""
    apart = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    if len(apart) == 1:
        return "one seed decides nothing"
    return versus.verdict(stats.t_interval(apart)) if apart else tables.MISSING


def compare(first: Try, second: Try) -> str:
    """Two tries side by side, arm by arm: the parameters that differ, and where accuracy begins and ends.

    An arm is compared with that of its name; two tries of one arm each with one another. Raises ValueError if they
    have no arm in common.
    """
    if first.folder == second.folder:
        raise ValueError(f"{first.name}: compared with itself nothing differs; name two tries")
    mine, theirs = groups(first), groups(second)
    pairs = [(group, group) for group in mine if group in theirs]
    if not pairs and len(mine) == len(theirs) == 1:
        pairs = [(next(iter(mine)), next(iter(theirs)))]
    if not pairs:
        has = (f"{each.name} has {_listed(found)}" for each, found in ((first, mine), (second, theirs)))
        raise ValueError(f"{first.name} and {second.name} have no arm in common: {'; '.join(has)}")
    return "\n\n".join(_side_by_side(first, mine[one], second, theirs[other]) for one, other in pairs)


def _side_by_side(first: Try, mine: Sequence[RunRecord], second: Try, theirs: Sequence[RunRecord]) -> str:
    arms = dict.fromkeys("/".join(_group(found[0])) for found in (mine, theirs))
    one, other = ({**_parameters(found[0].params), **_parents(found[0])} for found in (mine, theirs))
    apart = [key for key in dict.fromkeys([*one, *other]) if one.get(key, mine) != other.get(key, mine)]
    rows = [
        {
            "parameter": key,
            first.name: _short(one[key]) if key in one else tables.MISSING,
            second.name: _short(other[key]) if key in other else tables.MISSING,
        }
        for key in apart
    ]
    differ = tables.show(pd.DataFrame(rows)) if rows else "No parameter differs."
    ends = [_ends(start, first.name, mine, second.name, theirs) for start in (True, False)]
    texts = [_line_by_line(key, first.name, one.get(key), second.name, other.get(key)) for key in apart]
    return "\n\n".join([" and ".join(arms), differ, *filter(None, texts), tables.show(pd.DataFrame(ends))])


def _line_by_line(key: str, first: str, one: Any, second: str, other: Any) -> str:
    """The lines in which two texts differ, such as those of an objective from a cell; empty for other values."""
    if not all(isinstance(text, str) and "\n" in text for text in (one, other)):
        return ""
    lines = difflib.unified_diff(one.splitlines(), other.splitlines(), f"{key} of {first}", f"{key} of {second}", n=1)
    return "\n".join(line.rstrip("\n") for line in lines)


def _ends(
    start: bool, first: str, mine: Sequence[RunRecord], second: str, theirs: Sequence[RunRecord]
) -> dict[str, str]:
    one, other = accuracies(mine, start), accuracies(theirs, start)
    paired = [other[seed] - one[seed] for seed in one if seed in other]
    return {
        "accuracy": "at the start" if start else "at the end",
        f"{first} (seeds: {len(one)})": _mean(one.values()),
        f"{second} (seeds: {len(other)})": _mean(other.values()),
        f"{second} − {first} (seeds: {len(paired)})": _mean(paired),
    }


def _mean(values: Iterable[float]) -> str:
    found = [value for value in values if not math.isnan(value)]
    return tables.interval(found) if found else tables.MISSING


def _group(present: RunRecord) -> Group:
    return present.profile, present.experiment, present.arm


def _listed(found: Iterable[Group]) -> str:
    return ", ".join("/".join(group) for group in found) or "no run"


def _parameters(content: Mapping[str, Any]) -> dict[str, Any]:
    flat = parameters.flatten(content)
    return {key: value for key, value in flat.items() if not key.startswith(parameters.NOT_DETERMINING)}


def _parents(present: RunRecord) -> dict[str, str]:
    return {f"parent {role}": identity for role, identity in present.parents.items()}


def _short(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        digest = hashlib.blake2b(value.encode(), digest_size=3).hexdigest()
        return f"{len(value.splitlines())} lines ({digest})"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def _measured(folder: Path) -> tuple[int, float]:
    """Bytes of a folder, and when something in it but its name was last written (seconds of the epoch)."""
    found = {path: path.lstat() for path in folder.rglob("*") if not path.is_dir()}
    written = [each.st_mtime for path, each in found.items() if path != folder / NAME]
    return sum(each.st_size for each in found.values()), max(written, default=folder.stat().st_mtime)


def _age(seconds: float) -> str:
    return progress.duration(max(0.0, seconds)) if seconds < 2 * DAY else f"{seconds / DAY:.0f} days"
