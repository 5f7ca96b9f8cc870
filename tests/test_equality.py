"""Which forms of an answer equal a gold and which do not: a table, in both directions, through the grader itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_lib.tasks import equations, graders, latex, statements
from opd_lib.tasks.graders import boxed_answer

EQUAL = {
    # thousands
    "10000": [
        r"10\,000", r"10\;000", "10 000", r"10\text{,}000", "10{,}000", "10,000", r"10\ 000", "10~000", r"10\:000",
        r"10,\!000", "10'000", "10\u202f000", "10\u00a0000", r"\$10{,}000", "10,000.00", "x = 10,000",
        r"10\,000\text{ cm}",
        r"10^4", r"10^{4}", r"1\times10^4", r"1 \cdot 10^{4}", "1e4", r"1.0 \times 10^{4}", "10*10^3", r"100^2",
        r"\textbf{(C)}\ 10{,}000", "１００００", r"$10\,000$.", r"\boxed{10\,000}",
    ],
    "2500000": [
        "2.5 million", r"2.5\text{ million}", r"\$2.5 million", "2.5 million dollars", r"2.5\text{ million dollars}",
        "2500 thousand",
    ],
    "1234567": [
        r"1\,234\,567", "1,234,567", "1{,}234{,}567", "1 234 567", "1,234,567.0", r"1\,234\,567\text{ units}",
    ],
    "1234.5": [r"1\,234.5", "1,234.50", r"\frac{2469}{2}", r"1234\frac12", r"\$1,234.50"],
    "-10000": [r"-10\,000", "−10,000", "–10 000", r"-1\times 10^{4}", "- 10000"],
    r"10000\pi": [r"10\,000\pi", r"10,000\pi", r"\pi\cdot 10^4"],
    r"\frac{10000}{3}": [r"\frac{10,000}{3}", r"\dfrac{10\,000}{3}", "10000/3", "3333.333333333"],
    "0.000001": [r"0.000\,001", "10^{-6}", r"1\times 10^{-6}", "1e-6"],
    # powers, huge and tiny
    "2^{-98}": [r"\frac{1}{2^{98}}", "4^{-49}", r"1/2^{98}", r"2^{-100}\cdot 4"],
    "2^{1000}": ["4^{500}", r"2\cdot 2^{999}"],
    "10^{-20}": [r"\frac{1}{10^{20}}", r"1 \times 10^{-20}"],
    "3.61e-10": [
        r"3.61\times10^{-10}", "3.61E-10", "3.61 x 10^-10", r"3.61\cdot 10^{-10}", "3.61×10⁻¹⁰", "0.000000000361",
    ],
    "602000000000000000000000": [r"6.02\times 10^{23}", "6.02e23", "6.02e+23"],
    "0.5": [
        ".5", "0.50", r"\frac{1}{2}", r"\frac12", r"\dfrac12", r"\tfrac{1}{2}", "1/2", "2^{-1}", r"50\%", "½",
        r"{1 \over 2}",
    ],
    "10^{10^{10}}": ["10^{10^{10}}"],
    # repeating decimals, mixed numbers
    r"\frac{1}{3}": [
        r"0.\overline{3}", r"0.\bar{3}", r"0.\dot{3}", "0.(3)", "0.333...", r"0.3333\ldots", "1/3", "0.333333",
        r"0.\overline{33}",
    ],
    r"\frac{1}{6}": [r"0.1\overline{6}", "0.1(6)", r"0.1666\ldots"],
    "1": [r"0.\overline{9}", r"\frac{34}{34}", "1.0", "+1", "(1)"],
    r"\frac{35}{3}": [r"11 \frac{2}{3}", r"11\frac23", "11 2/3", r"11\tfrac{2}{3}", r"11.\overline{6}", "11⅔"],
    r"-\frac{3}{2}": [r"-1\frac{1}{2}", "-1.5", r"\frac{-3}{2}", r"\frac{3}{-2}", "−3/2", "-1 1/2"],
    # names, equations, computations
    "34": [
        "x = 34", "34 = x", "n=34", "m+n = 34", r"\text{Area} = 34\text{ cm}^2", "AB = 34", r"|AB| = 34",
        r"\angle ABC = 34^\circ",
        "[ABC] = 34", "f(2) = 34", "f^{-1}(2) = 34", "S_{10} = 34", "P(X > 2) = 34", "17+17 = 34",
        "x = 17 + 17 = 34", "x = y = 34",
        "= 34", r"\approx 34", r"\textbf{(A) } 34", r"\textbf{(A)}\ 34", "(A) 34", "A. 34", "A) 34",
        r"\text{(A) }34", "34.",
        "34,", r"34\\", r"\text{34}", r"\mathbf{34}", r"\underline{34}", r"\color{red}{34}", "{34}",
        r"\displaystyle 34",
        r"\left(34\right)", "The answer is 34", r"\text{Answer: }34", "34 apples", "34 cm", "34cm",
        r"34\,\mathrm{cm}",
        r"34\text{ cm}^{2}", r"34\ \mathrm{m/s}", r"34\,\mathrm{km}\,\mathrm{h}^{-1}", "34 square units",
        r"34\text{m}",
        r"34^\circ", r"34^\circ\text{C}", "34°C", "34°", r"34\text{ degrees}", r"\$34", "€34",
        r"34\%", "34 percent", r"\text{$34$}",
        r"\text{34 cm}", r"34\,",
        "034", "34.0", r"\frac{68}{2}", r"\sqrt{1156}",
    ],
    "f(x) = x^2 + 1": ["x^2+1", "f(x)=1+x^2", r"f(x) = x^{2}+1"],
    "y = 2x + 1": ["2x+1", "2x+1=y", "y=1+2x"],
    "3:4": [r"\frac{3}{4}", "6:8", r"3 \text{ to } 4", "3 : 4", "3/4"],
    "1:2:3": ["2:4:6"],
    # choices
    "A": ["(A)", r"\text{A}", r"\textbf{(A)}", r"\textbf{(A) } 34", "Option A", r"\text{(A)}", "A."],
    r"\textbf{(B) } 34": ["34", "B", "(B)", r"\text{(B)}\ 34", "x=34"],
    r"\text{A, C}": ["A, C", "C,A", r"\text{A,C}"],
    # lists, sets, tuples, intervals, matrices
    "2, -2": [
        r"\pm 2", "±2", "-2, 2", r"\{2,-2\}", r"x = \pm 2", r"x = 2 \text{ or } x = -2", "x=2 or x=-2",
        r"2\text{ and }-2", "2; -2",
    ],
    r"\frac{1+\sqrt{5}}{2}, \frac{1-\sqrt{5}}{2}": [r"\frac{1\pm\sqrt5}{2}", r"x = \frac{1 \pm \sqrt{5}}{2}"],
    "-1+2i, -1-2i": [r"-1 \pm 2i", r"x = -1\pm 2i"],
    "(20, 89), (20, -89)": [r"(20, \pm 89)"],
    r"\{1, -1, 2, -2\}": [r"\{\pm 1, \pm 2\}", r"\pm1,\pm2"],
    r"\{1, 2\}": [r"\{2,1\}", "1, 2", r"\left\{ 1, 2 \right\}", r"x \in \{1,2\}", r"\lbrace 1,2\rbrace"],
    "(1, 2)": [
        r"\left( 1, 2 \right)", r"(1.0, \frac{4}{2})", r"(x, y) = (1, 2)", r"x = 1, y = 2", r"x = 1, \quad y = 2",
        "1<x<2",
    ],
    r"[3, \infty)": [r"x \ge 3", r"\left[3,\infty\right)", r"x \in [3, +\infty)", "x≥3"],
    r"(-\infty, 1) \cup (2, 3]": [r"(2,3]\cup(-\infty,1)", "(−∞,1)∪(2,3]"],
    r"\begin{pmatrix} 1 & -2 \\ \frac12 & 4 \end{pmatrix}": [
        r"\begin{bmatrix}1&-2\\0.5&4\end{bmatrix}", r"\left(\begin{array}{cc}1&-2\\\frac{1}{2}&4\end{array}\right)",
    ],
    r"\emptyset": [r"\varnothing", r"\{\}", "∅"],
    # roots, constants, symbols
    r"2\sqrt{3}": [r"2\sqrt3", "2√3", r"\sqrt{12}", "2sqrt(3)", r"\frac{6}{\sqrt{3}}", r"2\cdot 3^{1/2}", "A) 2√3"],
    r"\frac{\pi}{2}": [r"\pi/2", "π/2", r"0.5\pi", r"\frac12\pi"],
    r"\infty": [r"+\infty", "∞", r"\text{infinity}"],
    "-1": ["i^2", r"e^{i\pi}", r"\cos\pi"],
    "3 + 2i": ["2i+3", r"3+2\mathrm{i}"],
    "e^2": [r"\mathrm{e}^2", "e^{2}", "e²"],
    r"\binom{2n}{n}": [r"{2n \choose n}", r"\dbinom{2n}{n}", r"2n \choose n"],
    "6": ["3!", r"\binom{4}{2}", r"{4 \choose 2}", r"\log_2 64", "|-6|", r"\lfloor 6.7 \rfloor"],
    "x^2 + 2x + 1": ["(x+1)^2", "x²+2x+1", "1 + 2x + x^2"],
    "2t": ["2 t", r"2\,t", r"t\cdot 2"],
    "y'": [r"y^{\prime}"],
    r"\frac{R}{r}": ["R/r", r"\dfrac{R}{r}"],
    # words
    r"\text{Yes}": ["yes", "Yes", r"\textbf{yes}", "YES"],
    "True": [r"\text{true}"],
    r"\text{does not exist}": ["does not exist", r"\text{Does not exist.}"],
}  # fmt: skip

UNEQUAL = [
    # another number
    ("10000", "1000"), ("10 million", "10"), (r"10\text{ million dollars}", "10"), ("2 alpha", "2"),
    (r"10\,000", "10"), (r"10\text{,}000", "10"), ("(1,234)", "1234"), ("10,000", "10.000"),
    ("1,5", "1.5"),
    ("2^{-98}", "2^{-99}"), ("2^{-98}", "0"), ("10^{-20}", "10^{-21}"), ("e^{-100}", "e^{-101}"),
    ("2^{1000}", "2^{1000}+1"),
    ("10^{400}", "10^{401}"), ("2^{100000}", "2^{100001}"), (r"\frac{\pi}{10^{20}}", r"\frac{\pi}{10^{21}}"),
    (r"\sqrt{2}", r"\sqrt{2}+10^{-20}"), ("2^{-98}x", "2^{-99}x"), ("(2^{-98}, 1)", "(2^{-99}, 1)"),
    ("x = 2^{-98}", "x = 2^{-99}"),
    (r"\{2^{-98}, 1\}", r"\{2^{-99}, 1\}"),
    (r"\begin{pmatrix}2^{-98}&1\end{pmatrix}", r"\begin{pmatrix}2^{-99}&1\end{pmatrix}"),
    ("0.0000001", "0.0000002"), ("0.00000872", "0.000009"), ("3.61e-10", "3.7e-10"),
    (r"1.6\times 10^{-19}", r"1.6\times 10^{-18}"),
    (r"6.022\times10^{23}", r"6.023\times10^{23}"), ("34.001", "34"), ("0.333", r"\frac13"), ("3.14", r"\pi"),
    ("-34", "34"),
    (r"0.\overline{3}", "0.3"), (r"0.\overline{3}", "0"), (r"{2n \choose n}", "2"), ("1/2", "2"),
    (r"3\frac14", r"\frac34"),
    (r"50\%", "5"), ("30^\\circ", "31^\\circ"), (r"34\text{ cm}", r"34\text{ km}"),
    (r"34\text{ cm}", r"35\text{ cm}"),
    # an equation, a relation or a ratio is no number
    ("n^2=34", "34"), ("34=n^2", "34"), ("2n = 34", "34"), ("n+1 = 34", "34"), ("n! = 34", "34"),
    (r"\sqrt{n} = 34", "34"),
    (r"\frac{n}{2} = 34", "34"), (r"\log n = 34", "34"), ("|x| = 34", "34"), ("x^2+y^2=34", "34"),
    ("n^2 = 34, m = 2", "34, 2"),
    ("2+2 = 34", "34"), ("x = 1 = 34", "34"), ("x > 34", "34"), (r"x \ne 34", "34"), (r"x \ge 34", "x > 34"),
    ("x=1 or x=2", "2"),
    (r"x = 1 \quad y = 2", "2"), ("x=34", "x=35"), ("34:1", "34"), ("1:34", "34"), ("3:4", "4:3"), ("1:2:3", "1:6"),
    ("AB^2 = 34", "34"), ("y = x^2", "x^3"),
    # choices
    ("A", "B"), ("(A) 34", "B"), ("(A) 34", "(B) 34"), ("(A) 34", "(A) 35"), ("(A) 34", "35"), (r"\text{A, C}", "A"),
    # lists, sets, tuples, intervals, matrices
    (r"\pm 2", "2"), (r"\pm 2", "2, -3"), ("34 or 35", "34"), (r"34\text{ and }35", "34"), ("1, 2", "12"),
    ("1,2,3", "1,2"),
    ("(1,2)", "(2,1)"), ("(1,2,3)", r"\{1,2,3\}"), (r"\{1,2\}", "(1,2)"), ("(1,2)", "[1,2]"), ("(0,0)", "(1,1)"),
    ("(1,2]", "(1,2)"),
    (r"\{1,2\}", r"\{1,3\}"), ("x=1, y=2", "x=2, y=1"), ("x=1, y=2", "(2,1)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    # symbols and words
    ("2t", "2"), ("3m", "3"), (r"\pi R^2 h", r"\pi R^2"), (r"3\text{x}", "3"), (r"2\mathrm{i}", "2"),
    ("2i", "-2i"), ("2e", "2"),
    (r"\frac{R}{r}", "1"), (r"\frac{\Gamma}{\gamma}", "1"), ("y'", "y"), ("y'' = 0", "y = 0"),
    (r"\mathbb{Z}_6", r"\mathbb{Z}_7"),
    ("yes", "no"), ("no", "on"), (r"\text{even}", r"\text{odd}"), ("BDCADABB", "ABBBCDDA"),
    (r"\infty", r"-\infty"), ("", "34"),
    ("(x+1)^2", "x^2+1"), ("O(n^2)", "O(n^3)"), ("nonsense 34 (", "34"), (r"\{x : x > 34", "34"),
]  # fmt: skip


def verdicts(pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
    """The grader's verdict on what a response says in a box, beside the gold as a set has it."""
    return graders.verify([boxed_answer(rf"\boxed{{{answer}}}") for answer, _ in pairs], [gold for _, gold in pairs])


