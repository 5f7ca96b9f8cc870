"""Is there enough memory for a run? Asked before anything is loaded, from the shapes of its models.

The numbers are those of `forecast/footprint`: an estimate that leaves out the framework itself and what its allocator
cannot use, for which USABLE leaves room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from opd_lib import methods, tasks
from opd_lib.engine.model import hub
from opd_lib.forecast import footprint, hardware
from opd_lib.forecast.shapes import BFLOAT16, FLOAT32, Shape
from opd_lib.params import refusals
from opd_lib.params.schema import SELF, NewModel, NewTextModel, Sampled

if TYPE_CHECKING:
    from opd_lib.params import RunSpec
    from opd_lib.params.schema import Machine, RunParams

USABLE = 0.9
"""The share of a device's memory that may be planned with."""
REMEMBERED = 3
"""Sets of weights beside student and teachers that a method keeps which mixes weights: the start and two of its own."""
FLOAT64_ENTRIES = 9
"""float64 numbers per token and entry of the vocabulary that comparing three models' distributions holds at a time."""


def require(spec: RunSpec, shapes: Mapping[str, Shape], free: float) -> bool:
    """Whether activations must be computed again in the backward pass to fit into `free` bytes.

    Raises ValueError with what is needed and what there is if even that is too much.
    """
    if needed(spec.params, shapes, free, recompute=False).total <= USABLE * free:
        return False
    try:
        footprint.require(needed(spec.params, shapes, free, recompute=True), USABLE * free, spec.params.machine.device)
    except ValueError as error:
        raise ValueError(f"{spec.name}: {error}") from None
    return True


def needed(params: RunParams, shapes: Mapping[str, Shape], device: float, recompute: bool) -> footprint.Memory:
    """What each process of a run holds (bytes); `device` is the memory that its accelerator has."""
    found = footprint.memory(setting(params, shapes, device, recompute))
    kind = params.probe.kind if params.probe else None
    student = shapes["student"]
    if kind == "gradient" and params.machine.device == "cpu":  # elsewhere the machine's memory holds these:
        # three float64 vectors of all weights, and a gradient flattened for one of them
        return replace(found, gradients=found.gradients + (3 * 8.0 + 4 + 8) * student.parameters)
    if kind == "teachers":
        return replace(found, logits=8.0 * FLOAT64_ENTRIES * student.vocabulary * micro_tokens(params))
    return replace(found, logits=0.0) if kind == "rollouts" or params.only_evaluates else found  # nothing is scored


def setting(params: RunParams, shapes: Mapping[str, Shape], device: float, recompute: bool) -> footprint.Setting:
    """A run's parameters as `forecast/footprint` asks for them."""
    machine, student = params.machine, shapes["student"]
    number = BFLOAT16 if machine.precision == "bfloat16" else FLOAT32
    held = [role for role in shapes if role != "student" and (role != "teacher" or machine.teacher_url is None)]
    frozen = tuple((shapes[role], is_spread(shapes[role], machine, device)) for role in held)
    engine = machine.sampler == "vllm"  # a corpus is not sampled, but its evaluations are
    writers = [student, shapes["teacher"]] if params.source.kind == "teacher" else [student]
    writer = max(writers, key=lambda model: model.parameters)
    lists = [int(params.method.get("k", 0)), *params.diagnose.ks]
    return footprint.Setting(
        student=student,
        frozen=frozen,
        scorers=1 + len(frozen) + (params.teacher == SELF),
        remembered=REMEMBERED if methods.load(str(params.method["name"])).after_step else 0,
        processes=machine.processes,
        shard=machine.shard,
        number=number,
        trained=params.trains or (params.probe is not None and params.probe.kind == "gradient"),
        moments=params.trains,
        tokens=micro_tokens(params),
        chunk=chunk(machine, student.vocabulary),
        k=2 * max(lists),
        recompute=recompute,
        writer=writer,
        engine=engine,
        sleeps=machine.device == "cuda",
        compiled=machine.sampler == "compiled",
        cache=machine.sampler_cache_gib * footprint.GIB if engine else own_cache(params, writer, number),
    )


