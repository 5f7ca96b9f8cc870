"""Runs shared by several processes: the gradient and the records of one, whatever is sharded; and one fate."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import conftest
import distribution_worker as worker
import micro
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from opd_lib.engine import __main__ as entry
from opd_lib.engine import batches, checkpoint, train
from opd_lib.engine.model import distributed, models, sharding
from opd_lib.engine.model.distributed import ALONE
from opd_lib.engine.running import ActiveRun
from opd_lib.maths.head import Head
from opd_lib.maths.streaming import Stream
from opd_lib.params.schema import Machine, NewModel
from opd_lib.records import record
from opd_lib.types import Reads

HERE = Path(__file__).parent
SHAPE = NewModel(layers=2, hidden=24, heads=2, context=128, rope_theta=100.0, initializer_range=0.1)
TABLES = ("steps.csv", "depth.csv", "evals.csv", "problems.csv", "caps.csv")


def machine(**changes: object) -> Machine:
    values = {"processes": 1, "shard": False, "device": "cpu", "precision": "float32", "keep_checkpoints": 1}
    rest = {"sampler": "transformers", "sampler_cache_gib": 1.0, "max_sampler_gap": 1e-3, "memory_gib": 1.0}
    rest |= {"diagnose_every": 1, "kept_problems": 1, "logits_gib": 0.5}
    return Machine.model_validate(values | rest | {"teacher_url": None, "hours": 1.0} | changes)


def likelihood_of_5(head: Head) -> Tensor:
    """log p of token 5, summed."""
    assert head.logits(slice(None)).dtype == torch.bfloat16
    token_N = torch.full((len(head.hidden_NH),), 5)
    stream = Stream(
        student=head, teacher=None, token_N=token_N, row_N=token_N, position_N=token_N, advantage_N=None,
        k=0, reads=Reads(), measured=True, chunk=None,
    )  # fmt: skip
    return stream.loss(lambda scores: scores.student_logp_N, 1.0)[0]


def moved(model: Qwen3ForCausalLM, dtype: torch.dtype) -> float:
    """The share of weights with a gradient that ten steps of lr 1e-6 change: bfloat16 passes, weights of `dtype`."""
    model.to(dtype)
    sharding.place(model, machine(precision="bfloat16"), ALONE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0)
    before = torch.cat([p.detach().flatten() for p in model.parameters()]).clone()
    token_BL = torch.arange(24).view(2, 12)
    forward = getattr(model, "with_head", lambda *arguments: models.with_head(model, *arguments))
    for _ in range(10):
        forward(token_BL, torch.ones_like(token_BL, dtype=torch.bool), likelihood_of_5).backward()
        pulled = torch.cat([p.grad.flatten() for p in model.parameters()]) != 0
        optimizer.step()
        optimizer.zero_grad()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    return float((after != before)[pulled].float().mean())


def test_bfloat16_weights_swallow_small_updates_and_float32_weights_under_bfloat16_passes_do_not() -> None:
    assert moved(models.new_model(SHAPE, 0), torch.bfloat16) < 0.05
    assert moved(models.new_model(SHAPE, 0), torch.float32) > 0.9


def test_a_frozen_model_stays_whole_if_it_takes_a_quarter_of_the_device() -> None:
    gib = 2**30
    assert sharding.fits_whole(10 * gib, torch.bfloat16, 80 * gib)
    assert not sharding.fits_whole(10 * gib + 1, torch.bfloat16, 80 * gib)
    assert not sharding.fits_whole(10 * gib, torch.float32, 80 * gib)
    assert sharding.fits_whole(10 * gib, torch.float32, None)  # a CPU


def test_what_was_started_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"processes: 2 asked for, 1 started.*ACCELERATE_USE_CPU=true.*--multi_gpu"):
        distributed.join(machine(processes=2))
    with pytest.raises(ValueError, match=r"machine\.shard: true with processes: 1"):
        distributed.join(machine(shard=True))
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=r"processes: 2 asked for, 4 started"):
        distributed.join(machine(processes=2))
    with pytest.raises(ValueError, match=r"a launcher .* store listens on every address.*`opd run`.*machine\.network"):
        distributed.join(machine(processes=4))
    with pytest.raises(
        ValueError, match=rf"machine\.network: moon0 is no interface.*choose from .*{distributed.loopback()}"
    ):
        distributed.connect_over(machine(processes=4), "moon0")


def test_the_entry_point_for_launchers_says_what_is_wrong_in_one_line(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [micro.OPD, "plain", "0", "--params", str(trained / "params"), "--results", str(trained / "entry")]
    assert entry.main([*words, "--overrides", '{"machine.processes": 2}']) == 1
    assert capsys.readouterr().err.startswith("error: machine.processes: 2 asked for, 1 started; use `opd run`")
    assert entry.main([micro.OPD, "plane", *words[2:]]) == 1
    assert "no arm 'plane'" in capsys.readouterr().err


def test_one_process_has_the_micro_batches_it_has() -> None:
    groups = [torch.tensor([0, 2]), torch.tensor([1])]
    assert batches.lock_step(groups) == [(groups[0], 1.0), (groups[1], 1.0)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with a student, a teacher that knows something, and a student whose head is its embedding."""
    world = conftest.make_world(tmp_path_factory.mktemp("world"))
    micro.teach(world)
    for arm in ("student", "teacher"):
        train.train(micro.load(world).spec(arm, 0))
    config = Qwen3Config.from_pretrained(micro.load(world).spec("student", 0).model_folder)
    config.tie_word_embeddings = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        models.save(Qwen3ForCausalLM(config), models.chain_tokenizer(), world / "tied")
    return world


