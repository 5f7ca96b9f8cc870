r"""An answer's text, evened: one way to write a number, a fraction, a root, so that math-verify reads it whole.

    10\,000, 10 000, 10{,}000, 10\text{,}000, 10,000 → 10000        0.1\overline{6} → \frac{1}{6}
    3.61e-10, 3.61 x 10^-10 → 3.61\times 10^{-10}                   {2n \choose n} → \binom{2n}{n}
    \left( ½ \right), 2√3, x² → (\frac{1}{2}), 2\sqrt{3}, x^{2}     30^\circ, \$30 → 30

Only what every reader takes for the same is evened. `1,234` is a number where it stands alone and a list where it is
one: within brackets, and beside commas that a blank follows. `2e-5` is left alone: it may be 2e − 5 (`scientific`).
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

DIGITS = 100  # of a repeating decimal, or beyond the point; a longer one is left as it is

STYLE = (
    r"\\(?:text(?:bf|it|rm|normal|sf|tt|up)?|math(?:rm|bf|it|sf|normal)|mbox|hbox|operatorname\*?|boldsymbol|bm|emph)"
)
STYLED = re.compile(rf"{STYLE}\s*\{{([^{{}}]*)\}}")

_SYMBOLS = {
    **dict.fromkeys("−–‒‐‑﹣－", "-"),
    **dict.fromkeys("⋅·∙•", r"\cdot "),
    "×": r"\times ",
    "÷": "/",
    "∕": "/",
    "⁄": "/",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∈": r"\in ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∅": r"\emptyset ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "→": r"\to ",
    "∖": r"\setminus ",
    **{letter: rf"\mathbb{{{plain}}}" for letter, plain in zip("ℝℤℕℚℂ", "RZNQC", strict=True)},
    **dict.fromkeys("′’", "'"),
}
_SUPERSCRIPTS = re.compile(r"[⁰¹²³⁴-⁹⁺⁻ⁿ]+")
_ROOT = re.compile(r"√\s*(\d+|[A-Za-z]|\([^()]*\)|\{[^{}]*\})")

_REWRITTEN = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?", ""),
        (r"\\(?:display|text|script)style(?![a-zA-Z])|\\(?:no)?limits(?![a-zA-Z])", ""),
        (r"\\(?:text)?color\s*\{[^{}]*\}|\\[hv]space\*?\s*\{[^{}]*\}|(?<!\\)\\!", ""),
        (r"\\(?:[dtc]|nice|s)frac(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\[lr]?vert(?![a-zA-Z])", "|"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\(?:text|mathrm)\{\s*,\s*\}", "{,}"),
        (r"(=[^=]*?),?\s*\\q?quad(?![a-zA-Z])\s*(?=[^=]*=)", r"\1, "),
        (r"\^\s*(-\d+)", r"^{\1}"),
        (r"\\log\s*_\s*(?:e|\{e\})(?![A-Za-z])", r"\\ln"),
        (r"^\s*\{\}|\{\}\s*$", ""),
        (r"(?<!\\)\\[,;:> ]|~|\\(?:q?quad|enspace|thinspace|medspace|thickspace|nobreakspace)(?![a-zA-Z])", " "),
        (
            rf"(?:\^\s*(?:\\circ(?![a-zA-Z])|\{{\s*\\circ\s*\}})|\\degree(?![a-zA-Z]))(?:\s*(?:[CF]|{STYLE}\s*\{{[CF]\}})$)?",
            "",
        ),
        (r"(?<!\\)\\[$]|[€£¥₹]", ""),
        (r"(?<=\d)\{\s*\}(?=\d)", " "),
        (r"(\\sqrt\s*\[[^\[\]{}]*\]|\\sqrt)\s*(\d)(?!\s*\{)", r"\1{\2}"),
        (r"\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?", r"\\overline{\1\2\3}"),
        (r"\\+\s*$", ""),
        (r"\\d?dots|\\[lc]dots|\.{2,}", r"\\ldots "),
        (r"[(\[]\s*\\begin\{(?:array\}\{[^{}]*|matrix)\}", r"\\begin{pmatrix}"),
        (r"\\end\{(?:array|matrix)\}\s*[)\]]", r"\\end{pmatrix}"),
    )
]
_NOT_BEFORE = r"(?<![\d.,^_\\A-Za-z])"
_GROUPED = re.compile(rf"{_NOT_BEFORE}[1-9]\d{{0,2}}(?:(?: |'|\{{,\}})\d{{3}})+(?!\d)")
_GROUPED_DECIMALS = re.compile(r"(?<=\d\.)\d{3}(?: \d{3})+(?: \d{1,2})?(?!\d)")
_COMMAS = re.compile(rf"{_NOT_BEFORE}[1-9]\d{{0,2}}(?:,\d{{3}})+(?!\d|,\d)")
_OVER_LINE = r"\\(?:overline|bar|dot)\s*(?:\{\s*(\d+)\s*\}|(\d))"
_REPEATING = re.compile(rf"(?<![\d.])(\d*)\.(\d*)(?:{_OVER_LINE})(?!\d)")
_IN_PARENTHESES = re.compile(r"(-?)(\d+)\.(\d*)\((\d+)\)")
_DOTTED = re.compile(r"(?<![\d.])(\d*)\.(\d*?)(?:(\d)\3{2,}|(\d{2,}?)\4+)\s*\\ldots\s*$")
_POWER_OF_TEN = re.compile(r"(?<=\d)\s*(?:\\times|\\cdot|\\ast|[xX*])\s*10\s*\^\s*(?:\{\s*([+-]?\d+)\s*\}|([+-]?\d+))")
_E_NOTATION = re.compile(r"(?<![\w.\\^])(\d+\.\d+|1|\d+(?=[eE]\+?\d|[eE]-\d\d))[eE]([+-]?\d+)(?![\w.^])")
_E_AMBIGUOUS = re.compile(r"(-?)(\d+)[eE](-\d)")
_MIXED = re.compile(r"(?<![\w.^/])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\w.])")
_LITERAL = re.compile(r"([+-]?)\s*(\d+\.?\d*|\.\d+)(?:\\times 10\^\{([+-]?\d{1,4})\})?")


def evened(answer: str) -> str:
    r"""The same answer in plain LaTeX, numbers written one way.

    >>> evened(r"10\,000"), evened("½"), evened(r"0.\overline{3}"), evened(r"{2n \choose n}")
    ('10000', '\\frac{1}{2}', '\\frac{1}{3}', '\\binom{2n}{n}')
    """
    text = _plain(answer)
    for pattern, new in _REWRITTEN:
        text = pattern.sub(new, text)
    text = _infix(_infix(text, r"\over", r"\frac"), r"\choose", r"\binom")
    text = _numbers(" ".join(text.split()))
    return text.strip().rstrip(",;:").rstrip()


def scientific(text: str) -> str | None:
    """What an evened `2e-5` is as a power of ten; None for any other text, which can be read in one way only."""
    match = _E_AMBIGUOUS.fullmatch(text)
    return rf"{match[1]}{match[2]}\times 10^{{{match[3]}}}" if match else None


def literal(text: str) -> Fraction | None:
    r"""The value of an evened number without letters or operations, exactly; None for anything else.

    >>> literal("-0.5"), literal(r"3\times 10^{-2}"), literal(r"\frac{1}{2}")
    (Fraction(-1, 2), Fraction(3, 100), None)
    """
    match = _LITERAL.fullmatch(text)
    if match is None or not text.isascii():
        return None
    value = Fraction(match[2]) * Fraction(10) ** int(match[3] or 0)
    return -value if match[1] == "-" else value


def depths(text: str) -> list[int]:
    """For each character of a text, how many brackets are open before it; braces that only group count too."""
    depth, found = 0, []
    for character in text:
        if character in ")]}":
            depth = max(depth - 1, 0)
        found.append(depth)
        depth += character in "([{"
    return found


def split(text: str, separators: str) -> list[str]:
    """The parts of a text between separators that stand outside all brackets, without the blanks around them."""
    parts, begin = [], 0
    for place, depth in enumerate(depths(text)):
        if depth == 0 and text[place] in separators:
            parts.append(text[begin:place].strip())
            begin = place + 1
    return [*parts, text[begin:].strip()]


def _plain(answer: str) -> str:
    """Unicode's mathematics as LaTeX, compatibility forms (full-width digits, thin spaces) as plain characters."""
    text = _SUPERSCRIPTS.sub(lambda match: f"^{{{unicodedata.normalize('NFKC', match[0])}}}", answer)
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1].strip('{}')}}}", text)
    return unicodedata.normalize("NFKC", "".join(map(_character, text))).replace("−", "-")


