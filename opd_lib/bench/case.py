"""What `opd time` times: a pair of models, how many responses of which length, who makes the step, and its floor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import nan
from pathlib import Path
from typing import Any

from opd_lib import params
from opd_lib.bench.entrants import OBJECTIVES, K
from opd_lib.bench.targets import TRL
from opd_lib.forecast import cost, hardware, shapes
from opd_lib.forecast.shapes import Shape
from opd_lib.params.spec import RunSpec

NOTEBOOK, ARM, PROFILE = "04_success_and_failure", "large_success", "paper"
SAMPLING = "ours, sampling"
ENTRANTS = {SAMPLING: "published", **{f"ours, {name}": name for name in OBJECTIVES}, TRL: "reverse KL"}
"""entrant → its objective (sampling has none of its own)"""
NEVER = 10**9
"""Steps from one evaluation, or diagnosis, to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is timed. `student` and `teacher`: hub names or folders with a config.json; `overrides`: of params.

    Tokens of each prompt and of each response; `sequences` of these in a step.
    """

    entrant: str
    student: str
    teacher: str
    response: int
    sequences: int = 256
    prompt: int = 150
    steps: int = 1
    overrides: dict[str, Any]

    def require(self) -> None:
        """Raise ValueError for what cannot be timed: an entrant, a model or parameters that nobody knows."""
        if self.entrant not in ENTRANTS:
            raise ValueError(f"entrant: {self.entrant!r} is not known; choose from {', '.join(ENTRANTS)}")
        self.shapes()
        self.spec()

    def shapes(self) -> dict[str, Shape]:
        """role → shape, both with the shorter vocabulary of the two, as checkpoints of one family are cut when loaded.

        Raises ValueError for a model of unknown shape.
        """
        found = {"student": shape_of(self.student), "teacher": shape_of(self.teacher)}
        vocabulary = min(shape.vocabulary for shape in found.values())
        return {role: replace(shape, vocabulary=vocabulary) for role, shape in found.items()}

    def spec(self) -> RunSpec:
        """The run whose step it is. Raises ValueError for parameters that no run may have."""
        mine = {
            "method": {"name": "opd"} | OBJECTIVES[ENTRANTS[self.entrant]],
            "source.prompts_per_step": self.sequences,
            "source.per_prompt": 1,
            "source.max_new_tokens": self.response,
            "task.max_prompt_tokens": self.prompt,
            "train.steps": NEVER,
            "evaluate.every": NEVER,
            "evaluate.max_new_tokens": self.response,
            "evaluate.caps": [],
            "machine.processes": 1,
            "machine.shard": False,
            "machine.sampler": "vllm" if find_spec("vllm") else "compiled",
            "machine.diagnose_every": NEVER,
        }
        return params.load(NOTEBOOK, PROFILE, mine | self.overrides).spec(ARM, 0)


def installed() -> list[str]:
    """The entrants whose packages are there."""
    return [name for name in ENTRANTS if name != TRL or find_spec("trl")]


def shape_of(name: str) -> Shape:
    """The shape of a checkpoint, by its folder or its hub name. Raises ValueError if it is not known."""
    config = Path(name) / "config.json"
    return hardware.shape_in(config) if config.is_file() else hardware.shape_of(name)


def config(shape: Shape) -> dict[str, Any]:
    """What a config.json says of a shape: the inverse of `shapes.shape`."""
    found = {
        "model_type": "qwen3" if shape.qk_norm else "qwen2",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "head_dim": shape.head_dim,
    } | ({"attention_bias": shape.qkv_bias} if shape.qk_norm else {})
    assert shapes.shape(found) == shape
    return found


def floor(case: Case, device: str) -> float:
    """Seconds below which nobody can sample, or update, on this device (nan for one whose figures are not known).

    Eq. 5 asks the teacher for k tokens at each position, which is next to nothing of its head.
    """
    machine, found = hardware.accelerator(device), case.shapes()
    if machine is None:
        return nan
    batch = cost.Batch(
        prompts=case.sequences, per_prompt=1, prompt=case.prompt, mean=case.response, longest=case.response
    )
    head: cost.Head = "support" if ENTRANTS[case.entrant] == "Eq. 5" else "stored"
    step = cost.Step(student=found["student"], teacher=found["teacher"], batch=batch, head=head, k=K)
    least = cost.floor(step, machine)
    unasked = 2.0 * found["teacher"].head * batch.response_tokens / machine.peak if head == "support" else 0.0
    return least.rollout if case.entrant == SAMPLING else least.teacher - unasked + least.student
