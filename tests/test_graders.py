"""Reading answers from responses, math-verify in its own process, exact match, and where the two disagree."""

from __future__ import annotations

import random
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_lib.tasks import graders, math_sets

TOWER = "9^{9^{9^{9}}}"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{34}", "34"),
        (r"\boxed{3}, no: \boxed{34}.", "34"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{x : x^{2} < 5\right\}}", r"\left\{x : x^{2} < 5\right\}"),
        (r"\boxed{{34}}", "34"),
        (r"\boxed{\boxed{34}}", "34"),
        (r"\\boxed{34}", "34"),
        (r"\boxed {34}", "34"),
        (r"\boxed{ $34$ }", "34"),
        (r"\boxed{34} and then \boxed{", "34"),
        (r"\boxed{34}, put it within \boxed{}.", "34"),
        (r"{ never closed \boxed{34}", "34"),
        (r"} \boxed{34}", "34"),
        (r"\boxed{1 + \boxed{34} + 2}", "34"),
        ("\\boxed{a\nb}", "a\nb"),
        (r"\boxed{34", None),
        (r"\boxed{}", None),
        (r"\boxed{ { } }", None),
        (r"\boxed 34", None),
        ("34", None),
        ("", None),
    ],
)
def test_the_last_box_that_holds_something_is_read(response: str, answer: str | None) -> None:
    assert graders.boxed_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Answer: 34", "34"),
        ("Answer: 3\nAnswer: 34", "34"),
        ("Answer: 34\nThat is all.", "34"),
        ("Answer: $34$.", "34"),
        (r"Answer: \(34\)", "34"),
        ("Answer: \\[\n34\n\\]", "34"),
        ("Answer:\n\n34", "34"),
        ("**Answer:** 34", "34"),
        ("**Answer**: **34**", "34"),
        ("**Final Answer: 34**", "34"),
        ("answer:34", "34"),
        ("Answer：34", "34"),
        (r"Answer: $\frac{1}{2}$", r"\frac{1}{2}"),
        (r"Answer: \boxed{34}", "34"),
        ("Answer: 34<|im_end|>", "34"),
        ("Answer: 34<｜end▁of▁sentence｜>", "34"),
        ('Answer: 34\nRemember the line after "Answer:".', "34"),
        ("Answer: $x$ and $y$", "x and y"),
        ("The answer is 34", None),
        ("Answer:", None),
        ("Answer: $$", None),
        ("Answerable: 34", None),
        ("", None),
    ],
)
def test_the_last_answer_line_that_says_something_is_read(response: str, answer: str | None) -> None:
    assert graders.line_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "box", "line"),
    [
        ("\\boxed{1}\nAnswer: 2", "1", "2"),
        ("Answer: 2\n\\boxed{1}", "1", "2"),
        (r"\boxed{1}", "1", "1"),
        ("Answer: 2", "2", "2"),
        ("1 or 2", None, None),
    ],
)
def test_the_form_asked_for_comes_first_and_the_other_counts(response: str, box: str | None, line: str | None) -> None:
    assert graders.stated_answer(response, "box") == box
    assert graders.stated_answer(response, "line") == line


@pytest.mark.parametrize(
    "unit", ["\\boxed{", "Answer: ", "answer ", "\\", "{", "}", "0", " ", "*", "$", "<|", "\\text{", "1,", "\\boxed "]
)
def test_reading_takes_linear_time(unit: str) -> None:
    response = "answer" + unit * 20_000 + "x"
    begin = time.process_time()
    for text in (response, f"\\boxed{{{response}}}", f"\\boxed{{{unit * 20_000}{'}' * 20_000}"):
        graders.exact(graders.stated_answer(text, "line"), "34")
        graders.exact(graders.stated_answer(text, "box"), "34")
    assert time.process_time() - begin < 1.5