def _character(character: str) -> str:
    if character.isascii():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    if unicodedata.decomposition(character).startswith("<fraction>"):
        over, _, under = unicodedata.normalize("NFKC", character).partition("⁄")
        return rf"\frac{{{over}}}{{{under}}}"
    case, _, name = unicodedata.name(character, "").removeprefix("GREEK ").partition(" LETTER ")
    if case in ("SMALL", "CAPITAL") and name.isalpha() and "GREEK" in unicodedata.name(character):
        return f"\\{name.lower() if case == 'SMALL' else name.capitalize()} "
    return character


def _infix(text: str, command: str, prefix: str) -> str:
    r"""`{a \over b}` as `\frac{a}{b}`, braces or the whole text around it."""
    for _ in range(text.count(command)):
        match = re.search(re.escape(command) + r"(?![a-zA-Z])", text)
        if match is None:
            break
        begin, end = match.start(), match.end()
        depth_before = depths(text)[begin]
        while begin > 0 and not (text[begin - 1] == "{" and depths(text)[begin - 1] == depth_before - 1):
            begin -= 1
        while end < len(text) and not (text[end] == "}" and depths(text)[end] == depth_before - 1):
            end += 1
        new = f"{prefix}{{{text[begin : match.start()].strip()}}}{{{text[match.end() : end].strip()}}}"
        braced = begin > 0 and end < len(text)
        text = text[: begin - braced] + new + text[end + braced :]
    return text


