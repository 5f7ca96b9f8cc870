"""The tiny world's chains with a calculator: a step is called in pattern B's words, and the tool writes its result.

    response    take 7 plus 5 get [2 .] take 2 times 3 get [6 .] <ans> 6 <eos>        [ ] written by the tool

A call that makes no sense is answered by a run of words that no response has on its own.
"""

from __future__ import annotations

from typing import Any, Literal

from opd_lib.tasks import chain
from opd_lib.tasks.chain import WORLD as WORLD
from opd_lib.tasks.chain import chat_options as chat_options
from opd_lib.tasks.chain import domain as domain
from opd_lib.tasks.chain import extract_answer as extract_answer
from opd_lib.tasks.chain import grade as grade
from opd_lib.tasks.chain import longest_prompt as longest_prompt
from opd_lib.tasks.chain import messages as messages
from opd_lib.tasks.chain import test as test
from opd_lib.tasks.chain import training as training

CALL = "get"
"""The word that ends a call."""
NONSENSE = f"{chain.UNKNOWN} {chain.UNKNOWN} {chain.UNKNOWN} ."
MEANING = {word: operator for operator, word in chain.SPOKEN.items()}


class Params(chain.Params):
    """What is asked, as in the task `chain`."""

    name: Literal["tool"]  # type: ignore[assignment]


def check(params: Any) -> None:
    """Refuse names the tiny world does not have."""
    chain.check(params)


def respond(question: str, text: str) -> str | None:
    """The result of the call that a response ends with; None if it ends with none.

    >>> respond("7 + 5", "take 7 w03 plus 5 get"), respond("7 + 5", "7 + 5 = 2"), respond("7 + 5", "take plus get")
    ('2 .', None, '<unk> <unk> <unk> .')
    """
    words = [word for word in text.split() if word not in chain.FILLERS]
    if not words or words[-1] != CALL:
        return None
    match words[-5:]:
        case ["take", left, operator, right, _] if operator in MEANING and {left, right} <= set(chain.DIGITS):
            return f"{chain.apply(MEANING[operator], int(left), int(right))} ."
    return NONSENSE
