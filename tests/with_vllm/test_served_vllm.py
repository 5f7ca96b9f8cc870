"""A teacher behind the real vLLM server is the teacher in this process, up to the rounding of float32.

Needs vLLM, which the ordinary environment has not: `make test-vllm`. The server takes a minute or several to start.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import conftest
import micro
import pandas as pd
import pytest
import torch

if find_spec("vllm") is None:
    pytest.skip("no vllm in this environment: make test-vllm", allow_module_level=True)

from opd_lib import methods
from opd_lib.engine import gates, score, served, sources, train, vllm_server
from opd_lib.engine import teacher as teachers
from opd_lib.engine.model import models
from opd_lib.engine.sampling import rollout
from opd_lib.engine.served import Teacher
from opd_lib.engine.sources import Model
from opd_lib.params import RunSpec
from opd_lib.tasks import chain
from opd_lib.types import Rollouts

START = 900  # seconds that the server may take to start
CONTEXT, MAX_LOGPROBS = 96, 20
OPD = {key: value for key, value in conftest.OPD.items() if key != "name"}
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
V = len(chain.VOCABULARY)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student and a teacher that knows something, with heads of a size that vLLM can do."""
    made = conftest.make_world(tmp_path_factory.mktemp("world"))
    for arm in ("student", "teacher"):
        micro.change_arm(made, micro.MODELS, arm, {"student.hidden": 64})
    micro.teach(made)
    for arm in ("student", "teacher"):
        train.train(micro.load(made).spec(arm, 0))
    return made


@pytest.fixture(scope="module")
def places(world: Path) -> tuple[str, str]:
    """The checkpoints of student and teacher."""
    student, teacher = (str(micro.load(world).spec(arm, 0).model_folder) for arm in ("student", "teacher"))
    return student, teacher


