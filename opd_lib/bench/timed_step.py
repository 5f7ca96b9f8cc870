"""A distillation step at the shapes of real models: seconds by stage, share of the floor, memory; TRL's beside it.

No checkpoint is needed: weights are random, and everybody learns from the same random responses, all of full length.
Our update is the loop's own (`engine.train.update`), TRL's its stable trainer with the same micro-batches, precision
and optimiser. Our sampling is timed by itself. Settings are those of the profile `paper`, in one process. Each entrant
at each size has a process of its own: `python -m opd_lib.bench.timed_step REQUEST`, a JSON line per step. What compiles
and what comes into being at a first step has done so before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from importlib.util import find_spec
from math import nan
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from opd_lib import methods
from opd_lib.bench import peers, worker
from opd_lib.bench.case import SAMPLING, Case, config, floor
from opd_lib.bench.targets import TRL
from opd_lib.bench.workload import as_rollouts, word_tokenizer
from opd_lib.engine import batches, memory, setup, train
from opd_lib.engine.model import distributed, grouped, models, sharding
from opd_lib.engine.provenance import commit, device_name
from opd_lib.engine.running import ActiveRun
from opd_lib.engine.sampling import rollout, samplers
from opd_lib.forecast import footprint
from opd_lib.forecast.footprint import GIB
from opd_lib.forecast.shapes import Shape
from opd_lib.maths import sampling
from opd_lib.params.spec import RunSpec
from opd_lib.types import Rollouts

WARM = 8  # response tokens of the step that is not measured


def random_model(shape: Shape, longest: int, seed: int, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model of random weights, made where it is to stand."""
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": longest}
    torch.manual_seed(seed)
    with torch.device(device):
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config(shape), **ends), dtype=dtype
        )
    grouped.use(made)
    return made


def prepared(case: Case, spec: RunSpec, recompute: bool) -> ActiveRun:
    """The run, with models of random weights where checkpoints would be; who samples has no teacher, others no sampler.

    A sampler keeps memory of its own, and nobody's update is to be measured with it.
    """
    machine, found, longest = spec.params.machine, case.shapes(), case.prompt + case.response
    words, method = word_tokenizer(found["student"].vocabulary), methods.load("opd")
    student = random_model(found["student"], longest, 1, machine.device, torch.float32)
    sharding.place(student, machine, distributed.ALONE, needs_recompute=recompute)
    teacher = None
    if case.entrant != SAMPLING:
        teacher = random_model(found["teacher"], longest, 2, machine.device, sharding.compute_dtype(machine))
        sharding.place(teacher.requires_grad_(False).eval(), machine, distributed.ALONE)
    return ActiveRun(
        spec=spec,
        ranks=distributed.ALONE,
        method=method,
        options=method.Params(**spec.params.method_options),
        student=(student, words),
        teacher=teacher and (teacher, words),
        other=None,
        optimizer=setup.optimizer(student, spec.params.train),
        writer=None,
        sample=samplers.sampler(spec, student) if case.entrant == SAMPLING else rollout.sample,
    )


def given(case: Case, vocabulary: int, sequences: int, response: int) -> Rollouts:
    """The responses that everybody learns from."""
    draw = models.generator("timing", sequences, case.prompt, response)
    token_BL = torch.randint(3, vocabulary, (sequences, case.prompt + response), generator=draw)
    return as_rollouts(token_BL, case.prompt)


def sampling_steps(case: Case, run: ActiveRun) -> Iterator[dict[str, float]]:
    """The responses of a step, again and again; a few tokens of each before. `written`: their tokens."""
    rollouts = given(case, run.student[0].config.vocab_size, case.sequences, case.response)
    for number, limit in enumerate((WARM, *[case.response] * case.steps)):
        begin(run)
        uniform_BT = sampling.uniform((case.sequences, limit), models.generator("sampled", number))
        with run.timed("rollout"):
            found = run.sample(*run.student, rollouts.prompts, uniform_BT, 1.0, 1.0)
        if number:
            yield {"written": int(found.length_B.sum())}


def our_steps(case: Case, run: ActiveRun) -> Iterator[dict[str, float]]:
    """The loop's own update, each step; a short one before."""
    for number, (sequences, response) in enumerate(sizes(case)):
        rollouts = given(case, run.student[0].config.vocab_size, sequences, response)
        begin(run)
        row = train.update(run, rollouts, number + 2)  # the first step of a run would be diagnosed
        if number:
            yield {"written": sequences * response, "loss": row["loss"], "norm": row["grad_norm"]}


def sizes(case: Case) -> list[tuple[int, int]]:
    """How many responses of how many tokens: one short one, then those that are measured."""
    return [(1, WARM), *[(case.sequences, case.response)] * case.steps]


def begin(run: ActiveRun) -> None:
    """Count seconds and memory from here."""
    run.seconds.clear()
    peak(run)