INTEGERS = {
    "34": "34",
    "034": "34",
    "+34": "34",
    "34.0": "34",
    "34.": "34",
    "-4.0": "-4",
    "−4": "-4",
    "-0": "0",
    "000": "0",
    "1,024": "1024",
    "-12,345,678": "-12345678",
    r"336^\circ": "336",
    r"336^{\circ}": "336",
    "336°": "336",
    "22099999999999998951424": "22099999999999998951424",
}
NO_INTEGERS = ("34.5", "1/2", r"\frac{34}{1}", "x", "", "1,02", "1 024", "3e2", "--4", "34%", "٣", "3,4")


@pytest.mark.parametrize(("text", "integer"), INTEGERS.items())
def test_an_integer_is_written_one_way(text: str, integer: str) -> None:
    assert graders.plain_integer(text) == integer


@pytest.mark.parametrize("text", NO_INTEGERS)
def test_what_is_no_plain_integer_is_left_to_math_verify(text: str) -> None:
    assert graders.plain_integer(text) is None


def test_math_verify_agrees_where_plain_integers_are_compared_without_it() -> None:
    pairs = list(INTEGERS.items())
    pairs += [(text, str(int(integer) + 1)) for text, integer in INTEGERS.items()]
    judged = graders._judge([(graders.clean(text), gold) for text, gold in pairs], graders.CPU_SECONDS)
    assert judged == graders.verify([text for text, _ in pairs], [gold for _, gold in pairs])
    assert judged == [True] * len(INTEGERS) + [False] * len(INTEGERS)


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("34", "34", True),
        ("034", "34.0", True),
        (r"\dfrac{1}{2}", r"\frac{1}{2}", True),
        (r"\left( 1, 2 \right)", "(1,2)", True),
        (r"\text{Yes}", "Yes", True),
        ("yes", "Yes", False),
        ("0.5", r"\frac{1}{2}", False),
        (r"\leftarrow", "arrow", False),
        ("x=34", "34", False),
        ("", "34", False),
        (None, "34", False),
    ],
)
def test_exact_match_is_of_the_text_alone(answer: str | None, gold: str, same: bool) -> None:
    assert graders.exact(answer, gold) is same


def test_math_verify_judges_values_not_texts() -> None:
    cases = [
        ("0.5", r"\frac{1}{2}", True),
        (r"\frac{68}{2}", "34", True),
        ("x = 34", "34", True),
        ("34 apples", "34", True),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        (r"\{2, 1\}", r"\{1, 2\}", True),
        (r"\text{Yes}", "Yes", True),
        ("No", "Yes", False),
        ("B", "A", False),
        ("33", "34", False),
        ("34 or 35", "34", False),
        ("(1,2)", "(2,1)", False),
        (r"\infty", "-\\infty", False),
        ("34.001", "34", False),
        ("", "34", False),
        (None, "34", False),
    ]
    verdicts = graders.verify([answer for answer, _, _ in cases], [gold for _, gold, _ in cases])
    assert verdicts == [right for _, _, right in cases]


def test_an_answer_that_would_take_for_ever_has_no_verdict_and_the_next_ones_have() -> None:
    answers = [r"\frac{68}{2}", TOWER, "x = 34"]
    assert graders.verify(answers, ["34"] * 3, cpu_seconds=0.5) == [True, None, True]


def test_the_limit_holds_on_any_thread() -> None:
    verdicts: list[list[bool | None]] = []
    ask = lambda: verdicts.append(graders.verify([r"\frac{68}{2}", TOWER], ["34", "34"], cpu_seconds=0.5))
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [[True, None]] * 2


def test_an_answer_of_the_length_of_a_page_is_not_parsed() -> None:
    long = "1" + "+1" * (graders.MAX_CHARACTERS // 2)
    assert len(long) == graders.MAX_CHARACTERS + 1
    assert graders.verify([long], ["501"]) == [None]


def test_plain_integers_and_missing_answers_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a process was started"))
    answers, golds = ["034", "35", None, "9" * 5000, "x = 34"], ["34", "34", "34", "9" * 5000, ""]
    assert graders.verify(answers, golds) == [True, False, False, True, None]


def test_a_process_that_does_not_start_is_an_error_not_a_grade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match="is math-verify installed"):
        graders.verify(["x = 34"], ["34"])