@pytest.fixture(scope="module")
def url(places: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vLLM server of the teacher, as anybody would start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", places[1], "--dtype", "float32"]
    options = ["--max-model-len", str(CONTEXT), "--max-logprobs", str(MAX_LOGPROBS), "--enforce-eager"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [*command, *options, "--host", "127.0.0.1", "--port", port],
            stdout=file,
            stderr=file,
            env=os.environ | SETTINGS,
            start_new_session=True,
        )
        try:
            wait(f"http://127.0.0.1:{port}", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, 9)


def wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers. Fails with the end of its log if it ends first or takes too long."""
    begin = time.monotonic()
    while time.monotonic() - begin < START and server.poll() is None:
        try:
            with vllm_server.OPENER.open(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(1)
    pytest.fail(f"the server did not start: {log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def student(places: tuple[str, str]) -> Model:
    return models.load(places[0])


@pytest.fixture(scope="module")
def teacher(places: tuple[str, str]) -> Model:
    model, tokenizer = models.load(places[1])
    return model.requires_grad_(False).eval(), tokenizer


@pytest.fixture(scope="module")
def client(places: tuple[str, str], url: str) -> Teacher:
    return served.connect(url, places[1], V, V)


@pytest.fixture(scope="module")
def batch(world: Path, student: Model) -> Rollouts:
    """Responses of the student at the first step of a distillation."""
    params = micro.load(world, micro.OPD).arms["plain"]
    task = params.task
    questions = chain.training(task, 12, 0, 1)  # type: ignore[arg-type]
    prompts = sources.make_prompts(student[1], task, questions, [task.template] * 12, "chain-a")
    uniform_BT = torch.rand(12, 40, generator=models.generator("served"))
    return sources.grade(task, rollout.sample(*student, prompts, uniform_BT, 1.0, 1.0), student[1])


def test_every_log_probability_and_list_is_the_models(client: Teacher, teacher: Model, batch: Rollouts) -> None:
    rows = torch.arange(12)
    said = teachers.output(client, batch, rows, 16)
    assert isinstance(said, tuple) and len(said[0]) == int(batch.length_B.sum()) > 100
    logp_NV = conftest.logits(teacher[0], batch, rows).detach().log_softmax(-1)
    token_N = torch.cat([batch.response_BT[row, :n] for row, n in enumerate(batch.length_B.tolist())])
    gaps = (
        float((said[0] - logp_NV.gather(1, token_N[:, None])[:, 0]).abs().max()),
        float((said[2] - logp_NV.topk(16).values).abs().max()),
        float((said[2] - logp_NV.gather(1, said[1])).abs().max()),
    )
    print("largest differences (nats): tokens, lists, lists at their ids", *(f"{gap:.2g}" for gap in gaps))
    assert max(gaps) < 1e-5
    assert float((said[1] == logp_NV.topk(16).indices).float().mean()) > 0.99  # all but near ties


@pytest.mark.parametrize(
    "changes", [{"estimator": "sampled"}, {"support": "teacher"}, {"support": "intersection"}], ids=str
)
def test_loss_and_gradient_are_those_of_the_teacher_in_process(
    changes: dict[str, Any], client: Teacher, student: Model, teacher: Model, batch: Rollouts
) -> None:
    method = methods.load("opd")
    options, found = method.Params(**OPD | changes), []
    for each in (teacher[0], client):
        student[0].zero_grad()
        objective = score.Objective(method=method, options=options, k=8)
        scaled, loss, scores = objective(student[0], each, batch, torch.arange(12), scale=1 / int(batch.length_B.sum()))
        scaled.backward()
        gradient_W = torch.cat([p.grad.flatten() for p in student[0].parameters() if p.grad is not None])
        found.append((loss.item() / len(scores.token_N), gradient_W))
    (own, own_W), (other, other_W) = found
    relative = float((own_W - other_W).norm() / own_W.norm())
    print(f"loss {own:.8f} in process, {other:.8f} served; relative difference of the gradient {relative:.2g}")
    assert other == pytest.approx(own, abs=1e-6) and relative < 1e-5 and abs(own) > 1e-3


def test_gates_and_self_test_pass(client: Teacher, student: Model, teacher: Model, batch: Rollouts) -> None:
    found = client.self_test(teacher[1], batch.prompts[0].token_ids, 16)
    assert found["teacher_served_as"] == client.name
    spoken = gates.teacher_speaks(score.score(student[0], client, batch, torch.arange(12), 16), V)
    assert 0 < spoken["teacher_entropy_at_most"] < 4.5
    method = methods.load("opd")
    sees = gates.gradient_sees_teacher(
        score.Objective(method=method, options=method.Params(**OPD | {"support": "teacher"}), k=8),
        student[0],
        client,
        batch,
    )
    assert sees["teacher_dependence"] > 0.01


def test_what_the_server_refuses_is_one_error_with_the_remedy(client: Teacher, url: str, teacher: Model) -> None:
    with pytest.raises(ValueError, match=rf"refuses \(400.*--max-logprobs {MAX_LOGPROBS + 1} at least"):
        client.score([[5, 6, 7]], [2], MAX_LOGPROBS + 1)
    with pytest.raises(
        ValueError, match="has room for 96 with one more; start the server with a larger --max-model-len"
    ):
        client.score([[5] * CONTEXT], [2], 4)
    wide = Teacher(url=url, name=client.name, longest=999, vocabulary=V, padding=0)
    for n in (CONTEXT, CONTEXT + 1, CONTEXT + 9):
        with pytest.raises(ValueError, match=r"refuses \(400.*larger --max-model-len"):
            wide.score([[5] * n], [2], 4)
    with pytest.raises(ValueError, match=r"refuses \(400.*fewer tokens than the teacher"):
        client.score([[5, V]], [1], 4)
    with pytest.raises(ValueError, match=r"refuses \(404.*does not exist"):
        Teacher(url=url, name="org/other", longest=96, vocabulary=V, padding=0).score([[5, 6]], [1], 4)
    with pytest.raises(ValueError, match=rf"has {client.name}, and the teacher is org/other; .*--served-model-name"):
        served.connect(url, "org/other", V, V)
    with pytest.raises(ValueError, match="serve the teacher's own checkpoint with its own tokenizer"):
        client.self_test(Rotated(teacher[1]), [5, 6, 7], 4)  # type: ignore[arg-type]


class Rotated:
    """A tokenizer whose every id means the next word."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode([(index + 1) % V for index in ids]))


def distil(world: Path, results: str, **overrides: Any) -> RunSpec:
    """An OPD run whose record goes to a folder of its own while its models stay where they are."""
    made = micro.load(world, micro.OPD).spec("plain", 0)
    spec = micro.load(world, micro.OPD, results, overrides=overrides).spec("plain", 0)
    return type(spec)(**{name: getattr(spec, name) for name in spec.__slots__} | {"parents": made.parents})


def test_a_run_through_the_server_is_that_of_the_teacher_in_process(world: Path, url: str) -> None:
    own = train.train(distil(world, "own", **{"method.support": "teacher"}))
    found = train.train(distil(world, "served", **{"method.support": "teacher", "machine.teacher_url": url + "/v1"}))
    a, b = own.frame("steps"), found.frame("steps")
    columns = ["loss", "grad_norm", "response_length", "sampled_reverse_kl", "overlap_k16", "teacher_mass_k16"]
    print((a[columns] - b[columns]).abs().max().to_dict())
    pd.testing.assert_frame_equal(a[columns], b[columns], rtol=1e-3, atol=1e-4)
    assert list(a) == list(b) and b["teacher_entropy"].isna().all() and found.status == "finished"
