"""All entrants at all sizes, in turns: round after round every entrant does its steps, each in a fresh process.

So a machine that is slower for a while is slower for everybody. What is measured is added to one table row by row; a
benchmark that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Condition, Lock
from typing import Any

import psutil

from opd_lib.bench import child, speed
from opd_lib.bench.entrants import ENTRANTS, WHOLE
from opd_lib.bench.workload import Size
from opd_lib.records import reading

COLUMNS = (
    "entrant", "objective", "extra", "vocabulary", "tokens", "sequences", "hidden", "round",
    "produced", "cpu_s", "wall_s", "peak_mib", "step_mib", "loss", "norm",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One size, who takes part, and how often: `rounds` processes each, with `steps` measured steps after `warm`."""

    size: Size
    entrants: tuple[str, ...]
    rounds: int
    steps: int
    warm: int = 0


def of(vocabulary: int, sequences: int, response: int) -> Size:
    """Models whose head is nearly all of the work, as it is for small models with large vocabularies."""
    return Size(vocabulary=vocabulary, sequences=sequences, prompt=32, response=response)


TINY = Size(vocabulary=128, sequences=64, prompt=20, response=64, layers=2, student=48, teacher=80)
"""The tiny world's models and batch."""
WIDER = replace(TINY, sequences=256)
"""Four times the batch: here those take part who compile."""
COMPILED = ("naive, compiled", "ours, with compiled rollout")
WHOLE_STEPS = tuple(name for name, entrant in ENTRANTS.items() if entrant.objective == WHOLE and name not in COMPILED)
UPDATES = tuple(name for name in ENTRANTS if name not in (*WHOLE_STEPS, *COMPILED))
TWICE_ALL_LOGITS = ("TRL GKDTrainer", "TRL GOLDTrainer")
"""At V = 151,936 and 4,096 response tokens they need 26 GB."""
AT_4K = tuple(name for name in UPDATES if name not in TWICE_ALL_LOGITS)
IN_CHUNKS = tuple(name for name in AT_4K if not name.startswith("naive"))
GROWING = (*IN_CHUNKS, "naive")
AT_16K = tuple(name for name in IN_CHUNKS if not name.startswith("TRL"))
"""TRL's stable trainer needs 11 bytes per token and entry of the vocabulary: 27 GB."""
GATE = 1e-5
"""How far losses and gradient norms of one objective may differ, relatively."""
STAGES = (
    Stage(size=TINY, entrants=WHOLE_STEPS, rounds=5, steps=4, warm=1),
    Stage(size=of(151_936, 4, 1024), entrants=AT_4K, rounds=5, steps=1),
    Stage(size=TINY, entrants=UPDATES, rounds=5, steps=4, warm=1),
    Stage(size=of(32_768, 1, 512), entrants=UPDATES, rounds=5, steps=4, warm=1),
    Stage(size=of(32_768, 4, 512), entrants=GROWING, rounds=1, steps=3),
    Stage(size=of(32_768, 16, 512), entrants=GROWING, rounds=1, steps=3),
    Stage(size=of(8_192, 4, 512), entrants=GROWING, rounds=1, steps=3),
    Stage(size=of(8_192, 16, 512), entrants=GROWING, rounds=1, steps=3),
    Stage(size=of(151_936, 2, 512), entrants=UPDATES, rounds=1, steps=2),
    Stage(size=of(151_936, 16, 1024), entrants=AT_16K, rounds=5, steps=1),
    Stage(size=WIDER, entrants=(*WHOLE_STEPS, "ours", "naive", *COMPILED), rounds=5, steps=4, warm=2),
)


