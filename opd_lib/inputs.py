"""What a caller says beside a params file: overrides, seeds and a results folder, as Python or papermill gives them.

papermill's `-p` makes numbers of what looks like one and leaves the rest a text; numpy has numbers of its own. Where
the meaning is plain it is taken; where it is not, the error says what to write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from opd_lib import paths

LARGEST = 2**63
"""Whole numbers stay below."""
DEEPEST = 16
"""Mappings and lists within each other."""
SHOWN = 200
"""Characters of a value that an error shows."""
EXAMPLE = 'write a mapping of dotted keys to values, such as {"train.steps": 20}'


def overrides(given: object) -> dict[str, Any]:
    """Dotted path → value, in plain Python. A text is read as JSON, None is no override; numpy's numbers are numbers.

    Raises ValueError naming the key and what to write.
    """
    content = from_json(given, "overrides") if isinstance(given, str) else {} if given is None else given
    if not isinstance(content, Mapping):
        raise ValueError(f"overrides: {shown(content)}: {EXAMPLE}")
    found: dict[str, Any] = _plain(content, "overrides", DEEPEST)
    return found


def from_json(text: str, where: str) -> dict[str, Any]:
    """The mapping that a JSON text is. Raises ValueError if it is none, or has a key twice."""
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} {text[:SHOWN]}: not valid JSON ({error}); {EXAMPLE}") from None
    except ValueError as error:
        raise ValueError(f"{where} {text[:SHOWN]}: {error}; {EXAMPLE}") from None
    except RecursionError:
        raise ValueError(f"{where} {text[:SHOWN]}: nested too deeply; {EXAMPLE}") from None
    if not isinstance(content, dict):
        raise ValueError(f'{where} {text[:SHOWN]}: expected an object such as {{"train.steps": 20}}')
    return content


def seeds(given: object) -> tuple[object, ...] | None:
    """Which seeds: a list of them, or a text such as `0,3` or `[0, 3]`; None for those of the params file.

    Raises ValueError for one number, which might be a seed or how many, and for what is no list.
    """
    if given is None:
        return None
    if isinstance(given, str):
        text = given.strip()
        if is_list := text.startswith("[") and text.endswith("]"):
            text = text[1:-1]
        if is_list or "," in text:
            return listed(text, "seeds")
    content = _as_python(given)
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        return tuple(_as_python(seed) for seed in content)
    raise ValueError(
        f"seeds: {shown(given)}: write which ones, such as [0, 1, 2], a list of one for one; "
        "with papermill -p seeds 0,1,2 (one: 0,)"
    )


def listed(text: str, where: str) -> tuple[int, ...]:
    """The whole numbers between commas. Raises ValueError for anything else."""
    words = [word.strip() for word in text.split(",")]
    if any(word and not (word.isascii() and word.isdecimal() and len(word) < 19) for word in words):
        raise ValueError(f"{where} {text[:SHOWN]}: not a number, nor numbers separated by commas such as 0,3,4")
    return tuple(int(word) for word in words if word)


def results(given: object) -> Path | None:
    """The folder of records; None for the usual places.

    Raises ValueError for what is no folder's name, and for the folder of the committed results.
    """
    if given is None:
        return None
    if not isinstance(given, str | PathLike) or not str(given).strip() or "\0" in str(given):
        raise ValueError(f"results: {shown(given)}: write the name of a folder, or leave it out")
    if Path(given).resolve() == paths.RESULTS:
        raise ValueError(
            f"results: {given} holds the committed records, which only make refresh-outputs writes; "
            "leave it out to read them, or name another folder"
        )
    return Path(given)


def shown(value: object) -> str:
    """A value as an error shows it: its beginning, if it is long."""
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "a whole number of more than 63 bits"
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def _plain(value: Any, where: str, depth: int) -> Any:
    """A value of overrides in plain Python. Raises ValueError naming where it stands."""
    value = _as_python(value)
    if depth < 0:
        raise ValueError(f"{where}: nested too deeply; {EXAMPLE}")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where}: key {shown(key)} is no text; {EXAMPLE}")
        return {str(key): _plain(inner, _below(where, key), depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, where, depth - 1) for inner in value]
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise ValueError(f"{where}: {shown(value)}; write a smaller one")
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value)  # numpy's float64 is one, too
    if value is None or isinstance(value, int):
        return value
    raise ValueError(f"{where}: {shown(value)}: write a number, a text, true, false, null, a list or a mapping")


def _below(where: str, key: str) -> str:
    return f"{where}: {key}" if where == "overrides" else f"{where}.{key}"


def _as_python(value: Any) -> Any:
    """numpy's scalars and arrays as Python's numbers and lists; anything else as it is."""
    if isinstance(value, bool | int | float | str) or not callable(convert := getattr(value, "tolist", None)):
        return value
    return convert()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {shown(key)} comes twice")
        found[key] = value
    return found
