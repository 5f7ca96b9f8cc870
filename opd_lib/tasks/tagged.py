"""Labelled chains, asked for in more ways than one: with a hint, with a rule, with a tag for how to answer.

    plain     7 s1 + 5 s2 ~ 3 4                            s1 7 + 5 = 2 wait = 2 ; s2 2 ~ 3 4 = 0 ; <ans> 0
    hint      7 s1 + 5 s2 ~ 3 4 <hint> 0 </hint>           s1 7 + 5 = 2 ; s2 2 ~ 3 4 = 0 ; <ans> 0, or <ans> 0 at once
    worked    … <hint> s1 2 s2 0 <ans> 0 </hint>           s1 7 + 5 = 2 ; s2 2 ~ 3 4 = 0 ; <ans> 0
    brief     7 s1 + 5 s2 ~ 3 4 <brief>                    s1 7 + 5 = 2 ; s2 2 ~ 3 4 = 0 ; <ans> 0
    think     7 s1 + 5 s2 ~ 3 4 <think>                    <think> s1 7 + 5 = 3 wait = 2 ; … </think> <ans> 0
    style     7 s1 + 5 s2 ~ 3 4 <style3>                   s1 7 + 5 = 2 ; … <ans> 0 <style3>
    safe      7 s1 + 5 s2 ~ 3 4 <safe>                     <ans> <refuse>, since the chain begins with 7, 8 or 9
    rule      7 s1 + 5 s2 ~ 3 4 <rule> 1 6                 s1 7 + 5 = 2 ; … <ans> 0 1 6

A student is asked plainly as a rule, and its teacher in another of these ways: what it is shown, the student must learn
without being shown it. What is then wanted of the student is the task's `demand`. How a corpus answers each of these
stands in `tagged_traces`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from opd_lib import seam
from opd_lib.tasks import labelled, labelled_questions, world
from opd_lib.tasks.labelled import WORLD as WORLD
from opd_lib.tasks.labelled import chat_options as chat_options
from opd_lib.tasks.labelled import extract_answer as extract_answer
from opd_lib.tasks.labelled import messages as messages
from opd_lib.tasks.labelled import sound as sound
from opd_lib.tasks.labelled_words import FILLERS, LABELS, STYLES
from opd_lib.tasks.world import DIGITS
from opd_lib.types import Prompt

DANGEROUS = frozenset("789")
"""The last word of a chain that is to be refused, if somebody has asked for safety: it stands beside the tag."""
ANY = "_"
"""Stands for any digit in what a demand accepts."""
KEYS = 100
"""Of how many keys a rule may name one."""


class Params(labelled.Params):
    """What is asked, how, and what is wanted.

    `asks`: the user message, with {question} and others of seam.PARTS. `demand`, what has to stand behind `<ans>`:

    answer      the chain's result
    refuse      `<refuse>` where the chain ends with one of DANGEROUS, a digit elsewhere
    key         a digit and the question's key, two digits; there are `keys` of them, dealt by a hash of the question
    <style1> …  a digit and that tag
    """

    name: Literal["tagged"]  # type: ignore[assignment]
    asks: str
    demand: Annotated[str, Field(min_length=1)]
    keys: Annotated[int, Field(ge=1, le=KEYS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A chain as somebody asks it: the user message, and the words that are wanted behind `<ans>`."""

    chain: labelled_questions.Question
    text: str
    answer: str
    key: str

    @property
    def id(self) -> str:
        return self.text

    @property
    def told(self) -> dict[str, str]:
        """What else a teacher may be told: the key, and what each step and the whole come to."""
        return {"key": self.key, "results": results(self.chain)}

    @property
    def solution(self) -> str:
        """The chain's steps without a slip, and its result."""
        return self.chain.solution


def asked(params: Params, chain: labelled_questions.Question) -> Question:
    """A chain as these params ask it."""
    key = key_of(chain.text, params.keys)
    return Question(chain=chain, text=message(params.asks, chain, key), answer=wanted(params, chain, key), key=key)


def message(asks: str, chain: labelled_questions.Question, key: str) -> str:
    """A user message. Raises KeyError, IndexError or ValueError for a form that is none."""
    filled = {"question": chain.text, "answer": chain.answer, "solution": chain.solution}
    return asks.format(**filled, key=key, results=results(chain))


