r"""Whether an answer equals a gold: math-verify decides, on texts it reads whole, and on numbers it is held to them.

Before it: `latex.evened`, and an answer taken apart (`statements`): choices by letter, words as words, ratios term by
term, `NAME = value` by its value. An equation that states no value equals equations only: `n^2 = 34` is not 34.

After it, what math-verify calls equal is not where two numbers certainly differ: it compares after rounding to 10⁻⁶
and drops what is below 10⁻¹⁵, so 2⁻⁹⁸ equals 2⁻⁹⁹. Exact numbers have to be equal, decimals agree to RELATIVE beside.

Differs from math-verify as it comes: a text it cannot read is not searched for a number (`0.\overline{3}` was 0, and
`34 : 1` 34), letters behind a number are no units unless they are one (`2t` was 2), `R` and `r` in one answer are two
symbols, so are `y` and `y'`, and `i` is the imaginary unit unless it counts something.

As a program it is the grading process: JSON pairs (answer, gold) in, verdicts out, line by line.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
from itertools import product

from math_verify import LatexExtractionConfig, parse
from math_verify import verify as verified
from math_verify.parser import NormalizationConfig

from opd_lib.tasks.difference import RELATIVE, differ
from opd_lib.tasks.equations import both_signs, is_computation, listed, ratio, sides, value
from opd_lib.tasks.latex import literal, scientific
from opd_lib.tasks.statements import Statement, statement_of

MEMORY_BYTES = 4 << 30  # of the grading process, address space
ROUNDED = 1e-6  # how far two decimals may be apart, beside RELATIVE of the larger

_TARGETS = [
    LatexExtractionConfig(
        boxed_match_priority=-1,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
        ),
    )
]
_SAME_UNIT = {
    "meters": "m",
    "metres": "m",
    "hours": "h",
    "hour": "h",
    "hr": "h",
    "hrs": "h",
    "sec": "s",
    "seconds": "s",
}
_MEASURES = re.compile(r"(?:mm|cm|dm|m|km|mg|g|kg|ml|l|s|min|h|in|ft)(?:\^\d)?")
_COUNTS = re.compile(r"_\s*\{?\s*i(?![a-zA-Z])")
_IMAGINARY = re.compile(r"\\[A-Za-z]+|(?<![A-Za-z])([a-z]?)i([a-z]?)(?![A-Za-z])")
_CAPITAL = re.compile(
    r"(?P<capital>\\(?:Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega)(?![A-Za-z])|[A-Z])"
    r"|\\(?:math(?:bb|cal|frak|scr)|text|operatorname|begin|end)\s*(?:\{[^{}]*\}|\w)|\\[A-Za-z]+"
)
_PRIMES = re.compile(
    r"(?P<name>\\?[A-Za-z]+)(?:_(?P<below>\{[^{}]*\}|\w))?(?P<primes>'+|\^\s*\{?\s*(?:\\prime\s*)+\}?)"
)
_LETTERS = "wqzvuyhkjrsbcmnptaxgl"


def equal(answer: str, gold: str) -> bool:
    r"""Whether an answer equals a gold; texts of `graders.clean`.

    >>> equal(r"10\,000", "10000"), equal(r"2^{-98}", r"2^{-99}"), equal("n^2=34", "34"), equal("34:1", "34")
    (True, False, False, False)
    """
    stated, right = statement_of(answer), statement_of(gold)
    if stated.letter and right.letter and (stated.bare or right.bare or stated.letter != right.letter):
        return stated.letter == right.letter
    if _tokens(stated.text) == _tokens(right.text):
        return not _other_measure(stated, right)
    if stated.word or right.word:
        words = [statement.text.rstrip(".").casefold() for statement in (stated, right)]
        if all(re.fullmatch(r"[a-z' -]+", word) for word in words):
            return words[0] == words[1]
    if _other_measure(stated, right):
        return False
    return any(_same(left, right_text) for left, right_text in _readings(stated, right))


def _other_measure(stated: Statement, right: Statement) -> bool:
    """Whether both have a unit of the few that are told apart, and not the same."""
    units = [_SAME_UNIT.get(statement.unit, statement.unit) for statement in (stated, right)]
    return units[0] != units[1] and all(_MEASURES.fullmatch(unit) for unit in units)


def _readings(stated: Statement, right: Statement) -> list[tuple[str, str]]:
    """What is compared: the two texts, and where one can be read in another way, that beside the other."""
    left, text = stated.text, right.text
    found = [(left, text)]
    for one, other, swap in ((stated, right, False), (right, stated, True)):
        others = []
        if len(one.unit) == 1 and one.unit in other.text and not other.unit:
            others.append(f"{one.text} {one.unit}")  # 3 m, where the other says 3m
        if (power := scientific(one.text)) is not None:
            others.append(power)
        found += [(other.text, new) if swap else (new, other.text) for new in others]
    return found


def _same(answer: str, gold: str) -> bool:
    """Whether two values are equal: equations and ratios by their rules, all else by `_verified`."""
    answer, gold = (both_signs(_member_of(text)) for text in (answer, gold))
    values, golds = listed(answer), listed(gold)
    is_equation, is_gold_equation = (any(len(sides(text)) > 1 for text in texts) for texts in (values, golds))
    if is_equation and not is_gold_equation:
        return _states(values, gold)
    if is_gold_equation and not is_equation:
        return _states(golds, answer)
    terms, right = ratio(answer), ratio(gold)
    if terms or right:
        return _same_ratio(answer, gold, terms, right)
    return _verified(answer, gold)


def _member_of(text: str) -> str:
    r"""`x \in S` as S."""
    return re.sub(r"^[A-Za-z]\s*\\in(?![a-zA-Z])\s*", "", text)


def _states(equations: list[str], other: str) -> bool:
    """Whether equations state the values of the other side, which has none; numbers between their sides agree."""
    parts = sides(equations[0])
    if len(equations) == 1 and not all(_verified(part, other) for part in parts[1:-1] if is_computation(part)):
        return False
    if len(equations) == 1 and is_computation(parts[0]) and is_computation(parts[-1]):
        return _verified(parts[0], other) and _verified(parts[-1], other)
    values = [value(equation) for equation in equations]
    return all(found is not None for found in values) and _same(", ".join(filter(None, values)), other)


def _same_ratio(answer: str, gold: str, terms: list[str] | None, right: list[str] | None) -> bool:
    """Ratios are equal in proportion; a ratio of two is the fraction that is written as one, and no other number."""
    if terms is not None and right is not None:
        if len(terms) != len(right) or "0" in (terms[0], right[0]):
            return terms == right
        over_first = [[rf"\frac{{{term}}}{{{row[0]}}}" for term in row[1:]] for row in (terms, right)]
        return all(_verified(left, other) for left, other in zip(*over_first, strict=True))
    row, fraction = (terms, gold) if terms is not None else (right or [], answer)
    is_fraction = "/" in fraction or r"\frac" in fraction
    return len(row) == 2 and is_fraction and _verified(rf"\frac{{{row[0]}}}{{{row[1]}}}", fraction)


def _verified(answer: str, gold: str) -> bool:
    """math-verify's verdict, but for two numbers of digits alone, pairs of other brackets, and numbers that differ."""
    if _tokens(answer) == _tokens(gold):
        return True
    left, right = literal(answer), literal(gold)
    if left is not None and right is not None:
        near = abs(left - right) <= min(ROUNDED, RELATIVE * max(abs(left), abs(right)))
        return left == right or (near and "." in answer + gold)
    if _set_and_tuple(answer, gold):
        return False
    parsed = [parse(f"${text}$", _TARGETS, parsing_timeout=None) for text in _symbols(answer, gold)]
    return any(
        verified(wanted, found, allow_set_relation_comp=True, timeout_seconds=None) and not differ(found, wanted)
        for found, wanted in product(*parsed)
    )


