"""Every method with its teacher behind a server, in several processes, with sharded weights: the run of one process, or
one line that says why not. With vLLM, which needs an environment of its own: tests/with_vllm/test_methods_vllm."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import micro
import pandas as pd
import pytest
import seams
import seams_worker
import torch
from fake_server import Fake, serving
from seams import ARMS, MACHINES, SERVED

from opd_lib import paths
from opd_lib.engine import train
from opd_lib.engine.model import models
from opd_lib.records import record
from opd_lib.run import ranks

PAGE = paths.ROOT / "docs" / "gpus.md"
HEADS = {
    "served": "teacher at `teacher_url`",
    "vllm": "`sampler: vllm`",
    "processes": "several processes",
    "sharded": "`shard: true`",
}
TITLES = {"opsd": "`opsd`, the live student teaches", "opsd-ema": "`opsd`, a copy follows the student"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with its models trained."""
    return seams.made(tmp_path_factory.mktemp("machines"))


# --- what works, and what is refused ---------------------------------------------------------------------------------


def cell(world: Path, arm: str, way: str) -> str:
    """What the page says of a method and a way to run."""
    if not seams.refusal(world, arm, MACHINES[way]):
        return "yes"
    if way != "served" or arm not in SERVED:
        return "no"
    assert not seams.refusal(world, arm, MACHINES[way] | SERVED[arm]), arm
    return "with " + ", ".join(shown(key, value) for key, value in SERVED[arm].items())


def shown(key: str, value: Any) -> str:
    name = key.removeprefix("method.")
    return f"`{name}: {{}}`" if value == {} else f"`{name}: {'run:…' if value == seams.A else value}`"


def test_the_page_says_what_works_with_which_method(made: Path) -> None:
    rows = [[TITLES.get(arm, f"`{arm}`"), *(cell(made, arm, way) for way in MACHINES)] for arm in ARMS]
    lines = [["method", *(HEADS[way] for way in MACHINES)], ["---"] * (len(MACHINES) + 1), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    assert table in PAGE.read_text(), f"{PAGE}: the table of methods must be\n\n{table}\n"


REFUSED = {
    ("vopd", "served"): r"method\.baseline: full: .*use baseline: none, or machine\.teacher_url: null",
    ("blind", "served"): r"method\.loss: advantage: .*use loss: sampled, or machine\.teacher_url: null",
    ("prune", "served"): r"method\.support: student: .*use support: teacher.*",
    ("opsd", "served"): r"teacher: self, but machine\.teacher_url .*; use teacher_url: null",
    ("opsd-ema", "served"): r"method\.support: student: .*use support: teacher.*",
    ("opsdc", "served"): r"method\.support: student: .*use support: teacher.*",
    ("stable", "served"): r"teacher: several by name, but machine\.teacher_url .*; use teacher_url: null",
    ("eff_opd", "served"): r"method\.support: student: .*use support: teacher.*",
    ("uni_opd", "served"): r"teacher: several by name, but machine\.teacher_url .*; use teacher_url: null",
    ("brts", "served"): r"method\.name: brts: in its part teacher the teacher writes.*use machine\.teacher_url: null",
    ("simct", "served"): r"machine\.teacher_url: a server, but method simct aligns .*; use teacher_url: null",
}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("way", MACHINES)
def test_what_is_refused_is_one_line_with_key_value_and_remedy(made: Path, arm: str, way: str) -> None:
    said = seams.refusal(made, arm, MACHINES[way])
    assert bool(said) == ((arm, way) in REFUSED), said
    if said:
        assert re.fullmatch(rf"overrides, arm {arm}-asked of {micro.OPD}: {REFUSED[arm, way]}", said), said


def test_a_teacher_that_follows_cannot_be_served_whatever_it_feeds(made: Path) -> None:
    said = seams.refusal(made, "opsd-ema", MACHINES["served"] | {"method.support": "teacher"})
    assert "method.decay: 0.9: the weights of a served teacher stay as they are; use decay: 1.0, or" in said
    without = {"method.support": "teacher", "method.coef": 0.0}
    assert not seams.refusal(made, "brts", MACHINES["served"] | without), "without its second part it is opd"


# --- a served teacher ------------------------------------------------------------------------------------------------

UNKNOWN = ("teacher_entropy", "entropy_gap", "entropy_gap_of_means", "reverse_kl", "delta_p")
"""Metrics that a served teacher cannot feed."""


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm in SERVED or (arm, "served") not in REFUSED])
def test_a_served_teacher_teaches_what_one_in_process_does(made: Path, tmp_path: Path, arm: str) -> None:
    """Rows of steps within 1e-4 of their size, over a whole run with checkpoints."""
    asked = seams.changed(arm, SERVED.get(arm, {}))
    own = train.train(seams.spec_of(made, tmp_path, f"{arm}-here", **asked))
    folder = str(micro.load(made).spec("teacher", 0).model_folder)
    with serving(Fake(models.load(folder), name=folder, root=folder)) as fake:
        there = asked | {"machine.teacher_url": fake.url}
        found = train.train(seams.spec_of(made, tmp_path, f"{arm}-there", **there))
    assert found.status == "finished" and found.identity == own.identity
    mine, other = own.frame("steps"), found.frame("steps")
    assert list(mine) == list(other) and len(other) == 6
    known = [name for name in mine if re.sub(r"_k\d+$", "", name) not in UNKNOWN]
    pd.testing.assert_frame_equal(mine[known], other[known], rtol=1e-4, atol=1e-5)
    answer, end = models.chain_tokenizer().convert_tokens_to_ids(["<ans>", "<a>"])
    told = [all(answer in row[: row.index(end)] for row in asked["prompt"]) for asked in fake.requests]
    assert sum(told) >= 6 if arm in ("opsd", "opsdc") else not any(told), (
        "in every step the server is asked behind the hint"
    )