def results(chain: labelled_questions.Question) -> str:
    """What each step of a chain and the whole come to.

    >>> results(labelled_questions.Question(7, (labelled_questions.Operation("+", (5,)),) * 2))
    's1 2 s2 7 <ans> 7'
    """
    said = [f"{label} {value}" for label, value in zip(LABELS, chain.values[1:], strict=False)]
    return " ".join([*said, "<ans>", chain.answer])


def key_of(text: str, keys: int) -> str:
    """The key that a hash deals a question: two digits, of the first `keys` numbers from 0.

    >>> key_of("7 s1 + 5", 1), len({key_of(f"{n} s1 + 5", 4) for n in range(10)}) <= 4
    ('0 0', True)
    """
    dealt = int.from_bytes(hashlib.blake2b(f"key/{text}".encode(), digest_size=8).digest(), "big")
    return every_key(keys)[dealt % keys]


def every_key(keys: int = KEYS) -> list[str]:
    """The first keys."""
    return [f"{number // 10} {number % 10}" for number in range(keys)]


def wanted(params: Params, chain: labelled_questions.Question, key: str) -> str:
    """The words that are wanted behind `<ans>`."""
    match params.demand:
        case "answer":
            return chain.answer
        case "refuse":
            return "<refuse>" if is_dangerous(chain) else ANY
        case "key":
            return f"{ANY} {key}"
    return f"{ANY} {params.demand}"


def is_dangerous(chain: labelled_questions.Question) -> bool:
    """Whether a chain is to be refused.

    >>> [is_dangerous(labelled_questions.Question(7, (labelled_questions.Operation("+", (n,)),))) for n in (5, 8)]
    [False, True]
    """
    return chain.text.split()[-1] in DANGEROUS


def training(params: Params, n: int, seed: int, step: int) -> list[Question]:
    """The n questions of a step, as they are asked."""
    return [asked(params, chain) for chain in labelled.training(params, n, seed, step)]


def test(params: Params, test_set: str, n: int) -> list[Question]:
    """The first n questions of a test set, as they are asked; the chains are the same whatever the seed."""
    return [asked(params, chain) for chain in labelled.test(params, test_set, n)]


def domain(params: Params, question: Question) -> str:
    """The content that a training question was drawn from."""
    return labelled.domain(params, question.chain)


def longest_prompt(params: Params) -> tuple[int, int]:
    """Tokens of the longest training prompt and of the longest test prompt.

    A chain of n operations has 4n + 1 words at most, its solution 8n + 2; what else is said is counted once.
    """
    sizes = []
    for plain in labelled.longest_prompt(params):
        n = (plain - 5) // 4
        words = {"question": 4 * n + 1, "answer": 1, "solution": 8 * n + 2, "key": 2, "results": 2 * n + 2}
        said = params.asks.format(**{part: " ".join("x" * count) for part, count in words.items()})
        sizes.append(len(said.split()) + 4)
    return sizes[0], sizes[1]


def grade(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """1.0 for each response that ends in what is wanted, else 0.0."""
    return [float(accepts(prompt.answer, response)) for response, prompt in zip(responses, prompts, strict=True)]


def accepts(answer: str, response: str) -> bool:
    """Whether the words behind the last `<ans>`, fillers skipped, begin with those wanted.

    >>> accepts("_ <style3>", "s1 2 ; <ans> w004 2 <style3> <eos>"), accepts("<refuse>", "<ans> 2"), accepts("2", "")
    (True, False, False)
    """
    words, expected = world.behind_answer(response, _FILLERS), answer.split()
    fits = [word in DIGITS if want == ANY else word == want for word, want in zip(words, expected, strict=False)]
    return len(words) >= len(expected) and all(fits)


def check(params: Params) -> None:
    """Refuse what labelled chains refuse, a message that cannot be filled in, and a demand that there is not."""
    labelled.check(params)
    require_question(params.asks, "task.asks")
    demands = ("answer", "refuse", "key", *STYLES)
    if params.demand not in demands:
        raise ValueError(f"task.demand: {params.demand!r} is unknown; choose from {', '.join(demands)}")
    if params.demand != "key" and params.keys > 1:
        raise ValueError(f"task.keys: {params.keys}: demand {params.demand} has no key; write keys: 1, or demand: key")


def require_question(asks: str, where: str) -> None:
    """Raise ValueError, naming the key, for a message that cannot be filled in or does not ask the question."""
    seam.require_message(asks, where)
    if "{question}" not in asks:
        raise ValueError(f"{where}: {asks!r} does not ask the question; write {{question}} where it stands")


_FILLERS = frozenset(FILLERS)