def test_the_table_is_as_large_as_it_should_be() -> None:
    assert len(UNEQUAL) >= 90 and sum(len(forms) for forms in EQUAL.values()) >= 200


@pytest.mark.parametrize("turned", [False, True], ids=["response", "gold"])
def test_forms_of_one_answer_are_right_on_gold_and_response_alike(turned: bool) -> None:
    pairs = [(form, gold) for gold, forms in EQUAL.items() for form in forms]
    pairs = [(gold, form) for form, gold in pairs] if turned else pairs
    wrong = [pair for pair, verdict in zip(pairs, verdicts(pairs), strict=True) if verdict is not True]
    assert not wrong


@pytest.mark.parametrize("turned", [False, True], ids=["response", "gold"])
def test_another_answer_is_wrong_on_gold_and_response_alike(turned: bool) -> None:
    pairs = [(gold, form) for form, gold in UNEQUAL if form] if turned else UNEQUAL
    right = [pair for pair, verdict in zip(pairs, verdicts(pairs), strict=True) if verdict is not False and pair[0]]
    assert not right


def test_a_gold_no_machine_can_write_out_ends_within_its_limits() -> None:
    huge = [("9^{9^{9}}", "9^{9^{9}}+1"), ("34", "9^{9^{9}}"), ("(10^9)!", "(10^9)!+1")]
    pairs = [*huge, *((gold, gold) for _, gold in huge), (r"\frac{68}{2}", "34")]
    judged = graders.verify([answer for answer, _ in pairs], [gold for _, gold in pairs], cpu_seconds=0.5)
    assert True not in judged[:3] and judged[3:] == [True] * 4


