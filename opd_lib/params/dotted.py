"""Parameters with some keys changed, each named by its dotted path: of an arm, of a part of a step, between steps."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from opd_lib import methods
from opd_lib.params.mistakes import known_keys
from opd_lib.params.schema import RunParams
from opd_lib.records.parameters import flatten


def replace_at(tree: Any, path: str, value: Any, where: str) -> None:
    """Put `value` at a dotted path: one that is there, or a key of the schema that the file leaves out."""
    *parents, last = path.split(".")
    node = tree
    for key in (*parents, last):
        if key == last and isinstance(node, dict) and (last in node or last in known_keys(parents)):
            node[last] = copy.deepcopy(value)
            return
        if not isinstance(node, dict) or key not in node:
            nearest = difflib.get_close_matches(path, flatten(tree), n=1)
            raise ValueError(f"{where}: {path}: unknown key{f'; did you mean {nearest[0]}?' if nearest else ''}")
        parent, node = node, node[key]
    parent[last] = copy.deepcopy(value)


def with_changes(params: RunParams, changes: Mapping[str, Any], sections: Sequence[str], where: str) -> RunParams:
    """Parameters with some dotted keys of these sections changed. Raises ValueError naming `where`, key and remedy."""
    tree = params.said()
    for path, value in changes.items():
        if path.partition(".")[0] not in sections:
            raise ValueError(f"{where}: {path}: stays as it is; what may be changed is {', '.join(sections)}")
        replace_at(tree, path, value, where)
    try:
        return RunParams.model_validate(tree)
    except ValidationError as error:
        raise ValueError(f"{where}: {_first(error)}") from None


def options(method: methods.Method, params: RunParams, where: str) -> Any:
    """The method's options as these parameters give them. Raises ValueError naming `where` and what is wrong."""
    try:
        return method.Params.model_validate(params.method_options)
    except ValidationError as error:
        raise ValueError(f"{where}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    return f"{'.'.join(map(str, item['loc']))}: {item['input']!r}: {item['msg']}"
