"""Costs: parameters against transformers, floors and bytes against worked examples, and what must grow with what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, Qwen2ForCausalLM, Qwen3ForCausalLM

from opd_lib.bench import case
from opd_lib.forecast import cost, footprint, hardware, shapes
from opd_lib.forecast.cost import Batch, Step
from opd_lib.forecast.hardware import H200, QWEN3_1_7B, QWEN3_4B, R1_DISTILL_1_5B, R1_DISTILL_7B, R1_DISTILL_14B
from opd_lib.forecast.shapes import Shape

QWEN2_1_5B = replace(R1_DISTILL_1_5B, tied=True)  # the base of R1-Distill-1.5B ties its head
BATCH = Batch(prompts=64, per_prompt=4, prompt=150, mean=4096, longest=7168)
PUBLISHED = {  # what the checkpoints' cards and files say they have
    "1.5B, tied": (QWEN2_1_5B, 1_543_714_304),
    "R1-Distill-1.5B": (R1_DISTILL_1_5B, 1_777_088_000),
    "R1-Distill-7B": (R1_DISTILL_7B, 7_615_616_512),
    "R1-Distill-14B": (R1_DISTILL_14B, 14_770_033_664),
    "Qwen3-1.7B": (QWEN3_1_7B, 1_720_574_976),
    "Qwen3-4B": (QWEN3_4B, 4_022_468_096),
}
SMALL = Shape(
    layers=3, hidden=64, intermediate=160, heads=4, kv_heads=2, head_dim=32,
    vocabulary=64, tied=False, qkv_bias=False, qk_norm=True,
)  # fmt: skip


def config(shape: Shape) -> PretrainedConfig:
    """transformers' own configuration of a shape."""
    found: PretrainedConfig = AutoConfig.for_model(**case.config(shape))
    return found