def test_the_grading_process_has_no_more_memory_than_stated() -> None:
    script = (
        "import resource; from opd_lib.tasks import equality; equality.sys.stdin = ();"
        "equality._serve(1.0); print(resource.getrlimit(resource.RLIMIT_AS)[0])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    assert done.stderr.split()[-1] == str(4 << 30) or sys.platform != "linux"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("(1,234)", "(1,234)"),
        ("1,234, 5", "1234, 5"),
        ("1,2345", "1,2345"),
        ("(1,024)", "(1024)"),
        ("100,200,3", "100,200,3"),
        ("x_1 000", "x_1 000"),
        (r"\log_2 100", r"\log_2 100"),
        ("2e-5", "2e-5"),
        ("1e-5", r"1\times 10^{-5}"),
        (r"\frac{{a \over b}}{c}", r"\frac{\frac{a}{b}}{c}"),
        (r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}"),
    ],
)
def test_what_separates_and_what_groups_digits_is_told_apart(text: str, plain: str) -> None:
    assert latex.evened(text) == plain


@given(st.text(alphabet="0123456789 ,.{}\\()^_-=:;eE/$%!'abxRi|±∓√½²", max_size=40))
@settings(deadline=None, max_examples=300)
def test_evening_and_taking_apart_never_raise_and(text: str) -> None:
    stated = statements.statement_of(graders.clean(text))
    equations.value(stated.text)
    equations.ratio(stated.text)
    equations.both_signs(stated.text)
    assert stated.text == stated.text.strip()