PIECES = (
    "\\", "{", "}", "$", "\\boxed{", "\\frac{", "^", "_", "9", "0", "-", "(", ")", "[", "]", "\\left", "\\right",
    "\\sqrt{", "\\text{", "Answer:", "\n", " ", "\x00", "\ud800", "，", "x", "=", ",", ".", "%", "\\begin{matrix}", "&",
    "\\\\", "\\int", "\\sum_{", "!", "|", "∞", "\\pi", "e", "i", "<|im_end|>", "**", "\"", "\t",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=30).map("".join))
@settings(deadline=None)
def test_reading_never_raises(response: str) -> None:
    for answer in (graders.boxed_answer(response), graders.line_answer(response), graders.clean(response)):
        if answer is not None:
            graders.exact(answer, "34")
            assert graders.plain_integer(answer) in (None, graders.plain_integer(answer))
    stated = {graders.stated_answer(response, form) is None for form in ("box", "line")}
    assert len(stated) == 1  # whether there is an answer does not depend on the form asked for


@given(st.integers(0, 2**32))
@settings(max_examples=2, deadline=None)
def test_verifying_never_raises(seed: int) -> None:
    rng = random.Random(seed)
    answers = ["".join(rng.choices(PIECES, k=rng.randrange(1, 12))) for _ in range(60)]
    verdicts = graders.verify(answers, ["34"] * len(answers), cpu_seconds=1.0)
    assert len(verdicts) == len(answers) and {*verdicts} <= {True, False, None}


def test_the_table_of_disagreement_counts_every_response_once(monkeypatch: pytest.MonkeyPatch) -> None:
    responses = [
        *(r"\boxed{34}", r"\boxed{034}", "Answer: 34"),
        *(r"\boxed{\frac{68}{2}}", r"\boxed{x = 34}", r"\boxed{x = 34}"),
        *("no idea", r"\boxed{35}", rf"\boxed{{{TOWER}}}"),
    ]
    monkeypatch.setattr(graders.verify, "__defaults__", (0.5,))
    table = graders.compare_graders(responses, ["34"] * 9, n_examples=1)
    assert list(table.index) == ["both right", "only math-verify", "only exact match", "neither"]
    assert list(table["responses"]) == [3, 3, 0, 3]
    assert list(table["share"]) == [3 / 9, 3 / 9, 0, 3 / 9]
    assert list(table["no_answer"]) == [0, 0, 0, 1]
    assert list(table["no_verdict"]) == [0, 0, 0, 1]
    assert list(table["examples"]) == [["34 | 34"], [r"\frac{68}{2} | 34"], [], ["None | 34"]]


def test_what_only_exact_match_calls_right_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graders, "_judge", lambda pairs, _: [False] * len(pairs))
    table = graders.compare_graders([r"\boxed{\dfrac{1}{2}}"], [r"\frac{1}{2}"])
    assert table.loc["only exact match", "responses"] == 1
    assert table.loc["only exact match", "examples"] == [r"\dfrac{1}{2} | \frac{1}{2}"]


def test_an_empty_table_is_a_table() -> None:
    assert list(graders.compare_graders([], [])["responses"]) == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["dapo", "aime24", "aime25", "amc23-83", "amc23-40"])
def test_every_integer_gold_is_right_against_itself(real_data: Path, name: str) -> None:
    golds = [question.answer for question in math_sets.load(name, str(real_data))]
    responses = [rf"Thus \boxed{{{gold}}}." for gold in golds]
    assert all(graders.verify([graders.boxed_answer(text) for text in responses], golds))


def test_golds_that_are_no_integers_are_right_against_themselves(real_data: Path) -> None:
    golds = sorted({question.answer for question in math_sets.load("deepmath", str(real_data))})
    golds = random.Random(0).sample([gold for gold in golds if graders.plain_integer(gold) is None], 40)
    assert graders.verify([graders.boxed_answer(rf"\boxed{{{gold}}}") for gold in golds], golds) == [True] * 40
