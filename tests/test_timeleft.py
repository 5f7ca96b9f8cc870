"""How long a batch still takes: laid out by hand, and said while simulated machines work through the committed one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from opd_lib import paths
from opd_lib.records.record import write_json
from opd_lib.run import meter, plan, timeleft
from opd_lib.run.meter import DONE, RUNNING, WAITING
from opd_lib.run.status import pace

SHARES = (0.2, 0.5, 0.8)
WITHIN = 0.25


def piece(name: str, seconds: float, *needs: str, running: bool = False, cores: int = 1) -> timeleft.Piece:
    return timeleft.Piece(name=name, seconds=seconds, needs=needs, running=running, cores=cores)


def test_pieces_are_laid_out_on_the_cores_behind_what_they_need() -> None:
    chain = [piece("a", 10), piece("b", 5, "a"), piece("c", 4), piece("d", 3)]
    assert timeleft.urgency(chain) == {"a": 15, "b": 5, "c": 4, "d": 3}
    assert timeleft.makespan(chain, 1) == 22 and timeleft.makespan(chain, 2) == 15
    assert timeleft.makespan([piece("a", 2, running=True), *chain[1:]], 2) == 7
    assert timeleft.makespan([piece("wide", 6, cores=8), piece("one", 1)], 2) == 7
    assert timeleft.makespan([], 2) == 0


def test_what_the_finished_part_took_outweighs_what_was_known_before() -> None:
    assert timeleft.stretch(0, 0, before=2.5) == 2.5
    assert timeleft.stretch(90, 30, before=1) == pytest.approx(2)
    assert timeleft.stretch(3000, 1000, before=1) == pytest.approx(3, rel=0.03)


@dataclass
class Machine:
    """Two workers of these speeds (seconds of a batch's records per second) that share a simulated clock."""

    speeds: tuple[float, ...]
    seconds: dict[str, float]
    needs: dict[str, tuple[str, ...]]
    now: float = 0.0
    states: dict[str, str] = field(default_factory=dict)
    _going: dict[int, tuple[str, float]] = field(default_factory=dict)  # worker → run, and when it has begun

    def end(self, worker: int) -> float:
        name, begun = self._going[worker]
        return begun + self.seconds[name] / self.speeds[worker]

    def advance(self) -> None:
        """Start what can be started, then go on to the next end of a run."""
        for worker in range(len(self.speeds)):
            free = (n for n, state in self.states.items() if state == WAITING)
            ready = [name for name in free if all(self.states[need] == DONE for need in self.needs[name])]
            if worker not in self._going and ready:
                urgent = max(ready, key=lambda name: self.seconds[name])
                self.states[urgent], self._going[worker] = RUNNING, (urgent, self.now)

    def finish_next(self) -> None:
        worker = min(self._going, key=self.end)
        self.now = self.end(worker)
        self.states[self._going.pop(worker)[0]] = DONE

    def shares(self, when: float) -> dict[str, float]:
        """How much of each run that goes on is done at a time."""
        return {name: (when - begun) * self.speeds[w] / self.seconds[name] for w, (name, begun) in self._going.items()}

    def next_end(self) -> float:
        return min(map(self.end, self._going))

    def run(self, moments: Sequence[float] = ()) -> Iterator[float]:
        """Work to the end; stops at each of these moments, and whenever a run has begun or ended, which it yields."""
        self.states = dict.fromkeys(self.seconds, WAITING)
        left = list(moments)
        while any(state != DONE for state in self.states.values()):
            self.advance()
            yield self.now
            while left and left[0] <= self.next_end():
                self.now = left.pop(0)
                yield self.now
            self.finish_next()
            yield self.now


@cache
def batch() -> dict[str, tuple[float, int, tuple[str, ...]]]:
    """name → (seconds by its committed record, steps, what it needs) of every run of one seed."""
    chosen = plan.experiments(plan.notebooks("tiny"), "tiny", paths.LOCAL, (0,))
    specs = plan.with_parents(plan.all_runs(chosen))
    seconds = pace(specs)
    return {s.name: (seconds[s.name], plan.steps(s), tuple(p.name for p in s.parents.values())) for s in specs}


def write_progress(folder: Path, share: float, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ".progress.json", {"step": int(share * steps), "steps": steps, "seconds": {}})


MACHINES = {"as recorded": (1.0, 1.0), "half": (0.5, 0.5), "one core busy": (1.0, 0.5), "a third": (1 / 3, 1 / 3)}


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("speeds", MACHINES.values(), ids=MACHINES)
def test_the_time_left_of_the_committed_batch_is_right_within_a_quarter(
    tmp_path: Path, speeds: tuple[float, float], noise: float
) -> None:
    """From a fifth of the way on, whatever this machine makes of the seconds of the records, and with noise on them."""
    chance, known = random.Random(0), batch()
    assert len(known) == 73
    seconds = {name: found[0] * (1 + noise * chance.uniform(-1, 1)) for name, found in known.items()}
    needs = {name: found[2] for name, found in known.items()}
    total = list(Machine(speeds, seconds, needs).run())[-1]
    machine, moments, said = Machine(speeds, seconds, needs), [share * total for share in SHARES], {}
    tasks = [
        meter.Task(name=name, steps=steps, folder=tmp_path / name, expected=expected, needs=parents)
        for name, (expected, steps, parents) in known.items()
    ]
    gauge = meter.Meter(tasks=tasks, jobs=2, clock=lambda: machine.now)
    for now in machine.run(moments):
        for name, share in machine.shares(now).items():
            write_progress(tmp_path / name, share, known[name][1])
        whole = gauge.whole(gauge.lines(machine.states))
        said[now] = whole.remaining
        assert (whole.runs, whole.runs_done) == (73, sum(state == DONE for state in machine.states.values()))
    for moment in moments:
        left = said[moment]
        assert left is not None
        assert left == pytest.approx(total - moment, rel=WITHIN), f"{moment / total:.0%}: {left:.0f} s"
    assert said[total] == 0


def test_without_learning_a_slow_machine_would_be_far_off() -> None:
    """The quarter above is not what any estimate reaches: the records alone say a third of what is left."""
    seconds = {name: found[0] for name, found in batch().items()}
    needs = {name: found[2] for name, found in batch().items()}
    total = list(Machine(MACHINES["a third"], seconds, needs).run())[-1]
    assert timeleft.makespan([piece(n, s, *needs[n]) for n, s in seconds.items()], 2) < 0.4 * total


def test_a_run_that_goes_on_counts_by_the_share_of_its_steps(tmp_path: Path) -> None:
    clock = [0.0]
    tasks = [meter.Task(name=name, steps=100, folder=tmp_path / name, expected=1000.0) for name in ("a", "b")]
    gauge = meter.Meter(tasks=tasks, jobs=1, clock=lambda: clock[0])
    states = {"a": RUNNING, "b": WAITING}
    assert gauge.whole(gauge.lines(states)).remaining == pytest.approx(2 * (1000 + timeleft.RUN_START))
    clock[0] = 1000.0
    write_progress(tmp_path / "a", 0.5, 100)  # twice as slow as expected
    assert gauge.whole(gauge.lines(states)).remaining == pytest.approx(3000, rel=0.05)
    states = {"a": DONE, "b": WAITING}
    clock[0] = 2000.0
    lines = gauge.lines(states)
    assert lines[0].took == 2000 and gauge.whole(lines).remaining == pytest.approx(2000, rel=0.05)


def test_a_resumed_run_is_measured_from_where_it_goes_on(tmp_path: Path) -> None:
    clock = [0.0]
    gauge = meter.Meter(
        tasks=[meter.Task(name="a", steps=100, folder=tmp_path, expected=999.0)], jobs=1, clock=lambda: clock[0]
    )
    write_progress(tmp_path, 0.83, 100)  # as the interrupted process left it
    gauge.lines({"a": RUNNING})
    clock[0] = 50.0
    write_progress(tmp_path, 0.80, 100)  # back at its checkpoint
    assert gauge.lines({"a": RUNNING})[0].remaining == pytest.approx(200)
    clock[0] = 250.0
    write_progress(tmp_path, 0.90, 100)  # 10 steps took 200 seconds
    assert gauge.lines({"a": RUNNING})[0].remaining == pytest.approx(200, rel=0.25)


def test_notebooks_learn_from_notebooks_and_runs_that_are_new_from_steps(tmp_path: Path) -> None:
    clock = [0.0]
    tasks = [meter.Task(name=f"{number}.ipynb") for number in range(11)]
    gauge = meter.Meter(tasks=tasks, jobs=1, clock=lambda: clock[0])
    states = {task.name: WAITING for task in tasks}
    for task in tasks[:10]:
        states[task.name] = RUNNING
        gauge.lines(states)
        clock[0] += 40.0
        states[task.name] = DONE
        gauge.lines(states)
    assert gauge.whole(gauge.lines(states)).remaining == pytest.approx(40, rel=0.25)
    runs = [meter.Task(name=name, steps=10, folder=tmp_path / name) for name in "ab"]
    gauge, states = meter.Meter(tasks=runs, jobs=1, clock=lambda: clock[0]), {"a": RUNNING, "b": WAITING}
    assert gauge.whole(gauge.lines(states)).remaining is None
    clock[0] += 30.0
    write_progress(tmp_path / "a", 0.5, 10)
    assert gauge.whole(gauge.lines(states)).remaining is None, "the start of a process is no pace"
    clock[0] += 12.0
    write_progress(tmp_path / "a", 0.8, 10)
    assert gauge.whole(gauge.lines(states)).remaining == pytest.approx(2 * 4 + 10 * 4, rel=0.25)


def test_finished_runs_here_say_how_slow_this_machine_is_before_anything_begins(tmp_path: Path) -> None:
    tasks = [meter.Task(name="a", steps=10, folder=tmp_path, expected=100.0)]
    gauge = meter.Meter(tasks=tasks, jobs=1, before=5, slowness=3.0)
    whole = gauge.whole(gauge.lines({"a": WAITING}))
    assert whole.remaining == pytest.approx(3 * (100 + timeleft.RUN_START)) and whole.counts == "5 of 6 runs"
