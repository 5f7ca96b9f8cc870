r"""Which teacher rollouts are kept for the cold start: the published filters, by name.

    truncated        the response was cut at its length limit
    no_box           it holds no \boxed
    repeated_line    a line of at least 20 characters (blanks around it not counted) occurs at least 5 times
    repeated_ngram   of the 100-character pieces that begin at every 10th character, one occurs at least 3 times
    repeated_block   in a response of more than 5,000 characters, 50 characters follow one another at least 3 times

A response is named after the first filter it fails, in this order.

Source: arXiv 2604.13016 Table 3 ("drop truncated and degenerate"); thresholds from its code. Differs: the code asks for
up to 3 new responses where one fails; here the caller decides. Where its blocks begin is not stated: here anywhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

FILTERS = ("truncated", "no_box", "repeated_line", "repeated_ngram", "repeated_block")

LINE_CHARACTERS, LINE_TIMES = 20, 5
NGRAM_CHARACTERS, NGRAM_STRIDE, NGRAM_TIMES = 100, 10, 3
BLOCK_CHARACTERS, BLOCK_TIMES = 50, 3
BLOCK_FROM_CHARACTERS = 5000  # only longer responses are searched for blocks

_BLOCK = re.compile(rf"(.{{{BLOCK_CHARACTERS}}})\1{{{BLOCK_TIMES - 1}}}", re.DOTALL)


def first_failure(response: str, finished: bool) -> str | None:
    """The first of FILTERS a response fails, None if it is kept. `finished`: it was not cut at its length limit."""
    failed = {
        "truncated": lambda: not finished,
        "no_box": lambda: "\\boxed" not in response,
        "repeated_line": lambda: _most_common(_long_lines(response)) >= LINE_TIMES,
        "repeated_ngram": lambda: _most_common(_ngrams(response)) >= NGRAM_TIMES,
        "repeated_block": lambda: len(response) > BLOCK_FROM_CHARACTERS and _BLOCK.search(response) is not None,
    }
    return next((name for name in FILTERS if failed[name]()), None)


def count_failures(responses: Sequence[str], finished: Sequence[bool]) -> dict[str, int]:
    """How many responses each filter drops (the first they fail), and how many are kept."""
    found = Counter(first_failure(text, end) or "kept" for text, end in zip(responses, finished, strict=True))
    return {name: found[name] for name in (*FILTERS, "kept")}


def _long_lines(response: str) -> list[str]:
    lines = (line.strip() for line in response.split("\n"))
    return [line for line in lines if len(line) >= LINE_CHARACTERS]


def _ngrams(response: str) -> list[str]:
    begins = range(0, len(response) - NGRAM_CHARACTERS + 1, NGRAM_STRIDE)
    return [response[begin : begin + NGRAM_CHARACTERS] for begin in begins]


def _most_common(pieces: Sequence[str]) -> int:
    return max(Counter(pieces).values(), default=0)
