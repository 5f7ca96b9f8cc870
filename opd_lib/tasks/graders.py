r"""Reading an answer from a response and grading it: math-verify behind one function, exact match beside it.

What is done before math-verify decides and after it, so that 10\,000 is 10000 and 2⁻⁹⁸ is not 2⁻⁹⁹, says `equality`.

A response states its answer in the last `\boxed{…}` that holds something, or on the last line `Answer: …`; a prompt
asks for one of the two (`asked`), and the other counts where that one is missing.

math-verify's own time limits are alarm signals: they work on a main thread only, and not inside one long operation of
C code such as a tower of powers. So `verify` hands the answers to a process of its own, which the kernel ends when one
answer takes more than CPU_SECONDS of processor time; that answer has no verdict, and a new process takes the rest. It
works from every thread and process, nothing outlives the call, and a slow machine changes no verdict.

Differs: the published in-training grader reads boxes only, also where the prompt asks for a line, and compares strings
and sympy forms before it asks math-verify; its offline grader is another one (arXiv 2604.13016, code).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from opd_lib import lifetime
from opd_lib.paths import ROOT

if TYPE_CHECKING:
    import pandas as pd

AnswerForm = Literal["box", "line"]

CPU_SECONDS = 5.0  # per answer
MAX_CHARACTERS = 1000  # a longer answer is not parsed

_BRACE = re.compile(r"(?P<box>\\{1,3}boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_ANSWER = re.compile(r"\banswer[\s*]*[:：](?:\s|[*$]|\\[(\[])*", re.IGNORECASE)
_SPECIAL_TOKEN = re.compile(r"<[|｜][^<>\n]*[|｜]>|</?s>|<eos>")
_INTEGER = re.compile(r"([+-]?)(\d+)(?:\.0*)?(?:\^\{?\\circ\}?|°)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.0*)?")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")
_SPACING = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[!,;: ]|~|\s")


def boxed_answer(response: str) -> str | None:
    r"""What the last `\boxed{…}` with balanced braces holds, empty boxes skipped; None if there is none.

    >>> boxed_answer(r"so \boxed{3}, no: \boxed{\frac{1}{2}}. Fill in \boxed{}.")
    '\\frac{1}{2}'
    """
    opened: list[int | None] = []  # where the content of each open brace begins, None for a brace that is no box
    last, answer = -1, None
    for match in _BRACE.finditer(response):
        if match["box"] or match["open"]:
            opened.append(match.end() if match["box"] else None)
        elif match["close"] and opened:
            begin = opened.pop()
            if begin is not None and begin > last and (held := clean(response[begin : match.start()])):
                last, answer = begin, held
    return answer


def line_answer(response: str) -> str | None:
    """What follows the last `Answer:` on its line, or on the next line if nothing does; None if there is none.

    >>> line_answer("Answer: 3 **Wait.** **Answer:** $34$."), line_answer("Answer:")
    ('34', None)
    """
    end = len(response)
    for marker in reversed(list(_ANSWER.finditer(response))):
        line = response[marker.end() : end].split("\n", 1)[0]
        if answer := boxed_answer(line) or clean(line):
            return answer
        end = marker.start()
    return None


def stated_answer(response: str, form: AnswerForm) -> str | None:
    """The answer a response states, in the form asked for if it is there, else in the other; None if in neither."""
    readers = (boxed_answer, line_answer) if form == "box" else (line_answer, boxed_answer)
    return readers[0](response) or readers[1](response)


def clean(answer: str) -> str:
    r"""An answer without what only surrounds it: blanks, dollars, math brackets, emphasis, full stops, braces.

    >>> clean(r" **\( {34} \)**. <|im_end|>")
    '34'
    """
    answer = _SPECIAL_TOKEN.sub("", answer)
    answer = re.sub(r"(?<!\\)(?:\$|\\[()\[\]])|\*\*", "", answer).strip(' \t\r\n"`*')
    if answer.startswith("'"):  # not the prime of f'
        answer = answer.strip("'")
    answer = re.sub(r"(?<!\.)\.$", "", answer).strip()  # the three of 0.333... stay
    while answer.startswith("{") and len(answer) <= MAX_CHARACTERS and _closes_at_end(answer):
        answer = answer[1:-1].strip()
    return answer


def _closes_at_end(answer: str) -> bool:
    """Whether the brace an answer begins with is closed by its last character."""
    depth = 0
    for match in _BRACE.finditer(answer):
        depth += bool(match["box"] or match["open"]) - bool(match["close"])
        if depth == 0:
            return match.end() == len(answer)
    return False


def plain_integer(answer: str) -> str | None:
    r"""The integer an answer is, written the one usual way; None for anything else.

    >>> [plain_integer(text) for text in ("025", "142.0", r"336^\circ", "-1,024", "x", "1/2")]
    ['25', '142', '336', '-1024', None, None]
    """
    answer = answer.strip().replace("−", "-")
    if _THOUSANDS.fullmatch(answer):
        answer = answer.replace(",", "")
    match = _INTEGER.fullmatch(answer)
    if match is None or not match[2].isascii():
        return None
    digits = match[2].lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def exact(answer: str | None, gold: str) -> bool:
    r"""Whether two answers are the same text once spacing, \text, \dfrac and the ways to write an integer are evened.

    >>> exact(r"\dfrac{1}{2}", r"\frac12"), exact(r"\text{Yes}", "Yes"), exact("034", "34.0")
    (False, True, True)
    """
    return answer is not None and _evened(answer) == _evened(gold)


def _evened(answer: str) -> str:
    answer = _SPACING.sub("", _TEXT.sub(r"\1", clean(answer)))
    answer = re.sub(r"\\[dt]frac", r"\\frac", answer)
    return plain_integer(answer) or answer


def verify(answers: Sequence[str | None], golds: Sequence[str], cpu_seconds: float = CPU_SECONDS) -> list[bool | None]:
    """Whether each answer is equal to its gold, by math-verify; None where it gave no verdict within its limits.

    No answer is a wrong one. Two plain integers are compared as such, and an answer that is its gold's text is right.
    An answer of more than MAX_CHARACTERS, one that takes more than `cpu_seconds`, and an empty gold have no verdict.
    """
    verdicts: list[bool | None] = [None] * len(golds)
    pending: list[tuple[int, str, str]] = []
    for index, (answer, gold) in enumerate(zip(answers, golds, strict=True)):
        if answer is None:
            verdicts[index] = False
        elif (stated := plain_integer(answer)) is not None and (right := plain_integer(gold)) is not None:
            verdicts[index] = stated == right
        elif gold and len(answer) <= MAX_CHARACTERS:
            pair = clean(answer), clean(gold)
            if pair[0] and pair[0].split() == pair[1].split():
                verdicts[index] = True
            else:
                pending.append((index, *pair))
    while pending:
        judged = _judge([(answer, gold) for _, answer, gold in pending], cpu_seconds)
        for (index, _, _), verdict in zip(pending, judged, strict=False):
            verdicts[index] = verdict
        pending = pending[len(judged) + 1 :]  # the one after the last verdict ended the process
    return verdicts


def _judge(pairs: Sequence[tuple[str, str]], cpu_seconds: float) -> list[bool]:
    """math-verify's verdicts on (answer, gold) pairs, in a process of its own; fewer if one of them ended it."""
    command = lifetime.bound([sys.executable, "-m", "opd_lib.tasks.equality", str(cpu_seconds)])
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    done = subprocess.run(command, input=lines, capture_output=True, encoding="utf-8", cwd=ROOT, check=False)
    ready, _, verdicts = done.stdout.partition("\n")
    if ready != "ready":
        raise RuntimeError(f"the grading process did not start; is math-verify installed?\n{done.stderr[-2000:]}")
    return [verdict == "1" for verdict in verdicts.split()]