def _numbers(text: str) -> str:
    """Digits without separators, repeating decimals as fractions, powers of ten and mixed numbers the LaTeX way."""
    text = _GROUPED.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    text = _GROUPED_DECIMALS.sub(lambda match: match[0].replace(" ", ""), text)
    text = _without_commas(text)
    text = _REPEATING.sub(lambda m: _fraction(m[1], m[2], m[3] or m[4]) or m[0], text)
    text = _DOTTED.sub(lambda m: _fraction(m[1], m[2], m[3] or m[4]) or m[0], text)
    if match := _IN_PARENTHESES.fullmatch(text):
        text = match[1] + (_fraction(match[2], match[3], match[4]) or text)
    text = _E_NOTATION.sub(lambda m: rf"{m[1]}\times 10^{{{int(m[2])}}}" if len(m[2]) < 6 else m[0], text)
    text = _POWER_OF_TEN.sub(lambda m: rf"\times 10^{{{m[1] or m[2]}}}", text)
    return _MIXED.sub(r"\1\\frac{\2}{\3}", text)


def _without_commas(text: str) -> str:
    """Commas between groups of three digits taken out, but for those that separate what is listed."""
    grouping = sum(match[0].count(",") for match in _COMMAS.finditer(text))
    listed = ", " not in text and text.count(",") > grouping
    bracketed = _bracketed(text)

    def plain(match: re.Match[str]) -> str:
        certain = re.search(r",0\d\d", match[0]) is not None
        number = certain or (not bracketed[match.start()] and not listed)
        return match[0].replace(",", "") if number else match[0]

    return _COMMAS.sub(plain, text)


def _bracketed(text: str) -> list[bool]:
    """For each character, whether a parenthesis, a square bracket or a set's brace is open there."""
    depth, found = 0, []
    for place, character in enumerate(text):
        escaped = place > 0 and text[place - 1] == "\\"
        depth += character in "([" or (character == "{" and escaped)
        depth -= character in ")]" or (character == "}" and escaped)
        found.append(depth > 0)
    return found


def _fraction(whole: str, once: str, again: str) -> str | None:
    """A repeating decimal as a fraction in lowest terms."""
    if len(whole) + len(once) + len(again) > DIGITS:
        return None
    nines = 10 ** len(once) * (10 ** len(again) - 1)
    value = Fraction(int(whole + once + again) - int((whole + once) or "0"), nines)
    return str(value.numerator) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
