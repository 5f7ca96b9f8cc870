"""Every number of a params file has bounds: what is not finite, absurd, blank, twice or missing is refused, not run."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS, OPD, RUN
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from opd_lib import methods, params, paths
from opd_lib.params import refusals
from opd_lib.params.schema import FILE_KEYS, RunParams

BASE = {key: value for key, value in RUN.items() if key not in FILE_KEYS} | {"method": OPD, "teacher": "org/name"}
STUDENT, PROBED = BASE["student"], {"student": "a/b"}
MATH = {
    "name": "math", "content": "dapo", "other_content": "dapo", "other_share": 0.0, "template": "original",
    "test_sets": ["aime24"], "test_template": "original", "thinking": False, "max_prompt_tokens": 1024, "data": None,
}  # fmt: skip
TRACES = {
    "kind": "traces", "prompts_per_step": 4, "operator_weights": [1.0, 1.0, 1.0, 0.5], "pattern_b": {"T1": 0.1},
    "filler_offset": 4.0, "filler_before_step": 0.25, "filler_anywhere": 0.01, "slip_operands": [3], "recheck": [0.3],
    "slip_probability": 0.5, "recheck_slip": 0.5,
}  # fmt: skip
TAGGED = TRACES | {
    "kind": "tagged", "asked": {"plain": 1.0, "hint": 0.5}, "wrong": 0.1, "skip": 0.1, "hedge": 0.1, "stray": 0.1,
}  # fmt: skip
LABELLED = BASE["task"] | {"name": "labelled", "operator_weights": [1.0, 1.0, 1.0, 1.6]}
ASKED = LABELLED | {"name": "tagged", "asks": "{question}", "demand": "key", "keys": 4}
MIXTURE = {"kind": "mixture", "batches": 1, "shows": "{question} {key}", "hedges": ["wait"]}
SCHEDULE = [{"step": 2, "max_new_tokens": 4}]
KINDS: dict[str, dict[str, Any]] = {
    "sampled": {"source": BASE["source"] | {"schedule": SCHEDULE}},
    "corpus": {"source": CORPUS},
    "traces": {"source": TRACES, "task": LABELLED},
    "tagged": {"source": TAGGED, "task": ASKED},
    "answers": {"source": {"kind": "answers", "prompts_per_step": 4}, "task": MATH},
    "stored": {"source": {"kind": "stored", "rollouts": "run:00_models/x", "prompts_per_step": 4}},
    "text model": {"student": STUDENT | {"vocabulary": 512}},
    "teachers": {"probe": {"kind": "teachers", "batches": 1, "other": "org/other"}},
    "continuation": {"probe": {"kind": "continuation", "batches": 1, "depths": [0, 4], "new_tokens": 4}},
    "gradient": {"probe": {"kind": "gradient", "batches": 1, "tokens": 8, "against": {}}},
    "prefix": {"probe": {"kind": "prefix", "batches": 1, "revision": ["wait"]}, "task": LABELLED},
    "mixture": {
        "probe": {"kind": "mixture", "batches": 1, "shows": "{question} {key}", "hedges": ["wait"]},
        "task": ASKED,
    },
    "rollouts": {"probe": {"kind": "rollouts", "batches": 1, "attempts": 1}},
}
OBJECTIVE = {key: value for key, value in OPD.items() if key != "name"}
GROUPS = {"normalize_std": True, "epsilon": 1e-6}
METHODS: dict[str, dict[str, Any]] = {
    "blind": {"loss": "advantage", "k": 4, "control": True},
    "brts": OBJECTIVE
    | {"part": "student", "coef": 0.5, "candidates": 4, "temperature": 1.0, "top_p": 0.9, "hint": ""}
    | {"similar_k": 4},
    "eff_opd": OBJECTIVE | {"k_max": 4, "tried": 8},
    "filled": {"k": 4, "stop_gradient": True},
    "grpo": GROUPS,
    "opd": OBJECTIVE,
    "opsd": OBJECTIVE | {"shows": "{question} {answer}", "decay": 0.5},
    "opsdc": OBJECTIVE | {"shows": "{question} {answer}", "decay": 0.5, "renew": 4},
    "own": {"source": "", "k": 4, "options": {}},
    "prune": OBJECTIVE
    | {"overlap_k": 4, "threshold": 0.5, "drop": 0.5, "base": 0.5, "limit_start": 8, "limit_least": 4, "limit_most": 16}
    | {"limit_step": 2, "margin": 1, "hit_share": 0.5, "patience": 2},
    "sod": GROUPS | {"outcome": True, "coef": 0.5, "delta": 0.5, "smooth": 1e-3},
    "stable": OBJECTIVE | {"near": 0.5, "golden": 0.5, "corpus": {}},
    "uni_opd": {"route": {}, "margin": 0.5, "balance": True, "extreme": 5.0},
    "vopd": {"baseline": "topk", "k": 4},
}  # fmt: skip
WITHOUT_NUMBERS: dict[str, dict[str, Any]] = {"sft": {}, "simct": {"units": "simct"}}
NO_FLOATS = (math.inf, -math.inf, math.nan, -1.0, 1e30, True, "1")
NO_INTEGERS = (10**10, int(1e30), -1, 2.0, math.inf, True, "1")
UNBOUNDED = {"train.lr"}  # from above: a rate that is too large diverges, which is an error of the run


def numbers(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every number, in lists too."""
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from numbers(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, node


def replaced(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The tree with another value at a dotted path."""
    found = copy.deepcopy(tree)
    *parents, last = path.split(".")
    node: Any = found
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    node[int(last) if isinstance(node, list) else last] = value
    return found


def is_refused(model: type[BaseModel], content: dict[str, Any]) -> bool:
    try:
        model.model_validate(content)
    except ValidationError:
        return True
    return False


def require_refused(model: type[BaseModel], content: dict[str, Any]) -> None:
    model.model_validate(content)
    found = list(numbers({key: value for key, value in content.items() if key not in ("method", "against")}))
    assert found
    for path, value in found:
        for wrong in NO_FLOATS if isinstance(value, float) else NO_INTEGERS:
            if path in UNBOUNDED and wrong == 1e30:
                continue
            assert is_refused(model, replaced(content, path, wrong)), f"{path}: {wrong!r} was taken"
        if isinstance(value, float):
            model.model_validate(replaced(content, path, value))


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_every_section_is_finite_and_bounded(kind: str) -> None:
    require_refused(RunParams, BASE | KINDS[kind])


@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_every_method_is_finite_and_bounded(name: str) -> None:
    require_refused(methods.load(name).Params, METHODS[name])


def test_every_method_is_among_them_or_has_no_numbers() -> None:
    assert sorted([*METHODS, *WITHOUT_NUMBERS]) == sorted(methods.names())
    for name, content in WITHOUT_NUMBERS.items():
        said = methods.load(name).Params.model_validate(content).model_dump()
        assert said == content and not list(numbers(said)), name


FILES = sorted(paths.PARAMS.glob("*/[0-9]*.yaml"))


def test_every_section_that_a_committed_file_has_is_among_the_kinds() -> None:
    seen = {arm.source.kind for path in FILES for arm in params.load(path.stem, path.parent.name).arms.values()}
    assert seen <= {"student", "teacher", "corpus", "traces", "tagged", "answers", "stored"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.lr", math.inf, "inf: .*finite"),
        ("train.lr", math.nan, "nan: .*finite"),
        ("train.lr", 1e-300, "1e-300: .*greater than"),
        ("train.steps", int(1e30), "whole number of more than 63 bits"),
        ("train.steps", 1e30, r"1e\+30: .*valid integer"),
        ("train.steps", 10**10, "10000000000: .*less than or equal to 1000000000"),
        ("train.weight_decay", math.inf, "inf: .*finite"),
        ("train.max_grad_norm", math.inf, "inf: .*finite"),
        ("machine.memory_gib", math.inf, "inf: .*finite"),
        ("machine.hours", math.inf, "inf: .*finite"),
        ("machine.hours", 1e6, "less than or equal to 100000"),
        ("machine.teacher_url", "http:// x", "pattern"),
        ("evaluate.temperature", 1e-38, "1e-38: .*greater than or equal to 0.01"),
        ("source.temperature", 1e-38, "1e-38: .*greater than or equal to 0.01"),
        ("evaluate.top_p", 1e-30, "1e-30: .*greater than"),
        ("source.prompts_per_step", 10**9, "less than or equal to 1000000"),
        ("source.max_new_tokens", 10**9, "less than or equal to 10000000"),
        ("evaluate.caps", [4, 4], r"\[4, 4\]: 4 comes twice; name each once"),
        ("evaluate.caps", [0], "greater than or equal to 1"),
        ("diagnose.ks", [4, 4], r"\[4, 4\]: 4 comes twice; name each once"),
        ("diagnose.ks", [], "at least 1 item"),
        ("diagnose.ks", [10**10], "less than or equal to 1000000000"),
        ("task.test_sets", ["chain-3", "chain-3"], "chain-3, chain-3: name each once"),
        ("task.test_sets", [], "at least 1 item"),
        ("task.test_sets", ["chain-03"], "'chain-03' is not a test set"),
        ("task.test_sets", ["chain-²"], "'chain-²' is not a test set"),
        ("task.test_sets", ["chain-9999"], "'chain-9999' is not a test set; write chain-N, 3 ≤ N ≤ 100"),
        ("source", CORPUS | {"templates": ["T1", "T1"]}, "'T1' comes twice"),
        ("source", CORPUS | {"slip_operands": [3, 3]}, "3 comes twice"),
        ("source", CORPUS | {"slip_operands": [12]}, "slip_operands: 12 is no digit"),
        ("student", "", "student: '': names no checkpoint; write a folder, org/name, gguf:FILE, or run:"),
        ("student", " \t", "names no checkpoint"),
        ("student", "org/name ", "without blanks at its ends"),
        ("student", "org/na\nme", "without blanks at its ends, line breaks"),
        ("teacher", "", "teacher: '': names no checkpoint"),
        ("teacher", "run:", "teacher: 'run:': is no run; write run:NOTEBOOK/ARM"),
        ("teacher", "run:00_models/x@y", "teacher: 'run:00_models/x@y': 'y' is no seed; write run:NOTEBOOK/ARM@0"),
        ("student", STUDENT | {"hidden": 16, "heads": 3}, "hidden: 16 for 3 heads; use a multiple of 6"),
        ("student", STUDENT | {"context": 10**9}, "less than or equal to 10000000"),
        ("student", STUDENT | {"layers": 10**6}, "less than or equal to 1000"),
        ("student", STUDENT | {"rope_theta": 1e-300}, "greater than or equal to 1"),
        ("probe", {"kind": "continuation", "batches": 1, "depths": [1, 1], "new_tokens": 4}, "1 comes twice"),
        ("probe", {"kind": "teachers", "batches": 1, "other": ""}, "other: '': names no checkpoint"),
        ("seeds", [0, int(1e30)], "whole number of more than 63 bits"),
        ("title", "  ", "title: '  ': write a text"),
    ],
)
def test_the_error_names_file_key_value_and_remedy(world: Path, path: str, value: Any, message: str) -> None:
    file = world / "params" / "tiny" / "01_opd.yaml"
    content = YAML().load(file)
    with file.open("w") as opened:
        YAML().dump(replaced(content, path, value), opened)
    with pytest.raises(ValueError, match=message) as error:
        params.load("01_opd", results=world / "results", root=world / "params")
    assert str(file) in str(error.value) and not (world / "results").exists()


@pytest.mark.parametrize("data", ["", "  ", "a\nb"])
def test_a_folder_of_data_that_is_none_is_refused(data: str) -> None:
    content = BASE | {"task": MATH | {"data": data}, "student": "a/b"}
    with pytest.raises(ValueError, match=r"task\.data: .* is no folder; name one, or write null"):
        refusals.check_task(RunParams.model_validate(content))
