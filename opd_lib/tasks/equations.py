r"""Equations, ratios, lists and ± in an answer of plain LaTeX (`latex.evened`): which values it states.

    x = 34 → 34        n^2 = 34 → an equation, no value        x = \pm 2 → x = 2, x = -2        3 : 4 → a ratio

A name is what a question asks for: a symbol, a word, a function of something, a sum of symbols.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from opd_lib.tasks.latex import STYLED, split

_SUBSCRIPT = re.compile(r"_\s*(?:\{[^{}]*\}|\\[A-Za-z]+|\w)")
_INVERSE = re.compile(r"\^\s*(?:\{\s*-1\s*\}(?=\s*\()|\{\s*\(\d+\)\s*\}|\{?\s*(?:\*|\\ast|\\prime)\s*\}?)")
_ARGUMENT = re.compile(r"(?<=[A-Za-z'}])\s*[(\[][^()\[\]]*[)\]]")
_SEGMENT = r"(?:[A-Z]{1,4}|\[[A-Z]{3,}\]|\|[A-Z]{1,4}\|)"
_SEGMENTS = re.compile(rf"\\frac\s*\{{{_SEGMENT}\}}\s*\{{{_SEGMENT}\}}|{_SEGMENT}\s*/\s*{_SEGMENT}|{_SEGMENT}")
_OVER_NAME = re.compile(
    r"\\(?:overline|bar|vec|hat|tilde|mathbb|mathcal|triangle|angle|measuredangle|Delta|max|min|sup|inf|lim|det|dim|deg|arg)"
    r"(?![a-zA-Z])"
)
_NAME = re.compile(r"(?:[A-Za-z][A-Za-z' ]*|\\[A-Za-z]+'*)(?:\s*\+\s*(?:[A-Za-z][A-Za-z' ]*|\\[A-Za-z]+'*))*")
_FUNCTION = re.compile(
    r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?(?![a-z])|\\(?:log|ln|lg|exp|sqrt|frac|int|sum|prod|pm|mp|c?dot|times|binom)"
    r"(?![a-z])"
)
_NO_EQUATION = re.compile(
    r"\\begin\{(?:cases|align|array|split)|\\(?:equiv|pmod|le|ge|ne|lt|gt|leq|geq|neq)(?![a-zA-Z])|[<>]=|!="
)
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")


def value(text: str) -> str | None:
    r"""What a text says something is equal to: itself, or the last side of `NAME = … = value`; None for an equation.

    A name is a symbol, a word, a function of something, or a sum of symbols (`m+n`): what a question asks for by name.
    `n^2`, `2x`, `\sin x` and `|x|` are none, so `n^2 = 34` states no value. Numbers that equal one another state it.

    >>> [value(text) for text in ("34", "x = 34", "f(2) = 34", "34 = x", "n^2 = 34")]
    ['34', '34', '34', '34', None]
    """
    parts = sides(text)
    if len(parts) == 1:
        return text
    if _is_name(parts[0]):
        return parts[-1]
    if len(parts) == 2 and _is_name(parts[1]):
        return parts[0]
    return None


def sides(text: str) -> list[str]:
    """The sides of an equation; the text alone if it is none."""
    if _NO_EQUATION.search(text):
        return [text]
    parts = split(text, "=")
    return parts if all(parts) and len(split(text, "<>")) == 1 else [text]


def is_computation(text: str) -> bool:
    """Whether a side of an equation holds numbers alone, as in 17 + 17 = 34."""
    return re.search(r"[A-Za-z]", re.sub(r"\\(?:frac|sqrt|cdot|times|binom|pi)(?![a-zA-Z])", "", text)) is None


def _is_name(text: str) -> bool:
    text = _INVERSE.sub("", _SUBSCRIPT.sub("", _SUBSCRIPT.sub("", STYLED.sub(r"\1", text))))
    if _FUNCTION.search(_SEGMENTS.sub("A", text)):
        return False
    text = _OVER_NAME.sub("", _SEGMENTS.sub("A", _ARGUMENT.sub("", _ARGUMENT.sub("", text))))
    text = re.sub(r"(?<!\\)[{}]", "", text).strip()
    if text.startswith("(") and text.endswith(")"):  # (x, y) = (1, 2)
        return all(_NAME.fullmatch(part) for part in split(text[1:-1], ","))
    return _NAME.fullmatch(text) is not None


def ratio(text: str) -> list[str] | None:
    """The terms of a ratio such as 3 : 4 or 1 : 2 : 3; None for anything else."""
    whole = text[1:-1] if text[:1] in "([" and text[-1:] in ")]" and len(split(text, ":")) == 1 else text
    terms = split(whole.replace(r"\colon", ":"), ":")
    if len(terms) < 2 or re.search(r"\\(?:to|mapsto|in|forall|exists)(?![a-zA-Z])|[,=<>]", whole):
        return None
    return terms if all(re.search(r"\d|^[A-Za-z]$|\\sqrt|\\pi", term) for term in terms) else None


def listed(text: str) -> list[str]:
    """The members of a list without brackets; the text alone if it is none."""
    parts = split(text, ",;")
    return parts if len(parts) > 1 and all(parts) else [text]


def both_signs(text: str) -> str:
    r"""A text without ±: what it stands for, listed. Several ± of one member are independent, beside a ∓ they are not.

    >>> both_signs(r"x = 1 \pm 2")
    'x = 1 + 2, x = 1 - 2'
    """
    inner = text[2:-2] if text.startswith(r"\{") and text.endswith(r"\}") else text
    members = [signed for member in listed(inner) for signed in _signed(member)]
    joined = ", ".join(members)
    return text if members == listed(inner) else rf"\{{{joined}\}}" if inner != text else joined


def _signed(member: str) -> list[str]:
    found = [match[1] for match in _PLUS_MINUS.finditer(member)]
    if not found or len(found) > 3 or re.search(r"\\(?:ne|neq|in|le|ge)(?![a-zA-Z])|[<>]", member):
        return [member]
    upper_lower = [("-", "+") if kind == "mp" else ("+", "-") for kind in found]
    drawn = zip(*upper_lower, strict=True) if "mp" in found else product(*upper_lower)
    return [_with_signs(member, signs) for signs in drawn]


def _with_signs(member: str, signs: Sequence[str]) -> str:
    """A member with these signs for its ± and ∓, in order; a plus that begins something is left out."""
    between = _PLUS_MINUS.split(member)[::2]
    text = between[0] + "".join(f" {sign} {rest}" for sign, rest in zip(signs, between[1:], strict=True))
    text = re.sub(r"(^|[=({,])\s*\+\s*", r"\1 ", " ".join(text.split()))
    return re.sub(r"(^|[({,])\s*-\s*", r"\1 -", text).strip()