def trl_steps(case: Case, run: ActiveRun) -> Iterator[dict[str, float]]:
    """An update by TRL's stable trainer, each step; a short one before."""
    student, teacher, machine = run.student[0], run.teacher and run.teacher[0], run.spec.params.machine
    assert isinstance(teacher, PreTrainedModel)
    rows = max(1, run.spec.params.train.micro_tokens // (case.prompt + case.response))
    found = peers.stable_trainer(
        student,
        teacher,
        rows,
        use_cpu=machine.device == "cpu",
        gradient_checkpointing=student.is_gradient_checkpointing,
    )
    autocast = torch.autocast(machine.device, sharding.compute_dtype(machine), enabled=machine.precision != "float32")
    student.train()
    vocabulary = student.config.vocab_size
    for number, (sequences, response) in enumerate(sizes(case)):
        rollouts, loss_sum = given(case, vocabulary, sequences, response), 0.0
        begin(run)
        prompt_BP = torch.tensor([prompt.token_ids for prompt in rollouts.prompts])
        token_BL = torch.cat([prompt_BP, rollouts.response_BT], 1).to(machine.device)
        for group in batches.micro_batches(rollouts, run.spec.params.train.micro_tokens):
            with run.timed("score"), autocast:
                inputs = peers.stable_form(token_BL[group], case.prompt, sequences * response)
                loss = found.compute_loss(student, inputs)
                loss_sum += loss.item()
            with run.timed("backward"):
                loss.backward()
        with run.timed("optimize"):
            norm = train.step_optimizer(run, rollouts, number + 1)
        if number:
            yield {"written": sequences * response, "loss": loss_sum, "norm": norm}


def peak(run: ActiveRun) -> float:
    """The most memory (GiB) since this was asked before: of the accelerator's tensors, or of this process.

    nan if it is not known.
    """
    if run.spec.params.machine.device == "cuda":
        found = torch.cuda.max_memory_allocated() / GIB
        torch.cuda.reset_peak_memory_stats()
        return found
    if not worker.STATUS.exists():
        return nan
    found = worker.resident("VmHWM") / 1024
    worker.forget()
    return found


def measure(case: Case) -> Iterator[dict[str, Any]]:
    """A row for each step: its seconds by stage, its peak of memory, loss and gradient norm, and what was asked.

    Raises ValueError for parameters that no run may have, a model of unknown shape, and for too little memory.
    """
    torch.set_num_threads(1)
    spec, found = case.spec(), case.shapes()
    machine = spec.params.machine
    free = memory.free(machine)
    recompute = memory.require(spec, found, free)
    planned = planned_gib(memory.needed(spec.params, found, free, recompute), case.entrant)
    run = prepared(case, spec, recompute)
    written_case = {name: value for name, value in asdict(case).items() if name != "steps"}
    written_case["overrides"] = json.dumps(case.overrides, sort_keys=True)
    facts = {"floor_s": floor(case, device_name(machine.device))} | provenance(machine.device)
    steps = {SAMPLING: sampling_steps, TRL: trl_steps}.get(case.entrant, our_steps)
    for number, row in enumerate(steps(case, run)):
        seconds = {f"{stage}_s": s for stage, s in run.seconds.items()}
        memories = {"peak_gib": peak(run), "reserved_gib": reserved(machine.device), "planned_gib": planned}
        how = {"recompute": recompute, "graphs_skipped": graphs_skipped()}
        yield written_case | {"step": number} | seconds | row | memories | how | facts


def planned_gib(needed: footprint.Memory, entrant: str) -> float:
    """What arithmetic says of our sampling, or of our update, alone (GiB); of others nothing (nan)."""
    if entrant == TRL:
        return nan
    if entrant == SAMPLING:
        return (needed.weights + needed.sampler + needed.cache) / GIB
    return (needed.weights + needed.optimizer + needed.frozen + needed.passes) / GIB


def reserved(device: str) -> float:
    """The most memory (GiB) that the framework has held of an accelerator so far, used or not; nan elsewhere."""
    return torch.cuda.max_memory_reserved() / GIB if device == "cuda" else nan


def graphs_skipped() -> int:
    """How often the compiler has left out a CUDA graph, of which it says nothing aloud."""
    compiler = sys.modules.get("torch._dynamo.utils")
    return int(compiler.counters["inductor"]["cudagraph_skips"]) if compiler else 0


def provenance(device: str) -> dict[str, str]:
    """When, where and with what."""
    versions = {package: metadata.version(package) for package in ("torch", "transformers")}
    versions["trl"] = metadata.version("trl") if find_spec("trl") else "none"
    day = datetime.now().astimezone().date().isoformat()
    return {"date": day, "device": device_name(device), "commit": commit()} | versions


if __name__ == "__main__":
    try:
        for measured in measure(Case(**json.loads(sys.argv[1]))):
            print(json.dumps(measured), flush=True)
    except ValueError as error:
        sys.exit(str(error))
