"""The processes of one run on this machine: started together, ended together, and nobody else can speak to them.

torchrun does as much and more, but its store listens on every address of the machine and unpickles what it is given.
Here the processes meet in a file of a folder that only this user can enter.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from opd_lib.run import guard

POLL = 0.1
PATIENCE = 30.0
"""Seconds in which the others end, and the one that writes the record says in it why, after one has failed."""


def carry_out(command: Sequence[str], processes: int) -> int:
    """Run a command in so many processes, each with a file to meet in as its last word; the exit code.

    As soon as one fails it is named on standard error, the others are ended, and the exit code is 1. Interrupted or
    terminated, this one ends all; killed, it takes them along.
    """
    with tempfile.TemporaryDirectory(prefix="opd-", ignore_cleanup_errors=True) as folder:
        words = [*command, str(Path(folder) / "meeting")]
        members: list[subprocess.Popen[bytes]] = []
        try:
            with guard.termination_as_interrupt():
                for rank in range(processes):
                    members.append(subprocess.Popen(words, env=environment(rank, processes), stdin=subprocess.DEVNULL))
                return _wait(members)
        finally:
            guard.end(_family(members), patience=PATIENCE)
            for member in members:
                member.wait()


def environment(rank: int, processes: int) -> dict[str, str]:
    """The environment of one process: what launchers of torch say in theirs, but for an address."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    return {"OMP_NUM_THREADS": "1", **os.environ} | {name: str(value) for name, value in place.items()}


def _wait(members: Sequence[subprocess.Popen[bytes]]) -> int:
    while True:
        codes = [member.poll() for member in members]
        failed = [(rank, code) for rank, code in enumerate(codes) if code]
        if failed:
            ends = (f"process {rank}: {_end(code)}" for rank, code in failed)
            print(f"{'; '.join(ends)}; the others are ended", file=sys.stderr, flush=True)
            return 1
        if None not in codes:
            return 0
        time.sleep(POLL)


def _end(code: int) -> str:
    return f"Signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"


def _family(members: Sequence[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    """Those that have not ended, and what they have started."""
    there = [member.pid for member in members if member.poll() is None]
    return [process for pid in there for process in (psutil.Process(pid), *guard.descendants(pid))]
