"""Turning what a params file says into records, or into one clear error: file, line, arm, key, value, remedy.

Where torch is not installed, records can be read and nothing can be trained: there, whatever must be asked of a method
that is written in torch goes unchecked.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from opd_lib import methods, names, yaml_files
from opd_lib.inputs import shown
from opd_lib.params import refusals
from opd_lib.params.schema import FILE_KEYS, RunParams
from opd_lib.tasks import prompts
from opd_lib.yaml_files import plain

MAX_SEED = 999  # 0–99 are judged, 100–999 are for calibration
KINDS = ("checkpoint", "new model", "new text model", "merged", "teachers by name")  # of a student, or of teachers
SHAPES = {str: "text", list: "list with at least one entry", dict: "mapping with at least one entry"}


def read(source: Path) -> Any:
    """The params file at ROOT/PROFILE/NOTEBOOK.yaml as it stands.

    Raises ValueError naming the file if it is missing or no mapping, and where it is missing what there is instead.
    """
    present = sorted(path.stem for path in source.parent.glob("*.yaml"))
    if source.stem not in present:
        raise ValueError(f"{source}: no such params file; {_instead(source, present)}")
    raw = yaml_files.read(source)
    if not isinstance(raw, dict):
        raise ValueError(f"{source}: expected a mapping of keys, found {type(raw).__name__}")
    return raw


def profiles(root: Path, notebook: str = "*") -> tuple[str, ...]:
    """The profiles that have params of a notebook, or of any. Raises nothing."""
    return tuple(sorted({path.parent.name for path in root.glob(f"*/{notebook}.yaml") if path.stem[0].isdigit()}))


def _instead(source: Path, present: Sequence[str]) -> str:
    """What there is instead of a params file that is missing."""
    root, profile = source.parents[1], source.parent.name
    if not source.parent.is_dir():
        return f"no such profile {profile}; choose from {', '.join(profiles(root))}"
    others = [other for other in profiles(root, source.stem) if other != profile]
    elsewhere = f"; {source.stem} is at {', '.join(others)}" if others else ""
    return f"this profile has {', '.join(present) or 'none'}{elsewhere}"


def validate(resolved: dict[str, Any], raw: Any, arm: str, source: Path, is_overridden: bool = False) -> RunParams:
    """The parameters of one arm.

    Raises ValueError naming file, line, arm, key, value and remedy; where `is_overridden`, overrides are what is wrong
    and are named in the place of file and line.
    """
    where = blamed(arm, source) if is_overridden else f"{source}, arm {arm}"
    explained = partial(explain, raw=raw, arm=arm, source=source, is_overridden=is_overridden)
    try:
        params = RunParams.model_validate(plain(resolved), context={prompts.FOLDER: source.parent})
    except ValidationError as error:
        raise ValueError(explained(error, ())) from None
    try:
        method = load_method(str(params.method.get("name")))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    variants: dict[tuple[str, ...], dict[str, Any]] = {("method",): {}}  # where options stand → what they change
    if against := getattr(params.probe, "against", {}):
        variants["probe", "gradient", "against"] = against
    options = []
    for prefix, changes in variants.items():
        try:
            options += [method.Params.model_validate(params.method_options | changes)] if method else []
        except ValidationError as error:
            raise ValueError(explained(error, prefix)) from None
    try:
        refusals.check(params, method, options)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return params


def blamed(arm: str, source: Path) -> str:
    """Where overrides go wrong: at an arm of a notebook, whatever file that is in."""
    return f"overrides, arm {arm} of {source.stem}"


def load_method(name: str) -> methods.Method | None:
    """The method of this name; None if it needs torch and torch is not installed. Raises ValueError if unknown."""
    try:
        return methods.load(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None


def check_file(raw: dict[str, Any], source: Path) -> None:
    """Refuse a file whose title, seeds or arms are missing, of the wrong type or, of arms, no names."""
    kinds = {"title": str, "seeds": list, "arms": dict}
    for key, kind in kinds.items():
        if key not in raw:
            raise ValueError(f"{source}: {key}: missing; every key is required")
        if not isinstance(raw[key], kind) or not raw[key] or not str(raw[key]).strip():
            where = f"{source}, line {_line(raw, '', [key])}: {key}"
            raise ValueError(f"{where}: {shown(raw[key])}: write a {SHAPES[kind]}")
    names.require_distinct(raw["arms"], "arm", f"{source}: arms")
    for arm, changes in raw["arms"].items():
        names.require(arm, "arm", f"{source}, line {_line(raw, '', ['arms', arm])}: arms")
        if not isinstance(changes, dict):
            raise ValueError(
                f"{source}: arms.{arm}: {changes!r}: write a mapping of dotted keys to values, {{}} for none"
            )


def check_seeds(seeds: Sequence[object], source: Path | None) -> tuple[int, ...]:
    """The seeds of a file, or (None) those a caller asks for.

    Raises ValueError unless they are whole numbers from 0 to MAX_SEED, each once.
    """
    where = "seeds" if source is None else f"{source}: seeds"
    found = []
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"{where}: {shown(seed)} is out of range; use whole numbers from 0 to {MAX_SEED}")
        found.append(int(seed))
    if len(set(found)) < len(found) or not found:
        raise ValueError(f"{where}: {shown(found)}: name at least one, and each once")
    return tuple(found)


def explain(
    error: ValidationError, prefix: tuple[str, ...], raw: Any, arm: str, source: Path, is_overridden: bool = False
) -> str:
    """Every problem on a line of its own: file and line (or overrides), key, value, remedy."""
    lines = []
    for item in error.errors():
        location = [str(key) for key in (*prefix, *item["loc"]) if key not in KINDS]
        if location[:1] in (["task"], ["source"], ["probe"]) and len(location) > 1:
            location.pop(1)  # pydantic names the kind of task, source or probe, which is no key of the file
        path = ".".join(location)
        place = blamed(arm, source) if is_overridden else f"{source}, line {_line(raw, arm, location)}, arm {arm}"
        where = f"{place}: {path}"
        if item["type"] == "missing":
            lines.append(f"{where}: missing; every key is required")
        elif item["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(location[-1], known_keys(location[:-1]), n=1)
            lines.append(f"{where}: unknown key{f'; did you mean {nearest[0]}?' if nearest else ''}")
        else:
            value, message = shown(item["input"]), item["msg"].removeprefix("Value error, ")
            message = re.sub(rf"^{re.escape(value)}:? ", "", message)  # the value once
            lines.append(f"{where}: {value}: {message}")
    return "\n".join(lines)


def known_keys(section: list[str]) -> list[str]:
    """The keys a section may have."""
    if not section:
        return [*RunParams.model_fields, *FILE_KEYS]
    if section[0] == "method":
        return _method_keys()
    kinds: list[Any] = [RunParams.model_fields[section[0]].annotation if section[0] in RunParams.model_fields else None]
    for kind in kinds:
        kinds += getattr(kind, "__args__", ())  # unions and annotated types hold their parts there
    return sorted({key for kind in kinds for key in getattr(kind, "model_fields", {})})


def _method_keys() -> list[str]:
    """The keys of every method that can be loaded."""
    keys: set[str] = set()
    for name in methods.names():
        try:
            method = load_method(name)
        except ValueError:  # a broken file is an error of the runs that ask for it
            continue
        keys |= set(method.Params.model_fields) if method else set()
    return sorted(keys)


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
