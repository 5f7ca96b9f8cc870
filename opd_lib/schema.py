"""The schema of a params file: one frozen, strict record per section. Every key is required, none may be added."""

from __future__ import annotations

import copy
import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from opd_lib import methods
from opd_lib.report.record import flatten
from opd_lib.tasks import chain

FILE_KEYS = ("title", "seeds", "arms")  # the keys of a params file that are not parameters of a run


class Strict(BaseModel):
    """A record that takes nothing it does not know and coerces nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Integers = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]


class NewModel(Strict):
    """A randomly initialised Qwen3 model of the tiny world."""

    layers: Count
    hidden: Count
    heads: Count
    context: Count
    rope_theta: Positive
    initializer_range: Positive


class Task(Strict):
    """What is asked: training content and template, test sets and their template."""

    name: Literal["chain"]
    content: str
    template: str
    test_sets: Words
    test_template: str


class Sampled(Strict):
    """Responses sampled from the student (on-policy) or from the teacher (off-policy)."""

    kind: Literal["student", "teacher"]
    prompts_per_step: Count
    per_prompt: Count
    max_new_tokens: Count
    temperature: Positive
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]


class Corpus(Strict):
    """Responses written by the corpus generator of the tiny world."""

    kind: Literal["corpus"]
    prompts_per_step: Count
    templates: Words
    pattern_b: Probability
    filler_before_step: Probability
    filler_anywhere: Probability
    slip_operands: Integers
    slip_probability: Probability


class Train(Strict):
    """Optimisation: AdamW. `warmup` and `decay` are steps of linear ramp at the start and at the end."""

    steps: Count
    lr: Positive
    warmup: Annotated[int, Field(ge=0)]
    decay: Annotated[int, Field(ge=0)]
    beta1: Probability
    beta2: Probability
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_grad_norm: Positive
    micro_tokens: Count
    checkpoint_every: Count


class Evaluate(Strict):
    """avg@n_samples on n_problems of every test set, at step 0, every `every` steps and at the end."""

    every: Count
    n_problems: Count
    n_samples: Count
    temperature: Positive
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    max_new_tokens: Count


class Diagnose(Strict):
    """Diagnostics at each top-k in `ks`; `depth_bucket` in tokens; `examples`: responses kept at each evaluation."""

    ks: Integers
    depth_bucket: Count
    examples: Annotated[int, Field(ge=0)]


class Machine(Strict):
    """Where it runs; not part of a run's identity."""

    processes: Count
    device: str


def _kind_of_student(value: object) -> str:
    return "new model" if isinstance(value, dict | NewModel) else "checkpoint"


Student = Annotated[
    Annotated[str, Tag("checkpoint")] | Annotated[NewModel, Tag("new model")], Discriminator(_kind_of_student)
]


class RunParams(Strict):
    """Everything that determines a run but its seed and its parents' weights."""

    task: Task
    student: Student
    teacher: str | None
    source: Annotated[Sampled | Corpus, Field(discriminator="kind")]
    method: Annotated[dict[str, Any], Field(min_length=1)]
    train: Train
    evaluate: Evaluate
    diagnose: Diagnose
    machine: Machine

    @property
    def method_options(self) -> dict[str, Any]:
        """The method's options, without its name."""
        return {key: value for key, value in self.method.items() if key != "name"}


def plain(tree: Any) -> Any:
    """ruamel's containers and numbers as plain Python ones."""
    if isinstance(tree, dict):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    if isinstance(tree, float):
        return float(tree)
    return tree


def explain(error: ValidationError, prefix: tuple[str, ...], raw: Any, arm: str, source: Path) -> str:
    """Every problem on a line of its own: file, line, key, value, remedy."""
    lines = []
    for item in error.errors():
        location = [str(key) for key in (*prefix, *item["loc"]) if key not in ("checkpoint", "new model")]
        if location[:1] == ["source"] and len(location) > 1:
            location.pop(1)  # pydantic names the kind of source, which is no key of the file
        path = ".".join(location)
        where = f"{source}, line {_line(raw, arm, location)}, arm {arm}: {path}"
        if item["type"] == "missing":
            lines.append(f"{where}: missing; every key is required")
        elif item["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(location[-1], _known_keys(location[:-1]), n=1)
            lines.append(f"{where}: unknown key{f'; did you mean {nearest[0]}?' if nearest else ''}")
        else:
            lines.append(f"{where}: {item['input']!r}: {item['msg']}")
    return "\n".join(lines)


def _known_keys(section: list[str]) -> list[str]:
    """The keys a section may have."""
    if not section:
        return [*RunParams.model_fields, *FILE_KEYS]
    if section[0] == "method":
        return sorted({key for name in methods.names() for key in methods.load(name).Params.model_fields})
    annotation = RunParams.model_fields[section[0]].annotation if section[0] in RunParams.model_fields else None
    kinds = [annotation, *getattr(annotation, "__args__", ())]
    return sorted({key for kind in kinds for key in getattr(kind, "model_fields", {})})


def _line(raw: Any, arm: str, location: list[str]) -> int:
    """The line (from 1) of a key, of the arm's override of it, or of the nearest section that stands in the file."""
    changes: Any = (raw.get("arms") or {}).get(arm) or {}
    for n in range(len(location), 0, -1):
        path = ".".join(location[:n])
        if path in changes:
            return int(changes.lc.key(path)[0]) + 1
    node: Any = raw
    line = 0
    for key in location:
        if not isinstance(node, dict) or key not in node:
            break
        line = node.lc.key(key)[0] if hasattr(node, "lc") else line
        node = node[key]
    return int(line) + 1


def replace_at(tree: Any, path: str, value: Any, where: str) -> None:
    """Put `value` at a dotted path that must exist."""
    *parents, last = path.split(".")
    node = tree
    for key in (*parents, last):
        if not isinstance(node, dict) or key not in node:
            nearest = difflib.get_close_matches(path, flatten(tree), n=1)
            raise ValueError(f"{where}: {path}: unknown key{f'; did you mean {nearest[0]}?' if nearest else ''}")
        parent, node = node, node[key]
    parent[last] = copy.deepcopy(value)


def check_task(params: RunParams) -> None:
    """Refuse names the tiny world does not have, and diagnostics that cannot be."""
    task, vocabulary = params.task, len(chain.VOCABULARY)
    templates = params.source.templates if params.source.kind == "corpus" else ()
    for key, value, known in [
        ("task.content", task.content, tuple(chain.CONTENTS)),
        *(("task.template", template, chain.TEMPLATES) for template in (task.template, task.test_template, *templates)),
    ]:
        if value not in known:
            raise ValueError(f"{key}: {value!r} is unknown; choose from {', '.join(known)}")
    for test_set in task.test_sets:
        chain.held_out_questions(test_set, 0)
    for k in params.diagnose.ks:
        if not 1 <= k <= vocabulary:
            raise ValueError(f"diagnose.ks: {k} is impossible with {vocabulary} tokens; use 1 ≤ k ≤ {vocabulary}")