def test_lists_that_only_the_methods_view_reads_are_long_enough_for_the_gates(made: Path, tmp_path: Path) -> None:
    folder = str(micro.load(made).spec("teacher", 0).model_folder)
    longer = {"method.estimator": "sampled", "method.k": 0, "method.overlap_k": 19}
    with serving(Fake(models.load(folder), name=folder, root=folder)) as fake:
        there = seams.changed("prune", longer) | {"machine.teacher_url": fake.url}
        assert train.train(seams.spec_of(made, tmp_path, "prune-there", **there)).status == "finished"


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(made: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(method, way) → the gradient and the row of a first step in two processes."""
    words = [sys.executable, str(Path(__file__).with_name("seams_worker.py")), str(made)]
    assert ranks.carry_out(words, 2) == 0
    return torch.load(made / "together.pt")


@pytest.mark.process
@pytest.mark.parametrize("way", ["processes", "sharded"])
def test_two_processes_have_the_gradient_of_one_for_every_method(made: Path, together: Any, way: str) -> None:
    """‖difference‖ below 1e-5 of ‖gradient‖ for each weight."""
    tried = [arm for arm, other in together if other == way]
    assert tried == [arm for arm in ARMS if (arm, way) not in REFUSED]
    for arm in tried:
        both, alone = together[arm, way], seams_worker.first(made, arm, {})
        for name, expected in alone["gradients"].items():
            assert float((both["gradients"][name] - expected).norm() / expected.norm()) < 1e-5, (arm, name)
        assert both["row"] == pytest.approx(alone["row"], rel=1e-4, abs=1e-6, nan_ok=True), arm


@pytest.mark.process
@pytest.mark.parametrize("arm", seams_worker.BETWEEN)
def test_what_a_method_does_between_steps_is_the_same_on_shares_of_the_weights(
    made: Path, together: Any, tmp_path: Path, arm: str
) -> None:
    """Two processes, stopped and resumed on the way, leave the rows and the weights of one."""
    shared = record.read(made / "sharded" / arm)
    alone = train.train(seams.spec_of(made, tmp_path, arm))
    assert shared is not None and shared.status == "finished" and shared.identity == alone.identity
    mine, other = (found.frame("steps") for found in (alone, shared))
    pd.testing.assert_frame_equal(
        mine.drop(columns="sampler_gap"), other[mine.columns.drop("sampler_gap")], rtol=1e-3, atol=1e-4
    )
    (one, _), (two, _) = (models.load(str(found.folder / "model")) for found in (alone, shared))
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