def _tokens(text: str) -> list[str]:
    """A text without its blanks and the braces around one sign; numbers and commands are whole."""
    return re.findall(r"\\[A-Za-z]+|\\.|\d+|\S", re.sub(r"\{(\\[A-Za-z]+|\w)\}", r" \1 ", text))


def _set_and_tuple(answer: str, gold: str) -> bool:
    r"""Whether one is a set in braces and the other a list in parentheses or brackets, of more than one member."""

    def bracket(text: str) -> str:
        if text.startswith(r"\{") and text.endswith(r"\}"):
            return "{" if len(listed(text[2:-2])) > 1 else ""
        whole = text[:1] in "([" and text[-1:] in ")]" and len(listed(text)) == 1
        return "(" if whole and len(listed(text[1:-1])) > 1 else ""

    return {bracket(answer), bracket(gold)} == {"{", "("}


def _symbols(answer: str, gold: str) -> tuple[str, str]:
    """The pair as math-verify should see its symbols, which it would fold to lower case and strip of their primes."""
    pair = [_PRIMES.sub(_primed, text) for text in (answer, gold)]
    unused = [letter for letter in _LETTERS if letter not in "".join(pair).lower()]
    folded = sorted({capital for text in pair for capital in _capitals(text)})
    names = dict(zip(folded, unused, strict=False))
    pair = [_CAPITAL.sub(lambda match: names.get(match["capital"], match[0]), text) for text in pair]
    if not any(_COUNTS.search(text) for text in pair):
        pair = [_IMAGINARY.sub(lambda m: m[0] if m[0][0] == "\\" else f"{m[1]}{{I}}{m[2]}", text) for text in pair]
    left, right = (re.sub(r"(?<![A-Za-z\\{])I(?=\s*\^)", "{I}", text) for text in pair)  # else the power is dropped
    return left, right


def _capitals(text: str) -> set[str]:
    """The capitals of a text whose small letter, of a command or by itself, may stand in it too."""
    plain = re.sub(r"\\[A-Za-z]+", "", text)
    found = {match["capital"] for match in _CAPITAL.finditer(text) if match["capital"]}
    return {capital for capital in found if capital.lower() in (text if capital[0] == "\\" else plain)}


def _primed(match: re.Match[str]) -> str:
    r"""`y''` as `y_{pp}`; a command that takes an argument stays as it is."""
    primes = match["primes"].count("'") + match["primes"].count("prime")
    below = (match["below"] or "").strip("{}")
    return f"{match['name']}_{{{below}{'p' * primes}}}"


def _serve(cpu_seconds: float) -> None:
    """The grading process: pairs in, verdicts out, line by line; the kernel's CPU timer ends it."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the timer's signal ends the process, whatever was inherited
    out, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no verdict
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        verdict = equal(*(" ".join(text.split()) for text in json.loads(line)))
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        print(int(verdict), file=out, flush=True)


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