def is_spread(model: Shape, machine: Machine, device: float) -> bool:
    """Whether a frozen model is spread over the processes: only if it takes much of an accelerator."""
    number = BFLOAT16 if machine.precision == "bfloat16" else FLOAT32
    whole = footprint.fits_whole(number * model.parameters, None if machine.device == "cpu" else device)
    return machine.shard and not whole


def micro_tokens(params: RunParams) -> int:
    """Tokens of the largest micro-batch: the limit, or one row that is longer."""
    source = params.source
    if params.probe is not None and params.probe.kind == "continuation":
        return params.train.micro_tokens  # only the gates score, and they cut longer rows
    longest = prompt_tokens(params) + source.longest if isinstance(source, Sampled) else 0
    return max(params.train.micro_tokens, longest)


def chunk(machine: Machine, vocabulary: int) -> int:
    """For how many tokens the logits of student and teacher may exist at a time (machine.logits_gib)."""
    return footprint.chunk(machine.logits_gib * footprint.GIB, vocabulary)


def prompt_tokens(params: RunParams) -> int:
    """Tokens of a prompt, at most."""
    return max(refusals.prompt_tokens(params.task))


def own_cache(params: RunParams, model: Shape, number: int) -> float:
    """Bytes of the cache when responses are sampled in process: all of a process's rows at a time, to their limits.

    Where machine.sampler_cache_gib holds fewer, fewer are written at a time, but one at least.
    """
    source, evaluate, processes = params.source, params.evaluate, params.machine.processes
    n_answers = evaluate.n_problems * len(params.task.test_sets) * evaluate.n_samples
    longest = evaluate.max_new_tokens
    rows = -(-n_answers // processes) * (prompt_tokens(params) + evaluate.max_new_tokens) if params.probe is None else 0
    if isinstance(source, Sampled):
        share = -(-source.prompts_per_step // processes) * source.per_prompt
        rows = max(rows, share * (prompt_tokens(params) + source.longest))
        longest = max(longest, source.longest)
    rows *= 2 if params.machine.sampler == "compiled" else 1  # its batches are as wide as the next power of two
    one = (prompt_tokens(params) + longest) * model.kv_bytes(number)
    return min(float(rows * model.kv_bytes(number)), max(params.machine.sampler_cache_gib * footprint.GIB, one))


def shapes(spec: RunSpec) -> dict[str, Shape]:
    """role → shape of each model of a run, from the config.json of its checkpoint, read here or from the hub."""
    found = {}
    for role in spec.params.references:
        place = spec.checkpoint(role)
        if place is not None and role != "rollouts":
            found[role] = hardware.shape_in(hub.fetch(place, weights=False) / "config.json")
    parts = [role for role in found if role.startswith("student.")]
    merged = {"student": found[parts[0]]} if parts else {}
    found = merged | {role: shape for role, shape in found.items() if role not in parts}
    return found if "student" in found else {"student": new_shape(spec.params), **found}


def new_shape(params: RunParams) -> Shape:
    """The shape of a new student (`models.new_model`); one of real text may turn out with fewer tokens."""
    model, world = params.student, tasks.load(params.task.name).world
    assert isinstance(model, NewModel)
    return Shape(
        layers=model.layers,
        hidden=model.hidden,
        intermediate=3 * model.hidden,
        heads=model.heads,
        kv_heads=model.heads,
        head_dim=model.hidden // model.heads,
        vocabulary=model.vocabulary if isinstance(model, NewTextModel) else len(world.words if world else ()),
        tied=False,
        qkv_bias=False,
        qk_norm=True,
    )


def free(machine: Machine) -> float:
    """Bytes of memory that each process of this machine has to itself, now. Raises ValueError without a GPU to ask."""
    if machine.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError(
                f"machine.device: cuda, but torch {torch.__version__} finds no GPU here; install a CUDA build on a "
                "machine that has one, or use machine.device: cpu"
            )
        return float(torch.cuda.mem_get_info()[0])
    import psutil

    return float(psutil.virtual_memory().available) / machine.processes