@pytest.mark.parametrize(("shape", "published"), PUBLISHED.values(), ids=PUBLISHED)
def test_parameters_are_those_of_transformers_and_of_the_checkpoint(shape: Shape, published: int) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(shape))
    assert shape.parameters == model.num_parameters() == published
    embeddings = {id(w): w.numel() for w in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
    assert shape.body == published - sum(embeddings.values())
    layer = sum(weight.numel() for weight in model.get_decoder().layers[0].parameters())
    assert shape.layer_parameters == layer


@pytest.mark.parametrize("shape", [shape for shape, _ in PUBLISHED.values()], ids=PUBLISHED)
def test_a_shape_is_read_back_from_a_configuration(shape: Shape) -> None:
    assert shapes.shape(config(shape).to_dict()) == shape


def test_every_model_of_the_catalogue_has_a_published_shape() -> None:
    assert set(hardware.HUB.values()) == {shape for name, (shape, _) in PUBLISHED.items() if name != "1.5B, tied"}
    assert hardware.shape_of("hbx/JustRL-DeepSeek-1.5B@0637e40") == R1_DISTILL_1_5B
    with pytest.raises(ValueError, match=r"some/model@main: no shape known.*Qwen/Qwen3-4B"):
        hardware.shape_of("some/model@main")


def test_other_kinds_of_model_are_refused() -> None:
    with pytest.raises(ValueError, match="'llama': costs are known for qwen2 and qwen3 only"):
        shapes.shape({"model_type": "llama"})


# --- the worked examples of the derivation: one H200, 256 responses, prompts of 150 tokens, seconds as printed there


@pytest.mark.parametrize(
    ("student", "teacher", "mean", "weights", "cache", "teaching", "learning"),
    [
        (QWEN2_1_5B, QWEN2_1_5B, 4096, 4.6, 13.8, 3.8, 11.3),
        (QWEN2_1_5B, R1_DISTILL_7B, 4096, 4.6, 13.8, 16.4, 11.3),
        # printed 4.8: that takes the teacher's hidden width, 2,560, for the width of its attention, which is 4,096
        (QWEN3_1_7B, QWEN3_4B, 2048, 5.1, 14.7, 4.9, 6.2),
    ],
    ids=["1.5B from 1.5B", "1.5B from 7B", "1.7B from 4B"],
)
def test_worked_floors(
    student: Shape, teacher: Shape, mean: int, weights: float, cache: float, teaching: float, learning: float
) -> None:
    step = Step(student=student, teacher=teacher, batch=replace(BATCH, mean=mean))
    found = cost.floor(step, H200)
    parts = (found.weights, found.cache, found.teacher, found.student)
    assert tuple(round(part, 1) for part in parts) == (weights, cache, teaching, learning)
    assert found.rollout == found.weights + found.cache > found.arithmetic
    assert found.total == pytest.approx(sum(parts))


def test_worked_floor_of_the_whole_step_and_of_two_hundred() -> None:
    step = Step(student=QWEN2_1_5B, teacher=QWEN2_1_5B, batch=BATCH)
    seconds = cost.floor(step, H200).total
    assert round(seconds, 1) == 33.5
    assert round(200 * seconds / 3600, 1) == 1.9
    on_support = replace(step, head="support", k=16)
    assert round(cost.floor(on_support, H200).student, 1) == 10.3


def test_the_printed_teacher_of_4b_is_the_one_of_narrow_attention() -> None:
    batch = replace(BATCH, mean=2048)
    attention = cost.attention_flops(QWEN3_4B, batch)
    narrow = cost.forward_flops(QWEN3_4B, batch) - attention * (1 - QWEN3_4B.hidden / QWEN3_4B.query_width)
    assert round(narrow / H200.peak, 1) == 4.8


def test_shares_of_a_step_are_those_of_the_derivation() -> None:
    for teacher in (QWEN2_1_5B, R1_DISTILL_7B):
        found = cost.floor(Step(student=QWEN2_1_5B, teacher=teacher, batch=BATCH), H200)
        assert 0.395 <= found.rollout / found.total <= 0.64
        assert 0.20 <= found.student / found.total <= 0.34
        assert 0.11 <= found.teacher / found.total <= 0.36
    work = cost.flops(Step(student=QWEN2_1_5B, teacher=None, batch=BATCH))
    head = cost.HEAD_PASSES["stored"] * QWEN2_1_5B.head * BATCH.response_tokens
    assert 0.13 <= head / work.student <= 0.16


def test_worked_bytes() -> None:
    tokens, vocabulary = 8192, 151_936
    assert round(shapes.FLOAT32 * tokens * vocabulary / 1e9, 2) == 4.98
    assert footprint.chunk(0.5 * footprint.GIB, vocabulary) == 98  # whose logits take no more, however many tokens
    assert round(footprint.logits(vocabulary, 98, models=2, k=0) / footprint.GIB, 2) == 0.5
    assert footprint.CANDIDATE * tokens * 16 == 2 * 2**20
    assert [round(m.vocabulary / m.hidden) for m in (R1_DISTILL_1_5B, QWEN3_1_7B, R1_DISTILL_7B)] == [99, 74, 42]
    assert QWEN2_1_5B.kv_bytes() == 28_672 and QWEN3_1_7B.kv_bytes() == 114_688


def test_recomputation_costs_one_more_forward_pass_of_the_body_alone() -> None:
    kept, again = (cost.student_flops(QWEN3_4B, BATCH, recompute) for recompute in (False, True))
    body = 2 * QWEN3_4B.body * BATCH.tokens + cost.attention_flops(QWEN3_4B, BATCH)
    assert again - kept == pytest.approx(body)
    streamed = cost.student_flops(QWEN3_4B, BATCH, head="recomputed")
    assert streamed - kept == pytest.approx(2 * QWEN3_4B.head * BATCH.response_tokens)


# --- what a forward pass really keeps for the backward pass


def kept_bytes(shape: Shape, dtype: torch.dtype, autocast: bool, recompute: bool, tokens: int) -> int:
    """Bytes of the tensors that autograd keeps in a forward pass of the body, weights and their copies left out."""
    torch.manual_seed(0)
    model = (Qwen3ForCausalLM if shape.qk_norm else Qwen2ForCausalLM)(config(shape)).to(dtype)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    sizes = {tuple(weight.shape) for weight in model.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) not in sizes and tuple(tensor.T.shape if tensor.dim() == 2 else ()) not in sizes:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        model.train().get_decoder()(input_ids=torch.zeros(2, tokens // 2, dtype=torch.long), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("shape", [SMALL, replace(SMALL, head_dim=16, qkv_bias=True, qk_norm=False)], ids=["3", "2"])
@pytest.mark.parametrize(("dtype", "autocast"), [("float32", False), ("bfloat16", False), ("float32", True)])
def test_activations_are_what_autograd_keeps(shape: Shape, dtype: str, autocast: bool) -> None:
    number = 2 if autocast or dtype == "bfloat16" else 4
    measured = kept_bytes(shape, getattr(torch, dtype), autocast, recompute=False, tokens=256)
    assert footprint.activations(shape, 256, number, recompute=False, autocast=autocast) == pytest.approx(
        measured, rel=0.1
    )


def test_recomputation_keeps_the_inputs_of_layers() -> None:
    measured = kept_bytes(SMALL, torch.float32, autocast=False, recompute=True, tokens=256)
    inputs = SMALL.layers * SMALL.hidden * 256 * 4
    assert inputs <= measured <= footprint.activations(SMALL, 256, 4, recompute=True)


# --- what must grow with what

SETTING = footprint.Setting(
    scorers=2,
    remembered=0,
    student=R1_DISTILL_1_5B, frozen=((R1_DISTILL_7B, False),), processes=8, shard=True, number=2, trained=True,
    moments=True, tokens=8192, chunk=8192, k=32, recompute=False, writer=R1_DISTILL_1_5B, engine=True, sleeps=True,
    compiled=False,
    cache=40.0 * footprint.GIB,
)  # fmt: skip
batches = st.builds(
    Batch, prompts=st.integers(1, 128), per_prompt=st.integers(1, 16), prompt=st.floats(1, 1024),
    mean=st.floats(1, 8192), longest=st.floats(8192, 32768),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(batches, st.integers(1, 16), st.floats(1, 64))
def test_more_work_takes_longer_and_more_processes_share_it(batch: Batch, processes: int, gib: float) -> None:
    step = Step(student=R1_DISTILL_1_5B, teacher=R1_DISTILL_1_5B, batch=batch)
    found = cost.floor(step, H200)
    assert cost.floor(replace(step, teacher=R1_DISTILL_7B), H200).total > found.total
    assert cost.floor(replace(step, student=R1_DISTILL_7B), H200).total > found.total
    assert cost.floor(replace(step, recompute=True), H200).student > found.student
    assert cost.floor(replace(step, batch=replace(batch, mean=batch.mean + 1)), H200).total > found.total
    assert cost.floor(replace(step, cache_bytes=gib * footprint.GIB), H200).weights >= found.weights
    shared = cost.floor(replace(step, processes=processes), H200)
    assert shared.total <= found.total and shared.weights == found.weights  # every process reads all weights
    assert shared.total * processes >= found.total * (1 - 1e-9)


def test_memory_falls_with_shares_and_recomputation_and_grows_with_tokens() -> None:
    total = footprint.memory(SETTING).total
    assert footprint.memory(replace(SETTING, processes=4)).total > total
    assert footprint.memory(replace(SETTING, shard=False)).total > total
    assert footprint.memory(replace(SETTING, recompute=True)).total < total
    assert footprint.memory(replace(SETTING, tokens=16_384)).total > total
    assert footprint.memory(replace(SETTING, chunk=1024)).total < total
    assert footprint.memory(replace(SETTING, frozen=((R1_DISTILL_7B, True),))).total < total
    assert footprint.memory(replace(SETTING, sleeps=False)).total > total
    assert footprint.memory(replace(SETTING, trained=False, moments=False)).total < total


def test_memory_of_whole_float32_weights_is_sixteen_bytes_each() -> None:
    found = footprint.memory(replace(SETTING, shard=False, number=4, frozen=()))
    states = found.weights + found.optimizer + found.gradients + found.copies
    assert states == 16 * R1_DISTILL_1_5B.parameters
    spread = footprint.memory(replace(SETTING, number=4, frozen=()))
    assert spread.weights + spread.optimizer + spread.gradients == 2 * R1_DISTILL_1_5B.parameters


def test_passes_and_sampling_share_memory_unless_the_engine_stays_awake() -> None:
    asleep, awake = footprint.memory(SETTING), footprint.memory(replace(SETTING, sleeps=False))
    models = asleep.weights + asleep.optimizer + asleep.frozen
    assert asleep.total == models + max(asleep.passes, asleep.sampler + asleep.cache)
    assert awake.total == models + awake.passes + awake.sampler + awake.cache


def test_disk_holds_one_checkpoint_more_than_is_kept() -> None:
    found = footprint.disk(R1_DISTILL_1_5B, kept=2)
    assert found.checkpoints == 3 * 12 * R1_DISTILL_1_5B.parameters
    assert found.peak - found.checkpoints == found.export == 4 * R1_DISTILL_1_5B.parameters


def test_too_little_memory_names_need_supply_and_remedy() -> None:
    needed = footprint.memory(SETTING)
    footprint.require(needed, needed.total, "cuda")
    message = r"about \d+\.\d GiB of cuda memory in each process, 40\.0 GiB are free.*part is logits.*logits_gib"
    with pytest.raises(ValueError, match=message):
        footprint.require(needed, 40 * footprint.GIB, "cuda")
    whole = footprint.memory(replace(SETTING, shard=False, number=4, frozen=(), cache=0.0, engine=False, tokens=64))
    with pytest.raises(ValueError, match=r"largest part is optimizer.*machine\.device: cuda, machine\.shard: true"):
        footprint.require(whole, 8 * footprint.GIB, "cpu")
    big = footprint.memory(replace(SETTING, chunk=1024, cache=60.0 * footprint.GIB))
    with pytest.raises(ValueError, match=r"largest part is cache.*machine\.sampler_cache_gib"):
        footprint.require(big, 40 * footprint.GIB, "cuda")
