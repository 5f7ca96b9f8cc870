"""Every method with vLLM as its sampler: what it trains on was drawn from the weights as they were at that step,
whatever had moved them, however many turns a response has, and whoever writes it.

Needs vLLM, which the ordinary environment has not: `make test-vllm` builds one that has, and runs this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import seams

if find_spec("vllm") is None:
    pytest.skip("no vllm in this environment: make test-vllm", allow_module_level=True)

from opd_lib.engine import train
from opd_lib.engine.sampling import rollout_vllm

ROUNDING = 1e-5
"""How far the two may be apart at any token (nats)."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with heads of a size that vLLM can do."""
    return seams.made(tmp_path_factory.mktemp("vllm"), hidden=64)


@pytest.fixture(autouse=True)
def engines() -> Iterator[None]:
    """No engine outlives its test."""
    yield
    rollout_vllm.close()


@pytest.mark.parametrize("arm", seams.ARMS)
def test_a_method_trains_on_responses_of_the_student_as_it_is(made: Path, tmp_path: Path, arm: str) -> None:
    changes = {"train.steps": 4, "machine.max_sampler_gap": ROUNDING} | seams.ARMS[arm] | seams.MACHINES["vllm"]
    done = train.train(seams.spec_of(made, tmp_path, f"{arm}-vllm", **changes))
    steps = done.frame("steps")
    assert done.status == "finished" and len(steps) == 4 and (steps["grad_norm"] > 0).all()
    assert 0 < steps["sampler_gap"].max() < ROUNDING
    assert len(rollout_vllm.ENGINES) == (2 if arm == "brts" else 1), "the teacher has an engine only where it writes"
    if arm == "prune":
        assert steps["source.max_new_tokens"].nunique() > 1
        assert (steps["response_length"] <= steps["source.max_new_tokens"]).all()
    if arm == "eff_opd":
        assert steps["tried_tokens"].is_monotonic_increasing and steps["tried_tokens"].iloc[-1] > 0
    if arm == "sod":
        n = 4 * 2  # prompts, responses to each
        assert (steps["n_tokens"] < n * steps["response_length"] - 0.5).any(), "what the tool says is not trained on"
    if arm == "brts":
        assert (steps["teacher.loss"] > 0).all()
