"""Turning what a params file says into records, or into one clear error: file, line, arm, key, value, remedy.

Where torch is not installed, records can be read and nothing can be trained: there, whatever must be asked of a method
that is written in torch goes unchecked.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from opd_lib import methods, tasks
from opd_lib.report.record import flatten
from opd_lib.schema import FILE_KEYS, Corpus, Probe, RunParams
from opd_lib.tasks import chain

MAX_SEED = 999  # 0–99 are judged, 100–999 are for calibration
SHAPES = {str: "text", list: "list with at least one entry", dict: "mapping with at least one entry"}


def read(source: Path) -> Any:
    """A params file as it stands. Raises ValueError naming the file if it is missing or no mapping."""
    if not source.exists():
        present = sorted(path.stem for path in source.parent.glob("*.yaml"))
        raise ValueError(f"{source}: no such params file; this profile has {', '.join(present) or 'none'}")
    try:
        raw = YAML().load(source)
    except YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{source}: expected a mapping of keys, found {type(raw).__name__}")
    return raw


def validate(resolved: dict[str, Any], raw: Any, arm: str, source: Path) -> RunParams:
    """The parameters of one arm. Raises ValueError naming file, line, arm, key, value and remedy."""
    try:
        params = RunParams.model_validate(plain(resolved))
    except ValidationError as error:
        raise ValueError(explain(error, (), raw, arm, source)) from None
    try:
        method = load_method(str(params.method.get("name")))
    except ValueError as error:
        raise ValueError(f"{source}, arm {arm}: {error}") from None
    variants: dict[tuple[str, ...], dict[str, Any]] = {("method",): {}}  # where options stand → what they change
    if against := getattr(params.probe, "against", {}):
        variants["probe", "gradient", "against"] = against
    options = []
    for prefix, changes in variants.items():
        try:
            options += [method.Params.model_validate(params.method_options | changes)] if method else []
        except ValidationError as error:
            raise ValueError(explain(error, prefix, raw, arm, source)) from None
    try:
        check_task(params)
        if method:
            check_method(params, method, options)
        if method and params.probe is not None:
            check_probe(params, params.probe, method)
    except ValueError as error:
        raise ValueError(f"{source}, arm {arm}: {error}") from None
    return params


def load_method(name: str) -> methods.Method | None:
    """The method of this name; None if it needs torch and torch is not installed. Raises ValueError if unknown."""
    try:
        return methods.load(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None


def check_method(params: RunParams, method: methods.Method, options: Sequence[BaseModel]) -> None:
    """Refuse a method without what it needs, and what the method itself refuses in any of these options."""
    if params.teacher is None and ("teacher" in method.needs or params.source.kind == "teacher"):
        raise ValueError(f"teacher: null, but method {method.name} with source {params.source.kind} needs one; name it")
    if params.machine.processes > params.source.prompts_per_step:
        raise ValueError(
            f"machine.processes: {params.machine.processes} for {params.source.prompts_per_step} prompts per step; "
            "each process needs at least one prompt"
        )
    if params.source.kind == "student" and (params.source.temperature != 1.0 or params.source.top_p < 1.0):
        raise ValueError(
            f"source: temperature {params.source.temperature:g}, top_p {params.source.top_p:g}: on-policy gradients "
            "take the samples for the student's own; use temperature: 1.0 and top_p: 1.0 with kind: student"
        )
    if "reward" in method.needs and (params.source.kind != "student" or params.source.per_prompt < 2):
        raise ValueError(
            f"source.kind: {params.source.kind}, but method {method.name} compares rewards of the student's own "
            "responses to one prompt; use kind: student with per_prompt of at least 2"
        )
    if method.check is not None and params.task.name == "chain":  # elsewhere the vocabulary is known once it is loaded
        for each in options:
            method.check(each, len(chain.VOCABULARY), params.teacher is not None)


def check_probe(params: RunParams, probe: Probe, method: methods.Method) -> None:
    """Refuse a probe of what does not exist, of responses of others, or whose answer would be empty or trivial."""
    if params.teacher is None or not isinstance(params.student, str):
        raise ValueError("probe: it compares two checkpoints; name both student and teacher")
    if params.source.kind != "student":
        raise ValueError(f"source.kind: {params.source.kind}, but a probe reads the student's responses; use student")
    if params.source.schedule:
        raise ValueError("source.schedule: a probe has no steps; write schedule: [] and one max_new_tokens")
    if params.machine.processes != 1:
        raise ValueError(f"machine.processes: {params.machine.processes}, but a probe runs in one process; use 1")
    if probe.kind == "teachers" and probe.other == params.teacher:
        raise ValueError(f"probe.other: {probe.other} is the teacher itself; name another checkpoint")
    if probe.kind == "continuation" and not 0 <= min(probe.depths) <= max(probe.depths) < params.source.max_new_tokens:
        raise ValueError(
            f"probe.depths: {list(probe.depths)} with responses of at most {params.source.max_new_tokens} tokens; "
            "use depths from 0 to below source.max_new_tokens"
        )
    if probe.kind == "gradient" and ("teacher" not in method.needs or params.source.prompts_per_step < 2):
        raise ValueError(
            f"probe: the gradient probe halves a batch of prompts and asks what the teacher does; method is "
            f"{method.name} with {params.source.prompts_per_step} prompts per step; distil, on 2 prompts at least"
        )


def check_file(raw: dict[str, Any], source: Path) -> None:
    """Refuse a file whose title, seeds or arms are missing or of the wrong type."""
    kinds = {"title": str, "seeds": list, "arms": dict}
    for key, kind in kinds.items():
        if key not in raw:
            raise ValueError(f"{source}: {key}: missing; every key is required")
        if not isinstance(raw[key], kind) or not raw[key]:
            raise ValueError(f"{source}, line {_line(raw, '', [key])}: {key}: {raw[key]!r}: write a {SHAPES[kind]}")
    for arm, changes in raw["arms"].items():
        if not isinstance(changes, dict):
            raise ValueError(
                f"{source}: arms.{arm}: {changes!r}: write a mapping of dotted keys to values, {{}} for none"
            )


def check_seeds(seeds: Sequence[object], source: Path) -> None:
    """Refuse seeds that are no whole numbers from 0 to MAX_SEED, or that come twice."""
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"{source}: seeds: {seed!r} is out of range; use whole numbers from 0 to {MAX_SEED}")
    if len(set(seeds)) < len(seeds) or not seeds:
        raise ValueError(f"{source}: seeds: {list(seeds)}: name at least one, and each once")


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
        if location[:1] in (["source"], ["probe"]) and len(location) > 1:
            location.pop(1)  # pydantic names the kind of source or probe, which is no key of the file
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
        known = [load_method(name) for name in methods.names()]
        return sorted({key for method in known if method for key in method.Params.model_fields})
    kinds: list[Any] = [RunParams.model_fields[section[0]].annotation if section[0] in RunParams.model_fields else None]
    for kind in kinds:
        kinds += getattr(kind, "__args__", ())  # unions and annotated types hold their parts there
    return sorted({key for kind in kinds for key in getattr(kind, "model_fields", {})})


def _line(raw: Any, arm: str, location: list[str]) -> int:
    """The line (from 1) of a key, of the arm's override of it, or of the nearest section that stands in the file."""
    arms = raw.get("arms")
    changes: Any = (arms.get(arm) if isinstance(arms, dict) else None) or {}
    for n in range(len(location), 0, -1):
        path = ".".join(location[:n])
        if path in changes and path in changes.lc.data:
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
    """Refuse names the task does not have, and evaluations and diagnostics that cannot be."""
    tasks.load(params.task.name).check(params.task)
    if params.source.kind == "corpus":
        check_corpus(params, params.source)
    for cap in params.evaluate.caps:
        if not 1 <= cap <= params.evaluate.max_new_tokens:
            raise ValueError(f"evaluate.caps: {cap} is no lower limit than max_new_tokens: use 1 ≤ cap ≤ that")
    steps = [entry.step for entry in getattr(params.source, "schedule", ())]
    if steps != sorted(set(steps)) or any(step > params.train.steps for step in steps):
        raise ValueError(f"source.schedule: steps {steps}: name each once, in order, none beyond train.steps")
    vocabulary = len(chain.VOCABULARY) if params.task.name == "chain" else None
    for k in params.diagnose.ks:
        if k < 1 or (vocabulary and k > vocabulary):
            raise ValueError(f"diagnose.ks: {k} is impossible with {vocabulary} tokens; use 1 ≤ k ≤ {vocabulary}")


def check_corpus(params: RunParams, source: Corpus) -> None:
    """Refuse a corpus of the tiny world for another task, and templates it does not have."""
    if params.task.name != "chain":
        raise ValueError(
            f"source.kind: corpus, but only the tiny world writes one, and task.name is {params.task.name}"
        )
    for template in source.templates:
        if template not in chain.TEMPLATES:
            raise ValueError(f"source.templates: {template!r} is unknown; choose from {', '.join(chain.TEMPLATES)}")