def carry_out(stages: Sequence[Stage], path: Path, jobs: int = 1) -> None:
    """Measure what the table at `path` has not, `jobs` processes at a time as far as they fit into memory.

    Raises ValueError, when all others are done, for the first process that failed, or did other work than the others of
    its objective: what it took does not enter the table.
    """
    done = {(row["entrant"], row["vocabulary"], row["tokens"], row["round"]) for row in read(path)}
    memory, lock = Budget(0.9 * psutil.virtual_memory().total), Lock()

    def one(task: tuple[Stage, int, str]) -> None:
        with memory.taken(ENTRANTS[task[2]].needs(task[0].size)):
            rows = measured(*task)
        with lock:
            require_same_work(rows, read(path))
            child.append(path, rows, COLUMNS)
            size, last = task[0].size, rows[-1]
            seconds, mib = last["cpu_s"], last["step_mib"]
            print(
                f"{task[2]:28s} V {size.vocabulary:7d}  T {size.tokens:6d}  {seconds:8.2f} s  {mib:8.0f} MiB",
                flush=True,
            )

    with ThreadPoolExecutor(jobs) as pool:
        for found in [pool.submit(one, task) for task in turns(stages) if key(*task) not in done]:
            found.result()


def require_same_work(rows: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, str]]) -> None:
    """Raise ValueError if the first step found another loss or gradient norm than was known of its objective and size.

    Whole steps, in which everybody samples responses of their own, are not compared.
    """
    mine = rows[0]
    keys = ("objective", "vocabulary", "tokens", "round")
    alike = (row for row in known if all(row[key] == str(mine[key]) for key in keys))
    theirs = next(alike, None)
    if theirs is None or mine["objective"] == WHOLE:
        return
    for name in ("loss", "norm"):
        expected, found = float(theirs[name]), float(mine[name])
        if not abs(found / expected - 1) <= GATE:
            raise ValueError(
                f"{mine['entrant']}, V {mine['vocabulary']}, T {mine['tokens']}: {name} {found:.7g}, but "
                f"{theirs['entrant']} found {expected:.7g}: they did not do the same work, so times say nothing"
            )


class Budget:
    """Bytes that several threads share. Who wants more than there are gets all of them."""

    def __init__(self, size: float) -> None:
        self.size = self.free = size
        self.changed = Condition()

    @contextmanager
    def taken(self, wanted: float) -> Iterator[None]:
        """Wait until so much is free, and hold it."""
        share = min(wanted, self.size)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= share)
            self.free -= share
        try:
            yield
        finally:
            with self.changed:
                self.free += share
                self.changed.notify_all()


def turns(stages: Sequence[Stage]) -> Iterator[tuple[Stage, int, str]]:
    """Who does what, in order."""
    for stage in stages:
        for number in range(stage.rounds):
            yield from ((stage, number, name) for name in stage.entrants)


def key(stage: Stage, number: int, name: str) -> tuple[str, str, str, str]:
    """What tells a process's rows from others."""
    return name, str(stage.size.vocabulary), str(stage.size.tokens), str(number)


def measured(stage: Stage, number: int, name: str) -> list[dict[str, Any]]:
    """The rows of one process."""
    request = {"entrant": name, "size": asdict(stage.size), "warm": stage.warm, "steps": stage.steps}
    found, complaint = child.run("opd_lib.bench.worker", request, {"OMP_NUM_THREADS": "1"})
    if complaint:
        raise ValueError(f"{name} at {stage.size}: {complaint}")
    size = stage.size
    facts = {
        "entrant": name,
        "objective": ENTRANTS[name].objective,
        "extra": ENTRANTS[name].extra,
        "vocabulary": size.vocabulary,
        "tokens": size.tokens,
        "sequences": size.sequences,
        "hidden": f"{size.student}, {size.teacher}",
        "round": number,
    }
    return [facts | row for row in found]


def read(path: Path) -> list[dict[str, str]]:
    """The rows there are. Raises ValueError for a table that is damaged, or of other columns."""
    if not path.exists():
        return []
    found = reading.frame(path, COLUMNS, speed.AGAIN, dtype=str, keep_default_na=False)
    reading.numbers(path, found, ["loss", "norm"], speed.AGAIN)
    return [{str(name): str(value) for name, value in row.items()} for row in found.to_dict("records")]