START = "import sys; from opd_lib.run import ranks; sys.exit(ranks.carry_out(sys.argv[2:], int(sys.argv[1])))"


def started(
    processes: int, *words: str, program: tuple[str, ...] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The end of as many processes, started together."""
    path = f"{HERE}:{HERE.parent}:{os.environ.get('PYTHONPATH', '')}"
    launcher = program or ("-c", START, str(processes))
    task = () if program else (sys.executable, str(HERE / "distribution_worker.py"))
    return subprocess.run(
        [sys.executable, *launcher, *task, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        cwd=HERE.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment,
    )


@pytest.fixture(scope="module")
def together(trained: Path) -> Path:
    """The world after two processes have done everything that they should survive."""
    done = started(2, "everything", str(trained))
    assert done.returncode == 0, done.stderr[-4000:]
    return trained


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest ‖difference‖ / ‖expected‖ over the weights of the network."""
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected)


@pytest.mark.process
def test_the_gradient_of_two_processes_is_that_of_one_whatever_is_sharded(together: Path) -> None:
    found = torch.load(together / "gradients2.pt")
    assert set(found) == set(worker.VARIANTS)
    for variant, (changes, _, coarse) in worker.VARIANTS.items():
        kept = {key: changes[key] for key in changes if key in ("student", "arms.plain")}
        alone = worker.gradients(together, 1, kept)
        apart = distance(found[variant], alone)
        print(f"world 2, {variant}: {apart:.2g}")
        assert 1e-4 < apart < 0.1 if coarse else apart < 1e-6, variant


@pytest.mark.process
def test_the_gradient_of_four_processes_is_that_of_one(together: Path) -> None:
    done = started(4, "gradients", str(together))
    assert done.returncode == 0, done.stderr[-4000:]
    alone = worker.gradients(together, 1, {})
    for variant, found in torch.load(together / "gradients4.pt").items():
        apart = distance(found, alone)
        print(f"world 4, {variant}: {apart:.2g}")
        assert apart < 1e-6, variant


@pytest.mark.process
def test_two_processes_leave_the_records_of_one(together: Path) -> None:
    one = worker.spec_of(together, "one", 1, **worker.UNEVEN)
    train.train(one)
    for results in ("whole", "sharded"):
        two = worker.spec_of(together, results, 2, **worker.SHARDED)
        present = record.read(two.folder)
        assert present is not None and present.status == "finished" and present.identity == one.identity
        for name in ("steps.csv", "depth.csv"):
            first, second = (pd.read_csv(spec.folder / name) for spec in (one, two))
            pd.testing.assert_frame_equal(first, second, rtol=1e-4, atol=1e-6)
        for name in ("evals.csv", "problems.csv", "caps.csv"):
            assert (two.folder / name).read_bytes() == (one.folder / name).read_bytes(), (results, name)
        assert not (two.folder / checkpoint.FOLDER).exists() and not (two.folder / checkpoint.FILE).exists()


