"""Heads that share keys and values: the same attention as transformers', without copies of the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.integrations import sdpa_attention

from opd_lib.engine.model import grouped, models
from opd_lib.engine.sampling import rollout, rollout_compiled
from opd_lib.engine.sources import Model
from opd_lib.types import Prompt

PROMPTS = ((5, 6, 7), (9, 4, 8, 3, 11), (6,), (7, 7))


def model_of(heads: int, shared: int) -> Model:
    """A model in float64 in which so many heads share so many keys and values; another one at each call is the same."""
    words = [f"w{i}" for i in range(40)]
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=40, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=shared, head_dim=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.2,
    )  # fmt: skip
    tokenizer = models.word_tokenizer(words, unknown="w3", pad_token="w0", bos_token="w1", eos_token="w2")
    return Qwen3ForCausalLM(config).double().eval(), tokenizer


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the keys that attention is given for one new token."""
    seen: list[tuple[int, ...]] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def watched(query: Any, key: Any, value: Any, **settings: Any) -> Any:
        if key.shape[2] > query.shape[2] and settings.get("attn_mask") is not None:
            seen.append(tuple(key.shape))
        return original(query, key, value, **settings)

    monkeypatch.setattr(grouped, "scaled_dot_product_attention", watched)
    monkeypatch.setattr(sdpa_attention.torch.nn.functional, "scaled_dot_product_attention", watched)
    return seen


def sampled(model: Model, top_p: float = 1.0) -> Any:
    prompts = [Prompt(id="", source="", question="", rendered="", token_ids=row, answer="") for row in PROMPTS]
    uniform_BT = torch.rand((len(prompts), 12), generator=models.generator("grouped"), dtype=torch.float64)
    return rollout.sample(*model, prompts, uniform_BT, 1.0, top_p)


@pytest.mark.parametrize(("heads", "shared"), [(6, 2), (4, 1), (4, 2)])
def test_responses_are_transformers_own_and_keys_are_read_once(
    heads: int, shared: int, read: list[tuple[int, ...]]
) -> None:
    theirs = sampled(model_of(heads, shared))
    assert {shape[1] for shape in read} == {heads}
    read.clear()
    model = model_of(heads, shared)
    grouped.use(model[0])
    ours = sampled(model)
    assert {shape[1] for shape in read} == {shared}
    assert torch.equal(ours.response_BT, theirs.response_BT) and int(ours.length_B.sum()) > 20
    torch.testing.assert_close(ours.sampler_logp_BT, theirs.sampler_logp_BT, atol=1e-12, rtol=0)


def test_a_whole_sequence_is_read_as_before() -> None:
    """Value and gradient, to the bit: training does not come here."""
    token_BL = torch.tensor([[4, 5, 6, 7, 8], [9, 8, 7, 6, 5]])
    found = []
    for attends_so in (False, True):
        model, _ = model_of(6, 2)
        if attends_so:
            grouped.use(model)
        loss = model(input_ids=token_BL, labels=token_BL).loss
        loss.backward()
        found.append((loss.detach(), [parameter.grad for parameter in model.parameters()]))
    (loss, gradients), (same_loss, same_gradients) = found
    assert torch.equal(loss, same_loss)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same_gradients, strict=True))


def test_a_compiled_sampler_reads_keys_once(monkeypatch: pytest.MonkeyPatch, read: list[tuple[int, ...]]) -> None:
    monkeypatch.setattr(rollout_compiled, "COMPILED", {"backend": "eager", "dynamic": False, "fullgraph": True})
    model = model_of(6, 2)
    expected = sampled(model)
    grouped.use(model[0])
    sampler = rollout_compiled.Sampler(model[0], torch.float64, 1e9, 24)
    monkeypatch.setattr(rollout, "sample", lambda model, *rest: sampler.sample(model, *rest))
    read.clear()
    found = sampled(model)
    assert {shape[1] for shape in read} <= {2}  # a captured graph may leave the spy out
    assert torch.equal(found.response_BT, expected.response_BT)
    torch.testing.assert_close(found.sampler_logp_BT, expected.sampler_logp_BT, atol=1e-12, rtol=0)


def test_who_shares_nothing_stays_as_it_is_and_checkpoints_say_nothing_of_it(tmp_path: Path) -> None:
    plain, sharing = model_of(4, 4), model_of(4, 2)
    models.save(*sharing, tmp_path / "sharing")
    before = (tmp_path / "sharing" / "config.json").read_bytes()
    for model, _ in (plain, sharing):
        grouped.use(model)
    assert plain[0].config._attn_implementation == "sdpa"
    assert models.load(tmp_path / "sharing")[0].config._attn_implementation == grouped.NAME
    models.save(*sharing, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == before
