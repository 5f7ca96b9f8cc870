"""A full disk or a folder that cannot be written, at the very start: one line, and nothing half done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import micro
import pytest

from opd_lib import paths
from opd_lib.batch import workflow
from opd_lib.records.writer import RunWriter
from opd_lib.run import processes, room, track

FULL = 'ulimit -f 0; exec "$@"'
"""Whatever is written to a file fails, as on a full disk."""
COMMANDS = {
    "run": ("run", micro.MODELS, "student", "0"),
    "execute": ("execute", micro.MODELS),
    "reproduce": ("reproduce", "--plan-only"),
    "track": ("track", "--only", micro.MODELS),
}


def said(world: Path, name: str, *before: str) -> list[str]:
    """What a command says on standard error, which ends with exit code 1."""
    if name == "track":
        pytest.importorskip("trackio")
    words = [*before, sys.executable, "-m", "opd_lib.command.cli", *COMMANDS[name]]
    words += ["--params", str(world / "params"), "--results", str(world / "results")]
    words += [] if name == "run" else ["--notebooks", str(world / "notebooks")]
    done = subprocess.run(words, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()


@pytest.mark.process
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_at_the_very_start_is_one_line(world: Path, name: str) -> None:
    micro.write_notebook(world, micro.MODELS)
    (line,) = said(world, name, "bash", "-c", FULL, "bash")
    assert line.startswith(f"error: {world / 'results'}")
    assert "cannot be written ([Errno 27] File too large" in line and "make room, or choose another results" in line
    assert not [path for path in (world / "results").rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.process
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_written_is_one_line(world: Path, name: str) -> None:
    micro.write_notebook(world, micro.MODELS)
    (world / "results").write_text("a file in the way")
    (line,) = said(world, name)
    assert line.startswith("error: ") and f"{world / 'results'}" in line and "cannot be written" in line
    assert (world / "results").read_text() == "a file in the way"


def test_every_door_to_a_folder_tries_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    spec = micro.load(world).spec("student", 0)
    monkeypatch.setattr("opd_lib.records.writer.write_json", full)
    micro.write_record(spec)
    present = processes.complete((spec,), jobs=1).records[0]
    with pytest.raises(
        ValueError, match=r"seed0: cannot be written \(\[Errno 28\] No space left on device\); make room"
    ):
        RunWriter(present).__enter__()
    with pytest.raises(ValueError, match=r"cannot be written \(\[Errno 28\]"), room.writing(world / "new"):
        full(world, None)
    assert (world / "new").is_dir()
    monkeypatch.setattr(room, "TemporaryFile", lambda dir: full(dir, None))
    for enter in (
        lambda: processes.start(spec),
        lambda: workflow.alone(world / "results").__enter__(),
        lambda: track.following(micro.load(world), "trackio").__enter__(),
    ):
        monkeypatch.setattr(track, "find_spec", lambda name: name)
        with pytest.raises(ValueError, match="No space left on device"):
            enter()