@pytest.mark.process
def test_sharded_weights_are_exported_for_any_tool(together: Path) -> None:
    folder = worker.spec_of(together, "sharded", 2, **worker.SHARDED).model_folder
    gathered = torch.load(together / "gathered.pt")
    exported = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert gathered.keys() == exported.keys()
    assert all(torch.equal(gathered[name], exported[name]) for name in exported)
    tied = AutoModelForCausalLM.from_pretrained(together / "exported")
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    assert models.weights_digest(tied) == models.weights_digest(AutoModelForCausalLM.from_pretrained(together / "tied"))
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Qwen3ForCausalLM"]


@pytest.mark.process
def test_what_is_not_finite_in_one_process_stops_all_and_a_full_disk_leaves_the_checkpoint_before(
    together: Path,
) -> None:
    for results, expected in (("poisoned", "loss nan at step 1; the batch is in"), ("full", "File too large")):
        spec = worker.spec_of(together, results, 2, **worker.SHARDED)
        present = record.read(spec.folder)
        assert present is not None and present.status == "failed" and expected in present.error
        assert not spec.model_folder.exists()
    poisoned, full = (worker.spec_of(together, results, 2, **worker.SHARDED).folder for results in ("poisoned", "full"))
    assert [path.name for path in poisoned.glob("nonfinite*")] == ["nonfinite_step1_rank1.json"]
    assert [path.name for path in checkpoint.saved(full)] == ["00000002"]


@pytest.mark.process
def test_a_run_ends_with_any_of_its_processes_and_resumes_to_the_same_bytes(together: Path) -> None:
    spec = worker.spec_of(together, "broken", 2, **worker.SHARDED)
    begin = time.monotonic()
    done = started(2, "fail", str(together))
    present = record.read(spec.folder)
    assert done.returncode != 0 and present is not None and present.status == "failed"
    assert present.error == "ValueError: process 1: ValueError: no teacher at the door"
    done = started(2, "kill", str(together))
    present = record.read(spec.folder)
    assert done.returncode != 0 and present is not None
    assert "Signal 9" in done.stderr
    assert present.status == "running" or "ended without a word" in present.error
    print(f"two failures: {time.monotonic() - begin:.0f} s")
    assert [path.name for path in checkpoint.saved(spec.folder)] == ["00000002", "00000004"]
    overrides = worker.SHARDED | {"machine.processes": 2, "machine.network": distributed.loopback()}
    words = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "opd_lib.engine", micro.OPD]
    words += ["plain", "0", "--results", str(together / "broken"), "--params", str(together / "params")]
    (together / "broken" / "tiny" / micro.MODELS).symlink_to(together / "results" / "tiny" / micro.MODELS)
    done = started(2, *words, "--overrides", json.dumps(overrides), program=("-m",), ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-4000:]
    whole = worker.spec_of(together, "sharded", 2, **worker.SHARDED)
    for name in (*TABLES, "rollouts.jsonl"):
        assert (spec.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    weights = [models.weights_digest(models.load(each.model_folder)[0]) for each in (spec, whole)]
    assert weights[0] == weights[1]


def test_a_process_that_loses_the_others_says_so_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="another process of this run has ended"),
        distributed.OneFate(distributed.Ranks(rank=1, world=2), tmp_path),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    assert not list(tmp_path.iterdir()), "it is not the one that failed"


@pytest.mark.process
def test_a_checkpoint_of_the_other_kind_is_refused(together: Path) -> None:
    full, other = (worker.spec_of(together, results, 1, **worker.UNEVEN) for results in ("full", "other"))
    shutil.copytree(full.folder / checkpoint.FOLDER, other.folder / checkpoint.FOLDER)
    with pytest.raises(ValueError, match=r"written with machine\.shard: true; set that again"):
        train.train(other)


def test_a_full_disk_is_one_error_and_leaves_the_checkpoint_before(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = worker.spec_of(trained, "full1", 1)
    original = checkpoint.write_file

    def without_room(run: ActiveRun, step: int) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        try:
            original(run, step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_file", without_room)
        with pytest.raises(ValueError, match=r"cannot save the checkpoint of step 4 \(.*File too large.*make room"):
            train.train(spec)
    assert torch.load(spec.folder / checkpoint.FILE)["step"] == 2
    assert [path.name for path in spec.folder.glob(".checkpoint*")] == [checkpoint.FILE]
    assert train.train(spec).status == "finished"
    assert not list(spec.folder.glob(".checkpoint*"))
