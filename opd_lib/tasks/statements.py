r"""What an answer states: the letter of a choice, a word, or a value, apart from what measures it.

    \textbf{(A) } 34 → A, 34        34\text{ cm}^2 → 34 in cm^2        \text{Yes} → the word yes

What stands beside an equals sign, a colon or a comma says `equations`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from opd_lib.tasks.equations import is_computation, sides
from opd_lib.tasks.latex import STYLE, STYLED, evened

_AROUND = re.compile(r"\\(?:underline|boxed|fbox|ensuremath)\s*\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z][A-Za-z']*(?: [A-Za-z][A-Za-z']*|(?<=[A-Za-z]{3})-[A-Za-z]{3,})*\.?")
_SHORT_WORDS = frozenset(("yes", "no", "odd", "all", "dne", "one", "two", "six", "ten"))
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore),? +)?(?:the +)?(?:final +)?answer *(?:is\b|:|=) *:? *"
    r"|(?:about|approximately|roughly|nearly)(?: +|$)",
    re.IGNORECASE,
)
_AND = re.compile(rf"(?:,\s*)?{STYLE}\s*\{{\s*(?:,\s*)?(?:and|or)\s*\}}|(?<![A-Za-z\\])(?:,\s*)?(?:and|or)(?![A-Za-z])")
_TO = re.compile(rf" *{STYLE}\s*\{{\s*to\s*\}} *")
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
_NO_NOUN = "alpha|beta|gamma|delta|theta|lambda|sigma|omega|infinity|sqrt|sinh|cosh|tanh|arc|over|choose|hundred|dozen"
_UNIT_WORD = rf"(?:{'|'.join(sorted(_UNITS.split(), key=len, reverse=True))}|(?!{_NO_NOUN})[A-Za-z]{{4,}})"
_POWER = r"(?:\^(?:\{[+-]?\d\}|-?\d))?"
_PLAIN_UNIT = re.compile(
    rf"(?P<value>.*[\d}})]) +"
    rf"(?P<unit>(?:(?:sq|square|cubic|cu)\.? +)?{_UNIT_WORD}{_POWER}(?:[ /·*]+[A-Za-z]+{_POWER})*)"
)
_JOINED_UNIT = re.compile(
    rf"(?P<value>[+-]?[\d.]+)(?P<unit>(?:mm|cm|dm|km|kg|mg|ml|ft|lbs?|oz|hrs?|mph|min|sec){_POWER})"
)
_STYLED_UNIT = re.compile(
    rf"(?P<value>.*?[\d}})a-z]) *{STYLE}\s*\{{(?P<unit> *[A-Za-z.%°/ ^0-9·-]+)\}}(?P<power>{_POWER})"
    rf"(?P<more>(?: *(?:/|\\cdot)? *{STYLE}\s*\{{[^{{}}]*\}}{_POWER})*)",
    re.DOTALL,
)
_UNIT_LETTERS = frozenset("mgshlLNJWVK")
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"(?<=\d) *(?P<style>{STYLE}\s*\{{)? *(?P<scale>{'|'.join(_SCALES)})s?(?![A-Za-z])")
_EMPTY = re.compile(rf" *{STYLE}\s*\{{\s*\}}")
_PERCENT = re.compile(rf" *(?:{STYLE}\s*\{{\s*(?:\\?%|per ?cent)\s*\}}|\bper ?cent\b)")


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


def statement_of(answer: str) -> Statement:
    r"""An answer taken apart.

    >>> statement_of(r"\textbf{(A) } 34").letter, statement_of(r"\textbf{(A) } 34").text
    ('A', '34')
    >>> statement_of(r"34\,\mathrm{cm}").unit
    'cm'
    """
    text = evened(_AROUND.sub(r"\1", answer))
    alone = STYLED.fullmatch(text)
    if alone is not None and re.match(r" *-?[\d.]", alone[1]):
        text = evened(alone[1])
    letter, text = _choice(text)
    if (opening := STYLED.match(text)) and _LEAD.match(opening[1]):
        text = f"{opening[1]} {text[opening.end() :]}"
    if lead := _LEAD.match(text):
        text = text[lead.end() :]
    text = _RELATION_FIRST.sub("", text)
    text = _TO.sub(":", _AND.sub(", ", text))
    text, unit = _unit(_EMPTY.sub("", _SCALE.sub(_scaled, _PERCENT.sub(r"\\%", text))))
    text = evened(STYLED.sub(_unstyled, text))
    word = _WORD.fullmatch(text) is not None and (
        (alone is not None and len(text) > 1)
        or (len(text) > 3 and max(map(len, re.split("[ -]", text))) > 2)
        or text.lower() in _SHORT_WORDS
        or re.fullmatch(r"[A-Z][a-z]{2,}", text) is not None
    )
    return Statement(letter=letter, text=text, unit=unit, word=word)


def _choice(text: str) -> tuple[str | None, str]:
    """The letter of a choice an answer begins with and what follows; None and the answer if it begins with none."""
    plain = STYLED.sub(r"\1", text, count=1) if STYLED.match(text) else text
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
            return match["value"].strip(), _squeezed(unit + match["power"] + STYLED.sub(r"\1", match["more"]))
        return text, ""
    match = _PLAIN_UNIT.fullmatch(text) or _JOINED_UNIT.fullmatch(text)
    if match is not None and is_computation(sides(match["value"])[-1]):
        return match["value"].strip(), _squeezed(match["unit"])
    return text, ""


def _scaled(match: re.Match[str]) -> str:
    """`2 million` as a product; a style that begins with it goes on with what follows."""
    return rf"\times 10^{{{_SCALES[match['scale']]}}} {match['style'] or ''}"


def _squeezed(unit: str) -> str:
    return re.sub(r"[\s{}]", "", unit)


def _unstyled(match: re.Match[str]) -> str:
    """Styled text as it is; a styled word within mathematics stays a word."""
    held = match[1].strip()
    if match[0].startswith(r"\operatorname"):
        return match[0]
    is_whole = match.end() - match.start() == len(match.string)
    return match[1] if is_whole or len(held) < 2 or not held.isalpha() else rf"\text{{{held}}}"
