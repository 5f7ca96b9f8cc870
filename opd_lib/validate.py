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

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from opd_lib import methods, refusals
from opd_lib.report.record import flatten
from opd_lib.schema import FILE_KEYS, RunParams

MAX_SEED = 999  # 0–99 are judged, 100–999 are for calibration
STUDENTS = ("checkpoint", "new model", "new text model", "merged")  # pydantic's names for the kinds of student
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
        refusals.check(params, method, options)
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
        location = [str(key) for key in (*prefix, *item["loc"]) if key not in STUDENTS]
        if location[:1] in (["task"], ["source"], ["probe"]) and len(location) > 1:
            location.pop(1)  # pydantic names the kind of task, source or probe, which is no key of the file
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
    """Put `value` at a dotted path: one that is there, or a key of the schema that the file leaves out."""
    *parents, last = path.split(".")
    node = tree
    for key in (*parents, last):
        if key == last and isinstance(node, dict) and last in _known_keys(parents):
            node[last] = copy.deepcopy(value)
            return
        if not isinstance(node, dict) or key not in node:
            nearest = difflib.get_close_matches(path, flatten(tree), n=1)
            raise ValueError(f"{where}: {path}: unknown key{f'; did you mean {nearest[0]}?' if nearest else ''}")
        parent, node = node, node[key]
    parent[last] = copy.deepcopy(value)
