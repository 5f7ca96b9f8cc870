r"""What an answer states: the letter of a choice, a word, or a value, apart from what names and measures it.

\textbf{(A) } 34 → A, 34        \text{Area} = 34\text{ cm}^2 → 34 in cm^2        \text{Yes} → the word yes
x = \pm 2 → x = 2, x = -2       3 \text{ to } 4 → the ratio 3 : 4                n^2 = 34 → an equation, no value
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from opd_lib.tasks.latex import evened, split

_STYLE = (
    r"\\(?:text(?:bf|it|rm|normal|sf|tt|up)?|math(?:rm|bf|it|sf|normal)|mbox|hbox|operatorname\*?|boldsymbol|bm|emph)"
)
_STYLED = re.compile(rf"{_STYLE}\s*\{{([^{{}}]*)\}}")
_AROUND = re.compile(r"\\(?:underline|boxed|fbox|ensuremath)\s*\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z][A-Za-z']*(?: [A-Za-z][A-Za-z']*|(?<=[A-Za-z]{3})-[A-Za-z]{3,})*\.?")
_SHORT_WORDS = frozenset(("yes", "no", "odd", "all", "dne", "one", "two", "six", "ten"))
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore),? +)?(?:the +)?(?:final +)?answer *(?:is\b|:|=) *:? *", re.IGNORECASE
)
_RELATION_FIRST = re.compile(r"^(?:=|\\approx(?![a-zA-Z])|\\sim(?![a-zA-Z])|:)\s*")

_CHOICE = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice) *)?(?:\(([A-J])\)(?=[ \\{.:\d])[.:]?|([A-J])(?:\)|[.:])(?=[ \\]))(?P<text>.*)",
    re.DOTALL,
)
_OPTION = re.compile(r"(?:option|choice) *\(?([A-J])\)?", re.IGNORECASE)
_OPERATOR = re.compile(r"\s*[+*/^=<>_:]|-|\s+-\s|\s*\\(?:cdot|times|cup|cap|to|top|le|ge|ne|in|subset)(?![a-zA-Z])")
_BARE = re.compile(r"\(?([A-J])\)?")

_UNITS = (
    "mm cm dm m km in ft yd mi mg g kg lb lbs oz ml L l s sec min h hr hrs ms N J W V K Pa Hz kPa kHz MHz kJ kW mol "
    "mph kmh kph rad deg USD day days men way ways year years"
)
_UNIT_WORD = rf"(?:{'|'.join(sorted(_UNITS.split(), key=len, reverse=True))}|[A-Za-z]{{4,}})"
_POWER = r"(?:\^(?:\{[+-]?\d\}|-?\d))?"
_PLAIN_UNIT = re.compile(
    rf"(?P<value>.*[\d}})]) +"
    rf"(?P<unit>(?:(?:sq|square|cubic|cu)\.? +)?{_UNIT_WORD}{_POWER}(?:[ /·*]+[A-Za-z]+{_POWER})*)"
)
_JOINED_UNIT = re.compile(
    rf"(?P<value>[+-]?[\d.]+)(?P<unit>(?:mm|cm|dm|km|kg|mg|ml|ft|lbs?|oz|hrs?|mph|min|sec){_POWER})"
)
_STYLED_UNIT = re.compile(
    rf"(?P<value>.*?[\d}})a-z]) *{_STYLE}\s*\{{(?P<unit> *[A-Za-z.%°/ ^0-9·-]+)\}}(?P<power>{_POWER})"
    rf"(?P<more>(?: *(?:/|\\cdot)? *{_STYLE}\s*\{{[^{{}}]*\}}{_POWER})*)",
    re.DOTALL,
)
_UNIT_LETTERS = frozenset("mgshlLNJWVK")
_PERCENT = re.compile(rf" *(?:{_STYLE}\s*\{{\s*(?:\\?%|per ?cent)\s*\}}|\bper ?cent\b)")

_SUBSCRIPT = re.compile(r"_\s*(?:\{[^{}]*\}|\\[A-Za-z]+|\w)")
_INVERSE = re.compile(r"\^\s*(?:\{\s*-1\s*\}(?=\s*\()|\{\s*\(\d+\)\s*\}|\{?\s*(?:\*|\\ast|\\prime)\s*\}?)")
_ARGUMENT = re.compile(r"(?<=[A-Za-z'}])\s*[(\[][^()\[\]]*[)\]]")
_SEGMENT = r"(?:[A-Z]{1,4}|\[[A-Z]{3,}\]|\|[A-Z]{1,4}\|)"
_SEGMENTS = re.compile(rf"\\frac\s*\{{{_SEGMENT}\}}\s*\{{{_SEGMENT}\}}|{_SEGMENT}\s*/\s*{_SEGMENT}|{_SEGMENT}")
_OVER_NAME = re.compile(
    r"\\(?:overline|bar|vec|hat|tilde|mathbb|mathcal|triangle|angle|measuredangle|Delta|max|min|sup|inf|det|dim|deg|arg)"
    r"(?![a-zA-Z])"
)
_NAME = re.compile(r"(?:[A-Za-z][A-Za-z' ]*|\\[A-Za-z]+'*)(?:\s*\+\s*(?:[A-Za-z][A-Za-z' ]*|\\[A-Za-z]+'*))*")
_FUNCTION = re.compile(
    r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?(?![a-z])|\\(?:log|ln|lg|exp|sqrt|frac|int|sum|prod|lim|pm|mp|c?dot|times|binom)"
    r"(?![a-z])"
)
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """An answer taken apart. `text`: the value in plain LaTeX; `word`: it was set as text, or can only be a word."""

    letter: str | None
    text: str
    unit: str
    word: bool

    @property
    def bare(self) -> bool:
        """Whether there is nothing but the letter of a choice."""
        return self.letter is not None and self.text == self.letter


def read(answer: str) -> Statement:
    r"""An answer taken apart.

    >>> read(r"\textbf{(A) } 34").letter, read(r"\textbf{(A) } 34").text, read(r"34\,\mathrm{cm}").unit
    ('A', '34', 'cm')
    """
    text = evened(_AROUND.sub(r"\1", answer))
    alone = _STYLED.fullmatch(text)
    letter, text = _choice(text)
    if (opening := _STYLED.match(text)) and _LEAD.match(opening[1]):
        text = f"{opening[1]} {text[opening.end() :]}"
    if lead := _LEAD.match(text):
        text = text[lead.end() :]
    text = _RELATION_FIRST.sub("", text)
    text = re.sub(rf"{_STYLE}\s*\{{\s*(?:,\s*)?(?:and|or)\s*\}}", ", ", text)
    text = re.sub(rf" *{_STYLE}\s*\{{\s*to\s*\}} *", ":", text)
    text, unit = _unit(_PERCENT.sub(r"\\%", text))
    text = evened(_STYLED.sub(_unstyled, text))
    word = _WORD.fullmatch(text) is not None and (
        (alone is not None and len(text) > 1)
        or (len(text) > 3 and max(map(len, re.split("[ -]", text))) > 2)
        or text.lower() in _SHORT_WORDS
        or re.fullmatch(r"[A-Z][a-z]{2,}", text) is not None
    )
    return Statement(letter=letter, text=text, unit=unit, word=word)


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
    if re.search(
        r"\\begin\{(?:cases|align|array|split)|\\(?:equiv|pmod|le|ge|ne|lt|gt|leq|geq|neq)(?![a-zA-Z])|[<>]=|!=", text
    ):
        return [text]
    parts = split(text, "=")
    return parts if all(parts) and len(split(text, "<>")) == 1 else [text]


def is_computation(text: str) -> bool:
    """Whether a side of an equation holds numbers alone, as in 17 + 17 = 34."""
    return re.search(r"[A-Za-z]", re.sub(r"\\(?:frac|sqrt|cdot|times|binom|pi)(?![a-zA-Z])", "", text)) is None


def _is_name(text: str) -> bool:
    text = _INVERSE.sub("", _SUBSCRIPT.sub("", _SUBSCRIPT.sub("", _STYLED.sub(r"\1", text))))
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
    if (
        len(terms) < 2
        or not all(terms)
        or re.search(r"\\(?:to|mapsto|in|forall|exists)(?![a-zA-Z])|[,=<>{]\s*$", whole)
    ):
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


def _choice(text: str) -> tuple[str | None, str]:
    """The letter of a choice an answer begins with and what follows; None and the answer if it begins with none."""
    plain = _STYLED.sub(r"\1", text, count=1) if _STYLED.match(text) else text
    plain = plain.strip()
    if bare := _OPTION.fullmatch(plain) or _BARE.fullmatch(plain):
        return bare[1].upper(), bare[1].upper()
    match = _CHOICE.fullmatch(plain)
    if match is None or _OPERATOR.match(match["text"]):
        return None, text
    return match[1] or match[2], match["text"].strip()


def _unit(text: str) -> tuple[str, str]:
    """A value and the unit or noun behind it, the latter empty if there is none."""
    match = _STYLED_UNIT.fullmatch(text)
    if match is not None:
        unit = match["unit"].strip()
        counts = is_computation(sides(match["value"])[-1])
        known = unit in _UNIT_LETTERS if len(unit) == 1 else unit in _UNITS.split()
        if (counts and (known or len(unit) > 1)) or (known and len(unit) > 1):
            return match["value"].strip(), _squeezed(unit + match["power"] + _STYLED.sub(r"\1", match["more"]))
        return text, ""
    match = _PLAIN_UNIT.fullmatch(text) or _JOINED_UNIT.fullmatch(text)
    if match is not None and is_computation(sides(match["value"])[-1]):
        return match["value"].strip(), _squeezed(match["unit"])
    return text, ""


def _squeezed(unit: str) -> str:
    return re.sub(r"[\s{}]", "", unit)


def _unstyled(match: re.Match[str]) -> str:
    """Styled text as it is; a styled word within mathematics stays a word."""
    held = match[1].strip()
    if match[0].startswith(r"\operatorname"):
        return match[0]
    is_whole = match.end() - match.start() == len(match.string)
    return match[1] if is_whole or len(held) < 2 or not held.isalpha() else rf"\text{{{held}}}"