OUTCOMES = {  # by whether math-verify and exact match call a response right
    "both right": (True, True),
    "only math-verify": (True, False),
    "only exact match": (False, True),
    "neither": (False, False),
}


def compare_graders(
    responses: Sequence[str | None], golds: Sequence[str], form: AnswerForm = "box", n_examples: int = 3
) -> pd.DataFrame:
    """How often math-verify and exact match call the same response right: one row per outcome.

    A response that is None states no answer and is wrong; an empty gold gives no verdict.
    Columns: responses, share, no_answer and no_verdict (how many of these responses), examples ("answer | gold").
    """
    import pandas as pd

    answers = [None if response is None else stated_answer(response, form) for response in responses]
    verdicts = verify(answers, golds)
    judged = list(zip(answers, golds, verdicts, strict=True))
    rows = []
    for outcome, both in OUTCOMES.items():
        of_it = [(a, gold, v) for a, gold, v in judged if (bool(v), exact(a, gold)) == both]
        rows.append(
            {
                "outcome": outcome,
                "responses": len(of_it),
                "share": len(of_it) / max(len(judged), 1),
                "no_answer": sum(answer is None for answer, _, _ in of_it),
                "no_verdict": sum(verdict is None for _, _, verdict in of_it),
                "examples": list(dict.fromkeys(f"{answer} | {gold}" for answer, gold, _ in of_it))[:n_examples],
            }
        )
    return pd.DataFrame(rows).set_index("outcome")
