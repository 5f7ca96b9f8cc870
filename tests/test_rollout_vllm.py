"""What the vLLM sampler says and does before vLLM is there; the rest is in tests/with_vllm (`make test-vllm`)."""

from __future__ import annotations

import sys

import conftest
import pytest
import torch

from opd_lib.engine.model import models
from opd_lib.engine.sampling import handover, rollout_vllm
from opd_lib.params.schema import Machine, NewModel

MACHINE = Machine.model_validate(conftest.RUN["machine"] | {"sampler": "vllm"})
SHAPE = NewModel(layers=1, hidden=16, heads=2, context=64, rope_theta=100.0, initializer_range=0.1)


def test_without_the_package_there_is_one_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr(rollout_vllm.os, "environ", {})
    with pytest.raises(ValueError, match=r"machine\.sampler: vllm cannot be imported .*opd-replication\[vllm\]"):
        rollout_vllm.for_run(models.new_model(SHAPE, 0), MACHINE, longest=64)


def test_a_response_is_seeded_by_its_own_first_numbers() -> None:
    uniform_BT = torch.rand(1000, 5, generator=models.generator(0))
    seeds = [handover.seed(row) for row in uniform_BT]
    assert len(set(seeds)) == 1000 and min(seeds) >= 0 and max(seeds) < 2**63
    assert [handover.seed(row) for row in uniform_BT[:, :2]] == seeds
    low = torch.tensor(seeds).remainder(2**32)  # a generator on a CPU looks at these bits alone
    assert len(low.unique()) == 1000 and abs(float(low.double().mean()) / 2**32 - 0.5) < 0.05


def test_weights_are_handed_over_under_every_name_even_a_tied_one() -> None:
    model = models.new_model(SHAPE, 0)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    handed = dict(handover.weights(model, torch.bfloat16))
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"} <= set(handed)
    assert len(handed) == len(model.state_dict()) and {t.dtype for t in handed.values()} == {torch.bfloat16}
    assert torch.equal(handed["lm_head.weight"], model.get_input_embeddings().weight.bfloat16())
