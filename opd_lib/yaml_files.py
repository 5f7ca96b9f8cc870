"""A YAML file, read with care: whatever is wrong in it is one ValueError that names the file.

Anchors and merges are taken as they are, unless they contain themselves or become more than a params file can be; tags,
keys that are no text and whole numbers of thousands of digits are refused.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, events
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

LARGEST = 1_000_000
"""Bytes of a file."""
DEEPEST = 32
"""Collections within each other."""
MOST = 100_000
"""Values in a file once every alias stands for what it repeats."""


def read(source: Path) -> Any:
    """What a file says, in ruamel's containers, which know their lines (`.lc`); `plain` makes Python's own of them.

    A file that says the same as before is not read again: what is returned is not to be changed. Raises ValueError
    naming the file, the place in it and a remedy.
    """
    return _content(source, _text(source))


@lru_cache(maxsize=256)
def _content(source: Path, text: str) -> Any:
    try:
        if _may_grow(text):
            _require_finite(text, source)
        content = YAML().load(text)
    except YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:
        if str(source) in str(error):
            raise
        raise ValueError(f"{source}: a number or a date that cannot be read: {error}") from error
    except RecursionError:
        raise ValueError(f"{source}: nested too deeply; write sections, and keys in them") from None
    _require_plain(content, source)
    return content


def plain(tree: Any) -> Any:
    """ruamel's containers, numbers and texts as plain Python ones."""
    if isinstance(tree, dict):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    if isinstance(tree, ScalarBoolean):  # what has an anchor; else it is Python's own
        return bool(tree)
    for kind in (str, float, int):
        if isinstance(tree, kind) and not isinstance(tree, bool):
            return kind(tree)
    return tree


def _text(source: Path) -> str:
    """The text of a file; a byte order mark at its head is no part of it."""
    try:
        content = source.read_bytes()
    except OSError as error:
        raise ValueError(f"{source}: cannot be read ({error.strerror}); write a file there that can") from error
    if len(content) > LARGEST:
        raise ValueError(f"{source}: {len(content)} bytes, at most {LARGEST}; is it another file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{source}, line {line}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def _may_grow(text: str) -> bool:
    """Whether a text may have anchors, tags or depths: other files need no second look."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    compact = re.search(r"(?:[-?:][ \t]+){4}|\n {64}", text)
    return deepest > DEEPEST or compact is not None or any(mark in text for mark in "&*!")


def _require_finite(text: str, source: Path) -> None:
    """Refuse tags, depth, an alias inside what it stands for, and aliases that become more than MOST values."""
    sizes: dict[str, int] = {}  # anchor → values that an alias of it stands for
    begun: list[tuple[str | None, int]] = []  # the open collections: their anchors, and the size before them
    size = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        line = f"{source}, line {event.start_mark.line + 1}"
        if isinstance(event, events.CollectionEndEvent):
            anchor, before = begun.pop()
            sizes |= {} if anchor is None else {anchor: size - before}
        if not isinstance(event, events.NodeEvent):
            continue
        if isinstance(event, events.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in begun):
                raise ValueError(f"{line}: *{event.anchor} contains itself; write out what is meant")
            size += sizes.get(event.anchor, 0)
        elif (tag := getattr(event, "tag", None)) is not None:
            raise ValueError(f"{line}: {tag}: a tag; write the value without it, a text in quotes")
        elif event.anchor in sizes:
            raise ValueError(f"{line}: &{event.anchor}: a second anchor of this name; call it otherwise")
        elif isinstance(event, events.CollectionStartEvent):
            begun.append((event.anchor, size))
            size += 1
            if len(begun) > DEEPEST:
                raise ValueError(f"{line}: nested too deeply; write sections, and keys in them")
        else:
            size += 1
            sizes |= {} if event.anchor is None else {event.anchor: 1}
        if size > MOST:
            raise ValueError(f"{line}: its aliases stand for more than {MOST} values; write out what is meant")


def _require_plain(content: Any, source: Path) -> None:
    """Refuse a key that is no text, such as null, a number or a date, and whole numbers of more than 63 bits."""
    waiting = [content]
    while waiting:
        node = waiting.pop()
        if isinstance(node, int) and abs(node) >= 2**63:
            raise ValueError(f"{source}: a whole number of more than 63 bits; write a smaller one")
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            for key in node:
                if not isinstance(key, str):
                    line = f", line {node.lc.key(key)[0] + 1}" if hasattr(node, "lc") and key in node.lc.data else ""
                    raise ValueError(f"{source}{line}: key {key!r} is no text; write a name, or put it in quotes")
